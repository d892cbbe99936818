"""The state of everything that a run reads, which is what kept results depend on.

    manifest = Manifest(cache_folder() / "hashes", user=UserReads(seen=files_of_user_code))
    manifest.file(path)                  # its content, in 64 letters; the same all through the run
    manifest.depends()                   # what the user's code has read so far: kept with a result
    manifest.holds(depends)              # whether all of that is unchanged
    manifest.confirm()                   # at the end: raises if anything has changed meanwhile

Only content counts. Its hash is kept between runs under the file's stamp, which changes with every change of the file
(see stamp.py), so a file is read again only if its stamp has changed. Many files together have one kept hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.environment import EVERY, SEARCHED, is_of_the_session, searched, variable
from soupcli.errors import ValidationError
from soupcli.files.json_store import HEX, JsonStore
from soupcli.files.stamp import Stamp, content_hash

if TYPE_CHECKING:
    from soupcli.files.json_store import Depends

SCHEMA = "soup-hashes/2"
LARGEST_HASH = 4096  # bytes of the document of one hash
WHOLE = 1 << 28  # bytes: of many files together, larger ones are recognised by their stamps alone
VARIABLE, ASKED, STATED, PACKAGE, PROGRAM = "$", "?", "%", "@", "!"  # how names begin that are none of files read
HERE = "="  # in the place of a name: the working folder of the run, if files count
MARKS = (VARIABLE, ASKED, STATED, PACKAGE, PROGRAM, HERE)
VERSION = re.compile(r"^Version:\s*(\S+)", re.MULTILINE | re.IGNORECASE)
ABSENT, FOLDER = "absent", "folder"
HINT = "run again when nothing writes to it"


def _nothing() -> Collection[Path]:
    return ()


class UserReads(NamedTuple):
    """Functions that say what the user's code has read so far. Within a block of `at_once` all speak of one moment."""

    seen: Callable[[], Mapping[Path, str | None]] = dict  # files and folders; of modules with the hash of what was run
    written: Callable[[], Collection[Path]] = _nothing  # those that it has written itself
    made: Callable[[], Collection[Path]] = _nothing  # those that it may have made itself, in ways that are not seen
    changed: Callable[[], Collection[Path]] = _nothing  # those that are others than when it opened them
    changed_by_programs: Callable[[], Collection[Path]] = _nothing  # the same of programs, which may make them anew
    variables: Callable[[], Collection[str]] = tuple  # of the environment
    asked: Callable[[], Collection[Path]] = tuple  # paths of which it asks only whether they are there
    stated: Callable[[], Collection[Path]] = tuple  # paths whose size, times or mode it looks at
    packages: Callable[[], Collection[str]] = tuple  # installed distributions that it imports
    unseen: Callable[[], Collection[str]] = tuple  # programs that it starts, of which nobody sees what they read
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext


NO_USER = UserReads()


