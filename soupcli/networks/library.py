"""The interface of a model library: it builds networks and knows class names. Each has a file in `libraries/`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.errors import NetworkError
from soupcli.files.json_text import key_of, parse_json
from soupcli.files.small_file import read_small
from soupcli.networks.configuration import key_of_configuration
from soupcli.networks.network import IMAGE_FOLDER, ClassFolders, Network, Outline
from soupcli.wording import with_article

if TYPE_CHECKING:
    from soupcli.recipe.networks import NetworkSpec

MAX_CONFIG = 20_000_000  # bytes; the largest configurations name 21,843 classes
_PLACEHOLDER = re.compile(r"LABEL_\d+")  # what transformers calls classes that nobody has named


OtherInputs = Mapping[str, tuple[Any, Any]]  # a setting -> what the files say, and what the network has


@dataclass(frozen=True)
class Library:
    """`build` makes a network without weights; `label_names` reads class names from the configuration."""

    build: Callable[[Any, Path, bool], Network]  # the recipe's `model:`, the checkpoint's folder, --trust-code
    folders: ClassFolders = IMAGE_FOLDER
    label_names: Callable[[Any, Path], tuple[str, ...] | None] | None = None
    transform: Callable[[Any, Path], str | None] | None = None  # where the transform of pictures comes from
    reads_folder: Callable[[Any], bool] | None = None  # whether the network depends on files beside the weights
    unlike: Callable[[Any, Path], str | None] | None = None  # what these files say otherwise, if it does not
    other_inputs: Callable[[Any, Path], OtherInputs] | None = None  # how they say that pictures go in, if it differs

    def outline(self, spec: NetworkSpec, folder: Path) -> Outline:
        """Return what is known about classes before the network is built."""
        names = self.label_names(spec, folder) if self.label_names is not None else None
        return Outline(self.folders, names, self.transform(spec, folder) if self.transform is not None else None)

    def key(self, spec: NetworkSpec, folder: Path) -> str:
        """Return a key. Checkpoints with one key share a network: only their weights differ."""
        reads = self.reads_folder is not None and self.reads_folder(spec)
        return key_of(
            {"model": spec.model_dump(mode="json"), "beside": key_of_configuration(folder) if reads else None}
        )


def library_of(spec: NetworkSpec) -> Library:
    """Return the library that the recipe's `model:` names."""
    found: Library = import_module(spec.library).LIBRARY
    return found


def read_config(file: Path) -> dict[str, Any]:
    """Return the object in a configuration file. Raises NetworkError for anything else."""
    try:
        config: Any = parse_json(read_small(file, most=MAX_CONFIG))
    except OSError as cause:
        raise NetworkError(f"{file}: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise NetworkError(f"{file}: {cause}") from cause
    if not isinstance(config, dict):
        raise NetworkError(f"{file}: holds {with_article(config)}, not an object")
    return config


def differing(said: Mapping[str, Any], own: Mapping[str, Any], keys: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that both state and that differ, with both values. A tuple is as good as a list."""
    both = {key: (said[key], own[key]) for key in keys if said.get(key) is not None and own.get(key) is not None}
    return {key: pair for key, pair in both.items() if json.dumps(pair[0]) != json.dumps(pair[1])}


def names_in_order(id2label: object, file: Path, *, key: str = "id2label") -> tuple[str, ...] | None:
    """Return the names in a map from logits to names, such as `id2label`, or None if they are placeholders.

    Raises NetworkError unless its keys are exactly 0 to n-1.
    """
    if not isinstance(id2label, Mapping) or not id2label:
        return None
    by_index = {str(index): name for index, name in id2label.items()}
    missing = [index for index in range(len(by_index)) if str(index) not in by_index]
    if missing or len(by_index) != len(id2label):
        raise NetworkError(
            f"{file}: {key} names the logits {', '.join(list(by_index)[:8])}, there is no {(missing or [0])[0]}",
            hint=f"its keys are the logits, 0 to {len(by_index) - 1}",
        )
    return named([by_index[str(index)] for index in range(len(by_index))])


def named(names: Sequence[object]) -> tuple[str, ...] | None:
    """Return the names, or None if they are not text or only placeholders such as LABEL_0."""
    if not names or not all(isinstance(name, str) for name in names):
        return None
    texts = tuple(str(name) for name in names)
    return None if all(_PLACEHOLDER.fullmatch(name) for name in texts) else texts
