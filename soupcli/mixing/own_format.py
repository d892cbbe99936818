"""Chooses the format of a soup's files: the ingredients' own if their library reads no other, or the requested one.

format_, note = chosen_format(mixture, None)           # "torch", "" for YOLO's files
written = write_own(mixture, folder, CopyOptions())     # copies of the best one's files, with other numbers
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.checkpoints.formats import numpy_pickle
from soupcli.checkpoints.formats.folders import nnunet, speechbrain
from soupcli.checkpoints.formats.folders.folder import KNOWN_NAMES
from soupcli.checkpoints.formats.folders.neighbours import OF_FSDP
from soupcli.checkpoints.formats.folders.shards import MAX_INDEX, index_name, is_index_name, is_shard, whole_name
from soupcli.checkpoints.formats.folders.torch_distributed import DistributedCheckpoint
from soupcli.checkpoints.formats.torch_archives import is_torch_file
from soupcli.checkpoints.formats.torch_save import WRITERS
from soupcli.errors import MixError
from soupcli.files.atomic import write_whole
from soupcli.files.reading import FileVersion, sha256
from soupcli.files.small_file import read_small
from soupcli.mixing.distributed_folder import write_distributed
from soupcli.mixing.layout import INDEX_SUFFIX, FilePlan, planned_files, torch_name
from soupcli.mixing.soup_folder import check_space, not_written
from soupcli.mixing.torch_copy import CopyOptions, is_archive, is_copied, why_not_cast
from soupcli.mixing.torch_file import write_copy, write_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.mixture import Mixture
    from soupcli.mixing.torch_file import TorchFile

Format = Literal["same", "safetensors", "torch"]
Form = Literal["safetensors", "torch", "distributed"]
INSTEAD = "--format safetensors writes the tensors alone"
LEFT_OUT = "training state, left out (--keep-state keeps it)"
PLAIN_COPY = CopyOptions()
READS_SAFETENSORS = frozenset({"timm training", "open_clip training"})
# Formats that their own library opens, which opens no safetensors. Of other files it is not known who opens them.
READ_ALONE = frozenset({name for name, _ in WRITERS} - READS_SAFETENSORS) | {
    *("ESPnet", "FlagEmbedding", "GluonTS", "LitGPT", "Megatron", "MONAI", "NeMo", "OLMo"),
    *("numpy pickle", "PaddlePaddle", "RLlib", "speechbrain", "wenet", OF_FSDP),
}
AS_SAFETENSORS = "written as safetensors: --format same writes files like the ingredients"


class OwnFiles(NamedTuple):
    """Weights that were written in the ingredients' own format."""

    digests: dict[str, str]  # SHA-256 of each file of weights, by its name in the folder
    others: dict[str, str]  # and of what belongs to them: an index, `.metadata`
    nbytes: int
    main: str  # the file to name, "" for the folder
    notes: tuple[str, ...]  # what became of the rest of the ingredient's files

    def with_files(self, written: Mapping[str, TorchFile]) -> OwnFiles:
        """The same, with further files of weights."""
        digests = self.digests | {name: file.digest for name, file in written.items()}
        nbytes = self.nbytes + sum(file.nbytes for file in written.values())
        return self._replace(digests=digests, nbytes=nbytes, main="" if written else self.main)


def form_of(checkpoint: Checkpoint) -> Form:
    """Return how the weights of a checkpoint are stored; torch if some of its files are torch's."""
    kept = checkpoint.own
    if isinstance(kept, DistributedCheckpoint):
        return "distributed"
    copied = kept.places and any(map(is_copied, kept.files))
    return "torch" if copied else "safetensors"


def chosen_format(mixture: Mixture, wanted: Format | None, options: CopyOptions = PLAIN_COPY) -> tuple[Form, str]:
    """Return the format of the soup, and a note if it is not the one that its ingredients suggest.

    By default it is the ingredients' format if their library is known to open no other, or if there are states of
    modules, or plain numbers among the tensors. Raises MixError if the wanted format cannot be written.
    """
    kept = mixture.kept.own
    states = kept.origin.states
    without = f"without {states[0]} (and {len(states) - 1} more), which are no tensors" if len(states) > 1 else ""
    without = f"without {states[0]}, which is no tensor" if len(states) == 1 else without
    if wanted == "safetensors":
        return "safetensors", without
    if kept.is_adapter:
        if wanted == "torch":
            raise MixError(f"--format torch: {kept.path} is an adapter, PEFT reads safetensors", hint=INSTEAD)
        return "safetensors", ""
    if wanted == "torch":
        return "torch", ""
    form = form_of(kept)
    if form == "safetensors" or (wanted is None and any(form_of(member) != form for member in mixture.members)):
        return "safetensors", without
    if wanted is None and kept.origin.format not in READ_ALONE and not states:
        expected = form == "torch" and kept.origin.key is None and _libraries_look_for(kept)
        return "safetensors", "" if expected else AS_SAFETENSORS
    why = why_not_copied(mixture, options)
    if why and wanted == "same":
        raise MixError(f"--format same: {why}", hint=INSTEAD)
    said = "; ".join(filter(None, (f"written as safetensors, not as the ingredients were: {why}", without)))
    return ("safetensors", said) if why else (form, "")


