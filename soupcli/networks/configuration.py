"""The key of the files that describe a network beside its weights. Checkpoints with one key share a network."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.formats.class_lists import is_class_list
from soupcli.errors import NetworkError
from soupcli.files.json_text import key_of, parse_json
from soupcli.files.small_file import read_small
from soupcli.files.stamp import content_hash

if TYPE_CHECKING:
    from pathlib import Path

# What libraries read beside weights; `*/config.json` is a module of sentence-transformers.
FILES = (
    *("*config*.json", "modules.json", "[0-9]*_*/config.json", "tokenizer*", "*.tokenizer", "special_tokens*"),
    *("added_tokens*", "chat_template*", "*.jinja", "*vocab*", "*merges*", "*.codes", "*.bpe", "*.spm", "*.model"),
    *("*.tiktoken", "spiece*", "dict*.txt", "normalizer.json", "label*.json", "label*.txt", "*.py"),
)
_IN_FOLDER = re.compile("|".join(fnmatch.translate(pattern) for pattern in FILES if "/" not in pattern))
_BELOW = [pattern.split("/") for pattern in FILES if "/" in pattern]
# Keys that say who wrote a file, and nothing about the network.
NOTES = ("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "is_local", "local_files_only")
MODULES = "modules.json"  # of sentence-transformers: names the modules and their folders
MAX_PARSED = 10_000_000  # bytes of a file that notes are looked for in
MAX_FILE = 2**29  # bytes; the largest tokenizers have 35 MB


def configuration_files(folder: Path) -> list[Path]:
    """Return the files that a model library reads beside the weights in `folder`, sorted."""
    try:
        entries = list(folder.iterdir())  # once: a search for each pattern would list the folder as often
    except OSError:
        return []
    below = [entry / name for at, name in _BELOW for entry in entries if fnmatch.fnmatchcase(entry.name, at)]
    found = [entry for entry in entries if _IN_FOLDER.match(entry.name) or is_class_list(entry.name)]
    if any(entry.name == MODULES for entry in entries):
        below += [file for entry in entries for file in _of_module(entry)]
    return sorted({file for file in (*found, *below) if file.is_file()})


def _of_module(entry: Path) -> list[Path]:
    """Return what a module in a folder of its own has, such as `0_Transformer/tokenizer.json`; not of a checkpoint."""
    if (entry / MODULES).exists():
        return []
    return [file for file in entry.rglob("*") if _IN_FOLDER.match(file.name)]


def key_of_configuration(folder: Path) -> str:
    """Return a key of everything in the files that may change the network, its inputs or its class names."""
    return key_of(
        {"files": [[file.relative_to(folder).as_posix(), _meaning(file)] for file in configuration_files(folder)]}
    )


def _meaning(file: Path) -> str:
    """Return the file's content, without notes of the library that wrote it."""
    try:
        size = file.stat().st_size
        if size > MAX_FILE:
            raise NetworkError(f"{file}: {size} bytes, a configuration has at most {MAX_FILE}")
        if file.suffix != ".json" or size > MAX_PARSED:
            return content_hash(file)
        content = read_small(file, most=MAX_PARSED)
    except OSError as cause:
        raise NetworkError(f"{file}: {cause.strerror}") from cause
    try:
        document: Any = parse_json(content)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        kept = {key: value for key, value in document.items() if key not in NOTES}
        content = json.dumps(kept, sort_keys=True).encode("utf-8", "backslashreplace")
    return hashlib.sha256(content).hexdigest()
