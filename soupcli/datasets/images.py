"""`{images: /data/imagenet/val}`: one folder of pictures for each class, or .tar shards of them.

Pictures are decoded by the network's own transform (see picture_decoder.py). Labels come from folders or shards (see
classes.py) or from a file (see label_column.py and labels_file.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.datasets import image_folders as class_folders
from soupcli.datasets import label_column, label_rows, labels_file, prompts, tar_shards
from soupcli.datasets.class_names import check_order, listed
from soupcli.datasets.classes import classes_of, known_names
from soupcli.datasets.examples import ArrayExamples
from soupcli.datasets.image_folders import ClassPictures, PictureFile
from soupcli.datasets.input_cache import InputCache, input_key
from soupcli.datasets.kind import Prompted, SetKind
from soupcli.datasets.picture_decoder import Decoder, decoded, size_of
from soupcli.datasets.prompts import small_content_hash
from soupcli.datasets.rows import READERS
from soupcli.errors import NetworkError, ValidationError
from soupcli.files.json_text import key_of
from soupcli.files.manifest import Manifest
from soupcli.late import torch
from soupcli.networks.network import UNNAMED, ClassFolders, ImageTransform, Network, Outline
from soupcli.networks.pictures import of_set as pictures_of_set
from soupcli.progress import Progress, silent
from soupcli.report.scores import ClassOrder
from soupcli.user_code.function import content_of

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.class_map import ClassMap
    from soupcli.datasets.load_context import LoadContext
    from soupcli.recipe.sets import ImagesSet


class LabelledPictures(NamedTuple):
    """The pictures of a set, their labels (see `LabelKind`), and the logits that count."""

    pictures: list[PictureFile]
    numbers: Sequence[int] | Sequence[Sequence[int]]
    classes: ClassMap | None
    order: ClassOrder | None = None
    are_rows: bool = False  # of a 0 or 1 for each class

    @property
    def labels(self) -> Tensor:
        """The classes as int64 [N], several of a picture as int64 [N, M], rows of 0 and 1 as uint8 [N, K]."""
        return torch.tensor(self.numbers, dtype=torch.uint8 if self.are_rows else torch.int64)


def fingerprint(spec: ImagesSet, manifest: Manifest | None = None, *, files: str | None = None) -> str:
    """Return the fingerprint of every picture's folder and content, and of the recipe's set with the files it names.

    `files` is what `_files` returns, if it is known.
    """
    digest = _files(spec, manifest) if files is None else files
    settings = spec.model_dump(mode="json", exclude={"images", "metric"}, exclude_defaults=True)
    if spec.transform is not None:
        settings["transform"] = content_of(spec.transform, (manifest or Manifest()).file)
    for key, value in spec:
        if isinstance(value, Path) and key != "images":
            settings[key] = small_content_hash(value, manifest)
    return f"images:{digest}:{json.dumps(settings, sort_keys=True)}"


def _files(spec: ImagesSet, manifest: Manifest | None) -> str:
    """Return the fingerprint of names and contents of all pictures or shards, and of the class folders' names."""
    shards = tar_shards.find(spec.images)
    if shards is not None:
        files, folders = [(path.name, str(path)) for path in shards], []
    else:
        names = class_folders.names_below(spec.images)
        files = [(name, os.path.join(spec.images, name)) for name in names]  # noqa: PTH118 - there may be very many
        folders = sorted(entry.name for entry in spec.images.iterdir() if entry.is_dir())
    try:
        content = (manifest or Manifest()).files(files)
    except OSError as cause:
        raise ValidationError(f"{cause.filename or spec.images}: {cause.strerror}") from cause
    return key_of({"files": content, "folders": folders})


def _name(images: Path, file: PictureFile) -> str:
    """Return the picture's name within the set."""
    return file.member or file.path.relative_to(images).as_posix()


