"""Fills a soup's folder with weights and side files, and returns what the report says about both.

filled = fill(folder, mixture, hashes, WritingOptions(max_shard_size=5_000_000_000))
filled.file_hashes                                     # {"model.safetensors": "sha256:...", "config.json": ...}
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli.checkpoints.formats.safetensors import read_header
from soupcli.checkpoints.side_files import LARGEST, POINTERS, SideFile, differing_numbers, files_beside, state_beside
from soupcli.files.json_text import parse_json
from soupcli.files.reading import FileVersion, sha256
from soupcli.files.small_file import read_small
from soupcli.mixing.adapter_mean import soup_specs
from soupcli.mixing.merged_adapters import as_written, own_tensors
from soupcli.mixing.old_soup import REPORT
from soupcli.mixing.soup_folder import content_of
from soupcli.mixing.write_soup import AdapterNotes, WritingOptions, Written, write_soup
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.dtype import Dtype
    from soupcli.checkpoints.hashes import ContentHashes
    from soupcli.mixing.mixture import Mixture
    from soupcli.mixing.soup_folder import SoupFolder


class Filled(NamedTuple):
    """The folder's content: names of all files of the soup, including the report, and the hash of each other file."""

    written: Written
    files: list[str]
    file_hashes: dict[str, str]
    left_out: list[str]
    adapter: AdapterNotes | None
    specs: Mapping[str, TensorSpec]  # of the tensors in its files


def fill(
    folder: SoupFolder,
    mixture: Mixture,
    hashes: ContentHashes,
    options: WritingOptions,
    progress: Progress = silent,
) -> Filled:
    """Write weights and side files into the folder.

    The ingredients' hashes are needed only at the end; they are computed as the weights are mixed.
    """

    whole = as_written(mixture, merge_adapters=options.merge_adapters)
    specs, kept = soup_specs(whole), whole.kept
    own = own_metadata(kept)

    def metadata(hash_of: Callable[[Checkpoint], str]) -> dict[str, str]:
        return {**own, "format": "pt", "soup": provenance(mixture, hash_of)}

    beside = files_beside(kept.side_folder, kept.files)
    state = [
        file for file in state_beside(kept.side_folder if options.keep_state else None) if file.name not in folder.kept
    ]
    folder.need(sum(spec.nbytes for spec in specs.values()) + sum(file.size for file in (*beside.files, *state)))
    if whole is not mixture:
        hashes.start([*mixture.members, mixture.kept])
    options = replace(
        options,
        metadata=metadata(lambda _: f"sha256:{'0' * 64}"),
        final_metadata=lambda: metadata(hashes.of),
        hashes=hashes if whole is mixture else None,
    )
    written, notes = write_soup(whole, folder.path, options, progress)
    place = _place_of(kept, written.hashes)
    files = [file._replace(name=place + file.name) for file in beside.files if _is_true(file, written)]
    files = [file for file in files if file.name not in written.hashes]
    state = [file._replace(name=place + file.name) for file in state if place + file.name not in written.hashes]
    unmeasured, measured = _unmeasured(files)
    digests = {**written.hashes, **folder.copy(files, _corrected(files, own_tensors(kept), specs) | unmeasured)}
    digests |= {file.name: _copied(file, folder.path / file.name) for file in state}
    left_out = [*beside.left_out, *measured, *differing_numbers(files, kept, mixture.members), *written.notes]
    left_out += [f"{file.name}: as in the ingredient, not averaged" for file in state]
    return Filled(written, [*digests, REPORT], digests, left_out, notes, specs)


def own_metadata(kept: Checkpoint) -> dict[str, str]:
    """Return what the ingredient's file says of itself, for the soup's: settings that a loader reads, and its classes.

    Hashes are of the ingredient's weights alone.
    """
    first = kept.files[0] if kept.files else None
    found = read_header(first)[2] if first is not None and first.path.suffix == ".safetensors" else {}
    classes = {place.rpartition(".")[2]: json.dumps(names) for place, names in kept.origin.classes.items()}
    return {key: text for key, text in {**classes, **found}.items() if "hash" not in key.lower()}


def _place_of(kept: Checkpoint, written: Iterable[str]) -> str:
    """Return the folder in the soup, with a slash after it, that side files belong in; "" for the soup's own.

    Side files that lie with the weights below the ingredient's folder, as in Megatron's iterations, lie so in the soup.
    """
    side, path = kept.side_folder, kept.path
    place = f"{side.relative_to(path)}/" if side is not None and side != path and side.is_relative_to(path) else ""
    return place if any(name.startswith(place) for name in written) else ""


