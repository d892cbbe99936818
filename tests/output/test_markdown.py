"""The Markdown of a report, read back by a parser: it has what the terminal shows, and no name is Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from soupcli.output.markdown import document
from soupcli.report.report import Report
from soupcli.wording import legible
from tests.conftest import Ran
from tests.helpers.report_toys import greedy

Soup = Callable[..., Ran]
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NAMES = st.text(
    st.sampled_from("ab1.-+=|\\`*_#<>&;:/@![](){}~$ \n\t\u202e") | st.characters(codec="utf-8"), max_size=20
)
HARMLESS = {"text", "html_inline", "text_special"}


def parsed(text: str) -> list[Token]:
    return PARSER.parse(text)


def texts(text: str) -> list[str]:
    """What a reader sees of each paragraph, heading and cell."""
    found = []
    for token in parsed(text):
        if token.type == "inline":
            assert {child.type for child in token.children or ()} <= HARMLESS | {"strong_open", "strong_close"}, token
            found.append("".join(child.content for child in token.children or () if child.type != "html_inline"))
    return found


def spaced(text: str) -> str:
    """The text with one space for each sequence of them, as Markdown is shown."""
    return re.sub(r"\s+", " ", text)


@given(NAMES)
def test_any_name(name: str) -> None:
    """A member of any name is seen as that name: as a row of the table, in a list, and nowhere as Markdown."""
    path = f"{name}x"
    report = Report.model_validate(greedy([path, "b"], warnings=[path]))
    seen = [spaced(one) for one in texts(document(report))]
    shown = spaced(legible(path))
    assert f"best ingredient ({shown})" in seen
    assert f"members: {shown}, b" in seen and shown.strip() in seen


def test_through_commands(family: Path, soup: Soup) -> None:
    """`--output-format markdown` and `soup report --out NAME.md` give the same: the terminal's table and sentences."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--output-format", "markdown")
    assert ran.code == 0, ran.stderr
    assert soup("report", "soup/soup.json", "--out", "report.md").code == 0
    assert Path("report.md").read_text() == ran.stdout
    assert soup("report", "soup/soup.json", "--out", "report.md").code == 0
    rows = [token for token in parsed(ran.stdout) if token.type == "tr_open"]
    assert len(rows) == 3 + 6  # weights, then steps
    seen = texts(ran.stdout)
    assert (
        seen[0] == "soup greedy" and "test accuracy ↑" in seen and any(one.startswith("members: runs/") for one in seen)
    )
    Path("report.md").write_text("# mine")
    assert soup("report", "soup/soup.json", "--out", "report.md").code == 2
