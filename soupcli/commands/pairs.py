"""`soup pairs --ckpts P... --base START --val V`: angle against gain, pair by pair (the paper's Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.output import console

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options import PairsOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score
    from soupcli.report.report import Report
    from soupcli.report.surveys import Pair
    from soupcli.run.run import Session
    from soupcli.soups.pairs import Paired


def pairs(options: PairsOptions, invocation: Invocation) -> int:
    """Measure angle and gain of pairs of checkpoints.

    The angle is that of their offsets from --base, the network that they were fine-tuned from; the gain is the score
    of their mean less that of the better of the two. N checkpoints take N(N-1)/2 evaluations on each set beside their
    own; --pairs draws fewer. soup plot and soup report draw the report.
    """
    from soupcli.files.atomic import check_file
    from soupcli.run.deliver import deliver
    from soupcli.run.dry_run import Plan, show_plan
    from soupcli.run.run import Session
    from soupcli.soups.pairs import choose_pairs

    with Session("pairs", options, invocation) as session:
        start = _start(session)
        session.check_mixable()
        session.require_sets()
        chosen = choose_pairs(len(session.checkpoints), options.pairs, options.seed)
        if options.dry_run:
            return show_plan(session, Plan((len(session.checkpoints) + len(chosen)) * len(session.sets)))
        assert options.report is not None
        check_file(options.report)
        report = _measure(session, start, chosen, options.seed)
        session.progress.close()
        if deliver(options, report, paths=[str(options.report)]):
            _show(options, report, session)
    return 0


def _start(session: Session) -> Checkpoint:
    """Raises UsageError where there is no start, or fewer than two checkpoints beside it."""
    from soupcli.errors import UsageError

    base = session.recipe.base
    if base is None:
        raise UsageError(
            "soup pairs: needs --base: angles are seen from the network that all were fine-tuned from",
            hint="soup pairs --ckpts runs/*/ --base start/ --val V",
        )
    if len(session.checkpoints) < 2:
        raise UsageError("--ckpts: one checkpoint, a pair needs two")
    return session.open_base(base)


def _measure(session: Session, start: Checkpoint, chosen: Sequence[tuple[int, int]], seed: int) -> Report:
    """Angles in one pass, then every ingredient and the mean of every pair on every set."""
    import math

    from soupcli.checkpoints.compare.agreement import check_mixable
    from soupcli.mixing.mixture import Mixture
    from soupcli.networks.geometry import angles
    from soupcli.report.surveys import Pairs
    from soupcli.run.offsets import inner_products
    from soupcli.run.run import Row
    from soupcli.soups.pairs import evaluate_pairs

    members = session.sharing(start)
    check_mixable([start, *members])
    with session.phase("measure") as progress:
        angle_kk = angles(inner_products(start, members, progress=progress))
    with session.phase("evaluate") as progress:
        alone = session.scores([Row(str(member.path), Mixture.uniform([member])) for member in session.checkpoints])
        evaluators = {name: session.evaluators.on(name) for name in session.sets}
        paired = evaluate_pairs(session.checkpoints, chosen, session.average(), evaluators, progress=progress)
    found = Pairs(
        start=str(start.path),
        possible=math.comb(len(members), 2),
        seed=seed,
        pairs=[_pair(session, of, angle_kk, alone) for of in paired],
    )
    ingredients = [
        session.ingredient(checkpoint, scores) for checkpoint, scores in zip(session.checkpoints, alone, strict=True)
    ]
    return session.report(ingredients, pairs=found)


def _pair(session: Session, of: Paired, angle_kk: Tensor, alone: Sequence[Mapping[str, Score]]) -> Pair:
    from soupcli.evaluation.compare import Side, compare
    from soupcli.report.surveys import Pair
    from soupcli.run.to_report import report_scores

    paths = [str(session.checkpoints[number].path) for number in of.pair]
    mean = f"mean of {paths[0]} and {paths[1]}"
    gains = []
    for name in session.sets:
        better = max(of.pair, key=lambda number: alone[number][name].goodness)
        sides = Side(mean, {name: of.scores[name]}), Side(paths[of.pair.index(better)], {name: alone[better][name]})
        gains += compare(*sides)
    angle = float(angle_kk[of.pair])
    return Pair(members=paths, angle=angle, scores=report_scores(of.scores), gains=gains)


def _show(options: PairsOptions, report: Report, session: Session) -> None:
    found = report.pairs
    assert found is not None
    metrics = {name: session.evaluators.metric_of(name) for name in report.sets}
    table = console.Table("pair", ">angle", *(f">gain on {name}" for name in report.sets))
    for pair in sorted(found.pairs, key=lambda pair: (pair.angle is None, pair.angle or 0.0)):
        gains = [_gain(pair, name, metrics[name]) for name in report.sets]
        table.add(" + ".join(pair.members), "" if pair.angle is None else f"{pair.angle:.1f}°", *gains)
    console.print_table(table)
    sample = "" if len(found.pairs) == found.possible else f", drawn from {found.possible} by seed {found.seed}"
    console.print_result(f"\n{len(found.pairs)} pairs{sample}: {options.report}")


def _gain(pair: Pair, name: str, metric: str) -> str:
    from soupcli.wording import signed

    return next((signed(metric, of.difference) for of in pair.gains if (of.set, of.metric) == (name, metric)), "")
