"""JSON documents kept between runs, one for each key. Their reader trusts nothing that it reads.

    store = JsonStore(cache_folder() / "scores", "soup-score/6")
    store.put(key, content)                        # whole or not at all
    store.get(key)                                 # the content, or None

A document names its schema and its key, and holds a digest of its content. A damaged document counts as absent, and so
does everything in a folder that others can write (see kept_file.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from soupcli.errors import OutputError
from soupcli.files.atomic import write_whole
from soupcli.files.json_text import dump_json, key_of, parse_json
from soupcli.files.kept_file import make_folder, read_kept, refusal

LARGEST = 30_000_000  # bytes of one document
DEEPEST = 24  # levels of lists and objects
HEX = re.compile("[0-9a-f]{64}")
# What a document raises that is damaged, cut short or not ours.
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError)


Depends = list[list[str]]  # pairs of a path and what was there


class Inputs(Protocol):
    """What kept content depends on besides its key: see manifest.py."""

    def depends(self) -> Depends:
        """Return the present state of all inputs."""

    def holds(self, depends: Depends) -> bool:
        """Whether the inputs are still in the recorded state."""

    def hand_on(self, depends: Depends) -> None:
        """Add these to what all later results of this run depend on."""


class JsonStore:
    """Documents of one schema in `folder`. `fresh` ignores existing documents and replaces them.

    With `inputs`, a document records what it depends on, and is returned only while that is unchanged. With `hands_on`,
    all that is kept later depends on the same.
    """

    def __init__(
        self,
        folder: Path,
        schema: str,
        *,
        inputs: Inputs | None = None,
        fresh: bool = False,
        hands_on: bool = False,
        largest: int = LARGEST,
    ) -> None:
        self.folder = folder
        self.schema = schema
        self.fresh = fresh
        self._inputs = inputs
        self._hands_on = hands_on
        self._largest = largest
        self._usable: bool | None = None

    def get(self, key: str) -> Any | None:
        """Return the content under `key`, or None if there is none or it is damaged."""
        if self.fresh or not self._is_usable():
            return None
        try:
            document = parsed(read_kept(self.file(key), most=self._largest))
            body = {"content": document["content"], "depends": document["depends"]}
            sealed = document["schema"], document["key"], document["digest"]
            whole = sealed == (self.schema, key, key_of(body))
            return document["content"] if whole and self._holds(document["depends"]) else None
        except DAMAGED:
            return None

    def put(self, key: str, content: Any) -> None:
        """Keep the content. If the folder cannot be written, or others can write there, nothing is kept."""
        with contextlib.suppress(OSError):
            if self._usable is None and refusal(self.folder) is None:
                make_folder(self.folder)
        if not self._is_usable():
            return
        body = {"content": content, "depends": self._inputs.depends() if self._inputs is not None else []}
        document = {"schema": self.schema, "key": key, "digest": key_of(body), **body}
        with contextlib.suppress(OutputError, OSError):
            file = self.file(key)
            make_folder(file.parent)
            if file.is_symlink():
                file.unlink()  # never written through
            write_whole(file, dump_json(document), mode=0o600, flushed=False)  # `get` checks the digest

    def _holds(self, depends: Any) -> bool:
        if not depends:
            return True
        if self._inputs is None or not self._inputs.holds(depends):
            return False
        if self._hands_on:
            self._inputs.hand_on(depends)
        return True

    def file(self, key: str) -> Path:
        """Return the path of the document of `key`, which may be any text."""
        name = key if HEX.fullmatch(key) else hashlib.sha256(os.fsencode(key)).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def _is_usable(self) -> bool:
        if self._usable is None:
            found = refusal(self.folder) is None
            if not self.folder.exists():
                return found  # others may make it before us
            self._usable = found
        return self._usable


def parsed(data: bytes) -> Any:
    """Parse the JSON in `data`. Raises one of DAMAGED for anything else, for NaN and infinities.

    Also for deep nesting, and for so many values that they would fill the memory.
    """
    document = parse_json(data.decode("utf-8"), parse_constant=_refuse)
    _check_depth(document)
    return document


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _check_depth(document: Any) -> None:
    """Raises ValueError if lists and objects are nested more than DEEPEST levels deep."""
    level = [document]
    for _ in range(DEEPEST):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise ValueError(f"nested more than {DEEPEST} levels deep")


def _children(parent: Any) -> Sequence[Any]:
    values = parent.values() if isinstance(parent, Mapping) else parent if isinstance(parent, list) else ()
    return [value for value in values if isinstance(value, dict | list)]
