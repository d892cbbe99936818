"""A fit of coefficients kept between runs, under a key of everything that determines it.

One file a key, written aside and renamed; what does not read back whole is fitted again.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from soupcli import processes
from soupcli.checkpoints.writing import write_whole
from soupcli.errors import OutputError
from soupcli.report.json_text import dump_json
from soupcli.validation.score_store import key_of

SCHEMA = "soup-fit/1"


class FitStore:
    """The latest state of one fit; `fresh` ignores what an earlier run left."""

    def __init__(self, folder: Path, key: str, *, fresh: bool = False) -> None:
        self.file = folder / f"{key}.json"
        self.fresh = fresh

    def get(self) -> dict[str, Any] | None:
        """The state, None where there is none or where it does not read back as it was written."""
        return processes.from_first(self._read)

    def _read(self) -> dict[str, Any] | None:
        if self.fresh:
            return None
        try:
            kept = json.loads(self.file.read_bytes())
            state: dict[str, Any] = kept["state"]
            whole = kept["schema"] == SCHEMA and kept["digest"] == key_of(state)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return state if whole else None

    def put(self, state: dict[str, Any]) -> None:
        """Replaces the state; where the folder cannot be written, an interrupted fit begins again."""
        if not processes.is_first():
            return
        with contextlib.suppress(OutputError):
            write_whole(self.file, dump_json({"schema": SCHEMA, "digest": key_of(state), "state": state}))
