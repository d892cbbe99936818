"""Processes that begin with torch imported: forks of one Python, which stand for `python WORDS...` in seconds less.

    with Warm() as warm:
        ran = warm.run("-m", "soupcli", "rank", "--ckpts", "runs", env=environment())
        child = warm.start("-m", "soupcli", "greedy", stderr=write_end)      # has a pid, takes signals, is waited for
        warm.on_path(folder / "soup", "-m", "soupcli")                       # an executable for scripts

Each has its own words, folder, environment and streams, and ends as an interpreter does. What it cannot show: what
Python does before it runs the program (streams that are closed, signals that are ignored), and what is not imported.
Words are `-m MODULE ...` or `-c CODE ...`.

python -m tests.helpers.warm SOCKET serves; python tests/helpers/warm.py SOCKET WORDS... asks for one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

NUMBER = struct.Struct("i")  # a process's number, then its status
ROOT = Path(__file__).parents[2]


class Child:
    """A process that was asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = self._told()
        self.returncode: int | None = None

    def _told(self) -> int:
        return int(NUMBER.unpack(self._connection.recv(NUMBER.size, socket.MSG_WAITALL))[0])

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, None while the process runs."""
        if self.returncode is None:
            self._connection.settimeout(0.0)
            with contextlib.suppress(BlockingIOError):
                return self._ended()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; minus the signal's number, if one ended the process."""
        self._connection.settimeout(timeout)
        return self._ended() if self.returncode is None else self.returncode

    def _ended(self) -> int:
        self.returncode = self._told()
        self._connection.close()
        return self.returncode


def ask(place: str, words: list[str], environment: Mapping[str, str], streams: list[int]) -> Child:
    """Starts `python WORDS...` in the working folder, with these descriptors as stdin, stdout and stderr."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place)
    request = json.dumps([words, os.getcwd(), dict(environment)]).encode()  # noqa: PTH109
    socket.send_fds(connection, [NUMBER.pack(len(request))], streams)
    connection.sendall(request)
    return Child(connection)


class Warm:
    """A Python that has imported torch and soupcli, while the block runs."""

    def __enter__(self) -> Warm:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-", dir="/tmp")  # a socket's path is short
        self.place = str(Path(self._folder.name, "socket"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SOUP_")}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.warm", self.place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()
        self._folder.cleanup()

    def start(
        self, *words: str, env: Mapping[str, str] | None = None, stdout: int | None = None, stderr: int | None = None
    ) -> Child:
        """`python WORDS...`, without input, with descriptors for its output; what is not given goes nowhere."""
        with open(os.devnull, "r+b") as null:  # noqa: PTH123
            other = null.fileno()
            streams = [other, other if stdout is None else stdout, other if stderr is None else stderr]
            return ask(self.place, list(words), os.environ if env is None else env, streams)

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """`python WORDS...` to its end."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self.start(*words, env=env, stdout=out.fileno(), stderr=err.fileno()).wait(timeout)
            return subprocess.CompletedProcess(list(words), code, _text(out), _text(err))

    def world(self, count: int, *words: str) -> tuple[list[int], str, str]:
        """`torchrun --nproc-per-node COUNT WORDS...` without torchrun: all exit codes, what they said together."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SOUP_PROCESS_TIMEOUT": "60"}
        world |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = []
            for rank in map(str, range(count)):
                variables = {**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank}
                started.append(self.start(*words, env=variables, stdout=out.fileno(), stderr=err.fileno()))
            return [child.wait(240) for child in started], _text(out), _text(err)

    def on_path(self, file: Path, *words: str) -> None:
        """Makes `file` an executable that is `python WORDS...` with the words that it is given after them."""
        command = subprocess.list2cmdline([sys.executable, "-IS", __file__, self.place, *words])
        file.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        file.chmod(0o755)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="surrogateescape")


def _main() -> None:
    """Asks for a process and ends as it ended."""
    code = ask(sys.argv[1], sys.argv[2:], os.environ, [0, 1, 2]).wait()
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _serve(place: str) -> list[str]:
    """Forks for each request, until stdin is closed. Returns in the forks that are to run, with their words."""
    import gc  # noqa: PLC0415 - those who ask do not need it
    import select  # noqa: PLC0415

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen(16)
    gc.freeze()  # forks that end need not look through what is imported
    os.write(1, b"ready\n")
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return _supervised(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    sys.exit(0)


def _supervised(connection: socket.socket) -> list[str]:
    """Reads the request and forks once more: returns the words in that fork, tells its number and its end in this."""
    size, streams, _, _ = socket.recv_fds(connection, NUMBER.size, 3)
    words, folder, environment = json.loads(connection.recv(NUMBER.unpack(size)[0], socket.MSG_WAITALL))
    child = os.fork()
    if child:
        for stream in (0, 1, 2, *streams):
            os.close(stream)
        connection.sendall(NUMBER.pack(child))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(NUMBER.pack(status))
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    return list(words)


def _import_what_commands_need() -> None:
    import importlib  # noqa: PLC0415

    for name in ("torch.distributed", "safetensors.torch", "tests.helpers", "soupcli.cli.app"):
        importlib.import_module(name)
    for file in sorted((ROOT / "soupcli").rglob("*.py")):
        part = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if not part.startswith(("soupcli.demo", "soupcli.networks.libraries", "soupcli.__main__")):
            importlib.import_module(part.removesuffix(".__init__"))
    from soupcli.user_code import packages as user_packages  # noqa: PLC0415

    user_packages._distributions(None)  # reads the metadata of all that is installed


def _run(words: list[str]) -> None:
    """What `python WORDS...` does."""
    import runpy  # noqa: PLC0415

    kind, program, *rest = words
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(program, "<string>", "exec"), names)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _main()
    _import_what_commands_need()
    _run(_serve(sys.argv[1]))
