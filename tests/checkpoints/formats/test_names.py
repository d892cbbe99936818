"""Names of tensors without those of the wrappers around a network and around parts of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from soupcli.checkpoints.formats.names import plain_names
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net


@pytest.mark.long
def test_wrappers_of_modules(tmp_path: Path) -> None:
    """DataParallel, torch.compile and both together leave prefixes that come off."""
    net = small_net()
    for number, wrapped in enumerate(
        [
            nn.DataParallel(net),
            torch.compile(net),
            torch.compile(nn.DataParallel(net)),
            nn.DataParallel(nn.DataParallel(net)),
        ]
    ):
        assert isinstance(wrapped, nn.Module)
        torch.save(wrapped.state_dict(), tmp_path / f"{number}.pt")
        assert_same(opened(tmp_path / f"{number}.pt"), net.state_dict())


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        (["module.a", "b"], ["module.a", "b"]),
        (["module.module.a", "module.module.b"], ["a", "b"]),
        ([], []),
        (["module."], ["module."]),
        (["model._orig_mod.a", "model._orig_mod.b.c", "loss.d"], ["model.a", "model.b.c", "loss.d"]),
        (["a.0._checkpoint_wrapped_module._orig_mod.w", "b"], ["a.0.w", "b"]),
        (["_fsdp_wrapped_module._fpw_module.w", "module._orig_mod.v"], ["w", "module.v"]),
        (["_orig_mod.module._orig_mod.w"], ["w"]),
        (["_module.a", "_module.b"], ["a", "b"]),
        (["a._orig_mod.w", "a.w"], ["a._orig_mod.w", "a.w"]),
        (["a_orig_mod.w", "_orig_mod", "a._orig_mod"], ["a_orig_mod.w", "_orig_mod", "a._orig_mod"]),
    ],
)
def test_plain_names(stored: list[str], plain: list[str]) -> None:
    """What only wrappers are called comes off anywhere; `module.` comes off where every name has it."""
    assert plain_names(stored) == dict(zip(stored, plain, strict=True))


def test_wrapped_parts(tmp_path: Path) -> None:
    """Compiled and checkpointed parts of a network have the names that they have without it."""
    net = small_net()
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    compiled = torch.compile(checkpoint_wrapper(net[0]))
    assert isinstance(compiled, nn.Module)
    net[0] = compiled
    inner, both = "0._orig_mod.", "0._orig_mod._checkpoint_wrapped_module."  # the inner one's hook takes its name off
    torch.save({name.replace(inner, both): tensor for name, tensor in net.state_dict().items()}, tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt"), expected)