class Manifest:
    """Fingerprints of files, each taken once in a run. `fresh` reads again what an earlier run has hashed.

    `folder` None: hashes are not kept between runs.
    """

    def __init__(self, folder: Path | None = None, *, fresh: bool = False, user: UserReads = NO_USER) -> None:
        self._store = JsonStore(folder, SCHEMA, fresh=fresh, largest=LARGEST_HASH) if folder is not None else None
        self._kept_now = JsonStore(folder, SCHEMA, largest=LARGEST_HASH) if folder is not None else None
        self._user = user
        self._began = time.time_ns()
        self._files: dict[Path, tuple[Stamp, str]] = {}
        self._versions: dict[str, str] = {}
        self._first: dict[Path, str] = {}
        self._varying: set[Path] = set()
        self._handed_on: dict[str, str] = {}

    def file(self, path: Path) -> str:
        """Return the hash of the file's whole content, in hexadecimal. Raises OSError."""
        if path not in self._files:
            stamp, is_code = Stamp.of(path), path.suffix == ".py"  # its hash is compared with that of what was run
            content = content_hash(path) if is_code else self._kept(stamp.text, lambda: content_hash(path), [stamp])
            self._files[path] = stamp, content
        return self._files[path][1]

    def files(self, files: Sequence[tuple[str, Path | str]]) -> str:
        """Return one fingerprint of many named files. It changes with every name and every byte. Raises OSError."""
        names, paths = [name for name, _ in files], [path for _, path in files]
        stamps = [Stamp.of(path) for path in paths]
        key = _lines(names, [stamp.text for stamp in stamps])
        return self._kept(key, lambda: _lines(names, list(map(_content_of, paths, stamps))), stamps)

    def again(self) -> Manifest:
        """Return a manifest that checks every file anew, and reads those whose stamps have changed."""
        other = Manifest(user=self._user)
        other._store, other._began = self._kept_now, self._began
        return other

    def depends(self) -> Depends:
        """Return what the user's code has read so far: fingerprints by path, relative below the working folder.

        Raises ValidationError for a file that has changed since it was opened.
        """
        here, user = Path.cwd(), self._user
        with user.at_once():
            for path in user.changed():
                raise _changed(path)
            seen = user.seen()
            found = [[f"{VARIABLE}{name}", _value_of(name)] for name in sorted(user.variables())]
            found += [[f"{PACKAGE}{name}", self._version(name)] for name in sorted(user.packages())]
            stated = sorted(user.stated())
            asked = set(user.asked()).difference(seen)
            made = set(user.made()).difference(seen, asked)
            found += [[f"{PROGRAM}{name}", ""] for name in sorted(user.unseen())]
        folders = {path for path in made if path.is_dir()}  # whose names count
        prints = {path: self._print_of(path) if path in folders else self._asked_print(path) for path in asked | made}
        settled = sorted(path for path, now in prints.items() if not self._varies(path, now))
        wanted = [path for path in settled if prints[path] != ABSENT or path in asked]
        found += [[("" if path in folders else ASKED) + _shown(path, here), prints[path]] for path in wanted]
        found += [[f"{STATED}{_shown(path, here)}", _stat_print(path)] for path in stated]
        found += [[_shown(path, here), self._seen_print(path, text)] for path, text in sorted(seen.items())]
        found += [[HERE, str(here)]] if wanted or stated or seen else []
        return sorted(map(list, {**self._handed_on, **dict(found)}.items()))

    def hand_on(self, depends: Depends) -> None:
        """Add to what results depend on from now on: what decoded inputs of an earlier run depend on, which hold."""
        self._handed_on.update((path, print_) for path, print_ in depends)

    def unseen(self) -> tuple[str, ...]:
        """Names of programs that took part so far, in this run or in what it goes on from, and that nobody watches."""
        handed_on = {name.removeprefix(PROGRAM) for name in self._handed_on if name.startswith(PROGRAM)}
        return tuple(sorted(handed_on.union(self._user.unseen())))

    def changed_by_programs(self) -> list[Path]:
        """Return the files that have changed since a program of the user's opened them."""
        return sorted(self._user.changed_by_programs())

    def varying(self) -> list[Path]:
        """Return the files that were others in an earlier score of this run: the user's code makes them, it seems."""
        return sorted(self._varying)

    def _varies(self, path: Path, now: str) -> bool:
        """Whether the print of a file is another one than in an earlier score of this run: it is made, not given."""
        if self._first.setdefault(path, now) != now:
            self._varying.add(path)
        return path in self._varying

    def holds(self, depends: Depends) -> bool:
        """Whether every file and folder is unchanged. Raises one of DAMAGED for a damaged record.

        Code finds its files from the working folder or by whole paths. So in another folder than that of the record,
        the files there and those of the same places here must both be what the record says.
        """
        here = Path.cwd()
        there = next((Path(str(print_)) for name, print_ in depends if name == HERE), here)
        places = dict.fromkeys((here, there)) if there.is_dir() else (here,)  # the folder may have been moved
        state = [(str(name), str(print_)) for name, print_ in depends if name != HERE]
        return all(
            self._now(name if place == there else _moved(name, there, here), place) == print_
            for place in places
            for name, print_ in state
        )

    def _now(self, name: str, here: Path) -> str:
        mark, rest = name[:1], name[1:]
        if mark == VARIABLE:
            return _value_of(rest)
        if mark == PACKAGE:
            return self._version(rest)
        if mark == PROGRAM:
            return ""  # nothing is known of what it reads
        if mark == STATED:
            return _stat_print(here / rest)
        return self._asked_print(here / rest) if mark == ASKED else self._print_of(here / name)

    def _version(self, package: str) -> str:
        """The version of an installed distribution, looked up once in a run: every kept score depends on some."""
        if package not in self._versions:
            self._versions[package] = _version_of(package)
        return self._versions[package]

    def confirm(self) -> None:
        """Raises ValidationError for a file that has changed since it was first read."""
        own = {*self._user.written(), *self._user.made()}
        for path, (stamp, content) in list(self._files.items()):
            if path not in own and not self._is_same(path, stamp, content):
                raise _changed(path)

    def _is_same(self, path: Path, stamp: Stamp, content: str) -> bool:
        try:
            now = Stamp.of(path)
            return (now == stamp and not stamp.is_young(self._began)) or content_hash(path) == content
        except OSError:
            return False

    def _kept(self, key: str, make: Callable[[], str], stamps: Sequence[Stamp]) -> str:
        """Return what an earlier run has kept under `key`, or the result of `make`."""
        kept = self._store.get(key) if self._store is not None else None
        if isinstance(kept, str) and HEX.fullmatch(kept):
            return kept
        found = make()
        if self._store is not None and not any(stamp.is_young(self._began) for stamp in stamps):
            self._store.put(key, found)
        return found

    def _seen_print(self, path: Path, text: str | None) -> str:
        """Return a file's present fingerprint. Raises ValidationError if it is not `text`, the hash that was run."""
        found = self._print_of(path)
        if text is not None and found != text:
            raise _changed(path)
        return found

    def _asked_print(self, path: Path) -> str:
        """Return what a lookup of a path finds: content, a folder or nothing, and the target of a link."""
        try:
            link = f"{path.readlink()} " if path.is_symlink() else ""
            if not path.is_file():
                return link + (FOLDER if path.is_dir() else ABSENT)
            stamp = Stamp.of(path)
            return link + self._kept(stamp.text, lambda: _content_of(path, stamp), [stamp])
        except OSError:
            return ABSENT

    def _print_of(self, path: Path) -> str:
        """Return the fingerprint of a file's content or of a folder's names, or a mark that neither exists."""
        try:
            if path.is_dir():
                return f"{FOLDER} {_lines(sorted(map(_name_and_kind, os.scandir(path))), None)}"
            return self.file(path) if path.is_file() else ABSENT
        except OSError:
            return ABSENT


