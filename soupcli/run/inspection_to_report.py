"""What an inspection found, for the report."""

from __future__ import annotations

import math
from collections import Counter
from itertools import repeat
from typing import TYPE_CHECKING

from soupcli.diagnosis.spread import beside_diagonal
from soupcli.mixing.arithmetic.arrays import library_of
from soupcli.report.inspection import Barriers, Differing, Distances, FoundCause, Inspected, Inspection, Ranges
from soupcli.run.to_report import scores_to_report

if TYPE_CHECKING:
    from soupcli.diagnosis.barrier import Barrier
    from soupcli.diagnosis.findings import Examined
    from soupcli.evaluation.score import Score
    from soupcli.mixing.arithmetic.arrays import Array
    from soupcli.report.scores import MetricScore
    from soupcli.run.run import Run

MOST_LISTED = 500  # ingredients of which every pair is listed: twice as many have four times as many


def inspection_of(run: Run, examined: Examined) -> Inspection:
    """Return what was found, for the report."""
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
                dtypes=Counter(spec.dtype.value for spec in one.tensors.values()),
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
                words=str(each),
            )
            for each in facts.differences
        ],
        integers=examined.integers,
        not_finite=not_finite,
        duplicates=[[str(one.path), str(other.path)] for one, other in facts.duplicates],
        settings={setting.key: list(setting.values) for setting in facts.settings},
        geometry=_distances(run, examined),
        barriers=[_barriers(name, barrier, examined) for name, barrier in examined.barriers.items()],
        verdicts=[
            FoundCause(
                cause=cause.name,
                evidence=evidence.text,
                words=cause.words,
                remedy=cause.remedy,
                accused=[str(one.path) for one in evidence.accused],
                sure=evidence.sure,
            )
            for cause, evidence in examined.verdicts
        ],
    )


def _distances(run: Run, examined: Examined) -> Distances | None:
    spread = examined.facts.spread
    if spread is None:
        return None
    paths = [str(one.path) for one in examined.facts.located]
    matrices = spread.distance_kk, spread.whole_kk, spread.offset_kk
    listed = len(paths) <= MOST_LISTED
    distances, angles, offset_angles = (of.tolist() if listed and of is not None else [] for of in matrices)
    return Distances(
        paths=paths,
        base=str(run.recipe.base) if spread.from_base_k is not None else None,
        from_base=spread.from_base_k.tolist() if spread.from_base_k is not None else [],
        from_mean=spread.from_mean_k.tolist(),
        distances=distances,
        angles=angles,
        offset_angles=offset_angles,
        ranges=[
            Ranges(distance=distance, angle=angle, offset_angle=offset)
            for distance, angle, offset in zip(*map(_ranges, matrices, repeat(len(paths))), strict=True)
        ],
        layer_angles={
            layer: float(angle_kk.max()) for layer, angle_kk in zip(spread.layers, spread.angle_lkk, strict=True)
        },
        layer_spread=dict(spread.scatter),
        groups=[[paths[one] for one in group] for group in spread.clusters()],
    )


def _ranges(of_kk: Array | None, count: int) -> list[tuple[float, float] | None]:
    """Return the least and the largest number of each row, but for the diagonal and NaNs; None where there is none."""
    if of_kk is None:
        return [None] * count
    xp, others_kk = library_of(of_kk), beside_diagonal(of_kk, math.nan)
    is_none_kk = others_kk != others_kk
    least_k = xp.amin(xp.where(is_none_kk, math.inf, others_kk), axis=1).tolist()
    largest_k = xp.amax(xp.where(is_none_kk, -math.inf, others_kk), axis=1).tolist()
    return [(least, largest) if least <= largest else None for least, largest in zip(least_k, largest_k, strict=True)]


def _barriers(name: str, barrier: Barrier, examined: Examined) -> Barriers:
    paths = [str(one.path) for one in examined.facts.checkpoints]

    def reported(score: Score) -> dict[str, MetricScore]:
        return scores_to_report({name: score})[name]

    return Barriers(
        set=name,
        metric=barrier.metric,
        mean=reported(barrier.mean),
        half_way={path: reported(score) for path, score in zip(paths, barrier.half_way, strict=True)},
        height={path: barrier.height(number) for number, path in enumerate(paths)},
        settled_mean=reported(barrier.settled_mean) if barrier.settled_mean is not None else None,
        without={path: reported(score) for path, score in zip(paths, barrier.without, strict=False)},
        with_best={path: reported(score) for path, score in zip(paths, barrier.with_best, strict=False)},
    )
