"""Tensors with different names in ingredients whose networks are the same.

    names, notes = common_names(checkpoints)
    checkpoints = [names.applied(checkpoint) for checkpoint in checkpoints]

The first ingredient's names are used. A library may have renamed a tensor; a tied matrix may be stored once or twice;
older versions stored buffers that follow from the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import translate
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import StoredCheckpoint, read_part
from soupcli.checkpoints.compare.differences import tied
from soupcli.checkpoints.compare.integers import FEW, PATTERNS, is_known
from soupcli.checkpoints.formats.folders.torch_distributed import DistributedCheckpoint
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import MixError
from soupcli.late import torch

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.checkpoints.tensor_filter import TensorFilter

# Endings, and beginnings, that a library writes in one version and takes for one another.
ENDINGS = (
    (".weight_g", ".parametrizations.weight.original0"),  # torch's weight norm
    (".weight_v", ".parametrizations.weight.original1"),
    ("orm.gamma", "orm.weight"),  # LayerNorm of BERT's first checkpoints
    ("orm.beta", "orm.bias"),
)
BEGINNINGS = (  # of transformers 4.52 and 5
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("visual.", "model.visual."),
    ("embed_out.", "lm_head."),  # GPT-NeoX
)
WRAPPERS = ("module", "_module")  # of DataParallel and of Opacus, around a part of the network
RENAMED_ENDS = tuple(end for pair in ENDINGS for end in pair)
RENAMED_STARTS = tuple(start for pair in BEGINNINGS for start in pair)
# Buffers that follow from the configuration, whatever their dtype: libraries stopped storing them.
DERIVED = (
    "*inv_freq",  # of rotary positions
    "*masked_bias",  # the number that masks
    "*_float_tensor",  # fairseq's device marker
    "*.version",  # fairseq's version of a module
    "*total_ops",  # a profiler's counts
    "*total_params",
    # Of T5's first checkpoints: its decoder adds no such numbers where it looks at the encoder.
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)
POSITIONS = re.compile(r"pos(ition)?s?([._]|$|_?emb|_?enc)|\.pe$")  # in names of tables of positions
# Names of floating tensors that may follow from the configuration: few have one.
TELLING = re.compile("|".join([*map(translate, (*DERIVED, *PATTERNS)), f".*({POSITIONS.pattern})"]))
CHUNK = 1 << 20  # elements that are looked at once


class Names(NamedTuple):
    """The names of tensors in a soup."""

    aliases: Mapping[str, str] = {}  # name -> what ingredients without it call the tensor
    passed_over: frozenset[str] = frozenset()  # names that the soup does without

    def applied(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint, with the soup's names for its tensors."""
        own = checkpoint.tensors
        names = {name: name for name in own}
        names |= {name: other for name, other in self.aliases.items() if name not in own and other in own}
        names = {name: stored for name, stored in names.items() if name not in self.passed_over}
        return checkpoint if list(names) == list(own) else _renamed(checkpoint, names)


def _renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    tensors = {name: checkpoint.tensors[stored] for name, stored in names.items()}
    if isinstance(checkpoint, StoredCheckpoint):
        places = {name: checkpoint.places[stored] for name, stored in names.items()}
        return replace(checkpoint, tensors=tensors, places=places)
    if isinstance(checkpoint, DistributedCheckpoint):
        return replace(checkpoint, tensors=tensors, pieces={n: checkpoint.pieces[s] for n, s in names.items()})
    return checkpoint


