"""Where what can be made again is kept: `$SOUP_CACHE`, else `$XDG_CACHE_HOME/soup`, else `~/.cache/soup`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder, which may not exist yet."""
    if chosen := os.environ.get("SOUP_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "soup"