def _copied(file: SideFile, target: Path) -> str:
    """Copy a file of any size. Returns its hash."""
    shutil.copyfile(file.path, target)
    return f"sha256:{sha256(FileVersion.of(target))}"


def _is_true(file: SideFile, written: Written) -> bool:
    """Whether a side file that names the weights names those that were written."""
    if file.name not in POINTERS:
        return True
    named = content_of(file).decode("utf-8", "replace").strip()
    return any(name == named or name.startswith(f"{named}/") for name in written.hashes)


def copy_side_files(mixture: Mixture, folder: Path) -> None:
    """Copy the side files that a soup carries on into the folder with its weights."""
    kept = mixture.kept
    written = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    place = _place_of(kept, written)
    placed = (file._replace(name=place + file.name) for file in files_beside(kept.side_folder, kept.files).files)
    beside = [file for file in placed if file.name not in written]
    changes = _corrected(beside, own_tensors(kept), soup_specs(mixture)) | _unmeasured(beside)[0]
    for file in beside:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(changes.get(file.name) or content_of(file))


def provenance(mixture: Mixture, hash_of: Callable[[Checkpoint], str]) -> str:
    """Return members and weights as one line of sorted JSON, so that equal soups have equal bytes."""
    hashes = [hash_of(member) for member in mixture.members]
    members = sorted(zip(hashes, mixture.weights, strict=True))
    made_of: dict[str, Any] = {"members": [m for m, _ in members], "weights": [w for _, w in members]}
    if mixture.coefficients is not None:
        rows = {name: sorted(zip(hashes, row, strict=True)) for name, row in mixture.coefficients.items()}
        made_of["coefficients"] = f"sha256:{hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()}"
    return json.dumps(made_of, sort_keys=True)


MEASURED = "CKPT.yaml"  # of speechbrain, whose loader picks a checkpoint by what it says
UNMEASURED = ("unixtime", "end-of-epoch")  # keys that its Checkpointer adds to them


def _unmeasured(files: Iterable[SideFile]) -> tuple[dict[str, bytes], list[str]]:
    """Return new content for files with an ingredient's measurements, and a line for each: the soup has others."""
    found, said = {}, []
    for file in files:
        if file.name.rpartition("/")[2] == MEASURED:
            kept, left = [], []
            for line in content_of(file).decode("utf-8", "replace").splitlines(keepends=True):
                key = line.partition(":")[0]
                if line[:1] in ("#", "\n") or key in UNMEASURED:
                    kept.append(line)
                elif line[:1] not in " -":
                    left.append(key)
            found[file.name] = "".join(kept).encode()
            said += [f"{file.name}: {key}: measured on an ingredient, not on the soup" for key in left]
    return found, said


CONFIG = "config.json"
DTYPE_KEYS = ("dtype", "torch_dtype")  # of transformers since version 5, and before


def _corrected(
    files: Iterable[SideFile], before: Mapping[str, TensorSpec], specs: Mapping[str, TensorSpec]
) -> dict[str, bytes]:
    """Return new content for configurations that name the weights' dtype, if the soup's differs from the ingredient's.

    Loaders follow the configuration and would convert the weights back.
    """
    dtype = _dtype_of(specs)
    if dtype is None or dtype == _dtype_of(before):
        return {}
    found = {}
    for file in files:
        if file.name.rpartition("/")[2] == CONFIG:
            content = _with_dtype(file, dtype.value)
            if content is not None:
                found[file.name] = content
    return found


def _dtype_of(specs: Mapping[str, TensorSpec]) -> Dtype | None:
    """Return the dtype of most averaged elements."""
    counts: dict[Dtype, int] = {}
    for spec in specs.values():
        if spec.dtype.is_averaged:
            counts[spec.dtype] = counts.get(spec.dtype, 0) + spec.numel
    return max(counts, key=lambda dtype: (counts[dtype], str(dtype)), default=None)


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a configuration and those of the networks in it, such as `text_config` and `encoder`, at any depth."""
    found = [config]
    for part in found:
        for key, value in part.items():
            if isinstance(value, dict) and (key.endswith("_config") or "model_type" in value):
                found.append(value)
    return found


def _with_dtype(file: SideFile, dtype: str) -> bytes | None:
    """The configuration with another dtype, in its parts too; None if it names none."""
    try:
        config = parse_json(read_small(file.path, most=LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    named = [(part, key) for part in _parts(config) for key in DTYPE_KEYS if isinstance(part.get(key), str)]
    for part, key in named:
        part[key] = dtype
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode() if named else None
