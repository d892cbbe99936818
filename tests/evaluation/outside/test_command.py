"""Commands as sets: words without a shell, JSON on the last line, and errors that repeat the command."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

import pytest

from soupcli.errors import ValidationError
from soupcli.evaluation.outside import command as command_task
from soupcli.evaluation.outside.command import Candidate, Processes
from soupcli.evaluation.score import Score
from soupcli.recipe.sets import CommandSet

PYTHON = shlex.quote(sys.executable)
CHECKPOINT = Path("runs/a b's $HOME;x")
CANDIDATE = Candidate(CHECKPOINT, CHECKPOINT / "model", CHECKPOINT, "cpu", {})


def scored(spec: CommandSet, metric: str = "accuracy") -> Score:
    """The score that the command prints for the candidate."""
    found = command_task.result(spec, CANDIDATE, Processes())
    return command_task.score(spec, "val", found, metric=metric)


def ran(folder: Path, program: str, *, words: str = "{checkpoint}", metric: str = "accuracy") -> Score:
    """What the program says when it is run as a command."""
    (folder / "eval.py").write_text(program)
    spec = CommandSet(command=f"{PYTHON} {shlex.quote(str(folder / 'eval.py'))} {words}")
    return scored(spec, metric)


def test_words_are_not_a_shells(tmp_path: Path) -> None:
    """The path is one word wherever it stands, spaces, quotation marks, variables and semicolons included."""
    program = (
        "import json, sys\nprint(json.dumps({'accuracy': 1, 'n': 3}))\nprint(sys.argv[1:], file=open('seen', 'w'))"
    )
    words = "{checkpoint} --weights={checkpoint}/model 'two words' \"{checkpoint} {checkpoint}\" $HOME *"
    found = ran(tmp_path, program.replace("'seen'", repr(str(tmp_path / "seen"))), words=words)
    assert (found.value, found.examples) == (1.0, 3)
    path = str(CHECKPOINT)
    wanted = [path, f"--weights={path}/model", "two words", f"{path} {path}", "$HOME", "*"]
    assert (tmp_path / "seen").read_text() == f"{wanted}\n"


def test_last_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is printed before, empty lines after, and bytes that are no text do not matter; stderr passes through."""
    program = (
        "import sys\nsys.stdout.buffer.write(b'\\xff progress 50%\\n{\"accuracy\": 0.1}\\n')\n"
        "print('{\"accuracy\": 0.75}\\n\\n')\nprint('a warning', file=sys.stderr)"
    )
    assert ran(tmp_path, program).value == 0.75
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "a warning\n")


def test_stdin_is_empty(tmp_path: Path) -> None:
    """A command that reads its input finds the end of it, and does not take ours."""
    assert ran(tmp_path, "import sys\nprint({'accuracy': len(sys.stdin.read())} and '{\"accuracy\": 0}')").value == 0


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_not_a_number_loses(value: str, tmp_path: Path) -> None:
    """null and NaN are scores, worse than all others."""
    found = ran(tmp_path, f"print('{{\"accuracy\": {value}}}')")
    assert math.isnan(found.value)
    assert found.goodness == -math.inf


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit(3)", r"command exited with 3: .*eval\.py 'runs/a b'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "command was ended by signal 15: "),
        ("print('accuracy 0.5')", r"command .*: its last line is 'accuracy 0\.5', not a JSON object of metrics"),
        ("pass", "its last line is '', not a JSON object"),
        ("print('[' * 100000)", r"its last line is '\[+', not a JSON object"),
        ("print('[0.5]')", r"command .*: returned a list, not a dict"),
        ("print('{\"loss\": 0.5}')", "returned no 'accuracy'"),
        ('print(\'{"accuracy": "high"}\')', "'accuracy' is 'high', not a number"),
    ],
)
def test_errors(program: str, message: str, tmp_path: Path) -> None:
    """A command that fails, or says nothing that is a score, is an error that names it and what it did."""
    with pytest.raises(ValidationError, match=message):
        ran(tmp_path, program)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program-anywhere {checkpoint}", "command 'no-such-program-anywhere': No such file or directory"),
        ("python eval.py", r"has no \{checkpoint\}, so every ingredient would score the same"),
        ("", r"has no \{checkpoint\}"),
        ("python 'eval.py {checkpoint}", "No closing quotation"),
    ],
)
def test_commands_that_cannot_be_run(command: str, message: str) -> None:
    """A program that is not there, and a command that cannot tell one checkpoint from another, are errors."""
    with pytest.raises(ValidationError, match=message):
        scored(CommandSet(command=command))
