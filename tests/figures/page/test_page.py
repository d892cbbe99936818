"""The HTML page of a report, parsed: what it says, that it asks nobody for anything, that nothing breaks out of it."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.figures.page import page as page_module
from soupcli.figures.page.html import LONGEST, table
from soupcli.figures.page.page import page
from soupcli.report.tables import Column
from tests.helpers.report_toys import gathered, greedy, learned, ranked, report

PATHS = [f"runs/{number:02}" for number in range(12)]
VOID = {"meta", "br", "hr", "img", "link", "input"}
KNOWN = {"html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2", "p", "div", "table"}
KNOWN |= {"caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "pre", "figure", "figcaption", "details"}
KNOWN |= {
    "nav",
    "span",
    "ul",
    "li",
    "a",
    "summary",
    "svg",
    "desc",
    "g",
    "text",
    "line",
    "rect",
    "circle",
    "polygon",
    "path",
}


class Parsed(HTMLParser):
    """Elements in order with their attributes, the text in each, and whether all of them were closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.within_text = False  # a span does not divide a text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within_text = self.within_text and tag == "span"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.within_text = self.within_text and tag == "span"

    def handle_data(self, data: str) -> None:
        if self.open and self.within_text and self.texts:
            self.texts[-1] = (self.texts[-1][0], self.texts[-1][1] + data)
        elif self.open:
            self.texts.append((next(tag for tag in reversed(self.open) if tag != "span"), data))
        self.within_text = True

    def said(self, tag: str) -> list[str]:
        """The texts in elements of a name."""
        return [text for where, text in self.texts if where == tag]


def comparisons(low: float, high: float) -> list[dict[str, Any]]:
    return [
        {
            "set": name,
            "metric": "accuracy",
            "soup": "soup/model.safetensors",
            "best": "runs/00",
            "difference": (low + high) / 2,
            "low": low,
            "high": high,
            "p": 0.0004,
            "n": 4000,
            "higher_is_better": True,
        }
        for name in ("val", "test")
    ]


def whole(paths: list[str]) -> str:
    one = greedy(paths, comparisons=comparisons(0.001, 0.009), warnings=["val selected this soup"])
    return page(gathered(one, learned(paths), ranked(paths)))


PAGE = whole(PATHS)


def test_what_it_says() -> None:
    """Scores with standard errors, the comparison, steps, members, ingredients, versions, the recipe."""
    parsed = Parsed(PAGE)
    assert not parsed.open
    assert parsed.said("h1") == ["Greedy soup: 2 of 12 ingredients"]
    assert parsed.said("h2") == [
        "Scores",
        "Soup against best ingredient",
        "Figures",
        "Members",
        "Steps",
        "Ingredients",
        "Cost",
        "How it was made",
    ]
    cells = Counter(parsed.said("td"))
    assert cells["92.00% ± 1.36"] >= 1 and cells["left out (worse)"] == 10
    assert cells["+0.50"] == 2 and cells["+0.10 to +0.90"] == 2 and cells["< 0.001"] == 2 and cells["better"] == 2
    heads = parsed.said("th")
    assert all(path in heads and f"with {path}" in heads for path in PATHS)  # as an ingredient and as a step
    assert "val (selected on it)" in heads and "learned soup (12 of 12)" in heads
    assert parsed.said("p")[1] == "Warning: val selected this soup"
    assert parsed.said("dd").count("2.15.0") == 1
    assert "metric: accuracy" in parsed.said("pre")[0]
    figures = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert [attributes["aria-labelledby"] for attributes in figures] == [
        f"{kind}-title {kind}-description" for kind in ("scores", "path", "coefficients")
    ]


@pytest.mark.parametrize(
    ("low", "high", "higher", "verdict"),
    [
        (0.001, 0.01, True, "better"),
        (-0.02, -0.01, True, "worse"),
        (-0.02, -0.01, False, "better"),
        (-0.01, 0.01, True, "too close to tell"),
        (0.0, 0.01, True, "too close to tell"),
        (None, None, True, "not a number"),
    ],
)
def test_verdicts(low: float | None, high: float | None, higher: bool, verdict: str) -> None:
    """An interval that holds 0 tells nothing; otherwise the metric says which side is the good one."""
    row = comparisons(0.0, 0.0)[0] | {"low": low, "high": high, "higher_is_better": higher, "difference": low}
    assert verdict in Parsed(page(gathered(greedy(PATHS, comparisons=[row])))).said("td")


def test_what_a_soup_is_held_against() -> None:
    """A best ingredient that the set did not pick is called so, as on the terminal, and what it is stands below."""
    row = comparisons(0.01, 0.01)[0] | {"cross_fitted": True, "tried": None, "p": 0.2}
    made = page(gathered(greedy(PATHS, comparisons=[row])))
    parsed = Parsed(made)
    assert {"best (cross-fitted)", "too close to tell"} <= set(parsed.said("td"))
    assert any(text.startswith("Cross-fitted: ") for text in parsed.said("p"))


