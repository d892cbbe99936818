"""`soup mix`: checkpoints mixed by given weights, along the line from the start, or by Model Stock; or a soup again.

soup mix --ckpts runs/a runs/b --weights 0.7,0.3
soup mix --ckpts runs/a runs/b --weights-for 'blocks.*' 0.7,0.3
soup mix --ckpts runs/*/ --base init/ --alpha 0:1:0.1 --val imagenet-val imagenet-r
soup mix --ckpts runs/*/ --base init/ --method stock
soup mix --ckpts run/checkpoint-*/ --last 8 --decay 1-sqrt
soup mix soup/soup.json --out again/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.window import along_one_run
from soupcli.errors import UsageError
from soupcli.mixing.mixture import Mixture
from soupcli.output import console
from soupcli.report.soups import Alpha, Stock
from soupcli.run.caveats import check_way
from soupcli.run.dry_run import Plan
from soupcli.run.gates import refuse_gain
from soupcli.run.ingredients import base_of_adapters
from soupcli.run.make_soup import FinishedSoup, Prepared, make_soup
from soupcli.run.methods.decay import decayed
from soupcli.run.methods.layers import mixed_layers
from soupcli.run.rewrite import write_again
from soupcli.run.run import Row, Run
from soupcli.run.to_report import coefficients_to_report, scores_to_report
from soupcli.soups.decision import check_any_number
from soupcli.soups.learned.learned import Layered, of_checkpoints
from soupcli.soups.model_stock import stock
from soupcli.soups.weighted import grouped_by_patterns, interpolated, normalised, weighted
from soupcli.wording import nearest

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import MixOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score

# What can be said beside a report; all else is in it.
BESIDE_REPORT = {
    "report",
    "out",
    "weights_name",
    "trust",
    "trust_code",
    "allow_class",
    "as_json",
    "quiet",
    "dry_run",
    "force",
}


def mix(options: MixOptions, invocation: Invocation) -> int:
    """Average with given weights, or rebuild a soup from its report."""
    if options.report is not None:
        _check_alone(options, invocation)
        return write_again(options, options.report)
    return make_soup(prepare, options, invocation)


def _check_alone(options: MixOptions, invocation: Invocation) -> None:
    """Raises UsageError for a flag that says something else than the report."""
    values = vars(options)
    for field in dataclasses.fields(options):
        given = values[field.name] not in (field.default, []) and field.name not in invocation.from_environment
        if given and field.name not in BESIDE_REPORT:
            flag = field.name.strip("_").replace("_", "-")
            raise UsageError(
                f"--{flag}: does not go with {options.report}, which says what is mixed and how",
                hint="leave one of the two out: soup mix REPORT writes that soup again, byte for byte",
            )


def prepare(run: Run, options: MixOptions) -> Prepared:
    """Open the base, if there is one. Raises UsageError for settings that exclude each other."""
    ingredients = run.sharing(run.checkpoints[0])
    base = _base(run, options) if run.resolved.begins_at_base else None
    if base is not None:
        check_way(ingredients, base, run.selection)
    else:
        ingredients = _in_order(run, ingredients)
    evaluations = len(run.recipe.mix.alpha or [1.0]) * len(run.sets)

    def finish() -> FinishedSoup:
        refuse_gain(options.require_gain)
        return _finish(run, ingredients, base)

    return Prepared(lambda: Plan(evaluations, Mixture.uniform(ingredients)), finish)


def _finish(run: Run, ingredients: Sequence[Checkpoint], base: Checkpoint | None) -> FinishedSoup:
    if run.device.mixing is not None:  # beside the import of torch
        run.hashes.start([*ingredients, *([base] if base is not None else [])])
    if base is None:
        return _mean(run, ingredients)
    return _stock(run, ingredients, base) if run.recipe.mix.method == "stock" else _line(run, ingredients, base)


def _mean(run: Run, ingredients: Sequence[Checkpoint]) -> FinishedSoup:
    weights, first = _weights(run) or decayed(ingredients, run.recipe.mix.decay), run.checkpoints[0]
    layered = _by_patterns(run, ingredients, weights)
    if layered is not None:
        mixture = layered.mixture(dtype=run.output_dtype, keep_from=first)
    else:
        mixture = weighted(ingredients, weights, dtype=run.output_dtype, keep_from=first)
    with run.phase("evaluate"):
        [scores] = run.scores([Row("mix", mixture)])
    return FinishedSoup(
        mixture,
        scores,
        [(ingredient, {}) for ingredient in ingredients],
        coefficients=coefficients_to_report(layered) if layered is not None else None,
    )


def _weights(run: Run) -> list[float] | None:
    """Return the weights of --weights divided by their sum, or None without --weights. Prints another sum than 1."""
    weights = run.recipe.mix.weights
    return None if weights is None else _normalised(run, "--weights", weights)


def _normalised(run: Run, what: str, weights: Sequence[float]) -> list[float]:
    if run.recipe.mix.any_weights:
        return list(weights)
    found = normalised(weights)
    if found != list(weights) and not run.options.quiet:
        console.note(f"{what}: divided by their sum: {', '.join(f'{weight:.6g}' for weight in found)}")
    return found


def _by_patterns(run: Run, ingredients: Sequence[Checkpoint], weights: Sequence[float] | None) -> Layered | None:
    """Return the members' weights in each group of tensors of --weights-for, or None without it."""
    wanted = run.recipe.mix.weights_for
    if not wanted:
        return None
    mixed = [name for name, spec in ingredients[0].tensors.items() if spec.dtype.is_averaged]
    names = [name for name in mixed if run.selection.mixes(name)]
    groups = grouped_by_patterns(names, list(wanted))
    for pattern, group in zip(wanted, groups, strict=False):
        if not group:
            near = nearest(pattern, names, least=0.3) or names[0]
            raise UsageError(f"--weights-for {pattern}: fits no tensor", hint=f"tensors have names like {near!r}")
        if len(wanted[pattern]) != len(ingredients):
            raise UsageError(
                f"--weights-for {pattern}: {len(wanted[pattern])} weights for {len(ingredients)} checkpoints",
                hint="one number for each, in the order of --ckpts",
            )
    rest = list(weights) if weights is not None else [1.0 / len(ingredients)] * len(ingredients)
    rows = [*(_normalised(run, f"--weights-for {pattern}", found) for pattern, found in wanted.items()), rest]
    layers = [*wanted, "(others)"]
    if not groups[-1]:
        rows, layers, groups = rows[:-1], layers[:-1], groups[:-1]
    return Layered(list(ingredients), rows, layers, groups, {})


