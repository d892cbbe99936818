"""Opens a checkpoint at a path. The layout is recognised by content, and only headers are read.

A folder is opened as its library would open it. LAYOUTS lists the kinds of folders in the order in which they are
tried; a new kind is one function and one row. The formats of single files have their own table in formats/table.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from soupcli.checkpoints.adapters import adapter
from soupcli.checkpoints.checkpoint import Checkpoint, Component, Origin, StoredCheckpoint
from soupcli.checkpoints.contents import Contents, How
from soupcli.checkpoints.formats import numpy_pickle
from soupcli.checkpoints.formats.folders import accelerate, nnunet, parts, shards, speechbrain
from soupcli.checkpoints.formats.folders import folder as folders
from soupcli.checkpoints.formats.folders import torch_distributed as distributed
from soupcli.checkpoints.formats.folders.beside import heads_beside
from soupcli.checkpoints.formats.folders.neighbours import writer_of
from soupcli.checkpoints.formats.folders.trainer_state import trainer_metrics
from soupcli.checkpoints.formats.foreign import refuse_foreign, refuse_slice, whole_of_deepspeed
from soupcli.checkpoints.formats.names import plain_names, without_wrappers
from soupcli.checkpoints.formats.other_files import refuse_absent, refuse_unfinished
from soupcli.checkpoints.formats.table import read_contents
from soupcli.checkpoints.hub import Reference, commit_of, fetch, hub_reference
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion

__all__ = ["LAYOUTS", "How", "open_checkpoint"]


def open_checkpoint(path: Path, how: How | None = None) -> Checkpoint:
    """Open the checkpoint at `path`, a file, a folder or a model of the Hub, by its headers.

    Raises CheckpointError if nothing there can be read, naming what was found.
    """
    how = how or How()
    if path.is_dir():
        return next(opened for layout in LAYOUTS if (opened := layout(path, how)) is not None)
    if not path.exists():
        reference = hub_reference(path)
        if reference is not None:
            return _open_from_hub(path, reference, how)
        refuse_absent(path)
        raise CheckpointError(f"{path}: no such file or folder", hint=folders.nearest_folder(path))
    if not path.is_file():
        raise CheckpointError(f"{path}: neither a file nor a folder", hint="copy what is to be read into a file")
    if path.name in adapter.WEIGHTS and (path.parent / adapter.CONFIG).is_file():
        return _open_adapter(path, path.parent, how)
    parts.refuse_half(path)
    _refuse_of_adapterhub(path)
    return _open_file(path, path, how, whole_folder=path.name in folders.KNOWN_NAMES)


def _open_from_hub(path: Path, reference: Reference, how: How) -> Checkpoint:
    """Open a model of the Hub. `path` is its id, as the user gave it."""
    folder = fetch(reference, how.weights_name, cached=how.cached)
    opened = open_checkpoint(folder, how)
    if isinstance(opened, adapter.AdapterCheckpoint):
        return replace(opened, path=path, stored=replace(opened.stored, origin=_at(opened.stored.origin, folder)))
    assert isinstance(opened, StoredCheckpoint | distributed.DistributedCheckpoint)
    return replace(opened, path=path, home=opened.folder, origin=_at(opened.origin, folder))


def _at(origin: Origin, snapshot: Path) -> Origin:
    return origin._replace(revision=commit_of(snapshot))


def _open_named(path: Path, how: How) -> Checkpoint | None:
    """Open the folder's file that --weights-name names."""
    if how.weights_name is None:
        return None
    weights = path / how.weights_name
    if not weights.is_file():
        raise CheckpointError(f"{path}: has no file {how.weights_name}", hint=folders.listing(path))
    parts.refuse_half(weights)
    if how.weights_name in adapter.WEIGHTS:
        return _open_adapter(path, path, how)
    _refuse_of_adapterhub(weights)
    return _open_file(path, weights, how)


def _open_hub_cache(path: Path, how: How) -> Checkpoint | None:
    """Open a repository in the Hub's cache, or the checkpoint that a root of Megatron's checkpoints points to."""
    inner = folders.pointed_to(path)
    if inner is None:
        return None
    opened = open_checkpoint(inner, how)
    if isinstance(opened, StoredCheckpoint | distributed.DistributedCheckpoint):
        return replace(opened, path=path, home=inner)
    return opened


