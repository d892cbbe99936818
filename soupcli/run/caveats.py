"""Checks of the checkpoints of a run before they are mixed, and warnings, before anybody believes their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
from soupcli.checkpoints.adapters.config import MERGE
from soupcli.checkpoints.checkpoint import read_part
from soupcli.checkpoints.compare.agreement import check_agreement, check_mixable
from soupcli.checkpoints.compare.class_orders import class_orders, two_orders
from soupcli.checkpoints.compare.computed_weights import weight_norms
from soupcli.checkpoints.compare.decompositions import perhaps_decomposed
from soupcli.checkpoints.compare.differences import same_weights
from soupcli.checkpoints.compare.factors import perhaps_factors
from soupcli.checkpoints.compare.fixed_numbers import different_sums, different_tables, few_whole_numbers
from soupcli.checkpoints.compare.inputs import different_statistics
from soupcli.checkpoints.compare.integers import check_integers
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.compare.names import check_ties
from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.compare.settings import Setting, differing_settings
from soupcli.checkpoints.compare.special_matrices import broken_rule, triangles
from soupcli.checkpoints.formats.other_files import stands_in
from soupcli.datasets.load import remarks
from soupcli.late import torch
from soupcli.networks.build import key_of_network
from soupcli.networks.library import library_of
from soupcli.run.other_inputs import known_other_inputs

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.recipe.networks import NetworkSpec
    from soupcli.recipe.recipe import Recipe
    from soupcli.recipe.sets import SetSpec


def check_checkpoints(
    checkpoints: Sequence[Checkpoint],
    shared: Callable[[Checkpoint], Checkpoint],
    selection: TensorFilter,
    recipe: Recipe,
) -> list[str]:
    """Return what could not be compared. Raises MixError if the checkpoints cannot be averaged.

    `shared` returns a checkpoint with its tensors that are not mixed from the first one.
    """
    check_agreement(checkpoints, key=recipe.key, base=recipe.base, selection=selection)
    if any(checkpoints[0].tensors.keys().isdisjoint(one.tensors) for one in checkpoints[1:]):
        check_mixable([shared(one) for one in checkpoints])  # nothing in common: it ends before weights are looked at
    check_products(checkpoints, selection)
    check_ties(checkpoints, selection)
    check_mixable([shared(one) for one in checkpoints])
    check_integers(checkpoints, selection)
    return check_meanings(checkpoints, selection)


def check_way(checkpoints: Sequence[Checkpoint], base: Checkpoint, selection: TensorFilter) -> None:
    """Raises MixError if no way leads from a base to the checkpoints: other tensors, parts, tokens or classes."""
    check_mixable([*checkpoints, base])
    if not base.is_adapter:
        check_products([checkpoints[0], base], selection)
        check_meanings([checkpoints[0], base], selection)


UNFIT = (different_sums, different_tables, few_whole_numbers, broken_rule, triangles)  # find what has no right mean


def caveats(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[str]:
    """Return what to say of checkpoints that can be averaged, but perhaps should not be."""
    found = [
        different_statistics(checkpoints, selection),
        weight_norm(checkpoints, selection),
        factors(checkpoints, selection),
        *(find(checkpoints, selection) for find in UNFIT if len(checkpoints) > 1),
        rounded_copies(checkpoints),
    ]
    return [
        *different_networks(checkpoints),
        *classes_said_twice(checkpoints),
        *files_not_here(checkpoints),
        *unknown_settings(checkpoints),
        *(text for text in found if text is not None),
    ]


def different_networks(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return warnings that name what the networks saw and what they compute differently, by their side files."""
    settings = differing_settings(checkpoints)
    computed = [setting for setting in settings if setting.of_network]
    named = [("inputs", [setting for setting in settings if setting.of_inputs]), ("networks", computed)]
    return [f"different {what}, by what their files say: {_shown(found)}" for what, found in named if found]


