"""What `soup inspect` found, for people and for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from soupcli.checkpoints.checkpoint import total_bytes
from soupcli.checkpoints.survey import FATAL
from soupcli.cli import console
from soupcli.cli.delivery import deliver
from soupcli.cli.inspected import Examined
from soupcli.cli.options import ReportOptions
from soupcli.cli.reporting import report_scores
from soupcli.cli.session import Session
from soupcli.cli.tables import shown_value
from soupcli.report.inspection import Barriers, Differing, Distances, Found, Inspected, Inspection
from soupcli.report.scores import MetricScore
from soupcli.soups.barrier import Barrier
from soupcli.validation.score import Score
from soupcli.wording import human_bytes

LINES = 8  # of one kind that a table shows; the report has all
LAYERS = 6


def show(session: Session, options: ReportOptions, examined: Examined) -> None:
    """Prints tables and verdicts, the report, or the paths of those that go together."""
    inspection = inspection_of(session, examined)
    report = session.report(
        [
            session.ingredient(checkpoint, scores)
            for checkpoint, scores in zip(session.checkpoints, examined.alone, strict=True)
        ],
        inspection=inspection,
    )
    if deliver(options, report, paths=_going_together(examined, inspection)):
        _print(session, examined, inspection)


def inspection_of(session: Session, examined: Examined) -> Inspection:
    """What was found as it stands in the report."""
    facts = examined.facts
    not_finite: dict[str, dict[str, str]] = {}
    for checkpoint, name, value in facts.not_finite:
        not_finite.setdefault(str(checkpoint.path), {})[name] = str(value)
    return Inspection(
        mixable=examined.refused is None,
        refused=examined.refused,
        checkpoints=[
            Inspected(
                path=str(one.path),
                tensors=len(one.tensors),
                parameters=sum(spec.numel for spec in one.tensors.values()),
                dtypes=Counter(str(spec.dtype).removeprefix("torch.") for spec in one.tensors.values()),
                tied=[list(group) for group in examined.ties[one]],
            )
            for one in facts.checkpoints
        ],
        differences=[
            Differing(
                path=str(each.checkpoint.path),
                kind=each.kind,
                tensor=each.tensor,
                found=each.found,
                expected=each.expected,
            )
            for each in facts.differences
        ],
        integers=examined.integers,
        not_finite=not_finite,
        duplicates=[[str(one.path), str(other.path)] for one, other in facts.duplicates],
        settings={setting.key: list(setting.values) for setting in facts.settings},
        geometry=_distances(session, examined),
        barriers=[_barriers(name, barrier, examined) for name, barrier in examined.barriers.items()],
        verdicts=[
            Found(cause=cause.name, evidence=evidence, words=cause.words, remedy=cause.remedy)
            for cause, evidence in examined.verdicts
        ],
    )


def _distances(session: Session, examined: Examined) -> Distances | None:
    spread = examined.facts.spread
    if spread is None:
        return None
    paths = [str(one.path) for one in examined.facts.located]
    return Distances(
        paths=paths,
        base=str(session.recipe.base) if spread.from_base_k is not None else None,
        from_base=spread.from_base_k.tolist() if spread.from_base_k is not None else [],
        from_mean=spread.from_mean_k.tolist(),
        distances=spread.distance_kk.tolist(),
        angles=spread.whole_kk.tolist(),
        offset_angles=spread.offset_kk.tolist() if spread.offset_kk is not None else [],
        layer_angles={
            layer: float(angle_kk.nan_to_num(0.0).max())
            for layer, angle_kk in zip(spread.layers, spread.angle_lkk, strict=True)
        },
        layer_spread=dict(spread.scatter),
        groups=[[paths[one] for one in group] for group in spread.clusters()],
    )


def _barriers(name: str, barrier: Barrier, examined: Examined) -> Barriers:
    paths = [str(one.path) for one in examined.facts.checkpoints]

    def reported(score: Score) -> dict[str, MetricScore]:
        return report_scores({name: score})[name]

    return Barriers(
        set=name,
        metric=barrier.metric,
        mean=reported(barrier.mean),
        half_way={path: reported(score) for path, score in zip(paths, barrier.half_way, strict=True)},
        height={path: barrier.height(number) for number, path in enumerate(paths)},
        settled_mean=reported(barrier.settled_mean) if barrier.settled_mean is not None else None,
    )


def _going_together(examined: Examined, inspection: Inspection) -> list[str]:
    """The largest group with a common start, without those that cannot be mixed with it."""
    odd = {each.path for each in inspection.differences if each.kind in FATAL} | set(inspection.not_finite)
    odd |= {other for _, other in inspection.duplicates}
    groups = inspection.geometry.groups if inspection.geometry is not None else []
    together = groups[0] if groups else [each.path for each in inspection.checkpoints]
    return [path for path in together if path not in odd]


def _print(session: Session, examined: Examined, inspection: Inspection) -> None:
    console.print_table(_files(examined))
    for lines in (_differences(examined), _numbers(inspection), _settings(inspection)):
        _print_lines(lines)
    if inspection.geometry is not None and len(inspection.geometry.paths) > 1:
        console.print_result("")
        console.print_table(_places(inspection.geometry))
        if len(inspection.geometry.layer_angles) > 1:
            console.print_result("")
            console.print_table(_layers(inspection.geometry))
    for name, barrier in examined.barriers.items():
        console.print_result("")
        console.print_table(_heights(name, barrier, [each.path for each in inspection.checkpoints]))
    console.print_result("")
    _print_verdicts(inspection)


def _files(examined: Examined) -> console.Table:
    table = console.Table("checkpoint", "format", ">tensors", ">parameters", "dtype", ">size")
    for one in examined.facts.checkpoints:
        dtypes = Counter(str(spec.dtype).removeprefix("torch.") for spec in one.tensors.values())
        parameters = sum(spec.numel for spec in one.tensors.values())
        shown = [name for name, _ in dtypes.most_common()]
        size = human_bytes(total_bytes(one))
        table.add(str(one.path), one.origin.format, str(len(one.tensors)), f"{parameters:,}", ", ".join(shown), size)
    table.extend("key", [one.origin.key or "" for one in examined.facts.checkpoints])
    ties = [", ".join(" = ".join(group) for group in examined.ties[one]) for one in examined.facts.checkpoints]
    table.extend("tied", ties)
    return table


def _differences(examined: Examined) -> list[str]:
    return [f"{each.checkpoint.path}: {each}" for each in examined.facts.differences]


def _numbers(inspection: Inspection) -> list[str]:
    found = [
        f"{path}: tensor {name!r} holds {value}"
        for path, tensors in inspection.not_finite.items()
        for name, value in tensors.items()
    ]
    found += [f"{other}: the same weights as {one}, bit for bit" for one, other in inspection.duplicates]
    if inspection.integers:
        names = ", ".join(inspection.integers[:3])
        more = f" and {len(inspection.integers) - 3} more" if len(inspection.integers) > 3 else ""
        found.append(f"never averaged, and not the same in all: {names}{more}")
    return found


def _settings(inspection: Inspection) -> list[str]:
    return [f"{key}: {' | '.join(dict.fromkeys(values))}" for key, values in inspection.settings.items()]


def _print_lines(lines: Sequence[str]) -> None:
    if lines:
        console.print_result("")
    for line in lines[:LINES]:
        console.print_text(line)
    if len(lines) > LINES:
        console.print_result(f"... and {len(lines) - LINES} more: --json lists them")


def _places(geometry: Distances) -> console.Table:
    """Distances and angles of each ingredient."""
    based = geometry.base is not None
    table = console.Table("checkpoint", ">from base" if based else ">from mean", ">nearest", ">farthest", ">angle")
    for place, path in enumerate(geometry.paths):
        moved = (geometry.from_base if based else geometry.from_mean)[place]
        others = [value or 0.0 for k, value in enumerate(geometry.distances[place]) if k != place]
        cells = [f"{moved or 0.0:.4g}", f"{min(others):.4g}", f"{max(others):.4g}", _range(geometry.angles, place)]
        table.add(path, *cells)
    if geometry.offset_angles:
        offsets = [_range(geometry.offset_angles, place) for place in range(len(geometry.paths))]
        table.extend(">angle at base", offsets)
    if len(geometry.groups) > 1:
        number = {path: str(place) for place, group in enumerate(geometry.groups, 1) for path in group}
        table.extend(">group", [number[path] for path in geometry.paths])
    return table


def _range(angles: Sequence[Sequence[float | None]], place: int) -> str:
    """E.g. `11.2-23.3°`: the angles to the others."""
    others = [value for k, value in enumerate(angles[place]) if k != place and value is not None and value == value]
    return f"{min(others):.1f}-{max(others):.1f}°" if others else ""


def _layers(geometry: Distances) -> console.Table:
    """The layers that disagree most."""
    table = console.Table("layer", ">spread", ">largest angle")
    for layer in sorted(geometry.layer_angles, key=lambda layer: -(geometry.layer_angles[layer] or 0.0))[:LAYERS]:
        spread, angle = geometry.layer_spread[layer] or 0.0, geometry.layer_angles[layer] or 0.0
        table.add(layer, f"{spread * 100:.2f}%", f"{angle:.1f}°")
    return table


def _heights(name: str, barrier: Barrier, paths: Sequence[str]) -> console.Table:
    """Each ingredient, the middle between it and the mean, and how much is lost there."""
    selecting, metric = barrier.mean.selecting, barrier.metric
    table = console.Table(f"on {name}", f">{selecting}", ">half way to mean", f">{metric} rises by")
    for place, path in enumerate(paths):
        alone, middle = barrier.alone[place], barrier.half_way[place]
        height = f"{barrier.height(place):+.4f}"
        table.add(path, _short(alone), _short(middle), height)
    table.add("the mean of all", _short(barrier.mean), "", "")
    if barrier.settled_mean is not None:
        table.add("the same, batch norm again", _short(barrier.settled_mean), "", "")
    return table


def _short(score: Score) -> str:
    """Its value on the selecting metric, without the error."""
    return shown_value(score.selecting, score.metrics[score.selecting]._replace(stderr=None))


def _print_verdicts(inspection: Inspection) -> None:
    if inspection.refused is not None:
        console.print_text(f"cannot be mixed: {inspection.refused}")
    for found in inspection.verdicts:
        console.print_text(f"verdict: {found.cause}", style="bold")
        console.print_text(found.words, indent=2)
        console.print_text(f"evidence: {found.evidence}", indent=2)
        console.print_text(f"to do: {found.remedy}", indent=2)
    if not inspection.verdicts and inspection.refused is None:
        looked = "" if inspection.barriers else ", by the weights alone: --val SET looks at scores too"
        console.print_text(f"verdict: nothing speaks against mixing them{looked}")
