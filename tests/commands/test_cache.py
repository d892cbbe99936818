"""`soup cache` counts what runs have kept, and removes that and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import soupcli
from soupcli.demo import sentences, text
from soupcli.environment import cache_folder
from soupcli.errors import UsageError
from soupcli.files.cache import PACKAGES
from tests.conftest import Ran

Soup = Callable[..., Ran]


def kinds(soup: Soup, *words: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(soup("cache", *words, "--json").stdout)["kinds"]
    return found


def test_shows_and_clears(family: Path, soup: Soup) -> None:
    """Counts are those of the files; --clear removes the kind that is named, or all, and leaves what is not ours."""
    rank = ["rank", "--ckpts", "runs/*/", "--val", "val", "--json"]
    assert soup(*rank).code == 0
    folder = cache_folder()
    mine = [folder / "mine.txt", folder / "scores/notes.json", folder / "scores" / "ab" / f".{'a' * 64}.json.1-2.tmp"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    (folder / "demo.whl").write_text("mine")
    found = kinds(soup)
    ours = [file for file in folder.rglob("*") if file.is_file() and file not in [*mine, folder / "demo.whl"]]
    assert sum(one["files"] for one in found.values()) == len(ours)
    assert sum(one["bytes"] for one in found.values()) == sum(file.stat().st_size for file in ours)
    assert found["scores"]["files"] >= 5
    assert "soup cache --clear" in soup("cache").stdout
    assert kinds(soup, "inputs", "--clear").keys() == {"inputs"}
    assert kinds(soup)["scores"] == found["scores"]
    assert "removed" in soup("cache", "--clear").stdout
    assert {one["files"] for one in kinds(soup).values()} == {0}
    assert all(file.read_text() == "mine" for file in mine)
    assert json.loads(soup(*rank).stdout)["cost"]["examples"] == 1000


def test_links_are_not_followed(family: Path, soup: Soup) -> None:
    """A store that is a link to another place is neither counted nor cleared."""
    place = Path("elsewhere/ab")
    place.mkdir(parents=True)
    (place / f"{'ab' * 32}.json").write_text("{}")
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "scores").symlink_to(Path("elsewhere").absolute())
    assert kinds(soup, "scores", "--clear")["scores"]["files"] == 0
    assert list(place.iterdir())


def test_names_of_the_demo() -> None:
    """The archives that are told by their names are those of the demo."""
    archives = {
        value.archive for module in (text, sentences) for value in vars(module).values() if hasattr(value, "archive")
    }
    assert archives == set(PACKAGES)


@pytest.mark.parametrize("word", ["0", "off", "False"])
def test_no_switch(word: str, family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOUP_CACHE=0 is refused by commands and functions, with what turns off what; no folder of that name is made."""
    monkeypatch.setenv("SOUP_CACHE", word)
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val")
    assert ran.code == 2 and f"SOUP_CACHE={word}: names a folder" in ran.stderr and "--fresh" in ran.stderr
    with pytest.raises(UsageError, match="SOUP_CACHE"):
        soupcli.uniform("runs/*/")
    assert not Path(word).exists()


def test_a_folder_is_wanted(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is refused; `~` is the home; an unknown kind is an error that names the kinds."""
    monkeypatch.setenv("SOUP_CACHE", "net.py")
    assert "SOUP_CACHE=net.py: is no folder" in soup("rank", "--ckpts", "runs/*/", "--val", "val").stderr
    monkeypatch.setenv("HOME", str(family))
    monkeypatch.setenv("SOUP_CACHE", "~/kept")
    assert cache_folder() == family / "kept"
    ran = soup("cache", "score")
    assert ran.code == 2 and "did you mean 'scores'?" in ran.stderr
