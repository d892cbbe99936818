"""Options that take many words: how they are spread before Typer reads them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.cli.app import run
from soupcli.cli.parsing import guarded, spread
from soupcli.errors import UsageError

MANY, SINGLE = {"--ckpts", "--val", "--set"}, {"--out", "-o", "--recipe", "-r", "--metric"}
KNOWN = MANY | SINGLE | {"--json"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--ckpts a b --val x", "--ckpts=a --ckpts=b --val=x"),
        ("--ckpts a --ckpts b", "--ckpts=a --ckpts=b"),
        ("--ckpts=a b --json", "--ckpts=a --ckpts=b --json"),
        ("--ckpts - --json", "--ckpts=- --json"),
        ("--json --ckpts a --out o --val v w", "--json --ckpts=a --out o --val=v --val=w"),
        ("--ckpts a -o out --val v", "--ckpts=a -o out --val=v"),
        ("--ckpts a -qo out -qr r.yaml --val v", "--ckpts=a -qo out -qr r.yaml --val=v"),
        ("--ckpts a -oout --out=out --val v", "--ckpts=a -oout --out=out --val=v"),
        ("--ckpts a -- --json -o", "--ckpts=a --ckpts=--json --ckpts=-o"),
        ("--ckpts -- -a", "--ckpts=-a"),
        ("--set a=1 b=2 --set=c=d=e", "--set=a=1 --set=b=2 --set=c=d=e"),
        ("--metric --ckpts", "--metric --ckpts"),
        ("--metric", "--metric"),
        ("", ""),
        ("--ckpts a --jsn b --val v", "--ckpts=a --jsn"),
    ],
)
def test_spread(words: str, expected: str) -> None:
    """Every bare word is given to the list option that it follows; others keep theirs; an unknown one is the end."""
    assert spread(words.split(), MANY, SINGLE, KNOWN) == expected.split()


@pytest.mark.parametrize("words", ["--ckpts", "--ckpts --val x", "--ckpts --json", "--val x --ckpts", "--ckpts --"])
def test_no_value(words: str) -> None:
    """A list option without a value asks whether a glob matched nothing."""
    with pytest.raises(UsageError, match=r"^--ckpts: needs at least one value$") as raised:
        spread(words.split(), MANY, SINGLE, KNOWN)
    assert raised.value.hint == "did a glob match nothing?"


@pytest.mark.parametrize("words", [["--ckpts", ""], ["--ckpts", "a", " "], ["--ckpts="], ["--ckpts", "--", ""]])
def test_empty_word(words: list[str]) -> None:
    """An empty word is an unset shell variable, never the working folder."""
    with pytest.raises(UsageError, match=r"^--ckpts: an empty word$") as raised:
        spread(words, MANY, SINGLE, KNOWN)
    assert raised.value.hint == "is a shell variable unset?"


@pytest.mark.parametrize("words", ["runs/a --val v", "--json runs/a", "--out o runs/a", "-- runs/a"])
def test_stray_word(words: str) -> None:
    """A word that follows no list option is an error that says where checkpoints go."""
    with pytest.raises(UsageError, match=r"^unexpected argument 'runs/a'$") as raised:
        spread(words.split(), MANY, SINGLE, KNOWN)
    assert raised.value.hint == "checkpoints go after --ckpts: --ckpts runs/a"


def test_unknown_option(capfd: pytest.CaptureFixture[str]) -> None:
    """An option that there is none of is what is wrong, not the word after it."""
    assert run(["rank", "--ckpts", "a", "--batchsize", "3"]) == 2
    assert "soup rank: no option --batchsize, did you mean '--batch-size'?" in capfd.readouterr().err


_word = st.text(min_size=1, max_size=8).filter(lambda word: word.strip() and not (word[0] == "-" and word != "-"))
_group: st.SearchStrategy[tuple[str, list[str]]] = st.one_of(
    st.tuples(st.sampled_from(sorted(MANY)), st.lists(_word, min_size=1, max_size=4)),
    st.tuples(st.sampled_from(sorted(SINGLE)), _word.map(lambda word: [word])),
    st.just(("--json", [])),
)


@given(st.lists(_group, max_size=6))
def test_spread_keeps_every_word(groups: list[tuple[str, list[str]]]) -> None:
    """Whatever the words, each option gets its own, in their order, and spreading what is spread changes nothing."""
    out = spread([word for option, words in groups for word in (option, *words)], MANY, SINGLE, KNOWN)
    expected: list[str] = []
    for option, words in groups:
        expected += [f"{option}={word}" for word in words] if option in MANY else [option, *words]
    assert out == expected
    assert spread(out, MANY, SINGLE, KNOWN) == out


@given(st.lists(st.text(min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=5))
def test_after_two_dashes(words: list[str]) -> None:
    """After `--` every word is a value, whatever it begins with."""
    assert spread(["--ckpts", "--", *words], MANY, SINGLE, KNOWN) == [f"--ckpts={word}" for word in words]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("soup rank --ckpts ru", []),
        ("soup rank --ckpts a b --va", ["--val"]),
        ("soup rank --ck", ["--ckpts"]),
        ("soup rank --ckpts --va", ["--val"]),
        ("soup gr", ["greedy"]),
    ],
)
def test_completion(
    line: str, completed: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell completes options and commands on lines that are not finished; paths it completes itself."""
    monkeypatch.setenv("_SOUP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    run([])
    captured = capfd.readouterr()
    assert (captured.out.split(), captured.err) == (completed, "")


def test_a_library_that_does_not_load(capsys: pytest.CaptureFixture[str]) -> None:
    """A library without memory or files to load is no fault of this program; a module of its own is."""

    def loading(name: str) -> Callable[[], int | None]:
        def work() -> int | None:
            raise ImportError("libtorch.so: failed to map segment", name=name)

        return work

    assert (guarded(loading("torch._C")), guarded(loading("soupcli.x"))) == (2, 3)
    assert "a library does not load: libtorch.so: failed to map segment" in capsys.readouterr().err


@pytest.mark.parametrize("end", [SystemExit(0), SystemExit("bye"), GeneratorExit(), BaseException("no")], ids=repr)
def test_code_that_ends_the_process(end: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no answer: with exit code 0 a job would go on without a result."""

    def work() -> int | None:
        raise end

    assert guarded(work) == 2
    assert f"test_parsing.py:{work.__code__.co_firstlineno + 1}: {type(end).__name__}" in capsys.readouterr().err


def test_a_library_whose_import_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it raises is no fault of this program, unless the library calls a module of this program that raises."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('built for another CPU')\n")
    (tmp_path / "calling_library.py").write_text("from soupcli import wording\nwording.natural_order(3)\n")

    def importing(name: str) -> Callable[[], int | None]:
        return lambda: bool(importlib.import_module(name))

    assert guarded(importing("broken_library")) == 2
    said = "a library does not load: broken_library: RuntimeError: built for another CPU\n"
    assert capsys.readouterr().err.startswith(said)
    assert guarded(importing("calling_library")) == 3
