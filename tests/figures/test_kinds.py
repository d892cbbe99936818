"""What figures show of a report, and what they say where a report lacks it."""

from __future__ import annotations

import pytest

from soupcli.errors import UsageError
from soupcli.figures.kinds import KINDS, possible
from tests.figures.made import gathered, greedy, learned, ranked

PATHS = [f"runs/{number:02}" for number in range(12)]


def test_scores() -> None:
    """A panel for the mean and one for each other set; a dot for every ingredient and a mark for every soup in each."""
    figure = KINDS["scores"](gathered(greedy(PATHS), learned(PATHS), ranked(PATHS)))
    assert [panel.y.title for panel in figure.panels] == [
        "mean accuracy of 2 sets (%)",
        "accuracy on test (%)",
        "accuracy on shifted (%)",
    ]
    assert {panel.x.title for panel in figure.panels} == {"accuracy on val (%)"}
    for panel in figure.panels:
        roles = [mark.role for mark in panel.marks]
        assert roles.count("ingredient") == 12
        assert sorted(set(roles)) == ["best", "greedy", "ingredient", "learned", "uniform"]
    soup = next(mark for mark in figure.panels[1].marks if mark.role == "greedy")
    assert (soup.x, soup.y) == (pytest.approx(92.0), pytest.approx(82.0))
    assert soup.y_error == pytest.approx(100 * (0.82 * 0.18 / 400) ** 0.5)
    assert soup.name == "greedy soup (2 of 12): val 92.00% ± 1.36, test 82.00% ± 1.92"
    mean = next(mark for mark in figure.panels[0].marks if mark.role == "greedy")
    assert (mean.y, mean.y_error) == (pytest.approx(77.0), None)
    assert [text for _, text in figure.legend] == [
        "12 ingredients",
        "best ingredient (runs/00)",
        "greedy soup (2 of 12)",
        "uniform soup (12 ingredients)",
        "learned soup (12 of 12)",
    ]


def test_many_dots_have_no_whiskers() -> None:
    """Past 40 ingredients their standard errors are said once; those of soups stay."""
    paths = [f"runs/{number:02}" for number in range(80)]
    figure = KINDS["scores"](gathered(greedy(paths), ranked(paths)))
    dots = [mark for mark in figure.panels[1].marks if mark.role == "ingredient"]
    assert len(dots) == 80 and all(mark.x_error is None and mark.y_error is None for mark in dots)
    assert "they are about 1." in figure.caption
    assert all(mark.x_error for mark in figure.panels[1].marks if mark.role != "ingredient")


def test_scores_that_are_missing() -> None:
    """A greedy report alone names what is missing, and the command that makes it."""
    with pytest.raises(UsageError) as raised:
        KINDS["scores"](gathered(greedy(PATHS)))
    assert str(raised.value) == "0.json: 12 of 12 ingredients have no score on test, e.g. runs/00"
    assert raised.value.hint is not None
    assert raised.value.hint.startswith(
        "soup rank --ckpts runs/* --val val test shifted --report rank.json, then name rank.json as well"
    )
    partly = ranked(PATHS[:9])
    with pytest.raises(UsageError, match=r"3 of 12 ingredients have no score on test, e\.g\. runs/09"):
        KINDS["scores"](gathered(greedy(PATHS), partly))


def test_one_set_alone() -> None:
    """With one set there is nothing to hold the score against."""
    with pytest.raises(UsageError, match="has one set alone, val"):
        KINDS["scores"](gathered(ranked(PATHS, sets=("val",))))


def test_reports_of_other_ingredients() -> None:
    """A report that has none of the first one's ingredients is refused; paths may differ where contents are equal."""
    with pytest.raises(UsageError, match=r"1\.json: has none of the 12 ingredients of 0\.json"):
        gathered(greedy(PATHS), ranked(["else/a", "else/b"]))
    moved = ranked(PATHS)
    for ingredient in moved["ingredients"]:
        ingredient["path"] = f"elsewhere/{ingredient['path']}"
    assert len(KINDS["scores"](gathered(greedy(PATHS), moved)).panels) == 3


def test_a_soup_among_the_ingredients() -> None:
    """Where `soup rank` or `soup eval` scored the soup too, it is no ingredient of its own."""
    soup = greedy(PATHS)
    beside = ranked([*PATHS, "soup"])
    beside["ingredients"][-1]["hash"] = soup["soup"]["hash"]
    figure = KINDS["scores"](gathered(beside, soup))
    assert sum(mark.role == "ingredient" for mark in figure.panels[1].marks) == 12


def test_path() -> None:
    """Every candidate alone, and with the members so far; the line rises where one was kept."""
    figure = KINDS["path"](gathered(greedy(PATHS, kept=3)))
    panel = figure.panels[0]
    roles = [mark.role for mark in panel.marks]
    assert (roles.count("ingredient"), roles.count("kept"), roles.count("left-out")) == (12, 3, 9)
    assert panel.lines[0].paths[0] == (
        (0.0, pytest.approx(90.0)),
        (1.0, pytest.approx(90.0)),
        (1.0, pytest.approx(90.1)),
        (2.0, pytest.approx(90.1)),
        (2.0, pytest.approx(90.2)),
        (11.5, pytest.approx(90.2)),
    )
    assert [name for _, name in panel.x.ticks] == [f"{number:02}" for number in range(12)]
    last = panel.marks[-1].name
    assert last == "with runs/11: 89.00%, at least 90.20% was needed: left out (worse)"
    assert "3 were kept" in figure.caption


def test_path_with_a_nan() -> None:
    """A step whose score is not a number has no mark of its own."""
    document = greedy(PATHS)
    document["steps"][-1] |= {"score": None, "reason": "not a number"}
    roles = [mark.role for mark in KINDS["path"](gathered(document)).panels[0].marks]
    assert (roles.count("ingredient"), roles.count("left-out")) == (12, 9)


def test_coefficients() -> None:
    """Rows are layers, the first one on top; the scale begins at 0, or is even to both sides of it."""
    document = learned(PATHS, layers=5)
    figure = KINDS["coefficients"](gathered(document))
    cells = figure.panels[0].cells
    assert cells is not None
    assert list(map(list, cells.values)) == document["soup"]["coefficients"]["alpha"][::-1]
    assert figure.panels[0].y.ticks[-1] == (4.0, "blocks.0")
    assert (cells.ramp, cells.scale.low) == ("amount", 0.0)
    signed = KINDS["coefficients"](gathered(learned(PATHS, affine=True))).panels[0].cells
    assert signed is not None and signed.ramp == "signed" and signed.scale.low == -signed.scale.high


@pytest.mark.parametrize(("kind", "lacks"), [("path", "no greedy steps"), ("coefficients", "no learned coefficients")])
def test_what_a_report_does_not_hold(kind: str, lacks: str) -> None:
    """A figure of what was not done says which command does it."""
    with pytest.raises(UsageError, match=lacks) as raised:
        KINDS[kind](gathered(ranked(PATHS)))
    assert raised.value.hint is not None and "makes a report that has it" in raised.value.hint


def test_possible() -> None:
    """All that a report holds; of what it lacks only the scores are worth a word."""
    figures, missing = possible(gathered(greedy(PATHS)))
    assert [figure.kind for figure in figures] == ["path"]
    assert [str(error) for error in missing] == ["0.json: 12 of 12 ingredients have no score on test, e.g. runs/00"]
    figures, missing = possible(gathered(learned(PATHS), ranked(PATHS)))
    assert [figure.kind for figure in figures] == ["scores", "coefficients"] and not missing
