"""The language of gates: what is read, what is refused and how it is said, and which set and metric a key names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import RecipeError
from soupcli.recipe.gates import Bound, parse, parse_gain, wanted
from soupcli.recipe.precedence import load_recipe

SETS = "val:\n  imagenet-a: {images: a}\n  data.v2: {images: b}\n"


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        (">= best - 0.5", Bound(">=", True, Fraction(-1, 2))),
        (">=best", Bound(">=", True, Fraction(0))),
        ("<= best + 0.01", Bound("<=", True, Fraction(1, 100))),
        ("> best+.5%", Bound(">", True, Fraction(1, 2), per_cent=True)),
        (">= 0.8", Bound(">=", False, Fraction(4, 5))),
        (" >=  80 % ", Bound(">=", False, Fraction(80), per_cent=True)),
        ("< 12", Bound("<", False, Fraction(12))),
        (">= -0.25", Bound(">=", False, Fraction(-1, 4))),
    ],
)
def test_read(text: str, bound: Bound) -> None:
    """Every form of the language, whatever the spaces; numbers are taken as they are written, not as binary ones."""
    assert parse(text) == bound


@given(
    sign=st.sampled_from([">=", ">", "<=", "<"]),
    best=st.booleans(),
    way=st.sampled_from("+-"),
    hundredths=st.integers(0, 10**6),
    per_cent=st.booleans(),
)
def test_round_trip(sign: str, best: bool, way: str, hundredths: int, per_cent: bool) -> None:
    """What is written is what is read."""
    number = f"{hundredths // 100}.{hundredths % 100:02}{'%' if per_cent else ''}"
    bound = parse(f"{sign} best {way} {number}" if best else f"{sign} {'-' if way == '-' else ''}{number}")
    assert bound == Bound(bound.sign, best, Fraction(hundredths, 100) * (1 if way == "+" else -1), per_cent)
    assert bound.sign == sign


@pytest.mark.parametrize(
    ("text", "suggested"),
    [
        (">= bets - 0.5", "'>= best - 0.5'"),
        (">= Best", "'>= best'"),
        ("=> 0.8", "'>= 0.8'"),
        ("=< best", "'<= best'"),
        ("best - 0.5", None),
        (">= best - ", None),
        (">= best 0.5", None),
        (">= 1e400", None),
        ("== 0.5", None),
        ("", None),
        (0.8, None),
        (None, None),
        (True, None),
        (["> 1"], None),
    ],
)
def test_refused(text: object, suggested: str | None) -> None:
    """The message says what was expected, what was given, and what was meant where that shows."""
    with pytest.raises(ValueError, match=r"expected a bound such as '>= best - 0.5' or '>= 0.8', got ") as refused:
        parse(text)
    assert str(refused.value).partition(", did you mean ")[2].rstrip("?") == (suggested or "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.1", (None, Fraction(1, 10), False)),
        (0.1, (None, Fraction(1, 10), False)),
        (0, (None, Fraction(0), False)),
        ("-0.5", (None, Fraction(-1, 2), False)),
        (1e-5, (None, Fraction(1, 10**5), False)),
        ("data.v2=0.25", ("data.v2", Fraction(1, 4), False)),
        ("a=b=1", ("a=b", Fraction(1), False)),
        ("test=0.1%", ("test", Fraction(1, 10), True)),
    ],
)
def test_gain(value: object, expected: tuple[str | None, Fraction, bool]) -> None:
    """A margin, perhaps in per cent, or a set and a margin."""
    assert parse_gain(value) == expected


@pytest.mark.parametrize("value", ["", "val", "=1", "val=", "nan", "inf", True, "1e400000"])
def test_no_gain(value: object) -> None:
    """Anything else is told, with what was expected."""
    with pytest.raises(ValueError, match=r"expected a margin such as 0.1 or 0.1%, or one on a set such as test="):
        parse_gain(value)


def test_keys() -> None:
    """A set, a set with a metric, or a map of metrics; a dot belongs to the name of a set that has it."""
    gates = {"val": ">= 1", "data.v2": ">= 2", "val.nll": "<= 3", "data": {"v2": {"mcc": ">= 4"}}, "test": {"f1": "5"}}
    found = [(gate.key, gate.set, gate.metric) for gate in wanted(gates, ["val", "data.v2", "test"])]
    assert found == [
        ("gates.val", "val", None),
        ("gates.data.v2", "data.v2", None),
        ("gates.val.nll", "val", "nll"),
        ("gates.data.v2.mcc", "data.v2", "mcc"),
        ("gates.test.f1", "test", "f1"),
    ]


def test_in_a_recipe(tmp_path: Path) -> None:
    """Each gate is read from the file, and knows where it stands."""
    file = tmp_path / "soup.yaml"
    file.write_text(f'{SETS}gates:\n  imagenet-a: ">= best - 0.5"\n  data.v2.nll: "<= 1.2"\n')
    recipe = load_recipe(file, settings={"require_gain": "0.1", "gates.data.v2": ">= 80%"})
    assert [gate.set for gate in recipe.wanted] == ["imagenet-a", "data.v2", "data.v2"]
    assert recipe.place("gates.imagenet-a") == f"{file}:5:15"
    assert recipe.place("gates.data.v2.nll") == f"{file}:6:16"
    assert recipe.place("require_gain") is None
    assert recipe.located("gates.data.v2.nll: no") == f"{file}:6:16: gates.data.v2.nll: no"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'imagenet-a: ">= bst - 0.5"',
            "5:15: gates.imagenet-a: expected a bound such as '>= best - 0.5' or '>= 0.8', got",
        ),
        ("imagenet-a: 0.8", "5:15: gates.imagenet-a: expected a bound"),
        ('imagenet-b: ">= best"', "5:3: gates.imagenet-b: no set 'imagenet-b', did you mean 'imagenet-a'?"),
        (
            'imagenet-a.nll.x: "<= best"',
            "5:3: gates.imagenet-a.nll.x: no set 'imagenet-a.nll', did you mean 'imagenet-a'?",
        ),
        ('imagenet-a: {nll: "=< 1"}', "5:15: gates.imagenet-a: expected a bound"),
        ('imagnet: {nll: "<= 1"}', "5:13: gates.imagnet.nll: no set 'imagnet', did you mean 'imagenet-a'?"),
    ],
)
def test_wrong_in_a_recipe(tmp_path: Path, line: str, message: str) -> None:
    """A gate that cannot be read, or of a set that is not there, is an error with its place."""
    file = tmp_path / "soup.yaml"
    file.write_text(f"{SETS}gates:\n  {line}\n")
    with pytest.raises(RecipeError) as refused:
        load_recipe(file)
    assert str(refused.value).startswith(f"{file}:{message}")


def test_all_at_once(tmp_path: Path) -> None:
    """Two wrong gates and a wrong gain are three lines."""
    file = tmp_path / "soup.yaml"
    file.write_text(f'{SETS}gates:\n  imagenet-a: "0.5"\n  data.v2: ">= bst"\nrequire_gain: much\n')
    with pytest.raises(RecipeError) as refused:
        load_recipe(file)
    places = [line.split(": ")[0].removeprefix(f"{file}:") for line in str(refused.value).splitlines()]
    assert places == ["5:15", "6:12", "7:15"]
