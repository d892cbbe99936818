"""Every command of README.md and docs/*.md is run, in a folder like the one that the page speaks of.

The ```sh blocks of a page are run from top to bottom in a fresh family of small ingredients, all of them: lines that
install, or start many processes, are alone in being held to the flags that there are and no more. test_learned_page.py
runs docs/learned.md.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from soupcli.cli.app import run as run_soup
from soupcli.demo import digits
from soupcli.recipe.precedence import load_recipe
from tests.conftest import Ran, build_net, write_family
from tests.docs.test_programs_page import write_page
from tests.helpers.output_words import unknown_words
from tests.helpers.warm import Warm

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# First words of lines that set up, fetch, or start many processes (test_processes.py and test_slurm.py do the latter).
ELSEWHERE = ("make", "pip", "torchrun", "srun", "sbatch")
COOKING = ("uniform", "greedy", "learned", "mix")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    text: str

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
        Block(page, text[: found.start("text")].count("\n") + 1, found["kind"], found["text"])
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
    ["learned", "--val", "val", "test", "--out", "learned"],
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
    text = re.sub(r"^val:\n", f"val:\n{named}", recipe.read_text("utf-8"), flags=re.MULTILINE)
    recipe.write_text(f"{text}learned: {{steps: 5}}\n", "utf-8")  # pages are tested, not the fit
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUP_CACHE", str(folder.parent / "cache"))
        for words in EARLIER:
            assert run_soup([*words, "--quiet", "--ckpts", *sorted(map(str, Path().glob("runs/*")))]) == 0
    return folder


def write_layouts(folder: Path) -> None:
    """The ingredients as training checkpoints, and adapters of `base/`, as the page on checkpoints names them."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    files = sorted(folder.glob("runs/*/model.safetensors"))
    for number, state in enumerate(map(load_file, files)):
        averaged = {name: 0.99 * tensor for name, tensor in state.items()}
        torch.save({"epoch": 9, "state_dict": state, "state_dict_ema": averaged}, folder / f"runs/{number}.pth.tar")
        torch.save({"model": state, "args": argparse.Namespace(lr=0.1 * number)}, folder / f"runs/{number}.pt")
    for run, step, file in zip(("lr1", "lr1", "lr3"), (500, 1000, 500), files, strict=False):
        shutil.copytree(file.parent, folder / f"sweep/{run}/checkpoint-{step}")
    shutil.copytree(files[0].parent, folder / "base")
    for seed in range(3):
        network = build_net()
        network.load_state_dict(load_file(files[0]))
        with warnings.catch_warnings():  # PEFT's advice
            warnings.simplefilter("ignore")
            adapted = peft.get_peft_model(network, peft.LoraConfig(r=8, target_modules=["0", "2"]))
            generator = torch.Generator().manual_seed(seed)
            for parameter in (p for p in adapted.parameters() if p.requires_grad):
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
            adapted.save_pretrained(folder / f"adapters/{seed}")


def write_programs(folder: Path) -> None:
    """What the page on programs asks, and the server that it starts."""
    write_page(folder, folder.parent / "bin", questions=20)


PREPARED = {"checkpoints.md": write_layouts, "programs.md": write_programs}  # what a page speaks of beside the family
SMALL = functools.partial(digits.DigitsSize, runs=3, epochs=(1, 2), pretraining_epochs=2)  # of `soup demo`
JQ = """import json, sys
value = json.load(sys.stdin)
for key in filter(None, sys.argv[1].split(".")):
    value = value[key]
print(json.dumps(value))
"""


@pytest.fixture
def place(_family: Path, tmp_path: Path, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the family with `soup` on the path, the working folder."""
    folder = tmp_path / "family"
    shutil.copytree(_family, folder)
    monkeypatch.chdir(folder)
    (tmp_path / "bin").mkdir()
    (tmp_path / "jq.py").write_text(JQ)
    warm.on_path(tmp_path / "bin/soup", "-m", "soupcli")
    if not shutil.which("jq"):
        (tmp_path / "bin/jq").write_text(f'#!/bin/sh\nexec "{sys.executable}" {tmp_path / "jq.py"} "$@"\n')
        (tmp_path / "bin/jq").chmod(0o755)
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "learned.md"], ids=lambda page: page.name)
def test_commands(page: Path, place: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the page ends well, one after the other: with 0, or with 1 where a gate says no."""
    variables: dict[str, str] = {}
    monkeypatch.setattr(digits, "DigitsSize", SMALL)
    PREPARED.get(page.name, lambda _: None)(place)
    for block in (block for block in SHELL_BLOCKS if block.page == page):
        for command in block.commands:
            first, *words = command.split()
            if first in ELSEWHERE:
                continue
            if first == "cd":
                monkeypatch.chdir(words[0])
                continue
            make_room(command)
            ran = run(command, soup, variables)
            assert ran.code in (0, 1), f"{block}: {command}\n{ran.stderr}"
            assert "Traceback" not in ran.stderr, f"{block}: {command}\n{ran.stderr}"


def run(command: str, soup: Callable[..., Ran], variables: dict[str, str]) -> Ran:
    """A plain `soup ... [> FILE]` in this process, anything else in a shell; `name=$(...)` is kept for later lines."""
    command = command.replace("--grid 15", "--grid 5")  # 225 evaluations of each set
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
    return Ran(done.returncode, done.stdout, done.stderr)


def expanded(word: str) -> list[str]:
    """What a shell makes of a word: quotes go, and a pattern outside of them becomes the paths that it fits."""
    bare = shlex.split(word)
    found = Path().glob(word.rstrip("/")) if word == "".join(bare) and re.search(r"[*?\[]", word) else ()
    if word.endswith("/"):
        return sorted(f"{path}/" for path in found if path.is_dir()) or bare
    return sorted(map(str, found)) or bare


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
