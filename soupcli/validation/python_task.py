"""`mine: {python: "my_eval.py:evaluate"}`: the user's function from (model, device) to {metric: value}."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from soupcli.errors import ValidationError
from soupcli.python_file import load_function
from soupcli.recipe import PythonSet
from soupcli.validation.metrics import METRICS
from soupcli.validation.score import MetricValue, Score


def score(spec: PythonSet, module: nn.Module, device: torch.device, *, metric: str) -> Score:
    """What the function returns for the network as it is now.

    Beside metrics the result may hold `n`, the number of examples. Raises ValidationError where the function fails or
    does not return the metric.
    """
    function = load_function(spec.python)
    try:
        with torch.no_grad():
            result = function(module, device)
    except Exception as cause:
        raise ValidationError(f"{spec.python}: {type(cause).__name__}: {cause}") from cause
    return score_of_result(result, metric, source=spec.python, higher_is_better=spec.higher_is_better)


def score_of_result(result: Any, metric: str, *, source: str, higher_is_better: bool) -> Score:
    """The score in a mapping from metric names to numbers. Raises ValidationError where `metric` is not among them."""
    if not isinstance(result, Mapping) or metric not in result:
        found = ", ".join(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
        raise ValidationError(f"{source}: gave no {metric!r}, it gave {found}", hint=f"return {{{metric!r}: value}}")
    n = int(result["n"]) if "n" in result else None
    values = {
        str(name): MetricValue(_number(value, name, source), None, n) for name, value in result.items() if name != "n"
    }
    higher = METRICS[metric].higher_is_better if metric in METRICS else higher_is_better
    return Score(values, metric, higher, n or 0, {})


def _number(value: Any, name: object, source: str) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError) as cause:
        raise ValidationError(f"{source}: {name!r} is {value!r}, not a number") from cause
