"""Where the ingredients of a learned soup live: on the device if they all fit, else in host memory, else on disk.

Wherever that is, the same pieces of them come in the same shape and dtype, so that all arithmetic is the same.

Letters in names: k ingredients, n elements of a piece.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.errors import UsageError
from soupcli.networks.pieces import PIECE_BYTES, Piece

Where = Literal["device", "host", "disk"]
HELD_BYTES = 128 << 20  # that stay in memory, where ingredients are on disk, until they are looked at a second time
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
    free = {"host": free_on_host()}
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


class Ingredients:
    """Pieces of all ingredients at once, from where they live, for threads that each look at one piece at a time."""

    def __init__(self, checkpoints: Sequence[Checkpoint], where: Where, device: torch.device) -> None:
        """`device` is where the arithmetic is done."""
        self.checkpoints = checkpoints
        self.where = where
        self.device = device
        self._kept: dict[Piece, Tensor] = {}
        self._held = 0
        self._lock = threading.Lock()
        self._scratch = threading.local()

    def piece(self, piece: Piece, *, again: bool = False) -> Tensor:
        """Tensor[K, n] on the device, in the piece's dtype, valid until this thread asks for the next one.

        `again`: it will be asked for a second time soon. Raises UsageError where memory does not hold what was to live
        in it.
        """
        if self.where == "disk":
            return self._from_disk(piece, again).to(self.device, non_blocking=True)
        if piece not in self._kept:
            self._kept[piece] = self._keep(piece)
        return self._kept[piece].to(self.device, non_blocking=True)

    def _from_disk(self, piece: Piece, again: bool) -> Tensor:
        nbytes = len(self.checkpoints) * piece.nbytes
        with self._lock:
            held_kn = self._kept.pop(piece, None)
            hold = again and held_kn is None and self._held + nbytes <= HELD_BYTES
            self._held += (nbytes if hold else 0) - (nbytes if held_kn is not None else 0)
        if held_kn is not None:
            return held_kn
        if not hold:
            return self._read(piece, self._buffer(piece))
        held_kn = self._kept[piece] = self._read(piece, torch.empty(self._shape(piece), dtype=piece.dtype))
        return held_kn

    def _shape(self, piece: Piece) -> tuple[int, int]:
        return len(self.checkpoints), piece.numel

    def _keep(self, piece: Piece) -> Tensor:
        on_device = self.where == "device"
        shape = self._shape(piece)
        try:
            if on_device:
                kept_kn = torch.empty(shape, dtype=piece.dtype, device=self.device)
            else:
                kept_kn = torch.empty(shape, dtype=piece.dtype, pin_memory=self._is_pinned)
        except RuntimeError as cause:  # torch's out-of-memory errors are of this class
            raise UsageError(
                f"--resident {self.where}: the ingredients do not fit: {str(cause).splitlines()[0]}",
                hint="--resident disk needs no memory for them",
            ) from cause
        if kept_kn.device.type == "cpu":
            return self._read(piece, kept_kn)
        return kept_kn.copy_(self._read(piece, self._buffer(piece)))

    @property
    def _is_pinned(self) -> bool:
        return self.device.type == "cuda"

    def _buffer(self, piece: Piece) -> Tensor:
        """This thread's buffer as [K, n]; the last copy out of it is over."""
        nbytes = len(self.checkpoints) * piece.nbytes
        buffer: Tensor | None = getattr(self._scratch, "buffer", None)
        if buffer is None or len(buffer) < nbytes:
            buffer = torch.empty(max(nbytes, PIECE_BYTES), dtype=torch.uint8, pin_memory=self._is_pinned)
            self._scratch.buffer = buffer
        return buffer[:nbytes].view(piece.dtype).view(self._shape(piece))

    def _read(self, piece: Piece, out_kn: Tensor) -> Tensor:
        for checkpoint, row_n in zip(self.checkpoints, out_kn, strict=True):
            at = 0
            for name, start, count in piece.spans:
                _read_as(checkpoint, name, start, row_n[at : at + count])
                at += count
        return out_kn


def _read_as(checkpoint: Checkpoint, name: str, start: int, out_n: Tensor) -> None:
    """Reads in the stored dtype, which `out_n` holds exactly."""
    stored = checkpoint.tensors[name].dtype
    if stored == out_n.dtype:
        checkpoint.read(name, out_n, start=start)
        return
    part_n = torch.empty(len(out_n), dtype=stored)
    checkpoint.read(name, part_n, start=start)
    out_n.copy_(part_n)
