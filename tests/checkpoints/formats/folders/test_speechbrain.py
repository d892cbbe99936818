"""Folders of speechbrain: all networks are mixed, and what its Checkpointer recovers beside them comes along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net
from tests.helpers.means import mean64


def save(folder: Path, seed: int) -> Path:
    """As its Checkpointer saves two networks, an optimizer, a schedule and a counter."""
    folder.mkdir(parents=True)
    torch.save(small_net(seed).state_dict(), folder / "encoder.ckpt")
    torch.save(small_net(seed + 10).state_dict(), folder / "decoder.ckpt")
    torch.save(torch.optim.AdamW(small_net().parameters()).state_dict(), folder / "opt.ckpt")
    torch.save({"losses": [1.0], "n_steps": 3}, folder / "noam.ckpt")
    (folder / "counter.ckpt").write_text("3")
    (folder / "CKPT.yaml").write_text(
        "# yamllint disable\nWER: 5.0\nend-of-epoch: true\nunixtime: 1.0\nloss:\n  train: 1.0\n"
    )
    return folder


def test_networks(tmp_path: Path) -> None:
    """Each network's tensors begin with its name; one network alone keeps its own names; a broken file is an error."""
    folder = save(tmp_path / "CKPT+a", 0)
    whole = {f"encoder/{name}": tensor for name, tensor in small_net(0).state_dict().items()}
    whole |= {f"decoder/{name}": tensor for name, tensor in small_net(10).state_dict().items()}
    assert_same(opened(folder), whole)
    assert open_checkpoint(folder).origin.format == "speechbrain"
    (folder / "decoder.ckpt").unlink()
    assert_same(opened(folder), small_net(0).state_dict())
    torch.save(small_net(0), folder / "decoder.ckpt")
    with (folder / "decoder.ckpt").open("r+b") as file:
        file.truncate(900)
    with pytest.raises(CheckpointError, match=r"decoder\.ckpt"):
        open_checkpoint(folder)


def test_soup(tmp_path: Path, soup: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """The soup has the same files; optimizers are left out and said, or kept if asked for."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        save(Path(f"save/CKPT+{seed}"), seed)
    ran = soup("uniform", "--ckpts", "save/*/", "--out", "CKPT+soup")
    assert ran.code == 0 and "opt.ckpt: training state, left out" in ran.stderr
    assert "CKPT.yaml: WER: measured on an ingredient, not on the soup" in ran.stderr
    assert Path("CKPT+soup/CKPT.yaml").read_text() == "# yamllint disable\nend-of-epoch: true\nunixtime: 1.0\n"
    names = {file.name for file in Path("save/CKPT+0").iterdir()}
    assert {file.name for file in Path("CKPT+soup").iterdir()} == {*names, "README.md", "soup.json"} - {"opt.ckpt"}
    for name, first in (("encoder", 0), ("decoder", 10)):
        expected = mean64([small_net(first + seed).state_dict() for seed in range(2)])
        assert_same(torch.load(f"CKPT+soup/{name}.ckpt"), expected)
    assert soup("uniform", "--ckpts", "save/*/", "--out", "CKPT+soup", "--force", "--keep-state").code == 0
    assert Path("CKPT+soup/opt.ckpt").is_file()
    assert soup("verify", "CKPT+soup", "--rebuild").code == 0
