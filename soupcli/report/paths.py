"""A report whose paths are seen from another folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soupcli.report.report import Report


def relative(report: Report, folder: Path) -> Report:
    """The report with every absolute path in it, wherever it stands, as seen from `folder`."""
    document = report.model_dump(mode="json", by_alias=True)
    found = {word: os.path.relpath(word, folder) for text in _texts(document) for word in _absolute(text)}
    return Report.model_validate(_replaced(document, dict(sorted(found.items(), key=lambda pair: -len(pair[0])))))


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        yield from (text for pair in document.items() for part in pair for text in _texts(part))
    elif isinstance(document, list):
        yield from (text for part in document for text in _texts(part))


def _absolute(text: str) -> list[str]:
    """A path that is all of the text, or the words of a command or message that are one."""
    if text.startswith("/") and Path(text.partition(":")[0]).exists():
        return [text]
    return re.findall(r"(?<![^\s='\"(])/[^\s'\"),;]+", text)


def _replaced(document: Any, paths: dict[str, str]) -> Any:
    if isinstance(document, str):
        for path, seen in paths.items():
            document = document.replace(path, seen)
        return document
    if isinstance(document, dict):
        return {_replaced(key, paths): _replaced(value, paths) for key, value in document.items()}
    return [_replaced(part, paths) for part in document] if isinstance(document, list) else document