def common_names(checkpoints: Sequence[Checkpoint]) -> tuple[Names, list[str]]:
    """Return the names of tensors in a soup of `checkpoints`, and a line for each that differs in some file."""
    first, *others = checkpoints
    if first.is_adapter or all(one.tensors.keys() == first.tensors.keys() for one in others):
        return Names(), []
    aliases: dict[str, str] = {}
    passed_over: set[str] = set()
    notes: list[str] = []
    wrapped: list[str] = []
    for names, note in filter(None, (_by_prefix(first, other) for other in others)):
        aliases |= names
        passed_over |= set(names.values())
        notes.append(note)
    for name, other in _renames(first, [one for one in others if not passed_over & one.tensors.keys()]):
        aliases[name] = other
        passed_over.add(other)
        if _unwrapped(name) == _unwrapped(other):
            wrapped.append(other)
            continue
        notes.append(f"{other} is the older or newer name of {name}, which {first.path} has: they are mixed as one")
    if wrapped:
        more = f" and {len(wrapped) - 1} more differ" if len(wrapped) > 1 else " differs"
        notes.append(f"{wrapped[0]}{more} from {first.path} by a wrapper's name: they are mixed as one")
    ties = {one: {name: group for group in tied(one) for name in group} for one in checkpoints}
    in_ties = {name for groups in ties.values() for name in groups}
    for name in _in_some(checkpoints, {*aliases, *passed_over}):
        twin = _twin(name, checkpoints, ties) if name in in_ties else None
        if twin is not None and name in first.tensors:
            aliases[name] = twin
        elif twin is not None or all(_follows(one, name) for one in checkpoints if name in one.tensors):
            passed_over.add(name)
        else:
            continue
        notes.append(_told(name, twin, checkpoints))
    return Names(aliases, frozenset(passed_over)), notes


def _in_some(checkpoints: Sequence[Checkpoint], done: set[str]) -> list[str]:
    """Return the names that some checkpoints have and others lack."""
    names = dict.fromkeys(name for one in checkpoints for name in one.tensors)
    return [name for name in names if name not in done and not all(name in one.tensors for one in checkpoints)]


def _told(name: str, twin: str | None, checkpoints: Sequence[Checkpoint]) -> str:
    has, lacks = (next(one.path for one in checkpoints if (name in one.tensors) == there) for there in (True, False))
    if twin is not None:
        return f"{name} is the same matrix as {twin} in {has}, and {lacks} does not store it: they stay tied"
    return f"{name} is left out: a buffer that {has} stores and {lacks} does not"


def _by_prefix(first: Checkpoint, other: Checkpoint) -> tuple[dict[str, str], str] | None:
    """Return the other's name for each of the first one's, and a line, if they differ by one prefix before all names.

    A Lightning module and a class of transformers put a name before those of the network inside.
    """
    shorter, longer = sorted((first, other), key=lambda one: sum(map(len, one.tensors)))
    if len(shorter.tensors) != len(longer.tensors) or not shorter.tensors.keys().isdisjoint(longer.tensors):
        return None
    shapes = {name: spec.shape for name, spec in longer.tensors.items()}
    known = next(iter(shorter.tensors), "")
    for prefix in (name.removesuffix(known) for name in longer.tensors if name.endswith(f".{known}")):
        if all(shapes.get(prefix + name) == spec.shape for name, spec in shorter.tensors.items()):
            names = {prefix + name: name for name in shorter.tensors}
            note = (
                f"names of {longer.path} begin with {prefix!r}, those of {shorter.path} do not: they are mixed as one"
            )
            return (names if longer is first else {short: long for long, short in names.items()}), note
    return None


def _renames(first: Checkpoint, others: Sequence[Checkpoint]) -> Iterator[tuple[str, str]]:
    """Map names of the first checkpoint that others lack to the others' names."""
    unknown = {name for one in others for name in one.tensors if name not in first.tensors}
    steps = {step for name in unknown for step in name.split(".")}
    wrappers = [wrapper for wrapper in WRAPPERS if wrapper in steps]
    for name, spec in first.tensors.items() if unknown else ():
        without = [one for one in others if name not in one.tensors]
        for other in filter(unknown.__contains__, _spellings(name, wrappers)) if without else ():
            called = (one.tensors[other] for one in without if other in one.tensors)
            if any(renamed.shape == spec.shape for renamed in called):
                yield name, other
                break


def _unwrapped(name: str) -> str:
    return ".".join(step for step in name.split(".") if step not in WRAPPERS)


def _spellings(name: str, wrappers: Sequence[str]) -> Iterator[str]:
    """Yield other names of the same tensor; `wrappers` are those that some name has."""
    if not (wrappers or "module" in name or f".{name}".endswith(RENAMED_ENDS) or name.startswith(RENAMED_STARTS)):
        return  # as most
    steps, unwrapped = name.split("."), _unwrapped(name)
    if unwrapped != name:
        yield unwrapped
    yield from (".".join([*steps[:at], wrapper, *steps[at:]]) for wrapper in wrappers for at in range(len(steps)))
    for pair in ENDINGS:
        for one, other in (pair, pair[::-1]):
            if f".{name}".endswith(one):
                yield (f".{name}".removesuffix(one) + other)[1:]
    for pair in BEGINNINGS:
        for one, other in (pair, pair[::-1]):
            if name.startswith(one):
                yield other + name.removeprefix(one)


