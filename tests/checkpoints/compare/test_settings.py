"""Settings beside the weights that differ. Files are written by hand as the named libraries write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare import class_files
from soupcli.checkpoints.compare.class_files import files_of
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.compare.settings import Setting, differing_settings
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from tests.helpers.operations import operations

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

Files = dict[str, Any]
TOP, WRIST, STATE = ({name: {"type": "VISUAL", "shape": [3, 8, 8]}} for name in ("top", "wrist", "state"))
CAMERAS = {**WRIST, **TOP, **STATE}
POLICY = {  # of LeRobot
    "type": "act",
    "input_features": {**TOP, **WRIST, **STATE},
    "normalization_mapping": {"STATE": "MEAN_STD"},
    "optimizer_lr": 1e-5,
    "device": "cuda",
    "repo_id": "me/act",
    "kl_weight": 10.0,
}
BERT = {"hidden_size": 4, "hidden_act": "gelu"}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
MOVED = [{**each, "type": str(each["type"]).replace(".models", ".base.modules")} for each in MODULES]
OF_SENTENCES = {"prompts": {"query": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
UNET = {"_class_name": "UNet2DModel", "_diffusers_version": "0.30.0"}
DDPM = {"_class_name": "DDPMScheduler", "prediction_type": "epsilon"}


def settings(folder: Path, *variants: Files, weights: str = "model.safetensors") -> list[Setting]:
    """The settings that differ between folders with the same weights and these files of JSON."""
    for number, files in enumerate(variants):
        for name, content in files.items():
            file = folder / f"r{number}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
        place = folder / f"r{number}" / weights
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": torch.full((4, 4), float(number))}, place)
    return differing_settings([open_checkpoint(folder / f"r{number}") for number in range(len(variants))])


@pytest.mark.parametrize(
    ("file", "one", "other", "key", "what"),
    [
        ("modules.json", MODULES, [*MODULES, NORMALIZE], "types", "network"),
        ("config_sentence_transformers.json", OF_SENTENCES, {**OF_SENTENCES, "prompts": {"query": "q: "}}, "", "input"),
        (
            "config_sentence_transformers.json",
            OF_SENTENCES,
            {**OF_SENTENCES, "similarity_fn_name": "dot"},
            "similarity_fn_name",
            "network",
        ),
        ("gliner_config.json", {"subtoken_pooling": "first"}, {"subtoken_pooling": "mean"}, "", "network"),
        ("1_Pooling/config.json", {"pooling_mode": "mean"}, {"pooling_mode": "cls"}, "pooling_mode", "network"),
        ("router_config.json", {"default_route": "query"}, {"default_route": "document"}, "default_route", "network"),
        ("generation_config.json", {"language": "en"}, {"language": "fr"}, "language", "input"),
        ("generation_config.json", {"eos_token_id": 2}, {"eos_token_id": [2, 3]}, "eos_token_id", "input"),
        ("generation_config.json", {"a": 1, "eos_token_id": 2}, {"a": 1}, "eos_token_id", ""),
        ("generation_config.json", {"temperature": 0.6}, {"temperature": 1.0}, "temperature", ""),
        ("artifact.metadata", {"similarity": "cosine"}, {"similarity": "l2"}, "similarity", "network"),
        ("artifact.metadata", {"maxsteps": 1}, {"maxsteps": 2}, "maxsteps", ""),
        ("run_config.json", {"note": 1}, {"note": 2}, "note", ""),
        ("config.json", POLICY, POLICY | {"input_features": CAMERAS}, "input_features", "input"),
        ("config.json", POLICY, POLICY | {"normalization_mapping": {"STATE": "MIN_MAX"}}, "normalization", "input"),
    ],
)
def test_settings_of_libraries(tmp_path: Path, file: str, one: Any, other: Any, key: str, what: str) -> None:
    """Differing settings and modules of sentence-transformers and GLiNER are found, and it is known what they mean."""
    always: Files = {"config.json": BERT, "modules.json": MODULES}
    (found,) = settings(tmp_path, always | {file: one}, always | {file: other})
    assert found.key.startswith(f"{file}: {key}")
    assert (found.of_inputs, found.of_network) == (what == "input", what == "network")


def test_a_network_without_modules(tmp_path: Path) -> None:
    """A folder that lost modules.json is pooled otherwise, by default: it is another network."""
    one: Files = {"config.json": BERT, "modules.json": MODULES}
    [found] = settings(tmp_path, one, {"config.json": BERT})
    assert found == Setting("modules.json", ("present", "missing"), of_inputs=False, of_network=True)


def test_pipelines(tmp_path: Path) -> None:
    """Another scheduler of a diffusers pipeline is listed; another prediction of its network makes another network."""
    of_pipeline = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "A"]}
    one: Files = {"model_index.json": of_pipeline, "unet/config.json": UNET, "scheduler/scheduler_config.json": DDPM}
    other = one | {
        "model_index.json": of_pipeline | {"scheduler": ["diffusers", "B"], "_diffusers_version": "0.31.0"},
        "scheduler/scheduler_config.json": DDPM | {"prediction_type": "v_prediction"},
    }
    found = settings(tmp_path, one, other, weights="unet/diffusion_pytorch_model.safetensors")
    assert [setting.key for setting in found] == [
        "model_index.json: scheduler",
        "scheduler/scheduler_config.json: prediction_type",
    ]
    assert [setting.of_network for setting in found] == [False, True]  # how pictures are sampled is no one's weights


@pytest.mark.parametrize(
    ("file", "one", "other"),
    [
        ("modules.json", MODULES, MOVED),
        ("config_sentence_transformers.json", {"__version__": {"pytorch": "2.4"}}, {"__version__": {"pytorch": "2.5"}}),
        ("config.json", UNET, UNET | {"_diffusers_version": "0.31.0"}),
        ("train_config.json", {"lr": 1}, {"lr": 2}),
    ],
)
def test_no_setting(tmp_path: Path, file: str, one: Any, other: Any) -> None:
    """Versions of libraries, types that moved to another module and settings of a training are no differences."""
    always: Files = {"config.json": BERT, "modules.json": MODULES}
    assert settings(tmp_path, always | {file: one}, always | {file: other}) == []


def test_training_of_gliner(tmp_path: Path) -> None:
    """Settings of the training in gliner_config.json do not make other networks."""
    of_training = {"lr_encoder": 1e-5, "eval_every": 5, "weight_decay_other": 0.1, "loss_alpha": -1, "train_data": "a"}
    other = {"lr_encoder": 1e-4, "eval_every": 6, "weight_decay_other": 0.2, "loss_alpha": 0.5, "train_data": "b"}
    always: Files = {"config.json": BERT}
    files: list[Files] = [always | {"gliner_config.json": each} for each in (of_training, other)]
    found = settings(tmp_path, *files)
    assert len(found) == len(of_training)
    assert not any(setting.of_network or setting.of_inputs for setting in found)


def test_training_of_lerobot(tmp_path: Path) -> None:
    """Settings of the training in a policy's config.json do not make other networks."""
    trained = {"optimizer_lr": 1e-4, "device": "mps", "repo_id": "me/other", "kl_weight": 1.0}
    found = settings(tmp_path, {"config.json": POLICY}, {"config.json": POLICY | trained})
    assert {setting.key for setting in found} == {f"config.json: {key}" for key in trained}
    assert not any(setting.of_network or setting.of_inputs for setting in found)


