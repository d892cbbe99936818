"""The device that --device names. torch is asked for devices unless there can only be the CPU.

Importing torch takes seconds, so drivers are asked first: a login node has NVIDIA's library and no device, a container
has devices and a torch that was built without CUDA.

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
from soupcli.files.reading import read_small
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


CPU = Device("cpu")


def choose_device(name: str) -> Device:
    """Return the device that `name` means. Raises UsageError if this machine does not have it."""
    local = processes.local_number() or 0
    if name == "cpu" or (name == "auto" and not may_have_others()):
        return CPU
    if name == "auto":
        if torch.cuda.is_available():
            return Device("cuda", local % torch.cuda.device_count())
        return Device("mps") if torch.backends.mps.is_available() else CPU
    kind, _, number = name.partition(":")
    count = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[kind]
    if int(number or 0) >= count:
        have = f"this machine has {count} {kind} device{'' if count == 1 else 's'}"
        raise UsageError(f"--device {name}: {have}", hint="--device auto takes what is there")
    if name == "cuda":
        return Device("cuda", local % count)
    return Device(kind, int(number) if number else None)


def may_have_others() -> bool:
    """Whether torch may find a device beside the CPU: on a Mac, or if it was built for a device that a driver shows."""
    if sys.platform == "darwin":
        return True
    return (AMD.exists() and _is_built_for("hip")) or (_is_built_for("cuda") and any(map(_shows_devices, DRIVERS)))


def _is_built_for(platform: str, versions: Path | None = None) -> bool:
    """Whether torch was built for it, by the file `versions`, its own; True if the file does not say."""
    if versions is None:
        found = importlib.util.find_spec("torch")
        versions = Path(found.origin or "").with_name("version.py") if found is not None else Path("version.py")
    try:
        text = read_small(versions, most=1_000_000).decode()
    except OSError:
        return True
    return re.search(rf"^{platform}\b.*= None$", text, re.MULTILINE) is None


def _shows_devices(library: str) -> bool:
    """Whether NVIDIA's driver is there and shows a device; CUDA_VISIBLE_DEVICES hides some from it, as from torch."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(library)
        refused = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except OSError:
        return False
    except AttributeError:  # no driver that we know
        return True
    return not refused and count.value > 0
