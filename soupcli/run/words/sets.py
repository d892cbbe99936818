"""Turns the words after --val into sets: names of the recipe, or paths. Other words are errors with a hint.

choose_sets(["imagenet-val", "data/val", "dev.csv:sentence:label"], recipe)
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.datasets.rows import columns_of
from soupcli.errors import UsageError
from soupcli.recipe.sets import SETS, SetSpec, TextSet
from soupcli.wording import HUB_ID, natural_order, suggestion

if TYPE_CHECKING:
    from soupcli.recipe.recipe import Recipe

# Datasets that people name without an owner.
PUBLIC = frozenset(
    {
        *("ag_news", "boolq", "c4", "cifar10", "cifar100", "cola", "conll2003", "emotion", "fashion_mnist", "food101"),
        *("glue", "gsm8k", "hellaswag", "imagenet", "imagenet-1k", "imdb", "librispeech", "mnist", "mnli", "mrpc"),
        *(
            "qnli",
            "qqp",
            "rotten_tomatoes",
            "rte",
            "squad",
            "sst2",
            "stl10",
            "stsb",
            "svhn",
            "trec",
            "wikitext",
            "xnli",
        ),
    }
)


def choose_sets(words: Sequence[str], recipe: Recipe, *, asked: str | None = None) -> dict[str, SetSpec]:
    """The sets that --val names, in the recipe or by path. The metric `asked`, of --metric, overrides a set's own.

    Raises UsageError for a word that is neither.
    """
    chosen: dict[str, SetSpec] = {}
    for word in words:
        if word in recipe.val:
            spec = recipe.val[word]
            over = asked is not None and (spec.labelled or spec.own_metrics)
            chosen[word] = spec.model_copy(update={"metric": None}) if over else spec
        else:
            path = Path(word).expanduser()
            found = _set_at(path) if path.exists() or word.endswith(".tar") else _with_columns(word)
            if found is None:
                raise _neither(word, recipe)
            chosen[word] = found
    return chosen


def _with_columns(word: str) -> TextSet | None:
    """The text set of `dev.csv:sentence:label` or `dev.csv:premise,hypothesis:label`; None if it is no such word."""
    file, colon, columns = word.partition(":")
    path = Path(file).expanduser()
    if not colon or path.suffix.lower() not in TextSet.suffixes or not path.is_file():
        return None
    inputs, _, label = columns.rpartition(":")
    if not inputs or not label:
        hint = f"e.g. --val {file}:sentence:label; its columns are {', '.join(columns_of(path))}"
        raise UsageError(f"--val {word}: expected FILE:INPUT:LABEL, or FILE:INPUT,INPUT:LABEL", hint=hint)
    labels = label.split(",") if "," in label and label not in columns_of(path) else label
    return TextSet.model_validate({"text": path, "input": inputs.split(","), "label": labels})


def _neither(word: str, recipe: Recipe) -> UsageError:
    """The error of a word that is no set of the recipe and no path."""
    known = f"the recipe has {', '.join(recipe.val)}" if recipe.val else "the recipe has no val: sets"
    parts = word.split(",")
    if len(parts) > 1 and all(part in recipe.val or Path(part).expanduser().exists() for part in parts):
        return UsageError(f"--val {word}: no such set", hint=f"a space between two: --val {' '.join(parts)}")
    near = suggestion(word, recipe.val)
    plain = word.partition(":")[0]
    if near:
        return UsageError(f"--val {word}: neither a set of the recipe nor a path{near}", hint=known)
    if Path(plain).suffix.lower() in {suffix for of in SETS.values() for suffix in of.suffixes} or _is_path(plain):
        return UsageError(f"--val {word}: no such file or folder", hint=_there(Path(plain).expanduser()))
    if word.lower() in PUBLIC or HUB_ID.fullmatch(word) is not None:
        name = plain.replace("/", "_")
        hint = (
            'the file of a dataset of the Hub is made once: python -c "from datasets import load_dataset; '
            f"load_dataset('{word}', split='test').to_json('{name}.jsonl')\", then --val {name}.jsonl:INPUT:LABEL; "
            "for pictures save a folder for each class"
        )
        return UsageError(f"--val {word}: looks like a dataset of the Hub, which is not fetched here", hint=hint)
    return UsageError(f"--val {word}: neither a set of the recipe nor a path", hint=known)


def _is_path(word: str) -> bool:
    """Whether a word is meant as a path: it begins as one, or the folder that it begins with is there."""
    if glob.has_magic(word) or re.match(r"[./~]", word):
        return True
    return "/" in word and Path(word.partition("/")[0]).exists()


def _there(path: Path) -> str:
    """What lies in the nearest folder that is there."""
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = sorted((entry.name for entry in folder.iterdir() if not entry.name.startswith(".")), key=natural_order)
    near = suggestion(path.name, names)
    return f"{folder} holds {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}{near}"


def _set_at(path: Path) -> SetSpec:
    is_folder = path.is_dir()
    for key, of_kind in SETS.items():
        if of_kind.takes_folder if is_folder else path.suffix in of_kind.suffixes:
            return of_kind.model_validate({key: path})
    suffixes = [suffix for of_kind in SETS.values() for suffix in of_kind.suffixes]
    raise UsageError(
        f"--val {path}: a set is a folder of class folders, or a file that ends in {', '.join(suffixes)}",
        hint="other sets are named in the recipe, under val:"
        + (" docs/detection.md has one that runs YOLO's own validation" if path.suffix in (".yaml", ".yml") else ""),
    )