def find(spec: ImagesSet, *, outline: Outline = UNNAMED, progress: Progress = silent) -> LabelledPictures:
    """Return the pictures and labels of a set, without decoding. Raises ValidationError if there are none."""
    shards = tar_shards.find(spec.images)
    if shards is not None:
        indexed = tar_shards.read_index(shards, progress=progress)
        if not indexed:
            raise ValidationError(f"{spec.images}: holds no pictures")
        found = ClassPictures([(picture, str(label)) for picture, label in indexed], [], False, 0)
    elif spec.labels is not None:
        found = ClassPictures([(picture, "") for picture in class_folders.find_flat(spec.images)], [], False, 0)
    else:
        found = class_folders.find(spec.images, outline.folders)
    if spec.labels is not None:
        return _labelled_by_file(spec, spec.labels, [picture for picture, _ in found.pictures], outline)
    return _labelled_by_name(spec, found, outline, numbered=shards is not None)


def _labelled_by_name(spec: ImagesSet, found: ClassPictures, outline: Outline, *, numbered: bool) -> LabelledPictures:
    names = list(dict.fromkeys(name for _, name in found.pictures))
    empty = [] if outline.folders.innermost else found.empty
    classes = classes_of(spec, names, outline=outline, numbered=numbered, empty=empty)
    covered = [(picture, classes.labels[name]) for picture, name in found.pictures if name in classes.labels]
    if not covered:
        raise ValidationError(f"{spec.images}: classes: covers none of its classes", hint=f"they are {names[:5]}")
    order = _with_layout(classes.order, found, outline.folders, chosen="order" in classes.order.by)
    return LabelledPictures(
        [picture for picture, _ in covered], [label for _, label in covered], classes.class_map, order
    )


def class_order(spec: ImagesSet, outline: Outline) -> ClassOrder:
    """Return the order of classes from the folders' names, without opening a picture."""
    of_shards = spec.labels is None and spec.classes is None and spec.class_to_index is None
    if of_shards and tar_shards.find(spec.images) is not None:
        return ClassOrder(by="numbers in the shards", count=None, index={})
    order = find(spec, outline=outline).order
    assert order is not None
    return order


def transform_source(spec: ImagesSet, outline: Outline) -> str | None:
    """Return the source of the pictures' transform, in one line."""
    if spec.transform is not None:
        return f"the function {spec.transform}"
    keys = ("size", "crop", "mean", "std", "interpolation")
    given = {key: value for key, value in spec if key in keys and value is not None}
    of_recipe = ", ".join(f"{key} {value}" for key, value in given.items())
    rest = f"the rest from {outline.transform}" if outline.transform is not None else None
    return "; ".join(filter(None, (of_recipe, rest))) if given else outline.transform


def _with_layout(order: ClassOrder, found: ClassPictures, folders: ClassFolders, *, chosen: bool) -> ClassOrder:
    """Return the order, with a warning if libraries may count classes differently in this layout."""
    warnings_ = [order.warning] if order.warning else []
    if chosen and found.nested:
        which = "the innermost folders, as" if folders.innermost else "the folders directly below the set, as"
        warnings_.append(f"classes are {which} {folders.library} takes them; other libraries take others")
    if chosen and found.empty:
        counted = "are not counted" if folders.innermost else "are counted"
        warnings_.append(f"class folders without pictures {counted}: {listed(found.empty)}")
    if found.warning:
        warnings_.append(found.warning)
    if found.outside:
        warnings_.append(f"pictures in no class folder take no part: {found.outside}")
    return order.model_copy(update={"warning": "; ".join(warnings_) or None})


def _labelled_by_file(spec: ImagesSet, file: Path, pictures: list[PictureFile], outline: Outline) -> LabelledPictures:
    names = [_name(spec.images, picture) for picture in pictures]
    if file.suffix.lower() in READERS:
        return _labelled_by_table(spec, label_column.table_of(file, spec.images, names, spec.label), pictures, outline)
    read = labels_file.read(file, spec.images, names)
    order = ClassOrder(by="indices in labels:", count=None, index={}, warning=read.warning)
    return LabelledPictures([pictures[place] for place in read.places], read.labels, None, order)


