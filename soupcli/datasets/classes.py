"""The classes of a set: from their names to labels and to the network's logits.

Folders of pictures are named by class; shards number their classes. `classes:` lists the network's classes that a set
covers: a list of ids in the order of the set's classes, or a map from each class of the set to its logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.datasets.class_map import ClassMap
from soupcli.datasets.class_names import Order, check_order, in_order, listed, match, spelled
from soupcli.datasets.prompts import read_json, read_lines
from soupcli.errors import ValidationError
from soupcli.networks.network import UNNAMED, ClassFolders, Outline
from soupcli.recipe.sets import ImagesSet
from soupcli.recipe.values import ids_or_logits
from soupcli.report.scores import ClassOrder
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from soupcli.recipe.sets import ImagesSet

FOLDERS = "folders"
NAMES = "the network's class names"
IMAGENET_V2 = 1000  # folders named 0 to 999
Id = int | str


class Classes(NamedTuple):
    """The label of each class, except those that `classes:` leaves out; the logits that count; and the reason."""

    labels: Mapping[str, int]
    class_map: ClassMap | None
    order: ClassOrder


def classes_of(
    spec: ImagesSet,
    names: Sequence[str],
    *,
    outline: Outline = UNNAMED,
    numbered: bool = False,
    empty: Sequence[str] = (),
) -> Classes:
    """The classes of a set that has `names` for them; `numbered` ones are their own labels.

    A name's logit is what `class_to_index` says, else its place among the network's names. Without such names, or with
    `class_order:`, it is its place among the names in the library's order; `empty` folders hold places there. Under
    `classes:`, ImageNet's wnids are known too. Raises ValidationError if names and classes do not go together.
    """
    if spec.classes is None and numbered and spec.class_to_index is None:
        labels = {name: int(name) for name in names}
        return Classes(labels, None, _said(f"numbers in {spec.labels.name if spec.labels else 'the shards'}", labels))
    known, by = _known_logits(spec, names, outline, numbered=numbered)
    if spec.classes is not None:
        return _covered(spec, names, outline, known, by, numbered=numbered)
    if known is not None:
        return Classes(known, None, _said(by, known))
    return _in_folder_order(spec, [*names, *empty], outline)


def _in_folder_order(spec: ImagesSet, names: Sequence[str], outline: Outline) -> Classes:
    """Places among the folders, as the network's library counts them. Warns if libraries count otherwise."""
    folders = outline.folders
    if spec.labels is not None and spec.class_order is None:
        raise ValidationError(
            f"{spec.labels}: labels are the names {listed(in_order(names, 'text'))}, and the network does not name its "
            "classes",
            hint="class_order: text in the set of the recipe counts them by their names, class_to_index: {cat: 1} says "
            "which logit each is",
        )
    order: Order = spec.class_order or ("natural" if _is_imagenet_v2(names) else folders.order)
    sorted_names = in_order(names, order)
    if spec.class_order is None:
        check_order(
            spec.images,
            sorted_names,
            outline.lists(),
            f"class_order: {order} in the recipe takes the former, class_to_index: says which logit each class is",
        )
    labels = _places(sorted_names)
    by = f"{'class folders' if spec.labels is None else 'labels'} in {order} order" + (
        "" if spec.class_order else f", as {_reader(order, folders)} counts them"
    )
    warning = None
    other: Order = "text" if order == "natural" else "natural"
    in_other = in_order(names, other)
    if in_other != sorted_names and spec.class_order is None and not _is_imagenet_v2(names):
        warning = (
            f"the order of the classes is a choice: {_READERS[order]} counts the folders {_first(sorted_names)}, "
            f"{_READERS[other]} {_first(in_other)}; {by}. class_order: {other} in the recipe takes the other order, "
            "class_to_index: says which folder is which"
        )
    return Classes(labels, ClassMap(len(labels), str(spec.images)), _said(by, labels, warning))


_READERS: dict[Order, str] = {"text": "torchvision's ImageFolder", "natural": "timm"}


def _reader(order: Order, folders: ClassFolders) -> str:
    """Who counts in this order: the network's own library if it does."""
    if order != folders.order:
        return "ImageNet-V2"
    return _READERS["text"] if folders.library == "torchvision" else folders.library


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _are_indices(names: Sequence[str]) -> bool:
    """Whether the names are exactly 0 to n-1."""
    return {name for name in names if name.isascii()} == {str(index) for index in range(len(names))}


