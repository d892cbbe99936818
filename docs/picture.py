"""The picture of a real run in README.md: `soup greedy` on the digits demo, as rich exports a terminal to SVG.

make demo && python docs/picture.py demo        # writes docs/greedy.svg
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = "soup greedy --ckpts runs/*/ --val val test rotated noisy --with-uniform --force"
COLUMNS = 110


def main(demo: Path) -> None:
    """Runs the command in the demo's folder and draws what a terminal shows."""
    terminal = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "SOUP_CACHE": str(demo.resolve() / ".cache")}
    words = shlex.split(COMMAND)
    command = [sys.executable, "-m", "soupcli", *words[1:]]
    ran = subprocess.run(command, cwd=demo, env=terminal, capture_output=True, text=True, check=True)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), COMMAND))
    console.print(Text.from_ansi(ran.stdout))
    console.save_svg(str(Path(__file__).parent / "greedy.svg"), title="soup")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
