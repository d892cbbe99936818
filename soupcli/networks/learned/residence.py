"""Where the ingredients of a learned soup live: on the device if they all fit, else in host memory, else on disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal, NamedTuple

from soupcli import processes
from soupcli.errors import UsageError
from soupcli.late import torch

Where = Literal["device", "host", "disk"]
SHARE = 0.6  # of the free memory that ingredients may take: activations and the page cache want some too


class Residence(NamedTuple):
    """Where the ingredients live, the bytes that they need, and the bytes that were free there when it was decided."""

    where: Where
    needed: int
    free: int


def plan(
    needed: int, other: int, device: torch.device, *, wanted: Literal["auto", "device", "host", "disk"]
) -> Residence:
    """Where `needed` bytes of ingredients go on a machine whose network wants `other` bytes on `device` beside them."""
    free = {"host": free_on_host() // processes.on_this_machine()}
    if device.type == "cuda":
        free["device"] = torch.cuda.mem_get_info(device)[0] + _idle_in_allocator(device)
    elif device.type == "cpu":
        free["device"] = free["host"]
    fits = {place: needed + (other if place == "device" else 0) <= SHARE * free[place] for place in free}
    where: Where = (
        next((place for place in ("device", "host") if fits.get(place)), "disk") if wanted == "auto" else wanted
    )
    if where == "device" and where not in free:
        raise UsageError(f"--resident device: not on {device.type}", hint="--resident host")
    return Residence(where, needed, free.get(where, free["host"]))


def free_on_host() -> int:
    """Bytes that this process may still take, as the system and its control group say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no control group, or no limit in it
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free, 0)


def _idle_in_allocator(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
