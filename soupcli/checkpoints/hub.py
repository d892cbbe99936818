"""Models of the Hub as checkpoints: `org/name` or `org/name@revision`, through huggingface_hub and its cache.

    reference = hub_reference("org/model@v2:last")            # Reference("org/model", "v2", "last")
    folder = fetch(reference)                                 # .../snapshots/<commit>, with the files that are needed

A path that exists is never looked up on the Hub. The token, the cache and the offline mode are huggingface_hub's own.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from soupcli.checkpoints.adapters.adapter import CONFIG
from soupcli.checkpoints.adapters.adapter import WEIGHTS as ADAPTER_WEIGHTS
from soupcli.checkpoints.formats.folders.beside import OTHER_NAMES
from soupcli.checkpoints.formats.folders.folder import ENDINGS, INDEX_SUFFIX, KNOWN_NAMES
from soupcli.checkpoints.formats.folders.parts import MARKERS, OTHER_FORMS, STEPS
from soupcli.checkpoints.formats.folders.shards import is_shard
from soupcli.checkpoints.hub_answers import answers_checked, is_name
from soupcli.checkpoints.shell_patterns import matches
from soupcli.checkpoints.side_files import LARGEST, PICTURES, TRAINING, TRAINING_FOLDERS, is_weights
from soupcli.environment import import_extra
from soupcli.errors import CheckpointError, OutputError
from soupcli.files.atomic import write_whole
from soupcli.wording import HUB_WORD, natural_order

FILES = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".nemo", ".tar", ".gguf", ".onnx", ".h5"),
    *(".json", ".yaml"),
}
COMMIT = re.compile(r"[0-9a-f]{40}")
MOST_LISTED = 20_000  # files of one model
MOST_WANTED = 2000  # of these, that are fetched
# Weights that have a name of their own, the best form first.
FORMS = (("*.safetensors",), ("*.bin", "*.pt", "*.pth", "*.ckpt"), ("*.nemo", "*.distcp", ".metadata"))
# Errors of huggingface_hub, by name, the narrower ones first -> what is wrong, and what to do about it.
CAUSES = {
    "GatedRepoError": ("is gated, and access was not granted", "ask for access on its page, then: hf auth login"),
    "RepositoryNotFoundError": (
        "no such file or folder, and no such model on the Hub",
        "check the name; a private model needs a token: hf auth login",
    ),
    "RevisionNotFoundError": ("the model has no such revision", "give a branch, a tag or a commit: org/name@main"),
    "IncompleteSnapshotError": (
        "the Hub's cache holds a part of its files, and HF_HUB_OFFLINE is set",
        "unset HF_HUB_OFFLINE, or fetch it: hf download {id}",
    ),
    "LocalEntryNotFoundError": (
        "no such file or folder, and HF_HUB_OFFLINE is set: the Hub's cache has no such model",
        "unset HF_HUB_OFFLINE, or fetch it: hf download {id}",
    ),
}


class Reference(NamedTuple):
    """A model of the Hub, and a branch, tag or commit (None: its main branch)."""

    id: str
    revision: str | None = None
    folder: str = ""  # of its files; "" for its top


class HubFile(NamedTuple):
    """A file of a model on the Hub; `size` is None if the Hub does not say it."""

    name: str
    size: int | None


def hub_reference(word: str | Path) -> Reference | None:
    """Return the model of the Hub that a word names, or None if it is a path.

    A folder here that has the owner's name makes it a path, unless a whole commit is named.
    """
    match = HUB_WORD.fullmatch(str(word))
    if match is None or Path(word).exists() or PurePosixPath(match["id"]).suffix.lower() in FILES:
        return None
    found = Reference(match["id"], match["revision"], match["folder"] or "")
    pinned = found.revision is not None and COMMIT.fullmatch(found.revision) is not None
    return found if pinned or not Path(found.id.partition("/")[0]).exists() else None


def fetch(reference: Reference, weights_name: str | None = None, *, cached: bool = False) -> Path:
    """Fetch the needed files of a model that are missing in the Hub's cache, and return its folder there.

    Nothing is fetched if `cached`, or in the offline mode (HF_HUB_OFFLINE).

    Raises MissingExtra without huggingface_hub, and CheckpointError if the model, the revision or the Hub cannot be
    found, or if the model has no weights that can be opened.
    """
    hub = import_extra("huggingface_hub", extra="hub")
    if not sys.stderr.isatty():
        import_extra("huggingface_hub.utils", extra="hub").disable_progress_bars()
    offline = cached or bool(import_extra("huggingface_hub.constants", extra="hub").HF_HUB_OFFLINE)
    try:
        commit, listed = (None, _cached(hub, reference)) if offline else _listed(hub, reference)
        above = f"{reference.folder}/" if reference.folder else ""
        names = None if listed is None else _wanted(reference, listed, above, weights_name)
        with answers_checked(hub, {file.name: file.size for file in listed or ()}):
            snapshot = hub.snapshot_download(
                reference.id, revision=commit or reference.revision, allow_patterns=names, local_files_only=offline
            )
        if commit is not None:
            _note_commit(Path(snapshot), reference, commit)
        return Path(snapshot, above)
    except CheckpointError:
        raise
    except Exception as cause:
        raise _explained(reference, cause) from cause


def _wanted(reference: Reference, listed: Iterable[HubFile], above: str, weights_name: str | None) -> list[str]:
    """Return patterns of the files to fetch, which lie below the folder `above`."""
    below = [file._replace(name=file.name.removeprefix(above)) for file in listed if file.name.startswith(above)]
    if above and not below:
        raise CheckpointError(f"{_word(reference)}: has no folder {reference.folder}", hint=f"it holds {_some(listed)}")
    wanted = [literal(above + name) for name in needed(reference, below, weights_name)]
    if len(wanted) > MOST_WANTED:
        raise CheckpointError(
            f"{_word(reference)}: {len(wanted)} files beside its weights, at most {MOST_WANTED} are fetched",
            hint=f"hf download {reference.id} --local-dir DIR fetches all, and --ckpts DIR takes them",
        )
    return wanted


def pinned(path: str, revision: str | None) -> Path:
    """Return an ingredient's path for a report; for a model of the Hub its id with the mixed commit."""
    match = HUB_WORD.fullmatch(path) if revision is not None else None
    return Path(path) if match is None else Path(_word(Reference(match["id"], revision, match["folder"] or "")))


