"""Files of `torch.save` (.pt, .pth, .pth.tar, .bin, .ckpt): a pickle, and the bytes of the tensors.

The pickle is read with inert stand-ins (see unpickler.py), so nothing in the file runs and no class of it is needed.
No tensor data is read when the file is opened; the bytes of each tensor are read where they lie, uncompressed.
"""

from __future__ import annotations

import math
import struct
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.checkpoint import Origin, StoredTensor, TensorSpec
from soupcli.checkpoints.contents import Contents, How
from soupcli.checkpoints.formats.beside_network import parts_beside
from soupcli.checkpoints.formats.class_lists import LONGEST_JSON, View, entries_of_text, lists_in
from soupcli.checkpoints.formats.names import COUNTERS, EXTRA_STATE
from soupcli.checkpoints.formats.network_part import network_part
from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.pickles.machine import PickleError
from soupcli.checkpoints.formats.pickles.stand_ins import Payload, bytes_of, find_in
from soupcli.checkpoints.formats.pickles.tensors import PickledTensor, UnreadableTensor, is_tensor, tensor_of
from soupcli.checkpoints.formats.python_settings import LONGEST
from soupcli.checkpoints.formats.safetensors import NAMES
from soupcli.checkpoints.formats.saved_parts import stated_in, view_of
from soupcli.checkpoints.formats.sentencepiece import numbered_pieces
from soupcli.checkpoints.formats.soup_mark import members_at
from soupcli.checkpoints.formats.torch_archives import SAVE_AGAIN, holds_a_pickle, is_torch_file, read_object
from soupcli.checkpoints.formats.training_numbers import metrics_of, metrics_of_epochs, progress_of
from soupcli.checkpoints.formats.training_state import is_optimizer, is_training_state
from soupcli.errors import CheckpointError
from soupcli.files.reading import read_bytes
from soupcli.wording import with_article

if TYPE_CHECKING:
    from collections.abc import Mapping

    from soupcli.checkpoints.formats.network_part import NetworkPart
    from soupcli.checkpoints.formats.torch_archives import SavedObject
    from soupcli.checkpoints.formats.training_numbers import ReadScalar
    from soupcli.files.reading import FileVersion

DTYPES = {dtype.value: dtype for dtype in NAMES}
SCALARS = {
    "float64": "d",
    "float32": "f",
    "float16": "e",
    "int64": "q",
    "int32": "i",
    "int16": "h",
    "uint8": "B",
    "bool": "?",
}
MOST_NUMBERS = 1 << 20  # bytes of a tensor beside the network that is compared
FEW_NUMBERS = 2000  # of a tensor that says which class is meant
MAX_EXPANDED = 64_000_000  # bytes by which views that repeat elements may exceed what the file holds

# Who writes which keys beside the weights; the first that fits names the format.
WRITERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Lightning", frozenset({"pytorch-lightning_version", "global_step"})),
    ("DeepSpeed", frozenset({"ds_version"})),
    ("timm training", frozenset({"arch", "state_dict", "optimizer"})),
    ("open_clip training", frozenset({"name", "epoch", "state_dict"})),
    ("fairseq", frozenset({"model", "extra_state"})),
    ("ultralytics", frozenset({"model", "ema", "updates", "train_args"})),
    ("YOLOv5", frozenset({"model", "ema", "updates", "opt"})),
    ("nnU-Net", frozenset({"network_weights", "trainer_name"})),
    ("mmengine", frozenset({"meta", "state_dict", "message_hub"})),
    ("icefall", frozenset({"model", "model_avg", "sampler"})),
    ("VITS", frozenset({"model", "iteration", "learning_rate"})),
    ("detectron2", frozenset({"model", "iteration"})),
    ("Whisper", frozenset({"dims", "model_state_dict"})),
    ("RVC", frozenset({"weight", "config", "info"})),
    ("Coqui", frozenset({"config", "model", "model_loss"})),
    ("nanoGPT", frozenset({"model", "model_args", "iter_num"})),
    ("flair", frozenset({"__cls__", "state_dict"})),
    ("fair-esm", frozenset({"cfg", "model"})),
    ("torchvision training", frozenset({"model", "optimizer", "epoch", "args"})),  # MAE, DeiT, DETR, ConvNeXt: too
    ("BasicSR", frozenset({"params"})),
    ("BasicSR", frozenset({"params_ema"})),
    ("fastai", frozenset({"model", "opt"})),
    ("RT-DETR", frozenset({"date", "last_epoch", "model"})),  # D-FINE and DEIM: too
    ("composer", frozenset({"state", "rng"})),
    ("catalyst", frozenset({"model_state_dict", "epoch_metrics"})),
    ("catalyst", frozenset({"model_state_dict", "epoch_step", "batch_step"})),  # since 22
    ("IP-Adapter", frozenset({"image_proj", "ip_adapter"})),
    ("OpenNMT-py", frozenset({"model", "generator", "vocab", "opt"})),
    ("audiocraft", frozenset({"best_state", "xp.cfg"})),
    ("RecBole", frozenset({"state_dict", "other_parameter"})),
    ("Sample Factory", frozenset({"model", "train_step", "env_steps"})),
    ("TorchRL", frozenset({"loss_module", "collector"})),
    ("textual inversion", frozenset({"string_to_param", "string_to_token"})),  # AUTOMATIC1111's
    ("stable-baselines3", frozenset({"state_dict", "data"})),
)

