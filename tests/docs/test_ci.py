"""docs/ci.md: its recipe, the steps of its jobs and its scripts, run on a small family as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import junitparser
import pytest
import yaml

from soupcli.recipe.precedence import load_recipe
from tests.cli.test_process import environment
from tests.helpers.warm import Warm

PAGE = (Path(__file__).parents[2] / "docs/ci.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def block(*words: str) -> str:
    """The one block of the page that holds all of these words."""
    [found] = [text for _, text in BLOCKS if all(word in text for word in words)]
    return str(found)


@pytest.fixture
def project(family: Path, warm: Warm) -> Path:
    """The family under the names of the page, with `soup` on the path."""
    (family / "net.py").rename(family / "network.py")
    (family / "data/rotated.safetensors").write_bytes((family / "data/test.safetensors").read_bytes())
    (family / "soup.yaml").write_text(block("# soup.yaml"))
    (family / "bin").mkdir()
    warm.on_path(family / "bin/soup", "-m", "soupcli")
    (family / "bin/python").symlink_to(sys.executable)
    (family / "bin/srun").write_text('#!/bin/sh\nexec "$@"\n')
    (family / "bin/srun").chmod(0o755)
    return family


def shell(project: Path, script: str) -> subprocess.CompletedProcess[str]:
    """The script as a runner of CI runs it: stopped at the first command that fails."""
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, env=environment(PATH=path), cwd=project, check=False)


def steps() -> list[dict[str, Any]]:
    """The steps of the GitHub job; YAML's `on` is a key that says when."""
    job: dict[str, Any] = yaml.safe_load(block("actions/checkout"))["jobs"]["soup"]
    assert job["runs-on"]
    return list(job["steps"])


def test_the_job(project: Path) -> None:
    """The recipe is valid; each step of the job that runs `soup` does so, and gives what the next ones take."""
    assert [gate.set for gate in load_recipe(project / "soup.yaml").wanted] == ["rotated", "test"]
    commands = [step["run"] for step in steps() if str(step.get("run", "")).startswith("soup ")]
    assert len(commands) == 2
    ran = [shell(project, command) for command in commands]
    assert [one.returncode for one in ran] == [0, 0], ran
    lines = ran[0].stdout.splitlines()
    assert all(line.startswith("::notice ") for line in lines), lines
    assert sum("best" in line for line in lines) >= 2
    [suite] = junitparser.JUnitXml.fromfile(str(project / "junit.xml"))
    assert suite.tests > 0 and suite.failures == 0
    assert (project / "soup/soup.json").is_file()


def test_the_job_stops(project: Path) -> None:
    """A gate that is not met ends the step with 1, and the annotation points at its line of the recipe."""
    recipe = project / "soup.yaml"
    recipe.write_text(recipe.read_text().replace('">= 50%"', '">= 99%"'))
    line = next(n for n, text in enumerate(recipe.read_text().splitlines(), 1) if ">= 99%" in text)
    ran = shell(project, next(step["run"] for step in steps() if "github" in str(step.get("run"))))
    assert ran.returncode == 1
    assert f"::error file=soup.yaml,line={line}," in ran.stdout


def test_the_shell(project: Path) -> None:
    """The commands for other systems run, and their last one reads the report that the one before wrote."""
    ran = shell(project, block("ranking.txt"))
    assert ran.returncode == 0, ran.stderr
    gates = json.loads((project / "report.json").read_text())["gates"]
    assert ran.stdout.splitlines() == [gate["reason"] for gate in gates]
    assert len((project / "ranking.txt").read_text().splitlines()) == 5


def test_slurm(project: Path) -> None:
    """The batch script runs, with a step that is started here as Slurm would start it."""
    ran = shell(project, block("#SBATCH"))
    assert ran.returncode == 0, ran.stderr
    assert next(iter(junitparser.JUnitXml.fromfile(str(project / "junit.xml")))).failures == 0