def _labelled_by_table(
    spec: ImagesSet, table: label_column.PictureTable, pictures: list[PictureFile], outline: Outline
) -> LabelledPictures:
    """Read rows of 0 and 1, or one column of classes, which are matched as the names of class folders are."""
    assert spec.labels is not None
    column = label_column.class_column(table.rows, table.columns, chosen=spec.label is not None)
    files = [pictures[place] for place in table.row_of]
    known = known_names(table.classes(column), outline)[0] if spec.class_to_index is None else None
    if column is None:
        if spec.classes is not None or spec.class_to_index is not None or spec.class_order is not None:
            raise ValidationError(f"{spec.labels}: classes: and alike do not go with columns of 0 and 1: label: does")
        if known is None:
            check_order(spec.labels, table.columns, outline.lists(), label_rows.WAY_OUT)
        rows = label_rows.of_table(spec.labels, table, known, chosen=spec.label is not None)
        return LabelledPictures(files, rows.rows, None, rows.order, are_rows=True)
    classes = label_column.classes_in(spec.labels, table, column, known)
    named = ClassPictures(list(zip(files, classes.names, strict=True)), [], False, 0, table.warning)
    return _labelled_by_name(spec, named, outline, numbered=classes.numbered)


def load(
    spec: ImagesSet,
    pictures: ImageTransform,
    *,
    outline: Outline = UNNAMED,
    workers: int | None = None,
    cache: InputCache | None = None,
    found: LabelledPictures | None = None,
    progress: Progress = silent,
) -> ArrayExamples:
    """Decode all pictures once by `workers` threads (None: one for each core) into uint8 [N, C, H, W].

    `found` is what `find` returns, if it is known. `cache` has the pixels if an earlier run decoded the same files in
    the same way. Labels come from `classes_of`. Raises ValidationError for an empty folder and for a file that is not a
    picture.
    """
    cache = cache or InputCache(None)
    files = _files(spec, cache.manifest)
    mark = fingerprint(spec, cache.manifest, files=files)
    labelled = found or find(spec, outline=outline, progress=progress)
    names = [_name(spec.images, file) for file in labelled.pictures]
    key = input_key("images", files, names, spec.border)
    key = input_key(key, pictures.description, pictures.mode)
    kept = cache.get(key, lambda found: found.keys() == {"inputs"} and found["inputs"].shape[:1] == (len(names),))
    if kept is not None:
        inputs = kept["inputs"]
        cache.cached += len(inputs)
    else:
        rows = partial(cache.rows, key)
        inputs = decoded(labelled.pictures, Decoder(pictures, spec.border), rows, workers, progress)
    return ArrayExamples(inputs, labelled.labels, mark, pictures.normalise, labelled.classes)


def load_set(spec: ImagesSet, given: LoadContext) -> ArrayExamples:
    """Return the examples, prepared as the network needs. Raises NetworkError if it does not define how."""
    network = given.network
    own = pictures_of_set(spec, network.pictures, given.name)
    if own is None:
        raise NetworkError(
            f"{given.name}: no image transform for the network {type(network.module).__name__}",
            hint="processor.save_pretrained(...) puts it beside the weights; a set takes size:, mean: and std:, or "
            "transform: 'net.py:transform', a function from a PIL picture to a tensor",
        )
    found = find(spec, outline=network.outline, progress=given.progress)
    examples = load(spec, own, workers=given.workers, cache=given.cache, found=found, progress=given.progress)
    height, width = examples.inputs.shape[-2:]
    steps = f": {own.settings}" if own.settings is not None else ""
    first = size_of(found.pictures[0])
    sizes = f" (the first has {first[0]} x {first[1]})" if first is not None and first != (height, width) else ""
    given.note(f"{given.name}: pictures go in at {height} x {width} pixels{sizes}{steps}")
    return examples


def classifier(spec: ImagesSet, name: str, network: Network) -> Prompted | None:
    """Return a zero-shot classifier over `classnames:`, for CLIP and similar networks."""
    zero_shot = network.zero_shot
    if spec.classnames is None:
        return None
    if zero_shot is None:
        raise NetworkError(f"val.{name}: classnames: are for a CLIP network", hint="model: {open_clip: NAME}")
    words = prompts.read(spec.classnames, spec.templates)
    return Prompted(words, lambda module: zero_shot(module, *words))


KIND: SetKind[ImagesSet] = SetKind(
    lambda spec, manifest, _: fingerprint(spec, manifest),
    load_set,
    class_order=lambda spec, outline, _: class_order(spec, outline),
    classifier=classifier,
    transform=transform_source,
)
