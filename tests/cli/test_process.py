"""`soup` as a process: pipes that close, streams that are no terminals or are, Ctrl-C, the two ways to start it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.cli import app
from tests.conftest import Ran
from tests.helpers.warm import Warm

Soup = Callable[..., Ran]
ROOT = Path(__file__).parents[2]
SOUP = [sys.executable, "-m", "soupcli"]
RANK = ["rank", "--ckpts", "runs/*/", "--val", "val"]
GREEDY = ["greedy", "--ckpts", "runs/*/", "--val", "val", "--json", "--no-early-stop"]
LINE = re.compile(r"ranking [1-5]/5: runs/[0-4]: accuracy \d{1,3}\.\d\d%")


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with this package, and without what forces or forbids colours."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return kept | {"PYTHONPATH": str(ROOT)} | variables


@pytest.fixture
def ranked(family: Path, soup: Soup) -> Path:
    """The family with its scores kept, so that a process answers without torch."""
    assert soup(*RANK).code == 0
    return family


def test_head(family: Path) -> None:
    """`soup rank ... | head -1` gives the first line, ends with 0, and stderr has one plain line an evaluation."""
    script = f"set -o pipefail; {sys.executable} -m soupcli rank --ckpts runs/*/ --val val | head -1"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert (ran.returncode, ran.stdout.split()) == (0, ["checkpoint", "val", "accuracy", "↑"])
    lines = ran.stderr.splitlines()
    assert len(lines) == 5
    assert all(LINE.fullmatch(line) for line in lines), ran.stderr


@pytest.mark.parametrize("words", [RANK, ["--help"], ["schema", "recipe"]], ids=lambda words: words[0])
def test_nobody_reads(ranked: Path, words: list[str]) -> None:
    """A pipe that is closed before anything is written to it ends the command quietly, with 0."""
    process = subprocess.Popen(
        [*SOUP, *words, "--quiet"] if words is RANK else [*SOUP, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_stdout_is_the_result_alone(tmp_path: Path) -> None:
    """What native code and processes that a user's function starts write to stdout goes to stderr."""
    for number in range(2):
        (tmp_path / f"runs/{number}").mkdir(parents=True)
        save_file({"weight": torch.eye(2) + number, "bias": torch.zeros(2)}, tmp_path / f"runs/{number}/m.safetensors")
    (tmp_path / "net.py").write_text(
        "import os, subprocess\nfrom torch import nn\n\ndef build():\n    return nn.Linear(2, 2)\n\n"
        "def measured(model, device):\n    os.write(1, b'native\\n')\n    subprocess.run(['echo', 'process'])\n"
        "    return {'accuracy': 0.5}\n"
    )
    (tmp_path / "soup.yaml").write_text("model: {python: net.py:build}\nval: {val: {python: net.py:measured}}\n")
    words = [*SOUP, "rank", "--ckpts", "runs/*/", "--val", "val", "--json"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["ingredients"]) == 2
    assert ran.stderr.count("native") == ran.stderr.count("process") == 2


GATED = ["eval", "--ckpts", "soup", "--val", "val", "--set", "gates.val=>= 100%"]


def with_streams(command: str, *, soup: str = f"{sys.executable} -m soupcli") -> tuple[int, str]:
    """The exit code of `soup` in a shell line, and what reached stderr."""
    script = command.replace("SOUP", soup)
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert "Traceback" not in ran.stderr and "internal error" not in ran.stderr
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    "streams",
    [
        "| true; exit ${PIPESTATUS[0]}",
        ">&-",
        "2>&-",
        ">&- 2>&- <&-",
        "2>/dev/full",
        "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}",
    ],
)
def test_the_exit_code_is_the_answer(family: Path, soup: Soup, streams: str) -> None:
    """A gate that is not met ends with 1, whoever reads the result or the errors."""
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    assert soup(*GATED).code == 1  # its scores are kept, and the process needs no torch
    assert with_streams(f"SOUP {' '.join(map(shlex.quote, GATED))} {streams}")[0] == 1


def test_answers_that_nobody_reads(family: Path, soup: Soup, warm: Warm) -> None:
    """`verify` of a changed soup and `inspect --strict` of two equal checkpoints end with 1 into a closed pipe."""
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    with Path("soup/model.safetensors").open("ab") as file:
        file.write(b"x")
    warm.on_path(family / "warm-soup", "-m", "soupcli")
    assert with_streams("SOUP verify soup | true; exit ${PIPESTATUS[0]}", soup="./warm-soup")[0] == 1
    shutil.copytree("runs/0", "runs/9")
    strict = "SOUP inspect --ckpts runs/*/ --strict | true; exit ${PIPESTATUS[0]}"
    assert with_streams(strict, soup="./warm-soup")[0] == 1


@pytest.mark.parametrize("words", ["rank --ckpts runs/*/ --val val", "schema report", "--help"])
def test_full_device(ranked: Path, words: str) -> None:
    """A result that the device of stdout does not take is an error of one line."""
    code, stderr = with_streams(f"SOUP {words} >/dev/full")
    assert code == 2 and "No space left on device" in stderr


