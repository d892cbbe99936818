"""The commands as functions: `soupcli.greedy(runs, val="imagenet-val")` does what `soup greedy` does, without printing.

A function has the name of its command and the command's options as keyword arguments. Errors are SoupErrors, with a
`hint`. Environment variables SOUP_* set options on the command line only; SOUP_CACHE works here as well.
"""

from __future__ import annotations

import importlib
import inspect as inspecting
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack, cast

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.find import find as find_checkpoints
from soupcli.checkpoints.open import How
from soupcli.checkpoints.open import open_checkpoint as open_at
from soupcli.cli.app import COMMANDS
from soupcli.cli.keyword_types import (
    EvaluateKeywords,
    GreedyKeywords,
    InspectKeywords,
    LearnedKeywords,
    MixKeywords,
    OwnKeywords,
    RankKeywords,
    UniformKeywords,
    VerifyKeywords,
)
from soupcli.cli.keywords import listed, options_of
from soupcli.cli.parsing import Command, Invocation
from soupcli.commands.inspect import examine, report_of, resolve_inspection
from soupcli.commands.rank import of_run
from soupcli.commands.verify import Check, checked, is_verified
from soupcli.errors import SoupError, UsageError
from soupcli.files.atomic import write_whole
from soupcli.files.own_file import check_target
from soupcli.late import torch
from soupcli.mixing.old_soup import REPORT
from soupcli.output import console
from soupcli.recipe.networks import PythonNetwork
from soupcli.recipe.sets import PythonSet
from soupcli.report.report_file import read_report
from soupcli.run.external_scores import report_by_file
from soupcli.run.inspection_to_report import inspection_of
from soupcli.run.made import MadeSoup, Measurement, made
from soupcli.run.run import Run
from soupcli.run.score_alone import measure_alone, report_alone
from soupcli.run.words.resolve import resolve
from soupcli.user_code.function import given
from soupcli.user_code.projects import one_turn
from soupcli.wording import with_article

if TYPE_CHECKING:
    from soupcli.report.report import Report

One = str | Path | Checkpoint | MadeSoup
Runs = One | Iterable[One]
OBJECTS = tuple(OwnKeywords.__annotations__)  # keywords that no command has


def find(
    *words: str | Path | Iterable[str | Path], key: str | None = None, weights_name: str | None = None
) -> list[Checkpoint]:
    """Return the checkpoints that paths and globs name, in natural order. Only their headers are read.

    Raises UsageError for no word at all, and CheckpointError for words that name no checkpoint.
    """
    named = [str(_path(one)) for word in words for one in _everyone(word)]
    if not named:
        raise UsageError("find: no paths are given", hint='soupcli.find("runs/*/")')
    return find_checkpoints(named, how=How(weights_name, key)).checkpoints


def open_checkpoint(path: str | Path, *, key: str | None = None, weights_name: str | None = None) -> Checkpoint:
    """Open the checkpoint in a file or folder. Only its header is read."""
    return open_at(Path(_path(path)), How(weights_name, key))


@listed(UniformKeywords)
def uniform(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[UniformKeywords]) -> MadeSoup:
    """Average all checkpoints, as `soup uniform` does."""
    return _soup("uniform", runs, progress, options)


@listed(GreedyKeywords)
def greedy(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[GreedyKeywords]) -> MadeSoup:
    """Add checkpoints, best first, as long as the mean gets no worse, as `soup greedy` does."""
    return _soup("greedy", runs, progress, options)


@listed(LearnedKeywords)
def learned(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[LearnedKeywords]) -> MadeSoup:
    """Fit mixing coefficients by gradient on labelled examples, as `soup learned` does."""
    return _soup("learned", runs, progress, options)


@listed(MixKeywords)
def mix(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[MixKeywords]) -> MadeSoup:
    """Average with given weights, along the line from the base, or by Model Stock, as `soup mix` does."""
    if options.get("report") is not None:
        raise UsageError("mix: report= is of the command line", hint="soup mix soup.json --out again/")
    return _soup("mix", runs, progress, options)


@listed(RankKeywords)
def rank(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[RankKeywords]) -> Measurement:
    """Evaluate every checkpoint by itself and sort them, best first, as `soup rank` does."""
    return _measured("rank", runs, progress, options)


@listed(EvaluateKeywords)
def evaluate(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[EvaluateKeywords]) -> Measurement:
    """Evaluate checkpoints and soups on any number of sets, as `soup eval` does."""
    return _measured("eval", runs, progress, options)


@listed(InspectKeywords)
def inspect(runs: Runs | None = None, *, progress: bool = False, **options: Unpack[InspectKeywords]) -> Measurement:
    """Check whether checkpoints can be averaged, and explain problems, as `soup inspect` does."""
    return _measured("inspect", runs, progress, options)


