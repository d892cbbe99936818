"""Files that list the tokens of a network, in the forms of many libraries, as a number for each token.

tokens_of(Path("run/vocab.json"), NAMED["vocab.json"])  # {"the": 5}
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from soupcli.checkpoints.compare.documents import OF_BYTES, OF_TEXT, OF_TORCH, YAML
from soupcli.checkpoints.formats.class_texts import rows_of_text
from soupcli.checkpoints.formats.numpy_names import plain
from soupcli.checkpoints.formats.sentencepiece import TooManyPiecesError, pieces_of
from soupcli.checkpoints.formats.torch_archives import read_object
from soupcli.checkpoints.shell_patterns import matches
from soupcli.errors import CheckpointError
from soupcli.files.gzip_files import unpacked_name
from soupcli.files.json_text import TooManyValuesError, parse_json
from soupcli.files.letters import decoded
from soupcli.files.reading import FileVersion
from soupcli.files.small_file import read_small
from soupcli.late import late_pattern

MOST_VALUES = 2_500_000  # in a file: a quarter of a million tokens, and the pairs that they are merged from
MOST_TOKENS = 1_000_000  # of other files
CONFIG, OF_LANGUAGES = "tokenizer_config.json", "vocab.json"
MAX_CONFIG = 1 << 23  # bytes of the first, which may list many added tokens
MAX_YAML = 1 << 19  # bytes: thirty thousand tokens, which take a second
DEEPEST = 2  # levels of a document that are searched
LONGEST_ENTRY = 3  # of a list with more than tokens: a token, its score and its kind
TABLES = (".csv", ".tsv")
COUNTS = late_pattern(r"(.*[_-])?(counts?|docs?|freqs?|frequenc(y|ies)|n?idf|df)", re.IGNORECASE)  # keys of no numbers
NUMBER = re.compile(r"[0-9]{1,9}")
PLAIN_YAML = re.compile(r"(\S.*): ([0-9]{1,9})|- (\S.*)")
BELOW = "\0"  # between a token and the keys that lead to it, which are no part of it


class Tokens(NamedTuple):
    """A file that lists tokens, and its format."""

    name: str
    read: Callable[[bytes], Mapping[str, int]]


def _of_json(content: bytes) -> Any:
    return parse_json(content, most=MOST_VALUES)


def _of_tokenizer(content: bytes) -> dict[str, int]:
    """Of tokenizer.json of Hugging Face's tokenizers."""
    document = _of_json(content)
    vocab = document["model"].get("vocab") or {}
    tokens = dict(vocab) if isinstance(vocab, dict) else {token[0]: row for row, token in enumerate(vocab)}
    return tokens | {added["content"]: added["id"] for added in document.get("added_tokens") or []}


def _of_added(content: bytes) -> dict[str, int]:
    """Of tokenizer_config.json, which may state the tokens that were added to a vocabulary."""
    added = _of_json(content).get("added_tokens_decoder") or {}
    return {token["content"]: int(row) for row, token in added.items()}


def language_of(config: Path) -> str:
    """Return the language whose tokens a tokenizer_config.json takes from a vocabulary of many, as MMS does, or ""."""
    try:
        language = parse_json(read_small(config, most=MAX_CONFIG)).get("target_lang")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return language if isinstance(language, str) else ""


def of_language(language: str, content: bytes) -> dict[str, int]:
    """Of one language in a vocabulary of many."""
    return _of_document(_of_json(content).get(language))


def _of_lines(content: bytes) -> dict[str, int]:
    _check_count(content.count(b"\n"))
    return {line: row for row, line in enumerate(decoded(content).splitlines())}


def _of_counts(content: bytes) -> dict[str, int]:
    """Of a dictionary of fairseq: a token and its count in each line."""
    _check_count(content.count(b"\n"))
    return _of_lines(b"\n".join(line.rpartition(b" ")[0] for line in content.splitlines()))