def test_very_many_keys(tmp_path: Path) -> None:
    """Each key of a large configuration takes a few steps, whether it differs or not, or all of the file is missing."""

    def steps(count: int) -> int:
        one: Files = {"config.json": {f"k{number}": number for number in range(count)}}
        other: Files = {"config.json": {f"k{number}": number + number % 2 for number in range(count)}}
        settings(tmp_path / str(count), one, other, {})
        folders = [open_checkpoint(tmp_path / f"{count}/r{number}") for number in range(3)]
        pairs = folders[:1], folders[:2], folders[::2]
        return operations(lambda: [differing_settings(pair) for pair in pairs])

    steps(100)  # what is compiled once
    assert steps(400) - steps(200) < 200 * 600


def test_long_keys_and_values(tmp_path: Path) -> None:
    """Long values are cut, with their hash; a file with keys longer than those of libraries is not taken apart."""
    one, other = ({"config.json": {"words": [name] * 10_000}} for name in "ab")
    [found] = settings(tmp_path, one, other)
    assert found.key == "config.json: words"
    assert all(value.startswith('["') and "sha256:" in value and len(value) < 100 for value in found.values)
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"a": 1, "k" * 100: deep}
    [found] = settings(tmp_path / "deep", {"config.json": deep}, {"config.json": {**deep, "b": 2}})
    assert found.key == "config.json: content" and all(value.startswith("sha256:") for value in found.values)


