"""Guards the reading of a configuration: no code of it runs, nothing is fetched and no question is asked.

A configuration that needs code is refused by name before the library sees it. Anything else is stopped by an audit hook
of Python (PEP 578): a connection, a question on the terminal, a class from a pickle, a module of
`transformers_modules`, where transformers puts code of checkpoints.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from soupcli.errors import NetworkError
from soupcli.files.json_text import TooManyValuesError, parse_json
from soupcli.files.small_file import read_small
from soupcli.networks.configuration import configuration_files

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType

MODULES = "transformers_modules"
HINT = "--trust-code runs code of a local folder: only for folders that you wrote"
MAX_CONFIG = 20_000_000  # bytes; larger ones are vocabularies
DEEPEST = 64  # levels of a configuration
REMOTE = ("hf-hub:", "hf_hub:")
IMPLEMENTATION = re.compile(r"_implementation(_internal)?$")  # of attention, of experts: a text or one for each part

_depth = threading.local()
_installed = threading.Event()
_lock = threading.Lock()
_were_offline: list[bool] = []  # huggingface_hub's mode before each block that is open, of any thread


class CodeRefused(RuntimeError):
    """A library tried to run code while it read a configuration."""


@contextmanager
def data_only(*, trust_code: bool = False) -> Iterator[None]:
    """Let this thread fetch nothing and ask no question within the block. Code of checkpoints runs if `trust_code`."""
    _install()
    before = getattr(_depth, "closed", None)
    _depth.closed = before is True or not trust_code
    _depth.within = getattr(_depth, "within", 0) + 1
    try:
        with _hub_offline():
            yield
    finally:
        _depth.closed = before
        _depth.within -= 1


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Let huggingface_hub look into its cache at once: it would try to connect six times, in 23 seconds."""
    try:
        constants: Any = import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    with _lock:
        _were_offline.append(constants.HF_HUB_OFFLINE)
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        with _lock:
            if len(_were_offline) == 1:
                constants.HF_HUB_OFFLINE = _were_offline[0]
            _were_offline.pop()


def refuse_code(config: Mapping[str, Any], file: Path, *, trust_code: bool = False) -> None:
    """Raises NetworkError for a configuration that needs code to be run or files to be fetched."""
    for key, value in _entries(config):
        last = key.rpartition(".")[2]
        if last == "trust_remote_code" and value and not trust_code:
            raise NetworkError(f"{file}: {key}: {value!r} asks for code to be run", hint=HINT)
        if last == "auto_map":
            _check_auto_map(value, f"{file}: {key}")
        if isinstance(value, str) and value.startswith(REMOTE):
            raise NetworkError(
                f"{file}: {key}: {value!r} is not here, and nothing is fetched", hint="download it first"
            )
        if IMPLEMENTATION.search(last):
            _check_implementation(value, key, file)


def refuse_code_beside(folder: Path, *, trust_code: bool = False) -> None:
    """Raises NetworkError if any configuration in the folder needs code to be run or files to be fetched."""
    for file in configuration_files(folder):
        if file.suffix == ".json":
            try:
                config = parse_json(read_small(file, most=MAX_CONFIG))
            except TooManyValuesError as cause:
                raise NetworkError(f"{file}: {cause}") from cause
            except (OSError, ValueError, RecursionError):
                continue  # whoever needs it says so
            if isinstance(config, dict) and not file.name.startswith("tokenizer.json"):
                refuse_code(config, file, trust_code=trust_code)


def named_code(config: Mapping[str, Any]) -> str | None:
    """Return the class that `auto_map` names, for messages: `modeling_x.Net`."""
    for key, value in _entries(config):
        if key.rpartition(".")[2] == "auto_map":
            return next(iter(_references(value)), None)
    return None


def _check_auto_map(value: Any, where: str) -> None:
    """Raises NetworkError for code in another repository, which is never run."""
    for reference in _references(value):
        if "--" in reference:
            raise NetworkError(f"{where}: {reference!r} is code of another repository, which is never run")


def _check_implementation(value: Any, key: str, file: Path) -> None:
    """Raises NetworkError for a kernel of another repository, given as a text or for each part of the network."""
    kernel = next((one for one in _references(value) if "/" in one), None)
    if kernel is not None:
        raise NetworkError(
            f"{file}: {key}: {kernel!r} is code of another repository, which is never run",
            hint=f"remove {key} from the file: it says how fast the network is computed, not what",
        )


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _references(inner)


def _entries(value: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every key of nested objects, with dots, and its value."""
    if depth > DEEPEST:
        raise NetworkError(f"{prefix[:40]}...: a configuration of more than {DEEPEST} levels")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{prefix}{key}", inner
            yield from _entries(inner, f"{prefix}{key}.", depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, prefix, depth + 1)


def _install() -> None:
    if not _installed.is_set():
        _installed.set()
        sys.addaudithook(_heard)


def _heard(event: str, arguments: Sequence[Any]) -> None:
    """Python's audit hook: raises for what a configuration may not make a library do."""
    if not getattr(_depth, "within", 0):
        return
    if event in ("socket.connect", "socket.getaddrinfo"):  # libraries then look into their own caches
        raise ConnectionRefusedError("nothing is fetched while a configuration is read")
    if event == "builtins.input":
        raise CodeRefused("a configuration wants an answer to a question, and nobody is asked")
    if not _depth.closed:
        return
    if event == "pickle.find_class":
        raise CodeRefused(f"a pickle names the class {arguments[0]}.{arguments[1]}, and pickles are not run")
    if event == "exec" and _is_of_checkpoint(arguments[0]):
        raise CodeRefused("a configuration names code, and code is not run")


def _is_of_checkpoint(code: CodeType | object) -> bool:
    return MODULES in str(getattr(code, "co_filename", ""))
