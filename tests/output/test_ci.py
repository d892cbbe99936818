"""Annotations and JUnit files: read back by what reads them, with whatever names and letters there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.output.ci import formatted, github, junit
from soupcli.report.comparisons import Comparison, GateResult
from soupcli.report.report import Report
from soupcli.wording import legible
from tests.cli.test_process import environment
from tests.conftest import Ran
from tests.helpers.warm import Warm
from tests.report.test_report import report as a_report

Soup = Callable[..., Ran]
LEARNED = ["learned", "--ckpts", "runs/*/", "--val", "val", "test", "--set", "learned.steps=5", "--force"]
COMMAND = re.compile(r"::(?P<level>notice|warning|error) (?P<properties>[^:]*)::(?P<message>[^\r\n]*)")


def annotations_of(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Lines as the runner of GitHub Actions reads them: level, properties, message."""
    found = []
    for line in text.splitlines():
        matched = COMMAND.fullmatch(line)
        assert matched is not None, line
        properties = dict(one.split("=", 1) for one in matched["properties"].split(","))
        found.append(
            (matched["level"], {k: unescaped(v) for k, v in properties.items()}, unescaped(matched["message"]))
        )
    return found


def unescaped(text: str) -> str:
    for mark, letter in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(mark, letter)
    return text


def gate(met: bool | None, **parts: Any) -> GateResult:
    known = {
        "soup": "soup/model.safetensors",
        "set": "val",
        "metric": "accuracy",
        "gate": ">= 80%",
        "key": "gates.val",
        "value": 0.5,
    }
    return GateResult(**{**known, "needed": 0.8, "reason": "50.00%, at least 80.00% is needed", "met": met, **parts})


def compared(**parts: Any) -> Report:
    of = Comparison(
        set="val",
        metric="accuracy",
        soup="soup/model.safetensors",
        best="runs/a",
        difference=0.0,
        low=-0.01,
        high=0.01,
        p=0.5,
        n=20,
        higher_is_better=True,
    )
    return a_report(comparisons=[of, of.model_copy(update={"metric": "nll"})], **parts)


def nowhere(key: str) -> str | None:
    return None


def test_github() -> None:
    """Comparisons are notices, a gate that is not met an error where the recipe gives it, the rest warnings."""
    report = compared(gates=[gate(False), gate(True), gate(None, key="require_gain")], warnings=["a, b: 50%\nof it"])
    found = annotations_of(github(report, lambda key: "a b/soup.yaml:8:3" if key == "gates.val" else None))
    assert [level for level, _, _ in found] == ["notice", "error", "notice", "warning", "warning", "notice"]
    assert found[0][2].startswith("soup 50.0% vs best 50.0%: +0.0 (95% interval -1.0 to +1.0, p = 0.5) on 20 examples")
    where = {"file": "a b/soup.yaml", "line": "8", "col": "3"}
    assert found[1] == (
        "error",
        where | {"title": "soup greedy: val: >= 80%"},
        "50.00%, at least 80.00% is needed",
    )
    assert "file" not in found[3][1]
    assert found[4][2] == "a, b: 50%\nof it"
    assert found[5][2] == "soup/model.safetensors"


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.text(st.characters(codec="utf-8"), max_size=40)
)
def test_any_letters(name: str, reason: str) -> None:
    """Whatever a set or a message holds, one annotation is one line of legible letters; the XML is well formed."""
    report = compared(gates=[gate(False, set=name, reason=reason)])
    text = github(report, nowhere)
    assert text.count("\n") == 3
    lines = [line for line in text.split("\n") if line.startswith("::error")]
    assert len(lines) == 1 and "\r" not in lines[0]
    message = lines[0].split("::", 2)[2]
    assert unescaped(message) == "\n".join(map(legible, reason.split("\n"))) or "%" in reason
    [failure] = ElementTree.fromstring(junit(report).encode()).iter("failure")
    if reason.isprintable():
        assert failure.get("message") == reason


def test_junit() -> None:
    """A parser of JUnit files reads a case for each set and gate, with its result, and the numbers of the suite."""
    report = compared(gates=[gate(False), gate(True), gate(None)], warnings=["flattered"])
    [suite] = junitparser.JUnitXml.fromstring(junit(report).encode())
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("soup greedy", 4, 1, 0, 1)
    cases = list(suite)
    assert [case.name for case in cases] == ["val: soup against best ingredient", *["val: >= 80%"] * 3]
    assert cases[0].is_passed and cases[2].is_passed
    assert cases[3].is_skipped
    [failure] = cases[1].result
    assert isinstance(failure, junitparser.Failure)
    assert failure.message == "50.00%, at least 80.00% is needed"
    assert {one.name: one.value for one in suite.properties()}["soup"] == "soup/model.safetensors"
    assert suite.timestamp == "2026-01-01T00:00:00"


