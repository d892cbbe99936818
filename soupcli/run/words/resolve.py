"""The words of the command line to everything that they mean: `resolve(options, invocation) -> Resolved`.

Nothing here changes anything: no file is written, no tensor is read, and the result is frozen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, get_args

from soupcli.cli.options.common import GatedOptions, IngredientOptions
from soupcli.cli.options.soups import GreedyOptions, LearnedOptions, SoupOptions
from soupcli.datasets.holdout import SetPart, divide, whole_of
from soupcli.errors import SoupError, UsageError
from soupcli.metrics.direction import is_higher_better
from soupcli.metrics.table import metric_named
from soupcli.networks.device import Device, choose_device
from soupcli.output.ci import Format
from soupcli.run.words.gates import gates_of_run
from soupcli.run.words.recipe import resolve_recipe
from soupcli.run.words.sets import choose_sets
from soupcli.wording import SHARES, suggestion

if TYPE_CHECKING:
    from soupcli.cli.parsing import Command, Invocation
    from soupcli.evaluation.gates import Gate
    from soupcli.recipe.recipe import Recipe
    from soupcli.recipe.sets import SetSpec

HELD_OUT = 0.5  # the default share of experts and of a search
CALIBRATION = ("nll", "ece")  # metrics that compare soups with ensembles if logits are kept


@dataclass(frozen=True)
class Resolved:
    """What a command was asked to do."""

    command: Command
    options: IngredientOptions
    recipe: Recipe
    sets: Mapping[str, SetSpec]  # the first one selects
    parts: Mapping[str, SetPart]  # sets that are a part of one that --holdout divides
    gates: tuple[Gate, ...]
    warnings: tuple[str, ...]

    @cached_property
    def device(self) -> Device:
        """What --device names. It is chosen when it is needed: for `auto`, torch may have to be asked."""
        return choose_device(self.recipe.device)

    @property
    def takes_each_alone(self) -> bool:
        """Whether checkpoints are taken as they are, so that their names need not agree."""
        return self.command.each_alone and self.recipe.window.group_by is None

    @property
    def begins_at_base(self) -> bool:
        """Whether the base is a member of the soup. Otherwise tensors that are not mixed are taken from it."""
        mix = self.recipe.mix
        return self.command.mixes_base and (mix.alpha is not None or mix.method == "stock")

    @property
    def selects(self) -> bool:
        """Whether the soup depends on the scores on the first set."""
        chooses_alpha = self.begins_at_base and len(self.recipe.mix.alpha or ()) > 1
        return self.command.selects or chooses_alpha or self.scales

    @property
    def scales(self) -> bool:
        """Whether the last step is the way from the base to the soup."""
        return self.command.scales and self.recipe.scale is not None

    @property
    def selecting_sets(self) -> dict[str, float]:
        """The sets that select, each with its weight: the first one, or those of the objective."""
        objective = self.recipe.objective
        if objective is None:
            return dict.fromkeys(list(self.sets)[:1], 1.0)
        able = [name for name in self.sets if name not in self.parts or not self.parts[name].held_out]
        if isinstance(objective, str):
            return dict.fromkeys(able, 1.0)
        return {name: objective[whole_of(name)] for name in able if whole_of(name) in objective}

    def with_metrics(self, metrics: Sequence[str]) -> Resolved:
        """The same with further metrics, which are measured on every set that has them."""
        return dataclasses.replace(self, recipe=_with_metrics(self.recipe, metrics))


def resolve(options: IngredientOptions, invocation: Invocation) -> Resolved:
    """Read the recipe, lay environment, --set and flags over it, and choose sets, gates and device.

    Raises UsageError, RecipeError or ValidationError for what cannot be meant.
    """
    _check_output_format(options)
    recipe = resolve_recipe(options, invocation)
    if options.logit_folder is not None:
        recipe = _with_metrics(recipe, CALIBRATION)
    asked = recipe.holdout is not None
    if isinstance(options, GreedyOptions):
        recipe = _with_settings_of_experts(_with_last_of_windows(recipe))
    if isinstance(options, LearnedOptions) and recipe.learned.by == "search":
        recipe = recipe.model_copy(update={"holdout": HELD_OUT if recipe.holdout is None else recipe.holdout})
    if recipe.device != "auto":
        choose_device(recipe.device)
    sets = choose_sets(options.val or [], recipe, asked=options.metric)
    if isinstance(options, SoupOptions) and options.recalibrate and not sets:
        hint = "the inputs of a set are what statistics are estimated from"
        raise UsageError("--recalibrate: needs --val", hint=hint)
    if options.holdout is not None and not sets:
        raise no_sets(invocation.command, recipe)
    with located(recipe):
        chosen, unspoken = _divided(sets, recipe, invocation.command, asked=asked)
        sets, parts = divide(sets, recipe.holdout, chosen)
    sets, gates, warnings = gates_of_run(options, recipe, sets, parts)
    warnings += [*unspoken, *recipe.unused]
    _check_metric(recipe, sets)
    if recipe.scale is not None and not invocation.command.scales:
        warnings = [*warnings, f"scale: soup {invocation.command.name} does not scale what it mixes"]
    if isinstance(options, GreedyOptions):
        warnings += _large_margin(recipe, sets)
    resolved = Resolved(invocation.command, options, recipe, sets, parts, tuple(gates), tuple(warnings))
    with located(recipe):
        said = _check_objective(resolved)
    return dataclasses.replace(resolved, warnings=(*resolved.warnings, *said))


LARGE_MARGIN = 0.05  # of a share: who asks for more has perhaps meant percentage points


def _large_margin(recipe: Recipe, sets: Mapping[str, SetSpec]) -> list[str]:
    """A warning of a margin of Recipe 1 that was perhaps meant as percentage points."""
    metric = next((spec.metric or recipe.metric for spec in sets.values()), "")
    margin = recipe.greedy.min_delta
    if metric not in SHARES or margin < LARGE_MARGIN:
        return []
    return [f"min_delta {margin:g} is {margin * 100:g} percentage points of {metric}: {margin:g}% would be {margin:g}"]


def takes_objective(command: Command, recipe: Recipe) -> bool:
    """Whether the command ranks or chooses by several sets: a fit by gradient goes by one."""
    return command.takes_objective or (command.searches_by_objective and recipe.learned.by == "search")


def _check_objective(resolved: Resolved) -> tuple[str, ...]:
    """Raises UsageError for an objective of sets that were not given, or of a command that chooses by the first set.

    Returns a warning of a command that only sorts by the first set.
    """
    objective, command = resolved.recipe.objective, resolved.command
    if objective is None or not resolved.sets:
        return ()
    takes = takes_objective(command, resolved.recipe)
    if resolved.selects and not takes:
        other = f"soup {command.name} --by search" if command.searches_by_objective else "soup greedy"
        raise UsageError(
            f"objective: soup {command.name} chooses on the first set alone",
            hint=f"--set objective=null, or {other}",
        )
    names = {whole_of(name) for name in resolved.sets}
    for name in objective if isinstance(objective, dict) else ():
        if name not in names:
            raise UsageError(
                f"objective: {name} is not among the sets after --val{suggestion(name, names)}",
                hint=f"these are {', '.join(sorted(names))}",
            )
    if takes:
        return ()
    return (f"objective: soup {command.name} does not go by it, but by {next(iter(resolved.sets))}",)


def _with_metrics(recipe: Recipe, metrics: Sequence[str]) -> Recipe:
    return recipe.model_copy(update={"metrics": list(dict.fromkeys((*recipe.metrics, *metrics)))})


def _with_last_of_windows(recipe: Recipe) -> Recipe:
    """The recipe with `--last` the size of the largest window: other checkpoints are neither read nor hashed."""
    if recipe.greedy.windows is None or recipe.window.last is not None:
        return recipe
    window = recipe.window.model_copy(update={"last": max(recipe.greedy.windows)})
    return recipe.model_copy(update={"window": window})


def _with_settings_of_experts(recipe: Recipe) -> Recipe:
    """The recipe of experts, with an objective and a holdout: what tunes weights on sets shall not judge by them."""
    if recipe.greedy.strategy != "experts":
        return recipe
    holdout = HELD_OUT if recipe.holdout is None else recipe.holdout
    return recipe.model_copy(update={"objective": recipe.objective or "mean", "holdout": holdout})


def _divided(
    sets: Mapping[str, SetSpec], recipe: Recipe, command: Command, *, asked: bool
) -> tuple[list[str], list[str]]:
    """Return the sets that --holdout divides, and warnings about selecting sets that show no examples.

    If nobody asked for a holdout there may be none to divide; otherwise `divide` refuses the first.
    """
    objective = recipe.objective if takes_objective(command, recipe) else None
    if not recipe.holdout:
        return list(sets)[:1], []
    choose = [name for name in sets if not isinstance(objective, dict) or name in objective]
    choose = list(sets)[:1] if objective is None else choose
    able = [name for name in choose if sets[name].shows_examples]
    unable = [name for name in choose if name not in able]
    said = (
        [
            f"holdout: {', '.join(unable)} {'shows' if len(unable) == 1 else 'show'} no examples to hold out, so the "
            "soup is chosen and reported on the same ones: its scores there are too high"
        ]
        if unable
        else []
    )
    return able or choose[: int(asked)], said


def no_sets(command: Command, recipe: Recipe) -> UsageError:
    """The error of a command that needs a set and was given none."""
    known = f": {', '.join(recipe.val)}" if recipe.val else ", or a path: --val data/val"
    return UsageError(f"soup {command.name}: needs --val", hint=f"name a set of the recipe{known}")


def _check_output_format(options: IngredientOptions) -> None:
    """Raises UsageError for an unknown output format, or for one beside --json or --quiet."""
    if not isinstance(options, GatedOptions):
        return
    wanted, known = options.output_format, get_args(Format)
    if wanted not in known:
        raise UsageError(
            f"--output-format {wanted}: not known{suggestion(wanted, known)}", hint=f"one of {', '.join(known)}"
        )
    for flag, given in (("--json", options.as_json), ("--quiet", options.quiet)):
        if wanted != "text" and given:
            raise UsageError(f"--output-format {wanted}: {flag} prints another result", hint="give one of them")


@contextmanager
def located(recipe: Recipe) -> Iterator[None]:
    """Errors that begin with a key of the recipe say where the recipe gives it."""
    try:
        yield
    except SoupError as error:
        locate(error, recipe)
        raise


def locate(error: SoupError, recipe: Recipe) -> None:
    """Make an error that begins with a key of the recipe say where the recipe gives it."""
    error.args = (recipe.located(str(error)),)


def _check_metric(recipe: Recipe, sets: Mapping[str, SetSpec]) -> None:
    """Raises ValidationError for an unknown metric, before anything is read."""
    labelled = any(spec.labelled for spec in sets.values())
    with located(recipe):
        for metric in recipe.metrics:
            metric_named(metric, key="metrics")
        if labelled:
            metric_named(recipe.metric)
        for name, spec in sets.items():
            if spec.labelled and spec.metric is not None:
                metric_named(spec.metric, key=f"val.{name}.metric")
            if spec.own_metrics:
                is_higher_better(spec.metric or recipe.metric, spec.higher_better, place=f"val.{name}")
