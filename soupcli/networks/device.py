"""The device that --device names. torch is asked for devices only if drivers do not say enough.

Importing torch takes seconds, so drivers are asked first: a login node has NVIDIA's library and no device, a container
has devices and a torch that was built without CUDA. A driver of an older generation of CUDA than torch may be too old.

device = choose_device("auto")
device.type, str(device)                              # "cuda", "cuda:0"
network.to(device.torch)
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.errors import UsageError
from soupcli.files.small_file import read_small
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import device as TorchDevice

DRIVERS = ("libcuda.so.1", "nvcuda.dll")  # of NVIDIA: without one torch.cuda is not available
AMD = Path("/dev/kfd")  # what torch for ROCm opens


@dataclass(frozen=True)
class Device:
    """A device by its name, as torch knows it."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        """As torch writes it: cuda:0."""
        return self.type if self.index is None else f"{self.type}:{self.index}"

    @property
    def torch(self) -> TorchDevice:
        """The device of torch."""
        return torch.device(str(self))

    @property
    def mixing(self) -> TorchDevice | None:
        """The device of torch that adds up weights: CUDA, for mps has no float64. None: the CPU, without torch."""
        return self.torch if self.type == "cuda" else None


CPU = Device("cpu")


def choose_device(name: str) -> Device:
    """Return the device that `name` means. Raises UsageError if this machine does not have it."""
    local = processes.local_number() or 0
    if name == "cpu":
        return CPU
    if name == "auto":
        count = counted_by_drivers()
        if count is None and torch.backends.mps.is_available():
            return Device("mps")
        if count is None:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return Device("cuda", local % count) if count else CPU
    kind, _, number = name.partition(":")
    count = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[kind]
    if int(number or 0) >= count:
        have = f"this machine has {count} {kind} device{'' if count == 1 else 's'}"
        raise UsageError(f"--device {name}: {have}", hint="--device auto takes what is there")
    if name == "cuda":
        return Device("cuda", local % count)
    return Device(kind, int(number) if number else None)


def counted_by_drivers() -> int | None:
    """Return the number of CUDA devices that torch will find, from drivers; None if torch itself must be asked."""
    if sys.platform == "darwin" or (AMD.exists() and _built_for("hip") is not None):
        return None
    version = _built_for("cuda")
    if version is None:
        return 0
    counts = [_shown_by(library, version) for library in DRIVERS]
    return None if None in counts else max(filter(None, counts), default=0)


def _built_for(platform: str, versions: Path | None = None) -> str | None:
    """Return the version of the platform that torch was built for, by the file `versions`, its own.

    Returns None if it was built for another one, and "" if the file does not say.
    """
    if versions is None:
        found = importlib.util.find_spec("torch")
        versions = Path(found.origin or "").with_name("version.py") if found is not None else Path("version.py")
    try:
        text = read_small(versions, most=1_000_000).decode()
    except OSError:
        return ""
    said = re.search(rf"^{platform}\b.*= (?:None|'(.*)')$", text, re.MULTILINE)
    return said[1] if said is not None else ""


def _shown_by(library: str, version: str) -> int | None:
    """Return how many devices NVIDIA's driver shows to a torch built for this version of CUDA; 0 without a driver.

    CUDA_VISIBLE_DEVICES hides some from it, as from torch. Returns None for a driver that is unknown, or older.
    """
    count, newest = ctypes.c_int(0), ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(library)
        refused = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
        if refused or not count.value:
            return 0
        known = not driver.cuDriverGetVersion(ctypes.byref(newest))
    except OSError:
        return 0
    except AttributeError:  # no driver that we know
        return None
    generation = version.partition(".")[0]
    supported = known and generation.isdecimal() and newest.value // 1000 >= int(generation)
    return count.value if supported else None
