"""Files of an earlier run, opened only if nobody else can have put them there.

    descriptor = open_kept(path, most=1 << 20)     # a regular file of ours, of at most so many bytes

A cache is found by its name, so it is read as ssh reads its keys. A folder or file that others can write is not used;
links, pipes and devices are not opened; and the size is checked before anything is read.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
from pathlib import Path

GROUP, OTHERS = 0o020, 0o002
NOT_FOLLOWED = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


def refusal(folder: Path) -> str | None:
    """Return why the files in `folder` are not used, or None if they are.

    It and every folder above it belong to this user or to root. Nobody else can write in it, and nobody else can
    rename a folder above it: in a folder such as /tmp (sticky) others may add names, and change none of ours. So one
    that is not there yet is to be asked for again when it is made.
    """
    place = Path(os.path.realpath(folder))
    for checked in (place, *place.parents):
        try:
            found = checked.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # it will be made by this user
        except OSError as cause:
            return f"{checked}: {cause.strerror}"
        if found.st_uid not in (os.geteuid(), 0):
            return f"{checked}: belongs to another user"
        above, grandparent = checked != place, checked not in (place, place.parent)
        if (above and found.st_mode & stat.S_ISVTX) or (grandparent and not found.st_mode & OTHERS):
            continue
        if stat.S_ISDIR(found.st_mode) and _others_write(found):
            return f"{checked}: others can write there (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _others_write(found: os.stat_result) -> bool:
    """Whether anybody except the owner can write. A group with only this user does not count."""
    if found.st_mode & OTHERS:
        return True
    return bool(found.st_mode & GROUP) and not _is_private(found.st_gid)


@functools.cache
def _is_private(group: int) -> bool:
    """Whether the group is the user's own. Many systems make one for each user."""
    try:
        name, entry = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == name and set(entry.gr_mem) <= {name}


def open_kept(path: Path, *, most: int) -> int:
    """Open the regular file at `path`, which must be ours and have at most `most` bytes. Returns a descriptor.

    Raises OSError for a link, a pipe, a device, a file that others own or can write, and one that is larger.
    """
    descriptor = os.open(path, NOT_FOLLOWED)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path}: not a regular file")
        if found.st_uid not in (os.geteuid(), 0) or _others_write(found):
            raise OSError(f"{path}: others can write it")
        if found.st_size > most:
            raise OSError(f"{path}: {found.st_size} bytes, at most {most} were kept")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_kept(path: Path, *, most: int) -> bytes:
    """Return the bytes of the file, at most `most`. Raises what `open_kept` raises."""
    with os.fdopen(open_kept(path, most=most), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path}: grows while it is read")
    return data


def make_folder(folder: Path) -> None:
    """Make the folder and missing parents, which only this user can enter. Raises OSError."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
