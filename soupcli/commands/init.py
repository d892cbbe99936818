"""`soup init`: a commented soup.yaml from what lies in the folder."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets.images import SUFFIXES as PICTURES
from soupcli.datasets.text import SUFFIXES as TEXTS
from soupcli.errors import OutputError, SoupError
from soupcli.files.atomic import write_whole
from soupcli.files.own_file import check_target, signed
from soupcli.files.reading import read_start
from soupcli.networks.build import spec_of_folder
from soupcli.output import console

if TYPE_CHECKING:
    from soupcli.cli.options import InitOptions
    from soupcli.cli.parsing import Invocation


def init(options: InitOptions, _invocation: Invocation) -> int:
    """Write a commented soup.yaml from what is found in this folder."""
    if options.out.exists() and not options.force:
        raise OutputError(f"{options.out}: exists already", hint="--force replaces it, --out writes elsewhere")
    check_target(options.out, "recipe")
    found = survey(options.out.parent)
    write_whole(options.out, signed(recipe_text(found).encode()))
    console.note(f"{options.out}: {found.summary()}")
    console.print_lines([str(options.out)])
    return 0


MAX_LOOKED_AT = 2_000  # entries of a folder: init answers at once in any folder
MAX_SOURCE = 1_000_000  # bytes of a file of Python that are looked at
MOST_OF_LINE = 100_000
TEXT_COLUMNS = ("text", "sentence", "sentence1", "premise", "question", "review", "content")
SECOND_COLUMNS = ("sentence2", "hypothesis", "text_pair")
LABEL_COLUMNS = ("label", "labels", "class", "target", "rating")


class FolderSurvey(NamedTuple):
    """Parts of a recipe, and how many checkpoints the glob reaches."""

    glob: str | None
    checkpoints: int
    model: dict[str, object] | None
    sets: dict[str, dict[str, object]]

    def summary(self) -> str:
        """One line for people."""
        sets = f"{len(self.sets)} sets ({', '.join(self.sets)})" if self.sets else "no validation sets"
        where = f" ({self.glob})" if self.glob else ""
        return (
            f"{self.checkpoints} checkpoints{where}, {sets}, model {'known' if self.model else 'not known: fill it in'}"
        )


def survey(folder: Path) -> FolderSurvey:
    """Checkpoints one or two levels below `folder`, their network, and what looks like a validation set."""
    parents: Counter[Path] = Counter()
    first: Path | None = None
    for candidate in sorted(folder.glob("*/"))[:MAX_LOOKED_AT] + sorted(folder.glob("*/*/"))[:MAX_LOOKED_AT]:
        if candidate.is_dir() and _is_checkpoint(candidate):
            parents[candidate.parent] += 1
            if parents[candidate.parent] == max(parents.values()):
                first = first if first and first.parent == candidate.parent else candidate
    parent = parents.most_common(1)[0][0] if parents else None
    glob = None if parent is None else ("*/" if parent == folder else f"{parent.relative_to(folder)}/*/")
    return FolderSurvey(glob, parents[parent] if parent else 0, _model(folder, first), _sets(folder))


def _is_checkpoint(folder: Path) -> bool:
    try:
        return len(open_checkpoint(folder).tensors) > 2
    except (SoupError, OSError):
        return False


def _model(folder: Path, checkpoint: Path | None) -> dict[str, object] | None:
    spec = spec_of_folder(checkpoint) if checkpoint is not None else None
    if spec is not None:
        return spec.model_dump(exclude={"args"}, exclude_defaults=True)
    for file in sorted(folder.glob("*.py")):
        if b"def build(" in _start(file):
            return {"python": f"{file.relative_to(folder)}:build"}
    return None


def _sets(folder: Path) -> dict[str, dict[str, object]]:
    sets: dict[str, dict[str, object]] = {}
    entries = sorted([*folder.glob("*"), *folder.glob("*/*")])[:MAX_LOOKED_AT]
    for entry in entries:
        described = _described(folder, entry)
        if described is not None:
            sets.setdefault(entry.stem if entry.is_file() else entry.name, described)
    order = sorted(sets, key=lambda name: ("val" not in name and "dev" not in name, name))
    return {name: sets[name] for name in order if "train" not in name} or sets


def _described(folder: Path, entry: Path) -> dict[str, object] | None:
    shown = str(entry.relative_to(folder))
    if entry.is_dir():
        below = list(entry.glob("*/*"))[:MAX_LOOKED_AT]
        return {"images": shown} if any(path.suffix.lower() in PICTURES for path in below) else None
    if entry.suffix == ".safetensors":
        try:
            names = set(open_checkpoint(entry).tensors)
        except SoupError:
            return None
        return {"arrays": shown} if names == {"inputs", "labels"} else None
    return _described_text(entry, shown) if entry.suffix in TEXTS else None


def _described_text(file: Path, shown: str) -> dict[str, object] | None:
    columns = _columns(file)
    inputs = [next((name for name in names if name in columns), None) for names in (TEXT_COLUMNS, SECOND_COLUMNS)]
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if label is None or inputs[0] is None:
        return None
    return {"text": shown, "input": [name for name in inputs if name], "label": label}


def _start(file: Path, count: int = MAX_SOURCE) -> bytes:
    """The first bytes of a file; none of one that cannot be read."""
    try:
        return read_start(file, count)
    except OSError:
        return b""


def _columns(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return []
    line = _start(file, MOST_OF_LINE).decode("utf-8", "replace").partition("\n")[0]
    try:
        if file.suffix == ".jsonl":
            row = json.loads(line)
            return list(row) if isinstance(row, dict) else []
        return next(csv.reader([line], delimiter="\t" if file.suffix == ".tsv" else ","), [])
    except (ValueError, csv.Error):
        return []


def recipe_text(found: FolderSurvey) -> str:
    """A commented soup.yaml. What was not found is a comment to fill in."""
    glob = found.glob or "runs/*/"
    model = _line("model", found.model) if found.model else "# model: {timm: vit_base_patch16_224}"
    sets = "".join(f"  {_line(name, value)}\n" for name, value in found.sets.items())
    first = next(iter(found.sets), "NAME")
    return f"""# soup greedy --ckpts {glob} --val {first}

# The network that the weights go into: {{timm: NAME, args: {{...}}}}, {{transformers: auto}}, {{open_clip: NAME}},
# {{torchvision: NAME}} or {{python: "my_model.py:build"}}.
{model}

# Validation sets by name; the first one after --val selects, all are reported.
{"val:" if sets else "# val:"}
{sets or "#   my-val: {images: data/val}    # or text: FILE, arrays: FILE, python: FILE:FUNCTION, command: COMMAND"}
metric: accuracy
greedy: {{accept: ">="}}    # ">" keeps a candidate only if it raises the score
out: soup/
"""


def _line(key: str, value: object) -> str:
    """`key: value` in one line of YAML."""
    return yaml.safe_dump({key: value}, default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]
