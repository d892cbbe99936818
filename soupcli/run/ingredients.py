"""The ingredients of a run: found from the words, chosen, checked against the flags, with one set of names.

found = find_ingredients(resolved, selection, progress, warn)
ingredients = ingredients_of(found.checkpoints, resolved)          # the groups of --group-by, if it is given
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint, with_bases
from soupcli.checkpoints.adapters.base_as_adapter import BaseAsAdapter
from soupcli.checkpoints.compare.constants import with_constants, with_these
from soupcli.checkpoints.compare.names import Names, common_names
from soupcli.checkpoints.find import Listing, find
from soupcli.checkpoints.groups import folder_of_group, grouped
from soupcli.checkpoints.hub import pinned
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.window import PassedOver, choose
from soupcli.cli.options.soups import SoupOptions
from soupcli.errors import CheckpointError, MixError, UsageError
from soupcli.output import console

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.tensor_filter import TensorFilter
    from soupcli.cli.options.common import IngredientOptions
    from soupcli.output.progress_bars import ProgressReporter
    from soupcli.recipe.recipe import Recipe
    from soupcli.run.words.resolve import Resolved

NOTED = 8  # tensors with other names that are named one by one


class FoundIngredients(NamedTuple):
    """The checkpoints of a run before they are grouped."""

    checkpoints: list[Checkpoint]  # with one set of names, if they are to be mixed
    names: Names
    constants: Container[str]  # tensors that need not be finite
    left_out: list[PassedOver]
    pinned_base: Path | None  # the base at its commit, if it is a model of the Hub


def find_ingredients(
    resolved: Resolved, selection: TensorFilter, progress: ProgressReporter, warn: Callable[[str], None]
) -> FoundIngredients:
    """Find the checkpoints that --ckpts or the recipe names; only headers are read.

    Raises UsageError if there are none, or for a flag that has no use with them.
    """
    options, recipe = resolved.options, resolved.recipe
    found = _find(resolved, progress)
    checkpoints, unused = choose(found.checkpoints, recipe.window)
    doubles = [PassedOver(one, f"holds the same weights as {of.path}") for one, of in found.doubles]
    doubles += [PassedOver(soup.checkpoint, f"is {soup.shown}") for soup in found.soups]
    if unused and not options.quiet:
        console.note(
            f"using {len(checkpoints)} of {len(found.checkpoints)} checkpoints: --dry-run says why not the others"
        )
    if recipe.merge_adapters or any(not spec.programs for spec in resolved.sets.values()):
        checkpoints = with_bases(checkpoints, lambda named: _base_on_hub(named, quiet=options.quiet))
    _check_use(checkpoints, resolved, selection)
    names = Names()
    if not resolved.takes_each_alone:
        names, notes = common_names(checkpoints)
        _warn_of_names(notes, warn)
    checkpoints = with_constants([names.applied(checkpoint) for checkpoint in checkpoints], selection)
    constants = checkpoints[0].constants
    selection.check(checkpoints)
    adapters = any(one.is_adapter for one in checkpoints)
    used = checkpoints[0].sources if adapters else ()
    if recipe.base is not None and any(selection.of_base) and not adapters and not resolved.begins_at_base:
        base = open_base(recipe.base, options, names, constants)
        checkpoints = [selection.of_base.applied(checkpoint, base) for checkpoint in checkpoints]
        used = (base,)
    commit = used[0].origin.revision if used else None
    pinned_base = pinned(str(used[0].path), commit) if commit is not None else None
    return FoundIngredients(checkpoints, names, constants, [*unused, *doubles], pinned_base)


def _base_on_hub(named: Path, *, quiet: bool) -> Checkpoint:
    if not quiet:
        console.note(f"the adapters' base is taken from the Hub: {named}")
    try:
        return open_checkpoint(named, How())
    except CheckpointError as absent:
        hint = f"{absent.hint}; or --base FOLDER names it" if absent.hint else "--base FOLDER names it"
        raise CheckpointError(f"{absent}: adapter_config.json names it as the base", hint=hint) from absent


def _find(resolved: Resolved, progress: ProgressReporter) -> Listing:
    options, recipe = resolved.options, resolved.recipe
    words, by = options.ckpts or recipe.ckpts, recipe.window.group_by
    if not words:
        raise UsageError("--ckpts: no checkpoints given", hint="e.g. --ckpts runs/*/")
    how = How(options.weights_name, recipe.key, options.trust, tuple(options.allow_class or ()), recipe.base)
    with progress:
        found = find(
            words,
            how=how,
            out=recipe.out if isinstance(options, SoupOptions) else None,
            standard_input=sys.stdin if "-" in words else (),
            prefer=recipe.window.prefer,
            within=lambda one: None if by is None else folder_of_group(one, by).absolute(),
            doubles=resolved.command.takes_doubles or bool(recipe.mix.weights or recipe.mix.weights_for),
            progress=progress,
        )
    if not options.quiet:
        for line in found.notes:
            console.note(line)
    return found


def _warn_of_names(notes: Sequence[str], warn: Callable[[str], None]) -> None:
    for note in notes[:NOTED]:
        warn(note)
    if len(notes) > NOTED:
        warn(f"{len(notes) - NOTED} more tensors have other names in some checkpoints")


def open_base(path: Path, options: IngredientOptions, names: Names, constants: Container[str]) -> Checkpoint:
    """Open the checkpoint of --base, a whole network, and give its tensors the checkpoints' names."""
    how = How(trust=options.trust, allow=tuple(options.allow_class or ()))
    return with_these(names.applied(open_checkpoint(path, how)), constants)


