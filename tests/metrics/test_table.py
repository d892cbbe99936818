"""Metrics against straightforward formulas: each example's part, the value of all, and its standard error."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.metrics.table import METRICS, metric_named

FEW = settings(max_examples=60, deadline=None)
LOGITS = st.floats(-30, 30, width=16) | st.sampled_from([0.0, 1.0])  # ties are common


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[list[list[float]], list[int]]:
    """Logits [N, K] and labels [N]."""
    classes = draw(st.integers(1, 9))
    rows = draw(st.lists(st.lists(LOGITS, min_size=classes, max_size=classes), min_size=1, max_size=12))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=len(rows), max_size=len(rows)))
    return rows, labels


def parts(metric: str, rows: list[list[float]], labels: list[int]) -> Tensor:
    """What each example contributes."""
    return METRICS[metric].contribution(torch.tensor(rows), torch.tensor(labels))


def place(row: list[float], label: int) -> int:
    """Where the label comes among the logits, the largest first, of equal ones that of the lower index."""
    return sorted(range(len(row)), key=lambda k: (-row[k], k)).index(label)


@FEW
@given(outcomes())
def test_accuracy_and_top5(made: tuple[list[list[float]], list[int]]) -> None:
    """Right is who comes first, or among the first five; the error is that of a binomial share, or Wilson's."""
    rows, labels = made
    for metric, among in (("accuracy", 1), ("top5", 5)):
        right = [int(place(row, label) < among) for row, label in zip(rows, labels, strict=True)]
        contributed = parts(metric, rows, labels)
        assert contributed.tolist() == right
        value, n = METRICS[metric].value(contributed), len(rows)
        share = sum(right) / n
        assert (value.value, value.n) == (share, n)
        assert value.stderr == pytest.approx(
            math.sqrt(share * (1 - share) / n) if 0 < share < 1 else 1.96 / (n + 1.96**2), rel=1e-3
        )


@FEW
@given(outcomes())
def test_negative_log_likelihood(made: tuple[list[list[float]], list[int]]) -> None:
    """Minus the logarithm of the softmax of the label; the error is that of a mean."""
    rows, labels = made
    wanted = [
        -(row[label] - max(row)) + math.log(math.fsum(math.exp(x - max(row)) for x in row))
        for row, label in zip(rows, labels, strict=True)
    ]
    contributed = parts("nll", rows, labels)
    assert contributed.tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    value = METRICS["nll"].value(contributed)
    assert value.value == pytest.approx(statistics.fmean(wanted), rel=1e-9, abs=1e-12)
    assert value.n == len(rows)
    if len(rows) == 1:
        assert value.stderr is None
    else:
        assert value.stderr == pytest.approx(statistics.stdev(wanted) / math.sqrt(len(rows)), rel=1e-6, abs=1e-9)


@FEW
@given(outcomes(), st.data())
def test_in_any_batches(made: tuple[list[list[float]], list[int]], data: st.DataObject) -> None:
    """Contributions do not depend on which examples share a batch."""
    rows, labels = made
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    for metric in ("accuracy", "top5", "nll"):
        whole = parts(metric, rows, labels)
        for batch in (order[:cut], order[cut:]):
            if batch:
                alone = parts(metric, [rows[i] for i in batch], [labels[i] for i in batch])
                assert torch.equal(alone, whole[torch.tensor(batch)])


def test_directions() -> None:
    """More accuracy is better, less negative log-likelihood is."""
    assert METRICS["accuracy"].higher_is_better
    assert METRICS["top5"].higher_is_better
    assert not METRICS["nll"].higher_is_better


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_nan_is_never_right(bad: int) -> None:
    """A NaN among the logits, wherever it is, makes the example wrong and its likelihood a NaN."""
    row = [3.0, 1.0, 2.0]
    row[bad] = math.nan
    for label in range(3):
        assert parts("accuracy", [row], [label]).tolist() == [0]
        assert parts("top5", [row], [label]).tolist() == [0]
        assert math.isnan(METRICS["nll"].value(parts("nll", [row], [label])).value)


def test_infinities() -> None:
    """An infinite logit decides; a likelihood of zero is an infinite loss, without a standard error."""
    assert parts("accuracy", [[0.0, math.inf]], [1]).tolist() == [1]
    value = METRICS["nll"].value(parts("nll", [[0.0, -math.inf], [0.0, 0.0]], [1, 0]))
    assert value.value == math.inf
    assert value.stderr is None


def test_unknown() -> None:
    """A metric by another name is an error with the nearest one."""
    with pytest.raises(ValidationError, match=r"metric: 'top_5' is not known, did you mean 'top5'\?"):
        metric_named("top_5")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(("acc", "accuracy"), ("Acc@1", "accuracy"), ("top-1", "accuracy"), ("eval_loss", "nll"), ("loss", "nll")),
        *(
            ("f1-macro", "f1_macro"),
            ("macro F1", "f1_macro"),
            ("top_5", "top5"),
            ("val/Accuracy", "accuracy"),
            ("acuracy", "accuracy"),
        ),
        *(
            ("ppl", "perplexity"),
            ("spearmanr", "spearman"),
            ("quality", None),
            ("mae", "sklearn:mean_absolute_error"),
            ("auc", "sklearn:roc_auc_score"),
            ("xyz", None),
            ("rocauc", "sklearn:roc_auc_score"),
            ("mape", "sklearn:mean_absolute_percentage_error"),
        ),
    ],
)
def test_did_you_mean(word: str, meant: str | None) -> None:
    """Names of other tools are known; what is not near is not offered."""
    with pytest.raises(ValidationError) as caught:
        metric_named(word)
    assert (f"did you mean {meant!r}" in str(caught.value)) if meant else ("did you mean" not in str(caught.value))


@pytest.mark.parametrize(
    ("word", "page"),
    [("eval/WER", "speech"), ("mIoU", "segmentation"), ("mAP@50", "detection"), ("exact-match", "python")],
)
def test_metrics_of_programs(word: str, page: str) -> None:
    """What logits and labels do not tell is a function's result: the hint has the set and a page, no near name."""
    with pytest.raises(ValidationError, match=r"is not known: it takes more than logits and labels$") as caught:
        metric_named(word)
    assert caught.value.hint is not None
    assert f"docs/{page}.md" in caught.value.hint
