"""A report without the folders of the machine that wrote it, for others to read.

names = shorter_names(report.model_dump(), Path.cwd())
text = in_short(text, names)                           # "/data/vit/runs/a" -> "runs/a"
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

ABSOLUTE = re.compile(r"""(?<![\w.~/:\\-])/(?:[^\s/:'"`,;|()\[\]{}<>]+/?)+""")


def shorter_names(document: Any, here: Path) -> dict[str, str]:
    """Map every absolute path in the texts of `document` to its public form, the longest first.

    Paths below `here` become relative to it, others relative to the folder that the ingredients share.
    """
    found = sorted({path for text in _texts(document) for path in ABSOLUTE.findall(text)}, key=lambda p: (-len(p), p))
    ingredients = document.get("ingredients") if isinstance(document, dict) else None
    paths = [str(one.get("path", "")) for one in ingredients or [] if isinstance(one, dict)]
    absolute = [path for path in paths if path.startswith("/")]
    root = os.path.commonpath([Path(path).parent for path in absolute]) if absolute else None
    return {path: _told(path, str(here), root) for path in found}


def in_short(document: Any, names: Mapping[str, str]) -> Any:
    """`document` with other names for the paths in its texts and keys."""
    if isinstance(document, dict):
        return {in_short(key, names): in_short(value, names) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [in_short(value, names) for value in document]
    if not isinstance(document, str):
        return document
    return ABSOLUTE.sub(lambda match: names.get(match[0], PurePosixPath(match[0]).name), document)


def _told(path: str, here: str, root: str | None) -> str:
    for above in (here, root):
        if above is not None and above != "/" and (path == above or path.startswith(f"{above}/")):
            return path[len(above) + 1 :] or "."
    return "/".join(PurePosixPath(path).parts[-2:]).lstrip("/")


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _texts(value)
    elif isinstance(document, str):
        yield document
