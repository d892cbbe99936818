"""Hashes the files of ingredients from the bytes that are mixed, so that nothing is read twice.

stream = HashStream.of(mixture, names, hashes)         # `names` in the order in which they are mixed
stream.seen(member, name, start, memory)               # after each reading, by whichever thread mixes that piece
stream.finish()                                        # `hashes` knows those files now

The bytes of a file are hashed in their order. A thread whose piece comes later waits for those that mix the pieces
before it: pieces are given out in order, so each of these has begun. While one thread hashes the first file, another
hashes the second one. Files whose tensors lie in another order, and small ones, are left to `hashes`, which reads them
on its own.
"""

from __future__ import annotations

import hashlib
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

from soupcli.files.reading import HASH_CHUNK, read_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from soupcli.checkpoints.checkpoint import Checkpoint, StoredTensor
    from soupcli.checkpoints.hashes import ContentHashes
    from soupcli.files.reading import FileVersion
    from soupcli.mixing.mixture import Mixture

LEAST = 4 << 20  # bytes of a file: what is read twice of a smaller one comes from the cache
MOSTLY = 0.9  # of a file's bytes: where less is mixed, it is read on its own


class HashStream:
    """The hashes of those files that are read in their order, and hardly less than whole, when names are mixed."""

    def __init__(self, files: Iterable[_HashedFile] = (), names: Sequence[str] = ()) -> None:
        self._files = {one.file: one for one in files}
        self._before = {name: before for before, name in pairwise(names)}

    @classmethod
    def of(cls, mixture: Mixture, names: Sequence[str], hashes: ContentHashes) -> HashStream:
        """Promise `hashes` those of the files that are read so. Other files of the mixture are begun by it."""
        mixed = [name for name in names if mixture.spec(name).dtype.is_averaged and mixture.spec(name).numel]
        promised = [(file, hashes.promised(file)) for file in _in_order(mixture, mixed)]
        hashes.start([*mixture.members, mixture.kept])
        return cls([_HashedFile(file, promise) for file, promise in promised if promise is not None], mixed)

    def seen(self, member: Checkpoint, name: str, start: int, memory: memoryview) -> None:
        """Hash what was read of a tensor from element `start` on, if nobody did so. May wait for earlier pieces."""
        place = member.places.get(name)
        file = self._files.get(place.file) if place is not None else None
        if place is None or file is None:
            return
        begin = place.offset + start * member.tensors[name].dtype.itemsize
        file.hash(begin if start else self._end_before(member, name, place), begin, memory)

    def _end_before(self, member: Checkpoint, name: str, place: StoredTensor) -> int:
        """Return where the tensor that is mixed before this one ends in its file."""
        before = self._before.get(name, "")
        last = member.places.get(before)
        return last.offset + member.tensors[before].nbytes if last is not None and last.file == place.file else 0

    def finish(self) -> None:
        """Hash the ends of the files, where no tensors are, and keep the promises."""
        for file in self._files.values():
            file.finish()

    def abandon(self) -> None:
        """Let nobody wait any more: a piece could not be mixed."""
        for file in self._files.values():
            file.abandon()


class _HashedFile:
    """A file that is hashed as it is read, and where its hash is waited for."""

    def __init__(self, file: FileVersion, promise: Future[str]) -> None:
        self.file = file
        self._promise = promise
        self._digest = hashlib.sha256()
        self._at = 0  # bytes that are hashed
        self._turn = threading.Condition()
        self._abandoned = False

    def hash(self, after: int, begin: int, memory: memoryview) -> None:
        """Hash the bytes from `begin` on as soon as those up to `after` are; what lies between is read."""
        with self._turn:
            self._turn.wait_for(lambda: self._at >= after or self._abandoned)
            if self._abandoned or self._at > begin:  # these were read before
                return
            self._read_to(begin)
            self._digest.update(memory)
            self._at += len(memory)
            self._turn.notify_all()

    def finish(self) -> None:
        """Hash the rest and keep the promise."""
        self._read_to(self.file.size)
        self._promise.set_result(self._digest.hexdigest())

    def abandon(self) -> None:
        """Break the promise and wake up who waits."""
        with self._turn:
            self._abandoned = True
            self._turn.notify_all()
        self._promise.cancel()

    def _read_to(self, end: int) -> None:
        while self._at < end:
            part = memoryview(bytearray(min(HASH_CHUNK, end - self._at)))
            read_at(self.file, self._at, part)
            self._digest.update(part)
            self._at += len(part)


def _in_order(mixture: Mixture, names: Sequence[str]) -> Iterator[FileVersion]:
    """Yield the files whose tensors of these names, in this order, follow one another and are most of the file."""
    ends: dict[FileVersion, int] = {}
    mixed: dict[FileVersion, int] = {}
    others: set[FileVersion] = set()
    for name in names:
        for member in mixture.read_members:
            place, nbytes = member.places.get(name), member.tensors[name].nbytes
            if place is None or place.file.size < LEAST:
                continue
            if not place.is_dense or place.offset < ends.get(place.file, 0):
                others.add(place.file)
            ends[place.file] = place.offset + nbytes
            mixed[place.file] = mixed.get(place.file, 0) + nbytes
    yield from (file for file, nbytes in mixed.items() if file not in others and nbytes >= MOSTLY * file.size)
