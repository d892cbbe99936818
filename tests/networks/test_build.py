"""Which network a folder's own configuration names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.build import build, outline, spec_of_folder
from soupcli.recipe.networks import OpenClipNetwork, PythonNetwork, TimmNetwork, TransformersNetwork
from tests.helpers.network_toys import saved


def test_spec_of_folder(tmp_path: Path) -> None:
    """transformers by `model_type`, timm by `architecture`, open_clip by a file of its own, else nothing."""
    assert spec_of_folder(tmp_path) is None
    config = tmp_path / "config.json"
    for content in ("{", "[]", "3", "null", '"model_type"', json.dumps({"hidden": 3})):
        config.write_text(content)
        assert spec_of_folder(tmp_path) is None
    config.write_text(json.dumps({"architecture": "resnet18"}))
    assert spec_of_folder(tmp_path) == TimmNetwork(timm="auto")
    config.write_text(json.dumps({"architecture": "resnet18", "model_type": "timm_wrapper"}))
    assert spec_of_folder(tmp_path) == TransformersNetwork(transformers="auto")
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert spec_of_folder(tmp_path) == OpenClipNetwork(open_clip="auto")


def test_nothing_names_the_network(tmp_path: Path) -> None:
    """Without model: and without config.json the error says what to write, for a folder and for a file."""
    folder = saved(nn.Linear(2, 2), tmp_path / "run")
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(NetworkError, match=r"run: unknown architecture: no model: in the recipe") as raised:
            build(None, open_checkpoint(path))
        assert "model: {timm:" in str(raised.value.hint)


def test_lists_of_more_classes_than_the_head_has(tmp_path: Path) -> None:
    """A list beside the weights names the classes of a head that has a row for each, or one for no object."""
    folder, spec = saved(nn.Linear(2, 4), tmp_path / "run"), PythonNetwork(python="net.py:build")
    for count, stated in ((3, True), (4, True), (6, False)):
        (folder / "imagenet_classes.txt").write_text("\n".join(f"name {row}" for row in range(count)))
        assert ("imagenet_classes.txt" in outline(spec, open_checkpoint(folder)).stated) is stated
    (folder / "imagenet_classes.txt").write_text("cat\ndog\ncat\ndog")  # labels of pictures
    assert not outline(spec, open_checkpoint(folder)).stated
    (folder / "hparams.yaml").write_text("outputs: [d, c, b, a]\nsteps: [x, y]")
    assert outline(spec, open_checkpoint(folder)).lists() == {"hparams.yaml: outputs": ["d", "c", "b", "a"]}