@listed(VerifyKeywords)
def verify(soup: str | Path | MadeSoup, **options: Unpack[VerifyKeywords]) -> Verification:
    """Check a soup against its report and its ingredients, as `soup verify` does."""
    path = _folder_of(soup) if isinstance(soup, MadeSoup) else Path(soup)
    with one_turn(), torch.inference_mode(mode=False), console.hushed(notes=False):
        checks = checked(options_of(_command("verify"), {**options, "soup": path}))
        report = read_report(path / REPORT if path.is_dir() else path)
    return Verification(is_verified(checks), tuple(checks), report)


class Verification(NamedTuple):
    """The result of `verify`: whether everything is as reported, each check, and the report."""

    verified: bool
    checks: tuple[Check, ...]
    report: Report


class Asked(NamedTuple):
    """A function's arguments, as a command takes them."""

    options: Any
    invocation: Invocation
    checkpoints: list[Checkpoint]


@contextmanager
def _asked(name: str, runs: Runs | None, keywords: Mapping[str, Any]) -> Iterator[Asked]:
    """Turn a function's arguments into the options of a command. Python functions among them work within the block.

    Raises UsageError for a list without checkpoints, and for keywords that the command does not have.
    """
    row = _command(name)
    everyone = _everyone(runs)
    if runs is not None and "ckpts" in keywords:
        raise UsageError(f"{row.name}: checkpoints are given twice", hint="leave ckpts= out")
    if runs is not None and not everyone:
        raise UsageError(f"{row.name}: the list holds no checkpoints", hint='soupcli.find("runs/*/") finds some')
    words = {"ckpts": [str(_path(one)) for one in everyone]} if everyone else {}
    own = {key: value for key, value in keywords.items() if key in OBJECTS}
    others = {key: value for key, value in keywords.items() if key not in OBJECTS}
    if own.get("evaluate") is not None and others.get("key") is not None and _is_score_key(row, everyone, others):
        own.setdefault("score_key", others.pop("key"))
    with ExitStack() as stack:
        parts = _parts(stack, row, own, others)
        if "val" in parts:
            others["val"] = [*parts["val"], *_listed(others.get("val"))]
        options = options_of(row, {**others, **words})
        opened = [one for one in everyone if not isinstance(one, str | Path | MadeSoup)]
        yield Asked(options, Invocation(row, frozenset(), parts), opened)


def _is_score_key(row: Command, everyone: Sequence[One], others: Mapping[str, Any]) -> bool:
    """Whether key= means score_key=: beside evaluate=, of checkpoints that are bare state dicts, which have no keys.

    Raises UsageError for checkpoints that were opened by another key.
    """
    opened = [one for one in everyone if not isinstance(one, str | Path | MadeSoup)]
    named = [str(_path(one)) for one in everyone if isinstance(one, str | Path | MadeSoup)]
    words = named or _listed(others.get("ckpts"))
    if len(opened) < len(everyone) or not opened:
        try:
            opened += find_checkpoints(words, how=How(others.get("weights_name"))).checkpoints
        except SoupError:  # the run says what is wrong with them
            return False
    names = {one.origin.key for one in opened}
    if names != {None} and others["key"] not in names:
        chosen = ", ".join(sorted(name for name in names if name is not None))
        hint = "score_key= is the word under which scores of evaluate= are kept"
        raise UsageError(
            f"{row.name}: key={others['key']!r}: of these checkpoints {chosen} is opened, which key= chooses", hint=hint
        )
    return names == {None}


def _everyone(runs: Runs | None) -> list[One]:
    if runs is None:
        return []
    single = isinstance(runs, str | bytes | Path | Mapping) or hasattr(runs, "state_dict")  # some networks are lists
    return list(runs) if isinstance(runs, Iterable) and not single else [cast("One", runs)]


def _path(one: One) -> str | Path:
    """Return the path of an argument. Raises UsageError unless it is a path, a checkpoint or a saved soup."""
    if isinstance(one, str | Path):
        return one
    if isinstance(one, MadeSoup):
        return _folder_of(one)
    if not hasattr(one, "tensors") or not hasattr(one, "path"):
        hint = 'soupcli.find("runs/*/") gives checkpoints'
        if isinstance(one, Mapping) or hasattr(one, "state_dict"):
            hint = "write it first: safetensors.torch.save_file(state_dict, path)"
        raise UsageError(f"{with_article(one)} is neither a path nor a checkpoint", hint=hint)
    return one.path


def _folder_of(soup: MadeSoup) -> Path:
    if soup.path is None:
        raise UsageError("this soup is not written yet", hint='soup.save("soup/") writes it')
    return soup.path


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str | Path) else list(value)


