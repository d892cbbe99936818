"""Which part of a saved object is the state dict: the averaged weights, where there are any, else the trained ones.

    key, state = unwrap(path, {"epoch": 3, "state_dict": {...}}, key=None, is_tensor=...)      # "state_dict", {...}
    names = without_prefixes(["module.head.weight"])                                   # {stored name: name}

Order: `state_dict_ema`, `model_ema`, `state_dict`, `model`, else the object itself. `--key` says otherwise, with dots
where it lies deeper. What is not a tensor stays behind; a part that holds tensors of its own is never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from soupcli.checkpoints.safe_loading import StandIn
from soupcli.errors import CheckpointError

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel and DataParallel, torch.compile
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel: not a tensor of the network that it averages
MAX_DEPTH = 4

IsTensor = Callable[[Any], bool]


def unwrap(
    path: Path, content: Mapping[Any, Any], *, key: str | None, is_tensor: IsTensor
) -> tuple[str | None, dict[str, Any]]:
    """The key that was chosen (None: the object itself is the state dict) and the tensors under it, by name.

    Raises CheckpointError where there is no state dict, where `key` is not there, and where the choice is not clear.
    """
    if key is not None and not _is_bare(content, is_tensor):
        return key, _tensors(path, _descend(path, content, key), key, is_tensor)
    for wrapper in WRAPPERS:
        if _holds_tensors(content.get(wrapper), is_tensor):
            return wrapper, _tensors(path, content[wrapper], wrapper, is_tensor)
    return None, _tensors(path, content, None, is_tensor)


def _is_bare(content: Mapping[Any, Any], is_tensor: IsTensor) -> bool:
    """Whether the object is nothing but a state dict: there is nothing to choose from."""
    parts = any(_holds_tensors(value, is_tensor) for value in content.values())
    return not parts and any(is_tensor(value) for value in content.values())


def _holds_tensors(value: Any, is_tensor: IsTensor, depth: int = 0) -> bool:
    return (
        isinstance(value, Mapping)
        and depth < MAX_DEPTH
        and any(is_tensor(part) or _holds_tensors(part, is_tensor, depth + 1) for part in value.values())
    )


def _descend(path: Path, content: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    part: Any = content
    left = key
    while left:
        names = [str(name) for name in part] if isinstance(part, Mapping) else []
        step = next((name for name in names if left == name or left.startswith(f"{name}.")), None)
        if step is None:
            raise CheckpointError(f"{path}: has no key {key!r}, only {_listed(part)}", hint="--key takes one of these")
        part = next(value for name, value in part.items() if str(name) == step)
        left = left[len(step) + 1 :]
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{path}: under {key!r} is a {type(part).__name__}, not a state dict")
    return part


def _tensors(path: Path, state: Mapping[Any, Any], key: str | None, is_tensor: IsTensor) -> dict[str, Any]:
    within = f" under {key!r}" if key else ""
    parts = [str(name) for name, value in state.items() if _holds_tensors(value, is_tensor)]
    if parts:
        dotted = f"{key}.{parts[0]}" if key else parts[0]
        raise CheckpointError(
            f"{path}: no state dict{within}, but parts that may hold one: {', '.join(parts[:8])}",
            hint=f"say which: --key {dotted}",
        )
    for name, value in state.items():
        if isinstance(value, StandIn) and not str(name).endswith("_extra_state"):
            raise CheckpointError(f"{path}: {name!r}{within} is a {_full_name(value)}, not a tensor that can be read")
    tensors = {str(name): value for name, value in state.items() if is_tensor(value)}
    if not tensors:
        raise CheckpointError(f"{path}: no state dict{within}: it holds {_listed(state)}")
    return tensors


def _full_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _listed(content: Any) -> str:
    names = [repr(str(name)) for name in content] if isinstance(content, Mapping) else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"


def without_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Stored name to name, without `module.` and `_orig_mod.` where every name has them, in any order and number."""
    renamed = {name: name for name in names}
    while True:
        prefix = next((prefix for prefix in PREFIXES if _all_have(renamed, prefix)), None)
        if prefix is None:
            return renamed
        renamed = {stored: name.removeprefix(prefix) for stored, name in renamed.items() if name != COUNTER}


def _all_have(renamed: Mapping[str, str], prefix: str) -> bool:
    names = [name for name in renamed.values() if not (name == COUNTER and prefix == "module.")]
    return bool(names) and all(name.startswith(prefix) and name != prefix for name in names)