def test_several_soups() -> None:
    """Cases of several soups name theirs."""
    text = junit(a_report(gates=[gate(True, soup="a"), gate(True, soup="b")]))
    assert [case.name for case in next(iter(junitparser.JUnitXml.fromstring(text.encode())))] == [
        *("val: >= 80% (a)", "val: >= 80% (b)")
    ]


def test_letters_that_xml_has_not() -> None:
    """Control characters and bidirectional marks are escapes, bytes of other encodings are replaced."""
    text = formatted("junit", a_report(gates=[gate(False, reason="a\x00b\x1b[0m\udcff\ufffe\x9b\u202e")]), nowhere)
    [failure] = ElementTree.fromstring(text.encode()).iter("failure")
    assert failure.get("message") == r"a\x00b\x1b[0m" + "\ufffd\ufffd" + r"\x9b\u202e"


@pytest.mark.parametrize(("margin", "code"), [("-100", 0), ("100", 1)])
def test_through_a_command(family: Path, soup: Soup, margin: str, code: int) -> None:
    """stdout holds the format alone, and the exit code is that of the gates."""
    with Path("soup.yaml").open("a") as recipe:
        recipe.write(f'gates:\n  test: ">= best {"+" if code else "-"} {margin.lstrip("-")}"\n')
    ran = soup(*LEARNED, "--output-format", "github")
    assert ran.code == code
    found = annotations_of(ran.stdout)
    assert [level for level, _, _ in found] == ["notice", "notice", "error" if code else "notice", "notice"]
    assert found[2][1]["file"] == "soup.yaml"
    assert found[2][1]["line"] == "7"
    ran = soup(*LEARNED, "--output-format", "junit")
    assert ran.code == code
    [suite] = junitparser.JUnitXml.fromstring(ran.stdout.encode())
    assert (suite.tests, suite.failures) == (3, code)


def test_eval(family: Path, soup: Soup) -> None:
    """Soups among evaluated checkpoints are reported alike; without one there is nothing to say."""
    soup("uniform", "--ckpts", "runs/*/")
    words = ["--val", "val", "--set", "gates.val=>= 0%", "--output-format"]
    ran = soup("eval", "--ckpts", "soup", "runs/*/", *words, "junit")
    [suite] = junitparser.JUnitXml.fromstring(ran.stdout.encode())
    assert [case.name for case in suite] == ["val: soup against best ingredient", "val: >= 0%"]
    assert annotations_of(soup("eval", "--ckpts", "soup", "runs/*/", *words, "github").stdout)[1][0] == "notice"
    assert "gates: not checked" in soup("eval", "--ckpts", "runs/*/", *words, "github").stdout


def test_uniform_alone(family: Path, soup: Soup) -> None:
    """A soup without a score is said to be written; its JUnit file has no case."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--output-format", "github")
    assert annotations_of(ran.stdout) == [("notice", {"title": "soup uniform: written"}, "soup/model.safetensors")]
    ran = soup("uniform", "--ckpts", "runs/*/", "--output-format", "junit", "--force")
    [suite] = junitparser.JUnitXml.fromstring(ran.stdout.encode())
    assert suite.tests == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gihtub"], "--output-format gihtub: not known, did you mean 'github'?"),
        (["junit", "--json"], "--output-format junit: --json prints another result"),
        (["github", "--quiet"], "--output-format github: --quiet prints another result"),
    ],
)
def test_refused(family: Path, soup: Soup, words: list[str], message: str) -> None:
    """A format that nobody knows, and two results at once, are refused before anything is done."""
    ran = soup(*LEARNED, "--output-format", *words)
    assert (ran.code, ran.stdout, ran.stderr.splitlines()[0]) == (2, "", message)
    assert not Path("soup").exists()


def test_in_a_pipe(family: Path, warm: Warm) -> None:
    """A shell writes the JUnit file by redirection and sees 1 where a gate is not met; `--json` does so as well."""
    warm.on_path(family / "soup-here", "-m", "soupcli")
    script = (
        "./soup-here greedy --ckpts runs/*/ --val val --require-gain 0.1 --output-format junit > junit.xml; "
        "echo $?; ./soup-here greedy --ckpts runs/*/ --val val --require-gain 0.1 --json --force | tail -1; "
        "echo ${PIPESTATUS[0]}"
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert ran.stdout.split() == ["1", "}", "1"], ran.stderr
    [suite] = junitparser.JUnitXml.fromfile("junit.xml")
    assert suite.failures == 1
    assert json.loads(Path("soup/soup.json").read_text())["gates"][0]["met"] is False
