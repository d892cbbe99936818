"""`theirs: {command: "python eval.py --weights {checkpoint}", metric: accuracy}`: any program that prints JSON last."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.kind import SetKind
from soupcli.errors import ValidationError
from soupcli.evaluation.outside.prints import check_depends, print_of
from soupcli.evaluation.outside.program_files import files_of, programs_of, split, variables_of
from soupcli.evaluation.outside.user_function import score_of_result
from soupcli.user_code import notes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO

    from soupcli.evaluation.score import Score
    from soupcli.files.manifest import Manifest
    from soupcli.recipe.sets import CommandSet

LAST_LINES = 5  # of a command that failed, in the error
LARGEST = 1 << 26  # bytes of the line of JSON


class Candidate(NamedTuple):
    """The files of one evaluation's weights, and its device."""

    checkpoint: Path  # as an ingredient is given: a folder or a file
    weights: Path  # the file, or the index of several
    folder: Path
    device: str
    environment: Mapping[str, str]


def filled(words: list[str], candidate: Candidate) -> list[str]:
    """Return the words with the candidate filled into its places."""
    values = {
        "{checkpoint}": _as_argument(candidate.checkpoint),
        "{weights}": _as_argument(candidate.weights),
        "{folder}": _as_argument(candidate.folder),
        "{device}": candidate.device,
    }
    return [_replaced(word, values) for word in words]


def _as_argument(path: Path) -> str:
    return f"./{path}" if str(path).startswith("-") else str(path)  # a path is never an option


def _replaced(word: str, values: Mapping[str, str]) -> str:
    for place, value in values.items():
        word = value.join(word.split(place))
    return word


class Processes:
    """The commands that are running, so that all of them can be ended."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._ended = False
        self.unattended: set[str] = set()  # commands that ran, and no Python of them noted what it read

    def start(self, words: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a command in its own session. Raises OSError, and ValidationError after `end`."""
        with self._lock:
            if self._ended:
                raise ValidationError("commands are being ended")
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **notes.environment_of_command(), **environment},
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
            return process

    def done(self, process: subprocess.Popen[str], command: str) -> None:
        """Forget a process of a command, and end what it started."""
        with self._lock:
            self._running.discard(process)
            if not notes.attended(process.pid):
                self.unattended.add(command)
        _end(process)

    def end(self) -> None:
        """End all commands, and let no other start."""
        with self._lock:
            self._ended, running = True, list(self._running)
        for process in running:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def result(spec: CommandSet, candidate: Candidate, processes: Processes) -> Any:
    """Return the JSON of the last line that the command prints. A command that fails is tried `retries` times more.

    No shell is involved: the command is split into words as a shell would, then places are filled in each. Its stderr
    passes through, its stdin is empty. Raises ValidationError if it fails, takes too long or prints something else.
    """
    words = filled(split(spec.command), candidate)
    for again in range(spec.retries, -1, -1):
        try:
            return _parsed(words, _output(spec, words, candidate, processes))
        except ValidationError:
            if not again:
                raise
    raise AssertionError


def score(spec: CommandSet, name: str, found: Any, *, metric: str) -> Score:
    """Return the score of the set `name` from the command's output, or from its part if that is divided by sets."""
    own = found[name] if isinstance(found, dict) and isinstance(found.get(name), dict) else found
    source = f"command {split(spec.command)[0]!r}"
    return score_of_result(own, metric, source=source, higher_is_better=spec.higher_is_better)


def _output(spec: CommandSet, words: list[str], candidate: Candidate, processes: Processes) -> str:
    """Return the last line of the command's stdout."""
    try:
        process = processes.start(words, candidate.environment)
    except OSError as cause:
        raise ValidationError(f"command {words[0]!r}: {cause.strerror}", hint="is it on the PATH?") from cause
    assert process.stdout is not None and process.stderr is not None
    said: deque[str] = deque(maxlen=LAST_LINES)
    printed: deque[str] = deque(maxlen=1)
    readers = [
        threading.Thread(target=_read, args=(process.stderr, said, True), daemon=True),
        threading.Thread(target=_read, args=(process.stdout, printed, False), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        process.wait(spec.timeout)
    except subprocess.TimeoutExpired as cause:
        raise _failed(f"took more than {spec.timeout:g} s", words, said) from cause
    finally:
        processes.done(process, spec.command)  # what it has started may hold the pipes open
        for reader, stream in zip(readers, (process.stderr, process.stdout), strict=True):
            reader.join(10.0)
            if not reader.is_alive():
                stream.close()
    if process.returncode:
        code = process.returncode
        raise _failed(f"exited with {code}" if code > 0 else f"was ended by signal {-code}", words, said)
    return printed[0] if printed else ""


def _read(stream: IO[str], last: deque[str], passes_through: bool) -> None:
    """Keep the last lines of a stream that are not empty."""
    for line in stream:
        if passes_through:
            with contextlib.suppress(OSError):
                os.write(2, line.encode("utf-8", "replace"))
        if line.strip():
            last.append(line.rstrip("\n")[:LARGEST])


def _failed(how: str, words: list[str], said: deque[str]) -> ValidationError:
    why = f": {said[-1].strip()}" if said else ""
    lines = f"; its last lines: {' | '.join(line.strip() for line in said)}" if len(said) > 1 else ""
    return ValidationError(f"command {how}: {shlex.join(words)}{why}", hint=f"run it by hand to see why{lines}")


def _parsed(words: list[str], last: str) -> Any:
    try:
        return json.loads(last)
    except (ValueError, RecursionError) as cause:
        raise ValidationError(
            f"command {words[0]!r}: its last line is {last[:80]!r}, not a JSON object of metrics",
            hint='print {"accuracy": 0.5} as the last line, with the name of the metric',
        ) from cause


def identity(
    spec: CommandSet, name: str, manifest: Manifest, _tasks: object, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return what makes up the command and its program, or None, after a call of `warn`, if no file is known."""
    words = split(spec.command)
    files = files_of(words, Path.cwd())
    if not files and not spec.depends and spec.version is None:
        warn(
            f"val.{name}: nothing shows what {shlex.join(words[:3])} ... is made of, so its scores are not kept: "
            "name its files with depends: or give it a version: in the recipe (keep: false is silent)"
        )
        return None
    own: dict[str, Any] = {"command": spec.command, "set": name, "files": print_of(files, manifest)}
    own["variables"] = variables_of([spec.command], files)
    own["programs"] = programs_of(words)
    return {**own, "higher_is_better": spec.higher_is_better}


KIND: SetKind[CommandSet] = SetKind(
    identity=identity, check=check_depends
)  # measured by OutsideSets, which runs several at once