def _changed(path: Path) -> ValidationError:
    return ValidationError(f"{path}: changed while it was used", hint=HINT)


def _stat_print(path: Path) -> str:
    """Return what a lookup of a file's state finds, but for the time of the last reading and the device's number."""
    try:
        found = path.stat()
    except OSError:
        return ABSENT
    own = f"{found.st_mode:o} {found.st_uid} {found.st_gid}"
    if stat.S_ISDIR(found.st_mode):
        return own  # its names are listed
    return f"{own} {found.st_ino} {found.st_nlink} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _name_and_kind(entry: os.DirEntry[str]) -> str:
    is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112 - a link to itself is none
    return f"{entry.name}/" if is_folder else entry.name


def _value_of(name: str) -> str:
    """Return the print of an environment variable's value; of EVERY, the names of all but those of the session.

    Of the name of a module after SEARCHED, the folder where it is found.
    """
    if name.startswith(SEARCHED):
        return next((folder for folder in searched if _holds_module(folder, name[len(SEARCHED) :])), ABSENT)
    if name == EVERY:
        named = (one for one in os.environ if variable(one) is not None and not is_of_the_session(one))
        return _lines(sorted(named), None)
    value = variable(name)
    return ABSENT if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


def _holds_module(folder: str, name: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name + suffix)) for suffix in ("", *all_suffixes()))  # noqa: PTH110, PTH118


def _version_of(package: str) -> str:
    """The version of an installed distribution, from the head of its metadata: all of it takes long to parse.

    After a space the name may be followed by the folder where it is installed.
    """
    name, _, folder = package.partition(" ")
    try:
        in_folder = metadata.distributions(name=name, path=[folder])
        installed = next(iter(in_folder)) if folder else metadata.distribution(name)
        text = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    except (metadata.PackageNotFoundError, ValueError, StopIteration):
        return ABSENT
    found = VERSION.search(text)
    place = installed.read_text("direct_url.json") or ""  # PEP 610: of an editable one, the folder of its files
    return (ABSENT if found is None else found[1]) + (f" {place}" if '"editable"' in place else "")


def _shown(path: Path, here: Path) -> str:
    shown = str(path.relative_to(here) if path.is_relative_to(here) else path)
    return f"./{shown}" if shown.startswith(MARKS) else shown


def _moved(name: str, there: Path, here: Path) -> str:
    """Return the name of a file outside of the folder `there` for one that lies in the same place beside `here`."""
    mark = name[:1] if name.startswith((ASKED, STATED)) else ""
    path = name[len(mark) :]
    if not os.path.isabs(path):  # noqa: PTH117 - names of variables and packages too
        return name
    return mark + os.path.normpath(os.path.join(here, os.path.relpath(path, there)))  # noqa: PTH118


def _content_of(path: Path | str, stamp: Stamp) -> str:
    return content_hash(path) if stamp.size <= WHOLE else stamp.text


def _lines(names: Sequence[str], words: Sequence[str] | None) -> str:
    digest = hashlib.sha256()
    for name, word in zip(names, words or [""] * len(names), strict=True):
        digest.update(os.fsencode(name) + b"\0" + os.fsencode(word) + b"\n")
    return digest.hexdigest()
