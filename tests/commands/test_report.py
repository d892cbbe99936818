"""`soup report` on reports of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Ran

Soup = Callable[..., Ran]


def test_page(family: Path, soup: Soup) -> None:
    """One file that holds every score of the report as the tables of the command show them; stdout names it."""
    table = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--with-uniform").stdout
    ran = soup("report", "soup")
    assert (ran.code, ran.stdout, ran.stderr) == (0, "report.html\n", "")
    text = Path("report.html").read_text("utf-8")
    scores = [word for line in table.splitlines()[1:4] for word in line.split("  ")[1:] if "±" in word]
    assert len(scores) == 6 and all(score.strip() in text for score in scores)
    assert "Not drawn: soup/soup.json: 5 of 5 ingredients have no score on test" in text
    soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--report", "rank.json")
    assert soup("report", "soup/soup.json", "rank.json", "--out", "whole.html").code == 0
    assert "accuracy on test (%)" in Path("whole.html").read_text("utf-8")


def test_the_same_page_again(family: Path, soup: Soup) -> None:
    """The page depends on the report alone."""
    soup("uniform", "--ckpts", "runs/*/", "--val", "val")
    pages = []
    for name in ("a.html", "b.html"):
        assert soup("report", "soup/soup.json", "--out", name).code == 0
        pages.append(Path(name).read_bytes())
    assert pages[0] == pages[1]


def test_errors(family: Path, soup: Soup) -> None:
    """A report that is none, and a place that takes no file."""
    ran = soup("report", "net.py")
    assert (ran.code, ran.stdout) == (2, "") and ran.stderr.startswith("net.py: not a report of a soup")
    soup("uniform", "--ckpts", "runs/*/")
    ran = soup("report", "soup", "--out", "runs")
    assert ran.code == 2 and ran.stderr.startswith("runs: is a folder, a file was expected\n")
