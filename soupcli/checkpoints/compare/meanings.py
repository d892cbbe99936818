"""Check what rows of a weight mean: tokens of a tokenizer, classes of a head. Different meanings are not averaged.

notes = check_meanings(checkpoints, selection)            # raises MixError, naming both meanings of one row
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from soupcli.checkpoints.compare.class_files import folders_of, most_of, too_large
from soupcli.checkpoints.compare.class_orders import (
    HEADS,
    SHOWN,
    class_orders,
    contradict,
    other_classes,
    other_orders,
    shown,
)
from soupcli.checkpoints.compare.head_rows import HEAD
from soupcli.checkpoints.compare.settings import same_bytes, side_file
from soupcli.checkpoints.formats.class_lists import PLACEHOLDER, plain_name
from soupcli.checkpoints.side_files import leads_inside
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from soupcli.files.json_text import TooManyValuesError, parse_json
from soupcli.files.small_file import read_small

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

MAX_BYTES = 1 << 26  # of a file that lists tokens: the largest has half of that
MOST_VALUES = 2_500_000  # in it: a quarter of a million tokens, and the pairs that they are merged from
MOST_TOKENS = 1_000_000  # of other files


class Tokens(NamedTuple):
    """A file that lists tokens, and its format."""

    name: str
    read: Callable[[bytes], Mapping[str, int]]


List: TypeAlias = "tuple[Path, Tokens]"  # a file, and how it is read


class _TooLarge(Exception):
    """A file of more tokens than any tokenizer has, which is not read."""


def check_meanings(checkpoints: Sequence[Checkpoint], selection: TensorFilter) -> list[str]:
    """Return a line for each file or pair of files that is too large to be compared.

    Raises MixError if a mixed row means different tokens or classes in two checkpoints.
    """
    first, *others = checkpoints
    notes: list[str] = []
    for other in others:
        notes += _check_tokens(first, other, selection)
        _check_classes(first, other, selection)
        notes += _classes_in_large_files(first, other)
    return notes


def _check_tokens(first: Checkpoint, other: Checkpoint, selection: TensorFilter) -> list[str]:
    """Raise MixError if a token has another number in the other's files; return what cannot be compared."""
    notes: list[str] = []
    for one, two in _lists(first, other):
        try:
            if not same_bytes(one[0], two[0]):
                _check_numbers(first, selection, one, two)
        except _TooLarge as cause:
            notes.append(f"{cause}: tokens of {first.path} and {other.path} are not compared")
    return notes


def _lists(first: Checkpoint, other: Checkpoint) -> list[tuple[List, List]]:
    """Return pairs of files that number the same tokens. Of each family the first that both have: others follow."""
    found: dict[Tokens, tuple[List, List]] = {}
    for kinds in FAMILIES:
        for kind in kinds:
            one, two = _beside(first, kind.name), _beside(other, kind.name)
            if one is not None and two is not None:
                found[kind] = (one, kind), (two, kind)
                break
    alike = [[(file, kind) for kind in ALIKE if (file := _beside(each, kind.name))] for each in (first, other)]
    if found.keys().isdisjoint(TOKENS) and all(alike):
        return [(alike[0][0], alike[1][0]), *found.values()]
    return list(found.values())


def _beside(checkpoint: Checkpoint, name: str) -> Path | None:
    """Return the file of this name beside the weights, or beside the folder of their run's checkpoints."""
    found = side_file(checkpoint, name)
    if found is not None or checkpoint.side_folder is not None:
        return found
    files = (folder / name for folder in folders_of(checkpoint))
    return next((file for file in files if file.is_file() and leads_inside(file, file.parent)), None)


def _check_numbers(first: Checkpoint, selection: TensorFilter, of_first: List, of_other: List) -> None:
    (one, _), (two, _) = of_first, of_other
    ids, others = _tokens(*of_first), _tokens(*of_other)
    token = next((token for token, row in ids.items() if others.get(token, row) != row), None)
    rows = max([*ids.values(), *others.values()], default=0) + 1
    table = next((name for name in _mixed(first, selection) if first.tensors[name].shape[0] >= rows), None)
    if token is None or table is None:
        return
    raise MixError(
        f"{two}: the token {token!r} is number {others[token]}, in {one} it is {ids[token]}: rows of {table!r} "
        "stand for other tokens",
        hint="mix networks with one tokenizer: bring the rows of one into the order of the other (mergekit: "
        "tokenizer_source), or leave it out",
    )


