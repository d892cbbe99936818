"""Folders of several networks are read whole; a sub-folder that holds weights is mixed, named or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.checkpoints.checkpoint import Component, part_of
from soupcli.checkpoints.find import find
from soupcli.checkpoints.formats.folders.shards import index_name, whole_name
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError, UsageError
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, opened, read_all, small_net


def save(folder: Path, seed: int = 0, name: str = "model.safetensors", **more: torch.Tensor) -> Path:
    """A folder with the weights of a small network, and further tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**small_net(seed).state_dict(), **more}, folder / name)
    return folder


def encoder(folder: Path, seed: int = 0) -> Path:
    """A folder as sentence-transformers writes it: a network at the top, a pooling without weights, a dense layer."""
    save(folder, seed)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text("{}")
    (folder / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.full((2, 2), float(seed))}, folder / "2_Dense/pytorch_model.bin")
    rows = [{"idx": n, "name": str(n), "path": path} for n, path in enumerate(("", "1_Pooling", "2_Dense"))]
    (folder / "modules.json").write_text(json.dumps(rows))
    return folder


def pipeline(folder: Path, seed: int = 0) -> Path:
    """A folder as diffusers writes it: components in sub-folders, one of them in shards."""
    save(folder / "unet", seed, "diffusion_pytorch_model.safetensors")
    save(folder / "vae", seed + 1, "diffusion_pytorch_model.bin.safetensors")
    shards = folder / "text_encoder"
    shards.mkdir()
    for number in (1, 2):
        save_file(
            {f"layer{number}": torch.full((3,), float(seed))}, shards / f"model-0000{number}-of-00002.safetensors"
        )
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "P", "unet": ["diffusers", "UNet"]}))
    return folder


def test_encoder(tmp_path: Path) -> None:
    """The dense layer's tensors stand beside the top network's, under the name of its folder."""
    checkpoint = open_checkpoint(encoder(tmp_path, 3))
    expected = {**small_net(3).state_dict(), "2_Dense/linear.weight": torch.full((2, 2), 3.0)}
    assert_same(read_all(checkpoint), expected)
    assert checkpoint.origin.format == "sentence-transformers"
    assert checkpoint.parts == (Component("", "model.safetensors"), Component("2_Dense/", "2_Dense/pytorch_model.bin"))
    assert part_of(checkpoint.parts, "2_Dense/linear.weight") == (checkpoint.parts[1], "linear.weight")
    assert part_of(checkpoint.parts, "0.weight") == (checkpoint.parts[0], "0.weight")


def test_pipeline(tmp_path: Path) -> None:
    """Every component is read, also one that model_index.json does not name; a file at the top is none of them."""
    save(tmp_path, 9, "single_file.safetensors")
    checkpoint = open_checkpoint(pipeline(tmp_path, 1))
    assert [part.file for part in checkpoint.parts] == [
        "text_encoder/model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin.safetensors",
    ]
    assert len(checkpoint.tensors) == 2 + 2 * len(small_net().state_dict())
    assert checkpoint.origin.format == "diffusers pipeline"


def test_components_that_are_not_there(tmp_path: Path) -> None:
    """A component that model_index.json names, and whose weights or folder are not there, is said."""
    folder = pipeline(tmp_path / "run")
    named = {"_class_name": "P", "unet": ["diffusers", "U"], "safety_checker": [None, None], "scheduler": ["d", "S"]}
    (folder / "model_index.json").write_text(json.dumps(named))
    assert open_checkpoint(folder).origin.notes == ()
    (folder / "vae_2").mkdir()
    (folder / "vae_2/config.json").write_text("{}")
    more = {"vae_2": ["diffusers", "A"], "tokenizer": ["transformers", "T"], "force_zeros": True}
    (folder / "model_index.json").write_text(json.dumps(named | more))
    [note] = open_checkpoint(folder).origin.notes
    assert note.startswith("model_index.json names tokenizer, vae_2, whose files are not there")


