"""The Slurm script: bash takes it, and on one node that is none it starts soup through torchrun as it says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.warm import Warm

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "configs/slurm.sh"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="bash is not installed")


def test_syntax() -> None:
    """bash reads it to the end, and every line of Slurm's own is an option that it names."""
    assert subprocess.run([str(BASH), "-n", str(SCRIPT)], check=False).returncode == 0
    options = [line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert options and all(option.startswith("--") and "=" in option for option in options)


@pytest.mark.long
def test_one_node(family: Path, tmp_path: Path, warm: Warm) -> None:
    """With stand-ins for srun and scontrol, one node and two processes rank the family, and the cache is beside it."""
    (tmp_path / "bin").mkdir()
    tools = {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
        "scontrol": "echo localhost",
    }
    for name, text in tools.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    warm.on_path(tmp_path / "bin/torchrun", "-m", "torch.distributed.run")
    job = {"SLURM_JOB_NODELIST": "node[0]", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": str(os.getpid())}
    kept = {name: value for name, value in os.environ.items() if name != "SOUP_CACHE"}
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**kept, **job, "PATH": path, "SOUP_PROCESSES_PER_NODE": "2", "PYTHONPATH": str(ROOT)}
    words = [str(BASH), str(SCRIPT), "rank", "--ckpts", "runs/0", "runs/1", "--val", "val", "--quiet"]
    ran = subprocess.run(
        words, capture_output=True, text=True, timeout=200, check=False, env={**environment, "OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout.split()) == ["runs/0", "runs/1"]
    assert (family / ".soup-cache/scores").is_dir()
