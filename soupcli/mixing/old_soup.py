"""Checks the place of a new soup: it is free, holds an old soup that may be replaced, or something to refuse.

    check_place(out, inputs)                               # no input in it or above it, not the working folder
    old = read_old_soup(out, force=True)                   # OldSoup(files={"model.safetensors": "sha256:..."})

`--force` replaces only files that the old report lists, and only if their hashes are as it says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from soupcli.errors import OutputError, SoupError, is_of_system
from soupcli.files.json_text import MAX_REPORT, parse_json
from soupcli.files.reading import FileVersion, sha256
from soupcli.files.small_file import read_small

REPORT = "soup.json"
CARD = "README.md"
SCHEMA = "soup-report/1"
ELSEWHERE = "choose another --out"
MOUNTS = Path("/proc/self/mountinfo")
OCTAL = re.compile(rb"\\([0-7]{3})")  # how proc_pid_mountinfo(5) writes spaces in paths


class Input(NamedTuple):
    """Something that a command reads, and its name in messages."""

    what: str
    path: Path


class OldSoup(NamedTuple):
    """A soup that may be replaced: its files except the report, each with the hash in its report.

    `changed` holds a model card that somebody has edited, which stays.
    """

    files: Mapping[str, str]
    changed: tuple[str, ...] = ()


def check_place(out: Path, inputs: Iterable[Input] = (), *, hint: str = ELSEWHERE) -> None:
    """Raise OutputError if `out` is the root or working folder, or if an input is it, contains it or is inside it."""
    place = Path(os.path.realpath(out))
    if place == place.parent:
        raise OutputError(f"{out}: is the root of the file system, it is to be a folder of its own", hint=hint)
    here = _identity(place)
    if here is not None and here in _identities(Path.cwd()):
        raise OutputError(f"{out}: is the working folder, or holds it: it is to be a folder of its own", hint=hint)
    above = _identities(place)
    for what, path in inputs:
        found = _identity(path)
        if found is None:
            continue
        if found == here:
            raise OutputError(f"{out}: is the {what} {path}", hint=hint)
        if here is not None and here in _identities(Path(os.path.realpath(path))):
            raise OutputError(f"{out}: holds the {what} {path}", hint=hint)
        if found in above:
            raise OutputError(f"{out}: lies in the {what} {path}", hint=hint)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _identities(path: Path) -> set[tuple[int, int]]:
    """Return device and inode of the path and all folders above it, which do not depend on spelling."""
    return {found for one in (path, *path.parents) if (found := _identity(one)) is not None}


def read_old_soup(out: Path, *, force: bool) -> OldSoup | None:
    """Return the soup at `out`, or None if nothing is there. Raises OutputError for what `force` does not replace."""
    if not os.path.lexists(os.path.realpath(out)) or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise OutputError(f"{out}: is a file, a soup is a folder", hint=ELSEWHERE)
    if not (out / REPORT).exists():
        raise OutputError(f"{out}: exists and is not a soup (it has no {REPORT})", hint=ELSEWHERE)
    names, hashes = _listed(out)
    if not force:
        raise OutputError(f"{out}: already holds a soup", hint="--force replaces it, --out writes elsewhere")
    mounted = _mounted_below(out)
    if mounted is not None:
        raise OutputError(
            f"{mounted}: something else is mounted there: the folder around it is not replaced",
            hint=f"umount {mounted}, or {ELSEWHERE}",
        )
    return _checked(out, names, hashes)


def _mounted_below(out: Path) -> Path | None:
    """Return a place below the folder where a disk or another folder is mounted, or None.

    What is in it belongs elsewhere: it can neither be carried on into a new folder nor removed with the old one.
    """
    above = os.fsencode(os.path.realpath(out)) + b"/"
    try:
        lines = read_small(MOUNTS, most=MAX_REPORT).splitlines()
    except OSError:  # not Linux: there only disks are mounted, whose folders have another device
        return next((place for place in out.rglob("*") if place.is_mount()), None)
    places = (OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4]) for line in lines)
    inside = next((place for place in places if place.startswith(above)), None)
    return None if inside is None else out / os.fsdecode(inside[len(above) :])


def _listed(out: Path) -> tuple[list[str], dict[str, str]]:
    """Return names and hashes of the files that the report in `out` lists. Raises OutputError if it is no soup's."""
    report = read_soup_report(out / REPORT)
    if report is None:
        raise OutputError(f"{out}: is not a soup: its {REPORT} is not the report of one", hint=ELSEWHERE)
    names, hashes = report["soup"].get("files"), report["soup"].get("file_hashes", {})
    known = isinstance(names, list) and isinstance(hashes, dict) and all(isinstance(name, str) for name in names)
    if not known or not all(map(is_plain, names)):
        raise OutputError(f"{out}: is not a soup: its {REPORT} lists no files", hint=ELSEWHERE)
    return [name for name in names if name != REPORT], hashes


def read_soup_report(file: Path) -> dict[str, Any] | None:
    """Return the JSON of a soup's report, or None if the file holds anything else."""
    try:
        report = parse_json(read_small(file, most=MAX_REPORT))
    except (OSError, ValueError, RecursionError):
        return None
    of_a_soup = isinstance(report, dict) and report.get("schema") == SCHEMA and isinstance(report.get("soup"), dict)
    return report if of_a_soup else None


def is_plain(name: str) -> bool:
    """Whether a name can only lead to a file in or below a folder."""
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts and str(path) == name


def _checked(out: Path, names: list[str], hashes: Mapping[str, object]) -> OldSoup:
    files: dict[str, str] = {}
    changed: list[str] = []
    for name in names:
        path, said = out / name, hashes.get(name)
        if not os.path.lexists(path):
            continue
        found = hash_of_file(out, name)
        if found is not None and found == said:
            files[name] = found
        elif name == CARD:
            changed.append(name)
        else:
            why = "is not what its report says" if isinstance(said, str) else f"has no hash in {out / REPORT}"
            raise OutputError(
                f"{path}: {why}: --force replaces only what soup wrote",
                hint=f"move {path} away, or {ELSEWHERE}",
            )
    return OldSoup(files, tuple(changed))


_hashes: dict[FileVersion, str] = {}


def hash_of_file(folder: Path, name: str) -> str | None:
    """Return `sha256:...` of a file in `folder`, hashed once while it is unchanged; None for a link or no file."""
    path = folder / name
    inside = path.parent.resolve() == folder.resolve() / PurePosixPath(name).parent
    if path.is_symlink() or not path.is_file() or not inside:
        return None
    try:
        file = FileVersion.of(path)
        if file not in _hashes:
            _hashes[file] = f"sha256:{sha256(file)}"
        return _hashes[file]
    except SoupError as error:
        if is_of_system(error):
            raise
        return None
