"""Files of the user's: run once, found by content, and errors that say which line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from soupcli.errors import RecipeError
from soupcli.user_code.function import content_of, describe_error, load_function, users_code

FILE = """
from __future__ import annotations
from dataclasses import dataclass

loaded = []
loaded.append(1)

@dataclass
class Settings:
    width: int = 3

def build():
    return Settings(), loaded

def fails():
    return inner()

def inner():
    raise ValueError("two\\nlines")

number = 3
_hidden = build
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with functions."""
    (tmp_path / "my file.py").write_text(FILE)
    return tmp_path / "my file.py"


def test_runs_once(file: Path) -> None:
    """However many functions are asked for, the file runs once; changed, it runs again."""
    settings, loaded = load_function(f"{file}:build")()
    assert settings.width == 3
    assert load_function(f"{file}:fails").__globals__["loaded"] is loaded
    assert load_function(f"{file}:build")()[1] == [1]
    file.write_text(FILE.replace("width: int = 3", "width: int = 4"))
    assert load_function(f"{file}:build")()[0].width == 4


def test_two_files_of_one_name(tmp_path: Path) -> None:
    """Files of one name, even of one content, in two folders are two modules."""
    made = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text("here = __file__\ndef build():\n    return here\n")
        made.append(load_function(f"{tmp_path / folder / 'net.py'}:build")())
    assert [Path(path).parent.name for path in made] == ["a", "b"]


def test_what_is_not_there(file: Path) -> None:
    """A missing file or function, and what is no function, are errors with what there is."""
    with pytest.raises(RecipeError, match=r"nowhere\.py: No such file or directory, the recipe names .*nowhere\.py:f"):
        load_function(f"{file.parent}/nowhere.py:f")
    for name in ("biuld", "number"):
        with pytest.raises(RecipeError, match=rf"my file\.py: has no function '{name}'") as raised:
            load_function(f"{file}:{name}")
        assert raised.value.hint == "it has dataclass, Settings, build, fails, inner"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import torch\nraise KeyError('x')\n", r"my file\.py:2: KeyError: 'x'$"),
        ("a = 1\nb = (\n", r"my file\.py:2: SyntaxError: '\(' was never closed$"),
        ("import sys\nsys.exit(1)\n", r"my file\.py:2: SystemExit: 1$"),
        ("import no_such_module\n", r"my file\.py:1: ModuleNotFoundError: No module named 'no_such_module'$"),
    ],
)
def test_files_that_do_not_run(file: Path, content: str, message: str) -> None:
    """The error has the line; the file is forgotten, so that a mended one runs."""
    file.write_text(content)
    before = set(sys.modules)
    with pytest.raises(RecipeError, match=message) as raised:
        load_function(f"{file}:build")
    assert ("PYTHONPATH=" if "no_such" in content else "shows where") in str(raised.value.hint)
    assert not [name for name in set(sys.modules) - before if name.startswith("_soup_")]
    file.write_text(FILE)
    assert callable(load_function(f"{file}:build"))


def test_told(file: Path) -> None:
    """Of an exception's frames the last one in the user's file counts, and of its message the first line."""
    with pytest.raises(ValueError, match="two") as raised:
        load_function(f"{file}:fails")()
    assert describe_error(raised.value, f"{file}:fails") == f"{file}:19: ValueError: two"
    assert describe_error(KeyError(), "elsewhere.py:f") == "elsewhere.py:f: KeyError"


def test_content_of(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function is its name, its file's content, and where that lies from the working folder."""
    (tmp_path / "copy").mkdir()
    moved = tmp_path / "copy" / file.name
    moved.write_text(FILE)
    monkeypatch.chdir(file.parent)
    known = content_of(f"{file}:build")
    assert known == content_of(f"{file.name}:build")
    assert known != content_of(f"{file}:fails")
    assert known != content_of(f"{moved}:build")
    monkeypatch.chdir(moved.parent)
    assert known == content_of(f"{moved}:build")
    moved.write_text(FILE + "#")
    assert known != content_of(f"{moved}:build")
    with pytest.raises(RecipeError, match="No such file"):
        content_of("nowhere.py:f")


def test_users_code(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed inside goes to stderr, what comes after it to stdout, also after an exception."""
    with pytest.raises(KeyError), users_code():
        print("inside")  # noqa: T201
        raise KeyError
    print("after")  # noqa: T201
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("after\n", "inside\n")


def test_clean_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that looks at the command line finds its own program alone; afterwards the words are there again."""
    monkeypatch.setattr("sys.argv", ["soup", "rank", "--ckpts"])
    (tmp_path / "words.py").write_text("import sys\nWORDS = list(sys.argv)\ndef build(): return WORDS\n")
    assert load_function(f"{tmp_path}/words.py:build")() == ["soup"]
    assert sys.argv == ["soup", "rank", "--ckpts"]
