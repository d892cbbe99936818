"""What hints say of tensors of other shapes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare.agreement import check_mixable
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import MixError

SHARED = {"h.0.attn.c_attn.weight": (8, 24), "h.0.attn.c_attn.bias": (24,), "proj.weight": (8, 3, 4, 4)}
HEAD = {"head.weight": (5, 8), "head.bias": (5,)}


def hint_for(folder: Path, one: dict[str, tuple[int, ...]], other: dict[str, tuple[int, ...]]) -> str:
    """Return the hint for two networks that have tensors of these shapes beside those that they share."""
    for number, shapes in enumerate((one, other)):
        tensors = {name: torch.ones(shape) for name, shape in {**SHARED, **HEAD, **shapes}.items()}
        save_file(tensors, folder / f"{number}.safetensors")
    with pytest.raises(MixError, match="has shape") as refused:
        check_mixable([open_checkpoint(folder / f"{number}.safetensors") for number in range(2)])
    return str(refused.value.hint)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"proj.weight": (8, 3, 4, 4)}, {"proj.weight": (8, 1, 4, 4)}),
        ({"mlp.weight": (8, 32)}, {"mlp.weight": (32, 8)}),
        ({"logit_scale": ()}, {"logit_scale": (1,)}),
        ({"conv.weight_g": (4, 1, 1)}, {"conv.weight_g": (4,)}),
        ({"h.0.attn.scale": (4,)}, {"h.0.attn.scale": (6,)}),
        ({"norm.scale": (4,), "norm.shift": (4,)}, {"norm.scale": (6,)}),
    ],
    ids=["channels", "transposed", "a scalar", "dimensions", "a part of a module", "one of a layer"],
)
def test_what_is_no_head_is_not_left_out(
    tmp_path: Path, one: dict[str, tuple[int, ...]], other: dict[str, tuple[int, ...]]
) -> None:
    """Layers of other inputs, and parts of modules whose other tensors are alike, come from no single ingredient."""
    assert "--exclude" not in hint_for(tmp_path, one, {**one, **other})


def test_masks_of_other_lengths(tmp_path: Path) -> None:
    """A causal mask is left out alone, never the attention that it stands beside."""
    hint = hint_for(tmp_path, {"h.0.attn.bias": (1, 1, 8, 8)}, {"h.0.attn.bias": (1, 1, 16, 16)})
    assert "--exclude '*attn.bias'" in hint and "follows from the longest text" in hint


def test_all_heads_are_named(tmp_path: Path) -> None:
    """Networks with two heads for other classes are told of both at once."""
    two = {"head_dist.weight": (5, 8), "head_dist.bias": (5,)}
    others = {name: (7, *shape[1:]) for name, shape in {**HEAD, **two}.items()}
    hint = hint_for(tmp_path, two, others)
    assert "--exclude 'head.*'" in hint and "--exclude 'head_dist.*'" in hint