OF_MMENGINE = """\
metainfo = dict(classes={classes})
model = dict(
    backbone=dict(act_cfg=dict(type='{act}'), norm_cfg=dict(type='{norm}')),
    data_preprocessor=dict(bgr_to_rgb={rgb}, mean=[123.675, 116.28, 103.53], type='DetDataPreprocessor'))
optimizer = dict(lr={lr}, type='SGD')
load_from = None
train_cfg = dict(max_epochs={epochs})
work_dir = 'work_dirs/{lr}'
"""
USUAL = {"classes": ("cat", "dog"), "act": "ReLU", "norm": "BN", "rgb": True, "lr": 0.1, "epochs": 12}
SWEEP: dict[str, Any] = {"lr": 0.2, "epochs": 24, "norm": "SyncBN"}


def of_mmengine(folder: Path, name: str, *, inside: bool = False, **changed: Any) -> Checkpoint:
    """A run of mmengine, whose configuration lies beside the weights, or is a text in their file."""
    folder.mkdir()
    text = OF_MMENGINE.format(**{**USUAL, **changed})
    if not inside:
        (folder / name).write_text(text)
    state = {"head.fc.weight": torch.zeros(2, 4), "head.fc.bias": torch.zeros(2)}
    torch.save({"meta": {"cfg": text if inside else "", "seed": 1}, "state_dict": state}, folder / "epoch_12.pth")
    return open_checkpoint(folder)


@pytest.mark.parametrize("inside", [True, False])
def test_configurations_in_python(tmp_path: Path, *, inside: bool) -> None:
    """Configurations of mmengine are compared as others are, whatever the experiment is called; its training is not."""
    changes: tuple[dict[str, Any], ...] = ({}, SWEEP, {"rgb": False}, {"act": "GELU"}, {"classes": ("dog", "cat")})
    first, swept, bgr, gelu, moved = (
        of_mmengine(tmp_path / str(number), f"exp_{number}.py", inside=inside, **changed)
        for number, changed in enumerate(changes)
    )
    place = "in the file: meta.cfg." if inside else "*.py: "
    assert differing_settings([first, swept]) == [] and check_meanings([first, swept], TensorFilter()) == []
    [setting] = differing_settings([first, bgr])
    assert setting[:3] == (f"{place}model.data_preprocessor.bgr_to_rgb", ("true", "false"), True)
    [setting] = differing_settings([first, gelu])
    assert setting.key == f"{place}model.backbone.act_cfg.type" and setting.of_network
    with pytest.raises(MixError, match=r"dog, cat.*cat, dog: rows of 'head.fc.weight' stand for other"):
        check_meanings([first, moved], TensorFilter())


def test_settings_called_as_their_folder(tmp_path: Path) -> None:
    """Settings that have the name of the experiment, as its folder has, are compared with those of others."""
    for number, name in enumerate(("small", "large")):
        (tmp_path / name).mkdir()
        save_file({"weight": torch.full((4, 4), float(number))}, tmp_path / name / "model.safetensors")
        (tmp_path / name / f"{name}.yaml").write_text(f"lr: {number}\nimage_size: {number}\n")
    [setting] = differing_settings([open_checkpoint(tmp_path / name) for name in ("small", "large")])
    assert setting.key == "*.yaml: image_size" and setting.of_inputs


RATES = ("sample_rate: 16000\nlr: 0.1\n", "sample_rate: 8000\nlr: 0.1\n", "sample_rate: 16000\nlr: 0.2\n")


