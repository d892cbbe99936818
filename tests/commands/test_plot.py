"""`soup plot` on reports of real runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Ran

Soup = Callable[..., Ran]


def test_all_figures(souped: Path, soup: Soup) -> None:
    """Without --kind each figure that the reports hold is a file of its own, and stdout names them."""
    ran = soup("plot", "soup/soup.json", "rank.json", "--out", "out/a.png")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == ["out/a-scores.png", "out/a-path.png"]
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in ran.stdout.splitlines())


def test_figure_1(souped: Path, soup: Soup) -> None:
    """One --kind goes to --out: five dots, best, uniform and greedy. A folder stands for the report in it."""
    ran = soup("plot", "soup", "rank.json", "--kind", "scores", "--out", "figure.svg", "--theme", "dark")
    assert (ran.code, ran.stdout) == (0, "figure.svg\n"), ran.stderr
    root = ElementTree.parse("figure.svg").getroot()
    marks = [element.get("class") for element in root.iter() if element.tag[-7:] in ("}circle", "polygon")]
    roles = ("ingredient", "best", "uniform", "greedy")
    assert {role: marks.count(role) for role in marks} == dict(zip(roles, (6, 2, 2, 2), strict=True))  # legend too
    assert "matplotlib" not in Path("figure.svg").read_text()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "5 ingredients" in texts and "accuracy on test (%)" in texts


def test_what_is_missing(souped: Path, soup: Soup) -> None:
    """The report of a greedy soup alone: the path is drawn, the rest is said; asked for by name it is an error."""
    ran = soup("plot", "soup/soup.json")
    assert (ran.code, ran.stdout) == (0, "plot-path.png\n")
    assert ran.stderr.startswith("not drawn: soup/soup.json: 5 of 5 ingredients have no score on test")
    assert "hint: soup rank --ckpts runs/* --val val test --report rank.json" in ran.stderr
    assert soup("plot", "soup/soup.json", "--quiet").stderr == ""
    ran = soup("plot", "soup/soup.json", "--kind", "scores")
    assert (ran.code, ran.stdout) == (2, "") and "\nhint: soup rank" in ran.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--out", "a.pdf"), "--out a.pdf: a picture ends in .png or .svg"),
        (("--kind", "score"), "--kind score: no such figure, did you mean 'scores'?"),
        (("--kind", "coefficients"), "soup/soup.json: no learned coefficients"),
        (("absent.json",), "absent.json: No such file or directory"),
        (("net.py",), "net.py: not a report of a soup"),
        (("rank.json", "--out", "soup.yaml/a.png"), "nothing can be written in soup.yaml"),
    ],
)
def test_errors(souped: Path, soup: Soup, words: tuple[str, ...], says: str) -> None:
    """Wrong input is one line and exit code 2, and no file appears."""
    before = set(souped.rglob("*"))
    ran = soup("plot", "soup/soup.json", *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert says in ran.stderr.splitlines()[0]
    assert set(souped.rglob("*")) == before


def test_nothing_to_draw(family: Path, soup: Soup) -> None:
    """A uniform soup without a validation set has no figure; the hint says what has."""
    soup("uniform", "--ckpts", "runs/*/")
    ran = soup("plot", "soup")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(
        "soup/soup.json: holds nothing to draw\n\nhint: reports of soup greedy, learned, landscape"
    )


def test_another_version(souped: Path, soup: Soup) -> None:
    """A report of another schema, and keys that matter and are unknown, name the version that wrote them."""
    report = json.loads(Path("soup/soup.json").read_text())
    report["versions"]["soup"] = "9.1.0"
    Path("new.json").write_text(json.dumps({**report, "schema": "soup-report/2"}))
    for command in ("plot", "report", "mix"):
        ran = soup(command, "new.json")
        assert (ran.code, "is a soup-report/2 of soup 9.1.0, this soup reads soup-report/1" in ran.stderr) == (2, True)
    Path("new.json").write_text(json.dumps({**report, "of_tomorrow": 1}))
    ran = soup("mix", "new.json")
    assert (
        ran.code == 2
        and "new.json: of_tomorrow is unknown to soup" in ran.stderr
        and "soup 9.1.0 wrote it" in ran.stderr
    )


def test_keys_of_a_later_version(souped: Path, soup: Soup) -> None:
    """Keys that this version does not know are passed over; a key that is wrong is an error."""
    report = json.loads(Path("soup/soup.json").read_text())
    report |= {"of_tomorrow": {"a": 1}}
    report["soup"]["scores"]["val"]["accuracy"]["later"] = [1, 2]
    report["steps"][0]["new"] = None
    Path("new.json").write_text(json.dumps(report))
    assert soup("plot", "new.json", "--quiet").code == 0
    Path("new.json").write_text(json.dumps(report | {"sets": 3}))
    ran = soup("plot", "new.json", "--quiet")
    assert ran.code == 2 and "new.json: not a report of a soup: sets:" in ran.stderr