def of_merges(content: bytes) -> dict[str, int]:
    """Of pairs in the order in which they are merged, which numbers the tokens where no file does: CLIP's."""
    lines = (line for line in _of_lines(content) if not line.startswith("#"))
    return {" ".join(line.split()[:2]): number for number, line in enumerate(lines)}


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
    """Of a model of sentencepiece."""
    try:
        return {piece: row for row, piece in enumerate(pieces_of(content))}
    except TooManyPiecesError as cause:
        raise TooManyValuesError(str(cause)) from cause


def _check_count(tokens: int) -> None:
    if tokens > MOST_TOKENS:
        raise TooManyValuesError(f"it holds more than {MOST_TOKENS:,} tokens")


def of_torch(file: Path) -> dict[str, int]:
    """Of what torch.save wrote: a list, a map, or a vocabulary of torchtext."""
    try:
        return _of_document(plain(read_object(FileVersion.of(file)).content))
    except CheckpointError:
        return {}


def of_any(file: str, content: bytes) -> dict[str, int]:
    """Of a list whose form only its content tells: JSON, YAML, a pickle, a model of sentencepiece, or lines."""
    suffix = PurePosixPath(unpacked_name(file)).suffix.lower()
    if suffix in OF_BYTES:
        return _of_document(OF_BYTES[suffix](content))
    if suffix == ".json":
        return _of_document(_of_json(content))
    if suffix in YAML:
        if len(content) > MAX_YAML:
            return _of_long_yaml(content)
        return _of_document(OF_TEXT[suffix](decoded(content)))
    if content.startswith(b"\n"):
        return _of_sentencepiece(content)
    _check_count(content.count(b"\n"))
    text = decoded(content)
    if suffix in TABLES:
        return {name: row for row, name in enumerate(rows_of_text(text) or ())}
    return _of_numbered(text.splitlines())


def _of_long_yaml(content: bytes) -> dict[str, int]:
    """Of YAML that is too long for its reader: `token: number` in each line, or `- token`. Quotes count as letters."""
    _check_count(content.count(b"\n"))
    lines = [line for line in decoded(content).splitlines() if line.strip() and not line.startswith(("#", "---"))]
    found = [PLAIN_YAML.fullmatch(line) for line in lines]
    numbers = {match[1]: int(match[2]) for match in found if match is not None and match[2] is not None}
    listed = [match[3] for match in found if match is not None and match[3] is not None]
    if len(numbers) != len(lines) and len(listed) != len(lines):
        raise TooManyValuesError(f"YAML of more than {MAX_YAML:,} bytes, not of one token in each line")
    return numbers or {token: number for number, token in enumerate(listed)}


def _of_document(document: Any, above: str = "", depth: int = 0) -> dict[str, int]:
    """Of lists, and of maps from tokens to numbers or back, below the keys that lead to them."""
    if isinstance(document, Mapping):
        numbers = {f"{above}{token}": int(row) for token, row in document.items() if _is_number(row)}
        tokens = {f"{above}{token}": str(key) for key, token in document.items() if isinstance(token, str)}
        if len(numbers) == len(document) and (not depth or len(set(numbers.values())) == len(numbers)):
            return numbers
        if len(tokens) == len(document) and all(map(NUMBER.fullmatch, tokens.values())):
            return {token: int(number) for token, number in tokens.items()}
        below = [(key, value) for key, value in document.items() if not COUNTS.fullmatch(str(key))]
        return _of_parts(below, above, depth)
    if not isinstance(document, list):
        return {}
    if any(isinstance(one, Mapping) or (isinstance(one, list) and len(one) > LONGEST_ENTRY) for one in document):
        return _of_parts(list(enumerate(document)), above, depth)
    texts = [one[0] if isinstance(one, list) and one else one for one in document]  # with a score
    return {f"{above}{token}": number for number, token in enumerate(texts) if isinstance(token, str)}


def _of_parts(parts: Sequence[tuple[Any, Any]], above: str, depth: int) -> dict[str, int]:
    found = [_of_document(value, f"{above}{key}{BELOW}", depth + 1) for key, value in parts] if depth < DEEPEST else ()
    return {token: number for one in found for token, number in one.items()}


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and NUMBER.fullmatch(value) is not None)


