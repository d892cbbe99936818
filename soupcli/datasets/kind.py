"""A kind of validation set: how its examples are read, or how it is measured if it shows none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from soupcli.datasets.examples import Examples
    from soupcli.datasets.load_context import LoadContext
    from soupcli.files.manifest import Manifest
    from soupcli.networks.network import Forward, Network, Outline
    from soupcli.report.scores import ClassOrder

Spec = TypeVar("Spec")


class Prompted(NamedTuple):
    """A classifier made of words. `make` builds it from a network's present weights; `words` are its identity."""

    words: object
    make: Callable[[nn.Module], Forward]


@dataclass(frozen=True)
class SetKind(Generic[Spec]):
    """The functions of a kind of set: `load` if it shows examples, else `measure`.

    `fingerprint` changes with everything in the set; it and `measure` get what the run has loaded for sets. `identity`
    returns what determines the scores of a set that other programs evaluate, or None if that is unknown. With `shares`,
    processes share the parts of one measurement, so all of them call `measure`. `classifier` makes logits for networks
    without a classifier; `forward` replaces logits. `check` raises for a set of this name what a run would raise before
    it evaluates, as far as names and small files tell; it gets whether code in the set's own folders is trusted.
    `remark` returns what to say of a set, as far as headers tell: a run whose scores are kept says it too.
    """

    fingerprint: Callable[[Spec, Manifest | None, Any], str | None] | None = None
    load: Callable[[Spec, LoadContext], Examples] | None = None
    class_order: Callable[[Spec, Outline, str], ClassOrder | None] | None = None
    transform: Callable[[Spec, Outline], str | None] | None = None
    classifier: Callable[[Spec, str, Network], Prompted | None] | None = None
    forward: Callable[[Network], Forward] | None = None
    identity: Callable[[Spec, str, Manifest, Any, Callable[[str], None]], dict[str, Any] | None] | None = None
    check: Callable[[Spec, str, bool], None] | None = None
    remark: Callable[[Spec], str | None] | None = None
    shares: bool = False
    measure: Callable[..., Any] | None = None  # spec, weights, metric, runner, tasks, stop -> Score
