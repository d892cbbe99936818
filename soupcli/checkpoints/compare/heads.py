"""Tensors with rows for the classes of a list: every head of a network, not the first one alone.

found = heads_for(checkpoint, selection, 80, said)       # `said` is the place of the list, such as "names"
found.mixed                                             # ["model.22.cv3.0.2.weight", "model.22.cv3.1.2.weight", ...]
found.maybe                                             # layers of as many rows, of which the user excludes some
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.tokens import tables
from soupcli.checkpoints.tensor_filter import TensorFilter

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]

# In names of the last layer, and of what belongs to classes beside it: a CRF's transitions, prototypes, priors.
HEAD = re.compile(
    r"head|classif|logit|score|predict|(^|\.)(fc|cls)\d*\.|(^|[._])(cls|class)_(preds?|embed)\b"
    r"|crf|transitions|prototype|(^|[._])(class|label)_?(prior|bias|emb\b)|prior$|threshold"
)
CLASSES = re.compile(r"cls|class|label")
TRANSITIONS = re.compile(r"transitions$")
# Heads of what is the same for all classes: boxes, and whether anything is there. Those of boxes may be for each class.
BOXES = re.compile(r"(^|_)b?box(es)?(_|\b)|(^|_)reg(ression)?(_|\b)|(^|_)(center|iou|obj)")
AGNOSTIC = re.compile(r"(^|\.)rpn(_\w+)?\.|objectness|centerness")
PLACES = re.compile(r"layers?|module_list|weight|bias|conv\w*|\d+")  # parts of a name that say nothing
NUMBER = re.compile(r"\d+")
WORD = re.compile(r"[a-z]{3,}")
# Words in the place of a list, and in names of tensors, that tell no head from another.
COMMON = re.compile(
    r"labels?|class(es)?|names?|lists?|map(ping)?|index|idx|ids|heads?|tasks?|config|json|yaml|txt|csv|weight|bias|model"
    r"|module|data(set)?|meta|args|h?params|hyper|parameters|cls|classifier|categor(y|ies)|targets?|dict|encoder"
)
# Keys of lists with a module for each name, and the numbers of such modules.
OF_MODULES = re.compile(
    r"(\w+_)?(tasks?|domains?|experts?|modalit(y|ies)|views|branches|heads|instruments|stems|sources)(_?(names|list|order))?"
)
NUMBERED = re.compile(r"\.(\d+)(?=\.)")
FEWEST_EMBEDDED = 3  # rows of an embedding that a list may name: tokens have two types in many networks
MOST_ANCHORS = 9  # boxes at one place, each with numbers for all classes
OF_A_BOX = 5  # numbers of YOLO's up to v7 beside those of the classes: a place, a size, whether anything is there


class Heads(NamedTuple):
    """Tensors with rows for the classes of a list."""

    every: Sequence[str] = ()  # matrices first
    mixed: Sequence[str] = ()  # those of them that are
    known: bool = True  # whether their names say that they are heads
    maybe: Sequence[str] = ()  # mixed layers of as many rows that may be heads as those are that the user excludes


def heads_for(
    checkpoint: Checkpoint,
    selection: TensorFilter,
    classes: int,
    said: str = "",
    *,
    sure: bool = True,
    more: int = 0,
    others: Collection[int] = (),
) -> Heads:
    """Return the tensors with a row for each class, or for one more: no object; of detectors those with several.

    `said` is the place of the list, whose words may be those of one head among many. A list that is `sure` to name
    classes counts for heads with several rows for each class too. `others` are the lengths of all lists of classes:
    heads with one row more belong to one of these. Without any head an embedding has the rows, and up to `more`.
    """
    shapes = {name: checkpoint.tensors[name].shape for name in tables(checkpoint, TensorFilter())}
    rows = {name: shape for name, shape in shapes.items() if "embed" not in name or HEAD.search(name)}
    named = _named(rows, classes, others) or (_of_detectors(rows, classes) if sure else [])
    ends = [name for name in rows if TRANSITIONS.search(name) and rows[name][0] == classes + 2]  # a start, an end
    if named:
        own = _of_the_same_words(named, said)
        return _heads([*own, *(name for name in ends if name not in own)], rows, selection)
    outputs = _fitting(rows, classes) or _of_two(rows, classes, sure=sure)
    columns = {shape[1] for shape in shapes.values() if len(shape) > 1}
    if outputs and classes not in columns:
        return _heads([*outputs, *ends], rows, selection, known=False)
    of_yolo = _of_yolo(rows, columns, classes) if sure else []
    if of_yolo:
        return _heads(of_yolo, rows, selection, known=False)
    return _unclear(rows, selection, outputs or _fitting(rows, classes + 1)) or _embedded(
        shapes, rows, selection, classes, more
    )


def _heads(found: Collection[str], rows: Shapes, selection: TensorFilter, *, known: bool = True) -> Heads:
    every = sorted(found, key=lambda name: len(rows[name]) < 2)
    return Heads(every, list(filter(selection.mixes, every)), known)


def _named(rows: Shapes, classes: int, others: Collection[int]) -> list[str]:
    """Return the tensors that are named as heads and have a row for each class; those with one more by name, or else.

    Boxes of each class belong to them: four numbers for each, in the module of a head.
    """
    heads = {name: shape for name, shape in rows.items() if HEAD.search(name) and not _is_agnostic(name)}
    exact, beyond = ([name for name in heads if rows[name][0] == count] for count in (classes, classes + 1))
    if exact:
        beyond = [name for name in beyond if CLASSES.search(_leaf(name)) and classes + 1 not in others]
    found = [*exact, *beyond]
    parents = {_parent(name) for name in found}
    counts = {4 * count for count in (classes, classes + 1)}
    boxes = (name for name in rows if _parent(name) in parents and BOXES.search(_leaf(name)))
    return [*found, *(name for name in boxes if rows[name][0] in counts and name not in found)]


def _of_two(rows: Shapes, classes: int, *, sure: bool) -> list[str]:
    """Return the one output for two classes, whose sign says which: of all that are one number the heads, else all."""
    single = [name for name in _fitting(rows, 1) if len(rows[name]) > 1 or HEAD.search(name)] if classes == 2 else []
    found = [name for name in single if HEAD.search(name) and not _is_agnostic(name)] or single
    modules = {_module(name) for name in found if len(rows[name]) > 1}
    return [name for name, shape in rows.items() if _module(name) in modules and shape[0] == 1] if sure else []


def _of_detectors(rows: Shapes, classes: int) -> list[str]:
    """Return heads for several boxes at each place: RetinaNet has rows for each class, SSD for no object too."""
    columns = {shape[1] for shape in rows.values() if len(shape) > 1}
    counts = {boxes * count for boxes in range(2, MOST_ANCHORS + 1) for count in (classes, classes + 1)}
    named = [name for name in rows if HEAD.search(name) and CLASSES.search(name) and not _is_agnostic(name)]
    found = {name for name in named if len(rows[name]) == 4 and rows[name][0] in counts - columns}
    modules = {_module(name) for name in found}
    return [name for name in named if _module(name) in modules]


def _of_yolo(rows: Shapes, columns: Collection[int], classes: int) -> list[str]:
    """Return the heads of YOLO up to v7, one for each size of objects."""
    counts = {boxes * (classes + OF_A_BOX) for boxes in range(1, MOST_ANCHORS + 1)}
    points = [n for n, shape in rows.items() if shape[0] in counts - {*columns} and shape[2:] == (1, 1)]
    alike = [_plain(name) for name in points]
    modules = {_module(name) for name, plain in zip(points, alike, strict=True) if alike.count(plain) > 1}
    return [name for name in rows if _module(name) in modules]


def _unclear(rows: Shapes, selection: TensorFilter, found: Sequence[str]) -> Heads | None:
    """Return layers without a name of heads, any of which may be one. What the user excludes is taken for the head."""
    if not found:
        return None
    excluded = {_plain(name) for name in found if not selection.mixes(name)}
    if not excluded:
        module = _module(min(found, key=lambda name: len(rows[name]) < 2))
        alike = [name for name in found if _plain(_module(name)) == _plain(module) and not module.isdecimal()]
        return _heads(alike or [name for name in found if _module(name) == module], rows, selection, known=False)
    alike = [name for name in found if _plain(name) in excluded and not _module(name).isdecimal()]
    maybe = [name for name in found if name not in alike and selection.mixes(name) and len(rows[name]) > 1]
    return _heads(alike, rows, selection, known=False)._replace(maybe=maybe)


def _embedded(shapes: Shapes, rows: Shapes, selection: TensorFilter, classes: int, more: int) -> Heads:
    """Return an embedding with a row for each name, and up to `more`: of speakers, languages, styles."""
    embeddings = [name for name in shapes if name not in rows and "pos" not in name and classes >= FEWEST_EMBEDDED]
    counts = (classes + extra for extra in range(more + 1 if classes > FEWEST_EMBEDDED else 1))
    fitting = next(filter(None, ([n for n in embeddings if shapes[n][0] == count] for count in counts)), [])
    return _heads(fitting, shapes, selection)


def _fitting(rows: Shapes, count: int) -> list[str]:
    """Return the tensors with so many rows: matrices with what lies in their modules, vectors without any matrix."""
    fitting = [name for name, shape in rows.items() if shape[0] == count]
    modules = {_module(name) for name in fitting if len(rows[name]) > 1}
    return [name for name in fitting if _module(name) in modules] if modules else fitting


def _of_the_same_words(heads: Sequence[str], said: str) -> list[str]:
    """Return the heads that share a word with the place of a list, if some do: `color_head` and `color_labels`."""
    words = {word for word in WORD.findall(said.casefold()) if not COMMON.fullmatch(word)}
    alike = [name for name in heads if words.intersection(WORD.findall(name.casefold()))]
    return alike or list(heads)


def _is_agnostic(name: str) -> bool:
    leaf = _leaf(name)
    return AGNOSTIC.search(name) is not None or (BOXES.search(leaf) is not None and not CLASSES.search(leaf))


def _leaf(name: str) -> str:
    """Return the last part of a tensor's name that says something: `bbox_pred` of `head.bbox_pred.0.weight`."""
    parts = [part for part in name.split(".") if not PLACES.fullmatch(part)]
    return parts[-1] if parts else ""


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _parent(name: str) -> str:
    return _module(_module(name))


