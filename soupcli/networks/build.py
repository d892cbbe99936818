"""Builds the network of the recipe's `model:`, or of the checkpoint folder's configuration, without weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.adapters.tied_weights import refuse_split_tie
from soupcli.checkpoints.compare.class_orders import class_orders, other_lists_of
from soupcli.errors import CheckpointError, NetworkError
from soupcli.files.json_text import key_of
from soupcli.networks.guard import refuse_code_beside
from soupcli.networks.library import library_of, named, read_config
from soupcli.networks.network import UNNAMED, Network, Outline
from soupcli.recipe.networks import (
    NetworkSpec,
    OpenClipNetwork,
    SentenceTransformersNetwork,
    TimmNetwork,
    TransformersNetwork,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soupcli.checkpoints.checkpoint import Checkpoint


def build(spec: NetworkSpec | None, checkpoint: Checkpoint, *, trust_code: bool = False) -> Network:
    """Build the network of `spec`, or if that is None the one that the checkpoint's folder names.

    Code in the folder runs only if `trust_code`. Raises NetworkError if the network cannot be built, or wants code, and
    MissingExtra if its library is absent.
    """
    folder = checkpoint.folder
    spec = spec or spec_of_folder(folder)
    if spec is None:
        raise NetworkError(
            f"{folder}: unknown architecture: no model: in the recipe, no config.json beside the weights",
            hint="add a line to soup.yaml: model: {timm: vit_base_patch16_224}, or model: {python: 'net.py:build'}",
        )
    refuse_split_tie(checkpoint)
    library = library_of(spec)
    if library.reads_folder is not None and library.reads_folder(spec):
        refuse_code_beside(folder, trust_code=trust_code)
    return replace(library.build(spec, folder, trust_code), outline=outline(spec, checkpoint))


def outline(spec: NetworkSpec | None, checkpoint: Checkpoint) -> Outline:
    """Return what recipe and configuration say about classes, without importing a library."""
    try:
        folder = checkpoint.folder
    except CheckpointError:  # an adapter whose base is missing
        return UNNAMED
    spec = spec or spec_of_folder(folder)
    if spec is None:
        return UNNAMED
    rows = {one.shape[0] for one in checkpoint.tensors.values() if one.shape}

    def of_rows(lists: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Return the lists that may name the rows of a head, which may have one more, for no object."""
        return {
            place: names
            for place, names in lists.items()
            if named(names) is not None
            and len(set(names)) == len(names)
            and not rows.isdisjoint((len(names), len(names) + 1))
        }

    lists = cache(lambda: of_rows(other_lists_of(checkpoint)))
    found = library_of(spec).outline(spec, folder)
    return found._replace(stated=of_rows(class_orders(checkpoint)), lists=lists)


def key_of_network(spec: NetworkSpec | None, checkpoint: Checkpoint) -> str:
    """Return a key. Checkpoints with one key share a network: their side files mean the same."""
    spec = spec or spec_of_folder(checkpoint.folder)
    if spec is None:
        return ""
    return key_of({"network": library_of(spec).key(spec, checkpoint.folder), "classes": class_orders(checkpoint)})


def spec_of_folder(folder: Path) -> NetworkSpec | None:
    """Return the network that the configuration beside the weights names, or None."""
    if (folder / "open_clip_config.json").is_file():
        return OpenClipNetwork(open_clip="auto")
    if _embeds(folder):
        return SentenceTransformersNetwork(sentence_transformers="auto")
    try:
        config = read_config(folder / "config.json")
    except NetworkError:
        return None
    if "model_type" in config:
        return TransformersNetwork(transformers="auto")
    if "architecture" in config:
        return TimmNetwork(timm="auto")
    return None


def _embeds(folder: Path) -> bool:
    """Whether sentence-transformers saved the folder as a network that gives embeddings; it saves rerankers too."""
    try:
        settings = read_config(folder / "config_sentence_transformers.json")
    except NetworkError:
        settings = {}
    made_as = settings.get("model_type", "SentenceTransformer")
    return (folder / "modules.json").is_file() and made_as == "SentenceTransformer"
