"""SIGINT and SIGTERM end a command wherever it is: with their code, one line, and nothing left behind."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.test_process import GREEDY, SOUP, environment

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
# What the network does with its first batch.
DEAF = """while True:
            try:
                time.sleep(60)
            except BaseException:
                pass"""
BUSY = "torch.linalg.svd(torch.randn(6000, 6000))"
WAITING = "with concurrent.futures.ThreadPoolExecutor() as pool:\n            pool.submit(time.sleep, 600).result()"


def interrupted(words: list[str], ready: str, signalled: signal.Signals) -> tuple[int, list[str], float]:
    """Runs `soup WORDS`, sends the signal when `ready` exists: the exit code, stderr's lines, seconds to the end."""
    with subprocess.Popen([*SOUP, *words], stderr=subprocess.PIPE, text=True, env=environment()) as process:
        while not any(Path().glob(ready)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signalled)
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
        return process.wait(timeout=60), lines, time.monotonic() - began


def asleep(family: Path, forward: str) -> None:
    """Makes the family's network do that with its first batch, once the file `ready` is there."""
    slow = (
        "import concurrent.futures, pathlib, time\nimport torch\nfrom torch import nn\n\nclass Slow(nn.Sequential):\n"
    )
    slow += f"    def forward(self, x):\n        pathlib.Path('ready').touch()\n        {forward}\n\n"
    net = (family / "net.py").read_text()
    (family / "net.py").write_text(slow + net.replace("return nn.Sequential", "return Slow"))


@pytest.mark.parametrize("signalled", CODES)
@pytest.mark.parametrize("forward", [DEAF, BUSY, WAITING], ids=["deaf code", "a long call", "a waiting thread"])
def test_in_a_forward_pass(family: Path, signalled: signal.Signals, forward: str) -> None:
    """Neither code that catches everything nor a call into C nor a thread that is waited for keeps it alive."""
    asleep(family, forward)
    code, lines, _ = interrupted(GREEDY, "ready", signalled)
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


@pytest.mark.parametrize("signals", [1, 3])
def test_last_words_are_waited_for(family: Path, signals: int) -> None:
    """One line, once, where the process is to end while it is being said, and where a signal comes again."""
    asleep(family, "time.sleep(600)")
    command = [sys.executable, "-c", SLOW_OF_SPEECH, *GREEDY]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        while not Path("ready").exists():
            assert process.poll() is None
            time.sleep(0.02)
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted: what was evaluated is kept, the same command goes on from there\n"
        assert process.wait(timeout=60) == 130


@pytest.mark.parametrize("signalled", CODES)
def test_while_huge_files_are_mixed_and_hashed(
    tmp_path: Path, signalled: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that hash and mix many gigabytes are not waited for; the old soup stays, the half one goes."""
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.zeros(3)}, "a.safetensors")
    subprocess.run([*SOUP, "uniform", "--ckpts", "a.safetensors", "--quiet"], env=environment(), check=True)
    old = (tmp_path / "soup/soup.json").read_bytes()
    for number, name in enumerate("ab"):
        sparse(tmp_path / f"{name}.safetensors", gigabytes=2, first=number)
    command = ["uniform", "--ckpts", "a.safetensors", "b.safetensors", "--force", "--quiet"]
    code, lines, _ = interrupted(command, ".soup.*.tmp/model*.safetensors", signalled)
    assert code == CODES[signalled]
    assert lines == [f"{WORDS[signalled]}: what was evaluated is kept, the same command goes on from there"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "soup"]
    assert (tmp_path / "soup/soup.json").read_bytes() == old


def sparse(file: Path, *, gigabytes: int, first: int, tensors: int = 4) -> None:
    """A safetensors file of bfloat16 zeros, but for the `first` bits, that takes no room on the disk."""
    each = gigabytes * 10**9 // tensors // 2
    header = {
        f"layer.{number}": {
            "dtype": "BF16",
            "shape": [each],
            "data_offsets": [2 * each * number, 2 * each * (number + 1)],
        }
        for number in range(tensors)
    }
    text = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + struct.pack("<H", first))
        out.truncate(8 + len(text) + 2 * each * tensors)


def test_ignored_signals_stay_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose parent ignores SIGTERM, as under some supervisors, goes on."""
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.zeros(3)}, "a.safetensors")
    script = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
    run = kill + "import sys; sys.argv = ['soup', 'uniform', '--ckpts', 'a.safetensors']\n"
    run += "from soupcli.cli import app, signals\nwith signals.handle_signals():\n    " + kill + "app.main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, sys.executable, "-c", run], capture_output=True, env=environment(), check=False
    )
    assert ran.returncode == 0, ran.stderr
