"""`soup landscape --ckpts A B C --val V`: scores over the plane through three checkpoints (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.output import console

if TYPE_CHECKING:
    from soupcli.cli.options import LandscapeOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.mixing.mixture import Mixture
    from soupcli.report.report import Report
    from soupcli.report.surveys import Place
    from soupcli.run.run import Session
    from soupcli.soups.plane import Plane, Point


def landscape(options: LandscapeOptions, invocation: Invocation) -> int:
    """Score the plane through three checkpoints, on a grid.

    Every point of the plane is a mixture of the three, outside the triangle with negative weights. Every one is
    evaluated, on each set, and kept: an interrupted run goes on, a finer grid evaluates what is new. soup plot and
    soup report draw the report.
    """
    from soupcli.errors import UsageError
    from soupcli.files.atomic import check_file
    from soupcli.run.deliver import deliver
    from soupcli.run.dry_run import Plan, show_plan
    from soupcli.run.run import Session

    with Session("landscape", options, invocation) as session:
        if len(session.checkpoints) != 3:
            raise UsageError(
                f"--ckpts: {len(session.checkpoints)} checkpoints, a plane goes through three",
                hint="e.g. the start and two runs, or the three best of soup rank --quiet",
            )
        session.check_mixable()
        session.require_sets()
        if options.dry_run:
            return show_plan(session, Plan((options.grid**2 + 4) * len(session.sets)))
        assert options.report is not None
        check_file(options.report)
        report = _measure(session, options)
        session.progress.close()
        if deliver(options, report, paths=[str(options.report)]):
            _show(options, report)
    return 0


def _measure(session: Session, options: LandscapeOptions) -> Report:
    """Corners, mean and grid evaluated on every set."""
    from soupcli.report.surveys import Landscape, Place
    from soupcli.run.to_report import report_scores
    from soupcli.soups.plane import landscape as over_plane

    plane = _plane(session)
    columns, rows = plane.grid(options.grid, options.margin)
    places = [*plane.corners, *((x, y) for y in rows for x in columns)]
    evaluators = {name: session.evaluators.on(name) for name in session.sets}
    with session.phase("landscape") as progress:
        members = session.sharing(session.checkpoints[0])
        points = over_plane(places, plane, lambda weights: _mixture(session, weights), evaluators, progress=progress)
        mean = session.evaluators.on_all(session.average()(members))

    def placed(point: Point) -> Place:
        (x, y), weights, scores = point
        return Place(x=x, y=y, weights=list(weights), scores=report_scores(scores))

    thirds = (1 / 3, 1 / 3, 1 / 3)
    x, y = plane.place(thirds)
    found = Landscape(
        members=[str(checkpoint.path) for checkpoint in session.checkpoints],
        corners=[placed(point) for point in points[:3]],
        mean=Place(x=x, y=y, weights=list(thirds), scores=report_scores(mean)),
        columns=columns,
        rows=rows,
        grid=[placed(point) for point in points[3:]],
    )
    ingredients = [
        session.ingredient(checkpoint, point.scores)
        for checkpoint, point in zip(session.checkpoints, points, strict=False)
    ]
    return session.report(ingredients, landscape=found)


def _mixture(session: Session, weights: Sequence[float]) -> Mixture:
    """The mixture of those whose weight is not 0: a corner is the checkpoint itself, as `soup rank` evaluates it."""
    from soupcli.mixing.mixture import Mixture

    present = [number for number, weight in enumerate(weights) if weight]
    members = session.sharing(session.checkpoints[0])
    if len(present) == 1:
        return Mixture.uniform([members[present[0]]])
    taken = tuple(members[number] for number in present)
    return Mixture(taken, tuple(weights[number] for number in present), session.output_dtype, members[0])


def _plane(session: Session) -> Plane:
    """Raises MixError where the three lie on one line."""
    from soupcli.errors import MixError
    from soupcli.run.offsets import inner_products
    from soupcli.soups.plane import plane_through

    members = session.sharing(session.checkpoints[0])
    with session.phase("measure") as progress:
        plane = plane_through(inner_products(members[0], members[1:], progress=progress))
    if plane.is_flat:
        a, b, c = (str(member.path) for member in members)
        raise MixError(
            f"{a}, {b} and {c} lie on one line: no plane goes through them",
            hint="two of them are the same weights, or one is a mixture of the others: name three that differ",
        )
    return plane


def _show(options: LandscapeOptions, report: Report) -> None:
    from soupcli.wording import shown

    found = report.landscape
    assert found is not None
    columns = [(name, metric) for name in report.sets for metric in found.mean.scores[name]]
    table = console.Table("weights", *(f">{name} {metric}" for name, metric in columns), ">distance")
    for label, place in [*zip(found.members, found.corners, strict=True), ("their mean", found.mean)]:
        scores = [place.scores[name][metric] for name, metric in columns]
        cells = [shown(metric, score.value, score.stderr) for (_, metric), score in zip(columns, scores, strict=True)]
        table.add(label, *cells, f"{(place.x**2 + place.y**2) ** 0.5:.4g}")
    console.print_table(table)
    console.print_result(f"\n{len(found.grid)} points of the plane: {options.report}")
