"""Finds the files beside an ingredient's weights that a soup carries on: configuration, tokenizer, licence, ...

    beside = files_beside(checkpoint.side_folder, checkpoint.files)
    beside.files                                           # SideFile(path, name): what is copied, sorted by name
    beside.left_out                                        # "other.json: a link that leads out of its folder"

Every small file except weights and training state is carried on, also in sub-folders such as `1_Pooling`. Code is
carried on only if a configuration of the folder names it (`auto_map`) or it lies in `custom_generate/`, and never run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.compare.token_lists import numbers_tokens
from soupcli.checkpoints.formats.class_lists import is_class_list, is_embedded_list
from soupcli.checkpoints.formats.folders.folder import LAST, MAX_NAME, SIDE_FILES, STATISTICS, TRAINER_STATE
from soupcli.checkpoints.formats.folders.trainer_state import NAME
from soupcli.checkpoints.formats.foreign import LATEST
from soupcli.checkpoints.formats.other_files import exported_form
from soupcli.checkpoints.formats.statistics_files import is_statistics
from soupcli.checkpoints.formats.torch_save import is_state, is_without_tensors
from soupcli.checkpoints.named_code import named_code
from soupcli.checkpoints.shell_patterns import matches
from soupcli.files.reading import FileVersion
from soupcli.files.small_file import read_small, read_start, same_bytes

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

LARGEST = 1 << 26  # bytes of one file: the largest tokenizers have half of that
MOST_BYTES = 1 << 29  # of all files
MOST_FILES = 1000
MOST_LOOKED_AT = 5000  # files and folders, those with names of side files first
DEEPEST = 3  # folders below the ingredient's
SPARSE = 1 << 20  # bytes: a larger file of which less than half lies on the disk has holes

POINTERS = (LAST, LATEST)  # files that name the weights, or their folder
REPORT = "soup.json"  # of a soup that is an ingredient: it is not the new soup's
# Files that hold weights, in whatever format; their small indexes too.
WEIGHTS = (
    *("*.safetensors", "*.safetensors.index*.json", "*.bin.index*.json", "pytorch_model*.bin", "*_model.bin"),
    *("*.pt", "*.pth", "*.ckpt", "*.pth.tar", "*.pt.tar", "*.distcp", "*.h5", "*.keras", "*.msgpack", "*.ot"),
    *("*.onnx", "*.onnx_data", "*.gguf", "*.ggml", "*.tflite", "*.pb", "*.mlmodel", "*.nemo", "*.npz", "*.engine"),
    *("*.pdparams", "*.plan", "openvino_*model.xml"),
)
# Of WEIGHTS, that may be any numbers: named where they are left out, unless they are statistics.
ARRAYS = ("*.npz", "*.h5", "*.msgpack")
OTHER_FORMS = ("tf_model*", "flax_model*", "model*", "*.weights.h5")  # of them, that are the network once more
# Numbers that are carried on from one ingredient: statistics, heads and scalers of other libraries.
NUMBERS = (".pkl", ".pickle", ".joblib", ".npy", ".sav")
LISTS = (".pt", ".pth")  # of WEIGHTS, that may be lists of names: those of speakers, tokens, classes
# What trainers leave beside the weights.
TRAINING = (
    *("optimizer*", "scheduler*", "scaler*.pt", "scaler*.bin", "sampler*", "training_args.bin", "rng_state*"),
    *("random_states*", "custom_checkpoint_*", "dl_state_dict*", "train_state*", "latest_train_state*"),
    *("trainer_state.json", "zero_to_fp32.py", "*.log"),
    *("events.out.*", "*_results.json", "emissions.csv", "nohup.out", "adapter_model.*", "meta.pt", "*.pdopt"),
)
TRAINING_FOLDERS = (
    *("runs", "logs", "log", "wandb", "mlruns", "tensorboard", "lightning_logs", "__pycache__", "checkpoint-*"),
    *("checkpoints", "global_step*", "samples", "eval", "pytorch_model_fsdp_*", "optimizer_*", "iter_*"),
    *("fold_*", "validation"),
)
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", ".svg", ".pdf", ".mp4", ".wav")
PROGRAMS = (".sh", ".bash", ".exe", ".so", ".dll", ".dylib", ".bat", ".cmd", ".ps1", ".jar", ".whl", ".pyc", ".ipynb")
DATA = (".json", ".txt", ".model", ".yaml", ".yml", ".md", ".vocab", ".jinja", ".tiktoken", ".spm", ".bpe", ".py")
PROGRAM_STARTS = (b"\x7fELF", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


class SideFile(NamedTuple):
    """A file to carry on. `name` is its path below the ingredient's folder, with `/`."""

    path: Path
    name: str
    size: int


class SideFiles(NamedTuple):
    """The files that a soup copies, and a line for each left-out file that it may need."""

    files: tuple[SideFile, ...] = ()
    left_out: tuple[str, ...] = ()


class _Entry(NamedTuple):
    """A file of the folder. `why` is the reason to leave it out, or ""."""

    file: SideFile
    why: str


