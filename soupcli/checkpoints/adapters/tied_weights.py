"""Refuses adapters that hold an embedding whole whose base uses it for the output too.

PEFT leaves the output at the base's embedding. A network with tied weights has no place for both matrices.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
from soupcli.checkpoints.formats.folders.folder import MAX_CONFIG
from soupcli.errors import CheckpointError
from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soupcli.checkpoints.checkpoint import Checkpoint

WITH_OUTPUT = re.compile(r"(CausalLM|LMHeadModel|ConditionalGeneration|MaskedLM|ForPreTraining)$")


def refuse_split_tie(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError if a checkpoint is an adapter that trains one of two tied matrices on its base."""
    adapter = checkpoint.own
    if not isinstance(adapter, AdapterCheckpoint) or adapter.base is None:
        return
    config = _config(adapter.base)
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    outputs = config.get("architectures")
    if not (isinstance(outputs, list) and any(WITH_OUTPUT.search(str(name)) for name in outputs)):
        return
    if any(part.get("tie_word_embeddings") is False for part in parts):
        return
    sizes = {size for part in parts if isinstance(size := part.get("vocab_size"), int)}
    found = [name for name, spec in adapter.tensors.items() if len(spec.shape) == 2 and spec.shape[0] in sizes]
    if len(found) == 1 and found[0] in adapter.plain and not adapter.config.values.get("ensure_weight_tying"):
        raise CheckpointError(
            f"{adapter.path}: holds {found[0]!r} whole, which its base uses for the output too: with PEFT the output "
            "stays at the base's, and no network with tied weights holds both",
            hint="merge each into its base (merge_and_unload), with tie_word_embeddings=False, and mix the whole "
            "networks; train with LoraConfig(ensure_weight_tying=True) for adapters that stay tied",
        )


def _config(base: Checkpoint) -> Mapping[str, Any]:
    try:
        config: Any = parse_json(read_small((base.side_folder or base.path) / "config.json", most=MAX_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
