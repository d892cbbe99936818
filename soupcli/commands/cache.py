"""`soup cache`: what is kept between runs, and how much; `soup cache --clear` removes it.

soup cache inputs --clear         # only decoded inputs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soupcli.cli.parsing import DONE, Invocation
from soupcli.environment import cache_folder
from soupcli.errors import UsageError
from soupcli.files.cache import KINDS, CacheKind, KeptFile, kept_files, remove_kept
from soupcli.files.json_text import dump_json
from soupcli.output import console
from soupcli.report.tables import Column, Table, numbers
from soupcli.wording import human_bytes, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.cli.options.without_checkpoints import CacheOptions

SCHEMA = "soup-cache/1"


class Held(NamedTuple):
    """A kind of the cache and its files."""

    kind: CacheKind
    files: list[KeptFile]

    @property
    def nbytes(self) -> int:
        """The size of all files."""
        return sum(file.size for file in self.files)


def cache(options: CacheOptions, _invocation: Invocation) -> int:
    """Shows what the cache holds, and removes it with --clear."""
    folder = cache_folder()
    held = [Held(kind, kept_files(folder, kind)) for kind in _chosen(options.kinds or [])]
    if options.clear:
        remove_kept(folder, [file for one in held for file in one.files])
    if options.as_json:
        console.print_json(dump_json(_document(folder, held, cleared=options.clear)))
    elif options.quiet:
        console.print_lines([str(folder)])
    else:
        console.print_report([_table(held), [_summary(folder, held, cleared=options.clear)]])
    return DONE


def _chosen(names: list[str]) -> list[CacheKind]:
    """Return the named kinds, or all. Raises UsageError for an unknown name."""
    known = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in known:
            hint = f"the kinds are {', '.join(known)}"
            raise UsageError(f"soup cache {name}: no such kind{suggestion(name, known)}", hint=hint)
    return [known[name] for name in names or known]


def _document(folder: Path, held: list[Held], *, cleared: bool) -> dict[str, object]:
    kinds = {one.kind.name: {"files": len(one.files), "bytes": one.nbytes} for one in held}
    return {"schema": SCHEMA, "folder": str(folder), "kinds": kinds, "cleared": cleared}


def _table(held: list[Held]) -> Table:
    columns = [Column("kind"), Column("holds"), *numbers(["files", "size"])]
    rows = [[one.kind.name, one.kind.holds, f"{len(one.files):,}", human_bytes(one.nbytes)] for one in held]
    return Table("Kept between runs", columns, rows)


def _summary(folder: Path, held: list[Held], *, cleared: bool) -> str:
    total = human_bytes(sum(one.nbytes for one in held))
    if cleared:
        return f"removed {total} from {folder}"
    return f"{total} in {folder}: soup cache --clear removes it, SOUP_CACHE=DIR keeps it elsewhere"
