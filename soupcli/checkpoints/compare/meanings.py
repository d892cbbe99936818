"""Check what rows of a weight mean: tokens of a tokenizer, classes of a head. Different meanings are not averaged.

notes = check_meanings(checkpoints, selection)            # raises MixError, naming both meanings of one row
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.class_files import unread
from soupcli.checkpoints.compare.class_orders import (
    HEADS,
    SHOWN,
    are_moved,
    class_orders,
    contradict,
    other_classes,
    shared_lists,
    shown,
)
from soupcli.checkpoints.compare.heads import heads_for, modules_for, patterns_of
from soupcli.checkpoints.compare.inputs import check_inputs
from soupcli.checkpoints.compare.tokens import check_tokens, check_vocabulary
from soupcli.checkpoints.formats.class_lists import is_class_list, plain_name
from soupcli.checkpoints.formats.class_words import EMBEDDED, PLACEHOLDER
from soupcli.errors import MixError
from soupcli.files.small_file import same_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.compare.heads import Heads
    from soupcli.checkpoints.tensor_filter import TensorFilter

MOST_MORE = 2  # rows of an embedding beyond those of a longer list: padding, and what is not known


def check_meanings(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[str]:
    """Return a line for each file or pair of files that cannot be compared.

    Raises MixError if a mixed row means different tokens or classes in two checkpoints, a column different inputs.
    """
    first, *others = checkpoints
    notes: list[str] = []
    for other in others:
        notes += check_tokens(first, other, selection)
        notes += _check_classes(first, other, selection)
        notes += check_inputs(first, other, selection)
        notes += _unread_classes(first, other)
    return notes


def _check_classes(first: Checkpoint, other: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return notes on layers that may be heads. Raises MixError if a mixed row stands for different classes."""
    one, two = class_orders(first), class_orders(other)
    lengths = {len(names) for names in one.values()}
    lists = [_List(source, (one[source], two[source]), _unclear(source)) for source in one if source in two]
    said = [next((orders[source] for source in (*HEADS, *orders) if source in orders), None) for orders in (one, two)]
    if said[0] is not None and said[1] is not None:  # id2label of one, label2id or a list of the other
        lists.append(_List("", (said[0], said[1])))
    stated = [len(names) for names in said if names is not None and not all(map(PLACEHOLDER.fullmatch, names))]
    for place, names, others in shared_lists(first, other):
        check_vocabulary(first, other, selection, place, names, others)
        if (
            are_moved(first, names, others) and stated != [len(names)] * 2
        ):  # else both name their rows, and the list is of something else
            lists.append(_List(place, (names, others), place, sure=False))
    found = (_check_order(first, other, selection, each, lengths) for each in lists)
    return list(dict.fromkeys(note for note in found if note is not None))


class _List(NamedTuple):
    """A list of names that two checkpoints state."""

    place: str  # where both say it, if it is one place
    orders: tuple[list[str], list[str]]
    unclear: str = ""  # its place, if it may be of something else: the message says so, and what to do in either case
    sure: bool = True  # whether it counts for heads with other numbers of rows


def _unclear(source: str) -> str:
    """Return the source if it is a whole file of names and numbers that no name calls a list of classes, else ""."""
    name = PurePosixPath(source).name.lstrip("*._-")  # `*` stands for the stem of the weights
    return "" if ": " in source or is_class_list(name) or _is_embedded(source) else source


