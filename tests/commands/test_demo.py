"""The words of `soup demo`: which demo, into which folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from soupcli.commands.demo import _kind_and_folder
from soupcli.errors import UsageError
from tests.conftest import Ran

Soup = Callable[..., Ran]


@pytest.mark.parametrize(
    ("words", "kind", "folder"),
    [
        ("", "digits", "demo-digits"),
        ("text", "text", "demo-text"),
        ("there", "digits", "there"),
        ("text there", "text", "there"),
        ("text text", "text", "text"),
        ("digits ./digits", "digits", "digits"),
    ],
)
def test_words(words: str, kind: str, folder: str) -> None:
    """The kind may be left out, and so may the folder; a folder may bear the name of a kind."""
    assert _kind_and_folder(words.split()) == (kind, Path(folder))


def test_typo(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word near a kind is taken for a typo, unless a folder has that name; nothing is made."""
    monkeypatch.chdir(tmp_path)
    ran = soup("demo", "digit")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr == (
        "soup demo: 'digit' is no demo, did you mean 'digits'?\n\nhint: soup demo [digits|text|images] [DIR]\n"
    )
    assert list(tmp_path.iterdir()) == []
    Path("digit").mkdir()
    assert _kind_and_folder(["digit"]) == ("digits", Path("digit"))


def test_too_many_words() -> None:
    """Two folders are one too many."""
    with pytest.raises(UsageError, match="'a' is no demo"):
        _kind_and_folder(["a", "b"])
