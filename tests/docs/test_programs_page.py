"""docs/programs.md: the program of the page, as it stands, asks a server on the loopback and scores what it serves."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import Ran
from tests.helpers import openai_server

PAGE = (Path(__file__).parents[2] / "docs/programs.md").read_text("utf-8")
PROGRAM = re.findall(r"^`eval_openai.py`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
RECIPE = re.findall(r"^```yaml\n(.*?questions:.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[-1].split("```yaml\n")[-1]
Soup = Callable[..., Ran]


def write_page(folder: Path, bin_folder: Path, *, questions: int) -> None:
    """The program and the recipe of the page, questions from the family's set, and a `vllm` on the path."""
    (folder / "eval_openai.py").write_text(PROGRAM)
    val = load_file(folder / "data/val.safetensors")
    rows = zip(val["inputs"][:questions].tolist(), val["labels"][:questions].tolist(), strict=True)
    lines = [json.dumps({"question": " ".join(map(str, x)), "answer": f"class-{y}"}) for x, y in rows]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    own = RECIPE.removeprefix("val:\n")
    recipe = (folder / "soup.yaml").read_text()
    (folder / "soup.yaml").write_text(recipe.replace("\nval:\n", f"\nval:\n{own}", 1))
    vllm = bin_folder / "vllm"
    vllm.write_text(f'#!/bin/sh\nexec "{sys.executable}" {openai_server.__file__} "$@"\n')
    vllm.chmod(0o755)


def test_scores_what_is_served(family: Path, soup: Soup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers over HTTP give the accuracy that the network has in process: of ingredients, and of a soup."""
    assert len([line for line in PROGRAM.splitlines() if line]) <= 25
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    write_page(family, tmp_path / "bin", questions=200)
    ran = soup("uniform", "--ckpts", "runs/0", "runs/1", "--val", "questions", "val", "--json")
    assert ran.code == 0, ran.stderr
    scores = json.loads(ran.stdout)["soup"]["scores"]
    assert scores["questions"]["accuracy"] == {**scores["val"]["accuracy"], "stderr": None}
    (tmp_path / "bin/vllm").write_text("#!/bin/sh\necho no GPU left >&2; exit 3\n")
    ran = soup("rank", "--ckpts", "runs/0", "--val", "questions", "--set", "val.questions.retries=0")
    assert ran.code == 2 and "no GPU left" in ran.stderr
