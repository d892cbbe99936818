"""What figures show of a report, and what they say where a report lacks it."""

from __future__ import annotations

from typing import Any

import pytest

from soupcli.errors import UsageError
from soupcli.figures.registry import KINDS, possible
from tests.helpers.report_toys import gathered, greedy, learned, ranked, report, score

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


def test_scores_say_what_the_soup_gains() -> None:
    """Differences with their intervals; the best one is called cross-fitted if it is, a small loss keeps its sign."""
    both = {"metric": "accuracy", "soup": "soup", "best": "runs/00", "n": 400, "higher_is_better": True}
    on_test = both | {"set": "test", "difference": 0.01, "low": -0.00002, "high": 0.02, "cross_fitted": True}
    on_val = both | {"set": "val", "difference": 0.02, "low": 0.01, "high": 0.03, "tried": 9}
    caption = KINDS["scores"](gathered(greedy(PATHS, comparisons=[on_test, on_val]), ranked(PATHS))).caption
    assert caption.endswith(
        " With 95% intervals, val (selected on it, of 9 tried): soup less best +2.00 (+1.00 to +3.00); "
        "test: soup less best (cross-fitted) +1.00 (-0.002 to +2.00)."
    )


def test_ensembles() -> None:
    """Ensembles of all and of greedily chosen ingredients are marked apart from soups and from each other."""
    beside = {"val": score(0.93), "test": score(0.84), "shifted": score(0.75)}
    ensembles: dict[str, Any] = {
        "ensemble": {"members": PATHS, "scores": beside},
        "greedy_ensemble": {"members": PATHS[:5], "scores": beside},
        "second_best": {"path": PATHS[1], "scores": beside},
    }
    figure = KINDS["scores"](gathered(greedy(PATHS, **ensembles), ranked(PATHS)))
    assert {mark.role for mark in figure.panels[1].marks} == {
        *("ingredient", "best", "greedy", "ensemble", "greedy-ensemble")
    }
    texts = [text for _, text in figure.legend]
    assert "ensemble (12 of 12)" in texts and "greedy ensemble (5 of 12)" in texts


def test_many_dots_have_no_whiskers() -> None:
    """Past 40 ingredients their standard errors are said once; those of soups stay."""
    paths = [f"runs/{number:02}" for number in range(80)]
    figure = KINDS["scores"](gathered(greedy(paths), ranked(paths)))
    dots = [mark for mark in figure.panels[1].marks if mark.role == "ingredient"]
    assert len(dots) == 80 and all(mark.x_error is None and mark.y_error is None for mark in dots)
    assert "on val about 1." in figure.caption
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
    panel: Any = figure.panels[0]
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
    assert "12 steps, of which 3 were taken" in figure.caption


def test_path_of_other_searches() -> None:
    """Members that were tried without, and soups of their own, are named as what they are."""
    document = greedy(PATHS)
    document["steps"][2] |= {"action": "remove", "accepted": True, "reason": "better"}
    document["steps"][3] |= {"action": "take", "members": ["runs/01", "runs/02"]}
    figure = KINDS["path"](gathered(document))
    assert [name for _, name in figure.panels[0].x.ticks][2:4] == ["− 02", "03"]
    names = [mark.name.split(":")[0] for mark in figure.panels[0].marks if mark.role != "ingredient"]
    assert names[2:5] == ["without runs/02", "runs/01 + runs/02", "with runs/04"]
    assert [text for _, text in figure.legend] == ["candidate alone", "taken", "not taken"]


def landscape(paths: list[str]) -> dict[str, Any]:
    """A report of `soup landscape` over a bowl whose least error is at (1, 1)."""
    columns, rows = [-1.0, 0.0, 1.0, 2.0, 3.0], [-1.0, 0.0, 1.0, 2.0]

    def place(x: float, y: float) -> dict[str, Any]:
        height = 0.95 - 0.02 * ((x - 1) ** 2 + (y - 1) ** 2)
        weights = [1 - x / 2 - y / 2, x / 2, y / 2]
        return {"x": x, "y": y, "weights": weights, "scores": {name: score(height) for name in ("val", "test")}}

    found = {
        "members": paths,
        "corners": [place(0, 0), place(2, 0), place(0, 2)],
        "mean": place(2 / 3, 2 / 3),
        "columns": columns,
        "rows": rows,
        "grid": [place(x, y) for y in rows for x in columns],
    }
    return report("landscape", paths, sets=("val", "test"), landscape=found)


