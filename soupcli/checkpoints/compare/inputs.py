"""Compares what the inputs of networks are: which column of a table is which, and statistics among the weights.

notes = check_inputs(first, other, selection)           # raises MixError if a column of a weight is another input
different_statistics(checkpoints, selection)            # "'norm.mean' differs: ..."
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import remembered
from soupcli.checkpoints.compare.class_files import files_of
from soupcli.checkpoints.compare.class_orders import contradict, other_classes, shown
from soupcli.checkpoints.compare.differences import same_in_all
from soupcli.checkpoints.compare.documents import document_of
from soupcli.checkpoints.compare.tokens import tables
from soupcli.checkpoints.formats.class_lists import input_lists
from soupcli.checkpoints.formats.class_words import INPUTS
from soupcli.checkpoints.formats.name_lists import names_in_order
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint

STATISTIC = re.compile(r"(^|[._])(mean|std|stdev)$")
RUNNING = re.compile(r"(running|moving|batch)_\w+$")
COLUMNS = re.compile(r"(^|[ ./])columns$")  # of a data set, whatever they are, unless a weight has as many
LARGEST = 1 << 20  # elements of statistics


def check_inputs(first: Checkpoint, other: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return notes on lists of inputs that differ. Raises MixError if a mixed weight has numbers for each of them."""
    notes: list[str] = []
    end = "if these are the networks' inputs, their weights stand for other ones"
    one, two = _inputs_of(first), _inputs_of(other)
    for place in (place for place in one if place in two):
        names, others = one[place], two[place]
        moved = contradict(names, others)
        if not moved and not (len(names) == len(others) and other_classes(names, others)):
            continue
        said = f"{other.path}: {place} lists {shown(others, names)}, that of {first.path} lists {shown(names, others)}"
        columns = _with_columns(first, len(names)) if len(names) == len(others) else []
        weights = [name for name in columns if selection.mixes(name)]
        if moved and weights:
            raise MixError(
                f"{said}: numbers of {weights[0]!r} stand for other inputs",
                hint="mix networks whose inputs stand in one order; if the list is of something else, write one order "
                "into both",
            )
        if weights or not (columns or COLUMNS.search(place)):
            notes.append(said)
    more = f" (and {len(notes) - 1} more lists)" if len(notes) > 1 else ""
    return [f"{notes[0]}{more}: {end}"] if notes else []


@remembered(2)  # the first checkpoint is compared with one after the other
def _inputs_of(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Return the lists of inputs in a checkpoint's files, by the place that states them."""
    found = {place: list(names) for place, names in checkpoint.origin.inputs.items()}
    for label, file in files_of(checkpoint).items():
        document = document_of(file)
        whole = names_in_order(document) if INPUTS.fullmatch(file.stem) else None
        found |= {label: whole} if whole is not None else {}
        found |= {f"{label}: {place}": names for place, names in input_lists(document).items()}
    return found


def _with_columns(checkpoint: Checkpoint, inputs: int) -> list[str]:
    """Return the weights with a column for each input."""
    shapes = {name: checkpoint.tensors[name].shape for name in tables(checkpoint, TensorFilter())}
    return [name for name, shape in shapes.items() if len(shape) > 1 and shape[1] == inputs]


def different_statistics(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> str | None:
    """Return a warning that statistics of inputs or outputs among the weights differ, and are averaged."""
    first = checkpoints[0]
    names = [
        name
        for name, spec in first.tensors.items()
        if STATISTIC.search(name) and not RUNNING.search(name) and spec.numel <= LARGEST and selection.mixes(name)
    ]
    found = [name for name in names if not same_in_all(checkpoints, name)]
    if not found or first.is_adapter:
        return None
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return (
        f"{found[0]!r}{more} differs: each network was trained with its own statistics of inputs or outputs, the soup "
        "has their mean; train all with the same"
    )
