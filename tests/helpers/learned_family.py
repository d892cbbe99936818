"""What tests of the learned soup fit: a trained family with its labelled set, in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets.examples import ArrayExamples
from soupcli.evaluation.labelled_set import LabelledSet
from soupcli.networks.network import Network
from soupcli.recipe.methods import Learned
from soupcli.soups.learned.learned import Learnt, learn
from tests.conftest import build_net, write_family
from tests.helpers.learned_toys import CPU, live_with

FAST: dict[str, Any] = {"steps": 30, "lr": 0.3, "batch_size": 80, "folds": 1}


def settings(**given: Any) -> Learned:
    """A fit that is over soon."""
    return Learned.model_validate({**FAST, **given})


class Family:
    """Ingredients and a set, in a folder."""

    def __init__(self, folder: Path, *, members: int = 4) -> None:
        self.folder = folder
        self.states = write_family(folder, members=members)
        self.data = load_file(folder / "data/val.safetensors")

    def ingredients(self, states: Sequence[dict[str, Tensor]] | None = None) -> list[Checkpoint]:
        """Checkpoints of these state dicts, the family's own without any."""
        for number, state in enumerate(self.states if states is None else states):
            (self.folder / f"used/{number}").mkdir(parents=True, exist_ok=True)
            save_file(state, self.folder / f"used/{number}/model.safetensors")
        count = len(self.states if states is None else states)
        return [open_checkpoint(self.folder / f"used/{number}") for number in range(count)]

    def useless(self, seed: int = 9) -> dict[str, Tensor]:
        """An ingredient that knows nothing, loudly."""
        generator = torch.Generator().manual_seed(seed)
        return {name: 10 * torch.randn(t.shape, generator=generator) for name, t in self.states[0].items()}

    def fit(self, ingredients: Sequence[Checkpoint], fitting: Learned, *, labels: Any = None, **more: Any) -> Learnt:
        """A learned soup of them, from the mean of all on unless `start` says otherwise."""
        module = build_net()
        live = live_with(module, ingredients)
        examples = ArrayExamples(self.data["inputs"], self.data["labels"] if labels is None else labels, "toy")
        task = LabelledSet(examples, lambda: Network(module).forward, "val.val", CPU, 64)
        return learn(live, ingredients, task, fitting, **{"start": ingredients, **more})
