"""`soup pairs --ckpts P... --base START --val V`: angle against gain, pair by pair (the paper's Figure 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.agreement import check_mixable
from soupcli.errors import UsageError
from soupcli.evaluation.compare import Side, compare
from soupcli.files.own_file import check_target
from soupcli.mixing.mixture import Mixture
from soupcli.networks.geometry import angles
from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.report.surveys import Pair, Pairs
from soupcli.run.deliver import deliver
from soupcli.run.dry_run import Plan, show_plan
from soupcli.run.methods.offsets import inner_products
from soupcli.run.run import Row, Run
from soupcli.run.to_report import scores_to_report
from soupcli.run.words.resolve import resolve
from soupcli.soups.pairs import Paired, choose_pairs, evaluate_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.surveys import PairsOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score
    from soupcli.report.report import Report


def pairs(options: PairsOptions, invocation: Invocation) -> int:
    """Measure angle and gain of pairs of checkpoints."""
    with Run(resolve(options, invocation)) as run:
        start = _start(run)
        run.check_mixable()
        run.require_sets()
        chosen = choose_pairs(len(run.checkpoints), options.pairs, options.seed)
        if options.dry_run:
            return show_plan(run, Plan((len(run.checkpoints) + len(chosen)) * len(run.sets)))
        assert options.report is not None
        check_target(options.report, "report")
        report = _measure(run, start, chosen, options.seed)
        run.progress.close()
        if deliver(options, report, run.trackers, paths=[str(options.report)]):
            console.print_report(report_text(report, options.report))
    return 0


def _start(run: Run) -> Checkpoint:
    """Open the checkpoint of --base. Raises UsageError without --base, and for fewer than two checkpoints."""
    base = run.recipe.base
    if base is None:
        raise UsageError(
            "soup pairs: needs --base: angles are seen from the network that all were fine-tuned from",
            hint="soup pairs --ckpts runs/*/ --base start/ --val V",
        )
    if len(run.checkpoints) < 2:
        raise UsageError("--ckpts: one checkpoint, a pair needs two", hint="name further checkpoints: --ckpts runs/*/")
    return run.open_base(base)


def _measure(run: Run, start: Checkpoint, chosen: Sequence[tuple[int, int]], seed: int) -> Report:
    """Measure angles in one pass, then evaluate every ingredient and the mean of every pair on every set."""
    members = run.sharing(start)
    check_mixable([start, *members])
    with run.phase("measure") as progress:
        angle_kk = angles(inner_products(start, members, progress=progress))
    with run.phase("evaluate") as progress:
        alone = run.scores([Row(str(member.path), Mixture.uniform([member])) for member in run.checkpoints])
        evaluators = {name: run.evaluators.on(name) for name in run.sets}
        paired = evaluate_pairs(run.checkpoints, chosen, run.average(), evaluators, progress=progress)
    found = Pairs(
        start=str(start.path),
        possible=math.comb(len(members), 2),
        seed=seed,
        pairs=[_pair(run, of, angle_kk, alone) for of in paired],
    )
    ingredients = [
        run.ingredient(checkpoint, scores) for checkpoint, scores in zip(run.checkpoints, alone, strict=True)
    ]
    return run.report(ingredients, pairs=found)


def _pair(run: Run, of: Paired, angle_kk: Tensor, alone: Sequence[Mapping[str, Score]]) -> Pair:
    paths = [str(run.checkpoints[number].path) for number in of.pair]
    mean = f"mean of {paths[0]} and {paths[1]}"
    gains = []
    for name in run.sets:
        better = max(of.pair, key=lambda number: alone[number][name].goodness)
        sides = Side(mean, {name: of.scores[name]}), Side(paths[of.pair.index(better)], {name: alone[better][name]})
        gains += compare(*sides)
    angle = float(angle_kk[of.pair])
    return Pair(members=paths, angle=angle, scores=scores_to_report(of.scores), gains=gains)
