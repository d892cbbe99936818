"""`soup landscape --ckpts A B C --val V`: scores over the plane through three checkpoints (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.find import as_named
from soupcli.errors import MixError, UsageError
from soupcli.files.own_file import check_target
from soupcli.mixing.mixture import Mixture
from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.report.surveys import Landscape, PlanePoint
from soupcli.run.deliver import deliver
from soupcli.run.dry_run import Plan, show_plan
from soupcli.run.methods.offsets import inner_products
from soupcli.run.run import Run
from soupcli.run.to_report import scores_to_report
from soupcli.run.words.resolve import resolve
from soupcli.soups.plane import Plane, Point, plane_through
from soupcli.soups.plane import landscape as over_plane

if TYPE_CHECKING:
    from soupcli.cli.options.surveys import LandscapeOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.report.report import Report


def landscape(options: LandscapeOptions, invocation: Invocation) -> int:
    """Score the plane through three checkpoints, on a grid."""
    with Run(resolve(options, invocation)) as run:
        if len(run.checkpoints) != 3:
            raise UsageError(
                f"--ckpts: {len(run.checkpoints)} checkpoints, a plane goes through three",
                hint="e.g. the start and two runs, or the three best of soup rank --quiet",
            )
        run.checkpoints = as_named(run.checkpoints, run.options.ckpts or run.recipe.ckpts)
        run.check_mixable()
        run.require_sets()
        if options.dry_run:
            return show_plan(run, Plan((options.grid**2 + 4) * len(run.sets)))
        assert options.report is not None
        check_target(options.report, "report")
        report = _measure(run, options)
        run.progress.close()
        if deliver(options, report, run.trackers, paths=[str(options.report)]):
            console.print_report(report_text(report, options.report))
    return 0


def _measure(run: Run, options: LandscapeOptions) -> Report:
    """Corners, mean and grid evaluated on every set."""
    plane = _plane(run)
    columns, rows = plane.grid(options.grid, options.margin)
    places = [*plane.corners, *((x, y) for y in rows for x in columns)]
    evaluators = {name: run.evaluators.on(name) for name in run.sets}
    with run.phase("landscape") as progress:
        members = run.sharing(run.checkpoints[0])
        points = over_plane(places, plane, lambda weights: _mixture(run, weights), evaluators, progress=progress)
        mean = run.evaluators.on_all(run.average()(members))

    def placed(point: Point) -> PlanePoint:
        (x, y), weights, scores = point
        return PlanePoint(x=x, y=y, weights=list(weights), scores=scores_to_report(scores))

    thirds = (1 / 3, 1 / 3, 1 / 3)
    x, y = plane.place(thirds)
    found = Landscape(
        members=[str(checkpoint.path) for checkpoint in run.checkpoints],
        corners=[placed(point) for point in points[:3]],
        mean=PlanePoint(x=x, y=y, weights=list(thirds), scores=scores_to_report(mean)),
        columns=columns,
        rows=rows,
        grid=[placed(point) for point in points[3:]],
    )
    ingredients = [
        run.ingredient(checkpoint, point.scores) for checkpoint, point in zip(run.checkpoints, points, strict=False)
    ]
    return run.report(ingredients, landscape=found)


def _mixture(run: Run, weights: Sequence[float]) -> Mixture:
    """The mixture of those whose weight is not 0: a corner is the checkpoint itself, as `soup rank` evaluates it."""
    present = [number for number, weight in enumerate(weights) if weight]
    members = run.sharing(run.checkpoints[0])
    if len(present) == 1:
        return Mixture.uniform([members[present[0]]])
    taken = tuple(members[number] for number in present)
    return Mixture(taken, tuple(weights[number] for number in present), run.output_dtype, members[0])


def _plane(run: Run) -> Plane:
    """The plane through the three. Raises MixError if they lie on one line."""
    members = run.sharing(run.checkpoints[0])
    with run.phase("measure") as progress:
        plane = plane_through(inner_products(members[0], members[1:], progress=progress))
    if plane.is_flat:
        a, b, c = (str(member.path) for member in members)
        raise MixError(
            f"{a}, {b} and {c} lie on one line: no plane goes through them",
            hint="two of them are the same weights, or one is a mixture of the others: name three that differ",
        )
    return plane