def outside(text: str) -> list[str]:
    """Whatever a page would load or lead to."""
    parsed = Parsed(text)
    places = {f"#{attributes['id']}" for _, attributes in parsed.elements if "id" in attributes}
    asked = [
        f"{tag} {name}={value}"
        for tag, attributes in parsed.elements
        for name, value in attributes.items()
        if (
            name in ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href", "style")
            or name.startswith("on")
        )
        and not (tag == "a" and name == "href" and value in places)
    ]
    asked += [tag for tag, _ in parsed.elements if tag not in KNOWN]
    styles = "".join(parsed.said("style"))
    return asked + re.findall(r"url\(|@import|@font-face|expression\(", styles)


def test_needs_nothing_else() -> None:
    """No reference to any resource, no script, and a policy that forbids all of them."""
    assert outside(PAGE) == []
    assert re.findall(r"https?://\S+?(?=[\"' ])", PAGE) == ["http://www.w3.org/2000/svg"] * 3  # a name, not an address
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in PAGE


def test_reads_without_a_pointer() -> None:
    """One language, one first heading, a caption and scopes in every table, what scrolls can be reached by keys."""
    parsed = Parsed(PAGE)
    tags = Counter(tag for tag, _ in parsed.elements)
    assert tags["h1"] == 1 and tags["caption"] == tags["table"] > 4
    assert dict(parsed.elements)["html"] == {"lang": "en"}
    assert all("scope" in attributes for tag, attributes in parsed.elements if tag == "th")
    scrolling = [attributes for _, attributes in parsed.elements if attributes.get("class") == "scroll"]
    assert scrolling and all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in scrolling)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = " ".join(a["aria-labelledby"] or "" for _, a in parsed.elements if "aria-labelledby" in a).split()
    assert set(named) <= set(ids)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'&amp;\0\x1b[31m",
    "a\udcff</title>",
    "</pre>",
]


def test_hostile_paths() -> None:
    """Paths that are HTML are read as paths, everywhere."""
    text = whole(HOSTILE)
    assert outside(text) == []
    text.encode()
    heads = Parsed(text).said("th")
    assert heads.count("<script>alert(1)</script>") >= 2
    assert "'&amp;\\x00\\x1b[31m" in heads and "a\\udcff</title>" in heads


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=4, unique=True), st.text(max_size=40))
def test_hostile_reports(paths: list[str], words: str) -> None:
    """Whatever the texts of a report are, the page is well formed and asks nobody for anything."""
    one = greedy(
        paths, warnings=[words], recipe={"metric": "accuracy", "note": words, "val": {words: {"images": words}}}
    )
    text = page(gathered(one, learned(paths)))
    text.encode()
    assert outside(text) == []
    assert not Parsed(text).open


def test_gates_and_searches() -> None:
    """What the recipe wanted and whether it came; how many soups a search asked for, in which orders."""
    gate = {"soup": "soup/", "set": "test", "metric": "accuracy", "gate": ">= best - 0.5", "key": "gates.test"}
    gates = [
        gate | {"value": 0.8, "needed": 0.79, "met": True, "reason": "enough"},
        gate | {"value": 0.7, "needed": 0.79, "met": False, "reason": "less"},
        gate | {"value": 0.7, "needed": None, "met": None, "reason": "no ingredient"},
    ]
    order = {"order": PATHS, "members": PATHS[:2], "score": 0.92, "evaluations": 12}
    search = {"strategy": "forward", "evaluations": 24, "orders": [order, order]}
    parsed = Parsed(page(gathered(greedy(PATHS, gates=gates, search=search))))
    assert "Gates" in parsed.said("h2")
    assert [text for text in parsed.said("td") if "met" in text or "compared" in text] == [
        "met",
        "not met",
        "not compared",
    ]
    assert "Strategy forward: 24 soups were asked for." in parsed.said("p")
    assert "Orders that were tried" in parsed.said("summary")


def test_ensembles_and_shared_examples() -> None:
    """Ensembles and the second-best ingredient stand in the table of scores; shared examples are said below."""
    scores = {"val": {"accuracy": {"value": 0.5, "stderr": 0.1, "n": 25}}}
    parts: dict[str, Any] = {
        "ensemble": {"members": PATHS, "scores": scores},
        "second_best": {"path": "runs/01", "scores": scores},
    }
    parsed = Parsed(page(gathered(greedy(PATHS, **parts, shared_examples={"test": 1200}))))
    rows = parsed.said("th")
    assert "ensemble (12 of 12)" in rows and "second-best ingredient (runs/01)" in rows
    assert "1,200 examples of test are in val too, which selects." in parsed.said("p")
    assert "More" not in parsed.said("h2")