def _libraries_look_for(kept: Checkpoint) -> bool:
    """Whether the weights have a name that libraries look for, beside model.safetensors."""
    return bool(kept.parts) or len(kept.files) > 1 or kept.files[0].path.name in KNOWN_NAMES


def why_not_copied(mixture: Mixture, options: CopyOptions) -> str:
    """Return why the best ingredient's files cannot be copied with other numbers, or "" if they can."""
    kept = mixture.kept.own
    cast: dict[FileVersion, str] = {}
    for name in mixture.kept.tensors:
        spec, stored = mixture.spec(name), kept.tensors.get(name)
        if stored is None or stored.shape != spec.shape:
            file = kept.files[0].path if len(kept.files) == 1 else kept.path
            return f"{file}: tensor {name!r} is another one in the soup"
        if stored.dtype != spec.dtype:
            said = f"tensor {name!r} has dtype {stored.dtype}, in the soup {spec.dtype}"
            place = kept.places.get(name)
            if place is None or not is_archive(place.file):
                return f"{kept.path if place is None else place.file.path}: {said}"
            cast.setdefault(place.file, said)
    whys = {file: why_not_cast(mixture, file, options) for file in cast}
    return next((f"{file.path}: {cast[file]}: {why}" for file, why in whys.items() if why), "")


def write_own(mixture: Mixture, folder: Path, options: CopyOptions, *, wanted: Format | None = "same") -> OwnFiles:
    """Mix the tensors of `mixture` into files in `folder` as torch wrote the ingredients.

    Networks of a pipeline that lie in safetensors are left to the caller, unless torch's format is `wanted` of all.
    Ingredients that torch did not write give a plain state dict. Raises MixError if a tensor cannot be mixed, or
    shares memory with another one in one ingredient and not in all; OutputError if the disk is full.
    """
    form = form_of(mixture.kept)
    if wanted == "torch" and (form == "distributed" or all(map(is_numpy_pickle, mixture.kept.own.files))):
        form = "safetensors"  # a plain file of torch's is asked for, and no folder or arrays
    if form != "safetensors" and (why := why_not_copied(mixture, options)):
        raise MixError(why, hint=INSTEAD)
    kept = mixture.kept.own
    needed = sum(mixture.spec(name).nbytes for name in mixture.kept.tensors)
    needed = needed if form == "safetensors" else sum(file.size for file in kept.files)
    check_space(folder.parent, needed)
    with _refusals_said(folder, needed):
        if form == "distributed" and isinstance(kept, DistributedCheckpoint):
            found = write_distributed(mixture, kept, folder, options)
            return OwnFiles(found.digests, found.others, found.nbytes, "", found.notes)
        if form == "safetensors":
            return _own_files(_plain_files(mixture, planned_files(mixture), folder, options), {})
        written = _copies(mixture, folder, options)
        plain = _plain_files(mixture, in_safetensors(mixture) if wanted == "torch" else [], folder, options)
        return written.with_files(plain)


def is_numpy_pickle(file: FileVersion) -> bool:
    """Whether a file is a plain pickle, which holds numpy arrays."""
    return numpy_pickle.begins(file) and not is_torch_file(file)


def _copies(mixture: Mixture, folder: Path, options: CopyOptions) -> OwnFiles:
    """Copies of the best ingredient's files of torch.save, and what belongs to them."""
    files = {file: name for file, name in _names(mixture).items() if is_copied(file)}
    written: dict[str, TorchFile] = {}
    indexes: dict[str, str] = {}
    for file, name in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written[name] = write_copy(mixture, file, folder / name, options)
        for index in dict.fromkeys((index_name(whole_name(name)), whole_name(name) + INDEX_SUFFIX)):
            beside = file.path.parent / index.rpartition("/")[2]
            if index not in indexes and is_shard(file.path.name) and beside.is_file():
                content = _with_size(read_small(beside, most=MAX_INDEX), mixture)
                write_whole(folder / index, content)
                indexes[index] = hashlib.sha256(content).hexdigest()
    kept = mixture.kept.own
    if kept.origin.format != speechbrain.FORMAT:
        return _own_files(written, indexes)
    others, notes = _recoverables(kept.folder, folder, keep_state=options.keep_state)
    return _own_files(written, indexes | others, notes)


