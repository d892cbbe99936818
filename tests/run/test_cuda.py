"""A CUDA device takes the decisions of the CPU and writes its bytes. Skipped without one; `make gpu` needs one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Ran

Soup = Callable[..., Ran]
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
SETS = ("--ckpts", "runs/*/", "--val", "val", "test")


def made(soup: Soup, command: str, device: str, *words: str) -> dict[str, Any]:
    """The report of a soup that was made on the device, at DEVICE/."""
    ran = soup(command, *SETS, *words, "--device", device, "--out", device, "--json", "--fresh")
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("command", ["uniform", "greedy"])
def test_same_bytes(command: str, soup: Soup) -> None:
    """Members, scores and every byte of the weights."""
    here, there = (made(soup, command, device) for device in ("cpu", "cuda"))
    assert here["soup"]["members"] == there["soup"]["members"]
    assert here["soup"]["scores"]["test"]["accuracy"] == there["soup"]["scores"]["test"]["accuracy"]
    assert Path("cpu/model.safetensors").read_bytes() == Path("cuda/model.safetensors").read_bytes()


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("resident", ["device", "host", "disk"])
def test_same_coefficients(resident: str, soup: Soup) -> None:
    """Coefficients of a learned soup are equal to 1e-6, wherever the ingredients are kept."""
    words = ("--set", "learned.steps=20", "--resident", resident)
    here, there = (
        torch.tensor(made(soup, "learned", device, *words)["soup"]["coefficients"]["alpha"], dtype=torch.float64)
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(here, there, rtol=0, atol=1e-6)
