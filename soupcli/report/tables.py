"""Tables of a report: the terminal and the HTML page show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.wording import human_bytes, shown

if TYPE_CHECKING:
    from soupcli.report.comparisons import Comparison
    from soupcli.report.inspection import Barriers, Differing, Distances, FoundCause, Inspection
    from soupcli.report.report import Report
    from soupcli.report.scores import Scores
    from soupcli.report.soups import Coefficients, Experts, SearchStep, Stock


MORE, LESS = "↑", "↓"  # which way a metric is better


class Column(NamedTuple):
    """A heading; numbers are aligned to the right."""

    heading: str
    is_number: bool = False


class Table(NamedTuple):
    """Cells under headings. The first cell of a row names it."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def without_empty(self) -> Table:
        """The table without the columns, but for the first, whose cells are all empty."""
        kept = [place for place in range(len(self.columns)) if not place or any(row[place] for row in self.rows)]
        rows = [[row[place] for place in kept] for row in self.rows]
        return Table(self.caption, [self.columns[place] for place in kept], rows)


class ScoredRow(NamedTuple):
    """One row of scores: its name, and its scores by set."""

    label: str
    scores: Scores


def numbers(headings: Iterable[str]) -> list[Column]:
    """Columns of numbers."""
    return [Column(heading, is_number=True) for heading in headings]


def metric_of(report: Report, name: str) -> str:
    """The metric that selects on the set `name`, or "" if nothing was measured there."""
    parts = [*report.ingredients, report.best, report.soup, report.uniform]
    found = dict.fromkeys(metric for part in parts if part is not None for metric in part.scores.get(name, {}))
    spec = report.recipe.get("val", {}).get(name, {})
    own = spec.get("metric") if isinstance(spec, dict) else None
    wanted = [report.selecting_metrics.get(name), own, report.recipe.get("metric")]
    return next((metric for metric in wanted if metric in found), next(iter(found), ""))


def cause_title(of: FoundCause) -> str:
    """The name of a cause, and how sure the verdict is."""
    return of.cause if of.sure == "certain" else f"{of.cause} ({of.sure})"


def other_side(of: Comparison) -> str:
    """Return what a soup is compared with: `best`, or `best (cross-fitted)`."""
    return f"best{' (cross-fitted)' if of.cross_fitted else ''}"


def score_table(report: Report, first: str, rows: Sequence[ScoredRow]) -> Table:
    """Each row's scores by the selecting metric of each set, and by the recipe's further `metrics`.

    `first` heads the names of the rows.
    """
    beside = list(report.recipe.get("metrics", []))
    columns = []
    for name in report.sets:
        selecting = metric_of(report, name)
        measured = {metric for row in rows for metric in row.scores.get(name, {})}
        columns += [(name, selecting), *((name, each) for each in beside if each in measured and each != selecting)]
    headings = [_heading(report, name, metric) for name, metric in columns]
    cells = [[label, *(score_cell(scores, *column) for column in columns)] for label, scores in rows]
    return Table("Scores", [Column(first), *numbers(headings)], cells)


def _heading(report: Report, name: str, metric: str) -> str:
    """The set, the metric and which way is better: `val accuracy ↑`."""
    way = LESS if metric in report.lower_is_better.get(name, []) else MORE
    return f"{name} {metric} {way}" if metric else name


def score_cell(scores: Scores, name: str, metric: str) -> str:
    """One score with its standard error, or "" if it was not measured."""
    score = scores.get(name, {}).get(metric)
    return "" if score is None else shown(metric, score.value, score.stderr)


def by_trainer(metrics: Mapping[str, float | None]) -> str:
    """Return the metrics of a checkpoint's trainer, e.g. `eval_loss 0.3127, best_metric 0.3001`."""
    names = sorted(metrics, key=lambda name: (name == "best_metric", name))
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names if metrics[name] is not None)


def step_table(report: Report, steps: Sequence[SearchStep]) -> Table:
    """The decisions of a search: what was tried, its score and the one that was needed, the decision and its reason."""
    metric = step_metric(report)
    selecting = report.selecting_set or ""
    heading = "objective" if report.objective is not None else _heading(report, selecting, metric)
    rows = [[tried(step), reached(step, metric), _needed(step, metric), decision(step)] for step in steps]
    columns = [Column("step"), *numbers([heading, "needed"]), Column("decision")]
    return Table("Every decision, in order", columns, rows)