def base_of_adapters(adapter: Checkpoint, selection: TensorFilter) -> Checkpoint:
    """Return the base of adapters, as a member of their soup.

    Raises CheckpointError if it is missing, and MixError if it lacks a tensor that the adapters hold whole.
    """
    assert isinstance(adapter, AdapterCheckpoint)
    base = BaseAsAdapter.of(adapter)
    lacks = next((name for name in adapter.plain if name not in base.names and selection.mixes(name)), None)
    if lacks is not None:
        raise MixError(
            f"{adapter.path}: holds tensor {lacks!r}, which its base {base.path} has not: no way leads from one to it",
            hint=f"--exclude '{lacks.rpartition('.')[0] or lacks}.*' takes it from one adapter; or --base names a "
            "network that has it",
        )
    return with_these(base, adapter.constants)


def _check_use(checkpoints: Sequence[Checkpoint], resolved: Resolved, selection: TensorFilter) -> None:
    """Raises UsageError for flags that have no use with these checkpoints."""
    options, adapters = resolved.options, any(one.is_adapter for one in checkpoints)
    rank = options.adapter_rank if isinstance(options, SoupOptions) else None
    uses_base = resolved.begins_at_base or resolved.scales or resolved.command.measures_from_base
    needs_base = adapters or any(selection.of_base) or uses_base
    if options.base is not None and not needs_base:
        hint = "it goes with adapters, and with --include and --exclude"
        raise UsageError(f"--base {options.base}: these checkpoints need none", hint=hint)
    if options.key is not None and all(checkpoint.origin.key is None for checkpoint in checkpoints):
        raise UsageError(
            f"--key {options.key}: these checkpoints hold one bare state dict each",
            hint="leave it out: it chooses among several in one file, such as state_dict_ema",
        )
    if rank is not None and not adapters:
        raise UsageError(
            f"--adapter-rank {rank}: these checkpoints are no adapters",
            hint="leave it out: the soup of whole networks has no rank",
        )
    if resolved.recipe.merge_adapters and isinstance(options, SoupOptions):
        _check_merging(resolved.recipe, adapters=adapters)


def _check_merging(recipe: Recipe, *, adapters: bool) -> None:
    """Raises UsageError for --merge-adapters without adapters, or with flags that need an adapter as output."""
    if not adapters:
        raise UsageError(
            "--merge-adapters: these checkpoints are no adapters",
            hint="leave it out: the soup of whole networks is one",
        )
    if recipe.adapter_rank is not None:
        raise UsageError("--merge-adapters: a full network has no --adapter-rank", hint="leave one of them out")
    if recipe.format == "torch":
        raise UsageError("--merge-adapters: writes safetensors, not --format torch", hint="leave one of them out")


def ingredients_of(singles: Sequence[Checkpoint], resolved: Resolved) -> list[Checkpoint]:
    """Return the groups of --group-by, or the checkpoints themselves. Prints how many groups there are.

    Raises UsageError for options that work on single checkpoints only.
    """
    by, quiet = resolved.recipe.window.group_by, resolved.options.quiet
    if by is None:
        return list(singles)
    if resolved.command.looks_at_singles:
        if not quiet:
            console.note(f"--group-by {by}: soup {resolved.command.name} looks at each checkpoint by itself")
        return list(singles)
    _check_options(resolved, by)
    groups = grouped(singles, by)
    if not quiet:
        shown = ", ".join(f"{group.path} ({len(group.members)})" for group in groups[:4])
        more = ", ..." if len(groups) > 4 else ""
        console.note(f"{len(singles)} checkpoints count as {len(groups)}, the mean of each group: {shown}{more}")
    return list(groups)


def _check_options(resolved: Resolved, by: str) -> None:
    mix, greedy = resolved.recipe.mix, resolved.recipe.greedy
    of_mix = {"--weights": mix.weights, "--weights-for": mix.weights_for, "--decay": mix.decay}
    given: dict[str, object] = {"logits": resolved.options.logit_folder}
    given |= of_mix if resolved.command.mixes_base else {}
    given |= {"--windows": greedy.windows} if resolved.command.tries_windows else {}
    for what, value in given.items():
        if value:
            raise UsageError(
                f"--group-by {by}: {what} go with single checkpoints, not with means of several",
                hint="leave one of them out; soup uniform writes the mean of a run as a checkpoint",
            )