def files_beside(folder: Path | None, weights: Sequence[FileVersion] = ()) -> SideFiles:
    """Return the files in `folder` that a soup carries on. `weights` are those that are mixed."""
    if folder is None:
        return SideFiles()
    mixed = {(file.device, file.inode) for file in weights}
    found = list(_Walk(Path(os.path.realpath(folder)), mixed, MOST_LOOKED_AT).entries(folder))
    wanted = [entry.file for entry in found if not entry.why and not entry.file.name.endswith(".py")]
    code = [entry.file for entry in found if not entry.why and entry.file.name.endswith(".py")]
    named = named_code([file.path for file in wanted], {file.name: file.path for file in code})
    wanted += [file for file in code if file.name in named]
    left_out = [f"{entry.file.name}: {entry.why}" for entry in found if entry.why]
    left_out += [f"{file.name}: code that no configuration names" for file in code if file.name not in named]
    kept, room = [], MOST_BYTES
    for number, file in enumerate(
        sorted(wanted, key=lambda file: (not matches(file.path.name, SIDE_FILES), file.name))
    ):
        if number >= MOST_FILES or file.size > room:
            left_out.append(f"{file.name}: more than {MOST_FILES} files or {MOST_BYTES} bytes")
            continue
        kept.append(file)
        room -= file.size
    return SideFiles(tuple(sorted(kept, key=lambda file: file.name)), tuple(sorted(left_out)))


def state_beside(folder: Path | None) -> list[SideFile]:
    """Return the files in `folder` that a training goes on from: its optimizer, its random numbers, its steps."""
    if folder is None:
        return []
    names = os.listdir(folder)  # noqa: PTH208 - a Path for each of very many files takes long
    named = (folder / name for name in sorted(names) if matches(name, (*TRAINER_STATE, NAME)))
    files = (entry for entry in named if _is_training(entry.name) and entry.is_file() and leads_inside(entry, folder))
    return [SideFile(entry, entry.name, entry.stat().st_size) for entry in files]


def differing_numbers(files: Sequence[SideFile], of: Checkpoint, others: Iterable[Checkpoint]) -> list[str]:
    """Return a line for each file of numbers or bytes beside `of` that is another one beside one of `others`."""
    found = []
    for file in files:
        if _is_no_text(file.path):
            beside = ((one, one.side_folder / file.name) for one in others if one.side_folder is not None)
            other = next((one for one, path in beside if path.is_file() and not same_bytes(path, file.path)), None)
            if other is not None:
                found.append(f"{file.name}: is that of {of.path}, not a mean; {other.path} has another")
    return found


def _is_no_text(file: Path) -> bool:
    """Whether nothing compares the file as text, such as a scaler or a language model."""
    suffix = file.suffix.lower()
    if suffix in (*NUMBERS, *LISTS) or matches(file.name, STATISTICS):
        return True
    return suffix not in DATA and b"\0" in read_start(file, 1024)


def is_weights(name: str) -> bool:
    """Whether a file's name is that of weights, in whatever format."""
    return matches(name, WEIGHTS) and not matches(name, STATISTICS)


def _is_training(name: str) -> bool:
    """Whether a file's name is a trainer's. `scheduler_config.json` belongs to a diffusers pipeline."""
    return matches(name, TRAINING) and name != "scheduler_config.json"


@dataclass
class _Walk:
    """Goes through a folder and those below it, up to a number of files and folders."""

    root: Path
    mixed: set[tuple[int, int]]  # device and inode of the weights
    left: int  # of the files and folders that are looked at

    def entries(self, folder: Path, above: str = "", depth: int = 0) -> Iterator[_Entry]:
        try:
            found = sorted((entry for entry in os.scandir(folder) if _counts(entry, above)), key=_side_files_first)
        except OSError:
            return
        for number, entry in enumerate(found):
            if not self.left:
                count = f"{len(found) - number} of its files and folders: at most {MOST_LOOKED_AT} are looked at"
                yield _Entry(SideFile(folder, above or "./", 0), count)
                return
            self.left -= 1
            path, name = Path(entry.path), above + entry.name
            if _is_mixed(path, self.mixed):
                continue
            if entry.is_symlink() and not leads_inside(path, self.root):
                yield _Entry(SideFile(path, name, 0), "a link that leads out of the ingredient's folder")
            elif path.is_dir():
                yield from self.folder(path, name, depth)
            elif not _is_passed_over(entry.name):
                file = _file(path, name, self.mixed)
                if file is not None:
                    yield file

    def folder(self, path: Path, name: str, depth: int) -> Iterator[_Entry]:
        """A sub-folder: a part of the network, if weights in it are mixed or there are none."""
        if matches(path.name, TRAINING_FOLDERS):
            return
        if path.is_symlink() or depth >= DEEPEST:
            why = "a link to a folder" if path.is_symlink() else "too deep a folder"
            yield _Entry(SideFile(path, f"{name}/", 0), why)
            return
        mixed, others = _weights_in(path, self.mixed)
        if others and not mixed:
            yield _Entry(SideFile(path, f"{name}/", 0), "holds weights that are not mixed")
            return
        yield from (_Entry(SideFile(file, f"{name}/{file.name}", 0), "weights that are not mixed") for file in others)
        yield from self.entries(path, f"{name}/", depth + 1)


