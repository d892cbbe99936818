"""Brings into the site what lies outside of docs/: README, the top level's pages, the recipes of configs/.

    make site    # mkdocs runs this hook; mkdocs.yml has the order of the pages

A link is rewritten to the page that stands for its target. One to a source file becomes its name: the site has none.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")
FIGURE = re.compile(r"!\[[^\]]+\]\([\w/.-]+\.svg\)")
IMAGE = re.compile(r"!\[(?P<text>[^\]]*)\]\(docs/(?P<target>[^)]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "configs.md", content=recipes()))
    files.append(File.generated(config, "gallery.md", content=gallery()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with links that work in the site."""
    uri = page.file.src_uri
    source = next((name for name, made in PAGES.items() if made == uri), f"docs/{uri}")

    def link(found: re.Match[str]) -> str:
        if ":" in found["target"]:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["target"]))
        made = page_of(target)
        return found["text"] if made is None else f"[{found['text']}]({made}{found['anchor'] or ''})"

    return LINK.sub(link, IMAGE.sub(r"![\g<text>](\g<target>)", markdown))


def page_of(target: str) -> str | None:
    """The page of the site that stands for a file of the repository, if there is one."""
    if target.startswith("configs"):
        name = Path(target).name
        return "configs.md" if target == "configs" else f"configs.md#{name.lower().replace('.', '')}"
    return PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)


def recipes() -> str:
    """A page with every recipe of configs/ as it is."""
    parts = ["# Recipes of whole systems\n\nEach begins with its command, what it needs and the score to expect.\n"]
    for file in sorted((ROOT / "configs").iterdir()):
        if file.suffix in (".yaml", ".sh", ".py"):
            kind = {".yaml": "yaml", ".sh": "bash", ".py": "python"}[file.suffix]
            parts.append(f"## {file.name}\n\n```{kind}\n{file.read_text('utf-8')}```\n")
    return "\n".join(parts)


def gallery() -> str:
    """A page with every figure of the pages, and the page that it is of."""
    parts = ["# Gallery\n\nEvery figure comes from a report, by a command that its page shows.\n"]
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        made = PAGES.get(page.name, page.name)
        text = page.read_text("utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        for figure in FIGURE.findall(text):
            shown = figure.replace("](docs/", "](")
            caption = figure[2 : figure.index("]")]
            parts.append(f"## {caption}\n\n{shown}\n\nFrom [{title}]({made}).\n")
    return "\n".join(parts)
