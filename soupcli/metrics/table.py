"""The table of metrics, each as the contribution of an example and the value of all contributions.

Contributions are kept for each example, in integers or float64. So a score is divided once, over the whole set, and
does not change with the batch size, the order or the number of processes. Tensors: logits_nk [N, K] float, labels as
`LabelKind` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from soupcli.errors import ValidationError
from soupcli.metrics import accuracy, f1_mcc, loss, multilabel
from soupcli.metrics.accuracy import best_share, correct, share
from soupcli.metrics.calibration import (
    confidence_and_right,
    expected_calibration_error,
    surplus,
    weighted_calibration_error,
)
from soupcli.metrics.correlation import (
    pearson,
    predicted_and_measured,
    spearman,
    squared_error,
    weighted_pearson,
    weighted_spearman,
)
from soupcli.metrics.f1_mcc import best_f1, f1, matthews, predicted_and_true, weighted_f1, weighted_matthews
from soupcli.metrics.library import is_of_library, library_metric
from soupcli.metrics.loss import least_mean, mean, negative_log_likelihood, weighted_mean
from soupcli.metrics.metric import SIGN, LabelKind, Metric, mean_of
from soupcli.metrics.perplexity import best_perplexity, perplexity, sum_and_count, weighted_perplexity
from soupcli.wording import suggestion

LABELS: dict[LabelKind, str] = {
    "classes": "one class for each example",
    "several": "several right classes for each example",
    "multilabel": "rows of 0 and 1, any number of classes for each example",
    "numbers": "numbers as labels",
    "tokens": "text to predict token by token",
}


def metric_named(name: str, *, key: str = "metric") -> Metric:
    """The metric, of `sklearn:NAME` that of the library, or with `+` in its name the mean of several.

    `key` of the recipe gives it. Raises ValidationError with the nearest name, MissingExtra without the library.
    """
    if SIGN in name:
        return mean_of([metric_named(part.strip(), key=key) for part in name.split(SIGN)], name, key=key)
    if is_of_library(name):
        return library_metric(name, key=key)
    if name not in METRICS:
        raise _unknown(name, key)
    return METRICS[name]


def defined(name: str) -> Metric | None:
    """Return the metric, or None for a name that is defined only in a program of the user's."""
    names = [part.strip() for part in name.split(SIGN)]
    return metric_named(name) if all(part in METRICS or is_of_library(part) for part in names) else None


def _unknown(name: str, key: str) -> ValidationError:
    """Return the error for a name that is not defined here, with what other tools call so, or the nearest name."""
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"^(eval|val|test|train)[/_]", "", name.lower())).strip("_")
    if plain in OF_PROGRAMS:
        return ValidationError(
            f"{key}: {name!r} is not known: it takes more than logits and labels",
            hint=f"{{python: 'my_eval.py:{plain}'}} is a set with a function of (model, device) that returns it, see "
            f"docs/{OF_PROGRAMS[plain]}",
        )
    known = SYNONYMS.get(plain) or (plain if plain in METRICS else None)
    near = f", did you mean {known!r}?" if known else suggestion(name, METRICS, least=0.7)
    hint = f"one of {', '.join(METRICS)}, sklearn:NAME or torchmetrics:NAME"
    return ValidationError(f"{key}: {name!r} is not known{near}", hint=hint)


def metrics_for(names: Sequence[str], kind: LabelKind, *, where: str) -> dict[str, Metric]:
    """Return the definitions of those of `names` that apply to such labels. The first one, which selects, must apply.

    Raises ValidationError if it does not; `where` names the set.
    """
    fitting = {name: metric_named(name) for name in names if kind in metric_named(name).measures}
    if names[0] not in fitting:
        others = [name for name, metric in METRICS.items() if kind in metric.measures]
        rows = metric_named(names[0]).measures == ("multilabel",)
        raise ValidationError(
            f"{where}: has {LABELS[kind]}, which {names[0]} does not measure",
            hint=f"--metric {' or '.join(others)}{ROWS_WANTED if rows else ''}",
        )
    return fitting


