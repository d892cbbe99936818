"""One writer for each output: a lock beside it that names its holder and ends with it.

    with claim(Path("soup")):
        ...                                    # nobody else writes soup/ meanwhile
    with written_once(file) as descriptor:
        ...                                    # the first process fills the file, others wait and find it

The lock is the file system's (flock), so one that a killed process left blocks nobody. If a network file system has no
such locks, a file is linked in one step, and its holder is looked up by number on the machine that it names.
`filelock` does less: it names no holder, its file for systems without locks outlives a killed process, and what is
written cannot be the locked file itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from soupcli.errors import OutputError
from soupcli.files.atomic import check_depth, finish_begun, waiting_for
from soupcli.files.kept_file import make_folder
from soupcli.files.unfinished import aside, is_running, remove, unfinished

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_HOLDER = re.compile(r"process (?P<pid>\d+) on (?P<host>\S+), started .+")
_claimed: set[Path] = set()


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Claim `out` for the block. Within this process it may be claimed again.

    Finishes what killed processes had begun there. If `out` is a link, its target is claimed.
    Raises OutputError if another process holds the claim, and if nothing can be written there.
    """
    place = Path(os.path.realpath(out))
    if place == place.parent:
        raise OutputError(f"{out}: is the root of the file system", hint="choose another --out")
    check_depth(out)
    if place in _claimed:
        yield
        return
    made = [parent for parent in (place.parent, *place.parent.parents) if not parent.exists()]
    lock = place.with_name(f".{place.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(lock, out)
    except OSError as cause:
        raise OutputError(f"{out}: {cause.strerror}", hint="choose another --out") from cause
    _claimed.add(place)
    try:
        with unfinished(lock):
            finish_begun(place)
            yield
    finally:
        _claimed.discard(place)
        os.close(descriptor)
        for folder in made:
            with contextlib.suppress(OSError):  # it holds the soup
                folder.rmdir()


def finish_abandoned(path: Path) -> None:
    """Give a soup its name if a process was killed before it could. `path` is the soup's, or that of a file in it.

    Raises OutputError if nothing can be written there, and if another process is still at work.
    """
    whole = Path("." if "\0" in str(path) else os.path.realpath(path))
    for place in (whole, whole.parent):
        if os.path.lexists(place) or not (waiting := waiting_for(place)):
            continue
        if not os.access(place.parent, os.W_OK):
            raise OutputError(
                f"{path}: nothing can be written in {place.parent}, where {waiting[0].name} was to get this name",
                hint=f"mv {shlex.quote(str(waiting[0]))} {shlex.quote(str(place))}",
            )
        with claim(place):
            return


def _lock(lock: Path, out: Path) -> int:
    """Lock the file and return its descriptor. Raises OutputError if another process has locked it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, lock):  # not one that its holder has just removed
                with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, _me().encode())
                return descriptor
        except BlockingIOError as cause:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace")
            os.close(descriptor)
            raise _taken(out, holder) from cause
        except OSError as cause:
            empty = os.fstat(descriptor).st_size == 0
            os.close(descriptor)
            if cause.errno not in NO_LOCKS:
                raise
            if empty:
                remove(lock)
            return _link(lock, out)
        os.close(descriptor)


def _link(lock: Path, out: Path) -> int:
    """Do what `_lock` does on a file system without locks."""
    with unfinished(aside(lock)) as own:
        own.write_text(_me(), "utf-8")
        while True:
            try:
                os.link(own, lock)
                return os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
            except FileExistsError as cause:
                holder = lock.read_text("utf-8", "replace") if lock.exists() else ""
                named = _HOLDER.fullmatch(holder)
                if named is None or named["host"] != socket.gethostname() or is_running(int(named["pid"])):
                    raise _taken(out, holder, f"; if it runs no longer, remove {lock}") from cause
                remove(lock)


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _me() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()}, started {now} UTC"


def _taken(out: Path, holder: str, more: str = "") -> OutputError:
    return OutputError(
        f"{out}: is being written by {holder or 'another process'}",
        hint=f"wait until it has ended, or choose another --out{more}",
    )


@contextmanager
def written_once(file: Path) -> Iterator[int | None]:
    """Yield a descriptor of an empty file that becomes `file`, flushed to disk, when the block ends without an error.

    Waits while another process writes the same file, and yields None if that process finished it. The unfinished file
    of a killed process is begun anew. Raises OSError.
    """
    partial = file.with_name(f".{file.name}.tmp")
    make_folder(file.parent)
    made_before = _stamp(file)
    descriptor = _wait_for(partial)
    try:
        if _stamp(file) != made_before:
            yield None
        else:
            yield descriptor
            os.fsync(descriptor)
            partial.replace(file)
    finally:
        if _is(descriptor, partial):
            with contextlib.suppress(OSError):
                partial.unlink()
        os.close(descriptor)


def _wait_for(lock: Path) -> int:
    """Wait until nobody else has locked the file, then lock it and return its descriptor."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        if _is(descriptor, lock):
            return descriptor
        os.close(descriptor)  # whoever had it has renamed or removed it


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns
