"""What a soup carries on from beside the weights: all that is small and neither weights nor training state."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.side_files import LARGEST, SPARSE, SideFiles, differing_numbers, files_beside
from tests.helpers.operations import operations

CARRIED = (
    *("config.json", "source.spm", "target.spm", "bpe.codes", "dict.txt", "vocab-src.json", "prophetnet.tokenizer"),
    *("normalizer.json", "tekken.json", "entity_vocab.json", "LICENSE", "README.md", "modules.json", "spiece.vocab"),
    *("additional_chat_templates/tool.jinja", "1_Pooling/config.json", "2_Dense/config.json", "selected_tags.csv"),
)
LEFT = (
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", "train.log"),
    *("events.out.tfevents.1", "runs/events", "wandb/run.json", "checkpoint-500/model.safetensors", ".hidden"),
    *("pytorch_model.bin", "model.onnx", "loss.png", "soup.json", "eval_results.json", "__pycache__/a.json"),
)


@pytest.fixture
def ingredient(tmp_path: Path) -> Path:
    """A folder with weights and all kinds of files beside them."""
    folder = tmp_path / "run"
    for name in (*CARRIED, *LEFT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    return folder


def beside(folder: Path) -> SideFiles:
    checkpoint = open_checkpoint(folder)
    return files_beside(checkpoint.side_folder, checkpoint.files)


def names(folder: Path) -> list[str]:
    return [file.name for file in beside(folder).files]


def test_what_is_carried_on(ingredient: Path) -> None:
    """Tokenizers of every kind, parts' configurations and the licence; no weights and nothing that a trainer keeps."""
    assert names(ingredient) == sorted(CARRIED)
    assert beside(ingredient).left_out == ()


def test_weights_alone(tmp_path: Path) -> None:
    """A file among others of its kind has no files of its own."""
    save_file({"w": torch.ones(2)}, tmp_path / "epoch_1.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert beside(tmp_path / "epoch_1.safetensors") == SideFiles()


def test_what_is_named_and_not_carried_on(ingredient: Path, tmp_path: Path) -> None:
    """Links that lead out, pipes, programs, large files and files with holes; each with its reason."""
    secret = tmp_path / "secret.json"
    secret.write_text("of the user")
    (ingredient / "link.json").symlink_to(secret)
    (ingredient / "dotted.json").symlink_to("../secret.json")
    (ingredient / "folder").symlink_to("/etc")
    (ingredient / "gone.json").symlink_to("nowhere.json")
    (ingredient / "inside.json").symlink_to("config.json")
    os.mkfifo(ingredient / "pipe.json")
    (ingredient / "run.sh").write_text("rm -rf")
    (ingredient / "tool").write_bytes(b"\x7fELF....")
    (ingredient / "script").write_text("#!/bin/sh")
    for name, size in (("huge.json", LARGEST + 1), ("sparse.json", 2 * SPARSE)):
        os.truncate(os.open(ingredient / name, os.O_CREAT | os.O_RDWR), size)
    (ingredient / "onnx").mkdir()
    (ingredient / "onnx/model.onnx").write_text("")
    (ingredient / "onnx/config.json").write_text("{}")
    found = dict(line.split(": ", 1) for line in beside(ingredient).left_out)
    leads_out = "a link that leads out of the ingredient's folder"
    assert found == {
        "link.json": leads_out,
        "dotted.json": leads_out,
        "folder": leads_out,
        "gone.json": "No such file or directory",
        "pipe.json": "no regular file",
        "run.sh": "a program",
        "tool": "a program",
        "script": "a program",
        "huge.json": f"{LARGEST + 1} bytes, at most {LARGEST} are copied",
        "sparse.json": "a file with holes",
        "onnx/": "holds weights that are not mixed",
    }
    assert names(ingredient) == sorted((*CARRIED, "inside.json"))


def test_hub_cache(ingredient: Path, tmp_path: Path) -> None:
    """In the hub's cache files are links to blobs of the same repository: carried on, from other ones not."""
    for repo in ("mine", "other"):
        (tmp_path / repo / "blobs").mkdir(parents=True)
        (tmp_path / repo / "blobs/abc").write_text("{}")
    snapshot = tmp_path / "mine/snapshots/rev"
    snapshot.parent.mkdir()
    ingredient.rename(snapshot)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    (snapshot / "tekken.json").unlink()
    (snapshot / "tekken.json").symlink_to("../../../other/blobs/abc")
    assert set(CARRIED) - set(names(snapshot)) == {"tekken.json"}


def test_code_that_a_configuration_names(ingredient: Path) -> None:
    """Files that auto_map names, and what they import from beside them; no other code."""
    auto_map = {"AutoModel": "modeling_mine.Mine", "AutoTokenizer": ["tokenization_mine.Slow", None]}
    (ingredient / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    (ingredient / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "org/repo--tok.Tok"}}))
    for name in ("modeling_mine", "tokenization_mine", "configuration_mine", "layers", "tok", "train"):
        (ingredient / f"{name}.py").write_text("import os\n")
    (ingredient / "modeling_mine.py").write_text("from .configuration_mine import A\nfrom . import layers, other\n")
    code = {name for name in names(ingredient) if name.endswith(".py")}
    assert code == {"modeling_mine.py", "configuration_mine.py", "layers.py", "tokenization_mine.py", "tok.py"}


def test_code_that_nothing_names(ingredient: Path) -> None:
    """Python files that no configuration names are not carried on, and each is named."""
    (ingredient / "model.py").write_text("import os")
    assert "model.py" not in names(ingredient)
    assert beside(ingredient).left_out == ("model.py: code that no configuration names",)


def test_more_than_belongs_to_a_network(ingredient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a number of files the rest is named, not copied."""
    monkeypatch.setattr("soupcli.checkpoints.side_files.MOST_FILES", 3)
    found = beside(ingredient)
    assert len(found.files) == 3 and len(found.left_out) == len(CARRIED) - 3


def test_very_many_files(ingredient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many files those with the names of side files are looked at first, and the rest is counted."""
    for number in range(300):
        (ingredient / f"a{number}.txt").touch()
    monkeypatch.setattr("soupcli.checkpoints.side_files.MOST_FILES", 100)
    monkeypatch.setattr("soupcli.checkpoints.side_files.MOST_LOOKED_AT", 200)
    assert {"config.json", "1_Pooling/config.json"} <= set(names(ingredient))
    assert any("of its files and folders: at most" in line for line in beside(ingredient).left_out)


def test_pictures_cost_little(ingredient: Path) -> None:
    """A picture beside the weights is passed over by its name: a folder may hold 100,000."""
    few = operations(lambda: beside(ingredient))
    for number in range(200):
        (ingredient / f"{number}.png").touch()
    assert operations(lambda: beside(ingredient)) - few < 200 * 30


@pytest.mark.parametrize("reference", ["nets.models.mine.Mine", "nets/models/mine.Mine"])
def test_code_in_packages(ingredient: Path, reference: str) -> None:
    """What code in a folder imports from above it is carried on, and custom_generate/; no other code."""
    (ingredient / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": reference}}))
    content = {
        "nets/models/mine.py": "from ..layers import A\nfrom ..common import (\n    norm,  # a\n    rope as r,\n)\n"
        "from . import near\nfrom ...top import *\nfrom ....out import x\n",
        **dict.fromkeys(["nets/layers.py", "nets/common/norm.py", "nets/common/rope.py", "nets/models/near.py"], ""),
        **dict.fromkeys(["nets/__init__.py", "nets/common/__init__.py", "top.py"], ""),
        "custom_generate/generate.py": "from .steps import step\n",
        "custom_generate/steps.py": "",
    }
    for name, code in {**content, "nets/train.py": "", "out.py": "", "near.py": ""}.items():
        (ingredient / name).parent.mkdir(parents=True, exist_ok=True)
        (ingredient / name).write_text(code)
    assert {name for name in names(ingredient) if name.endswith(".py")} == set(content)


def test_code_of_a_pipeline(tmp_path: Path) -> None:
    """A component's own class of model_index.json lies in the component's folder; lines go on after a backslash."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["pipe", "P"], "unet": ["net", "Net"]}))
    (tmp_path / "pipe.py").write_text("from .steps \\\n  import step\n")
    for name in ("steps.py", "unet/net.py", "unet/other.py", "other.py"):
        (tmp_path / name).touch()
    save_file({"w": torch.ones(2)}, tmp_path / "unet/diffusion_pytorch_model.safetensors")
    assert [name for name in names(tmp_path) if name.endswith(".py")] == ["pipe.py", "steps.py", "unet/net.py"]


@pytest.mark.parametrize("name", ["speakers.pth", "vocab.pt", "classes.pth"])
def test_lists_by_torch_save(tmp_path: Path, name: str) -> None:
    """A list of names in a file of torch.save is carried on, and said where it differs; weights of its name are not."""
    for number in range(2):
        (tmp_path / f"r{number}").mkdir()
        save_file({"w": torch.ones(2) + number}, tmp_path / f"r{number}/model.safetensors")
        torch.save({"anna": number, "bert": 1 - number}, tmp_path / f"r{number}" / name)
    one, other = (open_checkpoint(tmp_path / f"r{number}") for number in range(2))
    assert names(tmp_path / "r0") == [name]
    files = files_beside(one.side_folder, one.files).files
    assert differing_numbers(files, one, [one, other])[0].startswith(f"{name}: is that of {one.path}, not a mean")
    torch.save({"weight": torch.ones(2)}, tmp_path / "r0" / name)
    assert files_beside(one.side_folder, one.files).files == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [("lm/5gram.bin", True), ("data.sav", True), ("stats/feats_stats.npz", True), ("notes.dat", False)],
)
def test_other_bytes_that_differ(tmp_path: Path, name: str, *, said: bool) -> None:
    """A language model or another program's pickle is that of one ingredient, which is said; of a text it is not."""
    for number in range(2):
        file = tmp_path / f"r{number}" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"mmap lm\n\0%d" % number if said else b"note %d" % number)
        save_file({"w": torch.ones(2) + number}, tmp_path / f"r{number}/model.safetensors")
    one, other = (open_checkpoint(tmp_path / f"r{number}") for number in range(2))
    files = files_beside(one.side_folder, one.files).files
    assert [file.name for file in files] == [name]
    assert bool(differing_numbers(files, one, [one, other])) == said


def test_another_form_in_a_part(tmp_path: Path) -> None:
    """A part's configuration is carried on though another form of its weights lies there, which is named."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "P", "unet": ["diffusers", "U"]}))
    (tmp_path / "unet/config.json").write_text("{}")
    for name in ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"):
        save_file({"w": torch.ones(2)}, tmp_path / name)
    assert names(tmp_path) == ["model_index.json", "unet/config.json"]
    said = "unet/diffusion_pytorch_model.fp16.safetensors: weights that are not mixed"
    assert beside(tmp_path).left_out == (said,)


def test_statistics_of_a_policy(tmp_path: Path) -> None:
    """LeRobot keeps means and deviations of inputs in safetensors beside a policy: they are carried on, not refused."""
    name = "policy_preprocessor_step_5_normalizer_processor.safetensors"
    for number in range(2):
        (tmp_path / f"r{number}").mkdir()
        save_file({"w": torch.ones(2) + number}, tmp_path / f"r{number}/model.safetensors")
        save_file({"state.mean": torch.ones(2) + number}, tmp_path / f"r{number}" / name)
    one, other = (open_checkpoint(tmp_path / f"r{number}") for number in range(2))
    assert list(one.tensors) == ["w"]
    assert names(tmp_path / "r0") == [name]
    files = files_beside(one.side_folder, one.files).files
    assert differing_numbers(files, one, [one, other])[0].startswith(f"{name}: is that of {one.path}, not a mean")
    assert not differing_numbers(files, one, [one])


def test_other_forms_of_the_weights(ingredient: Path) -> None:
    """An exported network is the ingredient's, whatever its name: a soup does not carry it on, and that is said."""
    with zipfile.ZipFile(ingredient / "model.ts", "w") as archive:  # as torch.jit.save writes it, and so MONAI
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"")
    (ingredient / "net.mobile").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    (ingredient / "openvino.xml").write_bytes(b'<?xml version="1.0"?>\n<net name="a" version="11">')
    (ingredient / "5gram.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5")
    (ingredient / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text("{}")
    found = beside(ingredient)
    assert sorted(file.name for file in found.files) == sorted((*CARRIED, "5gram.bin"))
    assert [line.partition(":")[0] for line in found.left_out] == ["model.ts", "net.mobile", "openvino.xml"]
    assert found.left_out[0].endswith(
        "a TorchScript archive, which is a program: it holds the weights of the ingredient"
    )


def test_heads_in_other_formats(ingredient: Path) -> None:
    """Numbers in formats that are not mixed are named, if they are not the network once more."""
    for name in ("head.h5", "pooler.msgpack", "tf_model.h5", "flax_model.msgpack", "openvino_model.xml"):
        (ingredient / name).write_bytes(b"<net/>")
    beside = files_beside(ingredient)
    assert [line for line in beside.left_out if line.endswith("numbers that are not mixed")] == [
        "head.h5: numbers that are not mixed",
        "pooler.msgpack: numbers that are not mixed",
    ]
    assert not [file for file in beside.files if file.name.endswith((".h5", ".msgpack", ".xml"))]