def _unread_classes(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Return a line for each file that may list classes, is not read and differs or is in one alone."""
    one, two = unread(first), unread(other)
    differ = [
        name for name in {**one, **two} if not (name in one and name in two and same_bytes(one[name][0], two[name][0]))
    ]
    return [
        f"{file}: {why}: classes of {first.path} and {other.path} are not compared"
        for file, why in (two.get(name) or one[name] for name in differ)
    ]


def _check_order(
    first: Checkpoint, other: Checkpoint, selection: TensorFilter, said: _List, lengths: Collection[int]
) -> str | None:
    """Return a note on layers that may be heads. Raises MixError if the orders move or rename a row of a mixed head."""
    one, two = said.orders
    moved = contradict(one, two)
    if len(one) != len(two) or not (moved or other_classes(one, two)):
        return None
    more = MOST_MORE if said.sure or _is_embedded(said.place) else 0
    heads = heads_for(first, selection, len(one), said.place, sure=said.sure, more=more, others=lengths)
    if not heads.mixed:
        return _of_no_head(first, other, selection, said, heads)
    rest = " ".join(_quoted(pattern) for pattern in patterns_of(heads.every))
    rest = f"--exclude {rest}" if heads.known else f"--exclude with its name, such as {rest}"
    way = f"{_remedy(first, said.orders, heads, moved=moved)}mix all but the head: {rest}"
    if not said.unclear:
        text = f"{other.path}: its classes are {shown(two, one)}, those of {first.path} are {shown(one, two)}"
        raise MixError(f"{text}: rows of {heads.mixed[0]!r} stand for other classes", hint=way)
    text = f"{other.path}: {said.unclear} lists {shown(two, one)}, that of {first.path} lists {shown(one, two)}"
    raise MixError(
        f"{text}: rows of {heads.mixed[0]!r} stand for other outputs, if these are their names",
        hint=f"if they are, {way}; if the list is of something else, write one order into both",
    )


def _of_no_head(first: Checkpoint, other: Checkpoint, selection: TensorFilter, said: _List, heads: Heads) -> str | None:
    """Return what to say if classes differ, and no mixed tensor is known to have a row for each."""
    one, two = said.orders
    said_of_both = f"{other.path}: its classes are {shown(two, one)}, those of {first.path} are {shown(one, two)}"
    modules = modules_for(first, selection, said.place, len(one)) if contradict(one, two) else None
    if modules is not None:
        return (
            f"{other.path}: {said.place} lists {shown(two, one)}, that of {first.path} lists {shown(one, two)}: "
            f"if {modules!r} are the modules of these, each is mixed with that of another"
        )
    if heads.maybe:
        layer = f"{heads.maybe[0]!r} has {len(one)} rows and is mixed, as a layer that is no head"
        return f"{said_of_both}: {layer}: if it is one, --exclude it too"
    if heads.every or said.unclear or not said.sure or not contradict(one, two):
        return None
    way = "if the network has outputs for classes, --exclude the layer with them"
    return f"{said_of_both}: no tensor with a row for each is known; {way}"


def _quoted(pattern: str) -> str:
    return f"'{pattern}'" if "*" in pattern else pattern


def _remedy(checkpoint: Checkpoint, orders: tuple[list[str], list[str]], heads: Heads, *, moved: bool) -> str:
    """Return the beginning of a hint: how the classes of the other one become those of the first."""
    shapes = [checkpoint.tensors[name].shape for name in heads.mixed]
    if not moved:
        return "write one spelling beside both if these are the same classes under other names; else "
    plain, others = ([plain_name(name) for name in names] for names in orders)
    rows = {shape[0] for shape in shapes} == {len(plain)} and len(shapes[0]) > 1  # a transposed one has other rows
    alone = len({name.rpartition(".")[0] for name in heads.every}) == 1
    if not (rows and alone) or heads.mixed != heads.every or len(plain) > SHOWN or sorted(plain) != sorted(others):
        return ""
    order, of = [others.index(name) for name in plain], " and ".join(heads.mixed)
    of = of if heads.known else f"last layer (is it {of}?)"
    rows_of = f"put the rows of its {of} into the order {order} (weight[{order}])"
    return f"{rows_of} and its names of classes as the other's; or "


def _is_embedded(place: str) -> bool:
    file, _, key = place.partition(": ")
    return EMBEDDED.fullmatch(key.rpartition(".")[2] or PurePosixPath(file).stem) is not None