def step_metric(report: Report) -> str:
    """The metric of the scores of a search, or `objective`."""
    return "objective" if report.objective is not None else metric_of(report, report.selecting_set or "")


def _needed(step: SearchStep, metric: str) -> str:
    return "" if step.threshold is None else shown(metric, step.threshold, None)


def reached(step: SearchStep, metric: str) -> str:
    """The score, or the best that it could have been if the evaluation was stopped."""
    given_up = step.score is None and step.bound is not None
    return f"{shown(metric, step.bound, None)} at best" if given_up else shown(metric, step.score, None)


def tried(step: SearchStep) -> str:
    """E.g. `with runs/a`, `without runs/a`, `runs/a + runs/b`."""
    if step.action == "take":
        weights = [f"{weight:.3g} " for weight in step.weights] or [""] * len(step.members)
        return " + ".join(map("".join, zip(weights, step.members, strict=True))) or step.candidate
    return f"{'with' if step.action == 'add' else 'without'} {step.candidate}"


def decision(step: SearchStep) -> str:
    """E.g. `left out (worse)`."""
    yes, no = ("kept", "left out") if step.action == "add" else ("taken", "not taken")
    return f"{yes if step.accepted else no} ({step.reason})"


def coefficient_table(found: Coefficients) -> Table:
    """Each member's coefficient: the mean over the layers, the least and the largest."""
    columns = zip(*found.alpha, strict=True)
    rows = [
        [member, *(f"{value:.4f}" for value in (sum(column) / len(column), min(column), max(column)))]
        for member, column in zip(found.members, columns, strict=True)
    ]
    layers = "mean over 1 layer" if len(found.layers) == 1 else f"mean over {len(found.layers)} layers"
    return Table("Coefficients", [Column("member"), *numbers([layers, "least", "largest"])], rows)


def stock_table(found: Stock) -> Table:
    """The layers of a Model Stock soup."""
    columns = [Column("layer"), *numbers(["cos of the angle", "part of the mean"])]
    layers = zip(found.layers, found.cosines, found.ratios, strict=True)
    return Table("Layers", columns, [[layer, f"{cosine:.4f}", f"{share:.4f}"] for layer, cosine, share in layers])


def selected_on(of: Comparison) -> str:
    """E.g. ` (selected on it, of 23 tried)`."""
    return f" (selected on it{f', of {of.tried} tried' if of.tried is not None else ''})"


def correlation_table(found: Experts) -> Table:
    """Return the table of correlations between sets over the ingredients."""
    rows = [
        [name, *("" if value is None else f"{value:+.2f}" for value in row)]
        for name, row in zip(found.sets, found.correlations, strict=True)
    ]
    first = Column(f"correlation over {found.ingredients} ingredients")
    return Table("How the scores on the sets go together", [first, *numbers(found.sets)], rows)


def expert_lines(found: Experts) -> list[str]:
    """The expert of each group, e.g. `expert for a, b: runs/3`."""
    return [f"expert for {', '.join(group.sets)}: {group.expert}" for group in found.groups]


def file_table(report: Report, found: Inspection) -> Table:
    """A table of the files of each inspected checkpoint."""
    columns = [Column("checkpoint"), Column("format"), *numbers(["tensors", "parameters"]), Column("dtype")]
    columns += [Column("size", is_number=True), Column("key"), Column("tied")]
    rows, ingredients = [], {ingredient.path: ingredient for ingredient in report.ingredients}
    for of in found.checkpoints:
        ingredient = ingredients[of.path]
        dtypes = sorted(of.dtypes, key=lambda name: -of.dtypes[name])
        counts = [str(of.tensors), f"{of.parameters:,}", ", ".join(dtypes), human_bytes(ingredient.bytes)]
        tied = ", ".join(map(" = ".join, of.tied))
        rows.append([of.path, ingredient.format, *counts, ingredient.key or "", tied])
    return Table("What the files hold", columns, rows).without_empty()


