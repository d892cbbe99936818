"""Side files of a soup that say what its weights are, corrected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.side_files import SideFile
from soupcli.mixing import fill_folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_dtype_of_networks_in_networks(tmp_path: Path) -> None:
    """Each network that a configuration holds gets the soup's dtype; what is not a network's keeps its own."""
    file = tmp_path / "config.json"

    def written(dtype: str, computed: str) -> dict[str, object]:
        inner = {"torch_dtype": dtype, "quantization_config": {"bnb_4bit_compute_dtype": computed}}
        return {
            "dtype": dtype,
            "encoder": {"model_type": "bert", "torch_dtype": dtype},
            "thinker_config": {"text_config": inner, "audio_config": {}},
            "extra": {"dtype": computed},
        }

    file.write_text(json.dumps(written("float32", "float32")))
    content = fill_folder._with_dtype(SideFile(file, file.name, file.stat().st_size), "bfloat16")
    assert content is not None
    assert json.loads(content) == written("bfloat16", "float32")


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    """A soup keeps its ingredient's metadata and names of classes, without which its scores would be others."""
    classes = json.dumps(["dog", "cat"])
    said = {"format": "pt", "config": "{}", "classes": classes, "sshs_model_hash": "ab", "soup": "{}"}
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata=said)
    kept = fill_folder.own_metadata(open_checkpoint(tmp_path / "a.safetensors"))
    assert kept == {key: text for key, text in said.items() if key != "sshs_model_hash"}
    torch.save({"state_dict": {"w": torch.ones(2)}, "meta": {"classes": ["dog", "cat"]}}, tmp_path / "a.pt")
    assert fill_folder.own_metadata(open_checkpoint(tmp_path / "a.pt")) == {"classes": classes}