def _twin(
    name: str, checkpoints: Sequence[Checkpoint], ties: Mapping[Checkpoint, Mapping[str, Sequence[str]]]
) -> str | None:
    """Another name that all have, of the matrix that everybody who stores `name` has under both."""
    holders = [one for one in checkpoints if name in one.tensors]
    found = [set(ties[one].get(name, ())) for one in holders]
    twins = set.intersection(*found) - {name} if found else set()
    return min((twin for twin in twins if all(twin in one.tensors for one in checkpoints)), default=None)


def _follows(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor follows from its network's configuration: a counter, an index, a mask."""
    spec = checkpoint.tensors[name]
    if spec.dtype.is_averaged and TELLING.match(name) is None:
        return False
    if matches(name, DERIVED):
        return True
    if spec.dtype.is_averaged:
        mask = is_known(name) and len(spec.shape) > 1 and _has_few_numbers(checkpoint, name)
        return mask or (POSITIONS.search(name) is not None and _is_sinusoidal(checkpoint, name, spec))
    return is_known(name) or spec.numel <= FEW or _is_plain(checkpoint, name, spec)


def _has_few_numbers(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor holds at most three different numbers and no NaN, as a mask does."""
    numel, found = checkpoint.tensors[name].numel, torch.empty(0, dtype=torch.float64)
    for start in range(0, numel, CHUNK):
        part = read_part(checkpoint, name, start, min(CHUNK, numel - start)).to(torch.float64)
        found = torch.cat([found, part.unique()]).unique()
        if bool(part.isnan().any()) or len(found) > 3:
            return False
    return True


def _is_sinusoidal(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    """Whether a table holds the sine and cosine of each angle, side by side or in two halves, as fixed positions do."""
    width = spec.shape[-1] if len(spec.shape) > 1 else 1
    if width % 2 or not spec.numel:
        return False
    table = read_part(checkpoint, name, 0, min(spec.numel, CHUNK // width * width)).double().view(-1, width) ** 2
    table = table[table.any(1)]  # a row of padding holds zeros
    sums = (table[:, ::2] + table[:, 1::2], table[:, : width // 2] + table[:, width // 2 :])
    return len(table) > 1 and any(bool(((one - 1).abs() < 1e-2).all()) for one in sums)  # as far as float16 goes


def _is_plain(checkpoint: Checkpoint, name: str, spec: TensorSpec) -> bool:
    """Whether integers are all equal, or count from 0."""
    first = read_part(checkpoint, name, 0, 1)
    one, counts = True, True
    for start in range(0, spec.numel, CHUNK):
        part = read_part(checkpoint, name, start, min(CHUNK, spec.numel - start)).long()
        one = one and bool((part == first.long()).all())
        counts = counts and torch.equal(part, torch.arange(start, start + len(part)))
    return one or counts


def check_ties(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> None:
    """Raises MixError if one name of a tied matrix is mixed and another one is not: the soup would untie them."""
    if not any(selection):
        return
    for checkpoint in checkpoints:
        for group in tied(checkpoint):
            mixed = [name for name in group if selection.mixes(name)]
            left = [name for name in group if not selection.mixes(name)]
            if mixed and left and all(len(_tied_in(one, mixed[0], left[0])) == 2 for one in checkpoints):
                raise MixError(
                    f"{checkpoint.path}: {left[0]} is the same matrix as {mixed[0]}, and only one of them is mixed",
                    hint=f"mix both or neither: --exclude {left[0]} {mixed[0]}",
                )


def _tied_in(checkpoint: Checkpoint, one: str, other: str) -> tuple[str, ...]:
    """Return both names if they are one matrix in the checkpoint, or if only one of them is stored."""
    if one not in checkpoint.tensors or other not in checkpoint.tensors:
        return one, other
    return next(((one, other) for group in tied(checkpoint) if one in group and other in group), ())
