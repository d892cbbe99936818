"""A recipe of configs/ at a toy size: the file itself with its paths moved, its commands with other numbers set."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import torch
from torch import Tensor

CONFIGS = Path(__file__).parents[2] / "configs"


def moved(folder: Path) -> None:
    """configs/ in `folder`, with /data/ there too."""
    shutil.copytree(CONFIGS, folder / "configs")
    for file in (folder / "configs").glob("*.yaml"):
        file.write_text(file.read_text("utf-8").replace("/data/", f"{folder}/data/"), "utf-8")


def commands(name: str, program: str = "soup") -> list[list[str]]:
    """The commands at the head of a recipe, as words after the program's name."""
    text = (CONFIGS / f"{name}.yaml").read_text("utf-8")
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    head = re.sub(r"\\\n# *", " ", head)
    return [shlex.split(line)[1:] for line in re.findall(rf"^#   ({program} .*)$", head, re.MULTILINE)]


def settings(**keys: str) -> list[str]:
    """`--set` for each key, `__` for a dot."""
    return [word for key, value in keys.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def neighbours(state: dict[str, Tensor], number: int, *, seed: int = 0) -> list[dict[str, Tensor]]:
    """So many states near `state`, as fine-tuned networks lie near their start."""
    generator = torch.Generator().manual_seed(seed)

    def near(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        noise = torch.randn(tensor.shape, generator=generator).abs()
        return (tensor + 0.1 * tensor.float().std(correction=0) * noise).to(tensor.dtype)

    return [{name: near(tensor) for name, tensor in state.items()} for _ in range(number)]
