"""The files behind a command are found by reading: its script, what that imports, and what it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from soupcli.evaluation.outside.program_files import files_of, variables_of

SCRIPT = """
import json, sys
import helper
from tools import metrics
from tools.deep import words
ROWS = open("data/rows.csv").read()
open("log.txt", "a").write("ran")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A script with helpers, a package, data and a log."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "data/more").mkdir(parents=True)
    files = {
        "eval.py": SCRIPT,
        "helper.py": "import second",
        "second.py": "NAME = 'data/words.txt'",
        "tools/__init__.py": "",
        "tools/metrics.py": "from . import deep",
        "tools/deep.py": "words = 1",
        "data/rows.csv": "a",
        "data/words.txt": "b",
        "data/more/x.txt": "c",
        "log.txt": "",
        "run.sh": "#!/bin/sh\npython eval.py $1 > out.json\n",
        "out.json": "{}",
        "other.py": "",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


BEHIND = ["data/rows.csv", "data/words.txt", "eval.py", "helper.py", "second.py"]
PACKAGE = ["tools/__init__.py", "tools/deep.py", "tools/metrics.py"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["python", "eval.py", "{checkpoint}"], [*BEHIND, *PACKAGE]),
        (["python", "-m", "tools.metrics", "{checkpoint}"], PACKAGE),
        (["sh", "run.sh", "{checkpoint}"], [*BEHIND, "run.sh", *PACKAGE]),
        (["installed", "--data=data/rows.csv", "{checkpoint}"], ["data/rows.csv"]),
        (["installed", "--data", "data/more", "{checkpoint}"], ["data/more/x.txt"]),
        (["installed", "{checkpoint}", ".", ""], []),
        (["./run.sh", "{folder}"], []),
    ],
)
def test_files(project: Path, words: list[str], wanted: list[str]) -> None:
    """Logs that the program writes are none of them, nor is anything that nobody names."""
    assert [str(file.relative_to(project)) for file in files_of(words, project)] == sorted(wanted)


def test_odd_scripts(project: Path) -> None:
    """A script that is no Python, no text or endless in its imports stands for itself."""
    (project / "eval.py").write_bytes(b"\xff\x00 not python (((")
    assert files_of(["python", "eval.py"], project) == [project / "eval.py"]
    (project / "a.py").write_text("import b")
    (project / "b.py").write_text("import a, no_such_module")
    assert [file.name for file in files_of(["python", "a.py"], project)] == ["a.py", "b.py"]


def test_variables(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are set, if the command or a script names them; where it runs says nothing of its scores."""
    (project / "run.sh").write_text("echo ${split:-a} $OTHER\n")
    (project / "eval.py").write_text("import os\nos.environ.get('EVAL_SPLIT')\n")
    for name in ("split", "EVAL_SPLIT", "EVAL_NOWHERE", "IN_COMMAND", "SSH_TTY"):
        monkeypatch.setenv(name, "x")
    found = variables_of(["sh", "run.sh", "$IN_COMMAND $SSH_TTY"], [project / "run.sh", project / "eval.py"])
    assert found == {"split": "x", "EVAL_SPLIT": "x", "IN_COMMAND": "x"}
