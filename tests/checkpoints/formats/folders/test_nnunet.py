"""nnU-Net's folders: the soup is written where its predictor looks, with the settings beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, small_net
from tests.helpers.means import mean64


def save(model: Path, fold: str, seed: int) -> None:
    """As nnUNetTrainer saves a fold: a final file, a best one, and the settings of the model above."""
    (model / fold).mkdir(parents=True)
    saved = {"network_weights": small_net(seed).state_dict(), "trainer_name": "nnUNetTrainer", "init_args": {}}
    for name in ("final", "best"):
        torch.save(saved, model / fold / f"checkpoint_{name}.pth")
    (model / fold / "debug.json").write_text("{}")
    for name in ("plans", "dataset"):
        (model / f"{name}.json").write_text("{}")


@pytest.mark.parametrize("words", ["runs/*/", "runs/*/fold_0", "runs/*/fold_0/checkpoint_final.pth"])
def test_one_fold_of_each_run(
    tmp_path: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The folder of a model, of a fold, and the file mean the same; what belongs to one run stays there."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        save(Path(f"runs/{seed}"), "fold_0", seed)
    assert soup("uniform", "--ckpts", words).code == 0
    found = sorted(str(file.relative_to("soup")) for file in Path("soup").rglob("*") if file.is_file())
    assert found == ["README.md", "dataset.json", "fold_0/checkpoint_final.pth", "plans.json", "soup.json"]
    expected = mean64([small_net(seed).state_dict() for seed in range(2)])
    assert_same(torch.load("soup/fold_0/checkpoint_final.pth")["network_weights"], expected)
    assert soup("verify", "soup", "--rebuild").code == 0


def test_folds(tmp_path: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Several folds are several networks: the folder is refused with the two ways, and their soup is of all folds."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        save(Path("model"), f"fold_{seed}", seed)
    refused = soup("uniform", "--ckpts", "model")
    assert refused.code == 2 and "holds 2 folds" in refused.stderr and "model/fold_*/checkpoint_final" in refused.stderr
    assert soup("uniform", "--ckpts", "model/fold_*/checkpoint_final.pth").code == 0
    assert Path("soup/fold_all/checkpoint_final.pth").is_file() and Path("soup/plans.json").is_file()
