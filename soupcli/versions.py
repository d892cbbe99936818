"""Versions of everything that a result can depend on."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

from soupcli import __version__

LIBRARIES = ("torch", "timm", "transformers", "open_clip_torch", "torchvision", "pillow", "lm_eval")


def versions() -> dict[str, str]:
    """This program, Python, torch and those model libraries that are installed; none is imported."""
    return dict(_installed())


@functools.cache  # part of the key of every score
def _installed() -> dict[str, str]:
    found = {"soup": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