ROWS_WANTED = "; several classes for one example: label: names columns of 0 and 1, labels of arrays are [N, K]"
# What other tools call these metrics, in lower case, separators as `_`.
SYNONYMS = {
    **dict.fromkeys(("acc", "acc1", "acc_1", "top1", "top_1", "accuracy_score", "top1_accuracy"), "accuracy"),
    **dict.fromkeys(("acc5", "acc_5", "top_5", "top5_accuracy", "top_5_accuracy"), "top5"),
    **dict.fromkeys(("loss", "ce", "cross_entropy", "crossentropy", "log_loss", "logloss", "xent"), "nll"),
    **dict.fromkeys(("f1_score", "f1score", "f_score", "f1_binary"), "f1"),
    **dict.fromkeys(("micro_f1",), "f1_micro"),
    **dict.fromkeys(("macro_f1",), "f1_macro"),
    **dict.fromkeys(("mean_average_precision", "average_precision", "average_precision_score", "map_macro"), "map"),
    **dict.fromkeys(("bce_loss", "bcewithlogits", "bce_with_logits", "binary_cross_entropy"), "bce"),
    **dict.fromkeys(("matthews", "matthews_corrcoef", "matthews_correlation", "phi"), "mcc"),
    **dict.fromkeys(("mean_squared_error", "l2", "squared_error"), "mse"),
    **dict.fromkeys(("pearsonr", "pearson_r", "pcc", "correlation", "corr"), "pearson"),
    **dict.fromkeys(("spearmanr", "spearman_r", "rho", "rank_correlation"), "spearman"),
    **dict.fromkeys(("calibration", "calibration_error", "expected_calibration_error"), "ece"),
    **dict.fromkeys(("ppl",), "perplexity"),
    **dict.fromkeys(("balanced_accuracy", "balanced_acc", "uar"), "sklearn:balanced_accuracy_score"),
    **dict.fromkeys(("auc", "auroc", "roc_auc", "rocauc", "auc_roc", "aucroc", "roc"), "sklearn:roc_auc_score"),
    **dict.fromkeys(("auprc", "pr_auc", "prauc", "auc_pr", "aupr", "ap"), "sklearn:average_precision_score"),
    **dict.fromkeys(("top3", "top_3", "acc3", "acc_3"), "sklearn:top_k_accuracy_score(k=3)"),
    **dict.fromkeys(("err", "error", "error_rate", "top1_error", "top1_err", "err1", "zero_one_loss"), "accuracy"),
    **dict.fromkeys(("weighted_f1", "f1_weighted"), "sklearn:f1_score(average=weighted)"),
    **dict.fromkeys(("jaccard", "jaccard_index"), "sklearn:jaccard_score(average=macro)"),
    **dict.fromkeys(("sensitivity", "tpr"), "sklearn:recall_score"),
    **dict.fromkeys(("specificity", "tnr"), "torchmetrics:Specificity(higher_is_better=true)"),
    **dict.fromkeys(("hamming", "hamming_distance"), "sklearn:hamming_loss"),
    **dict.fromkeys(("mape",), "sklearn:mean_absolute_percentage_error"),
    **dict.fromkeys(("kappa", "cohen_kappa"), "sklearn:cohen_kappa_score"),
    **dict.fromkeys(("qwk", "quadratic_weighted_kappa"), "sklearn:cohen_kappa_score(weights=quadratic)"),
    **dict.fromkeys(("mae", "mean_absolute_error", "l1"), "sklearn:mean_absolute_error"),
    **dict.fromkeys(("rmse", "root_mean_squared_error"), "sklearn:root_mean_squared_error"),
    **dict.fromkeys(("r2", "r_squared"), "sklearn:r2_score"),
    **dict.fromkeys(("precision", "precision_macro"), "sklearn:precision_score(average=macro)"),
    **dict.fromkeys(("recall", "recall_macro"), "sklearn:recall_score(average=macro)"),
    **dict.fromkeys(("brier", "brier_score"), "sklearn:brier_score_loss"),
}

