"""A report to a model card: the README.md beside a soup's weights, with the front matter that the Hub reads.

    text = model_card(report, beside)                      # the same report gives the same bytes

Format: https://huggingface.co/docs/hub/model-cards. The ingredient's own README follows below.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from pydantic import ValidationError

from soupcli.datasets.holdout import whole_of
from soupcli.files.json_text import plain
from soupcli.recipe.recipe import Recipe
from soupcli.wording import HUB_ID, legible, shown, signed
from soupcli.wording import markdown as _cell

if TYPE_CHECKING:
    from soupcli.report.report import Report
    from soupcli.report.scores import MetricScore, Scores
    from soupcli.report.soups import Soup

BELOW = "<!-- The README of the ingredient that gave the side files stands below. -->"
TAGS = ("model-soup", "merge")
LIBRARIES = {
    "timm": "timm",
    "transformers": "transformers",
    "open_clip": "open_clip",
    "sentence_transformers": "sentence-transformers",
}  # key of `model:` -> on the Hub
# Kinds of sets -> tasks of the Hub.
TASKS = {"images": "image-classification", "text": "text-classification", "tokens": "text-generation"}
NORMAL = 1.959963984540054  # half the width of a 95% interval, in standard errors
KEPT_KEYS = ("language", "pipeline_tag", "datasets")  # of the ingredient's own front matter
READ_KEYS = (*KEPT_KEYS, "license", "base_model", "library_name")
MOST_FRONT = 20_000  # letters of these keys


class ReadMe(NamedTuple):
    """The README of an ingredient: its front matter, and the rest."""

    front: Mapping[str, Any] = {}
    text: str = ""

    @classmethod
    def of(cls, content: str) -> ReadMe:
        """Divide a README into front matter, which may be empty, and text."""
        found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n?(.*)", content, re.DOTALL)
        if found is None:
            return cls({}, content)
        return cls(_front_of(found[1]), found[2])


class _Words(yaml.BaseLoader):
    """Reads all scalars as text, and no aliases: a few lines of them stand for more values than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _front_of(text: str) -> dict[str, Any]:
    """Return the keys of a front matter that a card takes over, if they hold a word or a list of words."""
    blocks = re.split(r"^(?=[^\s#-])", text, flags=re.MULTILINE)
    wanted = "".join(block for block in blocks if block.partition(":")[0] in READ_KEYS)
    try:
        front = yaml.load(wanted, _Words) if len(wanted) <= MOST_FRONT else None
    except (yaml.YAMLError, RecursionError):
        front = None
    return {key: value for key, value in front.items() if _is_plain(value)} if isinstance(front, dict) else {}


