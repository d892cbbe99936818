"""Restores what torch keeps for the whole process after the user's code ran: functions, hooks, modes and switches.

    with torch_restored():
        function(module, device)

A network that is evaluated next would compute something else with what was left behind.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from soupcli.late import torch

DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def torch_restored() -> Iterator[None]:
    """Allow any change to the state of torch within the block, and undo it afterwards.

    Functions that were replaced, hooks on all modules, modes that were not left, automatic mixed precision, default
    dtype and device, precision of products, numbers of threads and random states are as before.
    """
    undo = [_functions(), _global_hooks(), _modes(), *_switches()]
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(state)
        for each in undo:
            each()


def _functions() -> Callable[[], None]:
    """Functions of torch's own modules and methods of tensors. What was added stays: torch adds parts when needed."""
    spaces = [sys.modules["torch"], torch.nn.functional, torch.nn.init, torch.linalg, torch.Tensor]
    kept = [(space, {name: one for name, one in vars(space).items() if callable(one)}) for space in spaces]

    own = set(vars(torch.Tensor))

    def undo() -> None:
        for space, functions in kept:
            now = vars(space)
            for name, function in functions.items():
                if now.get(name) is not function:
                    setattr(space, name, function)
        for name in set(vars(torch.Tensor)) - own:
            if hasattr(torch.Tensor.__base__, name):  # it hides a method that tensors have from there
                delattr(torch.Tensor, name)

    return undo


def _global_hooks() -> Callable[[], None]:
    """Hooks that run in every module."""
    own = vars(torch.nn.modules.module)
    kept = [(held, held.copy()) for name, held in own.items() if name.startswith("_global_") and isinstance(held, dict)]

    def undo() -> None:
        for held, content in kept:
            held.clear()
            held.update(content)

    return undo


def _modes() -> Callable[[], None]:
    """Modes that see every operation, such as a default device; the last one entered is left first."""
    c: Any = torch._C
    functions, dispatched = c._len_torch_function_stack(), c._len_torch_dispatch_stack()
    device = torch.get_default_device()

    def undo() -> None:
        if torch.get_default_device() != device:
            torch.set_default_device(device if device.type != "cpu" else None)
        while c._len_torch_function_stack() > functions:
            c._pop_torch_function_stack()
        while c._len_torch_dispatch_stack() > dispatched:
            c._pop_torch_dispatch_stack()

    return undo


def _switches() -> Iterator[Callable[[], None]]:
    """Values that torch has a function to read and one to set."""
    pairs: list[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = [
        (torch.get_default_dtype, torch.set_default_dtype, ()),
        (torch.get_num_threads, torch.set_num_threads, ()),
        (torch.is_grad_enabled, torch.set_grad_enabled, ()),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, ()),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, ()),
        *((torch.is_autocast_enabled, torch.set_autocast_enabled, (device,)) for device in DEVICES),
        *((torch.get_autocast_dtype, torch.set_autocast_dtype, (device,)) for device in DEVICES),
    ]
    for read, write, arguments in pairs:
        yield _switch(read, write, arguments)


def _switch(read: Callable[..., Any], write: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], None]:
    before = read(*arguments)

    def undo() -> None:
        if read(*arguments) != before:
            write(*arguments, before)

    return undo