# Entries of a training that the library's loader looks for, even if it opens only the weights.
LOOKED_FOR = {"fairseq": ("optimizer_history",), "fastai": ("opt",)}


def read_contents(file: FileVersion, how: How) -> Contents:
    """Returns the contents of `file` as `how` says. Raises CheckpointError, see read_header."""
    return read_header(file, key=how.key)


def read_header(file: FileVersion, offset: int = 0, length: int | None = None, *, key: str | None = None) -> Contents:
    """Returns specs and places of the network's tensors in (a part of) `file`, under `key` or the first usual one.

    Raises CheckpointError if it is not what torch.save writes, if no state dict is found, if the choice is not clear,
    and if a tensor of it has no plain bytes.
    """
    saved = read_object(file, offset, length)
    try:
        return _network(file, saved, key)
    except PickleError as cause:
        raise CheckpointError(f"{file.path}: not opened: {cause}", hint=SAVE_AGAIN) from cause


def _network(file: FileVersion, saved: SavedObject, key: str | None) -> Contents:
    view = view_of(saved.content) or {}
    format_ = _writer({str(name) for name in view})
    if _is_part_of_deepspeed(view):
        raise CheckpointError(
            f"{file.path}: a part of a DeepSpeed checkpoint", hint="python -m deepspeed.utils.zero_to_fp32 converts it"
        )
    part = network_part(file.path, saved.content, key=key, is_tensor=is_tensor)
    if format_ == "torch" and not COUNTERS.isdisjoint(part.tensors):
        format_ = "averaged"
    specs: dict[str, TensorSpec] = {}
    places: dict[str, StoredTensor] = {}
    for name, value in part.tensors.items():
        specs[name], places[name] = _stored(file, saved, f"tensor {name!r}", value)
    _check_expanded(file, specs, places)
    origin = _origin(format_, view, part, partial(_scalar, file, saved))
    stated = _stating(file, saved.start)
    classes, lists, inputs = lists_in(saved.content, stated, partial(_few_numbers, file, saved))
    origin = origin._replace(classes=classes, lists=lists, inputs=inputs, members=members_at(file, saved.mark))
    numbers = partial(numbers_of, file, saved)
    settings = settings_in(saved.content, numbers, network=part.key or "", own=part.keys_of_states)
    return Contents(specs, places, origin._replace(settings=settings, states=part.states))


def _stating(file: FileVersion, start: int) -> View:
    """Return what gives the entries of a dict, object or text that states some, and of a model of sentencepiece."""

    @cache  # both kinds of lists ask
    def read(kept: Payload, encoding: str) -> Mapping[Any, Any] | None:
        at = start + kept.offset
        is_text = kept.text and kept.length <= LONGEST and not encoding
        if not is_text and (kept.length > LONGEST_JSON or read_bytes(file, at, 1) not in (b"{", b"\n")):
            return None
        content = read_bytes(file, at, kept.length)
        if is_text:
            return entries_of_text(content.decode("utf-8"))
        return _entries_of_bytes(content.decode("utf-8").encode(encoding) if encoding else content)

    def stated(value: Any) -> Mapping[Any, Any] | None:
        kept, encoding = bytes_of(value)
        if isinstance(kept, Payload):
            return read(kept, encoding)
        return _entries_of_bytes(kept) if isinstance(kept, bytes | str) else stated_in(value)

    return stated


