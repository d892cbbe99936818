"""`soup inspect --ckpts P... [--base INIT] [--val V]`: whether checkpoints can be mixed, and whether they should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.differences import (
    FATAL,
    differing_integers,
    differing_ranges,
    differing_ties,
    same_weights,
    shared_names,
    survey,
    tied,
)
from soupcli.checkpoints.compare.integers import is_known
from soupcli.checkpoints.compare.settings import differing_settings
from soupcli.checkpoints.numbers import CODES, read_numbers, small_runs
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.cli.parsing import ANSWER_NO, DONE, Invocation
from soupcli.diagnosis.barrier import Barrier, half_way, with_effects
from soupcli.diagnosis.causes import judge
from soupcli.diagnosis.facts import BaseAmongThem, Facts
from soupcli.diagnosis.findings import Examined, NotFinite
from soupcli.diagnosis.neurons import reordered_pairs, rows_beyond
from soupcli.diagnosis.spread import Spread, WeightDistances, groups_of
from soupcli.errors import MixError, NetworkError
from soupcli.files.own_file import check_target
from soupcli.files.unfinished import scratch_folder
from soupcli.mixing.arithmetic.arrays import library_of
from soupcli.mixing.mixture import Mixture
from soupcli.networks.geometry import first_not_finite, measure_layers
from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.run.deliver import deliver, is_kept
from soupcli.run.dry_run import Plan, show_plan
from soupcli.run.inspection_to_report import inspection_of
from soupcli.run.run import Row, Run
from soupcli.run.to_report import ingredient_to_report
from soupcli.run.words.resolve import resolve

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.common import ReportOptions
    from soupcli.cli.options.surveys import InspectOptions
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.report.inspection import Inspection
    from soupcli.report.report import Report
    from soupcli.run.words.resolve import Resolved


def inspect(options: InspectOptions, invocation: Invocation) -> int:
    """Check whether checkpoints can be averaged; explain problems."""
    with Run(resolve_inspection(options, invocation)) as run:
        if options.dry_run:
            base = len(run.sets) if run.recipe.base is not None else 0
            return show_plan(run, Plan(_most_evaluations(len(run.checkpoints), len(run.sets)) + base))
        if options.report is not None:
            check_target(options.report, "report")
        hashed = is_kept(options) or bool(run.sets)  # text names no hash, so the files are not read for it
        if hashed:
            run.hashes.start(run.checkpoints)
        examined = examine(run)
        run.progress.close()
        show(run, options, examined, hashed=hashed)
        found = examined.verdicts or examined.refused is not None
        return ANSWER_NO if options.strict and found else DONE


def resolve_inspection(options: InspectOptions, invocation: Invocation) -> Resolved:
    """Resolve the options, and add the metrics that an inspection measures besides the recipe's."""
    resolved = resolve(options, invocation)
    return resolved.with_metrics(BESIDE) if resolved.sets else resolved


def _most_evaluations(checkpoints: int, sets: int) -> int:
    """Count evaluations: each checkpoint, half way to the mean, the mean; on the first set also without, with each."""
    return (2 * checkpoints + 1) * sets + (2 * checkpoints if sets and checkpoints > 2 else 0)


CHUNK = 1 << 20  # elements that are looked at once
FEW = 64  # elements that are looked at in less time than arrays of them are made
BESIDE = ("accuracy", "nll", "f1")  # measured on every set that has them


def examine(run: Run) -> Examined:
    """Read every checkpoint of the run once, and evaluate all of them if there are sets."""
    checkpoints = run.checkpoints
    with run.phase("inspect"):
        ties = {one: tied(one) for one in checkpoints}
        words = {one: "; ".join(" = ".join(group) for group in groups) or "none" for one, groups in ties.items()}
        differences = [*survey(checkpoints, run.selection), *differing_ties(checkpoints, words)]
        sound, spread, not_finite = _looked_at(run)
        duplicates = _copies(sound, spread)
        settings, integers = differing_settings(checkpoints), differing_integers(checkpoints)
    refused = _refused(run, not_finite)
    with run.phase("evaluate"):
        alone, barriers = _evaluated(run, mixable=refused is None) if run.sets else ([], {})
        base = _base_among_them(run, sound, spread)
    facts = Facts(
        checkpoints=checkpoints,
        differences=differences,
        not_finite=not_finite,
        duplicates=duplicates,
        settings=settings,
        located=sound,
        spread=spread,
        barrier=barriers.get(next(iter(run.sets), "")),
        reordered=reordered_pairs(sound, spread) if spread is not None else {},
        base=base,
        ranges=differing_ranges(checkpoints),
    )
    empty: dict[str, Score] = {}
    return Examined(facts, refused, ties, integers, alone or [empty for _ in checkpoints], barriers, judge(facts))


