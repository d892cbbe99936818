"""Checks what must be equal in all ingredients besides names and shapes: keys in their files, settings of adapters.

check_agreement(checkpoints)                              # raises MixError, naming both
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
from soupcli.checkpoints.adapters.config import MERGE
from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec, weights_file
from soupcli.checkpoints.compare.shapes import hint_for_shapes
from soupcli.checkpoints.formats.part_words import is_every
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from soupcli.wording import nearest

# Settings that change what an adapter's tensors mean, whatever their names.
SETTINGS = ("bias", "lora_bias", "fan_in_fan_out")
# Parts of adapters in plain files: LoRA's of PEFT, kohya, diffusers, torchtune, Pivotal Tuning; LyCORIS; OFT; VeRA.
FACTOR = re.compile(
    r"(?<![a-z0-9])(lora[._](embedding_)?([abe]|up|down|mid|magnitude_vector)|(hada|lokr)_[wt]\d|b?oft_(blocks|diag|[rs])"
    r"|vera_lambda_[bd]|dora_scale)(?![a-z0-9])|:\d+:(up|down)$",
    re.IGNORECASE,
)
EVERYTHING = TensorFilter()
OTHER_BASE = "where these are one network under two names, say so: --base PATH"


def check_agreement(
    checkpoints: Sequence[Checkpoint],
    *,
    key: str | None = None,
    base: Path | None = None,
    selection: TensorFilter = EVERYTHING,
) -> None:
    """Raises MixError if two checkpoints were taken from different keys, or cannot be mixed as adapters.

    `key` and `base` are the user's. A file with one bare state dict goes with any `key`. With a `base`, the names that
    adapters give their bases are not compared. Tensors that `selection` does not mix may be changed by some adapters
    only.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _check_key(first, other, asked=key is not None)
        if first.is_adapter != other.is_adapter:
            adapter, whole = (first, other) if first.is_adapter else (other, first)
            raise MixError(
                f"{adapter.path}: is an adapter, {whole.path} is a whole network",
                hint="merge the adapter into its base (merge_and_unload), or leave one of them out",
            )
        if isinstance(first, AdapterCheckpoint) and isinstance(other, AdapterCheckpoint):
            if base is None:
                _check_base(first, other)
            _check_adapters(first, other, selection)
    if len(checkpoints) > 1 and not first.is_adapter:
        _check_no_factors(first, selection)


def _check_key(first: Checkpoint, other: Checkpoint, *, asked: bool) -> None:
    keys, averaged = (first.origin.key, other.origin.key), (first.origin.averaged, other.origin.averaged)
    if keys[0] == keys[1] and averaged[0] != averaged[1] and not asked:
        means, trained = (first, other) if averaged[0] else (other, first)
        under, way = "", "leave one of them out"
        if means.path.name != trained.path.name:
            way = f"give those of one kind: all {trained.path.name}, or all {means.path.name}"
        if keys[0] is not None:
            under, way = f" under {keys[0]!r}", f"{way}; where every file has both, --key takes the same from all"
        raise MixError(
            f"{means.path}: its weights{under} are averages over the training, those of {trained.path} are not",
            hint=way,
        )
    if keys[0] != keys[1] and not all(averaged) and not (asked and None in keys):
        shown = [repr(key) if key is not None else "the file itself" for key in keys]
        of_trained = (key for key, mean in zip(keys, averaged, strict=True) if key is not None and not mean)
        wanted = next(of_trained, "state_dict")
        hint = f"--key {wanted} takes the same from all"
        if sum(map(is_every, keys)) == 1:
            hint = "leave out the one that lacks a part of the network, or save it again with all parts"
        raise MixError(
            f"{other.path}: its weights are taken from {shown[1]}, those of {first.path} from {shown[0]}", hint=hint
        )


def _check_base(first: AdapterCheckpoint, other: AdapterCheckpoint) -> None:
    bases = first.config.base, other.config.base
    revisions = first.config.values.get("revision"), other.config.values.get("revision")
    if bases[0] != bases[1] and not _one_folder(*bases):
        raise MixError(f"{other.path}: an adapter of {bases[1]}, {first.path} is of {bases[0]}", hint=OTHER_BASE)
    if revisions[0] != revisions[1]:
        raise MixError(
            f"{other.path}: an adapter of revision {revisions[1]} of {bases[1]}, {first.path} is of {revisions[0]}",
            hint=OTHER_BASE,
        )


def _one_folder(one: str | None, other: str | None) -> bool:
    paths = [Path(name) for name in (one, other) if name is not None]
    return len(paths) == 2 and all(path.is_dir() for path in paths) and paths[0].samefile(paths[1])


