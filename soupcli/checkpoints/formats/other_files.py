"""Refuses files that are no checkpoints of torch: pointers to absent files, web pages, formats of other programs.

Each is recognised by its first bytes and refused by name, with the way out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.formats.torch_archives import program_in
from soupcli.errors import CheckpointError
from soupcli.files.json_text import parse_json
from soupcli.files.reading import FileVersion, read_bytes
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from pathlib import Path

HEAD = 2048  # bytes that are looked at
SMALL = 100_000  # bytes: pointers and error pages are smaller
NOT_OURS = "soup mixes weights of torch: files of torch.save and safetensors"
SPACY = f"{NOT_OURS}: those of a transformer are nlp.get_pipe('transformer').model.transformer.save_pretrained(folder)"
EXPORTED = f"{NOT_OURS}: mix the checkpoints that it was made from, and export the soup"
ANNEX = "/annex/objects/"
GET_ANNEX = "get the file itself: git annex get"


class FileKind(NamedTuple):
    """A kind of file, and how it begins."""

    begins: re.Pattern[bytes]
    what: str
    hint: str
    is_export: bool = False  # whether it holds a network as another program runs it


def _kind(pattern: bytes, what: str, hint: str, *, is_export: bool = False) -> FileKind:
    return FileKind(re.compile(pattern, re.DOTALL | re.IGNORECASE), what, hint, is_export)


# No file of torch.save or safetensors begins so.
KINDS = (
    _kind(
        rb"version https://(git-lfs|hawser)\S*\r?\n",
        "is a Git LFS pointer, not the file itself",
        "get the file itself: git lfs pull",
    ),
    _kind(rb"(\.\./)*/?(\.git)?/annex/objects/", "is a git-annex pointer, not the file itself", GET_ANNEX),
    _kind(
        rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b",
        "is a web page, not a checkpoint: the download failed",
        "download it again; hf download and a token help with private and gated repositories",
    ),
    _kind(rb"\s*<\?xml[^>]*>\s*<net\b", "is OpenVINO", EXPORTED, is_export=True),
    _kind(rb"\s*<(\?xml|error)\b", "is XML, perhaps the error message of a download", "download it again"),
    _kind(
        rb"\x89HDF\r\n\x1a\n",
        "is HDF5 (Keras .h5)",
        f"{NOT_OURS}; a keras model with the torch backend has a state_dict()",
    ),
    _kind(
        rb"GGUF",
        "is GGUF (llama.cpp)",
        f"{NOT_OURS}: mix those that it was converted from, and convert the soup",
        is_export=True,
    ),
    _kind(
        rb"(lmgg|tjgg|fmgg|algg)",
        "is GGML (llama.cpp)",
        f"{NOT_OURS}: mix those that it was converted from",
        is_export=True,
    ),
    _kind(
        rb"\x93NUMPY", "is a numpy array (.npy)", "save all tensors by name: safetensors.numpy.save_file(arrays, path)"
    ),
    _kind(rb"[\x01-\x20]\0{3}.\0\w+Spec\0", "is CTranslate2 (faster-whisper)", EXPORTED, is_export=True),
    _kind(rb"ftrt", "is a TensorRT engine", EXPORTED, is_export=True),
    _kind(rb"....TFL3", "is TensorFlow Lite", NOT_OURS, is_export=True),
    _kind(rb"....ET\d\d", "is an ExecuTorch program", NOT_OURS, is_export=True),
    _kind(rb"\x1f\x8b", "is compressed by gzip", "unpack it: gunzip, or tar -xzf"),
    _kind(rb"\x28\xb5\x2f\xfd", "is compressed by zstd", "unpack it: unzstd"),
    _kind(rb"\xfd7zXZ\0", "is compressed by xz", "unpack it: unxz"),
    _kind(rb"BZh[1-9]1AY", "is compressed by bzip2", "unpack it: bunzip2"),
    _kind(rb"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it: 7z x"),
    _kind(rb"Rar!\x1a\x07", "is a RAR archive", "unpack it: unrar x"),
    _kind(
        rb"\s*[\[{][\x20-\x7e\s]{7}", "is JSON, not weights", "--ckpts takes checkpoint files and folders that hold one"
    ),
    _kind(rb"%PDF-", "is a PDF document", NOT_OURS),
    _kind(rb"\x7fELF", "is a program", NOT_OURS),
)
POINTERS = KINDS[:2]
STANDING_IN = KINDS[:3]  # for a file that is not here
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")
TEXT = re.compile(rb"[\x20-\x7e][\x09\x0a\x0d\x20-\x7e]*")
SHOWN = 60  # letters of a text
# Not so sure by their first bytes: asked once no format has taken the file.
LESS_SURE = (
    _kind(
        rb"\x80[\x02-\x05]",
        "is a plain pickle, not written by torch.save",
        "if you trust it, save it again: torch.save(pickle.load(open(path, 'rb')), other_path), arrays as tensors, of "
        "a network its state_dict()",
    ),
    _kind(
        rb"\x08[\x01-\x20](\x12|\x1a|:|B).*(onnx|pytorch|tf2onnx|skl2onnx|graph)",
        "is ONNX",
        f"{NOT_OURS}: mix the checkpoints that it was exported from, and export the soup",
        is_export=True,
    ),
    _kind(
        rb"[\x81-\x8f]\xa5nodes[\x90-\x9f\xdc\xdd]",  # thinc/model.py: Model.to_bytes
        "is a model of thinc, of a pipeline of spaCy",
        SPACY,
    ),
    _kind(
        rb"([\x81-\x8f]|\xde..|\xdf....)(\xa5model|\xa6params|\xa4step|\xa9opt_state|[\xa1-\xbf]\w)",
        "is msgpack (Flax)",
        "transformers reads it: AutoModel.from_pretrained(folder, from_flax=True).save_pretrained(other_folder)",
    ),
    _kind(rb".{257}ustar", "is a tar archive", "unpack it: tar -xf"),
)


EXPORTS = tuple(kind for kind in (*KINDS, *LESS_SURE) if kind.is_export)


def refuse_other_file(file: FileVersion) -> None:
    """Raises CheckpointError if the file is empty or begins as a file of another kind."""
    if not file.size:
        raise CheckpointError(f"{file.path}: is empty (0 bytes)", hint="copy or save the file again")
    if file.path.name == ".metadata" or file.path.suffix == ".distcp":
        raise CheckpointError(
            f"{file.path}: is a part of a distributed checkpoint", hint=f"give the folder: {file.path.parent}"
        )
    _refuse(file, KINDS)


def refuse_stand_in(file: FileVersion) -> None:
    """Raises CheckpointError if the file is empty, or a pointer or a web page in place of one of another kind."""
    if not file.size:
        raise CheckpointError(f"{file.path}: is empty (0 bytes)", hint="copy or save the file again")
    _refuse(file, STANDING_IN)


# Beside a file that a program of this name still fetches: it has its whole length from the start, and zeros to its end.
DOWNLOADS = {".aria2": "aria2c", ".st": "axel"}


def refuse_unfinished(file: FileVersion) -> None:
    """Raises CheckpointError if a download of the file has not ended, though it has its name and length."""
    for ending, program in DOWNLOADS.items():
        control = file.path.with_name(file.path.name + ending)
        if control.is_file():
            raise CheckpointError(
                f"{file.path}: its download has not ended, {control.name} beside it says",
                hint=f"let {program} go on; if the file is whole, delete {control.name}",
            )


def refuse_pointer(path: Path) -> None:
    """Raises CheckpointError if `path` only points to a file that is not here: of Git LFS, of git-annex, or a link."""
    refuse_absent(path)
    if path.is_file() and 0 < path.stat().st_size < SMALL:
        _refuse(FileVersion.of(path), POINTERS)


def refuse_unknown_file(file: FileVersion) -> None:
    """Raises CheckpointError if no format takes the file but one can say what it is."""
    _refuse(file, LESS_SURE)
    if not read_bytes(file, 0, HEAD).strip(b"\0"):
        raise CheckpointError(
            f"{file.path}: begins with zeros: its download or save was not finished",
            hint="fetch or save it again, or leave it out",
        )
    text = read_bytes(file, 0, min(file.size, HEAD))
    if file.path.suffix in WEIGHTS and file.size < SMALL and TEXT.fullmatch(text):
        line = text.decode().splitlines()[0]
        raise CheckpointError(
            f"{file.path}: is a text, not weights: {line[:SHOWN]!r}{'...' if len(line) > SHOWN else ''}",
            hint="if it is the message of a failed download, see to that, and download the file again",
        )


def stands_in(path: Path) -> str | None:
    """Return what a file beside the weights is if it only stands in for one that is not here: `is a Git LFS pointer`.

    So does a part of a file of JSON, which an interrupted copy leaves.
    """
    size = path.stat().st_size
    if not size:
        return "is empty" if path.suffix == ".json" else None
    found = _first(FileVersion.of(path), STANDING_IN) if size < SMALL else None
    if found is not None:
        return found.what.partition(",")[0]
    return "is not JSON" if path.suffix == ".json" and size < SMALL and not _is_json(path) else None


def _is_json(path: Path) -> bool:
    try:
        parse_json(read_small(path, most=SMALL))
    except (ValueError, RecursionError):
        return False
    return True


def exported_form(path: Path) -> str | None:
    """Return what a file beside the weights is if it holds the network as another program runs it: `is OpenVINO`."""
    file = FileVersion.of(path)
    if not file.size:
        return None
    found = _first(file, EXPORTS)
    return found.what if found is not None else program_in(file)


def _refuse(file: FileVersion, kinds: tuple[FileKind, ...]) -> None:
    found = _first(file, kinds)
    if found is not None:
        raise CheckpointError(f"{file.path}: {found.what}", hint=found.hint)


def _first(file: FileVersion, kinds: tuple[FileKind, ...]) -> FileKind | None:
    head = read_bytes(file, 0, HEAD)
    return next((kind for kind in kinds if kind.begins.match(head)), None)


KERAS = f"{NOT_OURS}; a keras model with the torch backend has a state_dict()"
ARRAYS = f"{NOT_OURS}: restore it there, and save the arrays by name: safetensors.numpy.save_file(arrays, path)"
OLDER = "transformers 4 reads it: AutoModel.from_pretrained(folder, from_{0}=True).save_pretrained(other_folder)"
# What other programs leave in a folder of weights, and the way out.
FOLDERS = {
    "_CHECKPOINT_METADATA": ("an Orbax checkpoint (JAX)", ARRAYS),
    "manifest.ocdbt": ("an Orbax checkpoint (JAX)", ARRAYS),
    "*/_CHECKPOINT_METADATA": ("steps of Orbax (JAX)", ARRAYS),
    "saved_model.pb": ("a SavedModel of TensorFlow", ARRAYS),
    "tf_model.h5": ("weights of TensorFlow", OLDER.format("tf")),
    "flax_model.msgpack": ("weights of Flax", OLDER.format("flax")),
    "openvino_model.xml": ("OpenVINO", EXPORTED),
    "*.ckpt*.index": ("a checkpoint of TensorFlow", ARRAYS),
    "*/.zarray": ("an Orbax checkpoint (JAX)", ARRAYS),
    "*/*.memmap": (
        "a memory-mapped TensorDict",
        "save it as a state dict: torch.save(TensorDict.load_memmap(folder).flatten_keys('.').to_dict(), path)",
    ),
    "Data/com.apple.CoreML": ("a Core ML package", EXPORTED),
    "config.cfg": (
        "a pipeline of spaCy, in msgpack of its own",
        SPACY,
    ),
}
ENDINGS = {
    ".gguf": ("GGUF files (llama.cpp)", f"{NOT_OURS}: mix those that it was converted from, and convert the soup"),
    ".onnx": ("ONNX files", EXPORTED),
    ".keras": ("Keras files", KERAS),
    ".h5": ("Keras files", KERAS),
    ".msgpack": ("Flax files", OLDER.format("flax")),
    ".mlmodel": ("Core ML files", EXPORTED),
    ".tflite": ("TensorFlow Lite files", EXPORTED),
    ".engine": ("TensorRT engines", EXPORTED),
    ".plan": ("TensorRT engines", EXPORTED),
}


def refuse_other_folder(folder: Path) -> None:
    """Raises CheckpointError if a folder without weights of torch holds those of another program."""
    entries = sorted(folder.iterdir())
    for entry in entries:
        refuse_absent(entry)
    for pattern, (what, way) in FOLDERS.items():
        if next(folder.glob(pattern), None) is not None:
            raise CheckpointError(f"{folder}: is {what}", hint=way)
    for entry in entries:
        if entry.suffix.lower() in ENDINGS:
            what, way = ENDINGS[entry.suffix.lower()]
            raise CheckpointError(f"{folder}: holds {what}: {entry.name}", hint=way)


def refuse_absent(path: Path) -> None:
    """Raises CheckpointError if `path` is a link to a file that is not there."""
    if path.is_symlink() and not path.exists():
        target = str(path.readlink())
        if ANNEX in target:
            raise CheckpointError(f"{path}: is a git-annex link to a file that is not here", hint=GET_ANNEX)
        raise CheckpointError(
            f"{path}: is a link to {target}, which is not there",
            hint="the target has moved or is not mounted: mend or remove the link",
        )
