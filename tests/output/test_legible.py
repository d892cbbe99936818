"""Names that files, recipes and errors bring: none of them moves a cursor, begins a line or commands a CI system."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.wording import legible, legible_json
from tests.conftest import Ran

Soup = Callable[..., Ran]
EVIL = "::error::x\x1b[31m\n::warning::y\r\u202e##[group]\x9b\u2028z"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain / path-1.safetensors", "plain / path-1.safetensors"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m\x9b", "\\x1b[31m\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\ufeff\u2028\U000e0041", "\\ufeff\\u2028\\U000e0041"),
        ("  ::error::x::y", "  \\::error::x::y"),
        ("a::b", "a::b"),
        ("a ##[error]b", "a #\\#[error]b"),
        ("\ud800 \udcff", "\\ud800 \udcff"),
        ("é 🍲 کتاب‌ها 👩‍🍳", "é 🍲 کتاب‌ها 👩‍🍳"),
    ],
    ids=ascii,
)
def test_legible(text: str, shown: str) -> None:
    """Letters that say something stay; the others are escapes, and bytes of a path stay bytes."""
    assert legible(text) == shown


def test_json_means_the_same() -> None:
    """A document with escapes holds the same text, and shows none of these letters."""
    document = {EVIL: [EVIL, "\u0627é\u200d", "\x7f\xad"]}
    text = legible_json(json.dumps(document, ensure_ascii=False))
    assert json.loads(text) == document
    assert not any(letter in text for letter in "\u202e\x9b\u2028\x7f\xad") and "é" in text


def evil_lines(text: str) -> list[str]:
    """Lines that GitHub Actions would obey, and lines with letters that a terminal would."""
    return [
        line
        for line in text.split("\n")
        if line.lstrip().startswith("::") or "##[" in line or any(letter in line for letter in "\x1b\r\u202e\x9b\u2028")
    ]


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two checkpoints whose folder and one of whose tensors have such a name."""
    monkeypatch.chdir(tmp_path)
    folders = [EVIL.replace("/", "_") + str(number) for number in range(2)]
    for number, folder in enumerate(folders):
        Path(folder).mkdir()
        tensors = {EVIL: torch.full((2,), float(number)), "counts": torch.tensor([number])}
        save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    return folders


@pytest.mark.parametrize(
    "words",
    [
        ["inspect"],
        ["inspect", "--quiet"],
        ["inspect", "--json"],
        ["uniform", "--dry-run"],
        ["uniform"],
        ["uniform", "--quiet"],
        ["uniform", "--json"],
        ["uniform", "--output-format", "github"],
        ["uniform", "--exclude", EVIL, "--out", EVIL],
        ["rank", "--val", EVIL],
        ["uniform", "--set", f"metric={EVIL!r}", "--val", "x"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_nothing_reaches_the_streams(evil: list[str], soup: Soup, words: list[str]) -> None:
    """Tables, notes, paths, errors, JSON and annotations of such checkpoints have no such line."""
    ran = soup(words[0], *(f"--ckpts={folder}" for folder in evil), *words[1:])
    assert ran.code in (0, 2)
    stdout = "" if "github" in words else ran.stdout
    assert not evil_lines(stdout) and not evil_lines(ran.stderr)
    if "github" in words:
        assert all(line.startswith(("::notice title=", "::warning title=")) for line in ran.stdout.splitlines())
