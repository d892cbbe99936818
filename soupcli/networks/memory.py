"""Memory of this process: the peak so far, for the report, and what is free on the host and on a device."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.late import torch

if TYPE_CHECKING:
    from soupcli.networks.device import Device


def peak_bytes(device: Device) -> dict[str, int]:
    """Return the peak memory of this process in bytes, on the host and on a CUDA device."""
    peaks = {"host": _peak_of_host()}
    if device.type == "cuda":
        peaks["device"] = torch.cuda.max_memory_allocated(device.torch)
    return peaks


def _peak_of_host() -> int:
    """Return the peak of this program, from /proc if possible: getrusage also counts the process that started it."""
    import resource  # noqa: PLC0415 - Windows has none

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_on_host() -> int:
    """Return the bytes that this process may still allocate, by the system and its control group."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no control group, or no limit in it
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free, 0)


def free_on_device(device: torch.device) -> int:
    """Return the bytes that this process may still allocate on a CUDA device, including idle ones of its allocator."""
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + idle
