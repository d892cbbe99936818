"""YAML with positions: plain data only, doubled keys refused, numbers as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import RecipeError
from soupcli.recipe import document
from soupcli.recipe.document import parse_value, read_document
from soupcli.recipe.precedence import load_recipe
from soupcli.wording import suggestion


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e+1", -25.0),
        (".5", 0.5),
        ("3", 3),
        ("1_000", 1000),
        ("0x10", 16),
        ("010", "010"),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("0o17", 15),
        ("0", 0),
        ("-7", -7),
        (">", ">"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        (">=", ">="),
        ("[a, 1, {b: .inf}]", ["a", 1, {"b": float("inf")}]),
        ("cuda:0", "cuda:0"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    """Words mean what people expect of them: 1e-3 is a number, `no` and dates are text."""
    found = parse_value(text, "--set x")
    assert found == value
    assert type(found) is type(value)


_text = st.text(st.characters(exclude_categories=["C"]), max_size=20)
_numbers = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
_plain = st.none() | st.booleans() | _numbers | _text
_nested = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3), max_leaves=8
)


@given(_nested)
def test_reads_json(value: Any) -> None:
    """JSON is YAML: whatever is written as JSON reads back the same."""
    text = json.dumps(value, ensure_ascii=False)
    assert parse_value(text, "--set x") == value


def read(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "soup.yaml"
    file.write_text(text)
    return read_document(file)


def test_positions(tmp_path: Path) -> None:
    """Every key and value is known by line and column, both counted from 1."""
    document = read(tmp_path, "# comment\nmodel: {timm: x}\nval:\n  a:\n    input: [p, q]\n")
    file = tmp_path / "soup.yaml"
    assert document.data == {"model": {"timm": "x"}, "val": {"a": {"input": ["p", "q"]}}}
    assert document.position(("model", "timm")) == f"{file}:2:15"
    assert document.position(("model", "timm"), of_key=True) == f"{file}:2:9"
    assert document.position(("val", "a", "input", 1)) == f"{file}:5:16"
    assert document.position(("val", "a", "label")) == f"{file}:5:5"
    assert document.position(("nowhere",)) == f"{file}:2:1"


def test_laid_over(tmp_path: Path) -> None:
    """A flag's value replaces what the file says, and its place with it; what lies below the key goes too."""
    document = read(tmp_path, "model: {timm: x, args: {a: 1}}\n")
    document.lay_over(("model",), {"python": "n.py:f"}, "--set model")
    document.lay_over(("greedy", "min_delta"), 1, "--min-delta", beside_recipe=False)
    assert document.data == {"model": {"python": "n.py:f"}, "greedy": {"min_delta": 1}}
    assert document.position(("model", "args", "a")) == "--set model"
    assert document.position(("greedy",)) == "--min-delta"
    assert document.outside == {"greedy"}


def refusal(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "soup.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RecipeError) as raised:
        read_document(file)
    return str(raised.value).replace(str(file), "soup.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &x 1\nb: *x\n", "soup.yaml:2:4: aliases (*name) are not part of a recipe: write the value out"),
        ("a: !!python/object:os.system 1\n", "soup.yaml:1:4: tags (tag:yaml.org,2002:python/object:os.system) "),
        ("a: [1\n", "soup.yaml:2:1: not YAML: "),
        ("a: 1\n\tb: 2\n", "soup.yaml:2:1: not YAML: "),
        ("- a\n- b\n", "soup.yaml:1:1: a recipe is a mapping of keys, not a list"),
        ("hello\n", "soup.yaml:1:1: a recipe is a mapping of keys, not text"),
        ("12\n", "soup.yaml:1:1: a recipe is a mapping of keys, not a number"),
        ("a: 1\n---\nb: 2\n", "soup.yaml:2:1: not YAML: "),
        ("a: " + "[" * 60 + "]" * 60, "soup.yaml:1:43: nested deeper than 40"),
        (b"a: \xff\n", "soup.yaml: not UTF-8 at byte 3"),
        ("a: 1\n" * 250_000, "soup.yaml: has more than 1000000 bytes"),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, line: str) -> None:
    """What is not plain YAML is refused with its place, before anything is built from it."""
    assert refusal(tmp_path, text).startswith(line)


def test_merge_keys_are_not_special(tmp_path: Path) -> None:
    """`<<` stands for nothing but itself: a key that no recipe has."""
    assert read(tmp_path, "<<: {a: 1}\n").data == {"<<": {"a": 1}}


def test_doubled_keys(tmp_path: Path) -> None:
    """A key given twice is a problem that names both places; PyYAML alone would keep the last."""
    document = read(tmp_path, "a: {b: 1, b: 2}\nc: 1\nc: 2\n")
    assert [problem.replace(str(tmp_path), "") for problem in document.problems] == [
        "/soup.yaml:1:11: a.b: given twice, first at /soup.yaml:1:5",
        "/soup.yaml:3:1: c: given twice, first at /soup.yaml:2:1",
    ]


def test_key_that_is_no_word(tmp_path: Path) -> None:
    """A list as a key is a problem, not a crash."""
    assert read(tmp_path, "? [a, b]\n: 1\n").problems == [f"{tmp_path}/soup.yaml:1:3: a key must be a word"]


def test_missing_file(tmp_path: Path) -> None:
    """A recipe that is not there is an error that says how to make one."""
    with pytest.raises(RecipeError, match="No such file or directory") as raised:
        read_document(tmp_path / "soup.yaml")
    assert raised.value.hint == "soup init writes a recipe"


def test_empty_file(tmp_path: Path) -> None:
    """A file of comments alone is an empty recipe."""
    assert read(tmp_path, "# nothing yet\n").data == {}


def test_suggestion() -> None:
    """The nearest word is suggested; where none is near nothing is said."""
    assert suggestion("acuracy", ["accuracy", "nll"]) == ", did you mean 'accuracy'?"
    assert suggestion("zzz", ["accuracy", "nll"]) == ""


@pytest.mark.parametrize("text", ['a: "x\\0"', 'a: ["\\uD800"]', '"\\uDFFF": 1', 'a: {b: "\\udc80"}'])
def test_escapes_that_are_no_letters(tmp_path: Path, text: str) -> None:
    """A NUL or a lone surrogate, which no path or name can hold, is a problem with its place."""
    [problem] = read(tmp_path, text).problems
    assert problem.endswith("is no letter of a text") and problem.startswith(f"{tmp_path}/soup.yaml:1:")


def test_a_file_of_very_many_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys than anybody writes by hand are refused before they are read; of many problems the first are told."""
    (tmp_path / "soup.yaml").write_text("".join(f"k{number}: 1\n" for number in range(103)))
    with pytest.raises(RecipeError) as refused:
        load_recipe(tmp_path / "soup.yaml")
    lines = str(refused.value).splitlines()
    assert len(lines) == 101 and lines[-1] == f"{tmp_path / 'soup.yaml'}: 3 problems more"
    monkeypatch.setattr(document, "MOST_EVENTS", 100)
    with pytest.raises(RecipeError, match=r"soup\.yaml:\d+:\d+: more than 50 keys and values"):
        load_recipe(tmp_path / "soup.yaml")
