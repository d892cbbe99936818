"""Two parts of one set: together all of it, apart nothing of it, and each scored as if it were a set of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcli.datasets.examples import ArrayExamples, TokenExamples
from soupcli.datasets.holdout import PartOfExamples, SetPart, divide, held_out_of, part_of, whole_of
from soupcli.errors import ValidationError
from soupcli.recipe.recipe import Recipe

SETS = Recipe.model_validate(
    {"val": {"a": {"arrays": "a.safetensors"}, "b": {"python": "b.py:f"}, "c": {"images": "c"}}}
).val


def halves(whole: ArrayExamples, share: float = 0.5) -> list[PartOfExamples]:
    return [part_of(whole, SetPart("a", share, held_out), "mark") for held_out in (False, True)]


@given(n=st.integers(8, 200), share=st.floats(0.2, 0.8), classes=st.integers(1, 5), seed=st.integers(0, 99))
def test_of_classes(n: int, share: float, classes: int, seed: int) -> None:
    """Each example is in one part, the held-out share is right to half an example in all and to one in each class."""
    labels_n = torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))
    whole = ArrayExamples(torch.arange(n)[:, None], labels_n, "mark")
    kept, held_out = halves(whole, share)
    assert torch.cat([kept.indices, held_out.indices]).sort().values.tolist() == list(range(n))
    assert abs(len(held_out.labels) - share * n) <= 0.5 + 1e-9
    for label in range(classes):
        assert abs(int((held_out.labels == label).sum()) - share * int((labels_n == label).sum())) <= 1 + 1e-9


def test_inputs_are_the_wholes() -> None:
    """Example i of a part is what the whole has at its index; two calls divide alike."""
    whole = ArrayExamples(torch.randn(40, 3), torch.randint(0, 2, (40,)), "mark")
    kept, held_out = halves(whole)
    some = torch.tensor([3, 0, 7])
    batch = held_out.batch(some, torch.device("cpu"))
    assert isinstance(batch, torch.Tensor) and torch.equal(batch, whole.inputs[held_out.indices[some]])
    assert torch.equal(kept.order(), torch.arange(len(kept.labels)))
    assert torch.equal(halves(whole)[1].indices, held_out.indices)
    assert (kept.kind, kept.classes) == ("classes", None)


def test_order_is_the_wholes() -> None:
    """Sequences of a part are visited longest first, as those of the whole."""
    starts = torch.cat([torch.tensor([0]), torch.randint(1, 9, (30,)).cumsum(0)])
    columns = {"input_ids": torch.arange(int(starts[-1]))}
    whole = TokenExamples(columns, starts, torch.randint(0, 2, (30,)), "mark", {"input_ids": 0})
    part = part_of(whole, SetPart("a", 0.4, True), "mark")
    lengths = whole.starts.diff()[part.indices][part.order()]
    assert len(lengths) == 12
    assert bool((lengths.diff() <= 0).all())
    assert sorted(part.order().tolist()) == list(range(12))


@pytest.mark.parametrize("labels", [torch.randn(20, dtype=torch.float64), torch.randint(-1, 3, (20, 2))])
def test_without_classes(labels: torch.Tensor) -> None:
    """Numbers and several labels are divided without regard to them."""
    kept, held_out = halves(ArrayExamples(torch.zeros(20, 1), labels, "mark"))
    assert (len(kept.labels), len(held_out.labels)) == (10, 10)


def test_too_few() -> None:
    """A part without examples is an error that names the key."""
    with pytest.raises(ValidationError, match=r"^holdout: 0.5 of 1 example leaves one part empty"):
        halves(ArrayExamples(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), "mark"))


def test_names() -> None:
    """The first set becomes its parts, the others stay; a part knows its whole."""
    sets, parts = divide(SETS, 0.25)
    assert list(sets) == ["a[selecting]", "a[held out]", "b", "c"]
    assert sets["a[selecting]"] is sets["a[held out]"] is SETS["a"]
    assert parts == {"a[selecting]": SetPart("a", 0.25, False), "a[held out]": SetPart("a", 0.25, True)}
    assert [whole_of(name) for name in (*parts, "b", held_out_of("b"))] == ["a", "a", "b", "b"]
    assert divide(SETS, None) == (SETS, {})
    assert divide({}, 0.5) == ({}, {})


@pytest.mark.parametrize("kind", ["python", "command", "lm_eval"])
def test_sets_without_examples(kind: str) -> None:
    """They are refused by name."""
    spec = {
        "python": {"python": "b.py:f"},
        "command": {"command": "x {checkpoint}"},
        "lm_eval": {"lm_eval": ["arc_easy"]},
    }
    sets = Recipe.model_validate({"val": {"mine": spec[kind]}}).val
    with pytest.raises(
        ValidationError, match=f"^holdout: val.mine is a {kind} set, which shows no examples to hold out"
    ):
        divide(sets, 0.5)