def _open_parts(path: Path, how: How) -> Checkpoint | None:
    """Open a folder of several networks with a file that lists them."""
    below = parts.part_folders(path)
    if not below:
        return None
    top = parts.has_network_at_top(path)
    networks = {"": next(filter(None, (layout(path, how) for layout in ALONE)))} if top else {}
    networks |= {name: open_checkpoint(path / name, how) for name in below}
    writer = parts.MARKERS[parts.marker(path) or ""]
    whole = parts.joined(path, writer, [(parts.part_in(name, network), network) for name, network in networks.items()])
    lacks = parts.lacking(path)
    if not lacks:
        return whole
    said = f"model_index.json names {', '.join(lacks)}, whose files are not there: the soup does not load without them"
    return replace(whole, origin=whole.origin._replace(notes=(*whole.origin.notes, said)))


def _open_heads(path: Path, how: How) -> Checkpoint | None:
    """A folder of a body, with heads in files of their own."""
    body, heads = folders.known_weights(path), heads_beside(path)
    if body is None or heads is None:
        return None
    writer, files = heads
    networks = [_open_file(path, file, how) for file in (body, *files)]
    prefixes = ["", *(f"{file.stem}/" for file in files)]
    named = [Component(prefix, file.name) for prefix, file in zip(prefixes, (body, *files), strict=True)]
    return parts.joined(path, writer, list(zip(named, networks, strict=True)))


def _open_speechbrain(path: Path, how: How) -> Checkpoint | None:
    """Open a folder of speechbrain's, with a file for each of its networks."""
    files = speechbrain.contents_of(path).networks
    return _open_files(path, speechbrain.FORMAT, files, how) if files else None


def _open_accelerate(path: Path, how: How) -> Checkpoint | None:
    """Open a folder of Accelerate's, with a file for each of several networks."""
    files = accelerate.networks_of(path)
    return _open_files(path, accelerate.format_of(files), files, how) if files else None


def _open_files(path: Path, format_: str, files: list[Path], how: How) -> Checkpoint:
    """Open networks that lie beside each other, each in a file. Tensors of several begin with their file's name."""
    networks = [_open_file(path, file, how) for file in files]
    prefixes = [f"{file.stem}/" if len(files) > 1 else "" for file in files]
    named = [Component(prefix, file.name) for prefix, file in zip(prefixes, files, strict=True)]
    return parts.joined(path, format_, list(zip(named, networks, strict=True)))


def _open_nnunet(path: Path, how: How) -> Checkpoint | None:
    """Open a fold of an nnU-Net model. Its predictor opens the model's folder."""
    found = nnunet.final_checkpoint(path)
    return _open_file(path, found, how) if found is not None else None


def _open_adapter_folder(path: Path, how: How) -> Checkpoint | None:
    """Open a folder of PEFT's save_pretrained."""
    return _open_adapter(path, path, how) if (path / adapter.CONFIG).is_file() else None


def _open_known(path: Path, how: How) -> Checkpoint | None:
    """Open a folder with a file whose name model libraries look for."""
    known = folders.known_weights(path)
    return _open_file(path, known, how) if known is not None else None


def _open_deepspeed(path: Path, how: How) -> Checkpoint | None:
    """Open what DeepSpeed's engine saved without ZeRO: one file, in the folder or below it."""
    whole = whole_of_deepspeed(path)
    if whole is None:
        return None
    opened = _open_file(path, whole, how)
    origin = opened.origin._replace(metrics={**opened.origin.metrics, **trainer_metrics(path)})
    return replace(opened, side_files=folders.side_files(path), side_folder=path, origin=origin)


def _open_distributed(path: Path, how: How) -> Checkpoint | None:
    """Open a folder of torch.distributed.checkpoint.save."""
    pieces = distributed.distributed_folder(path)
    if pieces is None:
        return None
    side, metrics = folders.side_files(path), trainer_metrics(path)
    return distributed.open_distributed(path, pieces, side, metrics, key=how.key)


def _open_named_adapter(path: Path, how: How) -> Checkpoint | None:
    """Open a folder with a named adapter, which has its own sub-folder."""
    named = parts.named_adapters(path)
    if not named or any(map(folders.is_weights, path.iterdir())):
        return None
    if len(named) > 1:
        names = ", ".join(folder.name for folder in named)
        raise CheckpointError(
            f"{path}: holds {len(named)} adapters: {names}",
            hint=f"--ckpts '{path.parent}/*/{named[0].name}' mixes one; or if each is a run: --ckpts '{path}/*/'",
        )
    return _open_adapter(path, named[0], how)


def _open_last(path: Path, how: How) -> Checkpoint | None:
    """Open a folder of several checkpoints of one training, with a file that names the last one."""
    last = folders.last_of_several(path)
    if last is None:
        return None
    opened = _open_file(path, last, how)
    said = f"of several files, weights are taken from {last.name}, which {folders.LAST} names"
    return replace(opened, origin=opened.origin._replace(notes=(said, *opened.origin.notes)))


