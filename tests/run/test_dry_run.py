"""`--dry-run` refuses what the run would refuse before it evaluates anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

Soup = Callable[..., Ran]
SETS = {
    "{arrays: gone.safetensors}": "gone.safetensors: no such file",
    "{text: gone.csv, input: [a], label: b}": "gone.csv: no such file",
    "{tokens: gone.txt}": "gone.txt: no such file",
    "{images: gone}": "gone: no such folder",
    '{python: "gone.py:evaluate"}': "gone.py: No such file or directory, the recipe names gone.py:evaluate",
    '{command: "python {checkpoint}", metric: accuracy, depends: [gone]}': "val.x.depends: gone: no such file",
    "{lm_eval: [mine], include_path: gone}": "gone: no such folder",
    "{lm_eval: [mine], include_path: tasks}": "tasks/mine.yaml:1: doc_to_text: !function utils.f: Python that it names",
}


@pytest.mark.parametrize("spec", SETS)
def test_sets_that_a_run_refuses(family: Path, soup: Soup, spec: str) -> None:
    """Files that are missing and code that nobody has trusted are named by the plan as by the run."""
    if "lm_eval" in spec:
        pytest.importorskip("lm_eval")
    (family / "tasks").mkdir()
    (family / "tasks/mine.yaml").write_text("doc_to_text: !function utils.f\n")
    (family / "soup.yaml").write_text(f'model: {{python: "net.py:build"}}\nval: {{x: {spec}}}\n')
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "x", "--dry-run")
    assert (ran.code, ran.stdout) == (2, "")
    assert SETS[spec] in ran.stderr.splitlines()[0]


def test_a_network_that_a_run_refuses(family: Path, soup: Soup) -> None:
    """So is the file of a network that is not there; a healthy recipe has its plan."""
    words = ("rank", "--ckpts", "runs/*/", "--val", "val", "--dry-run")
    assert soup(*words).code == 0
    (family / "net.py").unlink()
    assert soup(*words).stderr.startswith("net.py: No such file or directory")