def _parts(stack: ExitStack, row: Command, own: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the recipe that functions replace: `model` for model=, a set `evaluate` for evaluate=."""
    function, build, key = own.get("evaluate"), own.get("model"), own.get("score_key")
    parts: dict[str, Any] = {}
    for name, value in (("evaluate", function), ("model", build)):
        if value is not None and not callable(value):
            hint = "evaluate= gets the network and returns a number, model= returns a new network: docs/python.md"
            raise UsageError(f"{row.name}: {name}={value!r}: not a function", hint=hint)
    if hasattr(build, "state_dict") and not isinstance(build, type):
        hint = "the search puts other weights into it: model=build, a function that returns a new network"
        raise UsageError(f"{row.name}: model= is a network, not a function that builds one", hint=hint)
    if function is None and own.keys() & {"higher_is_better", "score_key"} and build is None:
        hint = "a metric of val= has its direction in the recipe: higher_is_better: of its set"
        raise UsageError(f"{row.name}: higher_is_better= and score_key= go with evaluate=", hint=hint)
    if key is not None and not (isinstance(key, str) and key.replace("-", "").replace("_", "").isalnum()):
        hint = 'a text that you change with the function, e.g. score_key="val-accuracy-1"'
        raise UsageError(f"{row.name}: score_key={key!r}: letters, digits, - and _ alone", hint=hint)
    if build is not None:
        parts["model"] = PythonNetwork(python=stack.enter_context(given("model", build, key=key)))
    if function is not None:
        reference = stack.enter_context(
            given("evaluate", lambda network, _device: function(network), key=key, tensors=build is None, of=function)
        )
        metric = "accuracy" if inspecting.isgeneratorfunction(function) else None
        parts["val"] = {"evaluate": _set_of(reference, own, others.get("metric", metric))}
    return parts


def _set_of(reference: str, own: Mapping[str, Any], metric: str | None) -> PythonSet:
    """Return the set of an evaluate= function. If the function returns a plain number, higher is better."""
    higher = own.get("higher_is_better")
    if metric is None and higher is None:
        higher = True
    return PythonSet(
        python=reference, metric=metric or "score", higher_is_better=higher, keep=own.get("score_key") is not None
    )


def _soup(name: str, runs: Runs | None, progress: bool, keywords: Mapping[str, Any]) -> MadeSoup:
    with one_turn(), torch.inference_mode(mode=False), console.hushed(notes=progress), ExitStack() as stack:
        asked = stack.enter_context(_asked(name, runs, keywords))
        prepare = importlib.import_module(asked.invocation.command.function.partition(":")[0]).prepare
        run = stack.enter_context(Run(resolve(asked.options, asked.invocation)))
        _check_same(run, asked)
        soup = made(run, prepare, asked.options, notes=progress)
        weakref.finalize(soup, stack.pop_all().close)  # it evaluates and writes until it is no longer used
        return soup


def _measured(name: str, runs: Runs | None, progress: bool, keywords: Mapping[str, Any]) -> Measurement:
    hushed = console.hushed(notes=progress)
    with one_turn(), torch.inference_mode(mode=False), hushed, _asked(name, runs, keywords) as asked:
        if asked.options.report is not None:
            check_target(asked.options.report, "report")
        report = REPORTS[name](asked)
        if asked.options.report is not None:
            write_whole(asked.options.report, report.to_json())
    return Measurement(report)


def _ranked(asked: Asked) -> Report:
    scores = asked.options.scores
    with Run(resolve(of_run(asked.options), asked.invocation)) as run:
        _check_same(run, asked)
        run.check_mixable()
        if scores is not None:
            return _tracked(run, report_by_file(run, scores, asked.options.val or [])[0])
        return _tracked(run, report_alone(run, measure_alone(run))[0])


def _evaluated(asked: Asked) -> Report:
    with Run(resolve(asked.options, asked.invocation)) as run:
        _check_same(run, asked)
        return _tracked(run, report_alone(run, measure_alone(run))[0])


def _inspected(asked: Asked) -> Report:
    with Run(resolve_inspection(asked.options, asked.invocation)) as run:
        _check_same(run, asked)
        run.hashes.start(run.checkpoints)
        examined = examine(run)
        return _tracked(run, report_of(run, examined, inspection_of(run, examined)))


def _tracked(run: Run, report: Report) -> Report:
    """Return the report, after passing it to the run's trackers."""
    run.trackers.finished(report)
    return report


REPORTS: dict[str, Callable[[Asked], Report]] = {"rank": _ranked, "eval": _evaluated, "inspect": _inspected}


def _check_same(run: Run, asked: Asked) -> None:
    """Raises UsageError if a given checkpoint was opened in another way than the run would open it."""
    found = {one.path: one for one in run.singles}
    for one in asked.checkpoints:
        again = found.get(one.path)
        if again is None or (again.origin.key == one.origin.key and again.files == one.files):
            continue
        if (again.origin.key, _names(again)) == (one.origin.key, _names(one)):
            raise UsageError(f"{one.path}: has changed since it was opened", hint="open it again: soupcli.find(...)")
        raise UsageError(
            f"{one.path}: is given as {_opened_as(one)}, and opened as {_opened_as(again)}",
            hint="give the same key= and weights_name= here as well",
        )


def _names(checkpoint: Checkpoint) -> list[Path]:
    return [file.path for file in checkpoint.files]


def _opened_as(checkpoint: Checkpoint) -> str:
    return checkpoint.origin.key or ", ".join(path.name for path in _names(checkpoint))


def _command(name: str) -> Command:
    return next(row for row in COMMANDS if row.name == name)
