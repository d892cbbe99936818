"""SHA-256 of checkpoints. Each file is hashed once, and kept between runs by size, times, inode and a sample."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.errors import CheckpointError
from soupcli.files.json_store import HEX, JsonStore
from soupcli.files.manifest import LARGEST_HASH, SCHEMA
from soupcli.files.reading import FileVersion, hash_of_files, sha256
from soupcli.files.stamp import SAMPLED, YOUNG, Stamp, sample_of

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

THREADS = 2


class ContentHashes:
    """Hashes of checkpoints, computed in the background.

    `fresh` ignores hashes of earlier runs: a soup's report names hashes of bytes that were read in the same run.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._store = JsonStore(folder, SCHEMA, fresh=fresh, largest=LARGEST_HASH)
        self._began = time.time_ns()
        self._pool = ThreadPoolExecutor(THREADS)
        self._futures: dict[FileVersion, Future[str]] = {}
        self._alike: dict[FileVersion, FileVersion] = {}  # what was opened -> what had the same content when last seen

    def start(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Begin with all files of these checkpoints, in order."""
        for checkpoint in checkpoints:
            for file in checkpoint.files:
                self._future(file)

    def of(self, checkpoint: Checkpoint) -> str:
        """Return `sha256:...` of the file, or of the sorted list of names and hashes of several files.

        A name is relative to the folder that holds all of the files.
        """
        return hash_of_files({name: self._future(file).result() for name, file in _by_name(checkpoint.files).items()})

    def promised(self, file: FileVersion) -> Future[str] | None:
        """Return where to put the SHA-256 of a file that is read in any case; None if it is known or has begun."""
        if file in self._futures:
            return None
        stamp, known = self._known(file)
        promise: Future[str] = Future()
        self._futures[file] = promise
        if known is not None:
            promise.set_result(known)
            return None
        promise.add_done_callback(lambda done: None if done.cancelled() else self._keep(stamp, file, done.result()))
        return promise

    def confirm(self, checkpoints: Sequence[Checkpoint], *, at_end: bool = True) -> None:
        """Raises CheckpointError for a file that has changed since it was opened.

        Size and times are compared; also the content, if these changed, of a file whose hash was asked for; and
        `at_end` of the run if they are too young to show a change.
        """
        for file in dict.fromkeys(file for checkpoint in checkpoints for file in checkpoint.files):
            now, hashed = FileVersion.of(file.path), self._futures.get(file)
            if hashed is None:
                changed = now != file
            else:
                doubtful = now not in (file, self._alike.get(file)) or (at_end and self._is_young(file))
                changed = doubtful and sha256(now) != hashed.result()
                self._alike[file] = now
            if changed:
                raise CheckpointError(
                    f"{file.path}: changed while it was used ({file.size} bytes when it was opened, {now.size} now)",
                    hint="run again when nothing writes to it",
                )

    def _is_young(self, file: FileVersion) -> bool:
        return max(file.mtime_ns, file.ctime_ns) > self._began - YOUNG

    def close(self) -> None:
        """Drop hashes that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _future(self, file: FileVersion) -> Future[str]:
        if file not in self._futures:
            self._futures[file] = self._pool.submit(self._hash, file)
        return self._futures[file]

    def _hash(self, file: FileVersion) -> str:
        stamp, known = self._known(file)
        if known is not None:
            return known
        digest = sha256(file)
        self._keep(stamp, file, digest)
        return digest

    def _known(self, file: FileVersion) -> tuple[str, str | None]:
        """Return the stamp of a file as it is now, and the hash that is kept under it."""
        sample = sample_of(file.path, file.size) if file.size > SAMPLED else ""
        stamp = Stamp(file.size, file.mtime_ns, file.ctime_ns, file.device, file.inode, sample).text
        known = self._store.get(stamp)
        return stamp, known if isinstance(known, str) and HEX.fullmatch(known) else None

    def _keep(self, stamp: str, file: FileVersion, digest: str) -> None:
        if not self._is_young(file):  # the next change of a young one may leave its times as they are
            self._store.put(stamp, digest)


def _by_name(files: Sequence[FileVersion]) -> dict[str, FileVersion]:
    if len(files) == 1:
        return {files[0].path.name: files[0]}
    folders = [os.path.abspath(file.path.parent) for file in files]  # noqa: PTH100 - links stay
    common = os.path.commonpath(folders)
    return {
        os.path.relpath(f"{folder}/{file.path.name}", common): file for folder, file in zip(folders, files, strict=True)
    }
