"""One system call after the other fails while a command runs: it ends with an answer or one line, and loses nothing.

python -m tests.torture faults --seed 0 --faults 300

`faults.c` is built with the C compiler of the machine and loaded before libc (LD_PRELOAD); each try is a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from soupcli.cli.app import run
from tests.conftest import write_family

ERRORS = (errno.ENOSPC, errno.EIO, errno.EINTR, errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.EROFS, errno.ENOENT)
COMMON = ["--ckpts", "runs/0", "runs/1", "runs/2", "--val", "val"]
COMMANDS = {
    "uniform": ["uniform", *COMMON, "--force", "--json"],
    "greedy": ["greedy", *COMMON, "--force", "--json"],
    "learned": ["learned", *COMMON, "--force", "--json", "--set", "learned.steps=2"],
    "rank": ["rank", *COMMON, "--report", "rank.json", "--json"],
    "inspect": ["inspect", "--ckpts", "runs/0", "runs/1", "--json"],
    "verify": ["verify", "old", "--json"],
    "page": ["report", "old/soup.json", "--out", "old.html"],
}
LONGEST = 60  # seconds of a try; longer is a hang
Result = tuple[Counter[str], list[str]]


def campaign(folder: Path, *, faults: int, seed: int) -> Result:
    """Builds the library, and starts a process with it that makes the tries."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return Counter({"left out: no C compiler": 1}), []
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library.absolute()), "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-m", "tests.torture.faults", str(library.absolute()), str(faults), str(seed)]
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    try:
        counts, broken = json.loads(ran.stdout)
    except ValueError:
        return Counter(), [f"the process of the tries ended with {ran.returncode}: {ran.stderr[-500:]}"]
    return Counter(counts), broken


def tries(library: ctypes.CDLL, *, faults: int, seed: int) -> Result:
    """All tries, in the working folder."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    library.which.restype = ctypes.c_char_p
    rng = random.Random(seed)
    write_family(Path(), members=3)
    for name, words in COMMANDS.items():  # in this process, so that forks have imported everything
        old = ["--out", "old"] if name == "uniform" else []
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):  # noqa: PTH123
            assert run([*words, *old]) == 0, name
    calls = {}
    for name in COMMANDS:
        calls[name] = _calls(_restored(name), library)
        counts[f"{name}: calls"] = calls[name]
    before = _user_files()
    wanted = {name: _soup() for name in ("uniform", "greedy") if _forked(_restored(name), None, library)[0] == 0}
    for number in range(faults):
        name = list(COMMANDS)[number % len(COMMANDS)]
        at, error = rng.randint(1, max(1, calls[name])), rng.choice(ERRORS)
        code, said = _forked(_restored(name), (at, error, int(error != errno.EINTR and rng.random() < 0.3)), library)
        counts[f"{name}: exit {code}"] += 1
        what = f"{name}, call {at}, {errno.errorcode[error]}: {said[-400:]!r}"
        if code not in ((0, 1, 2) if name == "verify" and error == errno.ENOENT else (0, 2)):
            broken.append(f"exit {code}: {what}")
        if "Traceback" in said or "internal error" in said:
            broken.append(f"a traceback: {what}")
        if _user_files() != before:
            broken.append(f"files of the user's changed: {what}")
            return counts, broken
        if code == 0 and name in wanted and _soup() != wanted[name]:
            broken.append(f"another soup: {what}")
        if name in wanted and not Path("soup/model.safetensors").exists():
            broken.append(f"the old soup is lost: {what}")
    return counts, broken


def _restored(name: str) -> list[str]:
    """The folder as it was, without what an earlier try kept; the command's words."""
    shutil.rmtree("cache", ignore_errors=True)
    if not Path("soup/soup.json").exists():
        shutil.rmtree("soup", ignore_errors=True)
        shutil.copytree("old", "soup")
    return COMMANDS[name]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _user_files() -> dict[str, str]:
    folders = ("runs", "data", "old")
    files = [file for folder in folders for file in Path(folder).rglob("*") if file.is_file()]
    return {str(file): _digest(file) for file in [*sorted(files), Path("net.py"), Path("soup.yaml")]}


def _soup() -> str:
    file = Path("soup/model.safetensors")
    return _digest(file) if file.exists() else "none"


def _calls(words: list[str], library: ctypes.CDLL) -> int:
    """How many system calls of a whole run can fail."""
    _forked(words, (10**9, 0, 0), library)
    return int(Path("../calls").read_text())


def _forked(words: list[str], fault: tuple[int, int, int] | None, library: ctypes.CDLL) -> tuple[int, str]:
    """Runs `soup WORDS` in a fork: exit code, and all that it said."""
    said = Path("../said")
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            signal.alarm(LONGEST)
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            if fault is not None:
                library.arm(os.fsencode(Path.cwd()), ctypes.c_long(fault[0]), fault[1], fault[2])
            code = run(words)
            count = library.calls()
            library.disarm()
            Path("../calls").write_text(str(count))
            os._exit(code)
        library.disarm()
        with contextlib.suppress(BaseException):
            os.write(2, f"Traceback: {sys.exc_info()!r}".encode())
        os._exit(99)
    _, status = os.waitpid(child, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, said.read_bytes().decode(errors="replace")


def main() -> int:
    """Makes the tries in a folder below the working folder, and prints what came of them as JSON."""
    torch.set_num_threads(1)
    library = ctypes.CDLL(sys.argv[1])
    place = Path("work")
    place.mkdir()
    os.chdir(place)
    os.environ["SOUP_CACHE"] = str(Path("cache").absolute())
    began = time.monotonic()
    counts, broken = tries(library, faults=int(sys.argv[2]), seed=int(sys.argv[3]))
    counts["seconds"] = int(time.monotonic() - began)
    json.dump([counts, broken], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