def _mixed(checkpoint: Checkpoint, selection: TensorFilter) -> list[str]:
    """Return the mixed weights that have rows. Of an adapter only those that it changes."""
    tensors = ((name, spec) for name, spec in checkpoint.tensors.items() if name not in checkpoint.inherited)
    return [name for name, spec in tensors if spec.shape and spec.dtype.is_floating_point and selection.mixes(name)]


def _tokens(file: Path, kind: Tokens) -> Mapping[str, int]:
    """Return each token's number, or {} if the file cannot be read, which its users report. Raises _TooLarge."""
    try:
        found = kind.read(read_small(file, most=MAX_BYTES))
        return {str(token): row for token, row in found.items() if type(row) is int}
    except TooManyValuesError as cause:
        raise _TooLarge(f"{file}: {cause}") from cause
    except OSError as cause:
        if cause.errno == errno.EFBIG:
            raise _TooLarge(f"{file}: {cause.strerror}") from cause
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _of_json(content: bytes) -> Any:
    return parse_json(content, most=MOST_VALUES)


def _of_tokenizer(content: bytes) -> dict[str, int]:
    """Of tokenizer.json of Hugging Face's tokenizers."""
    document = _of_json(content)
    vocab = document["model"].get("vocab") or {}
    tokens = dict(vocab) if isinstance(vocab, dict) else {token[0]: row for row, token in enumerate(vocab)}
    return tokens | {added["content"]: added["id"] for added in document.get("added_tokens") or []}


def _of_lines(content: bytes) -> dict[str, int]:
    _check_count(content.count(b"\n"))
    return {line: row for row, line in enumerate(content.decode("utf-8").splitlines())}


def _of_counts(content: bytes) -> dict[str, int]:
    """Of a dictionary of fairseq: a token and its count in each line."""
    _check_count(content.count(b"\n"))
    return _of_lines(b"\n".join(line.rpartition(b" ")[0] for line in content.splitlines()))


def _of_numbered_lines(content: bytes) -> dict[str, int]:
    """Of a list of tokens, each with its number after it, as Kaldi, k2 and wenet write them; or each in a line."""
    parts = [token.rsplit(maxsplit=1) for token in _of_lines(content)]
    if all(len(part) == 2 and part[1].isdecimal() and len(part[1]) < 10 for part in parts):
        return {token: int(number) for token, number in parts}
    return _of_lines(content)


def _of_ranks(content: bytes) -> dict[str, int]:
    """Of tiktoken: a token in base64 and its rank in each line."""
    return {token: int(rank) for token, rank in (line.split(" ") for line in _of_lines(content))}


def _of_tekken(content: bytes) -> dict[str, int]:
    """Of Mistral's tekken.json."""
    return {str(token["token_bytes"]): token["rank"] for token in _of_json(content)["vocab"]}


def _of_sentencepiece(content: bytes) -> dict[str, int]:
    """Of a model of sentencepiece, a protocol buffer: the pieces come first, each with its text first."""
    pieces: list[str] = []
    at = 0
    while content[at : at + 1] == b"\n":  # field 1, of a length that follows
        size, at = _varint(content, at + 1)
        length, begin = _varint(content, at + 1)
        pieces.append(content[begin : begin + length].decode("utf-8"))
        at += size
        _check_count(len(pieces))
    return {piece: row for row, piece in enumerate(pieces)}


