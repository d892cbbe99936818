"""The rated sentences of `soup demo text`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.demo import finetune, sentences
from soupcli.demo.sentences import Sentence
from soupcli.environment import cache_folder
from soupcli.errors import SoupError

REAL = cache_folder() / sentences.PACKAGE.archive  # before the tests get a cache of their own


def test_parse_keeps_what_is_clear_and_short() -> None:
    """Sign of the rating, not near zero, at most 24 words; either encoding, HTML undone, blanks made one."""
    long = "word " * 25
    lines = [
        "1\t2.5\tA  joy &amp; a\u00a0treat".encode(),
        b"2\t-0.5\tDull",
        b"3_1\t0.4\tA film",
        f"4\t3\t{long}".encode(),
        "5\t-3\tclich\xe9".encode("latin-1"),
        b"6\t3\t ",
    ]
    assert sentences.parse(b"\r\n".join(lines) + b"\r\n", "movies") == [
        Sentence("A joy & a treat", 1),
        Sentence("Dull", 0),
        Sentence("clich\xe9", 0),
    ]


@pytest.mark.parametrize("line", [b"1\t2.5", b"1\tgood\tA joy", b"1\t2\tA\tjoy", b""])
def test_parse_names_the_line_that_is_none(line: bytes) -> None:
    """No line is skipped in silence."""
    with pytest.raises(SoupError, match="movies:2: expected id, rating and text"):
        sentences.parse(b"1\t2.5\tA joy\n" + line + b"\n", "movies")


@given(st.lists(st.sampled_from(["a b", "A, b!", "c", "C.", "d", "e", "f g"])), st.integers(0, 9))
def test_no_sentence_is_in_two_sets(texts: list[str], seed: int) -> None:
    """Whatever repeats, within a source or across, in other case or punctuation, is dealt once."""
    rows = [Sentence(text, 1) for text in texts]
    sets = sentences.deal({"movies": rows, "tweets": [*rows, Sentence("h", 0)]}, {"val": 1, "train": 2}, 3, seed)
    keys = ["".join(filter(str.isalnum, row.sentence.casefold())) for part in sets.values() for row in part]
    assert len(keys) == len(set(keys))
    assert list(sets) == ["tweets", "val", "train"]
    assert len(sets["val"]) <= 1 and len(sets["train"]) <= 2 and 1 <= len(sets["tweets"]) <= 3


def test_files_of_json_lines_come_back(tmp_path: Path) -> None:
    """Quotes, accents and signs of other scripts survive the file."""
    rows = [Sentence('so "good"', 1), Sentence("schlecht, na\xefve \u2014 \u4e0d\u597d", 0)]
    finetune.write_jsonl(tmp_path / "a.jsonl", [{"sentence": row.sentence, "label": row.label} for row in rows])
    assert sentences.read(tmp_path / "a.jsonl") == rows
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not in the cache: `soup demo text` fetches it")
def test_the_real_ratings_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of the real files parses, and the sets of the demo come out full and balanced."""
    monkeypatch.setenv("SOUP_CACHE", str(REAL.parent))
    sets = sentences.deal(sentences.load(), {"val": 1000, "test": 3000, "train": 800}, 1000, seed=0)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "amazon": 1000, "tweets": 1000, "editorials": 1000, "val": 1000, "test": 3000, "train": 800
    }  # fmt: skip
    assert all(0.3 < sum(row.label for row in rows) / len(rows) < 0.7 for rows in sets.values())
