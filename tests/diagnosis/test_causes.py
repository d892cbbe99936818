"""The table of known causes and its page in the documentation say the same."""

from __future__ import annotations

from pathlib import Path

from soupcli.diagnosis.causes import CAUSES, markdown

PAGE = Path(__file__).parent.parent.parent / "docs/troubleshooting.md"
BEGIN, END = "<!-- causes: begin -->\n", "<!-- causes: end -->\n"


def test_the_page_is_the_table() -> None:
    """docs/troubleshooting.md holds every cause in the words of the command."""
    _, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    found, _, _ = rest.partition(END)
    assert found == markdown(), f"put this between the marks of {PAGE.name}:\n{markdown()}"


def test_rows_read_well() -> None:
    """Names are unique, words and remedies are whole sentences."""
    assert len({cause.name for cause in CAUSES}) == len(CAUSES)
    assert all(text.endswith((".", ".)")) for cause in CAUSES for text in (cause.words, cause.remedy))
