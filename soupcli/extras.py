"""Optional packages, imported only where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from soupcli.errors import MissingExtra


def need(module: str, *, extra: str) -> Any:
    """Imports `module`, a part of the optional extra `extra`, and returns it.

    Raises MissingExtra where it is absent, and where it is there and broken: torchvision beside another torch than
    its own raises RuntimeError when it is imported, a library beside another numpy ValueError or AttributeError.
    """
    try:
        return importlib.import_module(module)
    except Exception as cause:
        raise MissingExtra(module.partition(".")[0], extra, cause) from cause
