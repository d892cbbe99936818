"""Layouts that only their own library puts together: refused, with the name of the converter that it brings.

DeepSpeed ZeRO: https://www.deepspeed.ai/training/#model-checkpointing (zero_to_fp32.py is copied into the folder).
verl: https://verl.readthedocs.io/en/latest/advance/checkpoint.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from soupcli.errors import CheckpointError

CONVERTER = "zero_to_fp32.py"
ZERO = re.compile(r"(.*_)?mp_rank_\d+.*(_model|_optim)_states\.pt|.*_optim_states\.pt")
VERL = re.compile(r"(model|optim|extra_state)_world_size_\d+_rank_\d+\.pt")

PARTS = "DCP_SHARDING_INFO"  # torch.distributed.checkpoint.HuggingFaceStorageWriter(save_distributed=True)


def refuse_parts(path: Path, metadata: Mapping[str, str]) -> None:
    """Raises CheckpointError where a safetensors file holds what one process had of each tensor."""
    if PARTS in metadata:
        raise CheckpointError(
            f"{path}: a part that torch's distributed checkpoint wrote, of tensors that lie in several files",
            hint="torch.distributed.checkpoint._consolidate_hf_safetensors.consolidate_safetensors_files joins them",
        )


def refuse_foreign(path: Path) -> None:
    """Raises CheckpointError where `path`, a file or a folder, is (a part of) a DeepSpeed or verl checkpoint."""
    folder = path if path.is_dir() else path.parent
    names = [path.name] if not path.is_dir() else sorted(entry.name for entry in path.iterdir())
    if any(VERL.fullmatch(name) for name in names):
        raise CheckpointError(
            f"{path}: shards of verl, one for each process",
            hint=f"python -m verl.model_merger merge --backend fsdp --local_dir {folder} --target_dir {folder}/merged",
        )
    tag = _latest(folder) if path.is_dir() else None
    if any(ZERO.fullmatch(name) for name in names) or CONVERTER in names or tag is not None:
        top = next((at for at in (folder, folder.parent) if (at / CONVERTER).is_file()), None)
        script = f"{top}/{CONVERTER} {top} {top}/converted" if top else "-m deepspeed.utils.zero_to_fp32 FOLDER OUTPUT"
        raise CheckpointError(
            f"{path}: a DeepSpeed ZeRO checkpoint, in parts that only DeepSpeed puts together",
            hint=f"convert it with its own {CONVERTER}: python {script}",
        )


def _latest(folder: Path) -> str | None:
    """The sub-folder that DeepSpeed's file `latest` names, where there is one."""
    file = folder / "latest"
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        tag = opened.read(256).decode("utf-8", "replace").strip()
    return tag if re.fullmatch(r"[\w-][\w.-]*", tag) and (folder / tag).is_dir() else None
