"""The result for CI systems: annotations of GitHub Actions, a JUnit file, or a summary in Markdown.

`::error file=soup.yaml,line=8,col=3,title=...::message` as in "Workflow commands for GitHub Actions"; XML as in the
schema that Jenkins' xUnit plugin publishes (junit-10.xsd), one test case for each gate and each comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.etree import ElementTree

from soupcli.late import late_pattern
from soupcli.output import markdown
from soupcli.output.sentences import sentence, where
from soupcli.wording import legible

if TYPE_CHECKING:
    from soupcli.report.comparisons import Comparison, GateResult
    from soupcli.report.report import Report
    from soupcli.report.scores import Ingredient
    from soupcli.report.soups import Soup

Format = Literal["text", "github", "junit", "markdown"]
Level = Literal["notice", "warning", "error"]
_NOT_XML = late_pattern("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\U00010000-\U0010ffff]")


class Finding(NamedTuple):
    """One result of the report: its set, its subject, its outcome, and the key of the recipe that asked for it."""

    name: str
    level: Level
    message: str
    key: str | None = None


def formatted(wanted: str, report: Report, place: Callable[[str], str | None]) -> str:
    """Return the report in any of the formats except text."""
    if wanted == "markdown":
        return markdown.document(report)
    return junit(report) if wanted == "junit" else github(report, place)


def github(report: Report, place: Callable[[str], str | None]) -> str:
    """Return a line for each comparison, gate, warning and soup. `place` locates a recipe key: `soup.yaml:8:3`."""
    found = [*_found(report), *(Finding("warning", "warning", text) for text in report.warnings)]
    if report.soup is not None:
        found.append(Finding("written", "notice", report.soup.path))
    return "".join(f"{_annotation(report.command, one, place)}\n" for one in found)


def _annotation(command: str, found: Finding, place: Callable[[str], str | None]) -> str:
    where_from = place(found.key) if found.key is not None else None
    properties = {}
    if where_from is not None:
        properties = dict(zip(("file", "line", "col"), where_from.rsplit(":", 2), strict=True))
    properties["title"] = f"soup {command}: {found.name}"
    said = ",".join(f"{key}={_escaped(value, of_property=True)}" for key, value in properties.items())
    return f"::{found.level} {said}::{_escaped(found.message)}"


def _escaped(text: str, *, of_property: bool = False) -> str:
    """Escape data and properties as GitHub's toolkit does (packages/core/src/command.ts)."""
    text = "\n".join(map(legible, text.split("\n")))
    marks = {"%": "%25", "\r": "%0D", "\n": "%0A", **({":": "%3A", ",": "%2C"} if of_property else {})}
    return "".join(marks.get(letter, letter) for letter in text)


def junit(report: Report) -> str:
    """Return one suite with a case for each comparison and gate. A gate not met fails, an open one is skipped."""
    cases = list(_found(report))
    levels = [case.level for case in cases]
    counts = {
        "tests": str(len(cases)),
        "failures": str(levels.count("error")),
        "errors": "0",
        "skipped": str(levels.count("warning")),
        "time": f"{sum(report.cost.seconds.values()):.3f}",
    }
    suites = ElementTree.Element("testsuites", counts)
    name, when = f"soup {report.command}", report.created.partition("+")[0]
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **counts, "timestamp": when})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _properties(report).items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": _xml(value)})
    for case in cases:
        about = {"classname": name, "name": _xml(case.name), "time": "0.000"}
        element = ElementTree.SubElement(suite, "testcase", about)
        if case.level == "error":
            ElementTree.SubElement(element, "failure", {"message": _xml(case.message), "type": "gate"})
        elif case.level == "warning":
            ElementTree.SubElement(element, "skipped", {"message": _xml(case.message)})
        else:
            ElementTree.SubElement(element, "system-out").text = _xml(case.message)
    if report.warnings:
        ElementTree.SubElement(suite, "system-err").text = "\n".join(map(_xml, report.warnings))
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, "unicode")}\n'


def _properties(report: Report) -> dict[str, str]:
    soup = {"soup": report.soup.path, "hash": report.soup.hash} if report.soup is not None else {}
    best = {"best": report.best.path} if report.best is not None else {}
    selecting = {"selecting_set": report.selecting_set} if report.selecting_set is not None else {}
    return {**soup, **best, **selecting}


def _xml(text: str) -> str:
    """Return the text as one legible line, without characters that XML forbids: it may be shown in a log."""
    return _NOT_XML.sub("\ufffd", legible(text))


def _found(report: Report) -> Iterator[Finding]:
    """Return the comparisons, on the first metric of each set, then the gates."""
    several = len({of.soup for of in report.comparisons} | {gate.soup for gate in report.gates}) > 1
    seen: set[tuple[str, str]] = set()
    for of in report.comparisons:
        if (of.soup, of.set) not in seen:
            seen.add((of.soup, of.set))
            said = sentence(of, _value(report, of))
            yield Finding(_name(of, several, "soup against best ingredient"), "notice", said)
    for gate in report.gates:
        level: Level = "warning" if gate.met is None else "notice" if gate.met else "error"
        yield Finding(_name(gate, several, gate.gate), level, gate.reason, gate.key)


def _name(of: Comparison | GateResult, several: bool, about: str) -> str:
    return f"{where(of)}: {about}{f' ({of.soup})' if several else ''}"


def _value(report: Report, of: Comparison) -> float | None:
    """Return the soup's score."""
    parts: list[Ingredient | Soup | None] = [*report.ingredients, report.soup]
    scores = {part.path: part.scores for part in parts if part is not None}
    return scores[of.soup][of.set][of.metric].value
