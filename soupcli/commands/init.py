"""`soup init`: a commented soup.yaml from what lies in the folder."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from soupcli.checkpoints.adapters.config import CONFIG as ADAPTER
from soupcli.checkpoints.folder_search import below
from soupcli.checkpoints.formats.folders.folder import PREFERENCES
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.words import paths_of
from soupcli.datasets.embedding_pairs import functions_of
from soupcli.datasets.survey import MAX_LOOKED_AT, MAX_SOURCE, FoundSet, sets_below
from soupcli.errors import OutputError, SoupError
from soupcli.files.atomic import write_whole
from soupcli.files.own_file import check_target, signed
from soupcli.files.small_file import read_small, read_start
from soupcli.networks.build import spec_of_folder
from soupcli.networks.library import read_config
from soupcli.output import console
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.without_checkpoints import InitOptions
    from soupcli.cli.parsing import Invocation


def init(options: InitOptions, _invocation: Invocation) -> int:
    """Write a commented soup.yaml from what is found in this folder."""
    if Path(os.path.realpath(options.out)).exists() and not options.force:
        raise OutputError(f"{options.out}: exists already", hint="--force replaces it, --out writes elsewhere")
    check_target(options.out, "recipe")
    found, functions = _of_embeddings(options.out.parent, survey(options.out.parent))
    if functions is not None:
        write_whole(options.out.parent / FUNCTIONS, functions.encode())
        console.note(f"{options.out.parent / FUNCTIONS}: compares embeddings of pairs of sentences with their scores")
    write_whole(options.out, signed(recipe_text(found).encode()))
    console.note(f"{options.out}: {found.summary()}")
    console.print_lines([str(options.out)])
    return 0


FUNCTIONS = "pair_scores.py"


def _of_embeddings(folder: Path, found: FolderSurvey) -> tuple[FolderSurvey, str | None]:
    """Return sets with functions in place of tables if the network gives embeddings, and the text of their file.

    The text is None if there is nothing to write, or the file is there: then its functions are sets already.
    """
    if found.model is None or "sentence_transformers" not in found.model:
        return found, None
    tables = {name: one.spec for name, one in found.sets.items() if "text" in one.spec}
    others = {name: one for name, one in found.sets.items() if name not in tables}
    made = None if (folder / FUNCTIONS).exists() else functions_of(tables)
    if made is None:
        return found._replace(sets=others), None
    text, names = made
    measured = {
        name: FoundSet({"python": f"{FUNCTIONS}:{function}", "metric": "spearman"}, "spearman")
        for name, function in names.items()
    }
    return found._replace(sets={**measured, **others}), text


class FolderSurvey(NamedTuple):
    """Parts of a recipe, and the number of checkpoints that its --ckpts words name."""

    glob: str | None
    checkpoints: int
    model: dict[str, object] | None
    sets: dict[str, FoundSet]

    def summary(self) -> str:
        """One line for people."""
        count = f"{len(self.sets)} set{'s' * (len(self.sets) > 1)}"
        sets = f"{count} ({', '.join(self.sets)})" if self.sets else "no validation sets"
        where = f" ({self.glob})" if self.glob else ""
        return (
            f"{self.checkpoints} checkpoints{where}, {sets}, model {'known' if self.model else 'not known: fill it in'}"
        )


def survey(folder: Path) -> FolderSurvey:
    """Return the checkpoints of one network below `folder`, that network, and what looks like a validation set."""
    found = _family(folder)
    model = _model(folder, found.paths[0] if found.paths else None)
    runs = {path if path.is_dir() else path.parent for path in found.paths} - {folder}
    writes = bool(found.paths) and _writes_text(found.paths[0], model)
    sets = sets_below(folder, runs=runs, writes=writes)
    return FolderSurvey(_words(folder, found), len(found.paths), model, sets)


class Family(NamedTuple):
    """Checkpoints with the same tensors, and what was found beside them."""

    paths: list[Path]
    others: list[Path]
    prefer: str | None  # the word of --prefer, if runs have several checkpoints each


MOST_CLASSES = 100_000_000
STARTS = re.compile(
    r"(.*[_-])?(start|base|init|pretrained|pre-trained|zeroshot|zero-shot|original)([_-].*)?", re.IGNORECASE
)


def _family(folder: Path) -> Family:
    """Return the largest group of checkpoints that could be averaged. Soups and starts are left out."""
    groups: dict[object, list[Path]] = {}
    prefer: str | None = None
    for path in below(folder)[:MAX_LOOKED_AT]:
        checkpoint = _opened(path)
        if checkpoint is None and path.is_dir():
            path, word = _one_of(path)
            prefer, checkpoint = prefer or word, _opened(path)
        if checkpoint is not None and len(checkpoint.tensors) > 2:
            tensors = frozenset((name, spec.shape) for name, spec in checkpoint.tensors.items())
            groups.setdefault(tensors, []).append(path)
    family = max(groups.values(), key=len, default=[])
    runs = [path for path in family if not any(map(STARTS.fullmatch, path.relative_to(folder).parts))] or family
    runs = _of_one_folder(folder, runs)
    others = [path for group in groups.values() for path in group if path not in runs]
    return Family(runs, others, prefer)


def _one_of(run: Path) -> tuple[Path, str | None]:
    """Return one of the several checkpoints of a run, and the word of --prefer that takes it, or `run` and None."""
    for word in PREFERENCES:
        named = paths_of([str(run)], prefer=word)
        if not named.failures and named.paths not in ([], [run]):
            return named.paths[0], word
    return run, None


def _of_one_folder(folder: Path, runs: Sequence[Path]) -> list[Path]:
    """Return the runs below the folder that has most of them, or all runs if no folder has several."""
    heads: dict[Path, list[Path]] = {}
    for path in runs:
        parts = path.relative_to(folder).parts
        heads.setdefault(Path(parts[0]) if len(parts) > 1 else Path(), []).append(path)
    most = max(heads.values(), key=len, default=[])
    return most if len(most) > 1 else list(runs)


def _opened(path: Path) -> Checkpoint | None:
    try:
        return open_checkpoint(path)
    except (SoupError, OSError):
        return None


def _words(folder: Path, found: Family) -> str | None:
    """Return the words to write after --ckpts, relative to `folder`, or None if there are no checkpoints."""
    if not found.paths:
        return None
    parents = {path.parent for path in found.paths}
    prefer = f" --prefer {found.prefer}" if found.prefer else ""
    if len(parents) == 1 and all(path.is_dir() for path in found.paths):
        [top] = parents
        if not any(other.parent == top for other in found.others):
            return f"{_shown(top, folder)}*/{prefer}"
    top = Path(os.path.commonpath(found.paths))
    top = top if top.is_dir() and top not in found.paths else top.parent
    if not any(other.is_relative_to(top) for other in found.others):
        return f"{shlex.quote(_shown(top, folder) or './')}{prefer}"
    heads = {top / path.relative_to(top).parts[0] for path in found.paths}
    named = sorted((_shown(head, folder).rstrip("/") for head in heads), key=natural_order)
    return " ".join(map(shlex.quote, named)) + prefer


def _shown(path: Path, folder: Path) -> str:
    return "" if path == folder else f"{path.relative_to(folder)}/"


def _model(folder: Path, checkpoint: Path | None) -> dict[str, object] | None:
    beside = checkpoint if checkpoint is None or checkpoint.is_dir() else checkpoint.parent
    if beside is not None and (beside / ADAPTER).is_file():
        return {"transformers": "auto"}  # of the base, which the adapter's configuration names
    spec = spec_of_folder(beside) if beside is not None else None
    if spec is not None:
        return spec.model_dump(exclude={"args"}, exclude_defaults=True)
    if checkpoint is not None and (known := _timm_arguments(checkpoint)) is not None:
        return known
    for file in sorted(folder.glob("*.py")):
        if b"def build(" in _start(file):
            return {"python": f"{file.relative_to(folder)}:build"}
    return None


def _timm_arguments(checkpoint: Path) -> dict[str, object] | None:
    """Return the network that `args.yaml` describes. timm's train.py writes it beside its checkpoints."""
    file = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "args.yaml"
    try:
        written = yaml.safe_load(read_small(file, most=1_000_000))
        name, classes = written["model"], written.get("num_classes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(name, str):
        return None
    return {
        "timm": name,
        **({"args": {"num_classes": classes}} if isinstance(classes, int) and 0 < classes <= MOST_CLASSES else {}),
    }


def _writes_text(checkpoint: Path, model: dict[str, object] | None) -> bool:
    """Whether the network is a causal language model."""
    if model != {"transformers": "auto"}:
        return False
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if (folder / ADAPTER).is_file():
        return bool(read_config(folder / ADAPTER).get("task_type") == "CAUSAL_LM")
    config = read_config(folder / "config.json")
    return any("CausalLM" in str(name) or "LMHead" in str(name) for name in config.get("architectures") or [])


def _start(file: Path, count: int = MAX_SOURCE) -> bytes:
    """Return the first bytes of a file, or b"" if it cannot be read."""
    try:
        return read_start(file, count)
    except OSError:
        return b""


def recipe_text(found: FolderSurvey) -> str:
    """Return a commented soup.yaml. A comment stands in for each part that was not found."""
    glob = found.glob or "runs/*/"
    model = _line("model", found.model) if found.model else "# model: {timm: vit_base_patch16_224}"
    first = next(iter(found.sets.values()), None)
    metric = first.metric if first else "accuracy"
    sets = "".join(f"  {_line(name, _with_metric(one, metric))}{_remark(one)}\n" for name, one in found.sets.items())
    test = next((name for name in found.sets if "test" in name), None)  # a result that did not select the soup
    named = " ".join(dict.fromkeys(filter(None, [next(iter(found.sets), "NAME"), test])))
    return f"""# soup greedy --ckpts {glob} --val {named}

# The network that the weights go into: {{timm: NAME, args: {{...}}}}, {{transformers: auto}}, {{open_clip: NAME}},
# {{torchvision: NAME}}, {{sentence_transformers: auto}} or {{python: "my_model.py:build"}}.
{model}

# Validation sets by name; the first one after --val selects, all are reported.
{"val:" if sets else "# val:"}
{sets or "#   my-val: {images: data/val}    # or text: FILE, arrays: FILE, python: FILE:FUNCTION, command: COMMAND"}
metric: {metric}
greedy: {{accept: ">="}}    # ">" keeps a candidate only if it raises the score
out: soup/
"""


def _with_metric(found: FoundSet, of_recipe: str) -> dict[str, object]:
    """Return the set, with a metric of its own if that of the recipe does not fit its labels."""
    fits = found.metric == of_recipe or "metric" in found.spec or "python" in found.spec
    return found.spec if fits else {**found.spec, "metric": found.metric}


def _remark(found: FoundSet) -> str:
    return f"    # {found.remark}" if found.remark else ""


def _line(key: str, value: object) -> str:
    """Return `key: value` as one line of YAML."""
    return yaml.safe_dump({key: value}, default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]
