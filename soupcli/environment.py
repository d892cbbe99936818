"""The cache folder (`$SOUP_CACHE`, else `$XDG_CACHE_HOME/soup`, else `~/.cache/soup`), versions, and extras."""

from __future__ import annotations

import functools
import importlib
import os
import platform
import re
from pathlib import Path
from typing import Any

from soupcli import __version__
from soupcli.errors import MissingExtra, UsageError

SWITCHES = ("0", "1", "true", "false", "yes", "no", "on", "off", "none", "null", "disabled")  # words that are no folder


def cache_folder() -> Path:
    """The folder, which may not exist yet. Raises UsageError for SOUP_CACHE=0 and other words that switch."""
    if chosen := os.environ.get("SOUP_CACHE"):
        return _chosen(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else _home() / ".cache") / "soup"


def _chosen(name: str) -> Path:
    if name.strip().lower() in SWITCHES:
        hint = "--fresh uses no scores of earlier runs, --no-cache keeps no decoded inputs"
        raise UsageError(
            f"SOUP_CACHE={name}: names a folder, it is no switch", hint=f"{hint}; SOUP_CACHE=./{name} is one"
        )
    folder = Path(name).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"SOUP_CACHE={name}: is no folder", hint="name a folder, or leave SOUP_CACHE away")
    return folder


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as absent:  # no HOME, and no entry for this user in the system's table
        raise UsageError(
            "no home folder for the cache: HOME is not set", hint="SOUP_CACHE=/a/folder soup ..."
        ) from absent


def import_extra(module: str, *, extra: str) -> Any:
    """Imports `module`, a part of the optional extra `extra`, and returns it.

    Raises MissingExtra if it is absent, or if it is there and broken: torchvision beside another torch than
    its own raises RuntimeError when it is imported, a library beside another numpy ValueError or AttributeError.
    """
    try:
        return importlib.import_module(module)
    except Exception as cause:
        raise MissingExtra(module.partition(".")[0], extra, cause) from cause


LIBRARIES = ("torch", "timm", "transformers", "open_clip_torch", "torchvision", "pillow", "lm_eval")
MODULES = ("torch", "timm", "transformers", "open_clip", "torchvision", "PIL", "lm_eval")  # of these


# They say which of several processes evaluates, and that changes no score.
OF_LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(TORCHELASTIC|SLURM|OMPI)_\w+|OMP_NUM_THREADS"
)
# They say in which session a command was typed.
OF_SESSIONS = re.compile(
    r"_|SHLVL|(OLD)?PWD|TERM\w*|COLUMNS|LINES|WINDOWID|DISPLAY|TMUX\w*|STY|LS_COLORS|PYTEST_CURRENT_TEST|"
    r"(SSH|XDG|DBUS|VTE|GPG|GNOME|KITTY|VSCODE|JPY)_\w+|SOUP_NOTES\w*"
)


def is_of_the_session(variable: str) -> bool:
    """Whether an environment variable says only where and by which processes a command runs."""
    return any(pattern.fullmatch(variable) for pattern in (OF_LAUNCHERS, OF_SESSIONS))


EVERY = "="  # in the place of a variable: all of them
SEARCHED = ":"  # how names begin that are none of variables, but of modules that are looked for
searched: list[str] = []  # the folders of the user's where they are, as the present run has found them
# First on the path of a Python that the user's code starts.
WITNESS = str(Path(__file__).parent / "user_code" / "witness")


def variable(name: str) -> str | None:
    """Return an environment variable as the user gave it, None if it is not set."""
    value = os.environ.get(name)
    if name == "PYTHONPATH" and value is not None and value.startswith(WITNESS):
        return value[len(WITNESS) :].removeprefix(os.pathsep) or None
    return value


def versions() -> dict[str, str]:
    """This program, Python, torch and those model libraries that are installed; none is imported."""
    return dict(_installed())


@functools.cache  # part of the key of every score
def _installed() -> dict[str, str]:
    from importlib import metadata  # noqa: PLC0415 - slow, and a Python that a command starts does not need it

    found = {"soup": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
