"""Vision libraries: the real library's own saver writes the ingredients, and its own loader opens the soup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Ran
from tests.helpers.means import load_mean, mean64

Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("YOLO_OFFLINE", "True")


def train_yolo(seed: int) -> None:
    """Two epochs of ultralytics' own trainer on two pictures, which keeps every epoch's resumable file."""
    ultralytics: Any = pytest.importorskip("ultralytics", reason="make layouts installs it")
    pictures = pytest.importorskip("PIL.Image")
    numpy = pytest.importorskip("numpy")
    generator = numpy.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            Path(f"data/{kind}/{part}").mkdir(parents=True, exist_ok=True)
        for number in range(2):
            noise = generator.integers(0, 255, (32, 32, 3), dtype=numpy.uint8)
            pictures.fromarray(noise).save(f"data/images/{part}/{number}.png")
            Path(f"data/labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    Path("data.yaml").write_text(f"path: {Path.cwd()}/data\ntrain: images/train\nval: images/val\nnames: {{0: soup}}\n")
    settings = {"epochs": 2, "imgsz": 32, "batch": 2, "workers": 0, "device": "cpu", "plots": False, "amp": False}
    model = ultralytics.YOLO("yolo11n.yaml", verbose=False)
    place = {"project": str(Path("runs").absolute()), "name": str(seed)}
    model.train(data="data.yaml", seed=seed, save_period=1, verbose=False, **settings, **place)


def assert_same(found: nn.Module, expected: nn.Module, picture: torch.Tensor) -> None:
    """The same weights and the same outputs, bit for bit."""
    states = found.state_dict(), expected.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())
    outputs = [net.eval()(picture)[0] for net in (found, expected)]
    assert torch.equal(outputs[0], outputs[1])


def judge_yolo(soup: Soup) -> None:
    """The page's own program and recipe rank the runs by ultralytics' validation."""
    page = (Path(__file__).parents[2] / "docs/detection.md").read_text().partition("## YOLO")[2]
    program, recipe = re.findall(r"^```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("eval_map.py").write_text(program.replace("plots=False", "plots=False, imgsz=32, workers=0, device='cpu'"))
    Path("soup.yaml").write_text(recipe.replace("python ", f"{sys.executable} "))
    ran = soup("rank", "--ckpts", "runs", "--prefer", "last", "--val", "boxes", "--json")
    assert ran.code == 0, ran.stderr
    scores = [one["scores"]["boxes"] for one in json.loads(ran.stdout)["ingredients"]]
    assert len(scores) == 2 and all(score.keys() == {"map", "map50"} for score in scores)


def test_ultralytics(soup: Soup) -> None:
    """best.pt (stripped), and epoch1.pt (with `ema`, optimizer and scaler): YOLO(...) opens the soup and predicts."""
    for seed in range(2):
        train_yolo(seed)
    ultralytics = pytest.importorskip("ultralytics")
    picture = torch.rand(1, 3, 32, 32)
    for name in ("best", "epoch1"):
        ran = soup("uniform", "--ckpts", f"runs/*/weights/{name}.pt", "--out", name)
        assert ran.code == 0, ran.stderr
        assert ("optimizer: training state, left out" in ran.stderr) == (name == "epoch1")
        opened = ultralytics.YOLO(f"{name}/{name}.pt")
        files = [torch.load(f"runs/{seed}/weights/{name}.pt", weights_only=False) for seed in range(2)]
        stored = [(file["ema"] or file["model"]).state_dict() for file in files]
        expected = ultralytics.YOLO(f"runs/0/weights/{name}.pt")
        expected.model.load_state_dict({name: tensor.float() for name, tensor in mean64(stored).items()})
        assert_same(opened.model, expected.model, picture)
        assert opened.names == {0: "soup"}
        assert opened.predict(picture, verbose=False)
    assert soup("uniform", "--ckpts", "runs/*/weights/epoch1.pt", "--keep-state", "--out", "kept").code == 0
    judge_yolo(soup)
    kept = torch.load("kept/epoch1.pt", weights_only=False)
    assert kept["optimizer"] is not None and kept["epoch"] == 1
    assert soup("verify", "best", "--rebuild").code == 0
    wide = soup("uniform", "--ckpts", "runs/*/weights/best.pt", "--dtype", "float32", "--out", "wide")
    assert wide.code == 0, wide.stderr
    files = [torch.load(f"runs/{seed}/weights/best.pt", weights_only=False) for seed in range(2)]
    expected = ultralytics.YOLO("runs/0/weights/best.pt")
    states = [file["model"].float().state_dict() for file in files]
    expected.model.load_state_dict(mean64(states))
    assert_same(ultralytics.YOLO("wide/best.pt").model, expected.model, picture)


PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_Soup",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "NaturalImage2DIO",
    "transpose_forward": [0, 1],
    "transpose_backward": [0, 1],
    "foreground_intensity_properties_per_channel": {},
    "configurations": {
        "2d": {
            "data_identifier": "2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "batch_dice": False,
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [4, 8],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3], [3, 3]],
                    "strides": [[1, 1], [2, 2]],
                    "n_conv_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}
DATASET = {"channel_names": {"0": "R"}, "labels": {"background": 0, "soup": 1}, "numTraining": 2, "file_ending": ".png"}


def save_nnunet(folder: Path, fold: int, seed: int) -> None:
    """What nnUNetTrainer saves of one fold, with the settings beside it."""
    trainers: Any = pytest.importorskip(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer", reason="make layouts installs it"
    )
    torch.manual_seed(seed)
    plans = json.loads(json.dumps({**PLANS, "continue_training": False}))
    trainer = trainers.nnUNetTrainer(plans, "2d", fold, DATASET, device=torch.device("cpu"))
    trainer.initialize()
    below = folder / f"fold_{fold}"
    below.mkdir(parents=True)
    trainer.save_checkpoint(str(below / "checkpoint_final.pth"))
    trainer.save_checkpoint(str(below / "checkpoint_best.pth"))
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))


def nnunet_outputs(folder: str, fold: int | str, image: torch.Tensor) -> torch.Tensor:
    """The logits of nnUNetPredictor, opened as its users do."""
    prediction: Any = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    predictor = prediction.nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(folder, (fold,))
    return predictor.predict_logits_from_preprocessed_data(image)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")
def test_nnunet(soup: Soup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one fold, by any of three paths, and folds of one run: nnUNetPredictor opens the soup's folder."""
    for name in ("nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "nnUNet_preprocessed/Dataset001_Soup/2d").mkdir(parents=True)
    (tmp_path / "nnUNet_preprocessed/Dataset001_Soup/2d/case.npz").touch()
    for run in range(2):
        save_nnunet(Path(f"runs/{run}"), 0, run)
    files = [torch.load(f"runs/{run}/fold_0/checkpoint_final.pth", weights_only=False) for run in range(2)]
    expected = mean64([file["network_weights"] for file in files])
    image = torch.randn(1, 1, 16, 16)
    Path("mean/fold_0").mkdir(parents=True)
    torch.save({**files[0], "network_weights": expected}, "mean/fold_0/checkpoint_final.pth")
    for name, settings in (("plans", PLANS), ("dataset", DATASET)):
        Path(f"mean/{name}.json").write_text(json.dumps(settings))
    wanted = nnunet_outputs("mean", 0, image)
    for number, words in enumerate(("runs/*/", "runs/*/fold_0", "runs/*/fold_0/checkpoint_final.pth")):
        ran = soup("uniform", "--ckpts", words, "--out", f"soup{number}")
        assert ran.code == 0, ran.stderr
        assert {"plans.json", "dataset.json", "fold_0"} <= {entry.name for entry in Path(f"soup{number}").iterdir()}
        assert torch.equal(nnunet_outputs(f"soup{number}", 0, image), wanted)
    assert soup("verify", "soup0", "--rebuild").code == 0
    save_nnunet(Path("folds"), 0, 0)
    save_nnunet(Path("folds"), 1, 1)
    refused = soup("uniform", "--ckpts", "folds")
    assert refused.code == 2 and "--ckpts 'folds/fold_*/checkpoint_final.pth'" in refused.stderr
    assert soup("uniform", "--ckpts", "folds/fold_*/checkpoint_final.pth", "--out", "soup").code == 0
    assert torch.equal(nnunet_outputs("soup", "all", image), wanted)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network after a step of its optimizer."""
    torch.manual_seed(seed)
    net = small()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return net, optimizer


def assert_same_outputs(found: nn.Module, made: list[nn.Module]) -> None:
    load_mean(expected := small(), made)
    picture = torch.randn(2, 3, 8, 8)
    assert torch.equal(found.eval()(picture), expected.eval()(picture))


def test_fvcore(soup: Soup) -> None:
    """detectron2's checkpointer is fvcore's: it resumes from the soup's folder through `last_checkpoint`."""
    checkpoint: Any = pytest.importorskip("fvcore.common.checkpoint", reason="make layouts installs it")
    made = []
    for seed in range(3):
        net, optimizer = trained(seed)
        Path(f"runs/{seed}").mkdir(parents=True)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
        saver = checkpoint.Checkpointer(net, f"runs/{seed}", optimizer=optimizer, scheduler=scheduler)
        saver.save("model_0000004", iteration=4)
        made.append(net)
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0, ran.stderr
    assert Path("soup/last_checkpoint").read_text() == "model_0000004.pth"
    rest = checkpoint.Checkpointer(found := small(), "soup").resume_or_load("", resume=True)
    assert_same_outputs(found, made)
    assert rest["iteration"] == 4
    assert soup("uniform", "--ckpts", "runs/*/", "--keep-state", "--out", "kept").code == 0
    net, optimizer = trained(9)
    checkpoint.Checkpointer(net, "kept", optimizer=optimizer).resume_or_load("", resume=True)
    assert_same_outputs(net, made)


def test_last_of_several(soup: Soup) -> None:
    """Of several files, the one that `last_checkpoint` names is taken, as its library takes it, which is said."""
    checkpoint: Any = pytest.importorskip("fvcore.common.checkpoint", reason="make layouts installs it")
    made = []
    for seed in range(2):
        Path(f"runs/{seed}").mkdir(parents=True)
        nets = [trained(10 * seed + step)[0] for step in (1, 2)]
        for step, net in enumerate(nets, 1):
            checkpoint.Checkpointer(net, f"runs/{seed}").save(f"model_{step:07d}", iteration=step)
        made.append(nets[-1])
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0 and "model_0000002.pth, which last_checkpoint names" in ran.stderr
    checkpoint.Checkpointer(found := small(), "soup").resume_or_load("", resume=True)
    assert_same_outputs(found, made)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", [False, True])
def test_mmengine(soup: Soup, hook: bool) -> None:
    """A Runner's own files, with EMAHook's averaged weights or without: load_checkpoint opens the soup."""
    runner: Any = pytest.importorskip("mmengine.runner", reason="make layouts installs it")
    model_of: Any = pytest.importorskip("mmengine.model")

    class Model(model_of.BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
            outputs = self.net(inputs)
            return {"loss": outputs.square().mean()} if mode == "loss" else outputs

    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = Model()
        samples: Any = [{"inputs": picture} for picture in torch.randn(4, 3, 8, 8)]
        trained = runner.Runner(
            model,
            work_dir=f"runs/{seed}",
            train_dataloader=torch.utils.data.DataLoader(samples, batch_size=2),
            train_cfg={"by_epoch": True, "max_epochs": 2},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
            custom_hooks=[{"type": "EMAHook"}] if hook else [],
            default_scope="mmengine",
            experiment_name=f"soup-{hook}-{seed}",
            log_level="ERROR",
        )
        trained.train()
        ema = next((one for one in trained.hooks if type(one).__name__ == "EMAHook"), None)
        made.append(ema.ema_model.module.net if ema is not None else model.net)
    ran = soup("uniform", "--ckpts", "runs/*/")
    assert ran.code == 0 and "epoch_2.pth, which last_checkpoint names" in ran.stderr
    assert ("which holds averaged ones" in ran.stderr) == hook
    rest = runner.load_checkpoint(found := Model(), "soup/epoch_2.pth", map_location="cpu", strict=True)
    assert_same_outputs(found.net, made)
    assert rest["meta"]["epoch"] == 2 and "optimizer" not in rest
    assert not Path("soup/last_checkpoint").exists()  # it holds a path of one run
