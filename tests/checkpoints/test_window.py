"""Which checkpoints of a run are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from soupcli.checkpoints.find import find
from soupcli.checkpoints.training_record import order_by
from soupcli.checkpoints.window import along_one_run, choose, positions
from soupcli.errors import UsageError
from soupcli.recipe.methods import Window

if TYPE_CHECKING:
    from pathlib import Path

STEPS = (500, 1000, 1500, 2000, 10000)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five checkpoints of one run, each with a loss in its name that is lowest in the middle."""
    monkeypatch.chdir(tmp_path)
    for step in STEPS:
        (tmp_path / "a").mkdir(exist_ok=True)
        loss = abs(step - 1500) / 1000
        save_file({"w": torch.full((1,), float(step))}, tmp_path / f"a/step={step}-val_loss={loss}.safetensors")
    return tmp_path


def steps_kept(*words: str, **window: object) -> list[int]:
    chosen = choose(find(words).checkpoints, Window.model_validate(window))
    return [int(str(one.path).partition("step=")[2].partition("-")[0]) for one in chosen.kept]


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        ({}, STEPS),
        ({"last": 2}, (2000, 10000)),
        ({"last": 99}, STEPS),
        ({"every": 2}, (500, 1500, 10000)),  # the last one is always in
        ({"between": [1000, 2000]}, (1000, 1500, 2000)),
        ({"top": 2, "by": "val_loss"}, (1000, 1500)),
        ({"top": 1, "by": "+val_loss"}, (10000,)),
        ({"between": [500, 2000], "every": 2, "last": 1}, (2000,)),
        ({"last": 3, "top": 1, "by": "val_loss"}, (1500,)),
    ],
)
def test_choices(run: Path, window: dict[str, object], kept: tuple[int, ...]) -> None:
    """Each choice applies to what the one before it kept; the order of the checkpoints stays."""
    assert steps_kept("a/*", **window) == list(kept)


def test_each_run_by_itself(run: Path) -> None:
    """`last` and `every` count within the checkpoints of one folder."""
    (run / "b").mkdir()
    for step in (1, 2, 3):
        save_file({"w": torch.full((1,), float(step))}, run / f"b/step={step}-x=0.safetensors")
    assert steps_kept("a/*", "b/*", last=1) == [10000, 3]


def test_reasons(run: Path) -> None:
    """Each one that is left out says which choice did it, and by what number."""
    chosen = choose(find(["a/*"]).checkpoints, Window(between=[1000, 2000], top=1, by="val_loss"))
    reasons = {str(one.path)[7:11].strip("-"): reason for one, reason in chosen.left_out}
    assert reasons["500"] == "--between 1000 2000 (step 500, val_loss 1)"
    assert reasons["2000"] == "--top 1 --by val_loss (step 2000, val_loss 0.5)"


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"between": [3, 4]}, "--between 3 4: leaves none of 5"),
        ({"top": 1, "by": "vall_loss"}, "recorded no such metric, did you mean 'val_loss'"),
        ({"top": 1, "by": "metric"}, "recorded no such metric"),
        ({"top": 1, "by": "val_rate"}, "recorded no such metric"),
    ],
)
def test_refused(run: Path, window: dict[str, object], message: str) -> None:
    """Nothing left, an unknown metric and an unknown direction are errors, not guesses."""
    with pytest.raises(UsageError, match=message):
        choose(find(["a/*"]).checkpoints, Window.model_validate(window))


def test_direction_that_no_name_tells() -> None:
    """A metric that could be better either way is not guessed."""
    with pytest.raises(UsageError, match="whether more or less"):
        order_by("metric")


def test_one_without_a_number(run: Path) -> None:
    """A checkpoint whose trainer recorded no number, or NaN, is named: it is neither the best nor left out unsaid."""
    save_file({"w": torch.ones(1)}, run / "a/step=7000-val_loss=nan.safetensors")
    with pytest.raises(UsageError, match=r"1 of 6 checkpoints have no number of it, a/step=7000-val_loss=nan"):
        choose(find(["a/*"]).checkpoints, Window(top=2, by="val_loss"))


@pytest.mark.parametrize("window", [{"last": 3}, {"every": 2}])
def test_two_runs_in_one_folder(run: Path, window: dict[str, object]) -> None:
    """Two checkpoints of one step are not of one run: no window over them is guessed, unless it leaves both out."""
    save_file({"w": torch.full((1,), 7.0)}, run / "a/seed1-step=1500.safetensors")
    with pytest.raises(UsageError, match=r"a/seed1-step=1500.* are not of one run: both are of step 1500"):
        choose(find(["a/*"]).checkpoints, Window.model_validate(window))
    assert steps_kept("a/*", last=1) == [10000]
    with pytest.raises(UsageError, match=r"--decay: .* are not of one run"):
        along_one_run(find(["a/*"]).checkpoints)


def test_one_without_a_step(run: Path) -> None:
    """Where only some say their step, nobody knows where in the run the other is; where none does, names decide."""
    save_file({"w": torch.zeros(1)}, run / "a/averaged.safetensors")
    with pytest.raises(UsageError, match=r"--last 2: a/averaged.safetensors says no step, others of its folder do"):
        choose(find(["a/*"]).checkpoints, Window(last=2))
    (run / "c").mkdir()
    for number, name in enumerate(("first", "second", "third")):
        save_file({"w": torch.full((1,), float(number))}, run / f"c/{name}.safetensors")
    assert [one.path.stem for one in choose(find(["c/*"]).checkpoints, Window(last=2)).kept] == ["second", "third"]


def test_steps_that_begin_anew_in_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs go before steps where these count within an epoch; elsewhere steps decide."""
    monkeypatch.chdir(tmp_path)
    names = [f"epoch{epoch}_step{step}" for epoch in (9, 10) for step in (500, 1000)]
    for number, name in enumerate(names):
        save_file({"w": torch.full((1,), float(number))}, f"{name}.safetensors")
    found = find(["*.safetensors"]).checkpoints
    assert [one.path.stem for one in along_one_run(found)] == names
    assert positions(along_one_run(found)) == [0, 1, 2, 3]
    assert [one.path.stem for one in choose(found, Window(last=2)).kept] == names[2:]


def test_no_step(run: Path) -> None:
    """A checkpoint without a step cannot lie between two."""
    save_file({"w": torch.ones(1)}, run / "a/other.safetensors")
    with pytest.raises(UsageError, match=r"other\.safetensors has no step"):
        choose(find(["a/*"]).checkpoints, Window(between=[1, 2]))


@pytest.mark.parametrize("window", [{"top": 3}, {"by": "acc"}, {"between": [5, 2]}, {"between": [5]}, {"last": 0}])
def test_sections_that_make_no_sense(window: dict[str, object]) -> None:
    """The recipe says what does not go together before anything is opened."""
    with pytest.raises(ValidationError):
        Window.model_validate(window)
