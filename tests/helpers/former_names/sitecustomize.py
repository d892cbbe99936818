"""Lets the cases beside this folder import what they test by the names that modules had before they moved.

Python runs this at its start where the folder is on PYTHONPATH: `make cases` puts it there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def today(module: str, name: str) -> Callable[..., Any]:
    """Return what is called so today."""
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def sentence(comparison: object, soup: float, _best: float) -> str:
    """Return the sentence about a comparison, which knows the best ingredient's value itself now."""
    said: str = today("soupcli.output.sentences", "sentence")(comparison, soup)
    return said


# A former module, and how to come by each name that is imported from it.
FORMER: dict[str, dict[str, Callable[[], object]]] = {
    "soupcli.validation": {},
    "soupcli.validation.paired": {"difference": lambda: today("soupcli.evaluation.paired_difference", "difference")},
    "soupcli.validation.score": {
        "Score": lambda: today("soupcli.evaluation.score", "Score"),
        "MetricValue": lambda: today("soupcli.metrics.metric", "MetricValue"),
    },
    "soupcli.soups.facts": {"surely_better": lambda: today("soupcli.diagnosis.facts", "surely_better")},
    "soupcli.cli.comparing": {"sentence": lambda: sentence},
}


class _FormerModules(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        is_package = any(name.startswith(f"{fullname}.") for name in FORMER)
        return ModuleSpec(fullname, self, is_package=is_package) if fullname in FORMER else None

    def create_module(self, _spec: ModuleSpec) -> None:
        """Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        for name, found in FORMER[module.__name__].items():
            setattr(module, name, found())


sys.meta_path.append(_FormerModules())
