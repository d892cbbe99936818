"""Which class is which: from the names that a set has for its classes to labels and to the network's logits.

Folders of pictures are named by class; shards number their classes. `classes:` says which classes of the network a set
covers: a list of ids in the order of the set's classes, or a map from each class of the set to the logits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.class_map import ClassMap
from soupcli.datasets.prompts import read_json, read_lines
from soupcli.errors import ValidationError
from soupcli.recipe.values import ids_or_logits
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.recipe.sets import ImagesSet

FOLDERS = "folders"
Id = int | str


class Classes(NamedTuple):
    """Label of each of the set's classes; those that `classes:` leaves out have none. And which logits count."""

    labels: Mapping[str, int]
    class_map: ClassMap | None


def classes_of(
    spec: ImagesSet, names: Sequence[str], *, label_names: Sequence[str] | None = None, numbered: bool = False
) -> Classes:
    """The classes of a set that has `names` for them, in order; `numbered` ones are their own labels.

    A name's logit is what `class_to_index` says, else its place among the network's `label_names`, else (where
    `classes:` is given) its place among ImageNet's classes, where these know every name; else its place among the
    names. Raises ValidationError where they do not go together.
    """
    known = _known_logits(spec, names, label_names, wnids=spec.classes is not None)
    if spec.classes is None:
        if known is not None or numbered:
            return Classes(known if known is not None else {name: int(name) for name in names}, None)
        return Classes(_places(names), ClassMap(len(names), str(spec.images)))
    source, ids = _ids(spec)
    if isinstance(ids, dict):
        return _mapped(spec, ids, names, source)
    if ids is None and known is None:
        raise ValidationError(
            f"{spec.images}: classes: {FOLDERS}: what is {names[0]!r}? The network does not name its classes so, "
            "and it is no wnid of ImageNet",
            hint="classes: takes a map {folder: logit}, too",
        )
    logits = _logits(ids, label_names, source) if ids is not None else sorted({(known or {})[name] for name in names})
    labels = _labels(spec, names, logits, known, numbered=numbered)
    return Classes(labels, ClassMap(len(logits), str(spec.images), tuple((logit,) for logit in logits)))


def _known_logits(
    spec: ImagesSet, names: Sequence[str], label_names: Sequence[str] | None, *, wnids: bool
) -> dict[str, int] | None:
    """The logit of each name, where something says it."""
    if spec.class_to_index is not None:
        for name in names:
            if name not in spec.class_to_index:
                raise ValidationError(
                    f"{spec.images}/{name}: class_to_index has no {name!r}{suggestion(name, spec.class_to_index)}",
                    hint="add it, or move the folder away",
                )
        return spec.class_to_index
    for known in ([_places(label_names)] if label_names else []) + ([imagenet_wnids()] if wnids else []):
        if all(name in known for name in names):
            return {name: known[name] for name in names}
    return None


def _labels(
    spec: ImagesSet, names: Sequence[str], logits: Sequence[int], known: Mapping[str, int] | None, *, numbered: bool
) -> dict[str, int]:
    """Places in the list of `classes:`."""
    if known is not None:
        place = {logit: label for label, logit in enumerate(logits)}
        return {name: place[known[name]] for name in names if known[name] in place}
    largest = max(int(name) for name in names) if numbered else len(names) - 1
    if largest >= len(logits) or (not numbered and len(names) != len(logits)):
        has = f"label {largest}" if numbered else f"{len(names)} class folders"
        raise ValidationError(
            f"{spec.images}: has {has}, classes: lists {len(logits)}",
            hint="a list goes by the order of the set's classes; a map says which logit each stands for: {name: logit}",
        )
    return {name: int(name) for name in names} if numbered else _places(names)


def _mapped(spec: ImagesSet, logits_of: Mapping[str, Sequence[int]], names: Sequence[str], source: str) -> Classes:
    """Names that the map does not have are left out; names that only the map has are errors."""
    for name in logits_of:
        if name not in names:
            raise ValidationError(
                f"{source}: {name!r} is no class of {spec.images}{suggestion(name, names)}",
                hint="the names are those of the class folders, or the labels in shards",
            )
    columns = sorted({tuple(sorted(set(logits))) for logits in logits_of.values()})
    owner: dict[int, tuple[int, ...]] = {}
    for column in columns:
        for logit in column:
            if logit in owner:
                raise ValidationError(
                    f"{source}: logit {logit} stands for {list(owner[logit])} and for {list(column)}",
                    hint="each logit belongs to one class",
                )
            owner[logit] = column
    labels = {name: columns.index(tuple(sorted(set(logits)))) for name, logits in logits_of.items()}
    return Classes(labels, ClassMap(len(columns), str(spec.images), tuple(columns)))


def _logits(ids: Sequence[Id], label_names: Sequence[str] | None, source: str) -> list[int]:
    logits = [_logit(identifier, label_names or (), source) for identifier in ids]
    for identifier, logit in zip(ids, logits, strict=True):
        if logits.count(logit) > 1:
            raise ValidationError(f"{source}: {identifier!r}, logit {logit}, is listed twice")
    return logits


def _logit(identifier: Id, label_names: Sequence[str], source: str) -> int:
    if isinstance(identifier, int) or identifier.isdecimal():
        return int(identifier)
    for known in (_places(label_names), imagenet_wnids()):
        if identifier in known:
            return known[identifier]
    raise ValidationError(
        f"{source}: {identifier!r} is no index, no class of the network and no wnid of ImageNet"
        f"{suggestion(identifier, label_names)}",
        hint="one class a line: the index of its logit, counted from 0, or its wnid, such as n01440764",
    )


def _ids(spec: ImagesSet) -> tuple[str, Sequence[Id] | dict[str, list[int]] | None]:
    """Where the ids stand, and a list, a map, or None for those of the folders."""
    if not isinstance(spec.classes, Path):
        return f"{spec.images}: classes", None if spec.classes == FOLDERS else spec.classes
    if spec.classes.suffix.lower() != ".json":
        return str(spec.classes), read_lines(spec.classes)
    return str(spec.classes), _checked(read_json(spec.classes), spec.classes)


def _checked(content: Any, file: Path) -> Sequence[Id] | dict[str, list[int]]:
    """Raises ValidationError for JSON that is neither a list of ids nor a map to indices."""
    found = ids_or_logits(content)
    if found is None:
        raise ValidationError(
            f"{file}: neither a list of class ids nor a map from each class folder to the index of a logit, "
            "or to several"
        )
    return found


@cache
def imagenet_wnids() -> dict[str, int]:
    """The 1,000 wnids of ImageNet-1k and their indices: their places in alphabetical order."""
    return _places(Path(__file__).with_name("imagenet_wnids.txt").read_text("ascii").split())


def _places(names: Sequence[str]) -> dict[str, int]:
    """The first place of each name."""
    return {name: place for place, name in reversed(list(enumerate(names)))}
