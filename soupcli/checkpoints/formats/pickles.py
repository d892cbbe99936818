"""Pickles by torch's safe loader: tensors on the meta device, plain containers, and no code of the file's choosing.

`argparse.Namespace` is let in, since training scripts put their arguments into checkpoints. A class that is let in
by name (`--allow-class`) is not imported: an empty stand-in takes its place, so nothing of it runs and it need not be
installed. Whatever else a file asks for is refused by name.
"""

from __future__ import annotations

import argparse
import pickle
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, open_slice

SAVE_AGAIN = "copy or save the file again"
_LOCK = threading.Lock()  # the loader's list of classes, and the list of warnings, are the process's

SafeGlobal = Callable[..., Any] | tuple[Callable[..., Any], str]


def load_on_meta(file: FileVersion, offset: int = 0, length: int | None = None, *, allow: Sequence[str] = ()) -> Any:
    """What `torch.save` wrote into (a part of) `file`, its tensors without memory.

    Raises CheckpointError where it is broken and where it needs a class that is not in `allow`.
    """
    filled: set[str] = set()
    while True:
        safe: list[SafeGlobal] = [argparse.Namespace]
        safe += [(stand_in(name, filled=name in filled), name) for name in sorted(set(allow))]
        try:
            with _LOCK, torch.serialization.safe_globals(safe), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                part: Any = open_slice(file, offset, length)
                return torch.load(part, map_location="meta", weights_only=True)
        except pickle.UnpicklingError as cause:
            wants_items = re.search(r"SETITEMS? for .* but got <class '(.+?)'>", str(cause))
            if wants_items is None or wants_items[1] not in set(allow) - filled:
                raise _refused(file, offset, length, cause, allow) from cause
            filled.add(wants_items[1])
        except Exception as cause:  # whatever torch raises over a broken file is the file's fault
            what = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            if "meta tensor" in what:
                what = "it holds a tensor that is not dense"
            raise CheckpointError(f"{file.path}: not a torch checkpoint: {what}", hint=SAVE_AGAIN) from cause


class StandIn:
    """In the place of an object whose class is not known here: takes any arguments and state, and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Any:
        """An empty object, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _FilledStandIn(StandIn):
    """For a subclass of dict: the loader fills plain containers alone."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


def stand_in(name: str, *, filled: bool = False) -> type:
    """A class of its own for `name`, whose objects are StandIns, or OrderedDicts where they are `filled`."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, (_FilledStandIn if filled else StandIn,), {"__module__": module})


def _refused(
    file: FileVersion, offset: int, length: int | None, cause: Exception, allow: Sequence[str]
) -> CheckpointError:
    wanted = _unsafe_globals(file, offset, length, cause, allow)
    if not wanted:
        said = re.search(r"WeightsUnpickler error: (.*)", str(cause))
        what = said[1] if said else "the pickle in it is broken"
        return CheckpointError(f"{file.path}: refused by torch's safe loader: {what}", hint=SAVE_AGAIN)
    allowed = " ".join(f"--allow-class {name}" for name in wanted)
    return CheckpointError(
        f"{file.path}: not opened: beside tensors it needs {', '.join(wanted)}",
        hint=f"save the weights alone, torch.save(model.state_dict(), path); or let an empty stand-in take its place: "
        f"{allowed}",
    )


def _unsafe_globals(
    file: FileVersion, offset: int, length: int | None, cause: Exception, allow: Sequence[str]
) -> list[str]:
    """Every class that the file asks for and does not get."""
    known = {"argparse.Namespace", *allow}
    try:
        part: Any = open_slice(file, offset, length)
        found = torch.serialization.get_unsafe_globals_in_checkpoint(part)
    except Exception:  # noqa: BLE001 - a pickle that cannot be listed: the loader's message names one class
        named = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(cause))
        found = [named[1]] if named else []
    return sorted(set(found) - known)


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
