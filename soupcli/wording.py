"""Numbers in words for people: scores with their standard errors, sizes, the same in tables and on pages."""

from __future__ import annotations

import bisect
import difflib
import math
import posixpath
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

# A model of the Hub, perhaps with a branch, a tag or a commit: `org/name@revision`.
HUB_ID = re.compile(
    r"(?P<id>(?![^@]*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(?<![.-]))(?:@(?P<revision>\w[\w./-]*))?",
    re.ASCII,
)
# The same with a folder of it, as git names one: org/name@v1:checkpoint-500.
HUB_WORD = re.compile(HUB_ID.pattern + r"(?::(?P<folder>(?!\.)[\w.-]+(?:/(?!\.)[\w.-]+)*))?", re.ASCII)
MOST_COMPARED = 1_000  # words that are compared letter by letter: a network may have 100,000 names
SURE = 0.05  # a difference whose test gives a p below it is taken for one
SHARES = {"accuracy", "top5", "acc", "acc_norm", "exact_match"}  # shown in per cent


def shown(metric: str, value: float | None, stderr: float | None) -> str:
    """Return e.g. `95.12% ± 0.61` for a share, `0.1834 ± 0.0102` otherwise. None stands for a NaN, which JSON lacks."""
    if value is None or math.isnan(value):
        return "NaN"
    factor, digits, unit = (100, 2, "%") if metric in SHARES else (1, 4, "")
    error = f" ± {stderr * factor:.{digits}f}" if stderr is not None else ""
    return f"{value * factor:.{digits}f}{unit}{error}"


def signed(metric: str, difference: float | None) -> str:
    """E.g. `+0.50` in per cent of a share, `-0.0123` otherwise; up to three digits more where few would show a 0."""
    if difference is None or math.isnan(difference):
        return "NaN"
    value, digits = (difference * 100 + 0.0, 2) if metric in SHARES else (difference + 0.0, 4)
    told = (n for n in range(digits, digits + 4) if round(value, n) or not value)
    return f"{value:+.{next(told, digits + 3)}f}"


def counted(count: int, noun: str) -> str:
    """E.g. `1 example`, `4,000 examples`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def human_bytes(count: int) -> str:
    """E.g. `346.3 MB`."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.1f} {units[0]}" if units[0] != "B" else f"{count} B"


def suggestion(word: str, known: Iterable[str], *, least: float = 0.6) -> str:
    """`, did you mean 'x'?` for the nearest of the known words, or nothing; `least` is a similarity from 0 to 1."""
    near = nearest(word, known, least=least)
    return f", did you mean {near!r}?" if near is not None else ""


def nearest(word: str, known: Iterable[str], *, least: float = 0.6) -> str | None:
    """Return the known word that is spelled most like `word`, or None. The same letters in any order are near enough.

    `least` is a similarity from 0 to 1. Of very many words those that begin and end most alike are compared.
    """
    words = list(known)
    letters = sorted(word)
    swapped = [one for one in words if len(one) == len(word) and sorted(one) == letters]
    if len(words) > MOST_COMPARED and not swapped:
        words = [*_beside(word, words), *(one[::-1] for one in _beside(word[::-1], [one[::-1] for one in words]))]
    return _most_alike(word, swapped or words, 0.0 if swapped else least)


def _most_alike(word: str, words: Sequence[str], least: float) -> str | None:
    """Return the word that difflib.get_close_matches finds; letters are matched only where a word may be nearer."""
    found: tuple[float, str] | None = None
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(word)
    for one in words:
        matcher.set_seq1(one)
        if all(ratio() >= least for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)):
            found = max(found or (0.0, ""), (matcher.ratio(), one))
            least = found[0]
    return found[1] if found is not None else None


def _beside(word: str, words: Iterable[str]) -> list[str]:
    """Return the words that stand next to `word` in alphabetical order: those that begin most alike."""
    in_order = sorted(words)
    at = bisect.bisect(in_order, word)
    return in_order[max(0, at - MOST_COMPARED // 4) : at + MOST_COMPARED // 4]


def natural_order(text: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that compares numbers in text as numbers: `checkpoint-500` comes before `checkpoint-1000`.

    If only leading zeros differ, more come first: `wd0.01-2` before `wd0.1-1`, and `r01` before `r1`.
    """
    pieces = re.split(r"([0-9]+)", text)
    numbers = [
        (len(piece.lstrip("0")), f"{piece.lstrip('0')} {piece}") if at % 2 else (0, piece)
        for at, piece in enumerate(pieces)
    ]
    return numbers, text


def words_for(paths: Sequence[str]) -> str:
    """Return words of a command line that name all `paths`: a glob if they lie in one folder, or each of them."""
    parents = {posixpath.dirname(path.rstrip("/")) for path in paths}
    parent = next(iter(parents), "")
    return f"{shlex.quote(parent)}/*" if len(parents) == 1 and parent else shlex.join(paths)


_JOINERS = "\u200c\u200d"  # scripts and emoji need them


def legible(text: str) -> str:
    """The text as one line that no terminal and no CI system takes for a command.

    Control characters, line ends, bidirectional and other invisible marks and lone surrogates become escapes such as
    `\\x1b`, `\\n` and `\\u202e`. Bytes of a path that are not UTF-8 stay. `::` at the start and `##[` anywhere, which
    GitHub Actions obeys, get a backslash.
    """
    line = text if text.isascii() and text.isprintable() else "".join(map(_visible, text))
    if line.lstrip().startswith("::"):
        line = line.replace("::", "\\::", 1)
    return line.replace("##[", "#\\#[")


def _visible(letter: str) -> str:
    is_byte = "\udc80" <= letter <= "\udcff"  # as os.fsdecode gives it
    if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or letter in _JOINERS or is_byte:
        return letter
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter) or _code(letter)


def _code(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~&$]|^[+=-]|(?<=www)\.|:(?=//)|^\d+\.(?=\s|$)")


def markdown(text: str) -> str:
    """The text as one line of Markdown in which no letter is Markdown, HTML, a link or a mention of somebody."""
    line = _MARKDOWN.sub(_as_entity, legible(text).strip())
    return line.replace("@", "&#64;<!-- -->")


def _as_entity(found: re.Match[str]) -> str:
    return f"{found[0][:-1]}&#{ord(found[0][-1])};"


def legible_json(text: str) -> str:
    """A JSON document with the same letters as `\\u` escapes: only strings can hold them."""
    text = text.replace("##[", r"#\u0023[")
    return re.sub(r"[\x7f-\x9f\xad\u0600-\u200b\u200e-\u202e\u2060-\u206f\ufeff]", _json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    letter = found.group()
    return f"\\u{ord(letter):04x}" if _visible(letter) != letter else letter


def with_article(value: object) -> str:
    """Return the name of the value's class after its article: `an int`, `a dict`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"
