"""`soupcli.demo.images` and `soupcli.demo.fashion`, on a tiny package of made-up clothes and on the real one."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from soupcli.demo import fashion, finetune, images
from soupcli.demo.images import ImagesSize
from soupcli.errors import MissingExtra, OutputError, SoupError

pytest.importorskip("timm")
pytest.importorskip("PIL")

SIZE = ImagesSize(
    pretraining=160, training=60, validation=40, test=50, shifted=30, runs=3, pretraining_epochs=1, epochs=(1, 2)
)
SETS = {"train": 60, "val": 40, "test": 50, "rotated": 30, "blurred": 30, "noisy": 30, "sharp": 30}


def idx(values: Tensor) -> bytes:
    """The bytes of an IDX file of uint8 values."""
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + lengths + values.numpy().tobytes()


def write_package(folder: Path, counts: tuple[int, int] = (300, 40)) -> tuple[Tensor, Tensor]:
    """Four files as the Debian package has them; a class is a bright block at a place of its own, in noise.

    Returns the pictures (n, 28, 28) and labels (n,) in the order of the files.
    """
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    pictures, labels = [], []
    for part, count in zip(fashion.PARTS, counts, strict=True):
        label = torch.randint(0, 10, (count,), dtype=torch.uint8, generator=generator)
        picture = torch.randint(0, 90, (count, 28, 28), dtype=torch.uint8, generator=generator)
        for index, number in enumerate(label.tolist()):
            picture[index, 4 + 10 * (number // 5) :, 5 * (number % 5) :][:8, :8] += 150
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(picture)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(label)))
        pictures.append(picture)
        labels.append(label)
    return torch.cat(pictures), torch.cat(labels)


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of an installed package of 340 made-up pictures."""
    folder = tmp_path_factory.mktemp("installed") / "fashion-mnist"
    write_package(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fashion, "INSTALLED", folder)
        yield folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:
    """A finished demo of size SIZE and seed 0, which no test changes."""
    folder = tmp_path_factory.mktemp("demo") / "images"
    images.make(folder, size=SIZE)
    return folder


@pytest.fixture
def copied(demo: Path, tmp_path: Path) -> Path:
    """A copy of it, for a test to change."""
    return shutil.copytree(demo, tmp_path / "images")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recipe_args(folder: Path) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network, as a YAML reader finds them in soup.yaml."""
    model = yaml.safe_load((folder / "soup.yaml").read_text())["model"]
    return model["timm"], model["args"]


def test_folder_has_what_the_recipe_names(demo: Path) -> None:
    """Every set has its number of JPEG files of 32 x 32 pixels, in folders named by the classes."""
    for name, count in SETS.items():
        files = list((demo / "data" / name).glob("*/*"))
        assert len(files) == count
        assert {file.parent.name for file in files} <= set(fashion.CLASSES)
        with Image.open(files[0]) as picture:
            assert (picture.format, picture.size) == ("JPEG", (32, 32))
    assert not list(demo.rglob(".*"))  # nothing half written


def test_runs_load_into_the_network_of_the_recipe(demo: Path) -> None:
    """`timm.create_model` with the recipe's args takes every run strictly, and `timm: auto` readers find the same."""
    name, args = recipe_args(demo)
    runs = sorted(demo.glob("runs/*/"))
    assert len(runs) == SIZE.runs
    for run in runs:
        timm.create_model(name, **args).load_state_dict(load_file(run / "model.safetensors"), strict=True)
        config = json.loads((run / "config.json").read_bytes())
        assert (config["architecture"], config["num_classes"]) == (name, 10)
        again = timm.create_model(config["architecture"], **config["model_args"])
        again.load_state_dict(load_file(run / "model.safetensors"), strict=True)
        assert config["label_names"] == sorted(config["label_names"])  # as class folders are numbered
        for key in ("input_size", "mean", "std", "crop_pct", "interpolation"):
            assert config["pretrained_cfg"][key] == args["pretrained_cfg_overlay"][key]


def test_timm_sees_the_pictures_that_training_saw(demo: Path) -> None:
    """timm's own evaluation transform of a JPEG file gives, to the bit, what the network was trained on."""
    name, args = recipe_args(demo)
    config = timm.data.resolve_model_data_config(timm.create_model(name, **args))
    transform = timm.data.create_transform(**config, is_training=False)
    trained_on = images.normalise(images.to_float(images.read_pictures(demo / "data" / "train").pixels))
    for path, expected in zip(sorted((demo / "data" / "train").glob("*/*.jpg")), trained_on, strict=True):
        with Image.open(path) as picture:
            torch.testing.assert_close(transform(picture), expected, rtol=0, atol=0)