def test_inspection() -> None:
    """Verdict, what the files hold, where one differs, and the barrier; a healthy family has no cause to show."""
    value = {"value": 0.5, "stderr": 0.1, "n": 25}
    barrier = {"set": "val", "metric": "accuracy", "mean": {"accuracy": value}, "half_way": {"runs/00": {}}}
    found = {
        "mixable": True,
        "checkpoints": [{"path": "runs/00", "tensors": 4, "parameters": 12345}],
        "differences": [{"path": "runs/00", "kind": "shape", "tensor": "<b>", "found": "[1]", "expected": "[2]"}],
        "duplicates": [["runs/01", "runs/02"]],
        "barriers": [barrier | {"height": {"runs/00": 0.125}}],
        "verdicts": [
            {"cause": "no common start", "evidence": "89.9°", "words": "two starts", "remedy": "leave out"}
            | {"sure": "likely", "accused": ["runs/01", "runs/02"]}
        ],
    }
    parsed = Parsed(page(gathered(report("inspect", PATHS, inspection=found))))
    assert parsed.said("h2")[:3] == ["Verdict", "Checkpoints", "Barriers"]
    cells = parsed.said("td")
    assert "no common start (likely)" in parsed.said("th")
    assert {"runs/01, runs/02", "89.9°", "two starts", "leave out", "12,345", "+0.1250", "50.00% ± 10.00"} <= set(cells)
    assert "runs/00: shape of <b>: [1], most have [2]" in parsed.said("p")
    assert "runs/02: the same weights as runs/01" in parsed.said("p")
    healthy = found | {"verdicts": []}
    said = Parsed(page(gathered(report("inspect", PATHS, inspection=healthy)))).said("p")
    assert "No problem found." in said
    refused = found | {"mixable": False, "refused": "runs/01: shape", "verdicts": []}
    said = Parsed(page(gathered(report("inspect", PATHS, inspection=refused)))).said("p")
    assert "These checkpoints cannot be mixed: runs/01: shape" in said


def test_other_commands() -> None:
    """A ranking has no soup, an old report no comparison: what is not there has no heading."""
    parsed = Parsed(page(gathered(ranked(PATHS))))
    assert parsed.said("h1") == ["Ranking of 12 checkpoints"]
    assert parsed.said("h2") == ["Scores", "Figures", "Ingredients", "Cost", "How it was made"]
    alone = Parsed(page(gathered(greedy(PATHS))))
    assert "Soup against best ingredient" not in alone.said("h2")
    assert any(text.startswith("Not drawn: 0.json: 12 of 12 ingredients") for text in alone.said("p"))


def test_a_part_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the report that the page has no place for stands at its end as it is: none is lost."""
    monkeypatch.setattr(page_module, "SAID", page_module.SAID - {"warnings"})
    parsed = Parsed(page(gathered(greedy(PATHS, warnings=["<b>later</b>"]))))
    assert parsed.said("h2")[-1] == "More" and parsed.said("pre")[-1] == "- <b>later</b>"


LONG = [
    f"/data/clip-finetune/lr{lr}_mixup0.2_randaug-m9_seed{seed}/checkpoints/last.pt"
    for lr in ("1e-5", "3e-5")
    for seed in range(10)
]


def test_long_paths() -> None:
    """Tables and figures name what differs; the table of ingredients has the whole paths, once each."""
    text = page(gathered(greedy(LONG)))
    parsed = Parsed(text)
    cells = parsed.said("th") + parsed.said("td")
    assert "lr1e-5_seed3" in cells and "best ingredient (lr1e-5_seed0)" in cells
    assert Counter(parsed.said("td"))[LONG[3]] == 1
    assert "lr3e-5_seed7" in parsed.said("text")


def test_contents() -> None:
    """Links to the sections that are there, in their order, before the first; none on a page with one."""
    parsed = Parsed(page(gathered(greedy(PATHS))))
    links = [str(attributes["href"]) for tag, attributes in parsed.elements if tag == "a"]
    headings = [f"#{attributes['id']}" for tag, attributes in parsed.elements if tag == "h2"]
    assert links == headings and len(links) > 3
    tags = [tag for tag, _ in parsed.elements]
    assert tags.index("nav") < tags.index("section")


def test_names_stay_whole() -> None:
    """A name that fits a narrow screen does not break at its hyphens, nor do its brackets; a long one may."""
    made = table("Names", [Column("weights")], [["best (lr1e-5_seed0)"], [f"a-{'b' * LONGEST}"], ["<x>-y"]])
    assert '<th scope="row">best <span class="whole">(lr1e-5_seed0)</span></th>' in made
    assert f'<th scope="row">a-{"b" * LONGEST}</th>' in made and ">&lt;x&gt;-y</span>" in made
    assert "x" * 300_000 in table("Names", [Column("weights")], [["x" * 300_000]])  # each letter is looked at once
