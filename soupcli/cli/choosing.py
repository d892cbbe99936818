"""What the words of the command line name: a device, validation sets, metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from soupcli import processes
from soupcli.cli.resolving import located
from soupcli.errors import UsageError
from soupcli.recipe.recipe import Recipe
from soupcli.recipe.sets import ArraysSet, ImagesSet, SetSpec, TextSet, TokensSet
from soupcli.recipe_yaml import suggestion
from soupcli.validation.loading import LabelledSet
from soupcli.validation.metrics import metric_named


def choose_device(name: str) -> torch.device:
    """The device that `name` stands for. Raises UsageError where it is not there."""
    local = processes.local_number()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device(f"cuda:{(local or 0) % torch.cuda.device_count()}")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    count = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[kind]
    if int(number or 0) >= count:
        have = f"this machine has {count} {kind} device{'' if count == 1 else 's'}"
        raise UsageError(f"--device {name}: {have}", hint="--device auto takes what is there")
    return torch.device(f"cuda:{(local or 0) % count}" if name == "cuda" else name)


def choose_sets(words: Sequence[str], recipe: Recipe, *, asked: str | None = None) -> dict[str, SetSpec]:
    """The sets that --val names, in the recipe or by path; `asked`: the metric of --metric, over that of a set.

    Raises UsageError for what is neither.
    """
    chosen: dict[str, SetSpec] = {}
    for word in words:
        if word in recipe.val:
            spec = recipe.val[word]
            over = asked is not None and isinstance(spec, LabelledSet)
            chosen[word] = spec.model_copy(update={"metric": None}) if over else spec
        elif Path(word).exists() or word.endswith(".tar"):
            chosen[word] = _set_at(Path(word))
        else:
            known = f"the recipe has {', '.join(recipe.val)}" if recipe.val else "the recipe has no val: sets"
            raise UsageError(
                f"--val {word}: neither a set of the recipe nor a path{suggestion(word, recipe.val)}", hint=known
            )
    return chosen


def _set_at(path: Path) -> SetSpec:
    if path.is_dir():
        return ImagesSet(images=path)
    kinds: dict[str, Callable[[], SetSpec]] = {
        ".safetensors": lambda: ArraysSet(arrays=path),
        **dict.fromkeys((".jsonl", ".csv", ".tsv", ".parquet"), lambda: TextSet(text=path)),
        ".tar": lambda: ImagesSet(images=path),
        ".txt": lambda: TokensSet(tokens=path),
    }
    if path.suffix not in kinds:
        raise UsageError(
            f"--val {path}: a set is a folder of class folders, or a file that ends in {', '.join(kinds)}",
            hint="other sets are named in the recipe, under val:",
        )
    return kinds[path.suffix]()


def check_metric(recipe: Recipe, sets: Mapping[str, SetSpec]) -> None:
    """Raises ValidationError for a metric that nobody knows, before anything is read."""
    labelled = any(isinstance(spec, LabelledSet) for spec in sets.values())
    with located(recipe):
        for metric in recipe.metrics:
            metric_named(metric, key="metrics")
        if labelled:
            metric_named(recipe.metric)
        for name, spec in sets.items():
            if isinstance(spec, LabelledSet) and spec.metric is not None:
                metric_named(spec.metric, key=f"val.{name}.metric")