def test_greedy_runs_from_the_folder(copied: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`soup greedy --ckpts runs/*/ --val val` needs no further flag, and scores all of the validation pictures."""
    monkeypatch.chdir(copied)
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert len(report["ingredients"]) == SIZE.runs
    assert {each["scores"]["val"]["accuracy"]["n"] for each in report["ingredients"]} == {SIZE.validation}


def test_what_exists_is_not_made_again(copied: Path) -> None:
    """A run, a set and the start that are missing come back with the same bytes; the other files are not touched."""
    before = contents(copied)
    kept = {path: path.stat().st_mtime_ns for path in copied.glob("runs/*/model.safetensors")}
    lost = min(kept)
    kept.pop(lost)
    lost.unlink()
    shutil.rmtree(copied / "data" / "blurred")
    (copied / "start" / "model.safetensors").unlink()
    images.make(copied, size=SIZE)
    assert contents(copied) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_finished_start_is_not_trained_again(copied: Path) -> None:
    """With start and data there, a lost run comes back without any pre-training or writing of pictures."""
    shutil.rmtree(next(copied.glob("runs/*")))
    tasks = set()
    images.make(copied, size=SIZE, progress=lambda task, done, total, *, note="": tasks.add(task.split()[0]))
    assert tasks == {"fine-tuning"}


def test_seed_decides_everything(demo: Path, tmp_path: Path) -> None:
    """The same seed gives the same bytes in another folder, whatever torch's own generator did before."""
    torch.manual_seed(1234)
    state = torch.random.get_rng_state()
    images.make(tmp_path / "same", size=SIZE)
    assert contents(tmp_path / "same") == contents(demo)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_folder_of_another_seed_is_refused(copied: Path) -> None:
    """Two families never mix in one folder."""
    with pytest.raises(OutputError, match="seed 0, asked for seed 1"):
        images.make(copied, seed=1, size=SIZE)


def test_files_follow_the_umask(tmp_path: Path) -> None:
    """No file is left with the mode 0600 that safetensors.save_file gives."""
    before = os.umask(0o027)
    try:
        images.write_run(tmp_path / "run", images.build(), images.draws(SIZE, seed=0)[0])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert modes == {"config.json": 0o640, "model.safetensors": 0o640, "train.json": 0o640}


def test_parts_share_no_article() -> None:
    """Training, validation and test are different articles; each has a label of its own here."""
    count = 330
    photographs = fashion.Photographs(torch.zeros(count, 28, 28, dtype=torch.uint8), torch.arange(count))
    parts = images.split(photographs, SIZE, seed=3)
    dealt = [parts.pretraining.labels, parts.training.labels, parts.validation.labels, parts.test.labels]
    assert [len(part) for part in dealt] == [160, 60, 40, 50]
    assert len(torch.cat(dealt).unique()) == 310
    assert torch.equal(parts.test.labels, parts.test_sharp.labels)


def test_shifted_sets_differ_from_the_test_set() -> None:
    """Each shift keeps shape and labels and changes most pictures; the blurred ones have less contrast."""
    photographs = fashion.load()
    test = images.split(photographs, SIZE, seed=0)
    for name, pictures in images.shifted(test.test, test.test_sharp, seed=0).items():
        assert pictures.pixels.shape == test.test.pixels.shape
        assert torch.equal(pictures.labels, test.test.labels)
        assert (pictures.pixels != test.test.pixels).float().mean() > 0.5, name
    blurred = images.shifted(test.test, test.test_sharp, seed=0)["blurred"]
    assert blurred.pixels.float().std(dim=(1, 2)).mean() < 0.9 * test.test.pixels.float().std(dim=(1, 2)).mean()


def test_training_learns(demo: Path) -> None:
    """A few more epochs on the training pictures end well below the loss of guessing."""
    training = images.read_pictures(demo / "data" / "train")
    with finetune.seeded(0):
        network = images.build()
    notes: list[str] = []
    draw = finetune.Draw(lr=2e-3, epochs=12, seed=0, batch_size=20)
    images.train(network, training, draw, task="", progress=lambda task, done, total, *, note="": notes.append(note))
    assert float(notes[-1].split()[1]) < 0.7 * math.log(10)


def test_draws_differ_and_name_their_runs() -> None:
    """Ten draws have ten names, learning rates and seeds, the same for the same seed alone."""
    ten = images.draws(ImagesSize(), seed=0)
    assert len({finetune.run_name(index, draw) for index, draw in enumerate(ten)}) == 10
    assert len({draw.lr for draw in ten}) == len({draw.seed for draw in ten}) == 10
    assert ten == images.draws(ImagesSize(), seed=0) != images.draws(ImagesSize(), seed=1)


def test_interrupted_writing_leaves_no_set(tmp_path: Path) -> None:
    """A folder of pictures is there with all of them or not at all, and the next attempt succeeds."""
    pictures = images.FashionImages(torch.zeros(5, 32, 32, dtype=torch.uint8), torch.arange(5))

    def interrupt(task: str, done: int, total: int, *, note: str = "") -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.write_pictures(tmp_path / "val", pictures, interrupt)
    assert not (tmp_path / "val").exists()
    images.write_pictures(tmp_path / "val", pictures)
    assert len(images.read_pictures(tmp_path / "val").labels) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["val"]


def test_package_is_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures keep their order, labels become the index of the class in alphabetical order."""
    pictures, labels = write_package(tmp_path / "package", counts=(7, 3))
    monkeypatch.setattr(fashion, "INSTALLED", tmp_path / "package")
    loaded = fashion.load()
    assert torch.equal(loaded.pixels, pictures)
    names = [fashion.CLASSES[label] for label in loaded.labels.tolist()]
    assert names == [fashion.IN_THE_FILES[label] for label in labels.tolist()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "not a readable .gz file"),
        (gzip.compress(idx(torch.zeros(340, dtype=torch.uint8)))[:-4], "not a readable .gz file"),
        (gzip.compress(idx(torch.zeros(340, 2, dtype=torch.uint8))), "not an IDX file of bytes in 1 dimensions"),
        (gzip.compress(idx(torch.zeros(340, dtype=torch.uint8))[:-1]), "not an IDX file of bytes in 1 dimensions"),
        (gzip.compress(idx(torch.zeros(339, dtype=torch.uint8))), "not Fashion-MNIST"),
        (gzip.compress(idx(torch.full((300,), 10, dtype=torch.uint8))), "not Fashion-MNIST"),
    ],
    ids=["no gzip", "cut gzip", "two dimensions", "cut idx", "another count", "a wrong label"],
)
def test_damaged_package_is_an_error(
    content: bytes, message: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is no gzip, is cut short, has other dimensions, another count or a wrong label is never trusted."""
    damaged = shutil.copytree(package, tmp_path / "damaged")
    (damaged / "train-labels-idx1-ubyte.gz").write_bytes(content)
    monkeypatch.setattr(fashion, "INSTALLED", damaged)
    with pytest.raises(SoupError, match=message) as caught:
        fashion.load()
    assert str(damaged) in str(caught.value)
    assert "dataset-fashion-mnist" in str(caught.value.hint)


def write_tool(path: Path, script: str) -> None:
    """An executable shell script."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the package, whose tools are those in the returned folder alone; an empty cache."""
    monkeypatch.setattr(fashion, "INSTALLED", Path("/nowhere/share/fashion-mnist"))
    monkeypatch.setenv("SOUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    return tmp_path / "bin"


def test_absent_package_says_what_to_install(not_installed: Path, tmp_path: Path) -> None:
    """Without the package and without apt-get, the error names both places and the package; the demo is not begun."""
    with pytest.raises(SoupError, match=r"no apt-get and no dpkg-deb") as caught:
        images.make(tmp_path / "demo", size=SIZE)
    assert "apt-get install dataset-fashion-mnist" in str(caught.value.hint)
    assert not (tmp_path / "demo").exists()


def test_package_is_fetched_into_the_cache_once(not_installed: Path, package: Path, tmp_path: Path) -> None:
    """apt-get and dpkg-deb put the files into the cache folder, where the next call finds them without either."""
    write_tool(not_installed / "apt-get", 'echo "$@" > fetched; : > dataset-fashion-mnist_0_all.deb')
    target = "nowhere/share/fashion-mnist"
    write_tool(not_installed / "dpkg-deb", f"/bin/mkdir -p {target} && /bin/cp {package}/* {target}")
    count = len(fashion.load().labels)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["fashion-mnist"]
    shutil.rmtree(not_installed)
    assert len(fashion.load().labels) == count == 340


def test_failed_fetch_is_an_error(not_installed: Path, tmp_path: Path) -> None:
    """What apt-get said last is in the error, and nothing stays behind in the cache."""
    write_tool(not_installed / "apt-get", "echo first >&2; echo 'E: Unable to locate package' >&2; exit 100")
    write_tool(not_installed / "dpkg-deb", "exit 1")
    with pytest.raises(SoupError, match="apt-get download dataset-fashion-mnist: E: Unable to locate package"):
        fashion.load()
    assert not list((tmp_path / "cache").iterdir())


def test_missing_timm_is_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm nothing is begun, and the hint says how to install it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match="timm") as caught:
        images.make(tmp_path / "demo", size=SIZE)
    assert "model-soup[demo]" in str(caught.value.hint)
    assert not (tmp_path / "demo").exists()


def test_real_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real files have 70,000 different pictures, 7,000 of each class."""
    places = [Path("/usr/share/datasets/fashion-mnist"), Path.home() / ".cache/soup/fashion-mnist"]
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        pytest.skip("dataset-fashion-mnist is not installed")
    monkeypatch.setattr(fashion, "INSTALLED", place)
    photographs = fashion.load()
    assert photographs.pixels.shape == (70_000, 28, 28)
    assert photographs.labels.bincount().tolist() == [7_000] * 10
