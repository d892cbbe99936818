"""Loads the examples of a recipe's set for a network, and returns its fingerprint.

A kind of set is one row in `recipe.sets.SETS` and one file: the class of the recipe's keys names its module, and the
module's `KIND` says how such sets are read.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from soupcli.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from soupcli.datasets.examples import Examples
    from soupcli.datasets.kind import SetKind
    from soupcli.datasets.load_context import LoadContext
    from soupcli.files.manifest import Manifest
    from soupcli.networks.network import Outline
    from soupcli.recipe.sets import SetSpec
    from soupcli.report.scores import ClassOrder


def kind_of(spec: SetSpec) -> SetKind[Any]:
    """Return the functions of this kind of set."""
    kind: SetKind[Any] = import_module(spec.kind).KIND
    return kind


def fingerprint(spec: SetSpec, manifest: Manifest | None = None, tasks: object = None) -> str | None:
    """Return the fingerprint of everything in the set, whatever its path, or None if it shows no examples.

    `manifest` records what is read; `tasks` holds what was loaded for sets of this run.
    """
    of_kind = kind_of(spec).fingerprint
    return of_kind(spec, manifest, tasks) if of_kind is not None else None


def check(spec: SetSpec, name: str, *, trust_code: bool) -> None:
    """Raise what a run would raise before it evaluates the set, as far as names and small files tell."""
    of_kind = kind_of(spec).check
    if of_kind is not None:
        of_kind(spec, name, trust_code)


TASKS = {"detection": "detection.md", "segmentation": "segmentation.md"}  # of torchvision


def load(spec: SetSpec, given: LoadContext) -> Examples:
    """Return the examples of the set, labelled as `given.metric` needs.

    Raises NetworkError if the network does not define how inputs are made, ValidationError for faults of the set.
    """
    of_kind = kind_of(spec).load
    assert of_kind is not None, f"{type(spec).__name__} shows no examples"
    _, _, task = type(given.network.module).__module__.partition("torchvision.models.")
    task = task.partition(".")[0]
    if task in TASKS:
        raise NetworkError(
            f"{given.name}: {type(given.network.module).__name__} is a network of torchvision's {task}: it gives no "
            "logits of classes",
            hint=f"a python: set of a function that computes your metric judges it, see docs/{TASKS[task]}",
        )
    return of_kind(spec, given)


def class_orders(sets: Mapping[str, SetSpec], metric: str, outline: Callable[[], Outline]) -> dict[str, ClassOrder]:
    """Return the order of classes in each set whose classes have names. `metric` is the recipe's.

    `outline` is called only if there is such a set.
    """
    found: dict[str, ClassOrder] = {}
    for name, spec in sets.items():
        of_kind = kind_of(spec).class_order
        order = of_kind(spec, outline(), spec.metric or metric) if of_kind is not None else None
        if order is not None:
            found[name] = order
    return found


def transforms(sets: Mapping[str, SetSpec], outline: Callable[[], Outline]) -> dict[str, str]:
    """Return the source of each set's transform, if it has one. `outline` is called only if needed."""
    found: dict[str, str] = {}
    for name, spec in sets.items():
        of_kind = kind_of(spec).transform
        source = of_kind(spec, outline()) if of_kind is not None else None
        if source is not None:
            found[name] = source
    return found


def remarks(sets: Mapping[str, SetSpec]) -> list[str]:
    """Return what to say of the sets before their scores, whether these are kept or not."""
    asked = ((kind_of(spec).remark, spec) for spec in sets.values())
    return [text for ask, spec in asked if ask is not None and (text := ask(spec)) is not None]
