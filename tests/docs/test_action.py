"""action.yml: its step is run by bash as a runner would, on a family, with a gate that is met and one that is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from soupcli.files.kept_file import refusal
from tests.helpers.warm import Warm

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
BASH = shutil.which("bash")


def run(warm: Warm, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The step that mixes, with inputs over the action's defaults."""
    step = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "mix")
    Path("bin").mkdir(exist_ok=True)
    warm.on_path(Path("bin/soup"), "-m", "soupcli")
    Path("bin/python").unlink(missing_ok=True)
    Path("bin/python").symlink_to(sys.executable)
    given = {name: inputs.get(name, spec.get("default", "")) for name, spec in ACTION["inputs"].items()}
    values = {name: given[value.split("inputs.")[1].split()[0]] for name, value in step["env"].items()}
    files = {"GITHUB_OUTPUT": "output.txt", "GITHUB_STEP_SUMMARY": "summary.md"}
    path = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **values, **files, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [str(BASH), "-e", "-o", "pipefail", "-c", step["run"]]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.usefixtures("family")
def test_gates(warm: Warm) -> None:
    """A gate that is not met is exit code 1; the summary has scores and gates either way, the output the report."""
    ran = run(warm, ckpts="runs/*/\r\n\n", val="  val\t\r\ntest", gates="{test: '>= best - 50'}")
    assert ran.returncode == 0, ran.stderr
    assert "::notice" in ran.stdout
    assert Path("output.txt").read_text() == "report=soup/soup.json\n"
    assert len(json.loads(Path("soup/soup.json").read_text())["ingredients"]) == 5
    summary = Path("summary.md").read_text()
    assert (
        "### soup greedy" in summary
        and "| test accuracy ↑ |" in summary
        and "- gate met: test &#62;= best - 50" in summary
    )
    ran = run(warm, ckpts="runs/*/", val="val\ntest", gates="{test: '>= 100%'}")
    assert ran.returncode == 1, ran.stderr
    assert "- gate not met: test &#62;= 100%" in Path("summary.md").read_text()


def test_the_image_keeps_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Dockerfile's cache, in a folder that everybody can write, is one that nobody else can touch."""
    variables = re.search(r"^ENV (.*)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert variables is not None
    place = Path(dict(word.split("=") for word in variables[1].split())["SOUP_CACHE"])
    assert place.parts[:2] == ("/", "tmp") and len(place.parts) > 3
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        assert refusal(Path(folder, *place.parts[3:])) is None
        Path(folder).chmod(0o777)
        assert refusal(Path(folder, *place.parts[3:])) is not None


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.usefixtures("family")
def test_wrong_input(warm: Warm) -> None:
    """What is wrong with the input is soup's own exit code, and there is no summary; words are never shell code."""
    ran = run(warm, ckpts="$(touch hacked) `touch hacked`", val="val")
    assert ran.returncode == 2
    assert not Path("hacked").exists() and not Path("summary.md").exists()
    ran = run(warm, ckpts="runs/*/", out="soup\nreport=another")
    assert ran.returncode == 2 and "out: the folder of the soup is one line" in ran.stdout
    assert not Path("output.txt").exists()
