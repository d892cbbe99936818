"""What benchmarks share: works that take turns, files out of the page cache, plain reading and writing, mergekit."""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import subprocess
import threading
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MERGEKIT = "mergekit==0.1.5"
CHUNK = 4 << 20  # bytes that the plain copy reads at once


def nothing() -> None:
    pass


class Taken(NamedTuple):
    """Medians over rounds. Other programs on the machine disturb processor time less."""

    wall: float  # seconds
    processor: float  # seconds of this process and of those that it started


def in_turns(rounds: int, *works: Callable[[], object], before: Callable[[], None] = nothing) -> list[float]:
    """The median seconds of each work, as `taken_in_turns`."""
    return [taken.wall for taken in taken_in_turns(rounds, *works, before=before)]


def taken_in_turns(rounds: int, *works: Callable[[], object], before: Callable[[], None] = nothing) -> list[Taken]:
    """What each takes, one after the other in every round; the first round warms up.

    `before` is called ahead of each, and its time not counted.
    """
    taken: list[list[Taken]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, times in zip(works, taken, strict=True):
            before()
            began = Taken(time.perf_counter(), processor_seconds())
            work()
            if number:
                times.append(Taken(time.perf_counter() - began.wall, processor_seconds() - began.processor))
    return [Taken(*map(statistics.median, zip(*times, strict=True))) for times in taken]


def processor_seconds() -> float:
    """What this process and the ended ones that it started have used."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def compiled(folder: Path) -> dict[str, str]:
    """Variables with which Python keeps what it compiles in `folder`: an installed program's files are compiled."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}


def caches(files: Sequence[Path]) -> Iterator[tuple[str, Callable[[], None]]]:
    """A label and what comes before each run: files stay in memory, or are dropped from it."""
    yield "", nothing
    yield " from disk", lambda: drop_from_cache(files)


def drop_from_cache(files: Sequence[Path]) -> None:
    """Asks the system to forget what it holds of the files in memory."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)  # what is not on disk yet stays in memory
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def copy_bytes(files: Sequence[Path], target: Path) -> None:
    """Reads all files and writes as many bytes as one of them holds, with two threads; flushed to disk."""
    size = files[0].stat().st_size
    chunks: SimpleQueue[tuple[Path, int]] = SimpleQueue()
    for offset in range(0, size, CHUNK):
        for file in files:
            chunks.put((file, offset))
    output = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.ftruncate(output, size)

    def work() -> None:
        buffer = memoryview(bytearray(CHUNK))
        opened = {file: os.open(file, os.O_RDONLY) for file in files}
        for file, offset in drained(chunks):
            got = os.preadv(opened[file], [buffer], offset)
            if file == files[0]:
                os.pwrite(output, buffer[:got], offset)
        for descriptor in opened.values():
            os.close(descriptor)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fsync(output)
    os.close(output)
    target.unlink()


def hash_bytes(files: Sequence[Path]) -> None:
    """Reads all files and hashes them, as reports need it: a part of what a soup takes that no other merge does."""
    for file in files:
        with file.open("rb", buffering=0) as stream:
            hashlib.file_digest(stream, "sha256")


def drained(queue: SimpleQueue[tuple[Path, int]]) -> Iterator[tuple[Path, int]]:
    """What is left in a queue."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


def mergekit_environment(folder: Path) -> Path:
    """The environment `folder`, made with the versions of constraints.txt where it is not there yet."""
    if not (folder / "bin/mergekit-pytorch").exists():
        print(f"installing {MERGEKIT} in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        words: list[str | Path] = [folder / "bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*words, "--constraint", ROOT / "constraints.txt", MERGEKIT], check=True)
    return folder
