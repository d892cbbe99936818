"""Every seed of every demo, measured with the command line itself, into docs/results.md.

    python benchmarks/results.py                                  # make results: all demos, seeds 0 to 4
    python benchmarks/results.py --demos digits --seeds 0 1       # a part; the page is not written
    python benchmarks/results.py --folder results/ --jobs 2       # families kept; goes on from what is there
    python benchmarks/results.py --demos text --quick             # best, uniform and greedy alone: minutes a seed

Each family is made by `soup demo KIND DIR --seed S`; each line of a table is read from the report of the command that
the page shows beside it, run in that folder. What was evaluated once is kept, so a second run takes minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DEMOS = ("digits", "text", "images")
SEEDS = (0, 1, 2, 3, 4)
PAGE = Path(__file__).parent.parent / "docs" / "results.md"
SELECTING, TEST = "val", "test"

Report = dict[str, Any]
Scores = dict[str, float]  # set -> accuracy in per cent


class Command(NamedTuple):
    """What is typed, with the sets in the place of SETS, and the lines that its report gives."""

    words: str
    lines: dict[str, Callable[[Report], Any]]


def ingredient(place: int) -> Callable[[Report], Any]:
    """The scores of the ingredient at this place of the ranking."""
    return lambda report: report["ingredients"][place]["scores"]


def soup(report: Report) -> Any:
    """The scores of the soup."""
    return report["soup"]["scores"]


COMMANDS = [
    Command(
        "soup rank --ckpts runs/*/ --val SETS --save-logits logits",
        {"best ingredient": ingredient(0), "second best": ingredient(1)},
    ),
    Command(
        "soup greedy --ckpts runs/*/ --val SETS --with-uniform --logits logits",
        {
            "uniform": lambda report: report["uniform"]["scores"],
            "greedy": soup,
            "ensemble": lambda report: report["ensemble"]["scores"],
            "greedy ensemble": lambda report: report["greedy_ensemble"]["scores"],
        },
    ),
    Command(
        "soup greedy --ckpts runs/*/ --val SETS --set greedy.order=random --set greedy.seed=SEED",
        {"greedy, random order": soup},
    ),
    *(
        Command(
            f"soup learned --ckpts runs/*/ --val SETS --per {per} --constraint {constraint}",
            {f"learned by {per}, {constraint}": soup},
        )
        for constraint in ("simplex", "affine")
        for per in ("model", "layer", "tensor")
    ),
]

QUICK = [
    Command(
        "soup greedy --ckpts runs/*/ --val SETS --with-uniform",
        {
            "best ingredient": lambda report: report["best"]["scores"],
            "uniform": lambda report: report["uniform"]["scores"],
            "greedy": soup,
        },
    )
]


class Family(NamedTuple):
    """What was measured on one family of ingredients."""

    seed: int
    sets: list[str]
    scores: dict[str, Scores]  # line -> scores
    members: int  # of the greedy soup
    ingredients: int


def measure(kind: str, base: Path, commands: Sequence[Command], seed: int) -> Family:
    """One family made, ranked and mixed by the command line; by QUICK on the selecting and the test set alone."""
    folder = base / f"{kind}-{seed}"
    run(["demo", kind, str(folder), "--seed", str(seed), "--quiet"])
    sets = list(yaml.safe_load((folder / "soup.yaml").read_text())["val"])
    sets = sets if commands is COMMANDS else [SELECTING, TEST]
    scores: dict[str, Scores] = {}
    greedy: Report = {}
    for number, command in enumerate(commands):
        words = command.words.replace("SETS", " ".join(sets)).replace("SEED", str(seed)).split()[1:]
        out = [] if words[0] == "rank" else ["--out", f"soups/{number}", "--force"]
        report = json.loads(run([*words, "--json", *out], cwd=folder))
        for line, found in command.lines.items():
            scores[line] = {name: 100 * found(report)[name]["accuracy"]["value"] for name in sets}
        greedy = report if "greedy" in command.lines else greedy
    print(f"{kind} {seed}: done", file=sys.stderr, flush=True)
    return Family(seed, sets, scores, len(greedy["soup"]["members"]), len(greedy["ingredients"]))


def run(words: Sequence[str], cwd: Path | None = None) -> str:
    """Standard output of `soup WORDS...`; globs are left to it."""
    command = [sys.executable, "-m", "soupcli", *words]
    path = str(Path(__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": path}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"soup {' '.join(words)}: exit code {ran.returncode}\n{ran.stderr}")
    return ran.stdout


def page_of(kind: str, commands: Sequence[Command], families: Sequence[Family]) -> str:
    """One demo in Markdown: commands, means and standard errors over seeds, gains, then every seed."""
    sets = columns(families[0].sets)
    lines = list(families[0].scores)
    members = ", ".join(f"{family.members} of {family.ingredients}" for family in families)
    text = [f"### `soup demo {kind}`", "", *listed(commands), "", *heading("weights", sets)]
    text += [row(line, [mean(values(families, line, name)) for name in sets]) for line in lines]
    text += ["", f"Gain over the best ingredient, mean over {len(families)} seeds:", "", *heading("weights", sets)]
    text += [row(line, [mean(gains(families, line, name), sign="+") for name in sets]) for line in lines[1:]]
    text += ["", f"The greedy soup kept {members} ingredients.", "", "<details><summary>Every seed</summary>", ""]
    text += heading("seed | weights", sets)
    for family in families:
        text += [
            row(f"{family.seed} | {line}", [f"{score(family, line, name):.2f}" for name in sets]) for line in lines
        ]
    return "\n".join([*text, "", "</details>", ""])


def columns(sets: Sequence[str]) -> list[str]:
    """The sets, and the mean of the shifted ones where there are several."""
    shifted = [name for name in sets if name not in (SELECTING, TEST)]
    return [*sets, "mean of shifted"] if len(shifted) > 1 else list(sets)


def score(family: Family, line: str, name: str) -> float:
    """Accuracy in per cent on a set or over the shifted ones."""
    if name in family.sets:
        return family.scores[line][name]
    shifted = [other for other in family.sets if other not in (SELECTING, TEST)]
    return statistics.mean(family.scores[line][other] for other in shifted)


def values(families: Sequence[Family], line: str, name: str) -> list[float]:
    """One for each seed."""
    return [score(family, line, name) for family in families]


def gains(families: Sequence[Family], line: str, name: str) -> list[float]:
    """Over the best ingredient of each seed."""
    best = values(families, "best ingredient", name)
    return [one - other for one, other in zip(values(families, line, name), best, strict=True)]


def mean(numbers: Sequence[float], sign: str = "") -> str:
    """With the standard error over seeds."""
    error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
    return f"{statistics.mean(numbers):{sign}.2f} ± {error:.2f}"


def heading(first: str, sets: Sequence[str]) -> list[str]:
    """The two lines above a table."""
    return [row(first, sets), row(" | ".join("---" for _ in first.split("|")), ["---:" for _ in sets])]


def row(first: str, cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {first} | {' | '.join(cells)} |"


def listed(commands: Sequence[Command]) -> Iterator[str]:
    """Which command gives which lines."""
    yield "| lines | command |"
    yield "| --- | --- |"
    for command in commands:
        yield f"| {'; '.join(command.lines)} | `{command.words}` |"


def replaced(page: str, mark: str, text: str) -> str:
    """The page with `text` between the two comments of this name."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{text}\n{end}{tail}"


def main() -> None:
    """Measures, prints each demo's tables, and puts them into the page where all seeds were measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demos", nargs="+", choices=DEMOS, default=list(DEMOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--folder", type=Path, help="where families are made and kept (default: a temporary folder)")
    parser.add_argument("--quick", action="store_true", help="best, uniform and greedy, without the shifted sets")
    parser.add_argument("--jobs", type=int, default=1, help="families that are measured at once")
    options = parser.parse_args()
    chosen = QUICK if options.quick else COMMANDS
    with tempfile.TemporaryDirectory() as temporary:
        base = (options.folder or Path(temporary)).resolve()
        for kind in options.demos:
            with ThreadPoolExecutor(options.jobs) as pool:
                families = list(pool.map(partial(measure, kind, base, chosen), options.seeds))
            text = page_of(kind, chosen, families)
            print(text, flush=True)
            if tuple(options.seeds) == SEEDS:
                PAGE.write_text(replaced(PAGE.read_text("utf-8"), kind, text), "utf-8")


if __name__ == "__main__":
    main()
