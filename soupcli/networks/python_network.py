"""`model: {python: "my_model.py:build", args: {...}}`: the user's own code, run because the recipe names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from soupcli.errors import NetworkError
from soupcli.network import Network, Pictures
from soupcli.python_file import load_function
from soupcli.recipe import PythonNetwork


def build(spec: PythonNetwork, folder: Path, make: Callable[..., nn.Module]) -> Network:
    """The module that the function returns when it is called with `args`."""
    function = load_function(spec.python)

    def checked() -> nn.Module:
        module = function(**spec.args)
        if not isinstance(module, nn.Module):
            raise NetworkError(f"{spec.python}: returned a {type(module).__name__}, a network is a torch.nn.Module")
        return module

    try:
        module = make(checked)
    except NetworkError:
        raise
    except Exception as cause:
        raise NetworkError(f"{spec.python}: {type(cause).__name__}: {cause}", hint="see model.args") from cause
    pictures = None
    if spec.transform is not None:
        pictures = Pictures(load_function(spec.transform), _as_it_is, f"python:{spec.transform}")
    return Network(module, pictures)


def _as_it_is(pictures: Tensor) -> Tensor:
    return pictures
