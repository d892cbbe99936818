"""What `soup inspect` found, for people and for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import total_bytes
from soupcli.output import console
from soupcli.output.text import shown_value
from soupcli.wording import human_bytes

if TYPE_CHECKING:
    from soupcli.diagnosis.barrier import Barrier
    from soupcli.diagnosis.findings import Examined
    from soupcli.evaluation.score import Score
    from soupcli.report.inspection import Distances, Inspection

LINES = 8  # of one kind that a table shows; the report has all
LAYERS = 6


def print_inspection(examined: Examined, inspection: Inspection) -> None:
    console.print_table(_files(examined))
    for lines in (_differences(examined), _numbers(inspection), _settings(inspection)):
        _print_lines(lines)
    if inspection.geometry is not None and len(inspection.geometry.paths) > 1:
        console.print_lines([""])
        console.print_table(_places(inspection.geometry))
        if len(inspection.geometry.layer_angles) > 1:
            console.print_lines([""])
            console.print_table(_layers(inspection.geometry))
    for name, barrier in examined.barriers.items():
        console.print_lines([""])
        console.print_table(_heights(name, barrier, [each.path for each in inspection.checkpoints]))
    console.print_lines([""])
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
    found += [f"{other}: the same weights as {one}" for one, other in inspection.duplicates]
    if inspection.integers:
        names = ", ".join(inspection.integers[:3])
        more = f" and {len(inspection.integers) - 3} more" if len(inspection.integers) > 3 else ""
        found.append(f"never averaged, and not the same in all: {names}{more}")
    return found


def _settings(inspection: Inspection) -> list[str]:
    return [f"{key}: {' | '.join(dict.fromkeys(values))}" for key, values in inspection.settings.items()]


def _print_lines(lines: Sequence[str]) -> None:
    if lines:
        console.print_lines([""])
    for line in lines[:LINES]:
        console.print_text(line)
    if len(lines) > LINES:
        console.print_lines([f"... and {len(lines) - LINES} more: --json lists them"])


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
        sure = "" if found.sure == "certain" else f" ({found.sure})"
        console.print_text(f"verdict: {found.cause}{sure}", style="bold")
        console.print_text(found.words, indent=2)
        console.print_text(f"evidence: {found.evidence}", indent=2)
        console.print_text(f"to do: {found.remedy}", indent=2)
    if not inspection.verdicts and inspection.refused is None:
        limits = "" if inspection.barriers else " in the weights: --val SET looks at scores too"
        console.print_text(f"verdict: no problem found{limits}")