def test_landscape() -> None:
    """A panel for each set: cells of error, corners by letter and the mean; a soup of the three lies where it lies."""
    document = landscape(PATHS[:3])
    document["landscape"]["grid"][7]["scores"]["val"]["accuracy"]["value"] = None
    figure = KINDS["landscape"](gathered(document, greedy(PATHS[:3], kept=2)))
    assert [panel.cells.scale.title for panel in figure.panels if panel.cells] == [
        "error on val (%)",
        "error on test (%)",
    ]
    first, second = figure.panels
    assert first.cells is not None and second.cells is not None
    assert first.cells.values[1][2] is None
    assert second.cells.values[2][2] == pytest.approx(5.0)
    assert second.cells.x_edges == (-1.5, -0.5, 0.5, 1.5, 2.5, 3.5)
    assert [text for _, text in second.texts] == ["A", "B", "C"]
    assert [(mark.role, mark.x, mark.y) for mark in second.marks] == [
        ("corner", 0, 0),
        ("corner", 2, 0),
        ("corner", 0, 2),
        ("mean", pytest.approx(2 / 3), pytest.approx(2 / 3)),
        ("greedy", 1.0, 0.0),
    ]
    assert [text for _, text in figure.legend] == [
        "A: runs/00",
        "B: runs/01",
        "C: runs/02",
        "their mean",
        "greedy soup",
    ]
    scale = (second.x.high - second.x.low) / second.width, (second.y.high - second.y.low) / second.height
    assert scale[0] == pytest.approx(scale[1])  # a circle is a circle
    assert len(second.lines[1].paths) > 10
    others = KINDS["landscape"](gathered(document, greedy(PATHS[:4], kept=4)))
    assert {mark.role for mark in others.panels[0].marks} == {"corner", "mean"}


def test_angles() -> None:
    """A dot for each pair that has an angle and a gain, one standard error to each side, and a line at 0."""
    gain = {"set": "val", "metric": "accuracy", "soup": "", "best": "runs/00", "n": 400, "higher_is_better": True}
    measured = [
        {
            "members": PATHS[:2],
            "angle": 60.0,
            "scores": {},
            "gains": [gain | {"difference": 0.01, "low": -0.0096, "high": 0.0296}],
        },
        {"members": PATHS[1:3], "angle": 70.0, "scores": {}, "gains": [gain | {"difference": -0.02}]},
        {"members": PATHS[2:4], "angle": None, "scores": {}, "gains": [gain | {"difference": 0.5}]},
    ]
    pairs = {"start": "start", "possible": 66, "seed": 0, "pairs": measured}
    figure = KINDS["angles"](gathered(report("pairs", PATHS, sets=("val",), pairs=pairs)))
    panel = figure.panels[0]
    assert [(mark.x, mark.y) for mark in panel.marks] == [(60.0, 1.0), (70.0, -2.0)]
    assert [mark.y_error for mark in panel.marks] == [pytest.approx(1.0), None]
    assert panel.lines[0].paths == (((panel.x.low, 0.0), (panel.x.high, 0.0)),)
    assert "one of 3 of 66 pairs" in figure.caption and "start" in figure.caption


def test_a_long_path_reads_downwards() -> None:
    """Past 16 steps each candidate has a line of its own, the first on top; the scores go across."""
    paths = [f"runs/{number:02}" for number in range(40)]
    panel: Any = KINDS["path"](gathered(greedy(paths, kept=3))).panels[0]
    assert [words for _, words in panel.y.ticks] == [f"{number:02}" for number in range(40)]
    assert panel.y.ticks[0][0] == 39 and panel.height >= 14 * 40
    first = next(mark for mark in panel.marks if mark.role == "kept")
    assert (first.x, first.y) == (pytest.approx(90.0), 39)


def test_the_axis_shows_the_rise() -> None:
    """A candidate that fails does not flatten the path: its marks stand at the end of the axis, which is said."""
    document = greedy(PATHS, kept=3)
    for step in document["steps"][-2:]:
        step["score"] = 0.1
    figure = KINDS["path"](gathered(document))
    panel = figure.panels[0]
    assert panel.y.low > 60
    assert all(panel.y.low <= mark.y <= panel.y.high for mark in panel.marks)
    assert "2 marks lie beyond the axis" in figure.caption


def test_what_was_given_up_has_a_mark_of_its_own() -> None:
    """An upper bound is no score: it has another shape, and the legend says so."""
    document = greedy(PATHS, kept=3)
    step = document["steps"][-1]
    step["bound"], step["score"] = step["score"], None
    figure = KINDS["path"](gathered(document))
    assert [mark.role for mark in figure.panels[0].marks].count("at-best") == 1
    assert ("at-best", "given up: at best") in figure.legend
    assert "at-best" not in dict(KINDS["path"](gathered(greedy(PATHS))).legend)


