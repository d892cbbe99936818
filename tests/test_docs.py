"""Every command of README.md and docs/*.md is run, in a folder like the one that the page speaks of.

The ```sh blocks of a page are run from top to bottom in a fresh family of small ingredients. A block that cannot run
here says so in a comment before it, `<!-- not run: REASON -->`, and its commands are checked against the flags that
there are. Nothing is asked of a page but its blocks, so new pages are held without a line here.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from soupcli.cli.app import run as run_soup
from soupcli.recipe.loading import load_recipe
from tests.cli.words import unknown_words
from tests.conftest import Ran, write_family

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# First words of lines that set up, fetch, or start many processes: other tests run the latter; flags are checked here.
ELSEWHERE = ("make", "pip", "torchrun", "srun", "sbatch")
MOST_NOT_RUN = 16
COOKING = ("uniform", "greedy", "learned", "mix")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    text: str
    reason: str | None  # why it is not run

    @property
    def commands(self) -> list[str]:
        """Its lines, continued ones joined, without comments and empty ones."""
        lines = re.sub(r"\\\n\s*", " ", self.text).splitlines()
        return [line for line in (re.sub(r"^#.*|\s#\s.*$", "", line).strip() for line in lines) if line]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page, text[: found.start("text")].count("\n") + 1, found["kind"], found["text"], found["reason"])
        for found in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL_BLOCKS = [block for block in BLOCKS if block.kind in ("sh", "bash", "shell", "console")]


# Sets that pages speak of, and the set of the family that stands for each.
OTHER_NAMES = {"rotated": "test", "blurred": "test", "noisy": "test"}
OTHER_NAMES |= {"imagenet-val": "val", "imagenet-v2": "test", "imagenet-a": "test"}

# What a reader of a later page has made already.
EARLIER = [
    ["greedy", "--val", "val", "test"],
    ["learned", "--val", "val", "test", "--set", "learned.steps=3", "--out", "learned"],
    ["uniform", "--val", "val", "test", "--out", "uniform"],
    ["rank", "--val", "val", "test", "--report", "rank.json"],
]


@pytest.fixture(scope="session")
def _family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family as `soup demo` makes them, of a network that is trained in a moment; `start/` is near all of them."""
    folder = tmp_path_factory.mktemp("docs") / "family"
    write_family(folder)
    for run in sorted((folder / "runs").iterdir()):
        run.rename(run.with_name(f"{run.name.zfill(2)}-lr1e-3"))
    states = [load_file(file) for file in sorted(folder.glob("runs/*/model.safetensors"))]
    (folder / "start").mkdir()
    start = {name: 0.9 * torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    save_file(start, folder / "start/model.safetensors")
    named = "".join(f"  {name}: {{arrays: data/{of}.safetensors}}\n" for name, of in OTHER_NAMES.items())
    recipe = folder / "soup.yaml"
    recipe.write_text(re.sub(r"^val:\n", f"val:\n{named}", recipe.read_text("utf-8"), flags=re.MULTILINE), "utf-8")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUP_CACHE", str(folder.parent / "cache"))
        for words in EARLIER:
            assert run_soup([*words, "--quiet", "--ckpts", *sorted(map(str, Path().glob("runs/*")))]) == 0
    return folder


@pytest.fixture
def place(_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the family with `soup` on the path, the working folder."""
    folder = tmp_path / "family"
    shutil.copytree(_family, folder)
    monkeypatch.chdir(folder)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/soup"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m soupcli "$@"\n')
    script.chmod(0o755)
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(page: Path, place: Path, soup: Callable[..., Ran]) -> None:
    """Each command of the page ends well, one after the other: with 0, or with 1 where a gate says no."""
    variables: dict[str, str] = {}
    for block in (block for block in SHELL_BLOCKS if block.page == page and block.reason is None):
        for command in block.commands:
            if command.split()[0] in ELSEWHERE or " ... " in command:
                continue
            make_room(command)
            ran = run(command, soup, variables)
            assert ran.code in (0, 1), f"{block}: {command}\n{ran.stderr}"
            assert "Traceback" not in ran.stderr, f"{block}: {command}\n{ran.stderr}"


def run(command: str, soup: Callable[..., Ran], variables: dict[str, str]) -> Ran:
    """A plain `soup ... [> FILE]` in this process, anything else in a shell; `name=$(...)` is kept for later lines."""
    for name, value in variables.items():
        command = re.sub(rf'"\${name}"|\${name}\b', shlex.quote(value), command)
    plain = re.fullmatch(r"soup ([^|><;&`$]+)(?:> (\S+))?", command)
    if plain is not None:
        ran = soup(*(found for word in shlex.split(plain[1], posix=False) for found in expanded(word)))
        if plain[2]:
            Path(plain[2]).write_text(ran.stdout)
        return ran
    assigned = re.fullmatch(r"(\w+)=\$\((.*)\)", command)
    shell = ["bash", "-o", "pipefail", "-c", assigned[2] if assigned else command]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=120)
    if assigned:
        variables[assigned[1]] = done.stdout.rstrip("\n")
    missing_jq = done.returncode == 127 and "jq" in done.stderr
    return Ran(0 if missing_jq else done.returncode, done.stdout, done.stderr)


def expanded(word: str) -> list[str]:
    """What a shell makes of a word: quotes go, and a pattern outside of them becomes the paths that it fits."""
    bare = shlex.split(word)
    found = Path().glob(word.rstrip("/")) if word == "".join(bare) and re.search(r"[*?\[]", word) else ()
    end = "/" if word.endswith("/") else ""
    return sorted(f"{path}{end}" for path in found) or bare


def make_room(command: str) -> None:
    """Examples on one page are run one at a time: an earlier one's soup is not in the way of the next."""
    words = command.split()
    if words[0] == "soup" and words[1] in COOKING and "--force" not in words:
        flags = [place for place, word in enumerate(words) if word in ("--out", "-o")]
        shutil.rmtree(words[flags[0] + 1] if flags else "soup", ignore_errors=True)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_flags(block: Block) -> None:
    """Every `soup` command of the page, run or not, has flags and words that the program knows."""
    assert [problem for command in block.commands for problem in unknown_words(command)] == []


def test_few_are_not_run() -> None:
    """Blocks that are only looked at are few, and each says why."""
    left_out = [block for block in SHELL_BLOCKS if block.reason is not None]
    assert len(left_out) <= MOST_NOT_RUN, [str(block) for block in left_out]
    assert all(len(str(block.reason)) > 8 for block in left_out)
    for page in PAGES:
        marks = len(re.findall(r"<!-- not run", page.read_text("utf-8")))
        assert marks == sum(block.page == page and block.reason is not None for block in BLOCKS), page


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "yaml"], ids=str)
def test_recipes(block: Block, tmp_path: Path) -> None:
    """YAML of a page that has a recipe's keys is a recipe."""
    content = yaml.safe_load(block.text)
    if isinstance(content, dict) and content.keys() & {"model", "val", "gates", "greedy"}:
        (tmp_path / "soup.yaml").write_text(block.text, "utf-8")
        load_recipe(tmp_path / "soup.yaml")


def test_page_of_recipes_is_up_to_date() -> None:
    """docs/recipes.md is what docs/recipes.py makes of the program's own models now."""
    made = runpy.run_path(str(ROOT / "docs/recipes.py"))["page"]()
    assert (ROOT / "docs/recipes.md").read_text("utf-8") == made, "python docs/recipes.py writes it anew"


def test_links_lead_somewhere() -> None:
    """Every relative link of a page is a file or folder of the repository."""
    for page in PAGES:
        for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