def _line(run: Run, ingredients: Sequence[Checkpoint], base: Checkpoint) -> FinishedSoup:
    """Evaluate the points between base and mean. The best on the selecting set is taken, the first of equal ones."""
    alphas, weights = run.recipe.mix.alpha or [], _weights(run)
    if len(alphas) > 1 and not run.sets:
        raise UsageError(
            f"--alpha: {len(alphas)} points, and no set that says which one to write",
            hint="name one with --val, or give one number",
        )
    points = [interpolated(ingredients, weights, base, alpha, dtype=run.output_dtype) for alpha in alphas]
    with run.phase("evaluate"):
        scores = run.scores([Row(f"alpha {a:g}", point) for a, point in zip(alphas, points, strict=True)])
    check_any_number((row[run.selecting] for row in scores if run.sets), "points")
    chosen = max(range(len(alphas)), key=lambda i: _goodness(run, scores[i]))
    found = [Alpha(alpha=a, scores=scores_to_report(row)) for a, row in zip(alphas, scores, strict=True)]
    return FinishedSoup(
        points[chosen],
        scores[chosen],
        [(member, {}) for member in (*ingredients, base)],
        parts={"alphas": found if run.sets else [], "alpha": alphas[chosen]},
    )


def _goodness(run: Run, scores: Mapping[str, Score]) -> float:
    return scores[run.selecting].goodness if run.sets else 0.0


def _stock(run: Run, ingredients: Sequence[Checkpoint], base: Checkpoint) -> FinishedSoup:
    with run.phase("measure") as progress:
        stocked = stock(ingredients, base, mixed_layers(run, base, run.recipe.mix.per), progress=progress)
    layered = of_checkpoints(stocked.layered)
    mixture = layered.mixture(dtype=run.output_dtype, keep_from=ingredients[0])
    with run.phase("evaluate"):
        [scores] = run.scores([Row("mix", mixture)])
    found = Stock(layers=layered.layers, cosines=stocked.cosines, ratios=stocked.ratios)
    return FinishedSoup(
        mixture,
        scores,
        [(member, {}) for member in (*ingredients, base)],
        coefficients=coefficients_to_report(layered),
        parts={"stock": found},
    )


def _base(run: Run, options: MixOptions) -> Checkpoint:
    """Open the checkpoint that ingredients were fine-tuned from. Raises UsageError if none is given."""
    recipe, method, first = run.recipe, run.recipe.mix.method, run.singles[0]
    if recipe.base is None and not first.is_adapter:
        asked = "--method stock" if method == "stock" else "--alpha"
        raise UsageError(f"{asked}: needs --base", hint="the checkpoint from which the ingredients were fine-tuned")
    if method == "stock" and len(run.checkpoints) < 2:
        raise UsageError(
            f"--method stock: one checkpoint ({run.checkpoints[0].path}) has no angle to another",
            hint="--alpha 0:1:0.1 goes from the base to one checkpoint",
        )
    if first.is_adapter:
        base = base_of_adapters(first, run.selection)
    else:
        assert recipe.base is not None
        how = How(options.weights_name, recipe.key, options.trust, tuple(options.allow_class or ()))
        base = run.names.applied(open_checkpoint(recipe.base, how))
    if any(base.path == checkpoint.path for checkpoint in run.checkpoints):
        raise UsageError(f"--base {recipe.base}: is one of the checkpoints too", hint="leave it out of --ckpts")
    return run.selection.applied(base, run.checkpoints[0])


def _in_order(run: Run, ingredients: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints in the order of --ckpts if weights are given for them."""
    weights, by_pattern = run.recipe.mix.weights, list(run.recipe.mix.weights_for.values())
    if run.recipe.mix.decay is not None:
        return along_one_run(ingredients)
    if weights is None and not by_pattern:
        return list(ingredients)
    weights = weights if weights is not None else by_pattern[0]
    words = run.options.ckpts or run.recipe.ckpts
    by_path = {checkpoint.path: checkpoint for checkpoint in ingredients}
    named = [by_path.get(Path(word)) for word in words]
    found = [checkpoint for checkpoint in named if checkpoint is not None]
    if len(found) != len(words) or len(set(found)) != len(ingredients):
        raise UsageError(
            "--weights: go with checkpoints that are named one by one, in the same order",
            hint=f"--ckpts {' '.join(str(path) for path in by_path)}",
        )
    if len(found) != len(weights):
        raise UsageError(
            f"--weights: {len(weights)} weights for {len(found)} checkpoints: "
            f"{', '.join(str(checkpoint.path) for checkpoint in found)}",
            hint="one number for each, in this order; soup uniform weighs all the same",
        )
    if run.recipe.mix.any_weights and any(one.is_adapter for one in found):
        raise UsageError(
            "--any-weights: adapters are mixed by weights that sum to 1",
            hint="leave it out: weights are divided by their sum; --scale makes the change larger or smaller",
        )
    return found
