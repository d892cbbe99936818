"""One network under several sets of names is mixed under the first one's; what is no difference is passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from soupcli.checkpoints.compare.names import check_ties, common_names
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from tests.helpers.checkpoint_tensors import assert_same, read_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint
    from tests.conftest import Ran


def saved(folder: Path, *states: dict[str, Tensor]) -> list[Checkpoint]:
    """Files of torch.save, in which names may share memory."""
    for number, state in enumerate(states):
        torch.save(state, folder / f"r{number}.pt")
    return [open_checkpoint(folder / f"r{number}.pt") for number in range(len(states))]


def named(checkpoints: list[Checkpoint]) -> list[dict[str, Tensor]]:
    names, _ = common_names(checkpoints)
    return [read_all(names.applied(checkpoint)) for checkpoint in checkpoints]


TIED = {"emb.weight": torch.arange(6.0).view(3, 2), "b": torch.ones(2)}


def test_tied_head(tmp_path: Path) -> None:
    """A head that some do not store is the embedding: all have it if the first has, and nobody else."""
    both = {**TIED, "head.weight": TIED["emb.weight"]}
    copied = {**TIED, "head.weight": TIED["emb.weight"].clone()}
    for first, second in ((both, TIED), (copied, TIED), (TIED, both)):
        one, two = named(saved(tmp_path, first, second))
        assert_same(one, first)
        assert_same(two, first)
    notes = common_names(saved(tmp_path, both, TIED))[1]
    assert notes[0].startswith("head.weight is the same matrix as emb.weight in ")


def test_tied_bias(tmp_path: Path) -> None:
    """The bias of a head of BERT is stored once or twice, too. Vectors of one number, or of few, are not tied."""
    bias = torch.arange(20.0)
    for first, is_tied in ((bias, True), (torch.zeros(20), False), (bias[:9], False)):
        both = {"p.bias": first, "p.decoder.bias": first.clone()}
        names, _ = common_names(saved(tmp_path, both, {"p.bias": first + 1}))
        assert names.aliases == ({"p.decoder.bias": "p.bias"} if is_tied else {})


def test_head_of_its_own(tmp_path: Path) -> None:
    """A head that is no copy in one checkpoint that stores it is not taken for the embedding in another."""
    untied = {**TIED, "head.weight": torch.rand(3, 2)}
    both = {**TIED, "head.weight": TIED["emb.weight"]}
    for states in ([untied, TIED], [TIED, both, untied]):
        names, notes = common_names(saved(tmp_path, *states))
        assert (names.aliases, names.passed_over, notes) == ({}, frozenset(), [])


def test_nothing_unties(tmp_path: Path) -> None:
    """--exclude of one of two names of a matrix is refused; of both, and of a head that is its own, it is not."""
    both = {**TIED, "head.weight": TIED["emb.weight"]}
    tied = saved(tmp_path, both, both)
    with pytest.raises(MixError, match="only one of them is mixed") as refused:
        check_ties(tied, TensorFilter(exclude=("head.*",)))
    assert refused.value.hint == "mix both or neither: --exclude head.weight emb.weight"
    check_ties(tied, TensorFilter(exclude=("head.*", "emb.*")))
    check_ties(tied, TensorFilter(exclude=("b",)))
    untied = {**TIED, "head.weight": torch.rand(3, 2)}
    check_ties(saved(tmp_path, untied, untied), TensorFilter(exclude=("head.*",)))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("first_is_new", [False, True])
def test_weight_norm(tmp_path: Path, *, first_is_new: bool) -> None:
    """Torch's two spellings of weight norm are one; both are mixed under the first one's."""
    states = [wrap(nn.Linear(4, 3)).state_dict() for wrap in (weight_norm, parametrizations.weight_norm)]
    first, second = states[::-1] if first_is_new else states
    one, two = named(saved(tmp_path, first, second))
    assert_same(one, first)
    assert sorted(two) == sorted(first)
    assert {tuple(tensor.shape) for tensor in two.values()} == {tuple(tensor.shape) for tensor in second.values()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bert.LayerNorm.gamma", "bert.LayerNorm.weight"),
        ("bert.LayerNorm.beta", "bert.LayerNorm.bias"),
        ("language_model.model.x", "model.language_model.x"),
        ("vision_tower.x", "model.vision_tower.x"),
        ("embed_out.weight", "lm_head.weight"),
    ],
)
def test_renamed(tmp_path: Path, old: str, new: str) -> None:
    """Names that transformers takes for one another, in either order."""
    for first, second in ((old, new), (new, old)):
        one, two = named(saved(tmp_path, {first: torch.zeros(2)}, {second: torch.ones(2)}))
        assert_same(one, {first: torch.zeros(2)})
        assert_same(two, {first: torch.ones(2)})
    other = common_names(saved(tmp_path, {old: torch.zeros(2)}, {new: torch.ones(3)}))
    assert other == (({}, frozenset()), [])


def sines(angles: Tensor, *, halves: bool) -> Tensor:
    return (
        torch.cat([angles.sin(), angles.cos()], 1)
        if halves
        else torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
    )


BUFFERS = {
    "embeddings.position_ids": torch.arange(40)[None],
    "h.0.attn.bias": torch.ones(1, 1, 8, 8).tril(),
    "h.0.attn.masked_bias": torch.tensor(-1e4),
    "layers.0.attn_mask": torch.full((4, 8, 8), -100.0).triu(1),
    "rotary_emb.inv_freq": torch.rand(16),
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.rand(32, 2),  # T5 ignores it
    "encoder.embed_positions.weight": sines(torch.arange(9.0)[:, None] / 10 ** torch.arange(4.0), halves=True),
    "pos_encoder.pe": sines(torch.arange(1, 9.0)[:, None] / 10 ** torch.arange(4.0), halves=False).half()[:, None],
    "bn.num_batches_tracked": torch.tensor(7),
    "x._extra_state": torch.randint(0, 255, (100,), dtype=torch.uint8),
    "counts_from_0": torch.arange(50),
    "all_one": torch.ones(50, dtype=torch.bool),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers(tmp_path: Path, name: str) -> None:
    """Buffers that older versions stored are left out, whoever has them, and named."""
    weights = {"w": torch.rand(3)}
    for states in ([weights, {**weights, name: BUFFERS[name]}], [{**weights, name: BUFFERS[name]}, weights]):
        checkpoints = saved(tmp_path, *states)
        assert all(sorted(state) == ["w"] for state in named(checkpoints))
        assert common_names(checkpoints)[1][0].startswith(f"{name} is left out")


@pytest.mark.parametrize("name", ["head.bias", "attention.bias", "table", "w2", "pos_embed"])
def test_no_buffers(tmp_path: Path, name: str) -> None:
    """Weights and unknown integers that one lacks are no buffers: the networks differ."""
    tensor = torch.randint(0, 99, (50,)) if name == "table" else torch.rand(8, 8)
    names, _ = common_names(saved(tmp_path, {"w": torch.rand(3)}, {"w": torch.rand(3), name: tensor}))
    assert names.passed_over == frozenset()


def test_written_and_rebuilt(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """The soup has the first one's names; from its report, and without the first, it is written again."""
    head = torch.rand(3, 2)
    states = [
        {"emb.weight": head, "head.weight": head.clone(), "n.LayerNorm.gamma": torch.zeros(2)},
        {"emb.weight": head + 1, "n.LayerNorm.weight": torch.ones(2), "position_ids": torch.arange(40)},
    ]
    for number, state in enumerate(states):
        save_file(state, tmp_path / f"r{number}.safetensors")
    paths = [tmp_path / f"r{number}.safetensors" for number in range(2)]
    ran = soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out")
    assert ran.code == 0
    assert ran.stderr.count("warning: ") == 3
    made = load_file(tmp_path / "out/model.safetensors")
    expected = {"emb.weight": head + 0.5, "head.weight": head + 0.5, "n.LayerNorm.gamma": torch.full((2,), 0.5)}
    assert sorted(made) == sorted(expected)
    assert all(torch.allclose(made[name], tensor) for name, tensor in expected.items())
    assert torch.equal(made["emb.weight"], made["head.weight"])
    assert soup("verify", tmp_path / "out", "--rebuild").code == 0