def _open_only_file(path: Path, how: How) -> Checkpoint:
    """Open the folder's only file of weights, whatever its name, or shards without an index."""
    refuse_foreign(path)
    found = folders.only_weights(path)
    if isinstance(found, shards.ShardSet):
        contents, files = shards.read_shards(found, lambda shard: read_contents(shard, how))
        return _stored(path, path, contents, files, whole_folder=True, prefixes=True)
    return _open_file(path, found, how)


Layout = Callable[[Path, How], Checkpoint | None]
# Folders of one network. Each returns None if the folder is not of its kind; the last one raises.
ALONE: tuple[Layout, ...] = (
    _open_adapter_folder,
    _open_known,
    _open_deepspeed,
    _open_distributed,
    _open_named_adapter,
    _open_last,
    _open_only_file,
)
LAYOUTS: tuple[Layout, ...] = (
    _open_named,
    _open_hub_cache,
    _open_parts,
    _open_heads,
    _open_speechbrain,
    _open_accelerate,
    _open_nnunet,
    *ALONE,
)  # tried in this order


def laid_out(path: Path, how: How) -> Checkpoint | None:
    """Return the checkpoint that a folder is by its layout, whatever the names of its files, or None.

    Raises CheckpointError if the layout is one that is refused.
    """
    if len(parts.named_adapters(path)) > 1 and not parts.is_saved_by_peft(path):
        return None  # runs of adapters beside each other look like one network with several
    return next((opened for layout in LAYOUTS[1:-1] if (opened := layout(path, how)) is not None), None)


# Weights beside an adapter_config.json that is not PEFT's (adapters/utils.py).
OF_ADAPTERHUB = ("pytorch_adapter.bin", "adapter.safetensors")


def _refuse_of_adapterhub(weights: Path) -> None:
    """Raises CheckpointError for an adapter that is not PEFT's: what its tensors do together is not known."""
    if weights.name in OF_ADAPTERHUB and weights.is_file() and (weights.parent / adapter.CONFIG).is_file():
        raise CheckpointError(
            f"{weights.parent}: an adapter of AdapterHub's library adapters: only PEFT's are known",
            hint="average them in one network: model.average_adapter('soup', names), of LoRA with "
            "combine_strategy='lora_delta_w_svd'; or save each whole network: model.merge_adapter(name), if it is "
            "LoRA, and model.save_pretrained(folder)",
        )


def _open_adapter(path: Path, folder: Path, how: How) -> Checkpoint:
    weights = next((folder / name for name in adapter.WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        for name in OF_ADAPTERHUB:
            _refuse_of_adapterhub(folder / name)
        raise CheckpointError(
            f"{folder}: has {adapter.CONFIG} and no {adapter.WEIGHTS[0]}",
            hint="its download or save was not finished: fetch or save it again, or leave it out",
        )
    stored = _open_file(path, weights, how, prefixes=False)
    for_base = How()
    return adapter.open_adapter(stored, folder, lambda base: open_checkpoint(base, for_base), how.base)


def _open_file(
    path: Path, weights: Path, how: How, *, whole_folder: bool = True, prefixes: bool = True
) -> StoredCheckpoint:
    refuse_foreign(weights)
    refuse_slice(weights)
    if shards.is_index_name(weights.name):
        contents, files = shards.read_index(weights, lambda shard: read_contents(shard, how))
    else:
        files = (FileVersion.of(weights),)
        contents = read_contents(files[0], how)
    return _stored(path, weights.parent, contents, files, whole_folder=whole_folder, prefixes=prefixes)


def _stored(
    path: Path, folder: Path, contents: Contents, files: tuple[FileVersion, ...], *, whole_folder: bool, prefixes: bool
) -> StoredCheckpoint:
    for file in files:
        refuse_unfinished(file)
    names = plain_names(contents.specs) if prefixes else without_wrappers(contents.specs)
    origin = contents.origin
    home = nnunet.model_folder(files[0].path) if origin.format == nnunet.FORMAT else None
    if origin.format in ("torch", "averaged", numpy_pickle.FORMAT) and len(files) == 1:
        origin = origin._replace(format=writer_of(files[0].path) or origin.format)
    if whole_folder and folders.is_average(folder):
        origin = origin._replace(averaged=True)
    return StoredCheckpoint(
        path,
        {name: contents.specs[stored] for stored, name in names.items()},
        {name: contents.places[stored] for stored, name in names.items()},
        files,
        folders.side_files(folder) if whole_folder else (),
        origin._replace(metrics={**origin.metrics, **(trainer_metrics(folder) if whole_folder else {})}),
        home=home,
        side_folder=home or (folder if whole_folder else None),
    )
