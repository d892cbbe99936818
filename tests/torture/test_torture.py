"""The short version of `make torture`: the same campaigns for seconds, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_process import environment
from tests.helpers.warm import Warm
from tests.torture.fuzz import Outcome, faults

SHORT = {
    "kills": ["--kills", "8"],
    "fuzz": ["--inputs", "140"],
    "strangers": ["--inputs", "150"],
    "hostile": ["--megabytes", "0.1"],
    "faults": ["--faults", "7"],
    "hammer": ["--rounds", "60"],
    "many": ["--ingredients", "300"],
    "large": ["--gigabytes", "0.1"],
}


@pytest.mark.long
@pytest.mark.parametrize("part", SHORT)
def test_promises_hold(part: str, warm: Warm) -> None:
    """Kills, hostile files, many processes, many and large ingredients: no promise is broken."""
    ran = warm.run("-m", "tests.torture", part, *SHORT[part], env=environment())
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    assert f"{part}: " in ran.stdout and "broken promises: 0\n" in ran.stdout
    assert len(ran.stdout.splitlines()) > 1


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(3, "", "internal error: x (y.py:1)\n", 0.1, 0), "exit code 3"),
        (Outcome(2, "x", "one line\n", 0.1, 0), "stdout is not empty"),
        (Outcome(2, "", "one\ntwo\n", 0.1, 0), "not one line and a hint"),
        (Outcome(2, "", "clear \x1b[2J\n", 0.1, 0), "a control character"),
        (Outcome(2, "", "x" * 5000 + "\n", 0.1, 0), "a line of 5000 letters"),
        (Outcome(2, "", "one line\n", 3.0, 0), "3.0 seconds"),
        (Outcome(2, "", "one line\n", 0.1, 200_000_000), "200 MB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_promises_are_seen(
    outcome: Outcome, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each promise about a hostile file can be broken, and what keeps all of them has no fault."""
    monkeypatch.chdir(tmp_path)
    assert fault in list(faults(outcome, silent=False))
    assert not list(faults(Outcome(2, "", "one line\n\nhint: do\n", 0.1, 0), silent=False))
    Path("canary").touch()
    assert list(faults(Outcome(0, "", "", 0.1, 0), silent=True)) == ["CODE WAS RUN"]
