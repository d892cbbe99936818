"""Decides where the ingredients of a learned soup are kept: on the device, in host memory, or on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli import processes
from soupcli.errors import UsageError
from soupcli.networks.memory import free_on_device, free_on_host

if TYPE_CHECKING:
    from soupcli.late import torch

Where = Literal["device", "host", "disk"]
SHARE = 0.6  # of the free memory that ingredients may take: activations and the page cache want some too


class Residence(NamedTuple):
    """Where the ingredients are kept, the bytes that they need, and the bytes that were free there."""

    where: Where
    needed: int
    free: int


def plan(
    needed: int, other: int, device: torch.device, *, wanted: Literal["auto", "device", "host", "disk"]
) -> Residence:
    """Decide where `needed` bytes of ingredients go if the network needs `other` bytes on `device` as well."""
    free = {"host": free_on_host() // processes.on_this_machine()}
    if device.type == "cuda":
        free["device"] = free_on_device(device)
    elif device.type == "cpu":
        free["device"] = free["host"]
    fits = {place: needed + (other if place == "device" else 0) <= SHARE * free[place] for place in free}
    where: Where = (
        next((place for place in ("device", "host") if fits.get(place)), "disk") if wanted == "auto" else wanted
    )
    if where == "device" and where not in free:
        raise UsageError(f"--resident device: not on {device.type}", hint="--resident host")
    return Residence(where, needed, free.get(where, free["host"]))
