"""A warning that pictures go into the recipe's network otherwise than the files beside the weights say.

known_other_inputs(checkpoints, model, sets)             # what an earlier run found out, or None
other_inputs(checkpoints, model, sets)                   # found out anew, and kept

timm knows what its networks take, and importing it takes as long as torch does. A run whose scores are all kept imports
neither, so the answer is kept beside the scores, under a key of all that it is made of.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from soupcli.environment import cache_folder, versions
from soupcli.files.json_store import JsonStore
from soupcli.files.json_text import key_of
from soupcli.files.small_file import read_small
from soupcli.networks.library import library_of
from soupcli.recipe.sets import ImagesSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.recipe.networks import NetworkSpec
    from soupcli.recipe.sets import SetSpec

SCHEMA = "soup-other-inputs/1"
LARGEST = 1 << 20  # bytes of a configuration
CONFIGURATIONS = ("config.json", "open_clip_config.json")
OF_SETS = {
    "mean": "mean",
    "std": "std",
    "interpolation": "interpolation",
    "crop_pct": "crop",
    "crop_mode": "crop",
    "resize_mode": "size",
    "input_size": "size",
}


def other_inputs(
    checkpoints: Sequence[Checkpoint], model: NetworkSpec | None, sets: Mapping[str, SetSpec]
) -> str | None:
    """Return the warning, or None if there is nothing to say."""
    folders, given = _folders(checkpoints, model, sets), _given(sets)
    found = next((text for folder in folders if (text := _of_folder(model, folder, given)) is not None), None)
    if folders:
        _store().put(_key(model, folders, given), {"text": found})
    return found


def known_other_inputs(
    checkpoints: Sequence[Checkpoint], model: NetworkSpec | None, sets: Mapping[str, SetSpec]
) -> str | None:
    """Return the warning if it is kept, and nothing that it is made of has changed; else None."""
    folders = _folders(checkpoints, model, sets)
    kept = _store().get(_key(model, folders, _given(sets))) if folders else None
    text = kept.get("text") if isinstance(kept, dict) else None
    return text if isinstance(text, str) else None


def _folders(checkpoints: Sequence[Checkpoint], model: NetworkSpec | None, sets: Mapping[str, SetSpec]) -> list[Path]:
    """Return the folders to ask about; none if the library says nothing or no set has pictures to prepare."""
    ask = library_of(model).other_inputs if model is not None else None
    return list(dict.fromkeys(one.folder for one in checkpoints)) if ask is not None and _pictures(sets) else []


def _pictures(sets: Mapping[str, SetSpec]) -> list[ImagesSet]:
    return [spec for spec in sets.values() if isinstance(spec, ImagesSet) and spec.transform is None]


def _given(sets: Mapping[str, SetSpec]) -> list[str]:
    """Return the settings that all sets of pictures state themselves."""
    pictures = _pictures(sets)
    return [key for key in OF_SETS if all(getattr(spec, OF_SETS[key]) is not None for spec in pictures)]


def _of_folder(model: NetworkSpec | None, folder: Path, given: Sequence[str]) -> str | None:
    ask = library_of(model).other_inputs if model is not None else None
    found = {key: pair for key, pair in ask(model, folder).items() if key not in given} if ask is not None else {}
    if not found:
        return None
    shown = ", ".join(f"{key} {json.dumps(pair[0])} (here {json.dumps(pair[1])})" for key, pair in found.items())
    return (
        f"{folder}: its configuration says that pictures go in with {shown}: auto as the network's name takes that; "
        "size:, crop:, mean:, std: and interpolation: of a set say it too"
    )


def _store() -> JsonStore:
    return JsonStore(cache_folder() / "scores", SCHEMA)


def _key(model: NetworkSpec | None, folders: Sequence[Path], given: Sequence[str]) -> str:
    said = {str(folder): [_hash(folder / name) for name in CONFIGURATIONS] for folder in folders}
    of_model = model.model_dump(mode="json") if model is not None else None
    return key_of({"about": SCHEMA, "versions": versions(), "model": of_model, "given": given, "said": said})


def _hash(file: Path) -> str | None:
    try:
        return hashlib.sha256(read_small(file, most=LARGEST)).hexdigest()
    except OSError:
        return None