@pytest.mark.parametrize("place", ["save/CKPT+2024-01-01", "checkpoints/step-100", "models/final_model/checkpoint_3"])
def test_settings_of_a_run_above(tmp_path: Path, place: str) -> None:
    """Weights may lie several folders below that of their run, whose settings count."""
    runs = [tmp_path / str(number) for number in range(len(RATES))]
    for number, run in enumerate(runs):
        (run / place).mkdir(parents=True)
        save_file({"weight": torch.full((4, 4), float(number))}, run / place / "model.safetensors")
        (run / "hyperparams.yaml").write_text(RATES[number])
    first, other, swept = (open_checkpoint(run / place) for run in runs)
    [setting] = differing_settings([first, other])
    assert setting.key == f"{'../' * (place.count('/') + 1)}hyperparams.yaml: sample_rate" and setting.of_inputs
    assert differing_settings([first, swept]) == []


def test_agents(tmp_path: Path) -> None:
    """An unpacked agent of stable-baselines3 says in `data` what its network is; its training is not compared."""
    usual = {"policy_kwargs": {":serialized:": "gASV", "activation_fn": "<class 'torch.nn.ReLU'>"}, "learning_rate": 1}
    swept = {**usual, "learning_rate": 2, "gamma": 0.9, "normalize_advantage": True}
    tanh = {**usual, "policy_kwargs": {"activation_fn": "<class 'torch.nn.Tanh'>"}}
    for number, data in enumerate((usual, swept, tanh)):
        (tmp_path / str(number)).mkdir()
        torch.save({"mlp.weight": torch.full((4, 4), float(number))}, tmp_path / str(number) / "policy.pth")
        (tmp_path / str(number) / "data").write_text(json.dumps(data))
    first, other, third = (open_checkpoint(tmp_path / str(number)) for number in range(3))
    assert differing_settings([first, other]) == []
    [setting] = differing_settings([first, third])
    assert setting.key == "data: policy_kwargs.activation_fn" and setting.of_network


@pytest.mark.parametrize("place", ["lr1", "save/lr1", "a/b"])
def test_settings_above_a_run(tmp_path: Path, place: str) -> None:
    """A folder with a name of its own is the run, and what lies above it is not about the run."""
    for number in range(2):
        (tmp_path / str(number) / place).mkdir(parents=True)
        save_file({"weight": torch.full((4, 4), float(number))}, tmp_path / str(number) / place / "model.safetensors")
        (tmp_path / str(number) / "config.yaml").write_text(f"sample_rate: {number}\n")
    assert differing_settings([open_checkpoint(tmp_path / str(number) / place) for number in range(2)]) == []


def test_python_beside_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many files those of Python count last, and one that is called settings keeps its name."""
    monkeypatch.setattr(class_files, "MOST_FILES", 2)
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    for name in ("a.py", "config.py", "z.json"):
        (tmp_path / name).write_text("{}")
    assert list(files_of(open_checkpoint(tmp_path))) == ["a.py", "z.json"]
    (tmp_path / "a.py").unlink()
    assert list(files_of(open_checkpoint(tmp_path))) == ["config.py", "z.json"]
    (tmp_path / "config.py").rename(tmp_path / "faster_rcnn.py")
    assert list(files_of(open_checkpoint(tmp_path))) == ["*.py", "z.json"]


@pytest.mark.parametrize(
    ("file", "one", "other", "key", "what"),
    [
        ("args.json", {"template": "qwen", "lr": 1}, {"template": "llama3", "lr": 2}, "template", "input"),
        ("args.json", {"system": None}, {"system": "You are a judge"}, "system", "input"),
        ("training_args.json", {"default_system": "A"}, {"default_system": "B"}, "default_system", "input"),
        (
            "config.yaml",
            {"training": {"target_instrument": "bass"}},
            {"training": {"target_instrument": "drums"}},
            "",
            "",
        ),
        ("idf.json", {"cat": 1.0, "dog": 2.0}, {"dog": 1.0, "cat": 2.0}, "content", "input"),
    ],
)
def test_settings_of_trainings(tmp_path: Path, file: str, one: Any, other: Any, key: str, what: str) -> None:
    """Templates of prompts, a separator's instrument and weights of tokens are settings, if they differ."""
    [found] = settings(tmp_path / "differ", {file: one}, {file: other})
    assert key in found.key and (found.of_inputs, found.of_network) == (what == "input", what != "input")
    same = {name: one[name] for name in reversed(one)}
    assert (
        settings(tmp_path / "same", {file: one}, {file: same | {"note": 1}} if file != "idf.json" else {file: same})
        == []
    )
