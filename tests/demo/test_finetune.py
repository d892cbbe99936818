"""The fine-tuning that the demos share."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from soupcli.demo import finetune
from soupcli.demo.finetune import Draw
from soupcli.errors import OutputError
from soupcli.files.atomic import write_whole

DRAW = Draw(lr=1e-2, epochs=3, seed=5, batch_size=8)
INPUTS = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS.sum(1) > 0).long()


def network() -> nn.Sequential:
    with finetune.seeded(3):
        return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))


def loss(net: nn.Module, indices_b: Tensor, generator: torch.Generator) -> Tensor:
    inputs = INPUTS[indices_b]
    return F.cross_entropy(net(inputs + 0.1 * torch.randn(inputs.shape, generator=generator)), LABELS[indices_b])


def test_fit_depends_on_the_draw_alone() -> None:
    """Twice the same draw gives the same bits, another seed others, and the caller's random state stays."""
    weights = []
    for seed, state in [(5, 1), (5, 2), (6, 1)]:
        net = network()
        torch.manual_seed(state)
        before = torch.get_rng_state()
        finetune.fit(net, loss, Draw(lr=1e-2, epochs=3, seed=seed, batch_size=8), examples=20, task="t")
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fit_learns_and_counts_its_steps() -> None:
    """The loss falls, progress counts every step up to the total, and the network is left in evaluation mode."""
    net, calls = network(), list[tuple[int, int, str]]()

    def progress(task: str, done: int, total: int, *, note: str = "") -> None:
        calls.append((done, total, note))

    before = F.cross_entropy(net.eval()(INPUTS), LABELS)
    finetune.fit(net, loss, Draw(lr=5e-2, epochs=20, seed=0, batch_size=8), examples=20, task="t", progress=progress)
    assert F.cross_entropy(net(INPUTS), LABELS) < 0.5 * before
    assert [done for done, _, _ in calls] == list(range(1, 61))  # 20 epochs of 8, 8 and 4 examples
    assert {total for _, total, _ in calls} == {60}
    assert [bool(note) for _, _, note in calls] == [False] * 59 + [True]
    assert not net.training


def test_fit_leaves_frozen_parameters_alone() -> None:
    """Weight decay and momentum reach only what requires a gradient."""
    net = network()
    net[0].requires_grad_(False)
    frozen, tuned = net.get_parameter("0.weight").clone(), net.get_parameter("3.weight").clone()
    finetune.fit(net, loss, DRAW, examples=20, task="t")
    assert torch.equal(net.get_parameter("0.weight"), frozen)
    assert not torch.equal(net.get_parameter("3.weight"), tuned)


@given(st.integers(2, 500))
def test_learning_rate_rises_then_falls_to_zero(total: int) -> None:
    """Of any number of steps one is the peak, up to it the rate never falls, after it never rises."""
    rates = [finetune.warm_up_cosine(step, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert max(rates) == 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0  # no step is lost
    assert finetune.warm_up_cosine(total, total) == pytest.approx(0)


@given(st.integers(1, 30), st.integers(0, 1000))
def test_spread_takes_one_value_of_each_slice(count: int, seed: int) -> None:
    """However few the draws, they cover the whole range evenly."""
    values = finetune.spread(2.0, 5.0, count, torch.Generator().manual_seed(seed))
    assert sorted(math.floor((v - 2) / 3 * count) for v in values) == list(range(count))


def test_run_names_tell_the_hyper_parameters_and_sort_by_index() -> None:
    """A name reads as the value in train.json, without noughts that carry nothing."""
    names = [finetune.run_name(i, Draw(lr=lr, epochs=9, seed=0)) for i, lr in [(0, 2e-3), (3, 2.1e-3), (11, 0.13)]]
    assert names == ["00-lr2e-3-ep9", "03-lr2.1e-3-ep9", "11-lr1.3e-1-ep9"]
    assert names == sorted(names)


def test_linear_probe_is_at_the_minimum() -> None:
    """The gradient of the penalised loss at the returned head is zero, whatever the scale of the features."""
    features, weight_decay = 40 * INPUTS, 1e-2
    weight, bias = finetune.linear_probe(features, LABELS, 2, weight_decay=weight_decay)
    scale = features.square().mean().sqrt()
    weight, bias = (weight * scale).requires_grad_(), bias.requires_grad_()
    value = F.cross_entropy(features / scale @ weight.T + bias, LABELS) + 0.5 * weight_decay * weight.square().sum()
    for gradient in torch.autograd.grad(value, [weight, bias]):
        assert gradient.abs().max() < 1e-4
    assert weight.dtype == bias.dtype == torch.float32


def test_threads_come_back() -> None:
    """Torch has its own number of threads again, also after an error."""
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), finetune.threads(at_most=1):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_claim_refuses_other_settings(tmp_path: Path) -> None:
    """A folder goes on with its own settings; others are refused with both values."""
    finetune.claim(tmp_path, {"demo": "digits", "seed": 0})
    finetune.claim(tmp_path, {"seed": 0, "demo": "digits"})
    with pytest.raises(OutputError, match="holds a demo with seed 0, asked for seed 1"):
        finetune.claim(tmp_path, {"demo": "digits", "seed": 1})


def test_files_appear_whole_with_the_mode_of_the_umask(tmp_path: Path) -> None:
    """What was written is there, readable as the umask says, and nothing else is."""
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a" / "file", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither the order of names nor the layout in memory shows in the file; the values come back."""
    first = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2])}
    second = {"a": torch.tensor([1, 2]), "b": torch.arange(6.0).view(2, 3).T.contiguous().T}
    finetune.write_tensors(tmp_path / "1", first)
    finetune.write_tensors(tmp_path / "2", second)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    back = finetune.read_tensors(tmp_path / "1")
    assert all(torch.equal(back[name], first[name]) for name in first)
    assert back["a"].dtype == torch.int64
