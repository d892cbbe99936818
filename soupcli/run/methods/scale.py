"""`--scale 0:1.5:0.1`, the last step of a soup: the way from the base to it, and the best point of the way.

scaled = best_scale(run, soup, score, evaluate, keeper)
scaled.soup, scaled.parts                # the mixture at the best scale, and the key `scale` of the report
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.errors import UsageError
from soupcli.report.soups import Scaled, ScaledPoint
from soupcli.run.caveats import check_way
from soupcli.run.ingredients import base_of_adapters
from soupcli.run.to_report import ingredient_to_report, scores_to_report
from soupcli.soups.scale import best_point, scales_tried, stretched, stretched_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.gates import Gatekeeper
    from soupcli.run.run import Run
    from soupcli.soups.greedy import GreedySoup
    from soupcli.soups.learned.learned import Layered


class ScaleTaken(NamedTuple):
    """The chosen point: its scale, its score on the selecting sets, and the report's part on all points."""

    scale: float
    score: Score
    parts: Mapping[str, Any]
    base: Checkpoint


class ScaledSoup(NamedTuple):
    """A soup after its last step; without --scale unchanged."""

    mixture: Mixture
    score: Score
    parts: Mapping[str, Any]
    base: Checkpoint | None = None  # a member, unless the scale is 1


def check_scale(run: Run) -> None:
    """Raises UsageError for --scale without a base, without a set, or with nothing to scale."""
    if not run.resolved.scales:
        return
    run.require_sets()
    _base(run)


def scale_evaluations(run: Run) -> int:
    """Return the most further mixtures that are evaluated on the selecting sets."""
    return len(scales_tried(run.recipe.scale or [])) - 1 if run.resolved.scales else 0


def scaled_soup(run: Run, soup: GreedySoup, evaluate: Evaluate, keeper: Gatekeeper) -> ScaledSoup:
    """Return the soup at the best scale, or the soup itself without --scale."""
    if not run.resolved.scales:
        return ScaledSoup(soup.mixture, soup.score, {})
    point = best_scale(run, partial(stretched, soup.mixture), soup.mixture.kept, evaluate, keeper)
    return ScaledSoup(stretched(soup.mixture, point.base, point.scale), point.score, point.parts, point.base)


class ScaledLayers(NamedTuple):
    """A soup of layers after its last step; without --scale unchanged."""

    layered: Layered
    parts: Mapping[str, Any]
    score: Score | None = None
    base: Checkpoint | None = None


def scaled_layers(run: Run, layered: Layered, best: Checkpoint, evaluate: Evaluate, keeper: Gatekeeper) -> ScaledLayers:
    """Return the soup at the best scale, or itself without --scale. Tensors that are not averaged come from `best`."""
    if not run.resolved.scales:
        return ScaledLayers(layered, {})

    def at(base: Checkpoint, scale: float) -> Mixture:
        return stretched_layers(layered, base, scale).mixture(dtype=run.output_dtype, keep_from=best)

    point = best_scale(run, at, best, evaluate, keeper)
    soup = stretched_layers(layered, point.base, point.scale)
    return ScaledLayers(soup, point.parts, point.score, point.base)


def best_scale(
    run: Run, at: Callable[[Checkpoint, float], Mixture], kept: Checkpoint, evaluate: Evaluate, keeper: Gatekeeper
) -> ScaleTaken:
    """Return the best point on the line from the base (0) through the soup (1), by score on the selecting sets.

    `at` makes the mixture of the base and a scale. Tensors that are not mixed come from `kept`. Of equally good points
    the soup itself is taken, then the nearest to it.
    """
    base = run.shared(_base(run), kept)
    points = {scale: at(base, scale) for scale in scales_tried(run.recipe.scale or [])}
    _say_dtypes(run, base, points)
    found: dict[float, Score] = {}
    with run.phase("scale") as progress, run.evaluators.expecting(list(points.values())):
        for done, (scale, point) in enumerate(points.items(), 1):
            score = found[scale] = evaluate(point)
            progress("scale", done, len(points), note=f"scale {scale:g}: {score.selecting} {score.value:.4f}")
        guarded = keeper.guarded(evaluate)
        taken = best_point(found, lambda scale, least: guarded(points[scale], at_least=least))
        scores = {scale: _of_sets(run, point) for scale, point in points.items()}
    if taken == 0:
        run.warn(f"--scale: {base.path}, the base, scores better than every soup: nothing of the ingredients is left")
    run.hashes.start([base])
    parts = Scaled(
        scale=taken,
        points=[
            ScaledPoint(scale=scale, value=found[scale].value, scores=scores_to_report(scores[scale]))
            for scale in sorted(points)
        ],
        evaluations=len(points) - 1,
        base=ingredient_to_report(base, {}, run.hashes),
    )
    return ScaleTaken(taken, found[taken], {"scale": parts}, base)


def _of_sets(run: Run, point: Mixture) -> dict[str, Score]:
    """Return the point's scores on the selecting sets, which are already kept."""
    return {name: run.evaluators.on(name)(point) for name in run.resolved.selecting_sets}


def _say_dtypes(run: Run, base: Checkpoint, points: Mapping[float, Mixture]) -> None:
    """Warn if the base has a wider dtype than the soup, because a point between them gets it as well."""
    soup, *others = points.values()
    for point in others[:1]:
        name = next((name for name in soup.kept.tensors if point.spec(name) != soup.spec(name)), None)
        if name is not None:
            own, other = (str(one.spec(name).dtype).removeprefix("torch.") for one in (soup, point))
            run.warn(f"--base {base.path}: with it {name!r} becomes {other}, not {own}: --dtype {own} keeps it")


def _base(run: Run) -> Checkpoint:
    """Open the base. Raises UsageError if there is none, and MixError if no way leads from it to the ingredients."""
    first = run.singles[0]
    if first.is_adapter:
        base: Checkpoint = base_of_adapters(first, run.selection)
    elif run.recipe.base is not None:
        base = run.open_base(run.recipe.base)
    else:
        raise UsageError("--scale: needs --base", hint="the checkpoint from which the ingredients were fine-tuned")
    if any(base.path == checkpoint.path for checkpoint in run.singles):
        raise UsageError(f"--base {run.recipe.base}: is one of the checkpoints too", hint="leave it out of --ckpts")
    check_way([first], run.shared(base, first), run.selection)
    return base
