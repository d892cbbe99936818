"""Metrics of scikit-learn and torchmetrics by their names there, computed from what each example came to.

    metric: sklearn:balanced_accuracy_score
    metric: sklearn:f1_score(average=macro)
    metric: torchmetrics:AUROC
    metric: torchmetrics:SomeMetric(higher_is_better=true)       # if the library does not say which way is better

outcomes_nc [N, 1 + C] float64: the kind of the labels (its place in KINDS), what the network says, and the labels. It
says a class, a 0 or 1 for each class, or a number; for metrics of scores it says its logits.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import metadata
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.environment import import_extra
from soupcli.errors import ValidationError
from soupcli.late import torch
from soupcli.metrics.metric import LabelKind, Metric, MetricValue
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import Tensor

EXTRA = "metrics"
KINDS: tuple[LabelKind, ...] = ("classes", "multilabel", "numbers")
DIRECTION = "higher_is_better"
_NAME = re.compile(r"(?P<library>sklearn|torchmetrics):(?P<name>[A-Za-z]\w*)(?:\((?P<arguments>.*)\))?", re.DOTALL)
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "torchmetrics": "torchmetrics"}
# scikit-learn: "functions ending with _score return a value to maximize, the higher the better; functions ending with
# _error, _loss, or _deviance return a value to minimize" (user guide, 3.4.1.1).
_HIGHER, _LOWER = ("_score", "matthews_corrcoef"), ("_error", "_loss", "_deviance")
# Of these the second argument has meant probabilities under every name that it had.
_PROBABILITIES = ("log_loss", "d2_log_loss_score", "d2_brier_score", "brier_score_loss")
Says = Callable[["Tensor"], "Tensor"]


class Outputs(NamedTuple):
    """The labels of one set and the network's outputs for them, as `kind` has both."""

    kind: LabelKind
    said: Tensor
    labels: Tensor


class Call(NamedTuple):
    """A metric of a library: which labels it is of, whether it takes scores, its direction, and the value of a set."""

    measures: tuple[LabelKind, ...]
    takes_scores: bool
    higher_is_better: bool
    value: Callable[[Outputs], object]


def is_of_library(name: str) -> bool:
    """Whether a metric's name begins with that of a library."""
    return name.startswith(("sklearn:", "torchmetrics:"))


def version_of(name: str) -> str:
    """The version of the library that has the metric `name`. Raises MissingExtra if it is not installed."""
    library = name.partition(":")[0]
    import_extra(library, extra=EXTRA)
    return metadata.version(_DISTRIBUTIONS[library])


@cache
def library_metric(name: str, *, key: str = "metric") -> Metric:
    """The metric of `sklearn:NAME`, `torchmetrics:NAME`, with arguments in parentheses.

    Raises MissingExtra without the library; ValidationError, which begins with `key`, for a name or an argument that it
    does not have, and if nothing says which way the metric is better.
    """
    found = _NAME.fullmatch(name)
    where = f"{key}: {name}"
    if found is None:
        raise ValidationError(
            f"{where}: expected LIBRARY:NAME or LIBRARY:NAME(argument=value)",
            hint="e.g. sklearn:balanced_accuracy_score, torchmetrics:AUROC: docs/metrics.md",
        )
    arguments = _arguments(found["arguments"] or "", where)
    said = arguments.pop(DIRECTION, None)
    made = _LIBRARIES[found["library"]](found["name"], arguments, said, where)

    def value(outcomes_nc: Tensor) -> MetricValue:
        return MetricValue(_value(made, outcomes_nc, where), None, len(outcomes_nc))

    def weighted(outcomes_nc: Tensor, weights_bn: Tensor) -> Tensor:
        drawn = (outcomes_nc.repeat_interleave(weights_n.long(), dim=0) for weights_n in weights_bn)
        return torch.tensor([_value(made, each, where) for each in drawn], dtype=torch.float64)

    contribution = partial(_contribution, takes_scores=made.takes_scores)
    return Metric(
        contribution,
        value,
        weighted,
        made.higher_is_better,
        made.measures,
        width=0,
        counts=not made.takes_scores and made.measures != ("numbers",),
        resampled=True,
    )


