"""What the system of a test can do."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from subprocess import run

ASKED = """
import sqlite3, sys
from soupcli.user_code import openings as user_openings
user_openings.watch([sys.argv[1]])
sqlite3.connect("file:" + sys.argv[1] + "/any?mode=ro", uri=True).execute("select * from sqlite_master")
sys.exit(not user_openings.opened())
"""


def tells_of_openings(folder: str) -> bool:
    """Whether the system tells a process which files it opens in this folder."""
    file = Path(folder) / "any"
    sqlite3.connect(file).execute("create table any_name (x)")
    done = run([sys.executable, "-c", ASKED, os.path.realpath(folder)], check=False, capture_output=True)
    file.unlink()
    return done.returncode == 0