def _of_numbered(lines: Sequence[str]) -> dict[str, int]:
    """Of lines: tokens with numbers behind them or in front, else tokens alone or with a score, in their order."""
    behind = [line.rsplit(maxsplit=1) for line in lines]
    in_front = [line.split(maxsplit=1)[::-1] for line in lines]
    for pairs in (behind, in_front):
        if all(len(pair) == 2 and NUMBER.fullmatch(pair[1]) for pair in pairs):
            found = {token: int(number) for token, number in pairs}
            if len(found) == len(set(found.values())) == len(lines):
                return found
    scored = [line.rpartition("\t")[0] or line for line in lines]
    return {token: number for number, token in enumerate(scored)}


SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")
MAIN = Tokens("tokenizer.json", _of_tokenizer)
TOKENS = (  # the first that both have counts
    MAIN,
    Tokens(OF_LANGUAGES, partial(of_any, OF_LANGUAGES)),
    Tokens("vocab.txt", _of_lines),
    *(Tokens(name, partial(of_any, name)) for name in SENTENCEPIECE),
)
ADDED = (MAIN, Tokens("added_tokens.json", _of_json), Tokens(CONFIG, _of_added))
ALIKE = TOKENS[:3]  # number tokens alike
FAMILIES = (
    *(TOKENS, ADDED, (Tokens("dict.txt", _of_counts),), (Tokens("tekken.json", _of_tekken),)),
    *((Tokens(name, _of_json),) for name in ("vocab-src.json", "vocab-tgt.json", "entity_vocab.json")),
    *((Tokens(name, _of_ranks),) for name in ("qwen.tiktoken", "tokenizer.tiktoken")),
    *((Tokens(name, _of_numbered_lines),) for name in ("tokens.txt", "symbols.txt", "words.txt", "units.txt")),
)
NAMED = frozenset(kind.name for kinds in FAMILIES for kind in kinds)
# Other files that number tokens, and files of such names that do not: rules that put tokens together, and settings.
OTHERS = ("*vocab*", "*.spm", "*.model", "*.tiktoken", "*tokenizer*.json", "dict.*.txt")
MERGES = ("*.bpe", "merges.txt", "*.codes", "*merges*")
NO_LISTS = (*MERGES, "*stats*", "*freq*", "*count*", "*size*")
ENDINGS = (".json", ".txt", ".lst", ".list", ".dict", *TABLES, *YAML, *OF_BYTES, *OF_TORCH)
_UNIT = "(word|char(acter)?|token|phone(me)?|symbol|unit|piece|letter|syllable|grapheme|entity|relation|item|user|node)"
_NUMBER = "(ids?|idx|ind(ex|ices)|ints?|num)"
STEMS = late_pattern(
    rf"((train|lang|src|tgt|source|target|text|asr|tts|input|output|model)[_.-])?({_UNIT}s?[_-]?(list|map|dict|index|set)"
    rf"|{_UNIT}s?_?(2|to)_?{_NUMBER}|{_NUMBER}_?(2|to)_?{_UNIT}s?|(char|token|phone(me)?|symbol|unit|letter)s?"
    r"|word_?map_\w+|(en|ch|chinese|japan|korean|latin|arabic|cyrillic|french|german|ic15|ppocr)_?(dict|keys)(_v\d)?"
    r"|stoi|itos|alphabet|charset|entities|relations|vocab(ulary)?|tokenizer)",
    re.IGNORECASE,
)


def numbers_tokens(name: str) -> bool:
    """Whether a file of this name, which is none of NAMED, may number tokens."""
    unpacked = unpacked_name(name)
    stem, ending = os.path.splitext(unpacked)  # noqa: PTH122 - a Path for each of very many files takes long
    known = matches(unpacked, OTHERS) or (ending.lower() in ENDINGS and STEMS.fullmatch(stem) is not None)
    return known and name not in NAMED and not matches(name, NO_LISTS)
