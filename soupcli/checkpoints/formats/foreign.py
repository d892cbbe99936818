"""Refuses files that only another program can assemble, and names the program.

refuse_foreign(path)                            # a file or folder of DeepSpeed's ZeRO or verl
whole_of_deepspeed(folder)                      # global_step5/mp_rank_00_model_states.pt, if it has all weights
refuse_slice(file)                              # one of several files that hold a part of the weights
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from soupcli.checkpoints.formats.folders.shards import is_shard
from soupcli.errors import CheckpointError
from soupcli.files.small_file import read_start

CONVERTER = "zero_to_fp32.py"
PARTS = re.compile(r"(.*_)?mp_rank_\d+.*(_model|_optim)_states\.pt|.*_optim_states\.pt|layer_\d+-model_.*states\.pt")
WHOLE = "mp_rank_00_model_states.pt"  # without ZeRO and model parallelism
LATEST = "latest"  # names the sub-folder with the last checkpoint
VERL = re.compile(r"(model|optim|extra_state)_world_size_\d+_rank_\d+\.pt")


JOIN = (
    "join them with the program that wrote them, or have one process save the whole state dict; if each is a "
    "checkpoint of its own, give them other names"
)
NUMBER = re.compile(r"\d+(?=\.\w+$)")  # of the process, at the end of a name
ZEROTH = re.compile(r"(?<!\d)0+(?!\d)")


class Slices(NamedTuple):
    """A kind of file that holds a part of the weights."""

    name: re.Pattern[str]
    what: str
    hint: str
    is_sure: bool = True  # False: only if they are counted from 0
    number: re.Pattern[str] | None = None  # of the part: files that differ elsewhere are checkpoints of their own


SLICES = (
    Slices(
        re.compile(r"consolidated\.\d+\.pth"),
        "Llama's consolidated files",
        "transformers joins them: python -m transformers.models.llama.convert_llama_weights_to_hf "
        "--input_dir {folder} --output_dir {folder}/joined",
    ),
    Slices(
        re.compile(r"(reshard-)?model_part-\d+.*\.pt|reshard-no_os-.*\.pt|.*-model_part-\d+.*\.pt"),
        "metaseq's model-parallel files",
        "metaseq joins them: python -m metaseq.scripts.reshard_mp --input {folder} --output {folder}/joined",
    ),
    Slices(
        re.compile(r"mp_rank_\d+(_\d+)*"),
        "Megatron's model-parallel ranks",
        "Megatron-LM joins them: python tools/checkpoint/convert.py --load-dir {folder} --save-dir {folder}/joined "
        "--target-tensor-parallel-size 1 --target-pipeline-parallel-size 1",
    ),
    Slices(
        re.compile(r"tp_rank_\d+(_pp_rank_\d+)?"),
        "NeMo's model-parallel ranks",
        "NeMo joins them: change_tensor_parallel_size... of NeMo/examples/nlp, to a size of 1",
    ),
    Slices(
        re.compile(
            r"(?!.*(lora|adapter)).*?(?<![a-z])(part[-_.]?\d+([-_.]?of[-_.]?\d+)?|\d+of\d+)\.(pth?|ckpt|bin|safetensors)"
        ),
        "the parts of one checkpoint, by their names",
        JOIN,
    ),
    Slices(
        re.compile(r"hf_model_\d{4}_\d+\.pt"),
        "torchtune's files",
        "join them: state |= torch.load(file) for each of one epoch, then torch.save(state, other_path)",
        number=re.compile(r"(?<=^hf_model_)\d{4}"),  # the epoch follows
    ),
    Slices(
        re.compile(
            r"(?!.*(lora|adapter)).*?(?<![a-z])([tp]p|(?<=\d[-_])ep|(tp_|pp_)?rank|model_part|shard)[-_]?\d+\.(pth?|ckpt|bin|safetensors)"
        ),
        "the files that several processes wrote, by their names",
        JOIN,
        is_sure=False,
        number=NUMBER,  # composer's ep1-ba2-rank0.pt and ep2-ba4-rank0.pt
    ),
)


def refuse_slice(file: Path) -> None:
    """Raises CheckpointError if `file` is by its name one of several that make up a checkpoint."""
    if is_shard(file.name):
        raise CheckpointError(
            f"{file}: one shard of several, a part of the network",
            hint=f"give the folder, which holds them all: --ckpts {file.parent}",
        )
    refuse_slices(file.parent, [file.name])
    refuse_slices(file.parent.parent, [file.parent.name])


def refuse_slices(folder: Path, names: Iterable[str]) -> None:
    """Raises CheckpointError if one of `names` in `folder` holds a part of the weights, and others hold the rest."""
    for name in sorted(names):
        kind = next((kind for kind in SLICES if kind.name.fullmatch(name)), None)
        if kind is None:
            continue
        every = [entry.name for entry in folder.iterdir() if kind.name.fullmatch(entry.name)]
        if kind.number is not None:
            rest = kind.number.sub("", name)
            every = [one for one in every if kind.number.sub("", one) == rest]
        if len(every) > 1 and (kind.is_sure or any(ZEROTH.search(one) for one in every)):
            raise CheckpointError(
                f"{folder}: {len(every)} of {kind.what} ({name}, ...): each has a part of the weights",
                hint=kind.hint.format(folder=folder),
            )


def refuse_foreign(path: Path) -> None:
    """Raises CheckpointError if `path`, a file or a folder, is one that only DeepSpeed or verl puts together."""
    folder = path if path.is_dir() else path.parent
    names = [path.name] if not path.is_dir() else [entry.name for entry in path.iterdir()]
    if any(VERL.fullmatch(name) for name in names):
        raise CheckpointError(
            f"{path}: shards of verl, one for each process",
            hint=f"python -m verl.model_merger merge --backend fsdp --local_dir {folder} --target_dir {folder}/merged",
        )
    tag = _latest(folder) if path.is_dir() else None
    if any(PARTS.fullmatch(name) for name in names) or CONVERTER in names or tag is not None:
        if whole_of_deepspeed(folder) is not None:
            return
        top = next((at for at in (folder, folder.parent) if (at / CONVERTER).is_file()), None)
        script = f"{top}/{CONVERTER} {top} {top}/converted" if top else "-m deepspeed.utils.zero_to_fp32 FOLDER OUTPUT"
        raise CheckpointError(
            f"{path}: a DeepSpeed ZeRO checkpoint, in parts that only DeepSpeed puts together",
            hint=f"convert it with its own {CONVERTER}: python {script}",
        )


def whole_of_deepspeed(folder: Path) -> Path | None:
    """Return DeepSpeed's file with all weights in `folder`, or in the sub-folder that its file `latest` names.

    Returns None if there is none, or if another file there is a part of the weights or of their optimizer.
    """
    at = folder / (_latest(folder) or "")
    parts = [entry for entry in at.iterdir() if PARTS.fullmatch(entry.name)]
    return parts[0] if len(parts) == 1 and parts[0].name == WHOLE else None


def _latest(folder: Path) -> str | None:
    """The sub-folder that DeepSpeed's file `latest` names, if there is one."""
    file = folder / LATEST
    if not file.is_file():
        return None
    tag = read_start(file, 256).decode("utf-8", "replace").strip()
    return tag if re.fullmatch(r"[\w-][\w.-]*", tag) and (folder / tag).is_dir() else None
