"""The soup's folder appears whole or not at all, made by one process at a time.

    with SoupFolder(Path("soup"), force=False) as folder:
        written = write_weights(mixture, folder.path, max_shard_size=5_000_000_000)
        folder.commit()

At every moment its final name is either the old soup or the complete new one. The old soup's files are replaced;
other files in its folder stay, and so do the folder's mode and a link that leads to it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from soupcli.checkpoints.side_files import LARGEST, SideFile
from soupcli.errors import OutputError
from soupcli.files.atomic import flush_tree, take_place
from soupcli.files.lock import claim
from soupcli.files.unfinished import aside, remove, unfinished
from soupcli.mixing.old_soup import REPORT, Input, OldSoup, check_place, read_old_soup

__all__ = ["REPORT", "Input", "SoupFolder", "check_free", "check_space"]

MAKE_ROOM = "make room, or choose another --out"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}


class SoupFolder:
    """A folder that is filled beside its final name and takes it in one step, when `commit` is called.

    Raises OutputError if the final name is a soup, unless `force`, or anything else; if it is one of `inputs`, contains
    one or is inside one; and if the disk refuses a file.
    """

    def __init__(self, out: Path, *, force: bool, inputs: Iterable[Input] = ()) -> None:
        self.out = out
        self.force = force
        self.inputs = tuple(inputs)
        self.kept: tuple[str, ...] = ()  # files of ours that somebody has changed, and which stay
        self.rest: Path | None = None  # what the system did not remove of the old soup
        self._place = Path(os.path.realpath(out))
        self.path = self._place  # where it is filled: set when it is entered
        self._needed = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> SoupFolder:
        with contextlib.ExitStack() as stack:
            stack.enter_context(claim(self.out))
            old = check_free(self.out, force=self.force, inputs=self.inputs)
            self.kept = old.changed if old is not None else ()
            self.path = stack.enter_context(unfinished(aside(self._place)))
            try:
                self.path.mkdir()
            except OSError as cause:
                raise OutputError(f"{self.out}: {cause.strerror}", hint="choose another --out") from cause
            self._open = stack.pop_all()
        return self

    def need(self, nbytes: int) -> None:
        """Note how many bytes the soup takes. Raises OutputError if fewer are free."""
        self._needed = nbytes
        check_space(self.path.parent, nbytes)

    def copy(self, files: Iterable[SideFile], changes: Mapping[str, bytes] | None = None) -> dict[str, str]:
        """Copy side files into the folder, with other content for the names in `changes`. Returns name -> hash.

        A file that somebody has changed stays, and is not copied.
        """
        hashes: dict[str, str] = {}
        for file in files:
            if file.name in self.kept:
                continue
            content = (changes or {}).get(file.name)
            hashes[file.name] = self.add(file.name, content_of(file) if content is None else content)
        return hashes

    def add(self, name: str, content: bytes) -> str:
        """Write a file into the folder. Returns its hash."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def commit(self) -> None:
        """Give the folder its final name. Other files of an old soup's folder are carried on.

        Raises OutputError if a file of the new soup has the name of such a file, or if files of the old soup have
        changed meanwhile.
        """
        flush_tree(self.path)
        old = check_free(self.out, force=self.force, inputs=self.inputs)
        if self._place.is_dir():
            _carry_on(self._place, self.path, old)
        replaced = take_place(self.path, self._place)
        if replaced is not None:
            _move_latecomers(replaced, self._place, old)
            remove(replaced)
            self.rest = replaced if os.path.lexists(replaced) else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise not_written(self.out, error, self._needed) from error


def check_free(out: Path, *, force: bool, inputs: Iterable[Input] = ()) -> OldSoup | None:
    """Return the old soup at `out`, or None. Raises OutputError if a soup cannot be written there."""
    try:
        check_place(out, inputs)
        return read_old_soup(out, force=force)
    except OSError as cause:
        raise OutputError(f"{out}: {cause.strerror}", hint="choose another --out") from cause


def not_written(place: Path, cause: OSError, needed: int) -> OutputError:
    """Return the error for a soup of `needed` bytes that the system refuses to write, with the way out of its cause."""
    said = f"{place}: {cause.strerror or cause}"
    if cause.errno in FULL:
        return OutputError(f"{said}: the soup needs {needed} bytes", hint=MAKE_ROOM)
    if cause.errno in TOO_MANY_FILES:
        return OutputError(said, hint="allow more open files: ulimit -n 1024")
    return OutputError(said, hint="choose another --out")


def check_space(folder: Path, needed: int) -> None:
    """Raise OutputError if fewer than `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder}: {free} bytes are free, the soup needs {needed}", hint=MAKE_ROOM)


def content_of(file: SideFile) -> bytes:
    """Return the content of a side file. Raises OutputError if it is not a small regular file any more."""
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise OutputError(f"{file.path}: changed while the soup was made", hint="run again when nothing writes it")
        return opened.read(LARGEST)


def _foreign(folder: Path, ours: set[str], above: str = "") -> Iterator[tuple[Path, str]]:
    """Return everything below the folder that soup did not write: files, links, and folders without our files."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = above + entry.name
        if entry.is_dir(follow_symlinks=False) and any(one.startswith(f"{name}/") for one in ours):
            yield from _foreign(Path(entry.path), ours, f"{name}/")
        elif name not in ours:
            yield Path(entry.path), name


def _ours(old: OldSoup | None) -> set[str]:
    return {REPORT, *old.files} if old is not None else set()


def _carry_on(old: Path, new: Path, soup: OldSoup | None) -> None:
    """Give the folder `new` mode and owner of `old`, and files in `old` that soup did not write a second name in it."""
    for path, name in _foreign(old, _ours(soup)):
        target = new / name
        if os.path.lexists(target):
            raise OutputError(
                f"{path}: soup did not write it, and the new soup has a file of this name",
                hint=f"move {path} away, or choose another --out",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, target, copy_function=_link, symlinks=True)
        else:
            _link(path, target)
    for folder in (new, *(entry for entry in new.rglob("*") if entry.is_dir() and not entry.is_symlink())):
        before = old / folder.relative_to(new)
        if before.is_dir():
            found = before.stat()
            with contextlib.suppress(PermissionError):  # only the system's administrator gives folders away
                os.chown(folder, found.st_uid, found.st_gid)
            folder.chmod(stat.S_IMODE(found.st_mode))


def _link(old: str | Path, new: str | Path) -> None:
    """Give a file a second name; copy it if the file system has no such names."""
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        if not (os.path.islink(old) or os.path.isfile(old)):  # noqa: PTH113, PTH114 - text or a path
            raise OutputError(f"{old}: neither a file nor a folder: it cannot stay beside a new soup") from None
        shutil.copy2(old, new, follow_symlinks=False)


def _move_latecomers(old: Path, new: Path, soup: OldSoup | None) -> None:
    """Move files that appeared in the old folder while the new one was finished."""
    for path, name in _foreign(old, _ours(soup)):
        if not os.path.lexists(new / name):
            with contextlib.suppress(OSError):
                path.rename(new / name)
