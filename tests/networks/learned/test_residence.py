"""Where ingredients live: the first place that has room, or the one that was asked for."""

from __future__ import annotations

import pytest
import torch

from soupcli.errors import UsageError
from soupcli.networks.learned import residence
from soupcli.networks.learned.residence import Where, plan
from soupcli.networks.memory import free_on_host

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _a_thousand_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "free_on_host", lambda: 1000)


def test_on_the_cpu() -> None:
    """They live in memory as long as they and the gradient leave two fifths of what is free; else on disk."""
    assert plan(500, 100, CPU, wanted="auto") == ("device", 500, 1000)
    assert plan(501, 100, CPU, wanted="auto") == ("host", 501, 1000)
    assert plan(601, 0, CPU, wanted="auto") == ("disk", 601, 1000)


def test_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device of its own memory: there, else on the host, else on disk; what the allocator keeps idle is free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (90, 400))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    cuda = torch.device("cuda:0")
    assert plan(50, 10, cuda, wanted="auto") == ("device", 50, 100)
    assert plan(50, 11, cuda, wanted="auto") == ("host", 50, 1000)
    assert plan(601, 0, cuda, wanted="auto").where == "disk"


def test_what_is_asked_for() -> None:
    """--resident decides, whatever is free; a device without arithmetic of ours is refused."""
    places: tuple[Where, ...] = ("device", "host", "disk")
    for wanted in places:
        assert plan(10**9, 0, CPU, wanted=wanted).where == wanted
    assert plan(1, 0, torch.device("mps"), wanted="auto").where == "host"
    with pytest.raises(UsageError, match="--resident device: not on mps"):
        plan(1, 0, torch.device("mps"), wanted="device")


def test_free_memory() -> None:
    """The machine has some, and it is a number of bytes."""
    assert 2**20 < free_on_host() < 2**50
