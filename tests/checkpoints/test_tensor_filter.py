"""Which tensors are mixed, and that the others come through as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import FilteredCheckpoint, TensorFilter
from soupcli.errors import UsageError
from soupcli.mixing.mixture import Mixture, mix
from tests.helpers.checkpoint_tensors import assert_same, read, read_all


@pytest.fixture
def three(tmp_path: Path) -> list[Checkpoint]:
    """Three checkpoints with a body, a counter, and heads of different shapes; the last has one tensor more."""
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        state = {
            "body.weight": torch.randn(4, 3, generator=generator, dtype=torch.float64),
            "body.steps": torch.tensor(number),
            "head.weight": torch.randn(2 + number, 4, generator=generator, dtype=torch.float64),
        }
        extra = {"extra.scale": torch.ones(1)} if number == 2 else {}
        save_file({**state, **extra}, tmp_path / f"{number}.safetensors")
    return [open_checkpoint(tmp_path / f"{number}.safetensors") for number in range(3)]


@pytest.mark.parametrize(
    ("include", "exclude", "mixed"),
    [
        ((), (), {"body.weight", "body.steps", "head.weight", "extra.scale"}),
        (("body.*",), (), {"body.weight", "body.steps"}),
        ((), ("head.*", "extra.*"), {"body.weight", "body.steps"}),
        (("*.weight",), ("head.*",), {"body.weight"}),
        (("body.[sw]*",), ("*s",), {"body.weight"}),
        (("BODY.*", "body.weight"), (), {"body.weight"}),
    ],
)
def test_patterns(three: list[Checkpoint], include: tuple[str, ...], exclude: tuple[str, ...], mixed: set[str]) -> None:
    """What fits an --include, if there is one, and no --exclude; case counts."""
    selection = TensorFilter(include, exclude)
    assert {name for name in three[2].tensors if selection.mixes(name)} == mixed


def test_rest_from_one_source(three: list[Checkpoint]) -> None:
    """Every ingredient has the source's tensors where they are not mixed, whichever of them it has itself."""
    selection = TensorFilter(exclude=("head.*", "extra.*"))
    for source in three:
        shared = [selection.applied(checkpoint, source) for checkpoint in three]
        assert shared[three.index(source)] is source
        for one, checkpoint in zip(shared, three, strict=True):
            assert one.tensors.keys() == source.tensors.keys()
            assert torch.equal(read(one, "body.weight"), read(checkpoint, "body.weight"))
            assert torch.equal(read(one, "head.weight", 1, 5), read(source, "head.weight", 1, 5))
            assert (one.path, one.files, one.origin) == (checkpoint.path, checkpoint.files, checkpoint.origin)


@pytest.mark.parametrize("weights", [None, (0.3, 0.6, 0.1)])
def test_mixture(three: list[Checkpoint], weights: tuple[float, ...] | None) -> None:
    """In a mixture the rest is the source's bit for bit, in float64 and under any weights, and the body is the mean."""
    selection = TensorFilter(exclude=("head.*", "extra.*"))
    shared = [selection.applied(checkpoint, three[1]) for checkpoint in three]
    mixture = Mixture.uniform(shared) if weights is None else Mixture(tuple(shared), weights)
    mixed = {
        name: mix(mixture, name, start=0, count=mixture.spec(name).numel).view(mixture.spec(name).shape)
        for name in mixture.kept.tensors
    }
    kept = {name: tensor for name, tensor in read_all(three[1]).items() if name != "body.weight"}
    assert_same({name: mixed[name] for name in kept if name != "body.steps"}, {"head.weight": kept["head.weight"]})
    bodies = [read(checkpoint, "body.weight") for checkpoint in three]
    expected = sum(weight * body for weight, body in zip(weights or (1 / 3,) * 3, bodies, strict=True))
    assert torch.allclose(mixed["body.weight"], torch.as_tensor(expected), rtol=1e-15)


def test_everything(three: list[Checkpoint]) -> None:
    """Without patterns an ingredient is itself."""
    assert all(TensorFilter().applied(checkpoint, three[0]) is checkpoint for checkpoint in three)
    assert list(three[0].sources) == []


def test_sources(three: list[Checkpoint]) -> None:
    """A selected ingredient says what else it is made of."""
    selected = TensorFilter(exclude=("head.*",)).applied(three[0], three[1])
    assert isinstance(selected, FilteredCheckpoint)
    assert list(selected.sources) == [three[1]]


@pytest.mark.parametrize(
    ("selection", "message", "hint"),
    [
        (TensorFilter(exclude=("haed.*",)), "--exclude haed.*: fits no tensor", "'head.weight'"),
        (TensorFilter(include=("body.*", "heads")), "--include heads: fits no tensor", "head.weight"),
        (TensorFilter(include=("body.*",), exclude=("*",)), "no tensor is left to mix", ""),
    ],
)
def test_mistakes(three: list[Checkpoint], selection: TensorFilter, message: str, hint: str) -> None:
    """A pattern that fits nothing names its nearest tensor; something has to be left."""
    with pytest.raises(UsageError) as refused:
        selection.check(three)
    assert message in str(refused.value)
    assert hint in (refused.value.hint or "")
    TensorFilter(exclude=("extra.*",)).check(three)