def _with_size(index: bytes, mixture: Mixture) -> bytes:
    """An index of shards with the bytes of the soup's tensors, if their dtypes are others than in the ingredient."""
    stored = mixture.kept.own.tensors
    if all(mixture.spec(name).dtype == stored[name].dtype for name in mixture.kept.tensors):
        return index
    content = json.loads(index)
    total = sum(mixture.spec(name).nbytes for name in mixture.kept.tensors)
    content["metadata"] = {**(content.get("metadata") or {}), "total_size": total}
    return (json.dumps(content, indent=2) + "\n").encode()


def _recoverables(source: Path, folder: Path, *, keep_state: bool) -> tuple[dict[str, str], list[str]]:
    """Copy the other files that speechbrain recovers: it refuses a folder that lacks one of them.

    Returns the files' SHA-256, and notes on what was left out.
    """
    found = speechbrain.contents_of(source)
    digests = {}
    for file in (*found.others, *(found.training if keep_state else ())):
        shutil.copyfile(file, folder / file.name)
        digests[file.name] = sha256(FileVersion.of(folder / file.name))
    dropped = [] if keep_state else found.training
    return digests, [f"{file.name}: {LEFT_OUT}" for file in dropped]


def in_safetensors(mixture: Mixture) -> list[FilePlan]:
    """The networks that lie in safetensors beside others in torch's files, as in a pipeline of diffusers."""
    kept = mixture.kept.own
    if form_of(kept) != "torch" or not kept.parts:
        return []
    copied = {file for file in kept.files if is_copied(file)}
    return [plan for plan in planned_files(mixture) if not any(kept.places[name].file in copied for name in plan.names)]


def _plain_files(
    mixture: Mixture, plans: Iterable[FilePlan], folder: Path, options: CopyOptions
) -> dict[str, TorchFile]:
    """Write a plain state dict for each network."""
    written = {}
    for plan in plans:
        name = torch_name(plan.file)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written[name] = write_plain(mixture, plan.names, folder / name, options)
    return written


def _own_files(written: Mapping[str, TorchFile], others: dict[str, str], notes: Iterable[str] = ()) -> OwnFiles:
    said = list(notes)
    for name, file in written.items():
        stayed = file.notes.as_in_ingredient
        said += [f"{name}: {entry}: as in the ingredient, not averaged" for entry in stayed]
        said += [f"{name}: {entry}: {LEFT_OUT}" for entry in file.notes.dropped]
    indexes = [name for name in others if is_index_name(name)]
    main = indexes[0] if len(indexes) == 1 else next(iter(written)) if len(written) == 1 else ""
    digests = {name: file.digest for name, file in written.items()}
    return OwnFiles(digests, others, sum(file.nbytes for file in written.values()), main, tuple(said))


def _names(mixture: Mixture) -> dict[FileVersion, str]:
    """Each file of the best ingredient -> its name in the soup's folder: as in the ingredients, if all agree."""
    kept = mixture.kept.own
    if len(kept.files) > 1:
        return {file: _name_in(kept, file) for file in kept.files}
    [file] = kept.files
    owners = [one.own for one in (*mixture.members, mixture.kept)]
    names = {_name_in(one, one.files[0]) for one in owners if one.files}
    if len(names) == 1:
        return {file: names.pop()}
    folds = {PurePosixPath(name) for name in names}
    if (
        kept.origin.format == nnunet.FORMAT
        and nnunet.model_folder(file.path)
        and len({fold.name for fold in folds}) == 1
    ):
        return {file: f"{nnunet.ALL_FOLDS}/{folds.pop().name}"}
    if len({name.rpartition("/")[2] for name in names}) == 1:  # DeepSpeed's, each of a step of its own
        return {file: _name_in(kept, file)}
    ending = next((end for end in (".pth.tar", ".pt.tar") if file.path.name.endswith(end)), file.path.suffix)
    return {file: f"model{ending or '.pt'}"}


def _name_in(checkpoint: Checkpoint, file: FileVersion) -> str:
    """The name of a file in the folder that the user gave; of a file that the user gave, its own."""
    try:
        return str(file.path.relative_to(checkpoint.folder))
    except ValueError:
        return file.path.name


@contextmanager
def _refusals_said(folder: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise not_written(folder.parent, cause, needed) from cause
