"""`mine: {python: "my_eval.py:evaluate"}`: the user's function from (model, device) to {metric: value}."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.kind import SetKind
from soupcli.errors import SoupError, ValidationError
from soupcli.evaluation.loop import score_of
from soupcli.evaluation.outside.prints import check_depends
from soupcli.evaluation.score import Score, Stopped
from soupcli.late import torch
from soupcli.metrics.direction import is_higher_better
from soupcli.metrics.metric import MetricValue
from soupcli.mixing.adapter_mean import soup_specs
from soupcli.mixing.mixture import mix
from soupcli.networks.module_state import first_changed, restored, sampled
from soupcli.progress import Progress, silent
from soupcli.user_code.function import content_of, describe_error, hint_with_traceback, load_function, takes_tensors
from soupcli.user_code.function import named as named_code
from soupcli.wording import suggestion, with_article

if TYPE_CHECKING:
    from torch import Tensor, nn

    from soupcli.evaluation.runner import NetworkRunner
    from soupcli.files.manifest import Manifest
    from soupcli.mixing.mixture import Mixture
    from soupcli.recipe.sets import PythonSet


class Stop(NamedTuple):
    """When an evaluation may end early: once a goodness of `at_least` is out of reach on the `total` examples."""

    at_least: float
    total: int


def score(
    spec: PythonSet,
    module: nn.Module | Iterator[tuple[str, Tensor]],
    device: torch.device,
    *,
    metric: str,
    named: bool = False,
    stop: Stop | None = None,
    progress: Progress = silent,
) -> Score:
    """Return the user function's score of the network with its present weights.

    A single number is the metric if the recipe has `named` it. Besides metrics, the result may hold `n`, the number of
    examples. A function that yields says of each example whether it is right: see `_score_of_yielded`. Raises
    ValidationError if the function fails or does not return the metric.
    """
    function = load_function(spec.python)
    try:
        with torch.no_grad():
            result = function(module, device)
            if isinstance(result, Iterator):
                return _score_of_yielded(result, metric, named_code(spec.python), stop, progress)
    except SoupError:
        raise
    except (Exception, SystemExit) as cause:
        said = "it was given (name, tensor) pairs: model=build gives it a network" if takes_tensors(spec.python) else ""
        hint = hint_with_traceback(said or "this error comes from your function", cause, spec.python)
        raise ValidationError(describe_error(cause, spec.python), hint=hint) from cause
    if named and not isinstance(result, Mapping) and result is not None and _number(result) is not None:
        result = {metric: result}
    return score_of_result(result, metric, source=named_code(spec.python), higher_is_better=spec.higher_is_better)


def _score_of_yielded(yielded: Iterator[Any], metric: str, source: str, stop: Stop | None, progress: Progress) -> Score:
    """Return the accuracy of booleans, batch after batch: whether each example is right, in the same order each time.

    So that there is an error, an interval, and an early stop once even right answers to the rest are not enough.
    """
    if metric != "accuracy":
        hint = 'metric="accuracy" or none' if source.endswith("=") else "metric: accuracy"
        raise ValidationError(f"{source}: yields, which makes an accuracy, not {metric!r}", hint=hint)
    parts: list[Tensor] = []
    for batch in yielded:
        right = torch.as_tensor(batch)
        if right.dtype != torch.bool:
            raise ValidationError(
                f"{source}: yields {right.dtype}, not booleans", hint="yield model(inputs).argmax(dim=1) == labels"
            )
        parts.append(right.reshape(-1).to("cpu", torch.uint8))
        seen = sum(map(len, parts))
        if stop is not None:
            progress(f"evaluating by {source}", min(seen, stop.total), stop.total)
            bound = (int(torch.cat(parts).sum()) + stop.total - seen) / stop.total
            if seen < stop.total and bound < stop.at_least:
                return Score({}, metric, True, seen, {}, stopped=Stopped(seen, stop.total, bound))
    seen = sum(map(len, parts))
    if not seen or (stop is not None and seen != stop.total):
        before = f", {stop.total} before" if stop is not None else ""
        raise ValidationError(f"{source}: yielded {seen} examples{before}", hint="each call yields the same examples")
    return score_of({metric: torch.cat(parts)}, metric, examples=seen)


def score_of_result(result: Any, metric: str, *, source: str, higher_is_better: bool | None) -> Score:
    """Return the score in a mapping from metric names to numbers. Other values are ignored.

    Raises ValidationError if `metric` is not among them, is not a number, or if nothing tells whether more of it is
    better. None and NaN are scores that lose.
    """
    given = source.endswith("=")  # a keyword of a function, not a file of the recipe
    if not isinstance(result, Mapping):
        wanted = f"{'a number or ' * given}a dict such as {{{metric!r}: 0.91}}"
        raise ValidationError(
            f"{source}: returned {with_article(result)}, not {wanted}",
            hint="return a dict from metric names to numbers"
            + ("" if given else "; one number alone needs metric: beside it in the recipe"),
        )
    if metric not in result:
        names = [str(name) for name in result]
        raise ValidationError(
            f"{source}: returned no {metric!r}{suggestion(metric, names)}",
            hint=f"it gave {', '.join(names) or 'nothing'}: choose with "
            + ("metric=" if given else "--metric or metric: in the recipe"),
        )
    numbers = {str(name): _number(value) for name, value in result.items()}
    if numbers[metric] is None:
        raise ValidationError(
            f"{source}: {metric!r} is {result[metric]!r}, not a number", hint="return a float, e.g. tensor.item()"
        )
    n = _count(numbers.get("n"), source)
    values = {
        name: MetricValue(value, None, n)
        for name, value in numbers.items()
        if value is not None and (name != "n" or metric == "n")
    }
    higher = is_higher_better(metric, higher_is_better, place=source)
    return Score(values, metric, higher, n or 0, {})


def _number(value: Any) -> float | None:
    """Return a number, also from a tensor or array of one number. Returns None for anything else."""
    if value is None:
        return math.nan
    if isinstance(value, str | bytes | bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _count(value: float | None, source: str) -> int | None:
    if value is None or math.isnan(value):
        return None
    if not value >= 0 or value % 1:
        raise ValidationError(
            f"{source}: 'n' is {value}, not a number of examples",
            hint="return how many examples were evaluated, or leave n out",
        )
    return int(value)


def measure(
    spec: PythonSet, weights: Mixture, metric: str, runner: NetworkRunner, _: object, stop: Stop | None = None
) -> Score:
    """Return the function's score of `weights`. The live network is loaded anew afterwards."""
    named = spec.metric is not None or "metric" in runner.recipe.model_fields_set
    if takes_tensors(spec.python):
        return score(spec, _tensors(weights), runner.device, metric=metric, named=named, stop=stop)
    runner.live.load(weights)
    module = runner.live.network.module
    try:
        with restored(module):
            before = sampled(module)
            found = score(spec, module, runner.device, metric=metric, named=named, stop=stop, progress=runner.progress)
            changed = first_changed(before, sampled(module))
        if changed is not None:
            runner.warn(
                f"{named_code(spec.python)}: changes the weights ({changed!r} for one): its scores are those of a "
                "changed network, the soup holds the weights as they were"
            )
        return found
    finally:
        runner.live.forget()


def _tensors(weights: Mixture) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of the mixture with its name, one at a time. Raises ValidationError for adapters."""
    if any(member.is_adapter for member in weights.members):
        raise ValidationError("evaluate=: adapters need a network", hint="give model=, a function that builds it")
    for name, spec in soup_specs(weights).items():
        yield name, mix(weights, name, start=0, count=spec.numel).reshape(spec.shape)


def identity(
    spec: PythonSet, _name: str, manifest: Manifest, _tasks: object, _warn: Callable[[str], None]
) -> dict[str, Any]:
    """Return the identity of the function's code, and the direction of its metric."""
    return {"python": content_of(spec.python, manifest.file), "higher_is_better": spec.higher_is_better}


KIND: SetKind[PythonSet] = SetKind(identity=identity, check=check_depends, measure=measure)
