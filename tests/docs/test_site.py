"""mkdocs.yml: the site has every page. `make site` builds it, and takes no dead link."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MADE = {"index.md", "configs.md", "gallery.md", "contributing.md", "security.md", "changelog.md"}


def pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages(value)


def test_every_page_is_in_the_site() -> None:
    """The site's list names every page of docs/ once, and those that docs/site_pages.py makes."""
    nav = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert sorted(nav) == sorted([*MADE, *(page.name for page in (ROOT / "docs").glob("*.md"))])