def _entries_of_bytes(content: bytes | str) -> Mapping[Any, Any] | None:
    """Return the entries of a text that states some, and the pieces of a model of sentencepiece as a `vocab`."""
    pieces = numbered_pieces(content) if isinstance(content, bytes) and content.startswith(b"\n") else None
    return {"vocab": pieces} if pieces is not None else entries_of_text(content)


def _is_part_of_deepspeed(view: Mapping[Any, Any]) -> bool:
    """Whether a file of DeepSpeed's holds a part of the weights: with ZeRO of stage 3, or model parallelism."""
    config = view.get("ds_config")
    zero = config.get("zero_optimization") if isinstance(config, dict) else None
    stage = zero.get("stage") if isinstance(zero, dict) else None
    return "ds_version" in view and (stage == 3 or view.get("mp_world_size") not in (None, 1))


def _origin(format_: str, view: Mapping[Any, Any], part: NetworkPart, read_scalar: ReadScalar) -> Origin:
    if part.key is None:  # a bare state dict has nothing beside it
        return Origin(format_, part.key, {}, part.notes, part.averaged)
    metrics, progress = metrics_of(view, read_scalar), progress_of(view)
    return Origin(format_, part.key, metrics, part.notes, part.averaged, progress=progress)


class Beside(NamedTuple):
    """The parts of a file beside its network, by names with dots."""

    training: tuple[str, ...]  # the state of a training, except what the library's loader needs to open the weights
    tensors: frozenset[str]  # those with tensors in them


def beside_network(file: FileVersion, key: str | None) -> Beside:
    """Returns the parts beside the network, which lies at `key`, in what torch.save wrote."""
    content = read_object(file).content
    parts = [part for part in parts_beside(content, key, is_tensor) if part.value is not None]
    needed = LOOKED_FOR.get(_writer({str(name) for name in view_of(content) or {}}), ())
    training = tuple(part.name for part in parts if part.is_training and part.name not in needed)
    own = (part for part in parts if not part.name.endswith(EXTRA_STATE))
    return Beside(
        training, frozenset(part.name for part in own if next(find_in(part.value, is_tensor), None) is not None)
    )


def holds_weights(file: FileVersion) -> bool:
    """Whether a file of torch.save may hold a network, not only training state."""
    return holds_a_pickle(file) and not is_training_alone(file)


@lru_cache(maxsize=4096)
def is_training_alone(file: FileVersion) -> bool:
    """Whether a file of torch.save holds tensors, and all of them belong to the state of a training."""
    try:
        content = read_object(file).content if is_torch_file(file) else None
    except CheckpointError:
        return False  # broken: whoever opens it says how
    if is_optimizer(content):
        return True
    view = view_of(content) or {}
    parts = [(name, value) for name, value in view.items() if next(find_in(value, is_tensor), None) is not None]
    return bool(parts) and all(is_training_state(str(name), value) for name, value in parts)


@lru_cache(maxsize=4096)
def is_without_tensors(file: FileVersion) -> bool:
    """Whether a file of torch.save holds no tensor: the state of a loss without weights, or counters of a training."""
    try:
        return is_torch_file(file) and next(find_in(read_object(file).content, is_tensor), None) is None
    except CheckpointError:
        return False  # broken: whoever opens it says how


def is_state(file: FileVersion) -> bool:
    """Whether a file of torch.save holds the state of a training or settings, with tensors or without."""
    return is_training_alone(file) or is_without_tensors(file)


def epochs_of(file: FileVersion) -> dict[int, dict[str, float]]:
    """The metrics of every epoch that ESPnet keeps in this file; nothing if it is another file."""
    try:
        saved = read_object(file)
    except CheckpointError:
        return {}
    return metrics_of_epochs(view_of(saved.content) or {}, partial(_scalar, file, saved))


def _scalar(file: FileVersion, saved: SavedObject, value: Any) -> float | None:
    """The number of a tensor with one element; None for everything else."""
    numbers = _few_numbers(file, saved, value, most=1)
    return float(numbers[0]) if numbers is not None else None