def _plain(name: str) -> str:
    return NUMBER.sub("", name)


def modules_for(checkpoint: Checkpoint, selection: TensorFilter, said: str, names: int) -> str | None:
    """Return a pattern of mixed modules that are numbered as a list of tasks or the like is, or None without any."""
    if not OF_MODULES.fullmatch(said.rpartition(".")[2].rpartition(": ")[2]):
        return None
    numbered: dict[str, set[str]] = {}
    for name in filter(selection.mixes, checkpoint.tensors):
        for number in NUMBERED.finditer(name):
            numbered.setdefault(name[: number.start()], set()).add(number[1])
    every = {str(number) for number in range(names)}
    return next((f"{above}.*" for above, numbers in numbered.items() if numbers == every), None)


def patterns_of(heads: Sequence[str]) -> list[str]:
    """Return shell patterns of all of the heads: `model.22.cv3.*.2.*` of one for each size of objects."""
    alike: dict[str, list[list[str]]] = {}
    for name in heads:
        module = _module(name)
        alike.setdefault(_plain(module) if not module[:1].isdecimal() else module, []).append(module.split("."))
    found = []
    for modules in alike.values():
        parts = [steps[0] if len(set(steps)) == 1 else "*" for steps in zip(*modules, strict=True)]
        found.append(".".join([*parts, "*"]))
    return [*heads] if any(pattern == ".*" for pattern in found) else found