def classes_said_twice(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a warning for the first checkpoint whose configuration says two orders of its classes."""
    for one in checkpoints:
        orders = class_orders(one) if not one.is_adapter else {}
        found = two_orders({key: orders.get(f"config.json: {key}") for key in ("id2label", "label2id")})
        if found is not None:
            return [f"{one.path}: its config.json says {found}; the soup keeps both: correct the wrong one"]
    return []


def files_not_here(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a warning for files beside the weights that only stand in for others: pointers and web pages."""
    found = [(file, what) for one in checkpoints for file in one.side_files if (what := stands_in(file)) is not None]
    if not found:
        return []
    (file, what), others = found[0], len(found) - 1
    more = f" (and {others} more)" if others else ""
    return [f"{file}{more} {what}: it is not compared, and the soup's copy is of no use: fetch the file itself"]


def unknown_settings(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a warning for the first setting of adapters that nobody here knows."""
    configs = [one.own.config for one in checkpoints if isinstance(one.own, AdapterCheckpoint)]
    said = [(config.file.path, name, value) for config in configs for name, value in config.unknown.items()]
    if not said:
        return []
    (file, name, value), more = said[0], len({name for _, name, _ in said}) - 1
    others = f" (and {more} more such settings)" if more else ""
    said_of = f"{file}: {name} is {value}{others}, which soup does not know"
    return [f"{said_of}: layers are taken to be W + s B A; if they are not, {MERGE}"]


def _shown(settings: Sequence[Setting]) -> str:
    shown = "; ".join(f"{setting.key} ({' | '.join(dict.fromkeys(setting.values))})" for setting in settings[:3])
    return shown + (f"; and {len(settings) - 3} more" if len(settings) > 3 else "")


SAMPLE = 256  # elements of one matrix, that tell most pairs apart


def rounded_copies(checkpoints: Sequence[Checkpoint]) -> str | None:
    """Return a warning that some checkpoints are others with fewer digits, so that their weights count twice."""
    matrix = next((name for name, spec in checkpoints[0].tensors.items() if _is_matrix(spec)), None)
    specs = [one.tensors.get(matrix or "") for one in checkpoints]
    fitting = [one for one, spec in zip(checkpoints, specs, strict=True) if spec is not None and not one.is_adapter]
    if matrix is None or len({one.tensors[matrix].dtype for one in fitting}) < 2:
        return None
    sample = {one: read_part(one, matrix, 0, min(SAMPLE, one.tensors[matrix].numel)) for one in fitting}
    found = [
        (copy, one)
        for copy in fitting
        for one in fitting
        if copy.tensors[matrix].dtype.itemsize < one.tensors[matrix].dtype.itemsize
        and torch.equal(sample[one].to(sample[copy].dtype), sample[copy])
        and same_weights(one, copy)
    ]
    if not found:
        return None
    (copy, one), others = found[0], len({copy for copy, _ in found}) - 1
    more = f", and {others} more are such copies" if others else ""
    return (
        f"{copy.path} holds the weights of {one.path}, rounded to {copy.tensors[matrix].dtype.value}{more}: "
        "the soup counts them twice; give each once"
    )


def _is_matrix(spec: TensorSpec) -> bool:
    return spec.dtype.is_averaged and len(spec.shape) > 1


def weight_norm(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that weight norm's magnitudes and directions are averaged separately, or None without any."""
    found = [name for name in weight_norms(checkpoints[0]) if selection.mixes(name)]
    if not found or len(checkpoints) < 2:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"weight norm ({found[0]!r}{more}): the mean is of magnitudes and of directions, each by itself; "
        "remove_weight_norm before saving gives the mean of the weights"
    )


def factors(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that tensors may be factors of one weight, and are averaged each by itself, or None."""
    if len(checkpoints) < 2:
        return None
    found = [*perhaps_factors(checkpoints, selection), *perhaps_decomposed(checkpoints, selection)]
    if not found:
        return None
    more = f", and {len(found) - 1} more such groups" if len(found) > 1 else ""
    return (
        f"{found[0][0]!r} and {found[0][1]!r} look like factors of one weight{more}: the mean is of each by itself; if "
        "they are, saving what they make together gives the mean of the weights"
    )


def before_scores(
    checkpoints: Sequence[Checkpoint], model: NetworkSpec | None, sets: Mapping[str, SetSpec]
) -> list[str | None]:
    """Return warnings, where there is reason for them, that scores are not those of the networks in the files.

    What imports a library to find out is asked where a network is built: see other_inputs.py.
    """
    if not sets:
        return []
    return [
        different_side_files(checkpoints, model),
        other_network(checkpoints, model),
        known_other_inputs(checkpoints, model, sets),
        *remarks(sets),
    ]


def different_side_files(checkpoints: Sequence[Checkpoint], model: NetworkSpec | None) -> str | None:
    """Return a warning if checkpoints differ in files about their networks and inputs, read or not; else None."""
    first = checkpoints[0]
    own, classes = key_of_network(model, first), class_orders(first)
    beside = [one for one in checkpoints if one.folder != first.folder or class_orders(one) != classes]
    others = [one for one in beside if key_of_network(model, one) != own]
    if not others:
        return _unread_inputs(checkpoints) if model is not None else None
    differing = [setting.key for setting in differing_settings([first, others[0]])]
    said = f" ({', '.join(differing[:3])}{', ...' if len(differing) > 3 else ''})" if differing else ""
    count = "1 checkpoint has" if len(others) == 1 else f"{len(others)} checkpoints have"
    return (
        f"{count} other files beside the weights than {first.path}, {others[0].path} for one{said}: each is "
        "judged by its own config.json, image processor, tokenizer and class names, a soup by those it carries"
    )


def other_network(checkpoints: Sequence[Checkpoint], model: NetworkSpec | None) -> str | None:
    """Return a warning if a configuration beside the weights names another network than the recipe; else None."""
    ask = library_of(model).unlike if model is not None else None
    folders = dict.fromkeys(one.folder for one in checkpoints)
    said = [text for folder in folders if (text := ask(model, folder)) is not None] if ask is not None else []
    if not said:
        return None
    more = f" (and {len(said) - 1} more say such things)" if len(said) > 1 else ""
    return f"{said[0]}{more}: its scores are of another network; put that into args: of model:, or auto in its name"


def _unread_inputs(checkpoints: Sequence[Checkpoint]) -> str | None:
    """Return a warning if files beside the weights name other inputs: the recipe's network reads none of them."""
    settings = [setting for setting in differing_settings(checkpoints) if setting.of_inputs]
    if not settings:
        return None
    return (
        f"other inputs, by the files beside the weights: {_shown(settings)}: model: in the recipe does not read them, "
        "all are judged with one and the same; without model:, or with auto in it, each is judged by its own"
    )