def test_no_home(family: Path) -> None:
    """A user without HOME and without an entry in the system's table is told which variable gives a cache."""
    Path("sitecustomize.py").write_text("import pwd\ndef none(*_): raise KeyError\npwd.getpwuid = none\n")
    variables = environment(PYTHONPATH=f"{family}:{ROOT}")
    for name in ("HOME", "SOUP_CACHE", "XDG_CACHE_HOME"):
        variables.pop(name, None)
    ran = subprocess.run([*SOUP, *RANK], capture_output=True, text=True, env=variables, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("no home folder for the cache: HOME is not set\n\nhint: SOUP_CACHE=")


def test_root_as_out(family: Path, soup: Soup) -> None:
    """The root of the file system is no soup folder."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--out", "/", "--force")
    assert ran.code == 2 and ran.stderr.startswith("/: is the root of the file system")


@pytest.mark.long
def test_ctrl_c(family: Path, soup: Soup) -> None:
    """Ctrl-C during greedy ends with 130 and one line; the same command then evaluates only what was not finished."""
    slow = "from torch import nn\nimport time\n\nclass Slow(nn.Sequential):\n    def forward(self, x):\n"
    slow += "        time.sleep(0.02)\n        return super().forward(x)\n\n"
    net = (family / "net.py").read_text()
    (family / "net.py").write_text(slow + net.replace("return nn.Sequential", "return Slow"))
    process = subprocess.Popen(
        [*SOUP, *GREEDY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None and process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip())
        if line.startswith("greedy 2/5"):
            process.send_signal(signal.SIGINT)
    assert process.stdout.read() == ""
    process.stdout.close()
    process.stderr.close()
    assert process.wait() == 130, lines
    assert lines.pop() == "interrupted: what was evaluated is kept, the same command goes on from there"
    assert all(line.startswith(("ranking ", "greedy ")) for line in lines)
    assert sorted(entry.name for entry in family.iterdir() if entry.name != "__pycache__") == [
        *("data", "net.py", "runs", "soup.yaml")
    ]
    again = soup(*GREEDY)
    assert again.code == 0
    finished = len([line for line in lines if not line.endswith(": start")])
    assert 6 <= finished < 9
    assert json.loads(again.stdout)["cost"]["examples"] == (9 - finished) * 200


def test_on_a_terminal(family: Path, warm: Warm) -> None:
    """On a terminal stderr has bars that are taken away again, no line stays, and the cursor is given back."""
    ours, theirs = pty.openpty()
    with Path("stdout").open("wb") as out:
        process = warm.start("-m", "soupcli", *RANK, env=environment(), stdout=out.fileno(), stderr=theirs)
    os.close(theirs)
    seen = b""
    while chunk := read_terminal(ours):
        seen += chunk
    os.close(ours)
    assert process.wait() == 0
    stdout = Path("stdout").read_text()
    assert stdout.startswith("checkpoint") and "\x1b" not in stdout
    assert b"ranking" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert b"accuracy 0." not in seen[seen.rindex(b"\x1b[?25h") :]


def read_terminal(descriptor: int) -> bytes:
    """What came next, nothing when the other side is closed."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux reports the closed side as an error
        return b""


def test_help_is_light() -> None:
    """`soup --help` imports neither torch nor anything else that is heavy, and stays plain where CI forces colours."""
    script = (
        "import sys; from soupcli.cli.app import run; code = run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'rich', 'yaml', 'safetensors', 'transformers', 'timm'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(GITHUB_ACTIONS="true"),
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Usage: soup ") and "\x1b" not in ran.stdout


def test_two_ways_to_start() -> None:
    """`python -m soupcli` is `soup`."""
    script = Path(sys.executable).with_name("soup")
    ran = [
        subprocess.run([*start, "rank", "-h"], capture_output=True, text=True, env=environment(), check=False)
        for start in (SOUP, [str(script)])
    ]
    assert ran[0].returncode == ran[1].returncode == 0
    assert ran[0].stdout == ran[1].stdout
    assert ran[0].stdout.startswith("Usage: soup rank ")


def test_forced_colours(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR draws into a pipe what a terminal would get; NO_COLOR takes the colours away again."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "─" in soup(*RANK).stdout
    assert "\x1b[1;31m" in soup("rank").stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in soup("rank").stderr


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", b"77.50% ? 2.95"), ("utf-8", "77.50% ± 2.95".encode())])
def test_stdout_that_knows_few_letters(
    family: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, expected: bytes
) -> None:
    """A stream that cannot hold a letter gets another one; a path of other bytes passes through UTF-8 as it is."""
    Path("runs/0").rename(os.fsdecode(b"runs/\xff"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    monkeypatch.setattr(sys, "argv", ["soup", "rank", "--ckpts", "runs/*/", "--val", "val"])
    monkeypatch.setattr(app, "_leave_at_once", sys.exit)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert expected in written.getvalue()
    assert (b"runs/\xff " in written.getvalue()) == (encoding == "utf-8")


def test_end_with_torch(tmp_path: Path) -> None:
    """A process that has imported torch still waits for its threads, calls what is to be called last, and flushes."""
    code = (
        "import atexit, sys, threading, time, types\n"
        "from soupcli.cli import app\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "atexit.register(print, 'called last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('waited for'))).start()\n"
        "sys.argv = ['soup', 'schema', 'nothing']\n"
        "app.main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout == "waited for\ncalled last\n"


def test_windows(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """On Windows every command ends with what runs it there."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert app.run(["rank", "--ckpts", "runs"]) == 2
    assert "soup: runs on Linux and macOS, not on Windows" in (said := capfd.readouterr().err) and "WSL" in said