def commit_of(folder: Path) -> str:
    """Return the commit of a snapshot in the cache, or of a folder in it."""
    return next(at.name for at in (folder, *folder.parents) if at.parent.name == "snapshots")


def _listed(hub: Any, reference: Reference) -> tuple[str, list[HubFile]]:
    """Return the commit and its files. Raises CheckpointError for an answer that no hub gives."""
    with answers_checked(hub):
        info = hub.HfApi().model_info(reference.id, revision=reference.revision, files_metadata=True)
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise _odd(reference, "commit", info.sha)
    count = len(info.siblings or [])
    if count > MOST_LISTED:
        raise CheckpointError(
            f"{_word(reference)}: lists {count} files, at most {MOST_LISTED} are looked at",
            hint=f"hf download {reference.id} --local-dir DIR fetches all, and --ckpts DIR takes them",
        )
    files = [HubFile(file.rfilename, file.size) for file in info.siblings or []]
    odd = next((file.name for file in files if not is_name(file.name)), None)
    if odd is not None:
        raise _odd(reference, "file", odd)
    return info.sha, files


def _note_commit(snapshot: Path, reference: Reference, commit: str) -> None:
    """Note in the Hub's cache which commit a branch or tag is at, as huggingface_hub does, for the offline mode."""
    revision = reference.revision or "main"
    if revision != commit and is_name(revision):
        with contextlib.suppress(OutputError):  # a cache that cannot be written is full of files all the same
            write_whole(snapshot.parent.parent / "refs" / revision, commit, flushed=False)


def _cached(hub: Any, reference: Reference) -> list[HubFile] | None:
    """Return the model's files as the cache lists them, or None if it has no list."""
    if not hasattr(hub, "get_cached_repo_tree"):
        return None
    try:
        tree = hub.get_cached_repo_tree(reference.id, revision=reference.revision)
    except hub.errors.CachedRepoTreeNotFoundError:
        return None
    return [HubFile(file.path, file.size) for file in tree]


def needed(reference: Reference, files: Iterable[HubFile], weights_name: str | None = None) -> list[str]:
    """Return the names to fetch: the weights in the form that is opened, and the side files that a soup carries on.

    Raises CheckpointError if there are no weights.
    """
    by_folder: dict[str, dict[str, HubFile]] = {}
    for file in files:
        folder, _, name = file.name.rpartition("/")
        by_folder.setdefault(folder, {})[name] = file
    top = by_folder.get("", {})
    has_parts = any(name in top for name in MARKERS)
    weights = {
        folder: _weights(inside, weights_name if not folder else None)
        for folder, inside in by_folder.items()
        if (not folder or has_parts) and not _is_aside(folder)
    }
    if not any(weights.values()):
        raise _no_weights(reference, [file for inside in by_folder.values() for file in inside.values()], weights_name)
    beside = [
        file.name
        for folder, inside in by_folder.items()
        if not _is_aside(folder)
        for name, file in inside.items()
        if _is_beside(name, file.size)
    ]
    return sorted({*beside, *(name for found in weights.values() for name in found)})


