"""Tensors in pickles of torch: which storage, dtype, shape and strides, or why they cannot be read.

Nothing here needs torch: dtypes are known by name. Formats: torch/_utils.py and torch/_tensor.py of torch 0.4 to 2.x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.pickles.stand_ins import Global, PersistentId, StandIn, find_in

if TYPE_CHECKING:
    from collections.abc import Callable

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
ITEM_SIZES = {
    **dict.fromkeys(("complex128",), 16),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32", "qint32", "complex32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
}  # all others: 1
MOST_DIMENSIONS = 64
MOST_ELEMENTS = 1 << 60

DTENSOR = (
    "save whole tensors: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True)), or .full_tensor() of each"
)
# What torch rebuilds tensors with that have no plain bytes: what they are, and how to save them.
UNREADABLE = {
    "torch._utils._rebuild_sparse_tensor": ("a sparse tensor", "save it as .to_dense()"),
    "torch._utils._rebuild_sparse_csr_tensor": ("a sparse tensor", "save it as .to_dense()"),
    "torch._utils._rebuild_qtensor": ("a quantised tensor", "save it as .dequantize()"),
    "torch._utils._rebuild_nested_tensor": ("a nested tensor", "save its parts: .unbind()"),
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "a tensor without data (on the meta device)",
        "load the weights before the model is saved",
    ),
    "torch._utils._rebuild_device_tensor_from_numpy": ("a tensor of another device", "save it as .cpu()"),
    "torch._utils._rebuild_xla_tensor": ("a tensor of another device", "save it as .cpu()"),
    **dict.fromkeys(
        ("torch.nn.parameter.UninitializedParameter", "torch.nn.parameter.UninitializedBuffer"),
        ("a tensor without data (of a lazy module)", "run the model on one batch before it is saved"),
    ),
    "torch.storage._load_from_bytes": ("a pickle within the pickle", "save it with torch.save"),
    "torch.ScriptObject": ("an object of TorchScript (packed weights)", "save the network before it is quantised"),
}
# Subclasses of Tensor that are made of further tensors, by the ends of their names.
WRAPPERS = {
    ".DTensor": ("a DTensor, of which one process has a part", DTENSOR),
    ".ShardedTensor": ("a ShardedTensor, of which one process has a part", DTENSOR),
    ".MaskedTensor": ("a masked tensor", "save its numbers: .to_tensor(0)"),
    ".NestedTensor": UNREADABLE["torch._utils._rebuild_nested_tensor"],
}
ARRAYS = frozenset(
    f"numpy.{core}.{function}"
    for core in ("core", "_core")
    for function in ("multiarray._reconstruct", "numeric._frombuffer")
)
WRAPPER = "torch._utils._rebuild_wrapper_subclass"


class Storage(NamedTuple):
    """A storage of torch: the key of its bytes, and the dtype that it was saved with."""

    key: str
    dtype: str
    numel: int
    view: tuple[str, int, int] | None = None  # before torch 1.6: a part of another storage, from an element on


class PickledTensor(NamedTuple):
    """A tensor whose elements lie in a storage; offset and strides count elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False  # torch conjugates the stored numbers when it reads them
    negative: bool = False  # torch negates them

    @property
    def item_size(self) -> int:
        """Bytes of one element."""
        return ITEM_SIZES.get(self.dtype, 1)


class UnreadableTensor(NamedTuple):
    """A tensor that has no plain bytes: what it is, and how to save it so that it has."""

    what: str
    hint: str


def tensor_of(value: StandIn) -> PickledTensor | UnreadableTensor:
    """Returns the tensor that a stand-in describes."""
    try:
        while value.full_name not in UNREADABLE:
            found = _REBUILD[value.full_name](value.args)
            if not isinstance(found, StandIn):
                return found
            value = found
    except (TypeError, ValueError, IndexError, AttributeError, KeyError):
        return UnreadableTensor("a tensor whose description is broken", "copy or save the file again")
    return UnreadableTensor(*UNREADABLE[value.full_name])


Found = PickledTensor | UnreadableTensor | StandIn


def _plain(args: tuple[Any, ...]) -> Found:
    """_rebuild_tensor(storage, offset, size, stride), and v2 with requires_grad, hooks and metadata after them."""
    storage = storage_of(args[0])
    return _tensor(storage, storage.dtype, args, args[6] if len(args) > 6 else None)


