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
from collections.abc import Callable, Sequence
from typing import Any

import torch

from soupcli.checkpoints.file_slice import open_slice
from soupcli.checkpoints.files import FileVersion
from soupcli.errors import CheckpointError

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
