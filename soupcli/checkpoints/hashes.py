"""SHA-256 of checkpoints, each file hashed once: kept between runs by path, size, times and inode."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.errors import CheckpointError, OutputError
from soupcli.files.atomic import write_whole
from soupcli.files.reading import FileVersion, hash_of_files, sha256

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

THREADS = 2
YOUNG = 2_000_000_000  # nanoseconds: file systems tell times apart no finer


class ContentHashes:
    """Hashes of checkpoints, computed in the background while something else is done.

    `fresh` hashes again what an earlier run hashed.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self.fresh = fresh
        self._began = time.time_ns()
        self._pool = ThreadPoolExecutor(THREADS)
        self._futures: dict[FileVersion, Future[str]] = {}

    def start(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Begins with all files of these checkpoints, in their order."""
        for checkpoint in checkpoints:
            for file in checkpoint.files:
                self._future(file)

    def of(self, checkpoint: Checkpoint) -> str:
        """`sha256:...` of the file, or of the sorted list of names and hashes of several.

        A name is relative to the folder that holds all of the files.
        """
        return hash_of_files({name: self._future(file).result() for name, file in _by_name(checkpoint.files).items()})

    def confirm(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Raises CheckpointError for a file that is no longer what it was when it was opened.

        Its size and times tell; where they were others, or so young that a change may not show in them, its content.
        """
        for file in dict.fromkeys(file for checkpoint in checkpoints for file in checkpoint.files):
            now, opened = FileVersion.of(file.path), self._future(file).result()
            if (now != file or self._is_young(file)) and sha256(now) != opened:
                raise CheckpointError(
                    f"{file.path}: changed while it was used ({file.size} bytes when it was opened, {now.size} now)",
                    hint="run again when nothing writes to it",
                )

    def _is_young(self, file: FileVersion) -> bool:
        return max(file.mtime_ns, file.ctime_ns) > self._began - YOUNG

    def close(self) -> None:
        """Drops what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _future(self, file: FileVersion) -> Future[str]:
        if file not in self._futures:
            self._futures[file] = self._pool.submit(self._hash, file)
        return self._futures[file]

    def _hash(self, file: FileVersion) -> str:
        identity = f"{file.path.resolve()}\0{file.size}\0{file.mtime_ns}\0{file.ctime_ns}\0{file.device}\0{file.inode}"
        kept = self.folder / f"{hashlib.sha256(identity.encode(errors='surrogateescape')).hexdigest()}.json"
        if not self.fresh:
            try:
                known: str = json.loads(kept.read_bytes())["sha256"]
                if re.fullmatch("[0-9a-f]{64}", known):
                    return known
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                pass  # not hashed before
        digest = sha256(file)
        if self._is_young(file):
            return digest  # the next change may leave its times as they are
        with contextlib.suppress(OutputError):  # a cache that cannot be written costs time alone
            write_whole(kept, json.dumps({"sha256": digest}) + "\n")
        return digest


def _by_name(files: Sequence[FileVersion]) -> dict[str, FileVersion]:
    folders = [os.path.abspath(file.path.parent) for file in files]  # noqa: PTH100 - links stay
    common = os.path.commonpath(folders)
    return {
        os.path.relpath(f"{folder}/{file.path.name}", common): file for folder, file in zip(folders, files, strict=True)
    }