def _is_imagenet_v2(names: Sequence[str]) -> bool:
    return len(names) == IMAGENET_V2 and _are_indices(names)


def _said(by: str, labels: Mapping[str, int], warning: str | None = None) -> ClassOrder:
    first = sorted(labels.items(), key=lambda item: item[1])[:100]
    return ClassOrder(by=by, count=len(labels), index=dict(first), warning=warning)


def _known_logits(
    spec: ImagesSet, names: Sequence[str], outline: Outline, *, numbered: bool
) -> tuple[dict[str, int] | None, str]:
    """Return the logit of each name if it is known, and its source."""
    if spec.class_to_index is not None:
        return _of_recipe(spec, spec.class_to_index, names), "class_to_index"
    wnids = imagenet_wnids()
    if spec.class_order is None and not numbered:
        of_prompts = _names_of_prompts(spec, names)
        label_names, by = (of_prompts, "the names in classnames:") if of_prompts else known_names(names, outline)
        if label_names is not None:
            found = match(names, label_names)
            if not found.unknown and not found.ambiguous and len(set(found.places.values())) == len(names):
                return found.places, by
            if spec.classes is None:
                return _other_names(spec, names, (label_names, by), found.unknown or found.ambiguous)
    if spec.classes is not None and all(name in wnids for name in names):
        return {name: wnids[name] for name in names}, "ImageNet's wnids"
    return None, "the list in classes:"


def known_names(names: Sequence[str], outline: Outline) -> tuple[Sequence[str] | None, str]:
    """Return the network's class names and their source: what its library reads, else a list beside the weights.

    A list counts if it is as long, or if one of `names` is in it. Raises ValidationError if two lists disagree.
    """
    if outline.label_names is not None:
        return outline.label_names, NAMES
    stated = outline.stated.items()
    found = [one for one in stated if len(one[1]) == len(names) or len(match(names, one[1]).unknown) < len(names)]
    if not found:
        return None, NAMES
    place, known = found[0]
    for other, order in found[1:]:
        if [spelled(name) for name in order] != [spelled(name) for name in known]:
            raise ValidationError(
                f"the files beside the weights say two orders of the classes: {place} {listed(known)}, "
                f"{other} {listed(order)}",
                hint="remove or correct the wrong one, or say the order: class_order:, class_to_index:",
            )
    return known, f"{place} beside the weights"


def _names_of_prompts(spec: ImagesSet, names: Sequence[str]) -> list[str] | None:
    """The names in `classnames:` if at least one of the set's classes is among them."""
    known = read_lines(spec.classnames) if spec.classnames is not None else []
    found = match(names, known)
    return known if found.places or found.ambiguous else None


def _other_names(
    spec: ImagesSet, names: Sequence[str], known: tuple[Sequence[str], str], unmatched: Sequence[str]
) -> tuple[dict[str, int], str]:
    """Logits of folders that are all of ImageNet by wnid, or plain indices. Raises ValidationError for any others."""
    wnids, (label_names, by) = imagenet_wnids(), known
    if len(label_names) == len(wnids) and set(names) == set(wnids):
        return dict(wnids), "ImageNet's wnids"
    if len(label_names) == len(names) and _are_indices(names):
        return {name: int(name) for name in names}, "folders named by the index of their logit"
    several = [name for name in unmatched if name not in match(names, label_names).unknown]
    problem = "fits several of the network's classes" if several else "is no class of the network"
    unmatched = unmatched or _sharing_a_class(names, label_names)
    raise ValidationError(
        f"{spec.images}: the class {unmatched[0]!r} {problem}{suggestion(unmatched[0], label_names)}: "
        f"the set has {listed(in_order(names, 'text'))}; "
        f"{'the network' if by == NAMES else by} has {listed(label_names)}",
        hint="class_to_index: {folder: index of its logit} says which is which; class_order: text counts the folders "
        "by their names, classes: covers a part of the classes",
    )


def _sharing_a_class(names: Sequence[str], label_names: Sequence[str]) -> list[str]:
    """Return the first two names that are spelled alike."""
    places = match(names, label_names).places
    return [name for name in names if list(places.values()).count(places.get(name, -1)) > 1]