def _check_adapters(first: AdapterCheckpoint, other: AdapterCheckpoint, selection: TensorFilter) -> None:
    for setting in SETTINGS:
        values = first.config.values.get(setting), other.config.values.get(setting)
        if values[0] != values[1]:
            raise MixError(
                f"{other.config.file.path}: {setting} is {values[1]!r}, {first.path} has {values[0]!r}", hint=MERGE
            )
    changed = _names(first, selection), _names(other, selection)
    for one, lacks in ((0, 1), (1, 0)):
        for name in sorted(changed[one] - changed[lacks]):
            adapters = first, other
            raise MixError(
                f"{adapters[lacks].path}: does not adapt {name}, {adapters[one].path} does",
                hint=f"adapters of the same target modules are mixed; else {MERGE}",
            )


def _names(adapter: AdapterCheckpoint, selection: TensorFilter) -> set[str]:
    return {name for name in (*adapter.factors, *adapter.biases, *adapter.plain) if selection.mixes(name)}


def _check_no_factors(checkpoint: Checkpoint, selection: TensorFilter) -> None:
    name = next((name for name in checkpoint.tensors if FACTOR.search(name) and selection.mixes(name)), None)
    if name is not None:
        raise MixError(
            f"{checkpoint.path}: tensor {name!r} is a part of an adapter, and the mean of such parts is not the "
            "mean of what they do together",
            hint="save LoRA adapters with PEFT's save_pretrained, or merge each adapter into its base",
        )


def check_mixable(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises MixError at the first tensor that a checkpoint lacks, that only it has, or that differs in shape or kind.

    Each is compared with what most checkpoints have, so the message names the odd one.
    """
    most = _most_alike(checkpoints)
    first = most[0]
    try:
        _check_alike(first, [one for one in checkpoints if one is not first])
    except MixError as error:
        if 1 < len(most) < len(checkpoints):
            others = [one.path for one in checkpoints if one not in most]
            unlike = f"{others[0]} does not" if len(others) == 1 else f"{len(others)} do not"
            error.hint = (
                f"{len(most)} of {len(checkpoints)} checkpoints agree with {first.path}, {unlike}: {error.hint}"
            )
        raise


def _most_alike(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the largest group of checkpoints with the same tensors; of equally large ones the first one's."""
    groups: dict[frozenset[object], list[Checkpoint]] = {}
    for one in checkpoints:
        tensors = (pair for pair in one.tensors.items() if not is_free_state(*pair))
        kinds = ((name, spec.shape, spec.dtype.is_averaged, spec.dtype.is_complex) for name, spec in tensors)
        groups.setdefault(frozenset(kinds), []).append(one)
    return max(groups.values(), key=len)


def _check_alike(first: Checkpoint, others: Sequence[Checkpoint]) -> None:
    for other in others:
        for name in first.tensors:
            if name not in other.tensors:
                near = nearest(name, other.tensors)
                more = f", its nearest is {near!r}" if near is not None else ""
                raise MixError(
                    f"{weights_file(other)}: has no tensor {name!r}, {first.path} has{more}", hint=_HINT_NAMES
                )
        for name, spec in other.tensors.items():
            if name not in first.tensors:
                raise MixError(f"{weights_file(other)}: has tensor {name!r}, {first.path} has not", hint=_HINT_NAMES)
            _check_spec(first, other, name, spec)


_HINT_NAMES = (
    "soups are made of checkpoints of one network: leave out the one that differs, or if two versions of a library "
    "wrote them, load and save all with one"
)


def is_free_state(name: str, spec: TensorSpec) -> bool:
    """Whether it is a layer's own record (of Transformer Engine), whose length may be another in each checkpoint."""
    return name.endswith("_extra_state") and not spec.dtype.is_averaged


def _check_spec(first: Checkpoint, other: Checkpoint, name: str, spec: TensorSpec) -> None:
    expected = first.tensors[name]
    if is_free_state(name, spec) and is_free_state(name, expected):
        return
    if spec.shape != expected.shape:
        raise MixError(
            f"{weights_file(other)}: tensor {name!r} has shape {list(spec.shape)}, "
            f"{first.path} has {list(expected.shape)}",
            hint=hint_for_shapes(first, other, name),
        )
    kinds = [(dtype.is_averaged, dtype.is_complex) for dtype in (spec.dtype, expected.dtype)]
    if kinds[0] != kinds[1]:
        raise MixError(
            f"{weights_file(other)}: tensor {name!r} has dtype {spec.dtype}, {first.path} has {expected.dtype}",
            hint="one of them was converted: save both in one dtype",
        )