def _contribution(logits_nk: Tensor, labels: Tensor, *, takes_scores: bool) -> Tensor:
    if labels.is_floating_point():
        kind, said = "numbers", logits_nk[:, :1]
    elif labels.dim() == 2:
        kind, said = "multilabel", logits_nk if takes_scores else _with_nan(logits_nk > 0, logits_nk)
    else:
        largest_n1 = logits_nk.max(dim=1, keepdim=True).values == logits_nk
        predicted_n1 = largest_n1.to(torch.uint8).argmax(dim=1, keepdim=True)  # the lower index among equals
        kind, said = "classes", logits_nk if takes_scores else _with_nan(predicted_n1, logits_nk)
    of_kind_n1 = torch.full((len(labels), 1), float(KINDS.index(kind)), dtype=torch.float64, device=labels.device)
    labels_nc = labels.to(torch.float64).reshape(len(labels), -1)
    return torch.cat([of_kind_n1, said.to(torch.float64), labels_nc], dim=1)


def _with_nan(said: Tensor, logits_nk: Tensor) -> Tensor:
    """Rows whose logits have a NaN say one."""
    return said.to(torch.float64).masked_fill(logits_nk.isnan().any(dim=1, keepdim=True), math.nan)


def _value(made: Call, outcomes_nc: Tensor, where: str) -> float:
    """NaN for a network that says one, and where the library says so. Raises ValidationError if the library fails."""
    if len(outcomes_nc) == 0 or bool(outcomes_nc.isnan().any()):
        return math.nan
    kind, columns = KINDS[int(outcomes_nc[0, 0])], outcomes_nc[:, 1:]
    if kind == "multilabel":
        said, labels = columns.chunk(2, dim=1)
        said, labels = said if made.takes_scores else said.long(), labels.long()
    else:
        said, labels = columns[:, :-1], columns[:, -1]
        if kind == "classes":
            said, labels = said if made.takes_scores else said[:, 0].long(), labels.long()
        else:
            said = said[:, 0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a class without an example counts as
            found: Any = made.value(Outputs(kind, said, labels))
            return float(found)
    except Exception as cause:  # whatever the library makes of arguments and labels
        first_line = next(iter(str(cause).strip().splitlines()), "")
        raise ValidationError(
            f"{where}: {type(cause).__name__}: {first_line}",
            hint="arguments go in parentheses: sklearn:f1_score(average=macro)",
        ) from cause


def _of_sklearn(name: str, arguments: Mapping[str, Any], said: object, where: str) -> Call:
    library = import_extra("sklearn.metrics", extra=EXTRA)
    functions = {key: of for key, of in vars(library).items() if _is_sklearn_metric(of)}
    if name not in functions:
        raise ValidationError(
            f"{where}: scikit-learn has no metric of labels and predictions of this name{suggestion(name, functions)}",
            hint="a function of sklearn.metrics, e.g. sklearn:balanced_accuracy_score",
        )
    function = functions[name]
    known = inspect.signature(function).parameters
    _check_arguments(arguments, list(known)[2:], where)
    measures: tuple[LabelKind, ...] = ("classes", "multilabel")
    if function.__module__.endswith("_regression"):
        measures = ("numbers",)
    second = list(known)[1]
    takes_scores = name in _PROBABILITIES or second in ("y_score", "y_proba", "y_prob", "pred_decision")
    higher = True if name.endswith(_HIGHER) else False if name.endswith(_LOWER) else None
    says = _decisions if second == "pred_decision" else _probabilities

    def value(of: Outputs) -> object:
        given = dict(arguments)
        if not takes_scores:
            return function(of.labels.numpy(), of.said.numpy(), **given)
        if of.kind == "classes" and of.said.shape[1] > 2 and "labels" in known:
            given.setdefault("labels", list(range(of.said.shape[1])))  # those that have no example too
        return function(of.labels.numpy(), says(of).numpy(), **given)

    return Call(measures, takes_scores, _direction(higher, said, where), value)


def _is_sklearn_metric(of: object) -> bool:
    """Whether it is a function of labels and of what a network says of them."""
    module = getattr(of, "__module__", "") or ""
    if not inspect.isfunction(of) or not module.endswith(("._classification", "._ranking", "._regression")):
        return False
    parameters = list(inspect.signature(of).parameters)[:2]
    return parameters[0] in ("y_true", "y1") and of.__name__.endswith((*_HIGHER, *_LOWER))


def _of_torchmetrics(name: str, arguments: Mapping[str, Any], said: object, where: str) -> Call:
    library = import_extra("torchmetrics", extra=EXTRA)
    rooms = (library.classification, library.regression)
    classes = {key: of for room in (library, *rooms) for key, of in vars(room).items() if _is_torchmetric(of)}
    if name not in classes:
        raise ValidationError(
            f"{where}: torchmetrics has no metric of classes or numbers with this name{suggestion(name, classes)}",
            hint="a class of torchmetrics.classification or torchmetrics.regression, e.g. torchmetrics:F1Score",
        )
    made, known = classes[name], inspect.signature(classes[name]).parameters
    _check_arguments(arguments, list(known), where)
    measures: tuple[LabelKind, ...] = ("classes", "multilabel")
    if ".regression." in made.__module__:
        measures = ("numbers",)
    elif name.startswith("Multilabel") or "task" not in known:
        measures = ("multilabel",) if name.startswith("Multilabel") else ("classes",)

    def build(kind: LabelKind, columns: int) -> Any:
        task = "multilabel" if kind == "multilabel" else "binary" if columns == 2 else "multiclass"
        fitting = {"task": task, "num_classes": columns, "num_labels": columns}
        if kind == "numbers":
            fitting = {}
        return made(**{key: value for key, value in fitting.items() if key in known} | dict(arguments))

    def value(of: Outputs) -> object:
        columns = of.said.shape[1] if of.kind != "numbers" else 1
        metric = build(of.kind, columns)
        preds = of.said
        if of.kind != "numbers":
            wide = name.startswith("Multiclass") or arguments.get("task") == "multiclass"
            preds = torch.softmax(preds, dim=1) if of.kind == "classes" and wide else _probabilities(of)
        return metric(preds, of.labels)

    try:
        higher = build(measures[0], 3).higher_is_better
    except Exception as cause:  # whatever the library makes of the arguments
        raise ValidationError(f"{where}: {type(cause).__name__}: {next(iter(str(cause).splitlines()), '')}") from cause
    return Call(measures, measures != ("numbers",), _direction(higher, said, where), value)


def _is_torchmetric(of: object) -> bool:
    module = getattr(of, "__module__", "") or ""
    return inspect.isclass(of) and module.startswith(("torchmetrics.classification.", "torchmetrics.regression."))


_LIBRARIES: Mapping[str, Callable[[str, Mapping[str, Any], object, str], Call]] = MappingProxyType(
    {"sklearn": _of_sklearn, "torchmetrics": _of_torchmetrics}
)


def _probabilities(of: Outputs) -> Tensor:
    """[N, K]; of two classes that of class 1, [N]."""
    if of.kind == "multilabel":
        return torch.sigmoid(of.said)
    chances_nk = torch.softmax(of.said, dim=1)
    return chances_nk[:, 1] if chances_nk.shape[1] == 2 else chances_nk


def _decisions(of: Outputs) -> Tensor:
    """The logits; of two classes by how much that of class 1 is larger."""
    return of.said[:, 1] - of.said[:, 0] if of.said.shape[1] == 2 else of.said


def _direction(known: bool | None, said: object, where: str) -> bool:
    """Whether more is better: by the library, else as the name has it. Raises ValidationError if nothing tells."""
    if said is not None and not isinstance(said, bool):
        raise ValidationError(f"{where}: {DIRECTION} is true or false, got {said!r}")
    if known is not None and said is not None and said != known:
        raise ValidationError(f"{where}: {DIRECTION}={str(said).lower()}, and the library says {str(known).lower()}")
    if known is None and said is None:
        raise ValidationError(
            f"{where}: nothing says whether more or less is better",
            hint=f"({DIRECTION}=true), or false, behind its name",
        )
    return known if known is not None else bool(said)


def _check_arguments(arguments: Mapping[str, Any], known: list[str], where: str) -> None:
    for argument in arguments:
        if argument not in known:
            raise ValidationError(
                f"{where}: has no argument {argument!r}{suggestion(argument, known)}", hint=f"it has {', '.join(known)}"
            )


def _arguments(text: str, where: str) -> dict[str, Any]:
    """`average=macro, beta=2` as a dict; a bare word is a text, true, false and none are themselves."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {str(each.arg): _literal(each.value) for each in call.keywords if each.arg or _refused()}
    except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError) as cause:
        raise ValidationError(f"{where}: expected argument=value between the parentheses, got {text!r}") from cause


def _refused() -> bool:
    raise ValueError


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id.lower(), node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    return ast.literal_eval(node)