# Metrics of texts that were written, of masks, boxes, rankings and pictures, and the page that has such a function.
_TEXTS = ("em", "exact_match", "bleu", "sacrebleu", "chrf", "meteor", "rouge", "rouge1", "rouge2", "rougel", "rouge_l")
_OTHERS = ("rougelsum", "bertscore", "pass_1", "ndcg", "mrr", "recall_1", "recall_5", "psnr", "ssim", "fid")
OF_PROGRAMS = {
    **dict.fromkeys((*_TEXTS, *_OTHERS), "python.md"),
    **dict.fromkeys(("wer", "cer"), "speech.md"),
    **dict.fromkeys(("iou", "miou", "mean_iou", "dice", "pixel_accuracy"), "segmentation.md"),
    **dict.fromkeys(("map50", "map_50", "map50_95", "map_50_95", "ap50"), "detection.md"),
}

_right = partial(correct, among=1)
_right_of_5 = partial(correct, among=5)

METRICS: dict[str, Metric] = {
    **{
        name: Metric(
            right,
            share,
            weighted_mean,
            measures=("classes", "several"),
            reachable=best_share,
            counts=True,
            right_and_wrong=accuracy.right_and_wrong,
            span=1.0,
        )
        for name, right in (("accuracy", _right), ("top5", _right_of_5))
    },
    "nll": Metric(
        negative_log_likelihood,
        mean,
        weighted_mean,
        higher_is_better=False,
        reachable=least_mean,
        right_and_wrong=loss.right_and_wrong,
    ),
    "ece": Metric(
        confidence_and_right,
        expected_calibration_error,
        weighted_calibration_error,
        higher_is_better=False,
        width=2,
        span=1.0,
        bias=surplus,
    ),
    "f1": Metric(
        predicted_and_true,
        f1,
        weighted_f1,
        reachable=best_f1,
        width=3,
        counts=True,
        right_and_wrong=f1_mcc.right_and_wrong,
        span=1.0,
    ),
    "mcc": Metric(
        predicted_and_true,
        matthews,
        weighted_matthews,
        width=3,
        counts=True,
        right_and_wrong=f1_mcc.right_and_wrong,
        span=2.0,
    ),
    "pearson": Metric(predicted_and_measured, pearson, weighted_pearson, measures=("numbers",), width=2, span=2.0),
    "spearman": Metric(predicted_and_measured, spearman, weighted_spearman, measures=("numbers",), width=2, span=2.0),
    "mse": Metric(
        squared_error, mean, weighted_mean, higher_is_better=False, measures=("numbers",), reachable=least_mean
    ),
    "map": Metric(
        multilabel.logits_and_true,
        multilabel.mean_average_precision,
        multilabel.weighted_mean_average_precision,
        measures=("multilabel",),
        reachable=multilabel.best_mean_average_precision,
        width=2,
        span=1.0,
        enough=multilabel.tells_precision,
        per_class=True,
    ),
    "f1_micro": Metric(
        multilabel.predicted_and_true,
        multilabel.f1_micro,
        multilabel.weighted_f1_micro,
        measures=("classes", "multilabel"),
        reachable=multilabel.best_f1_micro,
        counts=True,
        span=1.0,
        per_class=True,
    ),
    "f1_macro": Metric(
        multilabel.predicted_and_true,
        multilabel.f1_macro,
        multilabel.weighted_f1_macro,
        measures=("classes", "multilabel"),
        reachable=multilabel.best_f1_macro,
        counts=True,
        span=1.0,
        per_class=True,
    ),
    "bce": Metric(
        multilabel.wide_binary_cross_entropy,
        mean,
        weighted_mean,
        higher_is_better=False,
        measures=("multilabel",),
        reachable=least_mean,
    ),
    "perplexity": Metric(
        sum_and_count,
        perplexity,
        weighted_perplexity,
        higher_is_better=False,
        measures=("tokens",),
        reachable=best_perplexity,
        width=2,
    ),
}
