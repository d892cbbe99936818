"""The soup's folder appears whole or not at all, made by one process at a time.

    with SoupFolder(Path("soup"), force=False) as folder:
        written = write_weights(mixture, folder.path, max_shard_size=5_000_000_000)
        folder.commit()

At no moment does its final name stand for anything but the old soup or the whole new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from types import TracebackType

from soupcli.errors import OutputError
from soupcli.files.atomic import exchange, flush
from soupcli.files.lock import claim
from soupcli.files.unfinished import aside, finishing, unfinished

REPORT = "soup.json"
MAKE_ROOM = "make room, or choose another --out"


class SoupFolder:
    """A folder that is filled beside its final name and takes it in one step, when `commit` is called.

    Raises OutputError where the final name is taken: by a soup, unless `force`; by anything else, always; and where the
    disk refuses what is put into the folder.
    """

    def __init__(self, out: Path, *, force: bool) -> None:
        self.out = out
        self.force = force
        self._place = Path(os.path.abspath(out))  # noqa: PTH100 - `..` goes away, links stay
        self.path = aside(self._place)
        self._needed = 0
        self._open = contextlib.ExitStack()

    def __enter__(self) -> SoupFolder:
        with contextlib.ExitStack() as stack:
            stack.enter_context(claim(self.out))
            check_free(self.out, force=self.force)
            stack.enter_context(unfinished(self.path))
            try:
                self.path.mkdir()
            except OSError as cause:
                raise OutputError(f"{self.out}: {cause.strerror}", hint="choose another --out") from cause
            self._open = stack.pop_all()
        return self

    def need(self, nbytes: int) -> None:
        """Says how many bytes the soup takes. Raises OutputError where fewer are free."""
        self._needed = nbytes
        check_space(self.path.parent, nbytes)

    def copy(self, files: tuple[Path, ...]) -> list[str]:
        """Copies side files into the folder and returns their names."""
        for file in files:
            shutil.copyfile(file, self.path / file.name)
        return [file.name for file in files]

    def commit(self) -> None:
        """Gives the folder its final name; a soup that stood there is removed after it, its other files carried on."""
        for entry in self.path.iterdir():
            flush(entry)
        if self._place.exists():
            _carry_on(self._place, self.path)
        flush(self.path)
        with finishing():
            if self._place.exists():
                exchange(self.path, self._place)
            else:
                self.path.rename(self._place)
        flush(self._place.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise OutputError(
                f"{self.out}: {error.strerror}: the soup needs {self._needed} bytes", hint=MAKE_ROOM
            ) from error


def check_free(out: Path, *, force: bool) -> None:
    """Raises OutputError where a soup cannot take the name `out`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise OutputError(f"{out}: is a file, a soup is a folder", hint="choose another --out")
    if not (out / REPORT).exists():
        raise OutputError(f"{out}: exists and is not a soup (it has no {REPORT})", hint="choose another --out")
    if not force:
        raise OutputError(f"{out}: a soup is there already", hint="--force replaces it, --out writes elsewhere")


def check_space(folder: Path, needed: int) -> None:
    """Raises OutputError where fewer than `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder}: {free} bytes are free, the soup needs {needed}", hint=MAKE_ROOM)


def _carry_on(old: Path, new: Path) -> None:
    """Links the files of `old` that no soup command wrote into `new`."""
    try:
        ours = set(json.loads((old / REPORT).read_bytes())["soup"]["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = set()
    for entry in old.iterdir():
        written_by_soup = entry.name in ours or entry.name == REPORT or entry.name.startswith("model")
        if written_by_soup or (new / entry.name).exists():
            continue
        if entry.is_dir():
            shutil.copytree(entry, new / entry.name, copy_function=_link, symlinks=True)
        else:
            _link(entry, new / entry.name)


def _link(old: str | Path, new: str | Path) -> None:
    """A second name for a file, a copy where the file system has no such names."""
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)