def test_extra_states_of_other_lengths(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """A layer's own record is taken from the first, whatever its length; inspect finds no difference in it."""
    for number, length in enumerate((20, 30)):
        state = {"fc.w": torch.full((2,), float(number)), "fc._extra_state": torch.zeros(length, dtype=torch.uint8)}
        save_file(state, tmp_path / f"r{number}.safetensors")
    paths = [tmp_path / f"r{number}.safetensors" for number in range(2)]
    ran = soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out")
    assert ran.code == 0
    assert "fc._extra_state" in ran.stderr
    assert load_file(tmp_path / "out/model.safetensors")["fc._extra_state"].shape == (20,)
    assert "heads for different classes" not in soup("inspect", "--ckpts", *paths).stdout


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_wrapper_around_a_part(tmp_path: Path, order: tuple[int, int]) -> None:
    """A part that was in DataParallel has `module.` in the middle of its names: mixed as one, and said in one line."""
    wrapped = {"net.module.0.w": torch.ones(2), "net.module.0.b": torch.zeros(2), "head.w": torch.ones(3)}
    plain = {name.replace("module.", ""): tensor for name, tensor in wrapped.items()}
    states = [(wrapped, plain)[number] for number in order]
    checkpoints = saved(tmp_path, *states)
    assert [sorted(one) for one in named(checkpoints)] == [sorted(states[0])] * 2
    _, notes = common_names(checkpoints)
    assert len(notes) == 1 and "1 more differ" in notes[0] and "wrapper's name" in notes[0]


@pytest.mark.parametrize("wrapper", ["module", "_module"])
def test_rank_takes_what_a_soup_takes(wrapper: str, family: Path, soup: Callable[..., Ran]) -> None:
    """A run whose part was wrapped is ranked beside others, and mixed with them."""
    state = load_file("runs/1/model.safetensors")
    wrapped = {f"2.{wrapper}.{name[2:]}" if name.startswith("2.") else name: value for name, value in state.items()}
    save_file(wrapped, "runs/1/model.safetensors")
    assert soup("rank", "--ckpts", "runs/0", "runs/1", "--val", "val").code == 0
    assert soup("uniform", "--ckpts", "runs/0", "runs/1").code == 0
    assert load_file("soup/model.safetensors").keys() == load_file("runs/0/model.safetensors").keys()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_prefix_before_all(tmp_path: Path, order: tuple[int, int]) -> None:
    """The state dict of a Lightning module beside that of the network inside: mixed under the first one's names."""
    inner = {"0.w": torch.ones(2), "1.w": torch.zeros(2)}
    states = [inner, {f"net.{name}": tensor.bfloat16() for name, tensor in inner.items()}]
    checkpoints = saved(tmp_path, *(states[number] for number in order))
    assert [sorted(one) for one in named(checkpoints)] == [sorted(states[order[0]])] * 2
    assert "begin with 'net.'" in common_names(checkpoints)[1][0]
    other = {"net.0.w": torch.ones(3), "net.1.w": torch.zeros(2)}
    assert common_names(saved(tmp_path, inner, other))[0].aliases == {}
