"""Which devices there may be, asked without importing torch: of torch's own file and of drivers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from soupcli.networks import device
from soupcli.networks.device import CPU, Device, choose_device, counted_by_drivers

DRIVER = """
int cuInit(unsigned flags) {{ return {refused}; }}
int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}
int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}
"""


def driver(folder: Path, *, refused: int, count: int, version: int) -> str:
    """A library with the calls of NVIDIA's driver, whose answers are these."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "cuda.c").write_text(DRIVER.format(refused=refused, count=count, version=version))
    library = folder / f"cuda-{refused}-{count}-{version}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "cuda.c"], check=True)
    return str(library)


@pytest.fixture(autouse=True)
def _built_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch that was built for CUDA 13.2, on a machine without AMD's driver."""
    monkeypatch.setattr(device, "AMD", tmp_path / "absent")
    monkeypatch.setattr(device, "_built_for", {"cuda": "13.2", "hip": None}.get)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac asks torch")
@pytest.mark.parametrize(
    ("refused", "count", "version", "counted"),
    [(100, 1, 13020, 0), (0, 0, 13020, 0), (0, 2, 13000, 2), (0, 2, 14010, 2), (0, 2, 12090, None)],
    ids=["login node", "all hidden", "two devices", "newer driver", "driver of CUDA 12"],
)
def test_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int, count: int, version: int, counted: int | None
) -> None:
    """A driver that refuses (100 is CUDA_ERROR_NO_DEVICE) or shows no device is as good as none.

    torch is asked only where the driver may be too old for it.
    """
    library = driver(tmp_path, refused=refused, count=count, version=version)
    monkeypatch.setattr(device, "DRIVERS", ("absent.so", library))
    assert counted_by_drivers() == counted
    if counted is not None:
        monkeypatch.setattr(device, "torch", None)
        assert choose_device("auto") == (Device("cuda", 0) if counted else CPU)
    monkeypatch.setattr(device, "_built_for", lambda _: None)
    assert counted_by_drivers() == 0  # whatever the driver shows: torch was built without CUDA


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac asks torch")
def test_unknown_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that lacks the calls leaves the question to torch."""
    monkeypatch.setattr(device, "DRIVERS", ("libc.so.6",))
    assert counted_by_drivers() is None
    monkeypatch.setattr(device, "_built_for", lambda _: "")
    assert counted_by_drivers() is None


BUILT_FOR = device._built_for


def test_what_torch_was_built_for(tmp_path: Path) -> None:
    """The file that torch is built with says it; one that says nothing, or is absent, leaves the question open."""
    file = tmp_path / "version.py"
    file.write_text("cuda: Optional[str] = '13.2'\nhip: Optional[str] = None\n")
    assert BUILT_FOR("cuda", file) == "13.2" and BUILT_FOR("hip", file) is None
    file.write_text("__version__ = '9'\n")
    assert BUILT_FOR("cuda", file) == BUILT_FOR("hip", tmp_path / "absent.py") == ""


def test_torch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch agrees with its file and with drivers: nothing that it can use is passed over."""
    monkeypatch.setattr(device, "_built_for", BUILT_FOR)
    assert BUILT_FOR("cuda") == torch.version.cuda
    assert BUILT_FOR("hip") == torch.version.hip
    assert counted_by_drivers() in (None, torch.cuda.device_count() if torch.cuda.is_available() else 0)
