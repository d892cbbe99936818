"""Lists of classes in texts: lines with or without numbers, tables, literals of Python, label maps of TensorFlow.

rows_of_text("0 cat\\n1 dog\\n")                         # ["cat", "dog"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from soupcli.checkpoints.formats.class_lists import LONGEST
from soupcli.checkpoints.formats.class_words import COLOR, HEADER, NUMBERED
from soupcli.checkpoints.formats.name_lists import MOST, WNID, names_by_row, names_in_order, names_in_text, of_literal
from soupcli.late import late_pattern

_NUMBER_FIRST = late_pattern(r"(\d{1,9})[\s:,;=|]+(.+)")  # lines of a list: `0 cat`, `1: dog`, `0,cat`
_NUMBER_LAST = late_pattern(r"(.*[^\s:,;=>|])[\s:,;=>|]+(\d{1,9})")  # `cat 0`, `'cat' => 0`
_NUMBER_SECOND = late_pattern(r"(\S+|[^\t]*\S)[ ]*[\t ][ ]*(\d{1,9})[\t ].*")  # `cat 0 300`
_NUMBERED = ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1), (_NUMBER_SECOND, 2, 1))
# `cat 300`, `polar bear: 300`, `300 cat`: what uniq -c prints, and Counter.most_common
_COUNTED = (
    (late_pattern(r"([^\s:,;=>]+|.*[^\s:,;=>](?=\s*[\t:,;=>]))[\s:,;=>]+(\d{1,9})"), 2, 1),
    (late_pattern(r"(\d{1,9})\s+(\D.*)"), 1, 2),
)
_COUNT = re.compile(r"[\s:,;=>]+\d{1,9}$")
_COMMENT = re.compile(r"#\s")
_MEASURED = late_pattern(r".*\S[\s:,;=>]+[+-]?(\d*\.\d+|\d+%|\d+/\d+)%?")  # `cat: 0.93`: what was measured of a class
_FRACTION, _WHOLE = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?"), re.compile(r"\d+")
_END = re.compile(r"={4,}")  # of the list in a label encoder of SpeechBrain (speechbrain/dataio/encoder.py)


def rows_of_text(text: str) -> list[str] | None:
    """Return the names of a list with one class a line, or all in one line, with or without numbers, or of a table."""
    if text.count("\n") > MOST or text.count(",") > MOST * 10:
        return None
    literal = of_literal(text.strip())
    if literal is not None:
        return literal
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    lines = lines[: next((at for at, line in enumerate(lines) if _END.fullmatch(line)), len(lines))]
    if len(lines) == 1:
        lines = names_in_text("", lines[0]) or lines
    if len(lines) > MOST or max(map(len, lines), default=0) > LONGEST:
        return None
    table = next((rows for mark in "\t,;" if (rows := _table(lines, mark)) is not None), None)
    return _of_lines(lines) if table is None else table or None


def _of_lines(lines: Sequence[str]) -> list[str] | None:
    """Return the names in lines, by their numbers if they have any; None of lines that end with what was measured.

    Numbers of something else, such as counts, are no part of a name. Names that these sort say nothing by their order.
    """
    lines = lines[next((at for at, line in enumerate(lines) if not _COMMENT.match(line)), 0) :]
    wnids = [WNID.fullmatch(line) for line in lines if WNID.fullmatch(lines[0])]
    if wnids and all(wnids):
        return names_by_row([match[1] for match in wnids if match is not None])
    for form, number, name in _NUMBERED:
        for numbered in (lines, lines[1:]):  # a table has a header
            if not numbered or form.fullmatch(numbered[0]) is None:
                continue
            found = [form.fullmatch(line) for line in numbered]
            pairs = {int(match[number]): match[name].strip() for match in found if match is not None}
            from_one = numbered is lines and pairs.keys() == set(range(1, len(found) + 1))
            if (from_one or pairs.keys() == set(range(len(found)))) and len(set(pairs.values())) == len(found):
                return names_by_row(_without_more([pairs[row] for row in sorted(pairs)]))
    if all(map(_MEASURED.fullmatch, lines[1:] or lines)):
        return None
    counted = next(filter(None, (_counted(lines, *form) for form in _COUNTED)), None)
    if counted is not None:
        return names_by_row([name for name, _ in counted]) if not _descends([count for _, count in counted]) else None
    return names_by_row(lines[1:] if HEADER.fullmatch(lines[0]) else lines)


def _without_more(names: list[str]) -> list[str]:
    """Return the names without what stands behind all of them: after a tab, or a number."""
    for shorter in ([name.partition("\t")[0].strip() for name in names], [_COUNT.sub("", name) for name in names]):
        if all(one != name and one for one, name in zip(shorter, names, strict=True)) and len({*shorter}) == len(names):
            return shorter
    return names


def _counted(lines: Sequence[str], form: re.Pattern[str], number: int, name: int) -> list[tuple[str, int]] | None:
    """Return different names and their counts, if every line has one."""
    found = [form.fullmatch(line) for line in lines] if form.fullmatch(lines[0]) else [None]
    pairs = [(match[name], int(match[number])) for match in found if match is not None]
    return pairs if len({first for first, _ in pairs}) == len(found) == len(lines) else None


def _descends(counts: Sequence[int]) -> bool:
    return len({*counts}) > 1 and all(one >= two for one, two in pairwise(counts))


def _table(lines: Sequence[str], mark: str) -> list[str] | None:
    """Return the names in a table with a header: by the first column of numbers from 0 on, else from top to bottom.

    It is empty of a table without such numbers whose other numbers were measured or counted: its order says nothing.
    """
    if not lines or mark not in lines[0]:
        return None
    rows = [[cell.strip().strip('"') for cell in line.split(mark)] for line in lines]
    if len(rows) < 3 or any(len(row) != len(rows[0]) for row in rows):
        return None
    return rows_of_table(rows[0], [list(column) for column in zip(*rows[1:], strict=True)])


def rows_of_table(header: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str] | None:
    """Return the names in the first column that is called as names are, as `rows_of_text` does of a table."""
    names = next((column for title, column in zip(header, columns, strict=True) if HEADER.fullmatch(title)), None)
    if names is None and len(columns) > 2 and all({*column} <= {"0", "1"} for column in columns[1:]):
        return names_by_row(header[1:])  # of examples, with a column for each class: Roboflow's _classes.csv
    if names is None or len(set(names)) < len(names):
        return None
    every = {str(row) for row in range(len(names))}
    numbers = next((column for column in columns if set(column) == every), None)
    if numbers is None and any(map(_is_measured, header, columns)):
        return []
    return names_by_row(names if numbers is None else dict(zip(numbers, names, strict=True)))


def _is_measured(title: str, column: Sequence[str]) -> bool:
    """Whether a column holds fractions, or whole numbers that its title does not call those of classes."""
    of_class = NUMBERED.fullmatch(title) or COLOR.fullmatch(title)
    whole = all(map(_WHOLE.fullmatch, column)) and of_class is None
    return whole or all(map(_FRACTION.fullmatch, column))


ITEM_ID = re.compile(r"\bid\s*:\s*(\d{1,9})")
ITEM_NAME = re.compile(r"""\b(?:display_)?name\s*:\s*(?:"([^"]*)"|'([^']*)')""")


def rows_of_pbtxt(text: str) -> list[str] | None:
    """Return the names of TensorFlow's label map, whose numbers begin with 1."""
    if text.count("{") > MOST:
        return None
    items = re.findall(rf"\{{([^{{}}]{{0,{LONGEST}}})\}}", text)
    numbers, names = [ITEM_ID.search(item) for item in items], [ITEM_NAME.search(item) for item in items]
    found = {int(number[1]): name[1] or name[2] for number, name in zip(numbers, names, strict=True) if number and name}
    return names_in_order([found[number] for number in sorted(found)])
