"""Check what rows of a weight mean: tokens of a tokenizer, classes of a head. Different meanings are not averaged.

notes = check_meanings(checkpoints, selection)            # raises MixError, naming both meanings of one row
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from soupcli.checkpoints.compare.class_files import most_of, too_large
from soupcli.checkpoints.compare.class_orders import (
    HEADS,
    SHOWN,
    class_orders,
    contradict,
    other_classes,
    other_orders,
    shown,
)
from soupcli.checkpoints.compare.head_rows import HEAD
from soupcli.checkpoints.compare.tokens import check_tokens, tables
from soupcli.checkpoints.formats.class_lists import is_class_list, plain_name
from soupcli.checkpoints.formats.class_words import EMBEDDED, PLACEHOLDER
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from soupcli.files.small_file import same_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

NUMBER = re.compile(r"\d+")
FEWEST_EMBEDDED = 3  # rows of an embedding that a list may name: tokens have two types in many networks
MOST_MORE = 2  # rows of an embedding beyond those of a longer list: padding, and what is not known


def check_meanings(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[str]:
    """Return a line for each file or pair of files that is too large to be compared.

    Raises MixError if a mixed row means different tokens or classes in two checkpoints.
    """
    first, *others = checkpoints
    notes: list[str] = []
    for other in others:
        notes += check_tokens(first, other, selection)
        _check_classes(first, other, selection)
        notes += _classes_in_large_files(first, other)
    return notes


def _check_classes(first: Checkpoint, other: Checkpoint, selection: TensorFilter) -> None:
    one, two = class_orders(first), class_orders(other)
    for source in (source for source in one if source in two):
        _check_order(first, other, selection, (one[source], two[source]), "", _unclear(source))
    said = [next((orders[source] for source in (*HEADS, *orders) if source in orders), None) for orders in (one, two)]
    if said[0] is not None and said[1] is not None:  # id2label of one, label2id or a list of the other
        _check_order(first, other, selection, (said[0], said[1]))
    stated = [len(names) for names in said if names is not None and not all(map(PLACEHOLDER.fullmatch, names))]
    for place, names, others in other_orders(first, other):
        if stated != [len(names)] * 2:  # else both name their rows, and the list is of something else
            _check_order(first, other, selection, (names, others), place, place)


def _unclear(source: str) -> str:
    """Return the source if it is a whole file of names and numbers that no name calls a list of classes, else ""."""
    name = PurePosixPath(source).name.lstrip("*._-")  # `*` stands for the stem of the weights
    return "" if ": " in source or is_class_list(name) or _is_embedded(source) else source


def _classes_in_large_files(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Return a line for each file that may list classes, is too large to be read and differs or is in one alone."""
    one, two = too_large(first), too_large(other)
    differ = [name for name in {**one, **two} if not (name in one and name in two and same_bytes(one[name], two[name]))]
    return [
        f"{file}: has more than {most_of(file)} bytes: classes of {first.path} and {other.path} are not compared"
        for file in (two.get(name) or one[name] for name in differ)
    ]


def _check_order(
    first: Checkpoint,
    other: Checkpoint,
    selection: TensorFilter,
    orders: tuple[list[str], list[str]],
    place: str = "",
    unclear: str = "",
) -> None:
    """Raise MixError if the orders move or rename a row of the head.

    `place` is that of a list that counts only if it has as many names as the head has rows. `unclear` is that of one
    which may be of something else: then the message says so, and what to do in either case.
    """
    one, two = orders
    moved = contradict(one, two)
    if len(one) != len(two) or not (moved or other_classes(one, two)):
        return
    heads = _heads(first, selection, len(one), MOST_MORE if not place or _is_embedded(place) else 0)
    if not heads:
        return
    pattern, alone = _of_all(first, heads[0])
    module = pattern.rpartition(".")[0]
    excluded = f"'{module}.*'" if module else " ".join(heads)
    known = HEAD.search(heads[0]) is not None or "embed" in heads[0]
    rest = f"--exclude {excluded}" if known else f"--exclude with its name, such as {excluded}"
    whole = alone and any(len(first.tensors[name].shape) > 1 for name in heads)  # a transposed one has other rows
    remedy = _remedy(orders, heads, moved=moved, known=known) if whole or not moved else ""
    way = f"{remedy}mix all but the head: {rest}"
    if not unclear:
        said = f"{other.path}: its classes are {shown(two)}, those of {first.path} are {shown(one)}"
        raise MixError(f"{said}: rows of {heads[0]!r} stand for other classes", hint=way)
    said = f"{other.path}: {unclear} lists {shown(two)}, that of {first.path} lists {shown(one)}"
    raise MixError(
        f"{said}: rows of {heads[0]!r} stand for other outputs, if these are their names",
        hint=f"if they are, {way}; if the list is of something else, write one order into both",
    )


