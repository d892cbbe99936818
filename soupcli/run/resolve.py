"""From options to the recipe of a run, and errors that say where the recipe gives what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from soupcli import processes
from soupcli.cli.options import EvalOptions, IngredientOptions, RecipeOptions, SoupOptions
from soupcli.datasets.holdout import held_out_of, whole_of
from soupcli.datasets.load import LabelledSet
from soupcli.errors import SoupError, UsageError
from soupcli.evaluation.gates import Gate
from soupcli.metrics.table import metric_named
from soupcli.output.ci import Format
from soupcli.recipe.gates import GAIN, Bound, parse, parse_gain
from soupcli.recipe.loading import load_recipe
from soupcli.recipe.sets import ArraysSet, ImagesSet, SetSpec, TextSet, TokensSet
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.cli.parsing import Invocation
    from soupcli.recipe.recipe import Recipe
    from soupcli.run.run import Session


DEFAULT_RECIPE = Path("soup.yaml")
# Options that stand for a key of the recipe.
RECIPE_KEYS = {
    **{key: key for key in ("device", "dtype", "metric", "batch_size", "workers", "out", "max_shard_size")},
    **{key: key for key in ("include", "exclude", "base", "key", "adapter_rank", "require_gain", "holdout")},
    **{key: f"greedy.{key}" for key in ("min_delta", "strategy", "orders", "budget")},
    "flops": "cost.flops",
    **{key: key for key in ("amp", "channels_last", "compile", "early_stop", "cache_inputs")},
    **{key: f"learned.{key}" for key in ("per", "constraint", "resident")},
    **{key: f"mix.{key}" for key in ("method", "weights", "alpha", "any_weights")},
}


def resolve_recipe(options: RecipeOptions, invocation: Invocation) -> Recipe:
    """The recipe with environment, --set and flags laid over it, in their order of precedence."""
    values = dataclasses.asdict(options)
    given = {key: values[key] for key in RECIPE_KEYS if values.get(key) not in (None, [])}
    settings: dict[str, str] = {}
    for word in options.set_ or []:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {word}: expected KEY=VALUE", hint="e.g. --set greedy.min_delta=0.001")
        settings[key] = value
    file = options.recipe
    if file is None and DEFAULT_RECIPE.is_file():
        file = DEFAULT_RECIPE
    return load_recipe(
        file,
        variables={RECIPE_KEYS[key]: given[key] for key in given if key in invocation.from_environment},
        settings=settings,
        flags={RECIPE_KEYS[key]: given[key] for key in given if key not in invocation.from_environment},
    )


def begins_at_base(command: str, recipe: Recipe) -> bool:
    """Whether the base is a member of the soup, and not where tensors come from that are not mixed."""
    return command == "mix" and (recipe.mix.alpha is not None or recipe.mix.method == "stock")


def check_output(options: IngredientOptions) -> None:
    """Raises UsageError for an output format that is not known, or beside another one."""
    wanted, known = getattr(options, "output_format", "text"), get_args(Format)
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
    """An error that begins with a key of the recipe says where the recipe gives it."""
    error.args = (recipe.located(str(error)),)


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


def gates_of_run(session: Session) -> list[Gate]:
    """The gates that hold in this run; the sets of those that are not among the session's are added to them.

    `soup eval` adds the set that --require-gain names, and checks other gates on the sets it was given. Raises
    UsageError for a gain on a set that is not there.
    """
    recipe, sets = session.recipe, session.sets
    if not isinstance(session.options, SoupOptions | EvalOptions):
        return []
    if not sets:
        if session.options.require_gain is not None:
            raise UsageError("--require-gain: needs --val", hint="a gain is measured on a set")
        if recipe.gates or recipe.require_gain is not None:
            session.warnings.append("the gates of the recipe are not checked: without --val nothing is evaluated")
        return []
    if isinstance(session.options, SoupOptions):
        _add_sets(session, [gate.set for gate in recipe.wanted])
    wanted = [
        Gate(_reported(session, gate.set), gate.metric, parse(gate.text), gate.text, gate.key) for gate in recipe.wanted
    ]
    return [*(gate for gate in wanted if gate.set in session.sets), *_required_gain(session)]


def _required_gain(session: Session) -> list[Gate]:
    """`require_gain` as a gate: on the set it names, else on the one that selects."""
    if session.recipe.require_gain is None:
        return []
    gain = parse_gain(session.recipe.require_gain)
    name = gain.set or whole_of(session.selecting)
    _add_sets(session, [name])
    name = _reported(session, name)
    if name not in session.sets:
        raise UsageError(
            f"--require-gain {session.recipe.require_gain}: no set {name!r}{suggestion(name, session.sets)}",
            hint=f"the sets of this run are {', '.join(session.sets)}",
        )
    text = f">= best {'-' if gain.margin < 0 else '+'} {float(abs(gain.margin)):g}"
    return [Gate(name, None, Bound(">=", True, gain.margin, better=True), text, GAIN)]


def _add_sets(session: Session, names: Sequence[str]) -> None:
    from soupcli.run.resolve import choose_sets

    recipe, known = session.recipe, {whole_of(name) for name in session.sets}
    more = [name for name in names if name in recipe.val and name not in known]
    session.sets |= choose_sets(more, recipe, asked=session.options.metric)


def _reported(session: Session, name: str) -> str:
    """The set, or the part of it that is held out: what a soup is held against takes no part in selecting it."""
    return held_out_of(name) if held_out_of(name) in session.parts else name