def _check_count(tokens: int) -> None:
    if tokens > MOST_TOKENS:
        raise TooManyValuesError(f"it holds more than {MOST_TOKENS:,} tokens")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number of seven bits a byte at `at`, and the position after it. Raises ValueError for a long one."""
    number = 0
    for shift in range(0, 35, 7):
        byte = content[at : at + 1] or b"\0"
        number |= (byte[0] & 127) << shift
        at += 1
        if byte[0] < 128:
            return number, at
    raise ValueError("a length of more than 35 bits")


SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")
MAIN = Tokens("tokenizer.json", _of_tokenizer)
TOKENS = (  # the first that both have counts
    MAIN,
    Tokens("vocab.json", _of_json),
    Tokens("vocab.txt", _of_lines),
    *(Tokens(name, _of_sentencepiece) for name in SENTENCEPIECE),
)
ADDED = (MAIN, Tokens("added_tokens.json", _of_json))
ALIKE = TOKENS[:3]  # number tokens alike
FAMILIES = (
    *(TOKENS, ADDED, (Tokens("dict.txt", _of_counts),), (Tokens("tekken.json", _of_tekken),)),
    *((Tokens(name, _of_json),) for name in ("vocab-src.json", "vocab-tgt.json", "entity_vocab.json")),
    *((Tokens(name, _of_ranks),) for name in ("qwen.tiktoken", "tokenizer.tiktoken")),
    *((Tokens(name, _of_numbered_lines),) for name in ("tokens.txt", "symbols.txt", "words.txt", "units.txt")),
)


def _check_classes(first: Checkpoint, other: Checkpoint, selection: TensorFilter) -> None:
    one, two = class_orders(first), class_orders(other)
    shared = [(one[source], two[source]) for source in one if source in two]
    said = [next((orders[source] for source in (*HEADS, *orders) if source in orders), None) for orders in (one, two)]
    if said[0] is not None and said[1] is not None:
        shared.append((said[0], said[1]))  # id2label of one, label2id or a list of the other
    for names, others in shared:
        _check_order(first, other, selection, (names, others))
    stated = [len(names) for names in said if names is not None and not all(map(PLACEHOLDER.fullmatch, names))]
    for place, names, others in other_orders(first, other):
        if stated != [len(names)] * 2:  # else both name their rows, and the list is of something else
            _check_order(first, other, selection, (names, others), place)


def _classes_in_large_files(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Return a line for each file that may list classes, is too large to be read and differs or is in one alone."""
    one, two = too_large(first), too_large(other)
    differ = [name for name in {**one, **two} if not (name in one and name in two and same_bytes(one[name], two[name]))]
    return [
        f"{file}: has more than {most_of(file)} bytes: classes of {first.path} and {other.path} are not compared"
        for file in (two.get(name) or one[name] for name in differ)
    ]


def _check_order(
    first: Checkpoint, other: Checkpoint, selection: TensorFilter, orders: tuple[list[str], list[str]], place: str = ""
) -> None:
    """Raise MixError if the orders move or rename a row of the head. `place` is that of a list of unknown meaning."""
    one, two = orders
    moved = contradict(one, two)
    if len(one) != len(two) or not (moved or other_classes(one, two)):
        return
    heads = _heads(first, selection, len(one))
    if not heads:
        return
    module = heads[0].rpartition(".")[0]
    excluded = f"'{module}.*'" if module else " ".join(heads)
    known = HEAD.search(heads[0]) is not None
    rest = f"--exclude {excluded}" if known else f"--exclude with its name, such as {excluded}"
    if place:
        said = f"{other.path}: {place} lists {shown(two)}, that of {first.path} lists {shown(one)}"
        rest += f"; or, if it does not say what the {len(one)} rows stand for, write one order into both"
    else:
        said = f"{other.path}: its classes are {shown(two)}, those of {first.path} are {shown(one)}"
    raise MixError(
        f"{said}: rows of {heads[0]!r} stand for other {'outputs' if place else 'classes'}",
        hint=f"{_remedy(orders, heads, moved=moved, known=known)}mix all but the head: {rest}",
    )


def _remedy(orders: tuple[list[str], list[str]], heads: Sequence[str], *, moved: bool, known: bool) -> str:
    """Return the beginning of a hint: how the classes of the other one become those of the first."""
    if not moved:
        return "if these are the same classes under other names, write one spelling beside both; else "
    plain, others = ([plain_name(name) for name in names] for names in orders)
    if len(plain) > SHOWN or sorted(plain) != sorted(others):
        return ""
    order = [others.index(name) for name in plain]
    of = " and ".join(heads) if known else f"last layer (is it {' and '.join(heads)}?)"
    rows = f"put the rows of its {of} into the order {order} (weight[{order}])"
    return f"{rows} and its names of classes as the other's; or "


def _heads(checkpoint: Checkpoint, selection: TensorFilter, classes: int) -> list[str]:
    """Return the tensors of a head with a row for each class, or for one more: no object. Nothing if it is not mixed.

    Hidden layers may be as wide: names of heads count first, and a layer that the user excludes is taken for the head.
    """
    rows = {name: checkpoint.tensors[name].shape for name in _mixed(checkpoint, TensorFilter()) if "embed" not in name}
    for count in (classes, classes + 1):
        fitting = [name for name in rows if rows[name][0] == count]
        named = [name for name in fitting if HEAD.search(name)]
        found = named or fitting
        matrices = [name for name in found if len(rows[name]) > 1] or found
        left = [name for name in matrices if selection.mixes(name)]
        if left and (named or left == matrices):
            module = left[0].rpartition(".")[0]
            return sorted((n for n in found if n.rpartition(".")[0] == module), key=lambda name: len(rows[name]) < 2)
        if found:
            return []
    return []
