"""Fingerprints of sets that other programs evaluate: of code, program files, and files that `depends:` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.datasets.load import kind_of
from soupcli.errors import ValidationError
from soupcli.files.json_text import key_of
from soupcli.recipe.sets import OutsideSet

if TYPE_CHECKING:
    from soupcli.files.manifest import Manifest
    from soupcli.recipe.sets import SetSpec

MAGIC = "*?["


def fingerprint(
    name: str, spec: OutsideSet, manifest: Manifest, tasks: object, warn: Callable[[str], None]
) -> str | None:
    """Returns a text that changes with everything that determines the scores, as far as it can be seen.

    Returns None if scores are not kept: `keep: false`, or nothing is known of a command's program, which `warn` says.
    """
    if not spec.keep:
        return None
    parts = {"depends": _depends(name, spec, manifest), "version": spec.version}
    identity = kind_of(spec).identity
    assert identity is not None, f"{type(spec).__name__} shows examples"
    own = identity(spec, name, manifest, tasks, warn)
    if own is None:
        return None
    return f"{type(spec).__name__}:{key_of({**parts, **own})}"


def say_what_is_unseen(name: str, spec: SetSpec, programs: Sequence[str], note: Callable[[str], None]) -> None:
    """Say that programs read files which nobody sees, unless the recipe names what scores depend on."""
    way_out = "--fresh evaluates anew"
    if isinstance(spec, OutsideSet):
        if not spec.keep or spec.depends or spec.version is not None:
            return
        way_out = "depends: in the recipe names others, version: stands for them"
    for program in programs:
        note(
            f"val.{name}: what {program!r} reads is not seen: kept scores depend on the files that its words and "
            f"scripts name ({way_out})"
        )


def _depends(name: str, spec: OutsideSet, manifest: Manifest) -> list[list[str]]:
    """Return each word of `depends:` with the fingerprint of its files. Raises what `files_of_depends` raises."""
    return [[pattern.name, print_of(files, manifest)] for pattern, files in files_of_depends(name, spec)]


def files_of_depends(name: str, spec: OutsideSet) -> list[tuple[Path, list[Path]]]:
    """Return each word of `depends:` with its files. Raises ValidationError if it names no file."""
    found = []
    for pattern in spec.depends:
        files = sorted(_named(pattern))
        if not files:
            raise ValidationError(f"val.{name}.depends: {pattern}: no such file", hint="a file, a folder, or a glob")
        found.append((pattern, files))
    return found


def check_depends(spec: OutsideSet, name: str, _trust_code: bool) -> None:
    """Raises ValidationError if a word of `depends:` names no file."""
    files_of_depends(name, spec)


def _named(pattern: Path) -> list[Path]:
    """Return the file, all files of the folder, or all files that match the glob."""
    if pattern.is_file():
        return [pattern]
    if pattern.is_dir():
        return [file for file in pattern.rglob("*") if file.is_file()]
    plain = next((place for place, part in enumerate(pattern.parts) if any(sign in part for sign in MAGIC)), None)
    if plain is None:
        return []
    fitting = Path(*pattern.parts[:plain]).glob("/".join(pattern.parts[plain:]))
    return [file for place in fitting for file in ([place] if place.is_file() else _named(place))]


def print_below(folder: Path | None, manifest: Manifest) -> str | None:
    """Return one fingerprint of all files of a folder, or None if there is no folder."""
    if folder is None:
        return None
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return manifest.files([(file.relative_to(folder).as_posix(), file) for file in files])


def print_of(files: Sequence[Path], manifest: Manifest) -> str:
    """Return one fingerprint of names and contents of the files. Raises ValidationError if one cannot be read."""
    here = Path.cwd()
    names = [str(file.relative_to(here) if file.is_relative_to(here) else file) for file in files]
    try:
        return manifest.files(list(zip(names, files, strict=True)))
    except OSError as cause:
        raise ValidationError(f"{cause.filename}: {cause.strerror}") from cause