def _few_numbers(file: FileVersion, saved: SavedObject, value: Any, *, most: int = FEW_NUMBERS) -> list[float] | None:
    """Return the numbers of a small dense tensor; None for everything else."""
    try:
        spec, place = _stored(file, saved, "numbers", value) if is_tensor(value) else (None, None)
    except CheckpointError:
        return None
    form = SCALARS.get(spec.dtype.value) if spec is not None else None
    if spec is None or place is None or form is None or not place.is_dense or not 0 < spec.numel <= most:
        return None
    return list(struct.unpack(f"<{spec.numel}{form}", read_bytes(file, place.offset, spec.nbytes)))


def numbers_of(file: FileVersion, saved: SavedObject, value: Any) -> bytes | None:
    """Return the bytes of a small dense tensor with its dtype and shape; None for others."""
    try:
        spec, place = _stored(file, saved, "numbers", value)
    except CheckpointError:
        return None
    if not place.is_dense or spec.nbytes > MOST_NUMBERS:
        return None
    return f"{spec.dtype.value} {list(spec.shape)} ".encode() + read_bytes(file, place.offset, spec.nbytes)


def _writer(keys: set[str]) -> str:
    return next((name for name, written in WRITERS if written <= keys), "torch")


def read_tensor_header(file: FileVersion, offset: int, length: int) -> tuple[TensorSpec, StoredTensor]:
    """Returns spec and place of the one tensor that `torch.save` wrote into `length` bytes of `file` from `offset`."""
    saved = read_object(file, offset, length)
    if not is_tensor(saved.content):
        raise CheckpointError(f"{file.path}: holds {with_article(saved.content)} at byte {offset}, not a tensor")
    return _stored(file, saved, f"the tensor at byte {offset}", saved.content)


def _stored(file: FileVersion, saved: SavedObject, what: str, value: Any) -> tuple[TensorSpec, StoredTensor]:
    """Spec and place of a pickled tensor, checked against the bytes that the file has for its storage."""
    tensor = tensor_of(value)
    if isinstance(tensor, UnreadableTensor):
        raise CheckpointError(f"{file.path}: {what} is {tensor.what}", hint=tensor.hint or None)
    if tensor.dtype not in DTYPES:
        raise CheckpointError(
            f"{file.path}: {what} has dtype {tensor.dtype}, which this version does not read",
            hint=f"save it as one of {', '.join(sorted(DTYPES))}",
        )
    span = saved.span_of(tensor.storage)
    begin, needed = tensor.offset * tensor.item_size, _bytes_to(tensor)
    if needed > span.size:
        raise CheckpointError(
            f"{file.path}: {what} needs {needed} bytes, its record has {span.size}",
            hint=SAVE_AGAIN,
        )
    strides = None if _is_dense(tensor) else tensor.strides
    spec = TensorSpec(tensor.shape, DTYPES[tensor.dtype])
    return spec, StoredTensor(file, span.offset + begin, strides, tensor.conjugate, tensor.negative)


def _bytes_to(tensor: PickledTensor) -> int:
    """Bytes of the storage up to the tensor's last element."""
    if not math.prod(tensor.shape):
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    return (tensor.offset + last + 1) * tensor.item_size


def _is_dense(tensor: PickledTensor) -> bool:
    """Whether the elements lie in row-major order without gaps."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != expected:
            return math.prod(tensor.shape) == 0
        expected *= size
    return True


def _check_expanded(file: FileVersion, specs: Mapping[str, TensorSpec], places: Mapping[str, StoredTensor]) -> None:
    """Raises CheckpointError if views that repeat elements would make far more numbers than the file holds."""
    beyond = {name: spec.nbytes - file.size for name, spec in specs.items() if places[name].strides is not None}
    name = max(beyond, key=lambda name: beyond[name], default=None)
    if name is not None and sum(excess for excess in beyond.values() if excess > 0) > MAX_EXPANDED:
        raise CheckpointError(
            f"{file.path}: tensor {name!r} has shape {list(specs[name].shape)}, {specs[name].nbytes} bytes, "
            f"and repeats the elements of a file of {file.size}",
            hint="if it is meant to be that large, save it as .contiguous()",
        )