def _refused(run: Run, not_finite: Sequence[NotFinite]) -> str | None:
    """Why the checkpoints cannot be averaged; None if they can."""
    try:
        run.check_mixable()
    except MixError as error:
        return str(error)
    if not_finite:
        checkpoint, name, value = not_finite[0]
        return f"{checkpoint.path}: tensor {name!r} holds {value}"
    return None


def _looked_at(run: Run) -> tuple[list[Checkpoint], WeightDistances | None, list[NotFinite]]:
    """Return the checkpoints whose numbers are all finite, their distances and angles, and the tensors that are not.

    Every number is read once. If some are not finite, the others are read again without these checkpoints.
    """
    checkpoints = run.checkpoints
    names = shared_names(checkpoints, run.selection)
    spread, not_finite = _spread(run, checkpoints, names)
    known = set(names)
    for checkpoint in checkpoints:
        not_finite += _not_finite(checkpoint, [name for name in checkpoint.tensors if name not in known])
    not_finite = [bad for bad in not_finite if bad[1] not in bad[0].constants]
    broken = {checkpoint for checkpoint, _, _ in not_finite}
    sound = [checkpoint for checkpoint in checkpoints if checkpoint not in broken]
    if len(sound) < len(checkpoints):
        spread = _spread(run, sound, names)[0] if sound else None
    return sound, spread, not_finite


def _spread(
    run: Run, checkpoints: Sequence[Checkpoint], names: Sequence[str]
) -> tuple[WeightDistances | None, list[NotFinite]]:
    """Measure distances and angles of checkpoints over the tensors that they share."""
    if not names:
        return None, []
    base = run.open_base(run.recipe.base) if run.recipe.base is not None else None
    in_base = set(shared_names([checkpoints[0], base], run.selection)) if base is not None else set()
    not_finite: list[NotFinite] = []
    spread = Spread()
    for first in (None, base) if base is not None else (None,):
        everyone = [*([first] if first is not None else []), *checkpoints]
        some = [name for name in names if (name in in_base) == (first is not None)]
        found: list[tuple[int, str, float]] = []
        for geometry in measure_layers(everyone, groups_of(some, checkpoints[0]), quick=True, progress=run.progress):
            spread.add(geometry, has_base=first is not None)
            found += [(bad.checkpoint, bad.name, bad.value) for bad in geometry.not_finite]
        found.sort(key=lambda bad: bad[0])
        not_finite += [(everyone[place], name, value) for place, name, value in found]
    return spread.distances(), not_finite


def _base_among_them(run: Run, sound: Sequence[Checkpoint], spread: WeightDistances | None) -> BaseAmongThem | None:
    """What is known of the base if it lies among whole networks, or beside them."""
    if run.recipe.base is None or spread is None or not (spread.base_is_among_them or spread.base_is_beside_them):
        return None
    if any(one.is_adapter for one in sound):
        return None
    base = run.open_base(run.recipe.base)
    score = _alone(run, base).get(run.selecting) if run.sets else None
    return BaseAmongThem(score, rows_beyond(base, sound))


def _not_finite(checkpoint: Checkpoint, names: Sequence[str]) -> list[NotFinite]:
    """Return the tensors with numbers that are not finite, among those that not all checkpoints share."""
    found: list[NotFinite] = []
    specs = checkpoint.tensors
    small = [name for name in names if specs[name].dtype in CODES and specs[name].numel <= FEW]
    finite = {n for run, numbers in small_runs(checkpoint, small) if all(map(math.isfinite, numbers)) for n in run}
    for name in (name for name in names if name not in finite):
        spec = specs[name]
        for start in range(0, spec.numel if spec.dtype.is_floating_point else 0, CHUNK):
            bad = first_not_finite(read_numbers(checkpoint, name, start, min(CHUNK, spec.numel - start)))
            if bad is not None:
                found.append((checkpoint, name, bad[1]))
                break
    return found


# Degrees between a network and its copy in bfloat16, which rounds each number by 2^-9 of itself at most.
COPY = 0.2


