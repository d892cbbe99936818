"""`model: {python: "my_model.py:build", args: {...}}`: the user's own code, run because the recipe names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from soupcli.errors import NetworkError
from soupcli.networks.library import Library
from soupcli.networks.network import Network, Pictures
from soupcli.networks.without_weights import make_without_weights
from soupcli.user_code import content_of, load_function, told

if TYPE_CHECKING:
    from soupcli.recipe.networks import PythonNetwork


def build(spec: PythonNetwork, _folder: Path, _trust_code: bool = False) -> Network:
    """The module that the function returns when it is called with `args`."""
    function = load_function(spec.python)

    def checked() -> nn.Module:
        module = function(**spec.args)
        if not isinstance(module, nn.Module):
            raise NetworkError(f"{spec.python}: returned a {type(module).__name__}, a network is a torch.nn.Module")
        return module

    try:
        module = make_without_weights(checked)
    except NetworkError:
        raise
    except (Exception, SystemExit) as cause:
        raise NetworkError(told(cause, spec.python), hint="see args: of model: in the recipe") from cause
    return Network(module, _pictures(spec.transform) if spec.transform is not None else None)


def _pictures(reference: str) -> Pictures:
    transform = load_function(reference)

    def decode(picture: Any) -> Tensor:
        made = transform(picture)
        if not isinstance(made, Tensor):
            raise TypeError(f"{reference} returned a {type(made).__name__}, a torch.Tensor is needed")
        return made

    return Pictures(decode, _as_it_is, f"python:{content_of(reference)}")


def _as_it_is(pictures: Tensor) -> Tensor:
    return pictures


LIBRARY = Library(build)
