"""What tells a set that others evaluate from every other: its code, its program's files, and what `depends:` names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.datasets import load as load_context
from soupcli.errors import ValidationError
from soupcli.evaluation.outside.program_files import files_of, split
from soupcli.files.json_text import key_of
from soupcli.recipe.sets import CommandSet, LmEvalSet, OutsideSet, PythonSet
from soupcli.user_code import content_of

if TYPE_CHECKING:
    from soupcli.files.manifest import Manifest

MAGIC = "*?["


def fingerprint(
    name: str, spec: OutsideSet, manifest: Manifest, tasks: object, warn: Callable[[str], None]
) -> str | None:
    """Changes with everything that determines the scores, as far as it can be seen.

    None if they are not kept: as `keep:` says, or because nothing is known of a command's program, which is said.
    """
    if not spec.keep:
        return None
    own: dict[str, Any]
    parts = {"depends": _depends(name, spec, manifest), "version": spec.version}
    if isinstance(spec, LmEvalSet):
        own = {"tasks": load_context.fingerprint(spec, manifest, tasks), "files": _below(spec.include_path, manifest)}
    elif isinstance(spec, PythonSet):
        own = {"python": content_of(spec.python, manifest.file), "higher_is_better": spec.higher_is_better}
    elif isinstance(spec, CommandSet):
        words = split(spec.command)
        files = files_of(words, Path.cwd())
        if not files and not spec.depends and spec.version is None:
            warn(
                f"val.{name}: nothing shows what {shlex.join(words[:3])} ... is made of, so its scores are not kept: "
                "name its files with depends: or give it a version: in the recipe (keep: false is silent)"
            )
            return None
        own = {"command": spec.command, "set": name, "files": _print_of(files, manifest)}
        own["higher_is_better"] = spec.higher_is_better
    else:
        raise TypeError(type(spec).__name__)
    return f"{type(spec).__name__}:{key_of({**parts, **own})}"


def _depends(name: str, spec: OutsideSet, manifest: Manifest) -> list[list[str]]:
    """Each word of `depends:` with the print of the files that it names. Raises ValidationError if it names none."""
    found = []
    for pattern in spec.depends:
        files = sorted(_named(pattern))
        if not files:
            raise ValidationError(f"val.{name}.depends: {pattern}: no such file", hint="a file, a folder, or a glob")
        found.append([pattern.name, _print_of(files, manifest)])
    return found


def _named(pattern: Path) -> list[Path]:
    """The file, all files of the folder, or all that a glob fits."""
    if pattern.is_file():
        return [pattern]
    if pattern.is_dir():
        return [file for file in pattern.rglob("*") if file.is_file()]
    plain = next((place for place, part in enumerate(pattern.parts) if any(sign in part for sign in MAGIC)), None)
    if plain is None:
        return []
    fitting = Path(*pattern.parts[:plain]).glob("/".join(pattern.parts[plain:]))
    return [file for place in fitting for file in ([place] if place.is_file() else _named(place))]


def _below(folder: Path | None, manifest: Manifest) -> str | None:
    """The print of all files of a folder of tasks: their configuration, and the code that it names."""
    if folder is None:
        return None
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return manifest.files([(file.relative_to(folder).as_posix(), file) for file in files])


def _print_of(files: Sequence[Path], manifest: Manifest) -> str:
    here = Path.cwd()
    names = [str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files]
    try:
        return manifest.files(list(zip(names, files, strict=True)))
    except OSError as cause:
        raise ValidationError(f"{cause.filename}: {cause.strerror}") from cause
