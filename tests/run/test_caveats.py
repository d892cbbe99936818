"""What is said of checkpoints that can be averaged, but perhaps should not be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from soupcli.recipe.networks import TimmNetwork
from soupcli.run.caveats import (
    caveats,
    check_way,
    different_networks,
    different_side_files,
    files_not_here,
    rounded_copies,
    unknown_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint


def saved(path: Path, seed: int, dtype: torch.dtype) -> Checkpoint:
    """Weights of a seed in a dtype."""
    generator = torch.Generator().manual_seed(seed)
    save_file({name: torch.randn(4, 300, generator=generator).to(dtype) for name in "ab"}, path)
    return open_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_copy(tmp_path: Path, dtype: torch.dtype) -> None:
    """A copy with fewer digits is named with what it is a copy of, whichever comes first."""
    copy, one = saved(tmp_path / "a.safetensors", 0, dtype), saved(tmp_path / "b.safetensors", 0, torch.float32)
    said = rounded_copies([copy, one])
    assert said is not None
    assert said.startswith(f"{copy.path} holds the weights of {one.path}, rounded to {str(dtype)[6:]}: ")


def test_perhaps_factors(tmp_path: Path) -> None:
    """Two bare matrices that multiply to a low rank are said to be averaged each by itself."""
    found = []
    for seed in range(2):
        path = tmp_path / f"{seed}.safetensors"
        save_file({"fc.p": torch.randn(24, 4) + seed, "fc.q": torch.randn(4, 32)}, path)
        found.append(open_checkpoint(path))
    [said] = caveats(found, TensorFilter())
    assert said.startswith("'fc.p' and 'fc.q' look like factors of one weight: the mean is of each")


def test_other_weights(tmp_path: Path) -> None:
    """Other weights in another dtype are no copy, nor are any if only one tensor is the same."""
    one, other = (saved(tmp_path / f"{seed}.safetensors", seed, torch.float32) for seed in (0, 1))
    assert rounded_copies([one, other, saved(tmp_path / "c.safetensors", 2, torch.float16)]) is None
    first = torch.randn(4, 300, generator=torch.Generator().manual_seed(0))
    save_file({"a": first.half(), "b": first.half()}, tmp_path / "d.safetensors")
    assert rounded_copies([one, open_checkpoint(tmp_path / "d.safetensors")]) is None


@pytest.mark.parametrize(
    ("name", "one", "other", "differs"),
    [
        ("unet/config.json", {"_class_name": "UNet2DModel"}, {"_class_name": "AutoencoderKL"}, True),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}, True),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIM"}, {"_class_name": "Euler"}, False),
        ("modeling_mine.py", "a = 1", "a = 2", True),
        ("train.py", "a = 1", "a = 2", False),
    ],
)
def test_different_networks(tmp_path: Path, name: str, one: object, other: object, differs: bool) -> None:
    """Other code, another class or another noise make other networks; another sampler, or code of no network, do not.

    These settings are compared in the folders of a pipeline too.
    """
    for folder, setting in (("a", one), ("b", other)):
        file = tmp_path / folder / name
        (tmp_path / folder / "unet").mkdir(parents=True)
        file.parent.mkdir(exist_ok=True)
        (tmp_path / folder / "unet/config.json").write_text("{}")
        (tmp_path / folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_mine.Mine"}}))
        file.write_text(setting if isinstance(setting, str) else json.dumps(setting))
        save_file({"w": torch.ones(3)}, tmp_path / folder / "model.safetensors")
    said = different_networks([open_checkpoint(tmp_path / folder) for folder in "ab"])
    assert [name in line for line in said] == [True] * differs


def test_a_base_with_other_meanings(tmp_path: Path) -> None:
    """A base whose classes stand in another order is refused as an ingredient is, and so is a pruned one."""
    for name, order in {
        "a": "cat\ndog\neel",
        "same": "cat\ndog\neel",
        "moved": "dog\ncat\neel",
        "pruned": "cat",
    }.items():
        (tmp_path / name).mkdir()
        mask = torch.eye(3) if name == "pruned" else torch.ones(3, 3)
        masks = {"l.weight_orig": torch.ones(3, 3), "l.weight_mask": mask}
        save_file({"head.weight": torch.rand(3, 4), **masks}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "classes.txt").write_text(order)
    one, same, moved, pruned = (open_checkpoint(tmp_path / name) for name in ("a", "same", "moved", "pruned"))
    check_way([one], same, TensorFilter())
    with pytest.raises(MixError, match=r"moved: its classes are dog, cat, eel, .* rows of 'head\.weight'"):
        check_way([one], moved, TensorFilter())
    with pytest.raises(MixError, match="mask of a pruned weight"):
        check_way([one], pruned, TensorFilter())


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (
            "tokenizer.json",
            "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4\n",
            "is a Git LFS pointer",
        ),
        ("config.json", "", "is empty"),
        ("tokenizer.model", "<!DOCTYPE html><html>", "is a web page"),
        ("config.json", '{"model_type": "be', "is not JSON"),
        ("config.json", "{}", None),
        ("merges.txt", "", None),
    ],
)
def test_files_that_stand_in_for_others(tmp_path: Path, name: str, content: str, what: str | None) -> None:
    """A pointer beside the weights is copied into the soup, which then does not open: that is said."""
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        save_file({"w": torch.ones(2)}, tmp_path / run / "model.safetensors")
        (tmp_path / run / name).write_text(content)
    said = files_not_here([open_checkpoint(tmp_path / run) for run in ("a", "b")])
    assert said[:1] == (
        [
            f"{tmp_path}/a/{name} (and 1 more) {what}: it is not compared, and the soup's copy is of no use: "
            "fetch the file itself"
        ]
        if what
        else []
    )


def test_inputs_that_a_named_network_does_not_read(tmp_path: Path) -> None:
    """A network by name judges all with its own transform: config.json files that say another are named."""
    for number, mean in enumerate((0.5, 0.5, 0.1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        saved(folder / "model.safetensors", number, torch.float32)
        config = {"architecture": "test_vit", "pretrained_cfg": {"mean": [mean] * 3}}
        (folder / "config.json").write_text(json.dumps(config))
    one, same, other = (open_checkpoint(tmp_path / str(number)) for number in range(3))
    named = TimmNetwork(timm="test_vit")
    assert different_side_files([one, same], named) is None
    said = different_side_files([one, other], named)
    assert said is not None
    assert "pretrained_cfg.mean ([0.5, 0.5, 0.5] | [0.1, 0.1, 0.1])" in said
    assert "with auto in it, each is judged by its own" in said
    assert "each is judged by its own config.json" in str(different_side_files([one, other], TimmNetwork(timm="auto")))


def test_a_setting_of_adapters_that_nobody_knows(tmp_path: Path) -> None:
    """One that a later PEFT may bring is named once, with its adapter and value; one that is off is not."""
    ours: dict[str, dict[str, object]] = {"a": {}, "b": {"use_new": True, "newer": 0, "also": [1]}, "c": {"use_new": 1}}
    for run, settings in ours.items():
        (tmp_path / run).mkdir()
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": True, "lora_dropout": 0.1, **settings}
        (tmp_path / run / "adapter_config.json").write_text(json.dumps(config))
        factors = {f"base_model.model.a.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
        save_file(factors, tmp_path / run / "adapter_model.safetensors")
    adapters = [open_checkpoint(tmp_path / run) for run in "abc"]
    assert unknown_settings(adapters[:1]) == []
    (said,) = unknown_settings(adapters)
    assert said.startswith(f"{tmp_path / 'b/adapter_config.json'}: use_new is true (and 1 more such settings), ")
