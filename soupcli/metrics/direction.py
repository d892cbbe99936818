"""Whether higher is better for a metric, from its name: for numbers of trainers and other programs."""

from __future__ import annotations

import re

from soupcli.errors import ValidationError
from soupcli.metrics.library import is_of_library
from soupcli.metrics.table import METRICS

# Words of a name, apart from prefixes such as `eval_` and `val/`: the metric that they stand for is better when lower.
LOWER = {
    "loss",
    "nll",
    "ce",
    "xent",
    "error",
    "err",
    "wer",
    "cer",
    "ter",
    "per",
    "mer",
    "eer",
    "mae",
    "mse",
    "rmse",
    "mape",
    "ppl",
    "perplexity",
    "bpc",
    "bpb",
    "fid",
    "kid",
    "lpips",
    "hter",
    "distance",
    "divergence",
    "ece",
    "brier",
    "entropy",
    "hamming",
    "latency",
    "smape",
    "rmsle",
    "logloss",
    "deviance",
}
HIGHER = {
    "acc",
    "accuracy",
    "top1",
    "top5",
    "f1",
    "f2",
    "fbeta",
    "mcc",
    "auc",
    "auroc",
    "auprc",
    "map",
    "map50",
    "ap",
    "ap50",
    "iou",
    "miou",
    "dice",
    "bleu",
    "sacrebleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "rougel",
    "rougelsum",
    "meteor",
    "comet",
    "bertscore",
    "em",
    "precision",
    "recall",
    "sensitivity",
    "specificity",
    "psnr",
    "ssim",
    "pearson",
    "spearman",
    "pearsonr",
    "spearmanr",
    "kendall",
    "r2",
    "ndcg",
    "mrr",
    "kappa",
    "matthews",
    "jaccard",
    "reward",
    "winrate",
    "fitness",
    "likelihood",
    "explained",
    "hits",
    "gini",
    "concordance",
    "success",
}


NEGATED = {"neg", "negative", "minus"}


def direction_of(name: str) -> bool | None:
    """Return True if higher is better, False if lower is, None if the metric's name does not tell."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    lower, higher = not LOWER.isdisjoint(words), not HIGHER.isdisjoint(words)
    if lower == higher:
        return None
    return higher is NEGATED.isdisjoint(words)  # `neg_mean_squared_error`, as scikit-learn's scorers are called


def is_higher_better(metric: str, said: bool | None, *, place: str) -> bool:
    """Whether higher is better for `metric`: by its definition here, else as the recipe has `said`, else by its name.

    Raises ValidationError if the recipe contradicts a definition, or if nothing tells. `place` is the recipe's key.
    """
    if is_of_library(metric):
        raise ValidationError(
            f"{place}: {metric} is computed from labels and outputs, which this set does not show",
            hint="compute it in the function or command, under a name without the library",
        )
    known = METRICS[metric].higher_is_better if metric in METRICS else None
    if known is not None and said is not None and said != known:
        better = "higher" if known else "lower"
        raise ValidationError(
            f"{place}.higher_is_better: {str(said).lower()}, and {metric} is better when {better}",
            hint="call it by another name if it is another metric",
        )
    found = next((one for one in (known, said, direction_of(metric)) if one is not None), None)
    if found is None:
        raise ValidationError(
            f"{place}: nothing says whether more or less of {metric!r} is better",
            hint="higher_is_better: true, or false, beside metric: in the recipe",
        )
    return found
