"""What `soup demo digits` makes."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from soupcli.demo import digits, finetune
from soupcli.errors import MissingExtra, OutputError

TINY = digits.DigitsSize(runs=3, pretraining_epochs=3, epochs=(1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo, made in one go."""
    folder = tmp_path_factory.mktemp("digits")
    digits.make(folder, size=TINY)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def keys(pictures: digits.DigitImages) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in pictures.inputs}


class Absent:
    """Makes scikit-learn look as if it were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")


def test_pictures_are_real_and_distinct() -> None:
    """All of scikit-learn's digits, as floats from 0 to 1, each once."""
    pictures = digits.load()
    assert pictures.inputs.shape == (1797, 1, 8, 8)
    assert pictures.inputs.dtype == torch.float32
    assert (pictures.inputs.min(), pictures.inputs.max()) == (0, 1)
    assert len(keys(pictures)) == 1797
    assert pictures.labels.bincount().min() > 170


def test_no_picture_is_in_two_parts() -> None:
    """Pre-training, fine-tuning, validation and test together are all pictures, and share none."""
    parts = digits.split(digits.load(), digits.DigitsSize(), seed=1)
    sets = [keys(p) for p in (parts.pretraining, parts.training, parts.validation, parts.test)]
    assert [len(s) for s in sets] == [200, 300, 300, 997]
    assert len(set.union(*sets)) == 1797


def test_draws_are_twelve_and_their_names_distinct() -> None:
    """The demo promises 12 runs; each has a name and a seed of its own, the seed also over families."""
    draws = digits.draws(digits.DigitsSize(), seed=0)
    assert len({finetune.run_name(i, draw) for i, draw in enumerate(draws)}) == 12
    assert len({draw.seed for draw in draws}) == 12
    assert {draw.seed for draw in draws}.isdisjoint(draw.seed for draw in digits.draws(digits.DigitsSize(), seed=1))


def test_the_folder_is_what_a_recipe_needs(made: Path) -> None:
    """Every path in soup.yaml exists, sets come in the order val, test, shifted, and runs are complete."""
    recipe = yaml.safe_load((made / "soup.yaml").read_text())
    assert list(recipe["val"]) == ["val", "test", "rotated", "blurred", "noisy"]
    assert all((made / source["arrays"]).is_file() for source in recipe["val"].values())
    assert recipe["model"] == {"python": "network.py:build"}
    runs = sorted((made / "runs").iterdir())
    assert len(runs) == 3
    for run in runs:
        draw = finetune.Draw(**json.loads((run / "train.json").read_text()))
        assert finetune.run_name(int(run.name[:2]), draw) == run.name
        assert {file.name for file in run.iterdir()} == {"train.json", "model.safetensors"}


def test_the_runs_fit_the_network_of_the_folder(made: Path) -> None:
    """`network.py` stands alone, takes every run's weights strictly, and they know digits far beyond chance."""
    network = runpy.run_path(str(made / "network.py"))["build"]()
    test = finetune.read_tensors(made / "data" / "test.safetensors")
    for run in (made / "runs").iterdir():
        network.load_state_dict(finetune.read_tensors(run / "model.safetensors"))
        with torch.no_grad():
            right = network(test["inputs"]).argmax(1) == test["labels"]
        assert right.sum() > 0.6 * len(right)


def test_shifted_sets_are_the_test_pictures_changed(made: Path) -> None:
    """Same labels in the same order, other pictures, and each shift unlike the others."""
    names = ["test", "rotated", "blurred", "noisy"]
    sets = {name: finetune.read_tensors(made / "data" / f"{name}.safetensors") for name in names}
    assert all(torch.equal(s["labels"], sets["test"]["labels"]) for s in sets.values())
    assert len({s["inputs"].numpy().tobytes() for s in sets.values()}) == 4
    assert all(s["inputs"].shape == (997, 1, 8, 8) for s in sets.values())


def test_warp_turns_and_shifts() -> None:
    """A quarter turn is that of torch, nothing at all is the picture itself, and a shift of 0.25 is one pixel."""

    def warped(degrees: float, right: float) -> Tensor:
        return digits.warp(picture, torch.tensor([degrees]), torch.tensor([right]), torch.tensor([0.0]))

    picture = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warped(0, 0), picture)
    torch.testing.assert_close(warped(90, 0), picture.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(warped(0, 0.25)[..., :-1], picture[..., 1:])


def test_an_interrupted_demo_goes_on(made: Path, tmp_path: Path) -> None:
    """After Ctrl-C in the second run the first is kept as it is, and the rest comes out as if in one go."""

    def interrupt(task: str, done: int, total: int, *, note: str = "") -> None:
        if "01-" in task:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digits.make(tmp_path, size=TINY, progress=interrupt)
    finished = next((tmp_path / "runs").glob("00-*/model.safetensors"))
    before = finished.stat().st_mtime_ns
    assert not list((tmp_path / "runs").glob("01-*"))
    digits.make(tmp_path, size=TINY)
    assert finished.stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(made)


def test_what_the_user_changed_stays(made: Path, tmp_path: Path) -> None:
    """A second call neither trains nor writes anything where all is there."""
    digits.make(tmp_path, size=TINY)
    (tmp_path / "soup.yaml").write_text("# mine\n")
    calls: list[str] = []
    digits.make(tmp_path, size=TINY, progress=lambda task, done, total, *, note="": calls.append(task))
    assert calls == []
    assert contents(tmp_path) == contents(made) | {"soup.yaml": b"# mine\n"}


def test_another_seed_wants_another_folder(made: Path) -> None:
    """Runs of two families never meet in one folder."""
    with pytest.raises(OutputError, match="holds a demo with seed 0, asked for seed 1"):
        digits.make(made, seed=1, size=TINY)


def test_without_scikit_learn_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, and the folder stays empty."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingExtra, match="sklearn is not installed") as caught:
        digits.make(tmp_path)
    assert caught.value.hint == "pip install 'model-soup[demo]'"
    assert list(tmp_path.iterdir()) == []
