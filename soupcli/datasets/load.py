"""From a set of the recipe to its examples as a network takes them, and to what tells it from every other set.

A kind of set is one row in `recipe.sets.SETS` and one file: the class of the recipe's keys names its module, and the
module's `KIND` says how such sets are read.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    """How sets of this kind are read or measured."""
    kind: SetKind[Any] = import_module(spec.kind).KIND
    return kind


def fingerprint(spec: SetSpec, manifest: Manifest | None = None, tasks: object = None) -> str | None:
    """Changes with everything in the set, and not with its place; None if the examples cannot be seen.

    `manifest` has what is read; `tasks` has what was loaded for sets of this run.
    """
    of_kind = kind_of(spec).fingerprint
    return of_kind(spec, manifest, tasks) if of_kind is not None else None


def load(spec: SetSpec, given: LoadContext) -> Examples:
    """The examples of the set, labelled as `given.metric` needs it.

    Raises NetworkError if the network does not say how it sees such inputs, ValidationError for faults of the set.
    """
    of_kind = kind_of(spec).load
    assert of_kind is not None, f"{type(spec).__name__} shows no examples"
    return of_kind(spec, given)


def class_orders(sets: Mapping[str, SetSpec], metric: str, outline: Callable[[], Outline]) -> dict[str, ClassOrder]:
    """Which class is which in each set whose classes have names; `metric` is the recipe's.

    `outline` is asked for if there is such a set.
    """
    found: dict[str, ClassOrder] = {}
    for name, spec in sets.items():
        of_kind = kind_of(spec).class_order
        order = of_kind(spec, outline(), spec.metric or metric) if of_kind is not None else None
        if order is not None:
            found[name] = order
    return found


def transforms(sets: Mapping[str, SetSpec], outline: Callable[[], Outline]) -> dict[str, str]:
    """Where the transform of the inputs of each set comes from, if it has one. `outline` is asked for if need be."""
    found: dict[str, str] = {}
    for name, spec in sets.items():
        of_kind = kind_of(spec).transform
        source = of_kind(spec, outline()) if of_kind is not None else None
        if source is not None:
            found[name] = source
    return found