def test_index_of_a_variant(tmp_path: Path) -> None:
    """diffusers writes and looks for the index of shards of a variant under a name of its own."""
    assert index_name("unet/diffusion_pytorch_model.fp16.safetensors") == (
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json"
    )
    assert index_name("model.bf16.bin") == "model.bin.index.bf16.json"
    assert index_name("model.safetensors") == "model.safetensors.index.json"
    assert index_name("my.best.safetensors") == "my.best.safetensors.index.json"
    state = small_net().state_dict()
    shards = {name: f"model.fp16-0000{n}-of-0000{len(state)}.safetensors" for n, name in enumerate(state, 1)}
    for name, file in shards.items():
        save_file({name: state[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert_same(opened(tmp_path), state)
    assert_same(opened(index), state)


def test_parts_are_linked(tmp_path: Path) -> None:
    """A component that is a link to a folder elsewhere is a component; a loop of links ends."""
    pipe = pipeline(tmp_path / "pipe")
    (pipe / "vae").rename(tmp_path / "shared")
    (pipe / "vae").symlink_to(tmp_path / "shared")
    (pipe / "again").symlink_to(pipe)
    assert len(open_checkpoint(pipe).parts) == 3


def test_parts_of_one_network(tmp_path: Path) -> None:
    """Two components of a pipeline are no two ingredients, and the top of an encoder is no whole one."""
    pipe = pipeline(tmp_path / "pipe")
    with pytest.raises(UsageError, match="are parts of one network, by model_index"):
        find([f"{pipe}/unet", f"{pipe}/vae"])
    with pytest.raises(CheckpointError, match="one network of several in its folder, by modules"):
        open_checkpoint(encoder(tmp_path / "encoder") / "model.safetensors")
    with pytest.raises(CheckpointError, match="one network of several in its folder"):
        open_checkpoint(tmp_path / "encoder", How(weights_name="model.safetensors"))
    assert len(find([f"{pipe}/unet"]).checkpoints) == 1


@pytest.mark.parametrize("below", ["checkpoint-500", "epoch_3", "CKPT+2026-01-01", "onnx", "original"])
def test_further_checkpoints(tmp_path: Path, below: str) -> None:
    """What a trainer saved at each step, and other forms of the weights, are named and not mixed."""
    save(tmp_path / "run")
    save(tmp_path / "run" / below, 1, other=torch.ones(1))
    [checkpoint], [note], *_ = find([str(tmp_path / "run")])
    assert_same(read_all(checkpoint), small_net().state_dict())
    assert note.endswith(f"they hold other checkpoints or forms: {below}")


def test_the_same_network_below(tmp_path: Path) -> None:
    """A sub-folder that holds the same network is a further checkpoint; one of another network is refused."""
    save(tmp_path / "run")
    save(tmp_path / "run/best", 1)
    assert find([str(tmp_path / "run")]).notes[0].endswith("best")
    save(tmp_path / "run/best", 1, added=torch.ones(1))
    with pytest.raises(CheckpointError, match="holds weights in its sub-folder best too") as refused:
        find([str(tmp_path / "run")])
    assert (
        refused.value.hint
        == f"mix one of them: --ckpts '{tmp_path}/*/best', or --ckpts '{tmp_path}/*/model.safetensors'"
    )
    assert len(find([str(tmp_path / "run/model.safetensors")]).checkpoints) == 1


def test_very_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-folders are looked into up to a number, and more are refused with the way out, which leads to the weights."""
    runs = [save(tmp_path / name) for name in ("a", "b")]
    for number in range(5):
        save(tmp_path / f"a/part{number}")
    for bound, said in (
        ("MOST_NETWORKS", "more than 3 sub-folders with weights"),
        ("MOST_FOLDERS", "more than 3 sub-f"),
    ):
        monkeypatch.setattr(f"soupcli.checkpoints.formats.folders.parts.{bound}", 3)
        with pytest.raises(CheckpointError, match=said) as refused:
            find([str(run) for run in runs])
        assert refused.value.hint == f"give the files of weights: --ckpts '{tmp_path}/*/FILE'"
    assert len(find([f"{tmp_path}/*/model.safetensors"], doubles=True).checkpoints) == 2


def test_encoder_in_a_run(tmp_path: Path) -> None:
    """The further checkpoints of an encoder are encoders: neither their tops nor their dense layers are parts."""
    encoder(tmp_path / "run")
    encoder(tmp_path / "run/checkpoint-9", 1)
    encoder(tmp_path / "run/best", 2)
    [checkpoint], [note], *_ = find([str(tmp_path / "run")])
    assert len(checkpoint.parts) == 2
    assert note.endswith("checkpoint-9, best")


def test_index_is_missing(tmp_path: Path) -> None:
    """Shards are read without their index; where one is missing, and where two sets lie there, that is said."""
    shards = pipeline(tmp_path) / "text_encoder"
    assert_same(opened(shards), {name: torch.zeros(3) for name in ("layer1", "layer2")})
    save_file({"w": torch.ones(1)}, shards / "other-00001-of-00002.safetensors")
    with pytest.raises(
        CheckpointError, match=r"holds 2 checkpoints: model-\*-of-00002.safetensors, other-\*"
    ) as refused:
        open_checkpoint(shards)
    assert "--weights-name" not in str(refused.value.hint)
    (shards / "other-00001-of-00002.safetensors").rename(tmp_path / "other")
    (shards / "model-00001-of-00002.safetensors").rename(tmp_path / "first")
    with pytest.raises(CheckpointError, match=r"holds 1 of the 2 shards model-\*-of-00002.safetensors: number 1"):
        open_checkpoint(shards)


@pytest.mark.parametrize(
    ("names", "program"),
    [
        (["consolidated.00.pth", "consolidated.01.pth"], "convert_llama_weights_to_hf"),
        (["reshard-model_part-0.pt", "reshard-model_part-1.pt"], "metaseq"),
        (["model_tp0.pt", "model_tp1.pt"], "one process save the whole state dict"),
        (["checkpoint_rank0.pth", "checkpoint_rank1.pth"], "one process save the whole state dict"),
        (["model_shard-00.safetensors", "model_shard-01.safetensors"], "one process save the whole state dict"),
        (["weights.part1.pt", "weights.part2.pt"], "give them other names"),
        (["model.part-0.pt", "model.part-1.pt"], "give them other names"),
        (["pytorch_model_part_01.bin", "pytorch_model_part_02.bin"], "give them other names"),
        (["model-1of2.safetensors", "model-2of2.safetensors"], "give them other names"),
        (["mp_rank_00/model_optim_rng.pt", "mp_rank_01/model_optim_rng.pt"], "Megatron-LM"),
        (["tp_rank_00/model_weights.ckpt", "tp_rank_01/model_weights.ckpt"], "NeMo joins them"),
        (["hf_model_0001_2.pt", "hf_model_0002_2.pt"], "of one epoch"),
    ],
)
def test_slices(tmp_path: Path, names: list[str], program: str) -> None:
    """Files that hold a part of the weights are refused together and alone, with the program that joins them."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save(small_net().state_dict(), tmp_path / name)
    for path in {tmp_path, (tmp_path / names[0]).parent, tmp_path / names[0]}:
        with pytest.raises(CheckpointError, match="each has a part of the weights") as refused:
            open_checkpoint(path)
        assert program in str(refused.value.hint)


def test_one_process_of_many_steps(tmp_path: Path) -> None:
    """composer's files name step and process: those of one process are checkpoints of their own."""
    for step in (2, 4):
        state = {"model": small_net(step).state_dict(), "optimizers": {}, "timestamp": {"epoch": 1}}
        torch.save({"state": state, "rng": [{"torch": torch.zeros(8)}]}, tmp_path / f"ep1-ba{step}-rank0.pt")
    assert_same(opened(tmp_path / "ep1-ba4-rank0.pt"), small_net(4).state_dict())
    torch.save(small_net(4).state_dict(), tmp_path / "ep1-ba4-rank1.pt")
    with pytest.raises(CheckpointError, match="2 of the files that several processes wrote"):
        open_checkpoint(tmp_path / "ep1-ba4-rank0.pt")


@pytest.mark.parametrize("name", ["ep{}.pt", "model_ep_{}.pth", "hf_model_0001_{}.pt"])
def test_epochs_are_whole(tmp_path: Path, name: str) -> None:
    """Files of one network that count epochs are checkpoints of their own; ep beside tp or pp counts processes."""
    for epoch in range(2):
        torch.save(small_net(epoch).state_dict(), tmp_path / name.format(epoch))
        torch.save(small_net(epoch).state_dict(), tmp_path / f"tp0_ep{epoch}.pt")
    assert_same(opened(tmp_path / name.format(1)), small_net(1).state_dict())
    with pytest.raises(CheckpointError, match="2 of the files that several processes wrote"):
        open_checkpoint(tmp_path / "tp0_ep1.pt")


def test_one_slice_is_whole(tmp_path: Path) -> None:
    """A consolidated file without others is a whole network; a shard without others is not."""
    torch.save(small_net().state_dict(), tmp_path / "consolidated.00.pth")
    assert_same(opened(tmp_path), small_net().state_dict())
    save(tmp_path / "run", name="model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match="one shard of several"):
        open_checkpoint(tmp_path / "run/model-00001-of-00003.safetensors")
    assert whole_name("model-00001-of-00003 (1).safetensors") == "model.safetensors"
    assert whole_name("diffusion_pytorch_model-00001-of-00002.fp16.safetensors") == (
        "diffusion_pytorch_model.fp16.safetensors"
    )


def test_pointers(tmp_path: Path) -> None:
    """A repository in the cache of the Hub is the snapshot of refs/main; Megatron's root is its last iteration."""
    repository = tmp_path / "models--a--b"
    for number, commit in enumerate(("0123", "4567")):
        save(repository / "snapshots" / commit, number)
    (repository / "refs").mkdir()
    with pytest.raises(CheckpointError, match="holds 2 snapshots, and refs/main names none"):
        open_checkpoint(repository)
    (repository / "refs/main").write_text("4567")
    checkpoint = open_checkpoint(repository)
    assert (checkpoint.path, checkpoint.folder) == (repository, repository / "snapshots/4567")
    assert_same(read_all(checkpoint), small_net(1).state_dict())
    save(tmp_path / "megatron/iter_0000020", 2)
    (tmp_path / "megatron/latest_checkpointed_iteration.txt").write_text("20\n")
    assert_same(opened(tmp_path / "megatron"), small_net(2).state_dict())


def test_networks_without_a_list(tmp_path: Path) -> None:
    """Networks of several kinds in one folder: the hint is to mix one kind, never the folder's own parts."""
    for name, kind in (("unet", "UNet2DModel"), ("vae", "AutoencoderKL")):
        (save(tmp_path / "run" / name) / "config.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(CheckpointError, match="holds no checkpoint") as refused:
        open_checkpoint(tmp_path / "run")
    assert refused.value.hint == f"its sub-folders hold a network each (unet, vae): --ckpts '{tmp_path}/*/unet'"


def test_soup_of_encoders(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """A soup of encoders is an encoder: each network is mixed, and lies where it lay, under its own names."""
    paths = [encoder(tmp_path / f"run{seed}", seed) for seed in range(2)]
    assert soup("uniform", "--ckpts", *paths, "--out", tmp_path / "soup").code == 0
    top, dense = small_net(0).state_dict(), load_file(tmp_path / "soup/2_Dense/model.safetensors")
    made = load_file(tmp_path / "soup/model.safetensors")
    assert sorted(made) == sorted(top)
    assert torch.allclose(made["0.weight"], (top["0.weight"] + small_net(1).state_dict()["0.weight"]) / 2)
    assert_same(dense, {"linear.weight": torch.full((2, 2), 0.5)})
    assert (tmp_path / "soup/1_Pooling/config.json").is_file()
    assert soup("verify", tmp_path / "soup", "--rebuild").code == 0


def test_soup_of_pipelines(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """So is one of pipelines, with the settings of its scheduler; a head of one component alone may be left out."""
    paths = [pipeline(tmp_path / f"run{seed}", seed) for seed in range(2)]
    words = ["--exclude", "vae/*"]
    assert soup("uniform", "--ckpts", *paths, "--out", tmp_path / "soup", *words).code == 0
    made = load_file(tmp_path / "soup/vae/diffusion_pytorch_model.bin.safetensors")
    assert_same(made, small_net(1).state_dict())
    assert load_file(tmp_path / "soup/text_encoder/model.safetensors")["layer1"].tolist() == [0.5] * 3
    assert (tmp_path / "soup/scheduler/scheduler_config.json").is_file()
    assert open_checkpoint(tmp_path / "soup").tensors == open_checkpoint(paths[0]).tensors