def _weights(inside: Mapping[str, HubFile], wanted: str | None) -> list[str]:
    """Return the files of one folder that hold its weights, in the form that is opened there."""
    if wanted is not None:
        return _with_shards(inside, wanted) if wanted in inside else []
    names = ADAPTER_WEIGHTS if CONFIG in inside else KNOWN_NAMES
    known = next((name for name in names if name in inside), None)
    if known is not None:
        return [*_with_shards(inside, known), *_heads(inside)]
    own = [name for name in inside if not matches(name, TRAINING)]
    for form in FORMS:
        if found := [name for name in own if matches(name.removesuffix(INDEX_SUFFIX), form)]:
            return [inside[name].name for name in found]
    return []


def _heads(inside: Mapping[str, HubFile]) -> list[str]:
    """Small files of weights beside those with a known name, which may belong to them: whoever opens them decides."""
    stems = {PurePosixPath(name).stem for name in (*KNOWN_NAMES, *ADAPTER_WEIGHTS)}
    return [
        file.name
        for name, file in inside.items()
        if PurePosixPath(name).suffix in ENDINGS
        and name.partition(".")[0] not in stems
        and not is_shard(name)
        and not matches(name, (*TRAINING, *OTHER_NAMES))
        and (file.size is None or file.size <= LARGEST)
    ]


def _with_shards(inside: Mapping[str, HubFile], name: str) -> list[str]:
    """Return a file of weights, or an index and its shards."""
    if not name.endswith(INDEX_SUFFIX):
        return [inside[name].name]
    whole = PurePosixPath(name.removesuffix(INDEX_SUFFIX))
    shards = [
        file.name
        for other, file in inside.items()
        if other.startswith(f"{whole.stem}-") and other.endswith(whole.suffix) and is_shard(other)
    ]
    return [inside[name].name, *shards]


def _is_beside(name: str, size: int | None) -> bool:
    """Whether a file is a small one that is neither weights nor training state nor a picture."""
    if name.startswith(".") or (matches(name, TRAINING) and name != "scheduler_config.json"):
        return False
    other = is_weights(name) or PurePosixPath(name).suffix.lower() in PICTURES
    return not other and (size is None or size <= LARGEST)


def _is_aside(folder: str) -> bool:
    """Whether a sub-folder holds a trainer's files, further checkpoints or the weights in another form."""
    steps = folder.split("/")
    return any(
        step.startswith(".") or matches(step, TRAINING_FOLDERS) or step.lower() in OTHER_FORMS or STEPS.fullmatch(step)
        for step in steps
        if step
    )


def literal(name: str) -> str:
    """Return a pattern that matches only this name."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _no_weights(reference: Reference, files: list[HubFile], wanted: str | None) -> CheckpointError:
    word = _word(reference)
    if wanted is not None:
        return CheckpointError(f"{word}: has no file {wanted}", hint=f"it holds {_some(files)}")
    below = sorted({str(PurePosixPath(file.name).parent) for file in files if _is_below(file.name)}, key=natural_order)
    if below:
        folders = (f"{reference.folder}/{name}".lstrip("/") for name in below[:3])
        way = f"--ckpts {' '.join(_word(reference._replace(folder=folder)) for folder in folders)}"
        return CheckpointError(f"{word}: its weights lie in sub-folders: {', '.join(below[:3])}", hint=way)
    return CheckpointError(f"{word}: holds no weights that can be opened", hint=f"it holds {_some(files)}")


def _is_below(name: str) -> bool:
    return "/" in name and any(matches(PurePosixPath(name).name, form) for form in FORMS)


def _some(files: Iterable[HubFile]) -> str:
    names = sorted(file.name for file in files)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _odd(reference: Reference, what: str, answer: object) -> CheckpointError:
    return CheckpointError(
        f"{_word(reference)}: the Hub names a {what} {str(answer)[:80]!r}: not what a hub answers",
        hint="see HF_ENDPOINT: which server does it name?",
    )


def _explained(reference: Reference, cause: Exception) -> CheckpointError:
    """Return an error for a model of the Hub, by the kind of error that huggingface_hub raised."""
    kinds = [kind.__name__ for kind in type(cause).__mro__]
    for name, (what, way) in CAUSES.items():
        if name in kinds:
            return CheckpointError(f"{_word(reference)}: {what}", hint=way.format(id=reference.id))
    first = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
    return CheckpointError(
        f"{_word(reference)}: no such file or folder, and the Hub does not answer: {first}",
        hint="HF_HUB_OFFLINE=1 takes what is in the Hub's cache",
    )


def _word(reference: Reference) -> str:
    word = reference.id if reference.revision is None else f"{reference.id}@{reference.revision}"
    return f"{word}:{reference.folder}" if reference.folder else word