def _copies(checkpoints: Sequence[Checkpoint], spread: WeightDistances | None) -> list[tuple[Checkpoint, Checkpoint]]:
    """Return pairs of the same weights. The copy with fewer digits is second."""
    if spread is None:
        return []
    near_kk = (spread.distance_kk == 0) | (spread.whole_kk < COPY)
    near = library_of(near_kk).argwhere(near_kk).tolist()
    pairs = [(checkpoints[one], checkpoints[other]) for one, other in near if one < other]
    return [pair for pair in pairs if same_weights(*pair, may_differ=is_known)]


def _evaluated(run: Run, *, mixable: bool) -> tuple[list[dict[str, Score]], dict[str, Barrier]]:
    """Evaluate each checkpoint by itself and, if they can be averaged, the barriers between them."""
    members = run.sharing(run.checkpoints[0])
    if not mixable:
        return [_alone(run, member) for member in members], {}
    mean = Mixture.uniform(members)
    alone = run.scores([Row(str(member.path), Mixture.uniform([member])) for member in members])
    if len(members) < 2:
        return alone, {}
    [of_mean] = run.scores([Row("the mean of all", mean)])
    selecting = run.selecting
    with scratch_folder() as folder:
        written = _written(run, mean, folder)
        between = run.scores([Row(f"half way to {member.path}", half_way(written, member)) for member in members])
        barriers = {
            name: Barrier([scores[name] for scores in alone], [scores[name] for scores in between], of_mean[name])
            for name in run.sets
        }
        evaluate = _settling(run, mean, barriers[selecting])
        barrier = barriers[selecting]
        if evaluate is not None:
            barrier = barrier._replace(settled_mean=evaluate(mean))
        evaluate = evaluate if evaluate is not None else run.evaluators.on(selecting)
        barrier = with_effects(barrier, members, written, evaluate, progress=run.progress)
    return alone, barriers | {selecting: barrier}


def _alone(run: Run, member: Checkpoint) -> dict[str, Score]:
    """Return the member's scores, or {} if it does not fit the network or holds numbers that are not finite."""
    try:
        return run.scores([Row(str(member.path), Mixture.uniform([member]))])[0]
    except (MixError, NetworkError):
        return {}


def _written(run: Run, mean: Mixture, folder: Path) -> Checkpoint:
    """Write the mean to a file, so that a mixture with it does not read all members again."""
    from soupcli.mixing.write_soup import WritingOptions, write_soup

    write_soup(mean, folder, WritingOptions(max_shard_size=run.recipe.max_shard_size, format="safetensors"))
    return open_checkpoint(folder, How(base=run.recipe.base))


def _settling(run: Run, mean: Mixture, barrier: Barrier) -> Evaluate | None:
    """Return an evaluation that re-estimates batch-norm statistics, if the mean is worse than the best ingredient."""
    best = max(score.goodness for score in barrier.alone)
    statistics = any(name.endswith("running_mean") for name in mean.kept.tensors)
    labelled = any(spec.labelled for spec in run.sets.values())
    if not (statistics and labelled) or run.recipe.batch_norm != "average" or barrier.mean.goodness >= best:
        return None
    return run.evaluators_by(run.recipe.model_copy(update={"batch_norm": "keep"})).on(run.selecting)


def show(run: Run, options: ReportOptions, examined: Examined, *, hashed: bool) -> None:
    """Print tables and verdicts, the report, or the paths of the checkpoints that go together."""
    inspection = inspection_of(run, examined)
    report = report_of(run, examined, inspection, hashed=hashed)
    if deliver(options, report, run.trackers, paths=_going_together(inspection)):
        console.print_report(report_text(report))


def report_of(run: Run, examined: Examined, inspection: Inspection, *, hashed: bool = True) -> Report:
    """The report of an inspection; only to be shown as text unless `hashed`."""
    hashes = run.hashes if hashed else None
    ingredients = [
        ingredient_to_report(checkpoint, scores, hashes)
        for checkpoint, scores in zip(run.checkpoints, examined.alone, strict=True)
    ]
    return run.report(ingredients, inspection=inspection)


def _going_together(inspection: Inspection) -> list[str]:
    """The largest group with a common start, without those that cannot be mixed with it or that a verdict accuses."""
    odd = {each.path for each in inspection.differences if each.kind in FATAL} | set(inspection.not_finite)
    odd |= {other for _, other in inspection.duplicates} | {path for one in inspection.verdicts for path in one.accused}
    groups = inspection.geometry.groups if inspection.geometry is not None else []
    together = groups[0] if groups else [each.path for each in inspection.checkpoints]
    return [path for path in together if path not in odd]