def test_ingredients_that_failed_do_not_squeeze_the_others() -> None:
    """Far below the others they stand at the ends of the axes, which is said; whiskers stay inside the frame."""
    document = ranked([f"runs/{number:02}" for number in range(30)])
    for ingredient in document["ingredients"][-2:]:
        ingredient["scores"] = {name: score(0.1) for name in ("val", "test", "shifted")}
    figure = KINDS["scores"](gathered(document))
    assert all(panel.x.low > 50 and panel.y.low > 40 for panel in figure.panels)
    assert "2 ingredients lie far below" in figure.caption


def test_alpha() -> None:
    """A mark for each point of every set, the taken one filled, and a line through them."""
    points = [{"alpha": a / 4, "scores": {"val": score(0.8 + a / 100), "test": score(0.7)}} for a in range(5)]
    document = report("mix", PATHS, sets=("val", "test"), alphas=points, alpha=0.75)
    figure = KINDS["alpha"](gathered(document))
    marks = figure.panels[0].marks
    assert [(mark.x, mark.y) for mark in marks] == [(a / 4, pytest.approx(80 + a)) for a in range(5)]
    assert [mark.role for mark in marks] == ["left-out", "left-out", "left-out", "kept", "left-out"]
    assert marks[0].y_error == pytest.approx(2.0)
    assert figure.panels[0].lines[0].paths == (tuple((mark.x, mark.y) for mark in marks),)
    assert [panel.y.title for panel in figure.panels] == ["accuracy on val (%)", "accuracy on test (%)"]


def inspected(**parts: Any) -> dict[str, Any]:
    """A report of `soup inspect` over three ingredients."""
    angles = [[0.0, 10.0, 20.0], [10.0, 0.0, 30.0], [20.0, 30.0, 0.0]]
    geometry = {
        "paths": PATHS[:3],
        "from_mean": [1.0, 1.0, 1.0],
        "distances": angles,
        "angles": angles,
        "layer_spread": {"blocks.0": 0.25, "head": None},
    }
    found = {"mixable": True, "checkpoints": [], "geometry": geometry | parts}
    return report("inspect", PATHS[:3], sets=("val",), inspection=found)


def test_geometry() -> None:
    """Every two ingredients' angle, none with itself, offsets where there is a base; each layer that has a spread."""
    angles, layers = KINDS["geometry"](gathered(inspected())).panels
    assert angles.cells is not None
    assert angles.cells.values == ((20.0, 30.0, None), (10.0, None, 30.0), (None, 10.0, 20.0))
    assert [name for _, name in angles.y.ticks] == ["02", "01", "00"]
    assert [(mark.x, mark.y) for mark in layers.marks] == [(0, 25.0)]
    offsets = [[0.0, 70.0, None], [70.0, 0.0, 80.0], [None, 80.0, 0.0]]
    figure = KINDS["geometry"](gathered(inspected(base="start", offset_angles=offsets, layer_spread={})))
    assert len(figure.panels) == 1 and "offsets from start" in figure.caption
    assert figure.panels[0].cells is not None
    assert figure.panels[0].cells.values == ((None, 80.0, None), (70.0, None, 80.0), (None, 70.0, None))
    many = inspected(angles=[], distances=[])
    assert [panel.title for panel in KINDS["geometry"](gathered(many)).panels] == [layers.title]
    with pytest.raises(UsageError, match="no geometry: it lists no pairs of 3 ingredients"):
        KINDS["geometry"](gathered(inspected(angles=[], distances=[], layer_spread={})))
    blamed = inspected()
    cause = {"cause": "no common start", "evidence": "", "words": "", "remedy": ""}
    blamed["inspection"]["verdicts"] = [cause | {"sure": "likely", "accused": ["runs/01"]}]
    assert KINDS["geometry"](gathered(blamed)).caption.endswith(" Verdict: no common start (likely): runs/01.")
    refused = inspected()
    refused["inspection"] |= {"mixable": False, "refused": "runs/01: tensor 'a' differs", "geometry": None}
    with pytest.raises(UsageError, match="no geometry: these checkpoints cannot be mixed: runs/01: tensor 'a'"):
        KINDS["geometry"](gathered(refused))


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


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        ("path", "no greedy steps"),
        ("coefficients", "no learned coefficients"),
        ("alpha", "no points between"),
        ("landscape", "no landscape"),
        ("angles", "no pairs"),
        ("geometry", "no geometry"),
    ],
)
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
