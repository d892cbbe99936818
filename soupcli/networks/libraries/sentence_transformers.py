"""`model: {sentence_transformers: auto}`: the network of a folder with modules.json, whole, as its library opens it.

A `python:` set gets the live `SentenceTransformer`, so `model.encode(sentences)` gives a candidate's embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import NetworkError
from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small
from soupcli.networks.guard import data_only
from soupcli.networks.library import MAX_CONFIG, Library
from soupcli.networks.network import Network

if TYPE_CHECKING:
    from soupcli.recipe.networks import SentenceTransformersNetwork

MARKER = "modules.json"
OWN = "sentence_transformers."  # how the library's own classes begin


def build(_spec: SentenceTransformersNetwork, folder: Path, trust_code: bool = False) -> Network:
    """Build the network of all modules that modules.json lists. Code beside the weights runs only if `trust_code`."""
    places = _places(folder, trust_code=trust_code)
    library = import_extra("sentence_transformers", extra="sentence-transformers")
    how = {"device": "cpu", "local_files_only": True, "trust_remote_code": trust_code}
    try:
        with data_only(trust_code=trust_code):
            module = library.SentenceTransformer(str(folder), **how).eval()
    except Exception as cause:
        raise NetworkError(
            f"{folder}: sentence-transformers does not open it: {type(cause).__name__}: {cause}"
        ) from cause
    own = {place: list(part.state_dict()) for place, part in zip(places, module.children(), strict=True)}

    def stored_names(stored: Iterable[str]) -> Mapping[str, str]:
        return {name: _within(name, places, own) for name in stored}

    return Network(module, stored_names=stored_names, embeds=True)


def _places(folder: Path, *, trust_code: bool) -> list[str]:
    """Return the sub-folder of each module with a slash, or "" for the folder itself, in the order of the modules.

    Raises NetworkError for a module of another package unless `trust_code`: older libraries import it unasked.
    """
    file = folder / MARKER
    try:
        rows: Any = parse_json(read_small(file, most=MAX_CONFIG))
        places = [f"{row['path']}/" if row["path"] else "" for row in rows]
        types = [str(row["type"]) for row in rows]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as cause:
        raise NetworkError(f"{file}: is no list of modules", hint="SentenceTransformer.save(...) writes it") from cause
    foreign = next((name for name in types if not name.startswith(OWN)), None)
    if foreign is not None and not trust_code:
        raise NetworkError(f"{file}: {foreign!r} asks for code to be run", hint="--trust-code runs code that you wrote")
    return places


def _within(name: str, places: list[str], own: Mapping[str, list[str]]) -> str:
    """Return the name in the network of a tensor in the folder: `2_Dense/linear.weight` is `2.linear.weight`."""
    place = max((place for place in places if name.startswith(place)), key=len, default="")
    inner = name.removeprefix(place)
    found = [at for at in own.get(place, ()) if at == inner or at.endswith(f".{inner}")]
    return f"{places.index(place)}.{min(found, key=len)}" if found else name


LIBRARY = Library(build, reads_folder=bool)
