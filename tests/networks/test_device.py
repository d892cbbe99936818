"""Which devices there may be, asked without importing torch: of torch's own file and of drivers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from soupcli.networks import device
from soupcli.networks.device import CPU, choose_device, may_have_others

DRIVER = """
int cuInit(unsigned flags) {{ return {refused}; }}
int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}
"""


def driver(folder: Path, *, refused: int, count: int) -> str:
    """A library with the two calls of NVIDIA's driver, whose answers are these."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (folder / "cuda.c").write_text(DRIVER.format(refused=refused, count=count))
    library = folder / f"cuda-{refused}-{count}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "cuda.c"], check=True)
    return str(library)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac asks torch")
@pytest.mark.parametrize(
    ("refused", "count", "asked"),
    [(100, 1, False), (0, 0, False), (0, 2, True)],
    ids=["login node", "all hidden", "two devices"],
)
def test_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int, count: int, asked: bool) -> None:
    """A driver that refuses (100 is CUDA_ERROR_NO_DEVICE) or shows no device is as good as none: the CPU, at once."""
    monkeypatch.setattr(device, "DRIVERS", ("absent.so", driver(tmp_path, refused=refused, count=count)))
    monkeypatch.setattr(device, "AMD", tmp_path / "absent")
    monkeypatch.setattr(device, "_is_built_for", lambda platform: platform == "cuda")
    assert may_have_others() is asked
    if not asked:
        assert choose_device("auto") == CPU
    monkeypatch.setattr(device, "_is_built_for", lambda _: False)
    assert not may_have_others()  # whatever the driver shows: torch was built without CUDA


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac asks torch")
def test_unknown_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that lacks the calls leaves the question to torch."""
    monkeypatch.setattr(device, "DRIVERS", ("libc.so.6",))
    monkeypatch.setattr(device, "AMD", tmp_path / "absent")
    monkeypatch.setattr(device, "_is_built_for", lambda platform: platform == "cuda")
    assert may_have_others()


def test_what_torch_was_built_for(tmp_path: Path) -> None:
    """The file that torch is built with says it; one that says nothing, or is absent, leaves the question open."""
    file = tmp_path / "version.py"
    file.write_text("cuda: Optional[str] = '13.2'\nhip: Optional[str] = None\n")
    assert device._is_built_for("cuda", file) and not device._is_built_for("hip", file)
    file.write_text("__version__ = '9'\n")
    assert device._is_built_for("cuda", file) and device._is_built_for("hip", tmp_path / "absent.py")


def test_torch_itself() -> None:
    """torch agrees with its file, and nothing that torch can use is passed over."""
    assert device._is_built_for("cuda") == (torch.version.cuda is not None)
    assert device._is_built_for("hip") == (torch.version.hip is not None)
    assert may_have_others() or not torch.cuda.is_available()
