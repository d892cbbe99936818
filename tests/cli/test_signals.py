"""SIGINT, SIGTERM and SIGHUP end a command wherever it is: with their code, one line, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.cli.app import run
from tests.cli.test_process import GREEDY, environment
from tests.helpers.warm import Warm
from tests.torture.large import sparse

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "terminated"}
# What the network does with its first batch.
DEAF = """while True:
            try:
                time.sleep(60)
            except BaseException:
                pass"""
BUSY = "torch.linalg.svd(torch.randn(6000, 6000))"
WAITING = "with concurrent.futures.ThreadPoolExecutor() as pool:\n            pool.submit(time.sleep, 600).result()"


def interrupted(
    warm: Warm, words: list[str], ready: str, signalled: signal.Signals, times: int = 1
) -> tuple[int, list[str]]:
    """Runs `python WORDS`, sends the signal when `ready` exists: the exit code, stderr's lines."""
    read, write = os.pipe()
    process = warm.start(*words, env=environment(), stderr=write)
    os.close(write)
    with os.fdopen(read) as stderr:
        while not any(Path().glob(ready)):
            assert process.poll() is None, stderr.read()
            time.sleep(0.02)
        for _ in range(times):
            process.send_signal(signalled)
            time.sleep(0.02)
        lines = stderr.read().splitlines()
        return process.wait(timeout=60), lines


def asleep(family: Path, forward: str) -> None:
    """Makes the family's network do that with its first batch, once the file `ready` is there."""
    slow = (
        "import concurrent.futures, pathlib, time\nimport torch\nfrom torch import nn\n\nclass Slow(nn.Sequential):\n"
    )
    slow += f"    def forward(self, x):\n        pathlib.Path('ready').touch()\n        {forward}\n\n"
    net = (family / "net.py").read_text()
    (family / "net.py").write_text(slow + net.replace("return nn.Sequential", "return Slow"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("forward", "signalled"),
    [*itertools.product((DEAF, BUSY, WAITING), (signal.SIGINT, signal.SIGTERM)), (DEAF, signal.SIGHUP)],
)
def test_in_a_forward_pass(family: Path, warm: Warm, signalled: signal.Signals, forward: str) -> None:
    """Neither code that catches everything nor a call into C nor a thread that is waited for keeps it alive."""
    asleep(family, forward)
    code, lines = interrupted(warm, ["-m", "soupcli", *GREEDY], "ready", signalled)
    assert code == CODES[signalled]
    assert lines == [f"{WORDS[signalled]}: what was evaluated is kept, the same command goes on from there"]
    assert not [entry.name for entry in family.iterdir() if entry.name.startswith(".")]


SLOW_OF_SPEECH = """import time
from soupcli.cli import app, signals
from soupcli.output import console

signals.PATIENCE, signals.LAST_WORDS = 0.1, 60
say = console.fail

def slowly(*words):
    time.sleep(0.5)
    say(*words)

console.fail = slowly
app.main()
"""


@pytest.mark.parametrize("times", [1, 3])
def test_last_words_are_waited_for(family: Path, warm: Warm, times: int) -> None:
    """One line, once, where the process is to end while it is being said, and where a signal comes again."""
    asleep(family, "time.sleep(600)")
    code, lines = interrupted(warm, ["-c", SLOW_OF_SPEECH, *GREEDY], "ready", signal.SIGINT, times)
    assert lines == ["interrupted: what was evaluated is kept, the same command goes on from there"]
    assert code == 130


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_while_huge_files_are_mixed_and_hashed(
    tmp_path: Path, warm: Warm, signalled: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that hash and mix many gigabytes are not waited for; the old soup stays, the half one goes."""
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.zeros(3)}, "a.safetensors")
    assert run(["uniform", "--ckpts", "a.safetensors", "--quiet"]) == 0
    old = (tmp_path / "soup/soup.json").read_bytes()
    for number, name in enumerate("ab"):
        sparse(tmp_path / f"{name}.safetensors", gigabytes=2, first=number)
    command = ["-m", "soupcli", "uniform", "--ckpts", "a.safetensors", "b.safetensors", "--force", "--quiet"]
    code, lines = interrupted(warm, command, ".soup.*.tmp/model*.safetensors", signalled)
    assert code == CODES[signalled]
    assert lines == [f"{WORDS[signalled]}: what was evaluated is kept, the same command goes on from there"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "soup"]
    assert (tmp_path / "soup/soup.json").read_bytes() == old


def test_ignored_signals_stay_ignored() -> None:
    """A command whose parent ignores SIGTERM, as under some supervisors, goes on."""
    script = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
    program = kill + "import sys; sys.argv = ['soup', 'schema', 'recipe']\n"
    program += "from soupcli.cli import app, signals\nwith signals.handle_signals():\n    " + kill + "app.main()"
    words = [sys.executable, "-c", script, sys.executable, "-c", program]
    ran = subprocess.run(words, capture_output=True, env=environment(), check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(b"{")


READING = """
import os, signal, sys, typer.core
def signalled(*_): os.kill(os.getpid(), int(sys.argv.pop()))
typer.core.TyperCommand.parse_args = typer.core.TyperGroup.parse_args = signalled
from soupcli.cli.app import main
main()
"""


@pytest.mark.parametrize("signalled", CODES)
def test_a_signal_while_words_are_read(signalled: signal.Signals) -> None:
    """Typer, which reads the words, answers any signal with 130 and no word; the command does not."""
    command = [sys.executable, "-c", READING, "uniform", "--ckpts", "a", str(int(signalled))]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (CODES[signalled], "")
    assert ran.stderr.startswith(f"{WORDS[signalled]}: ")