def _of_all(checkpoint: Checkpoint, head: str) -> tuple[str, bool]:
    """Return a pattern of the tensors of a head's name and shape that differ in numbers, and whether it is one alone.

    YOLO has a head for each size of objects: `model.22.cv3.*.2.weight`.
    """
    shape, plain = checkpoint.tensors[head].shape, NUMBER.sub("", head)
    same = [
        name.split(".")
        for name, spec in checkpoint.tensors.items()
        if spec.shape == shape and NUMBER.sub("", name) == plain
    ]
    parts = [steps[0] if len(set(steps)) == 1 else "*" for steps in zip(*same, strict=True)]
    if parts[0] == "*":  # layers of a plain stack
        return head, True
    return ".".join(parts), len(same) == 1


def _remedy(orders: tuple[list[str], list[str]], heads: Sequence[str], *, moved: bool, known: bool) -> str:
    """Return the beginning of a hint: how the classes of the other one become those of the first."""
    if not moved:
        return "write one spelling beside both if these are the same classes under other names; else "
    plain, others = ([plain_name(name) for name in names] for names in orders)
    if len(plain) > SHOWN or sorted(plain) != sorted(others):
        return ""
    order = [others.index(name) for name in plain]
    of = " and ".join(heads) if known else f"last layer (is it {' and '.join(heads)}?)"
    rows = f"put the rows of its {of} into the order {order} (weight[{order}])"
    return f"{rows} and its names of classes as the other's; or "


def _is_embedded(place: str) -> bool:
    file, _, key = place.partition(": ")
    return EMBEDDED.fullmatch(key.rpartition(".")[2] or PurePosixPath(file).stem) is not None


def _heads(checkpoint: Checkpoint, selection: TensorFilter, classes: int, more: int) -> list[str]:
    """Return the tensors of a head with a row for each class, or for one more: no object. Nothing if it is not mixed.

    Hidden layers may be as wide: names of heads count first, and a layer that the user excludes is taken for the head.
    Without any, an embedding has a row for each, and up to `more`: of speakers, languages, styles.
    """
    shapes = {name: checkpoint.tensors[name].shape for name in tables(checkpoint, TensorFilter())}
    rows = {name: shape for name, shape in shapes.items() if "embed" not in name}
    for count in (classes, classes + 1):
        fitting = [name for name in rows if rows[name][0] == count]
        named = [name for name in fitting if HEAD.search(name)]
        found = named or fitting
        matrices = [name for name in found if len(rows[name]) > 1] or found
        left = [name for name in matrices if selection.mixes(name)]
        if left and (named or left == matrices):
            module = left[0].rpartition(".")[0]
            return sorted((n for n in found if n.rpartition(".")[0] == module), key=lambda name: len(rows[name]) < 2)
        if found:
            return []
    embeddings = [name for name in shapes if name not in rows and "pos" not in name and classes >= FEWEST_EMBEDDED]
    counts = (classes + extra for extra in range(more + 1 if classes > FEWEST_EMBEDDED else 1))
    as_many = ([name for name in embeddings if shapes[name][0] == count and selection.mixes(name)] for count in counts)
    return next(filter(None, as_many), [])