def findings(found: Inspection) -> Iterator[list[str]]:
    """Return lists of sentences on differences, on numbers that are wrong, and on differing settings."""
    yield [f"{each.path}: {each.words or _difference(each)}" for each in found.differences]
    broken = [
        f"{path}: tensor {name!r} holds {value}"
        for path, tensors in found.not_finite.items()
        for name, value in tensors.items()
    ]
    copies = [f"{other}: the same weights as {first}" for first, *others in found.duplicates for other in others]
    names = ", ".join(found.integers[:3])
    more = f" and {len(found.integers) - 3} more" if len(found.integers) > 3 else ""
    integers = [f"never averaged, and not the same in all: {names}{more}"] if found.integers else []
    yield [*broken, *copies, *integers]
    yield [f"{key}: {' | '.join(dict.fromkeys(values))}" for key, values in found.settings.items()]


def _difference(of: Differing) -> str:
    """For reports that were written before they held the words."""
    return f"{of.kind} of {of.tensor or 'the file'}: {of.found}, most have {of.expected}"


def place_table(geometry: Distances) -> Table:
    """Distances and angles of each checkpoint."""
    moved = geometry.from_base if geometry.base is not None else geometry.from_mean
    number = {path: str(place) for place, group in enumerate(geometry.groups, 1) for path in group}
    origin = "base" if geometry.base is not None else "mean"
    headings = [f"from {origin}", "nearest", "farthest", "angle", "angle at base", "group"]
    rows = []
    for path, length, seen in zip(geometry.paths, moved, geometry.ranges_of_each(), strict=True):
        cells = [f"{end:.4g}" for end in (length or 0.0, *(seen.distance or (0.0, 0.0)))]
        group = number.get(path, "") if len(geometry.groups) > 1 else ""
        rows.append([path, *cells, _degrees(seen.angle), _degrees(seen.offset_angle), group])
    return Table("Distances and angles", [Column("checkpoint"), *numbers(headings)], rows).without_empty()


def _degrees(ends: tuple[float, float] | None) -> str:
    """E.g. `11.2-23.3°`: the angles to the others."""
    return f"{ends[0]:.1f}-{ends[1]:.1f}°" if ends is not None else ""


def layer_table(geometry: Distances, most: int) -> Table:
    """The `most` layers that disagree most."""
    rows = []
    for layer in sorted(geometry.layer_angles, key=lambda layer: -(geometry.layer_angles[layer] or 0.0))[:most]:
        spread, angle = geometry.layer_spread[layer] or 0.0, geometry.layer_angles[layer] or 0.0
        rows.append([layer, f"{spread * 100:.2f}%", f"{angle:.1f}°"])
    return Table("Layers that disagree", [Column("layer"), *numbers(["spread", "largest angle"])], rows)


def barrier_table(report: Report, of: Barriers, metrics: Sequence[str]) -> Table:
    """Each checkpoint, the middle between it and the mean of all, and how much is lost there."""
    alone = {ingredient.path: ingredient.scores for ingredient in report.ingredients}
    headings = [*metrics, *(f"{metric} half way to mean" for metric in metrics), f"{of.metric} rises by"]
    rows = []
    for path, half in of.half_way.items():
        height = of.height.get(path)
        own = [score_cell(alone.get(path, {}), of.set, metric) for metric in metrics]
        middle = [score_cell({of.set: half}, of.set, metric) for metric in metrics]
        rows.append([path, *own, *middle, "" if height is None else f"{height:+.4f}"])
    means = {"the mean of all": of.mean, "the same, batch norm again": of.settled_mean}
    for label, scores in means.items():
        if scores is not None:
            cells = [score_cell({of.set: scores}, of.set, metric) for metric in metrics]
            rows.append([label, *cells, *([""] * (len(metrics) + 1))])
    caption = f"On {of.set}: half way between each checkpoint and the mean of all"
    return Table(caption, [Column(f"on {of.set}"), *numbers(headings)], rows)


def plane_table(report: Report) -> Table:
    """The corners of a landscape and their mean."""
    found = report.landscape
    assert found is not None
    rows = [*zip(found.members, found.corners, strict=True), ("their mean", found.mean)]
    columns = [(name, metric) for name in report.sets for metric in found.mean.scores.get(name, {})]
    cells = [
        [label, *(score_cell(place.scores, *column) for column in columns), f"{place.x:.4g}", f"{place.y:.4g}"]
        for label, place in rows
    ]
    headings = [*(f"{name} {metric}" for name, metric in columns), "x", "y"]
    return Table("Places are distances in the space of the weights", [Column("weights"), *numbers(headings)], cells)
