"""NeMo's .nemo files: a tar archive of a configuration and of weights by torch.save, which are read where they lie."""

from __future__ import annotations

import re
import tarfile
from contextlib import suppress
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.class_lists import lists_in
from soupcli.checkpoints.formats.own_settings import settings_in
from soupcli.checkpoints.formats.sentencepiece import numbered_pieces
from soupcli.checkpoints.formats.soup_mark import members_at, tail_of
from soupcli.checkpoints.formats.text_documents import of_yaml
from soupcli.checkpoints.formats.torch_save import read_header
from soupcli.errors import CheckpointError
from soupcli.files.reading import ByteRange, open_slice, read_bytes
from soupcli.files.tar_archive import open_tar

if TYPE_CHECKING:
    from soupcli.checkpoints.contents import Contents, How
    from soupcli.files.reading import FileVersion

WEIGHTS = "model_weights.ckpt"
CONFIG = "model_config.yaml"
HASH = re.compile(r"[0-9a-f]{32}_")  # before names of artifacts
LARGEST, LARGEST_YAML = 1 << 25, 500_000  # bytes of a vocabulary and of a configuration that are compared
MOST = 10_000  # members that are looked at


def is_nemo(file: FileVersion) -> bool:
    """Whether the file is a tar archive that holds what NeMo puts into one."""
    if read_bytes(file, 257, 5) != b"ustar":
        return False
    names = {PurePosixPath(member.name).name for member in _members(file)}
    return CONFIG in names and any(name in names for name in (WEIGHTS, "model_weights", "metadata.json"))


def read_contents(file: FileVersion, how: How) -> Contents:
    """Returns specs and places of the weights. Raises CheckpointError if they lie in several parts."""
    weights = weights_member(file)
    contents = read_header(file, weights.offset, weights.size, key=how.key)
    origin, beside = contents.origin, _documents(file)
    lists = lists_in(beside)
    return contents._replace(
        origin=origin._replace(
            format="NeMo",
            members=members_at(file, tail_of(file)),
            classes={**origin.classes, **lists.classes},
            lists={**origin.lists, **lists.others},
            inputs={**origin.inputs, **lists.inputs},
            settings={**origin.settings, **settings_in(beside)},
        )
    )


def _documents(file: FileVersion) -> dict[str, Any]:
    """Return the configuration in the archive, and the vocabularies of its tokenizers by their names without a hash."""
    found: dict[str, Any] = {}
    for member in _members(file):
        name = HASH.sub("", PurePosixPath(member.name).name)
        if not member.isreg() or member.size > LARGEST:
            continue
        if name == CONFIG and member.size <= LARGEST_YAML:
            with suppress(ValueError, RecursionError):
                found["config"] = of_yaml(_text_of(file, member))
        elif name.endswith("vocab.txt"):
            with suppress(ValueError):
                found[name] = {"vocab": _text_of(file, member).split()}
        elif name.endswith(".model"):
            found[name] = {"vocab": numbered_pieces(read_bytes(file, member.offset_data, member.size))}
    return found


def _text_of(file: FileVersion, member: tarfile.TarInfo) -> str:
    return read_bytes(file, member.offset_data, member.size).decode("utf-8")


def weights_member(file: FileVersion) -> ByteRange:
    """Return the place of the archive's weights. Raises CheckpointError if they are in several parts."""
    weights = [member for member in _members(file) if PurePosixPath(member.name).name == WEIGHTS]
    if len(weights) != 1 or not weights[0].isreg():
        raise CheckpointError(
            f"{file.path}: holds {len(weights)} of {WEIGHTS}: its network lies in parts of several processes",
            hint="NeMo joins them: restore it with tensor and pipeline parallel sizes of 1, and save_to(OTHER.nemo)",
        )
    return ByteRange(weights[0].offset_data, weights[0].size)


def _members(file: FileVersion) -> list[tarfile.TarInfo]:
    """The archive's members; none if it is broken."""
    try:
        with open_slice(file) as opened, open_tar(opened) as archive:
            return list(islice(archive, MOST))
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return []