def _typed(args: tuple[Any, ...]) -> Found:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata)."""
    return _tensor(storage_of(args[0]), dtype_of(args[6]), args, args[7] if len(args) > 7 else None)


def _tensor(storage: Storage, dtype: str, args: tuple[Any, ...], metadata: Any) -> Found:
    offset, shape, strides = args[1], tuple(args[2]), tuple(args[3])
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < MOST_ELEMENTS for number in numbers):
        raise ValueError("a size, stride or offset is no count")
    if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
        raise ValueError("as many strides as sizes")
    bits = metadata if isinstance(metadata, dict) else {}
    if bits.keys() - {"conj", "neg"}:
        return UnreadableTensor(f"a tensor with the unknown property {next(iter(bits.keys() - {'conj', 'neg'}))!r}", "")
    return PickledTensor(
        storage, dtype, offset, shape, strides, bool(bits.get("conj", False)), bool(bits.get("neg", False))
    )


def _parameter(args: tuple[Any, ...]) -> Found:
    found: StandIn = args[0]
    return found


def _parameter_with_state(args: tuple[Any, ...]) -> Found:
    if holds_tensors(args[3]):
        return UnreadableTensor("a parameter with further tensors in its attributes", "save plain tensors: .data")
    return _parameter(args)


def _subclass(args: tuple[Any, ...]) -> Found:
    """_rebuild_from_type_v2(function, type, arguments, state): a subclass of Tensor."""
    function, kind, rebuild_args, state = args
    name = kind.full_name if isinstance(kind, Global) else "another class"
    if function.full_name == WRAPPER or holds_tensors(state):
        return _wrapped(name)
    return StandIn(function, rebuild_args)


def _wrapper(args: tuple[Any, ...]) -> Found:
    return _wrapped(args[0].full_name)


def _wrapped(name: str) -> UnreadableTensor:
    for ending, said in WRAPPERS.items():
        if name.endswith(ending):
            return UnreadableTensor(*said)
    hint = "save plain tensors: .dequantize() of each, if the class has it, or the model before it was converted"
    return UnreadableTensor(f"a tensor of the class {name}", hint)


def _device_tensor(args: tuple[Any, ...]) -> Found:
    return _parameter(args)


_REBUILD: dict[str, Callable[[tuple[Any, ...]], Found]] = {
    "torch._utils._rebuild_tensor": _plain,
    "torch._utils._rebuild_tensor_v2": _plain,
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._tensor._rebuild_from_type": _subclass,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.tensor._rebuild_from_type": _subclass,
    WRAPPER: _wrapper,
}


def storage_of(value: Any) -> Storage:
    """Returns the storage that a persistent identifier names. Raises ValueError if it names something else."""
    if isinstance(value, StandIn) and value.full_name == "torch.storage.TypedStorage":
        value = value.attributes.get("_untyped_storage", value)
    named = value.value if isinstance(value, PersistentId) else ()
    if not isinstance(named, tuple) or len(named) < 5 or named[0] != "storage":
        raise ValueError("not a storage")
    _, kind, key, _, numel, *view = named
    name = kind.name if isinstance(kind, Global) else ""
    if not isinstance(key, str | int) or type(numel) is not int or numel < 0:
        raise ValueError("a storage without a key or size")
    return Storage(str(key), STORAGES[name], numel, _view(view[0]) if view else None)


def _view(view: Any) -> tuple[str, int, int] | None:
    if view is None:
        return None
    key, offset, size = view
    if type(offset) is not int or type(size) is not int or min(offset, size) < 0:
        raise ValueError("a view without offset or size")
    return str(key), offset, size


def dtype_of(value: Any) -> str:
    """Returns the name of a dtype, e.g. `uint16`."""
    if not isinstance(value, Global) or value.module != "torch":
        raise ValueError("not a dtype")
    return value.name


def is_tensor(value: Any) -> bool:
    """Whether a stand-in describes a tensor, readable or not."""
    return isinstance(value, StandIn) and value.full_name in _TENSORS


def is_array(value: Any) -> bool:
    """Whether a stand-in describes a numpy array."""
    return isinstance(value, StandIn) and value.full_name in ARRAYS


def holds_tensors(value: Any) -> bool:
    """Whether a tensor lies anywhere in `value`."""
    return next(find_in(value, is_tensor), None) is not None


_TENSORS = frozenset({*_REBUILD, *UNREADABLE})