def _of_recipe(spec: ImagesSet, index: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Return the indices of `class_to_index` for the names that are there."""
    for name in names:
        if name not in index:
            raise ValidationError(
                f"{spec.images}/{name}: class_to_index has no {name!r}{suggestion(name, index)}",
                hint="add it, or move the folder away",
            )
    return {name: index[name] for name in names}


def _covered(
    spec: ImagesSet,
    names: Sequence[str],
    outline: Outline,
    known: Mapping[str, int] | None,
    by: str,
    *,
    numbered: bool,
) -> Classes:
    """Return the classes that `classes:` lists or maps."""
    source, ids = _ids(spec)
    if isinstance(ids, dict):
        return _mapped(spec, ids, names, source)
    if ids is None and known is None:
        raise ValidationError(
            f"{spec.images}: classes: {FOLDERS}: what is {names[0]!r}? The network does not name its classes so, "
            "and it is no wnid of ImageNet",
            hint="classes: takes a map {folder: logit}, too",
        )
    label_names = known_names([str(each) for each in ids or ()], outline)[0]
    logits = _logits(ids, label_names, source) if ids is not None else sorted({*(known or {}).values()})
    ordered = in_order(names, spec.class_order or outline.folders.order)
    labels = _labels(spec, ordered, logits, known, numbered=numbered)
    columns = ClassMap(len(logits), str(spec.images), tuple((logit,) for logit in logits))
    warning = None
    if known is None and not numbered and in_order(names, "natural") != in_order(names, "text"):
        warning = f"the order of the classes is a choice: classes: goes by the folders {_first(ordered)}"
    return Classes(labels, columns, _said(by, {name: logits[label] for name, label in labels.items()}, warning))


def _labels(
    spec: ImagesSet, names: Sequence[str], logits: Sequence[int], known: Mapping[str, int] | None, *, numbered: bool
) -> dict[str, int]:
    """Places in the list of `classes:`; `names` are in order."""
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
    """Map names to labels. Names that the map lacks are left out; names that only the map has are errors."""
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
    order = _said("the map in classes:", {name: columns[label][0] for name, label in labels.items()})
    return Classes(labels, ClassMap(len(columns), str(spec.images), tuple(columns)), order)


def _logits(ids: Sequence[Id], label_names: Sequence[str] | None, source: str) -> list[int]:
    logits = [_logit(identifier, label_names or (), source) for identifier in ids]
    for identifier, logit in zip(ids, logits, strict=True):
        if logits.count(logit) > 1:
            raise ValidationError(
                f"{source}: {identifier!r}, logit {logit}, is listed twice",
                hint="each class and each logit stands once: correct the list",
            )
    return logits


def _logit(identifier: Id, label_names: Sequence[str], source: str) -> int:
    if isinstance(identifier, int) or (identifier.isdecimal() and len(identifier) < 10):
        return int(identifier)
    for known in (_places(label_names), imagenet_wnids()):
        if identifier in known:
            return known[identifier]
    raise ValidationError(
        f"{source}: {repr(identifier)[:80]} is no index, no class of the network and no wnid of ImageNet"
        f"{suggestion(identifier[:80], label_names)}",
        hint="one class a line: the index of its logit, counted from 0, or its wnid, such as n01440764",
    )


def _ids(spec: ImagesSet) -> tuple[str, Sequence[Id] | dict[str, list[int]] | None]:
    """Return the source of the ids, and a list, a map, or None for those of the folders."""
    if not isinstance(spec.classes, Path):
        return f"{spec.images}: classes", None if spec.classes == FOLDERS else spec.classes
    if spec.classes.suffix.lower() != ".json":
        return str(spec.classes), read_lines(spec.classes)
    return str(spec.classes), _checked(read_json(spec.classes), spec.classes)


def _checked(content: Any, file: Path) -> Sequence[Id] | dict[str, list[int]]:
    """Return JSON that is a list of ids or a map to indices. Raises ValidationError for anything else."""
    found = ids_or_logits(content)
    if found is None:
        raise ValidationError(
            f"{file}: neither a list of class ids nor a map from each class folder to the index of a logit, "
            "or to several"
        )
    return found


@cache
def imagenet_wnids() -> dict[str, int]:
    """Return the 1,000 wnids of ImageNet-1k with their indices, which are their places in alphabetical order."""
    return _places(Path(__file__).with_name("imagenet_wnids.txt").read_text("ascii").split())


def _places(names: Sequence[str]) -> dict[str, int]:
    """The first place of each name."""
    return {name: place for place, name in reversed(list(enumerate(names)))}
