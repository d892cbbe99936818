"""What must be the same in all ingredients: the key that their weights are taken from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.compare.agreement import check_agreement, check_mixable
from soupcli.checkpoints.compare.shapes import is_of_inputs
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import MixError
from tests.helpers.checkpoint_tensors import small_net


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same weights bare, under one key, and under two."""
    state = small_net().state_dict()
    torch.save({"state_dict": state}, tmp_path / "trained.pt")
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "averaged.pt")
    torch.save(state, tmp_path / "bare.pt")
    save_file(state, tmp_path / "bare.safetensors")
    return {path.name: path for path in tmp_path.iterdir()}


def open_all(files: dict[str, Path], names: list[str], key: str | None = None) -> list[Checkpoint]:
    return [open_checkpoint(files[name], How(key=key)) for name in names]


def test_averaged_and_trained(files: dict[str, Path]) -> None:
    """Averaged weights of one run are not mixed with trained ones of another, unless --key takes the same of both."""
    names = ["trained.pt", "averaged.pt"]
    with pytest.raises(MixError) as refused:
        check_agreement(open_all(files, names))
    assert str(refused.value) == (
        f"{files['averaged.pt']}: its weights are taken from 'state_dict_ema', "
        f"those of {files['trained.pt']} from 'state_dict'"
    )
    assert refused.value.hint == "--key state_dict takes the same from all"
    check_agreement(open_all(files, names, "state_dict"), key="state_dict")


def test_average_of_diffusers(tmp_path: Path) -> None:
    """Scripts of diffusers save `unet` and its average `unet_ema` side by side: these do not mix by accident."""
    config = {"_class_name": "UNet2DModel"}
    of_ema = {**config, "decay": 0.9999, "optimization_step": 3, "update_after_step": 0}
    for name, written in (("unet", config), ("unet_ema", of_ema)):
        (tmp_path / name).mkdir()
        save_file(small_net(len(name)).state_dict(), tmp_path / name / "diffusion_pytorch_model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps(written))
    opened = [open_checkpoint(tmp_path / name) for name in ("unet", "unet_ema")]
    with pytest.raises(
        MixError, match=r"unet_ema: its weights are averages over the training, those of .*unet are not"
    ):
        check_agreement(opened)


def test_bare_and_wrapped(files: dict[str, Path]) -> None:
    """A bare state dict and one under a key go together where the user says which key."""
    names = ["bare.pt", "trained.pt", "bare.safetensors"]
    with pytest.raises(MixError, match=r"trained\.pt: its weights are taken from 'state_dict', .* the file itself"):
        check_agreement(open_all(files, names))
    check_agreement(open_all(files, names, "state_dict"), key="state_dict")


def test_formats_need_not_agree(files: dict[str, Path]) -> None:
    """safetensors and torch.save hold the same weights."""
    check_agreement(open_all(files, ["bare.pt", "bare.safetensors"]))


@pytest.mark.parametrize(
    "name",
    [
        *("x.lora_A.weight", "x.lora_B.default.weight", "x.lora_up.weight", "e.lora_embedding_A"),
        *("q_proj.lora_a.weight", "to_q_lora.down.weight", "to_q.lora.up.weight", "lora_te_x.lora_mid.weight"),
        *("lora_unet_x.hada_w1_a", "lora_unet_x.hada_t1", "lora_unet_x.lokr_w1", "lora_unet_x.lokr_w2_b"),
        *("lora_unet_x.oft_blocks", "x.oft_R.default", "x.boft_R.default", "x.vera_lambda_b", "unet:0:down"),
    ],
)
def test_factors(tmp_path: Path, name: str) -> None:
    """Factors among plain tensors are not averaged, alone they may be evaluated."""
    for number in range(2):
        save_file({name: torch.ones(2, 2)}, tmp_path / f"{number}.safetensors")
    opened = [open_checkpoint(tmp_path / f"{number}.safetensors") for number in range(2)]
    check_agreement(opened[:1])
    with pytest.raises(MixError, match="is a part of an adapter"):
        check_agreement(opened)


@pytest.mark.parametrize("name", ["lora_alpha", "flora.a", "soft_blocks", "explora_b", "unet:up", "x.loraine.weight"])
def test_no_factors(tmp_path: Path, name: str) -> None:
    """Names that only look like an adapter's parts."""
    for number in range(2):
        save_file({name: torch.ones(2, 2)}, tmp_path / f"{number}.safetensors")
    check_agreement([open_checkpoint(tmp_path / f"{number}.safetensors") for number in range(2)])


def test_a_stranger_is_named(tmp_path: Path) -> None:
    """Of many that agree and one that does not, the one is named, wherever it sorts; of two the second."""
    for number in range(4):
        tensors = {"a": torch.zeros(3, 5 if number == 0 else 4), "b": torch.zeros(2)}
        save_file(tensors, tmp_path / f"{number}.safetensors")
    opened = [open_checkpoint(tmp_path / f"{number}.safetensors") for number in range(4)]
    with pytest.raises(
        MixError, match=r"0\.safetensors: tensor 'a' has shape \[3, 5\], .*1\.safetensors has"
    ) as refused:
        check_mixable(opened)
    told = f"3 of 4 checkpoints agree with {tmp_path}/1.safetensors, {tmp_path}/0.safetensors does not: "
    assert str(refused.value.hint).startswith(told)
    with pytest.raises(MixError, match=r"1\.safetensors: tensor 'a' has shape \[3, 4\], .*0\.safetensors has"):
        check_mixable(opened[:2])


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("model.embed_tokens.weight", (6, 4), "vocabularies of other sizes"),
        ("transformer.wte.weight", (6, 4), "model.resize_token_embeddings"),
        ("encoder.pos_embed", (6, 4), "inputs of other sizes"),
        ("embeddings.position_embeddings.weight", (6, 4), "inputs of other sizes"),
        ("head.weight", (6, 4), "--exclude 'head.*'"),
        ("fc.bias", (6,), "--exclude 'fc.*'"),
        ("patch_embed.proj.weight", (6, 4), "--exclude"),
    ],
)
def test_what_has_other_rows(tmp_path: Path, name: str, shape: tuple[int, ...], said: str) -> None:
    """Only a head may be excluded for its classes: rows of tokens and positions are not left to one ingredient."""
    for number, rows in enumerate((shape[0], shape[0] + 1)):
        save_file({name: torch.zeros(rows, *shape[1:])}, tmp_path / f"{number}.safetensors")
    with pytest.raises(MixError, match=rf"tensor '{name}' has shape \[7") as refused:
        check_mixable([open_checkpoint(tmp_path / f"{number}.safetensors") for number in range(2)])
    assert said in str(refused.value.hint)
    assert is_of_inputs(name) == ("--exclude" not in said)
