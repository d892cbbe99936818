"""What a user's function leaves behind in torch is undone before the next network is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from soupcli.networks.module_state import restored


class Negated(nn.Linear):
    """A layer with other outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class Turned(TorchFunctionMode):
    """A mode that negates what linear layers return."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return -found if func is nn.functional.linear else found


def patched_function(_: nn.Module) -> None:
    linear = nn.functional.linear
    nn.functional.linear = lambda *arguments: -linear(*arguments)


def hook_on_all(_: nn.Module) -> None:
    nn.modules.module.register_module_forward_hook(lambda module, inputs, found: -found)


def another_class(module: nn.Module) -> None:
    module.__class__ = Negated


def mode_left_on(_: nn.Module) -> None:
    mode: Any = Turned()
    mode.__enter__()


def mixed_precision_left_on(_: nn.Module) -> None:
    torch.autocast("cpu", dtype=torch.bfloat16).__enter__()


def another_device(_: nn.Module) -> None:
    torch.set_default_device("meta")


def another_dtype(_: nn.Module) -> None:
    torch.set_default_dtype(torch.float64)


def patched_method(_: nn.Module) -> None:
    argmax = Tensor.argmax
    Tensor.argmax = lambda self, *arguments: argmax(-self, *arguments)  # type: ignore[method-assign]


CHANGES = [
    *(patched_function, hook_on_all, another_class, mode_left_on, mixed_precision_left_on),
    *(another_device, another_dtype, patched_method),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_left_behind_is_undone(change: Callable[[nn.Module], None], fails: bool) -> None:
    """The network computes the same as before, also if the function failed after its change."""
    module = nn.Linear(4, 3)
    inputs = torch.arange(20.0).reshape(5, 4)
    before = module(inputs), module(inputs).argmax(1)
    with suppress(RuntimeError), restored(module):
        change(module)
        if fails:
            raise RuntimeError
    assert torch.equal(module(inputs), before[0]) and torch.equal(module(inputs).argmax(1), before[1])
    assert torch.zeros(1).device.type == "cpu" and torch.zeros(1).dtype == torch.float32