def _counts(entry: os.DirEntry[str], above: str) -> bool:
    """Whether an entry of a folder is looked at, by its name and kind alone: a folder may hold 100,000 pictures."""
    name = entry.name
    if name.startswith(".") or (not above and name == REPORT):
        return False
    may_be = matches(name, (*WEIGHTS, *TRAINING)) or name.lower().endswith(PICTURES)  # one look at most names
    passed_over = may_be and (_is_passed_over(name) or _is_of_weights(name))
    return not passed_over or entry.is_symlink() or not entry.is_file()


def _is_passed_over(name: str) -> bool:
    return name.lower().endswith(PICTURES) or _is_training(name)


def _is_of_weights(name: str) -> bool:
    numbers = matches(name, ARRAYS) and not matches(name, OTHER_FORMS)
    return is_weights(name) and not numbers and not _may_be_list(name)


def _may_be_list(name: str) -> bool:
    """Whether a file is called as lists of classes, speakers or tokens are, and may be one by torch.save."""
    return name.lower().endswith(LISTS) and any(
        is_list(name) for is_list in (is_class_list, is_embedded_list, numbers_tokens)
    )


def _side_files_first(entry: os.DirEntry[str]) -> tuple[bool, bool, str]:
    """Return a key that sorts known names before folders, and these before other files."""
    return not matches(entry.name, SIDE_FILES), entry.is_file(), entry.name


def _is_mixed(path: Path, mixed: set[tuple[int, int]]) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) in mixed


def _weights_in(folder: Path, mixed: set[tuple[int, int]]) -> tuple[list[Path], list[Path]]:
    """Return the files of weights in a folder: those that are mixed, and others, such as a pipeline's fp16 variant."""
    entries = (Path(entry.path) for entry in os.scandir(folder) if not entry.name.endswith(".json"))
    files = (file for file in entries if is_weights(file.name) and not matches(file.name, TRAINING))
    named = [file for file in files if not (matches(file.name, ARRAYS) and is_statistics(file.name))]
    found = sorted(file for file in named if file.exists())
    of_soup = [file for file in found if _is_mixed(file, mixed)]
    others = [file for file in found if file not in of_soup]
    return of_soup, [file for file in others if not (file.is_file() and is_state(FileVersion.of(file)))]


def _file(path: Path, name: str, mixed: set[tuple[int, int]]) -> _Entry | None:
    """Return the file with the reason to leave it out, or None for weights."""
    try:
        found = path.stat()
    except OSError as cause:
        return _Entry(SideFile(path, name, 0), str(cause.strerror))
    file = SideFile(path, name, found.st_size)
    if not stat.S_ISREG(found.st_mode):
        return _Entry(file, "no regular file")
    arrays = matches(path.name, ARRAYS)
    of_inputs = arrays and is_statistics(path.name)
    if arrays and not of_inputs:
        return _Entry(file, "numbers that are not mixed")
    is_list = _may_be_list(path.name) and is_without_tensors(FileVersion.of(path))
    if is_weights(path.name) and not (is_list or of_inputs):
        return None
    if path.name in POINTERS and not _names_one(path, mixed):
        return None
    if found.st_size > LARGEST:
        return _Entry(file, f"{found.st_size} bytes, at most {LARGEST} are copied")
    if found.st_size > SPARSE and found.st_blocks * 512 < found.st_size // 2:
        return _Entry(file, "a file with holes")
    if _is_program(path, found.st_mode):
        return _Entry(file, "a program")
    form = exported_form(path)
    return _Entry(file, f"{form}: it holds the weights of the ingredient" if form is not None else "")


def _names_one(path: Path, mixed: set[tuple[int, int]]) -> bool:
    """Whether a file contains the name of a mixed file of weights, or of the folder with one."""
    try:
        name = read_small(path, most=MAX_NAME).decode("utf-8", "replace").strip()
        named = path.parent / name
        return "/" not in name and any(_is_mixed(file, mixed) for file in (named, *named.glob("*")))
    except (OSError, ValueError):
        return False


def _is_program(path: Path, mode: int) -> bool:
    """Whether the system could run the file. Data with an executable mode is still data (copied from Windows)."""
    if path.suffix.lower() in PROGRAMS:
        return True
    if path.suffix.lower() in DATA:
        return False
    try:
        start = read_start(path, 4)
    except OSError:
        return True
    return bool(mode & 0o111) or start.startswith(PROGRAM_STARTS)


def leads_inside(path: Path, folder: Path) -> bool:
    """Whether the path leads into the folder, or into the blobs of the same repository in the Hub's cache."""
    target, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    snapshots = next((at.parent for at in (root, *root.parents) if at.parent.name == "snapshots"), None)
    in_cache = snapshots is not None and target.parent == snapshots.parent / "blobs"
    return in_cache or target.is_relative_to(root)
