"""`model: {python: "my_model.py:build", args: {...}}`: the user's own code, run because the recipe names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.errors import NetworkError
from soupcli.late import nn
from soupcli.networks.library import Library
from soupcli.networks.network import Network
from soupcli.networks.pictures import of_function
from soupcli.networks.without_weights import make_without_weights
from soupcli.user_code.function import describe_error, hint_with_traceback, is_given, load_function, named
from soupcli.wording import with_article

if TYPE_CHECKING:
    from soupcli.recipe.networks import PythonNetwork


def build(spec: PythonNetwork, _folder: Path, _trust_code: bool = False) -> Network:
    """Return the module that the user's function returns for `args`."""
    function = load_function(spec.python)

    def checked() -> nn.Module:
        module = function(**spec.args)
        if not isinstance(module, nn.Module):
            returned = with_article(module)
            raise NetworkError(
                f"{named(spec.python)}: returned {returned}, a network is a torch.nn.Module",
                hint="return the module itself, without its weights or optimizer",
            )
        return module

    try:
        module = make_without_weights(checked)
    except NetworkError:
        raise
    except (Exception, SystemExit) as cause:
        hint = hint_with_traceback(hint_of(spec.python), cause, spec.python)
        raise NetworkError(describe_error(cause, spec.python), hint=hint) from cause
    return Network(module, of_function(spec.transform) if spec.transform is not None else None)


def hint_of(reference: str) -> str:
    """Return a hint on where to look if the function fails."""
    return "this error comes from your function" if is_given(reference) else "see args: of model: in the recipe"


def _transform(spec: PythonNetwork, _folder: Path) -> str | None:
    return f"the function {spec.transform}" if spec.transform is not None else None


LIBRARY = Library(build, transform=_transform)
