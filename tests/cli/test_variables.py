"""Variables that begin with SOUP_ and that nothing reads are named, once and not with the help."""

from __future__ import annotations

import pytest

from soupcli.cli import variables
from soupcli.cli.app import run
from soupcli.cli.variables import unread


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SOUP_CAHCE", ", did you mean SOUP_CACHE?"),
        ("SOUP_BATCHSIZE", ", did you mean SOUP_BATCH_SIZE?"),
        ("SOUP_KITCHEN", ""),
    ],
)
def test_misspelt(name: str, said: str) -> None:
    """The nearest one is named if one is near."""
    assert unread(["PATH", name]) == [f"{name} is set and nothing reads it{said}"]


def test_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of all commands and what else is read are known; without variables of ours no option is looked at."""
    assert unread(["SOUP_METHOD", "SOUP_REQUIRE_GAIN", "SOUP_OUT", "SOUP_DEBUG", "SOUP_NOTES"]) == []
    monkeypatch.setattr(variables, "_of_options", None)
    assert unread(["PATH", "SOUP_CACHE", "SOUPCLI"]) == []


def test_commands_say_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A command says it once, on stderr; its help does not."""
    monkeypatch.setenv("SOUP_CAHCE", "/tmp")
    assert run(["schema", "recipe"]) == 0
    out, err = capsys.readouterr()
    assert err.count("SOUP_CAHCE") == 1 and "SOUP_CAHCE" not in out
    assert run(["schema", "--help"]) == 0
    assert "SOUP_CAHCE" not in "".join(capsys.readouterr())
