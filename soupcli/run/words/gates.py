"""The gates of a run, from the recipe and --require-gain, and the sets that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.cli.options.common import GatedOptions, IngredientOptions
from soupcli.cli.options.soups import SoupOptions
from soupcli.datasets.holdout import SetPart, held_out_of, whole_of
from soupcli.errors import UsageError
from soupcli.evaluation.gates import Gate
from soupcli.recipe.gates import GAIN, Bound, parse, parse_gain
from soupcli.run.words.sets import choose_sets
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.recipe.recipe import Recipe
    from soupcli.recipe.sets import SetSpec


def gates_of_run(
    options: IngredientOptions, recipe: Recipe, sets: Mapping[str, SetSpec], parts: Mapping[str, SetPart]
) -> tuple[dict[str, SetSpec], list[Gate], list[str]]:
    """The sets with those that gates name added to them, the gates, and warnings.

    `soup eval` adds only the set that --require-gain names; it checks other gates on the sets that it was given.
    Raises UsageError for a gain on a set that the recipe does not have.
    """
    if not isinstance(options, GatedOptions):
        return dict(sets), [], []
    if not sets:
        if options.require_gain is not None:
            raise UsageError("--require-gain: needs --val", hint="a gain is measured on a set")
        nothing = "the gates of the recipe are not checked: without --val nothing is evaluated"
        return {}, [], [nothing] if recipe.gates or recipe.require_gain is not None else []
    if isinstance(options, SoupOptions):
        sets = _with_sets(sets, [gate.set for gate in recipe.wanted], recipe, options)
    wanted = [
        Gate(_scored_part(gate.set, parts), gate.metric, parse(gate.text), gate.text, gate.key)
        for gate in recipe.wanted
    ]
    gates = [gate for gate in wanted if gate.set in sets]
    unchecked = [
        f"{gate.key} {gate.text!r}: not checked, as --val does not name that set"
        for gate in wanted
        if gate not in gates
    ]
    if recipe.require_gain is None:
        return dict(sets), gates, unchecked
    gain = parse_gain(recipe.require_gain)
    name = gain.set or whole_of(next(iter(sets)))
    sets = _with_sets(sets, [name], recipe, options)
    return dict(sets), [*gates, _required_gain(recipe.require_gain, _scored_part(name, parts), sets)], unchecked


def _required_gain(text: float | str, name: str, sets: Mapping[str, SetSpec]) -> Gate:
    """`require_gain` as a gate on the set `name`."""
    if name not in sets:
        raise UsageError(
            f"--require-gain {text}: no set {name!r}{suggestion(name, sets)}",
            hint=f"the sets of this run are {', '.join(sets)}",
        )
    _, margin, per_cent = parse_gain(text)
    shown = f">= best {'-' if margin < 0 else '+'} {float(abs(margin)):g}{'%' if per_cent else ''}"
    return Gate(name, None, Bound(">=", True, margin, per_cent, better=True), shown, GAIN)


def _with_sets(
    sets: Mapping[str, SetSpec], names: Sequence[str], recipe: Recipe, options: IngredientOptions
) -> dict[str, SetSpec]:
    """The sets, and those of the recipe with such names that are not among them yet."""
    known = {whole_of(name) for name in sets}
    more = [name for name in names if name in recipe.val and name not in known]
    return {**sets, **choose_sets(more, recipe, asked=options.metric)}


def _scored_part(name: str, parts: Mapping[str, SetPart]) -> str:
    """The set, or its held-out part: a gate is checked on examples that did not select the soup."""
    return held_out_of(name) if held_out_of(name) in parts else name