def _is_plain(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


class CardSources(NamedTuple):
    """What the card needs besides the report: the ingredients' READMEs, and the library that reads their folders."""

    readmes: Sequence[ReadMe] = ()  # of the members, in order
    kept: ReadMe = ReadMe()  # of the one that gave the side files
    library: str | None = None


def model_card(report: Report, beside: CardSources) -> str:
    """Return the whole card: front matter, members, scores, and how to make the soup again."""
    assert report.soup is not None
    front = _yaml(_front(report, beside), sort_keys=False)
    below = ReadMe.of(beside.kept.text).text.strip() if beside.kept.text else ""
    if BELOW in below:  # of an ingredient that is a soup itself
        below = below.partition(BELOW)[2].strip()
    elif below.startswith("# A model soup"):
        below = ""
    parts = [
        f"---\n{front}---\n",
        "# A model soup\n",
        _made_of(report),
        _scores(report),
        _how(report),
        *([BELOW + "\n", below + "\n"] if below else []),
    ]
    return "\n".join(part for part in parts if part)


def _front(report: Report, beside: CardSources) -> dict[str, Any]:
    found: dict[str, Any] = {}
    bases = _bases(report, beside)
    if bases:
        found["base_model"] = bases
        found["base_model_relation"] = "merge"
    library = beside.library or _library(report)
    found |= {"library_name": library} if library else {}
    found["tags"] = list(TAGS)
    licences = [readme.front.get("license") for readme in beside.readmes]
    if licences and isinstance(licences[0], str) and all(licence == licences[0] for licence in licences):
        found["license"] = licences[0]
    found |= {key: beside.kept.front[key] for key in KEPT_KEYS if key in beside.kept.front}
    results = _results(report)
    if results:
        found["model-index"] = [{"name": _name(report), "results": results}]
    return found


def _name(report: Report) -> str:
    assert report.soup is not None
    return legible(PurePath(report.soup.path).parent.name or "soup")


def _bases(report: Report, beside: CardSources) -> list[str]:
    """Return the Hub ids of the members, or of the models that they were fine-tuned from."""
    assert report.soup is not None
    found = [re.split("[@:]", path)[0] for path in report.soup.members]
    for readme in beside.readmes:
        base = readme.front.get("base_model")
        found += [str(one) for one in (base if isinstance(base, list) else [base])]
    paths = {path for path, commit in report.revisions.items() if commit is None}  # runs/a only looks like an id
    return list(dict.fromkeys(word for word in found if HUB_ID.fullmatch(word) and word not in paths))


def _library(report: Report) -> str | None:
    if report.soup is not None and report.soup.adapter is not None:
        return "peft"
    model = report.recipe.get("model")
    return next((LIBRARIES[key] for key in model if key in LIBRARIES), None) if isinstance(model, dict) else None


def _results(report: Report) -> list[dict[str, Any]]:
    assert report.soup is not None
    return [
        {
            "task": {"type": _task(report, name)},
            "dataset": {"name": legible(name), "type": legible(name)},
            "metrics": [
                {"type": legible(metric), "name": legible(metric), "value": score.value}
                for metric, score in sorted(metrics.items())
                if score.value is not None
            ],
        }
        for name, metrics in _by_set(report)
    ]


def _by_set(report: Report) -> list[tuple[str, Mapping[str, MetricScore]]]:
    """Return the soup's scores in the order in which the sets were named."""
    assert report.soup is not None
    order = {name: number for number, name in enumerate(report.sets)}
    scores = report.soup.scores
    return [(name, scores[name]) for name in sorted(scores, key=lambda name: (order.get(name, len(order)), name))]


def _task(report: Report, name: str) -> str:
    sets = report.recipe.get("val") or {}
    spec = sets.get(name) or sets.get(whole_of(name)) or {}
    return next((task for kind, task in TASKS.items() if kind in spec), "other")


def _made_of(report: Report) -> str:
    soup = report.soup
    assert soup is not None
    hashes = report.hashes
    lines = [
        f"The weights are {_mixture(report, soup)}, made by `soup {report.command}` "
        "([Wortsman et al. 2022](https://arxiv.org/abs/2203.05482)).",
        "",
        "| member | weight | content |",
        "| --- | --- | --- |",
    ]
    rows = zip(soup.members, soup.weights, strict=True)
    lines += [f"| {_cell(path)} | {weight:.6g} | `{hashes.get(path, '')[:19]}` |" for path, weight in rows]
    if soup.coefficients is not None:
        lines += ["", "Each layer has its own weights: see `soup.json`."]
    return "\n".join(lines) + "\n"


def _mixture(report: Report, soup: Soup) -> str:
    """Say how many fine-tuned models are mixed, and how far from their base."""
    base = report.base_of_soup
    count = sum(path != base for path in soup.members)
    if not count:
        return f"those of the base {_cell(base or '')}, unchanged"
    mean = f"the mean of {count} fine-tuned model{'' if count == 1 else 's'}"
    if base not in soup.members:
        return mean
    far = report.scale.scale if report.scale is not None else report.alpha
    return f"on the way from {_cell(base)} to {mean}" + (f", {far:g} of it" if far is not None else "")


def _scores(report: Report) -> str:
    """Return a table of soup and best ingredient on every set: scores, their difference, 95% intervals."""
    soup = report.soup
    assert soup is not None
    if not soup.scores:
        return ""
    lines = [
        "## Scores",
        "",
        f"| set | metric | soup | {report.name_of_best} | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    differences = {(one.set, one.metric): one for one in report.comparisons}
    for name, metrics in _by_set(report):
        for metric in sorted(metrics):
            best = _shown(report.best.scores, name, metric) if report.best is not None else ""
            held = differences.get((name, metric))
            difference = ""
            if held is not None and held.low is not None and held.high is not None:
                ends = f"{signed(metric, held.low)} to {signed(metric, held.high)}"
                against = ", cross-fitted" if held.cross_fitted else ""
                difference = f"{signed(metric, held.difference)} ({ends}{against})"
            cells = (_cell(name), _cell(metric), _shown(soup.scores, name, metric), best, difference)
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "In brackets: 95% intervals. Differences of per cent are in points."]
    if any(one.cross_fitted for one in report.comparisons):
        lines.append("Cross-fitted: compared with an ingredient that these examples did not select either.")
    if report.selecting_set is not None and (report.command != "uniform" or report.scale is not None):
        chose = report.selecting_sets or [report.selecting_set]
        tried = max((one.tried for one in report.comparisons if one.tried is not None), default=None)
        of_tried = f", of {tried} tried" if tried is not None else ""
        lines.append(f"The soup was selected on {', '.join(map(_cell, chose))}{of_tried}, which flatters it there.")
    return "\n".join(lines) + "\n"


def _shown(scores: Scores, name: str, metric: str) -> str:
    score = scores.get(name, {}).get(metric)
    if score is None or score.value is None:
        return ""
    value = shown(metric, score.value, None)
    if score.stderr is None:
        return value
    ends = (shown(metric, score.value + sign * NORMAL * score.stderr, None) for sign in (-1, 1))
    return f"{value} ({' to '.join(ends)})"


def _how(report: Report) -> str:
    """Return the command and the resolved recipe."""
    members = [[member.path for member in one.members] or [one.path] for one in report.ingredients]
    words = ["soup", report.command, "--ckpts", *(path for paths in members for path in paths)]
    words += ["--val", *report.sets] if report.sets else []
    recipe = _yaml(_wishes(report.recipe), sort_keys=True)
    versions = ", ".join(f"{_cell(name)} {_cell(version)}" for name, version in sorted(report.versions.items()))
    return "\n".join(
        [
            "## How it was made",
            "",
            *_fenced("sh", legible(shlex.join(words))),
            "",
            *_fenced("yaml", recipe.rstrip("\n")),
            "",
            f"Versions: {versions}. `soup verify` checks the weights against `soup.json`, which has every step.",
            "",
        ]
    )


def _wishes(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe without keys that have their default value."""
    try:
        found = Recipe.model_validate(dict(recipe))
    except ValidationError:
        return dict(recipe)
    wishes: dict[str, Any] = plain(found.model_dump(exclude_defaults=True, exclude_none=True))
    return wishes


def _yaml(value: object, *, sort_keys: bool) -> str:
    """Return YAML in which letters that `legible` would escape are YAML's own escapes."""
    text = yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=True, width=1000)
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=False, width=1000)


def _fenced(language: str, text: str) -> list[str]:
    """Return a block of code whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text, fence]
