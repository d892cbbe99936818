"""What words after --ckpts name: folders to look below, patterns, and one of several checkpoints of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.words import paths_of
from soupcli.errors import CheckpointError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    """A checkpoint of random weights at each of these paths."""
    for name in names:
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = torch.nn.Linear(2, 2).state_dict()
        save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)


def beside(*names: str) -> None:
    """Files that are no checkpoints."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("lr: 1\n")


def shown(*words: str, prefer: str | None = None) -> list[str]:
    named = paths_of(words, prefer=prefer)
    if named.failures:
        raise named.failures[0]
    return [str(path) for path in named.paths]


@pytest.mark.parametrize("word", ["runs", "runs/", "runs/*/", "runs/*", "runs/**", "runs/**/", "runs/**/*", "~/runs"])
def test_finds_what_is_below(word: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of any depth stand for the checkpoints below them, whatever else lies there."""
    monkeypatch.setenv("HOME", str(here))
    write("runs/a/model.safetensors", "runs/b/deep/er/weights.pth", "runs/c/checkpoint-5/pytorch_model.bin")
    write("runs/c/checkpoint-10/pytorch_model.bin", "runs/a/optimizer.pt")
    beside("runs/log.csv", "runs/a/config.json", "runs/plots/curve.svg", "runs/b/.git/config")
    found = [name.removeprefix(f"{here}/") for name in shown(word)]
    assert found == ["runs/a", "runs/b/deep/er", "runs/c/checkpoint-5", "runs/c/checkpoint-10"]


def test_passed_over() -> None:
    """What a pattern finds beside checkpoints is passed over and counted; alone it is an error, as is a broken file."""
    write("runs/a.pth", "runs/b.pth")
    beside("runs/log.csv", "runs/notes.md", "runs/plots/x.svg")
    named = paths_of(["runs/*"])
    assert [path.name for path in named.paths] == ["a.pth", "b.pth"]
    assert named.notes == ["3 paths passed over, no checkpoint: runs/log.csv, runs/notes.md, runs/plots"]
    assert shown("runs/log.csv") == ["runs/log.csv"]  # opening it says what it is
    Path("runs/c.pth").write_bytes(b"PK\x03\x04 cut short")
    assert "runs/c.pth" in shown("runs/*")
    beside("runs/d/best.pth")
    assert "runs/d" in shown("runs/*")
    assert "runs/d" in shown("runs/*/") and shown("runs/d") == ["runs/d"]


def test_series() -> None:
    """Files whose names differ by numbers alone are all taken; others of one folder are not chosen among."""
    write("runs/epoch_1.pth", "runs/epoch_2.pth", "more/lr1e-4_s0.pth", "more/lr3e-5_s1.pth")
    assert shown("runs") == ["runs/epoch_1.pth", "runs/epoch_2.pth"]
    assert len(shown("more")) == 2
    write("runs/ema.pth")
    assert shown("runs") == ["runs"]  # opening it asks for one
    assert len(shown("runs/*")) == 3


@pytest.mark.parametrize("words", [["runs"], ["runs/*/"], ["runs/*/*.pth"], ["runs/*/*"], ["runs/**"]])
def test_prefer(words: list[str]) -> None:
    """`best` or `last` of each run, if it has several; a run with one keeps it."""
    write(*(f"runs/{run}/{name}.pth" for run in "ab" for name in ("model_best", "last", "checkpoint-3")))
    write("runs/c/final.pth")
    beside("runs/a/log.csv")
    one = next(name for name in shown(*words, prefer="best") if name.startswith("runs/c"))
    assert shown(*words, prefer="best") == ["runs/a/model_best.pth", "runs/b/model_best.pth", one]
    assert shown(*words, prefer="last") == ["runs/a/last.pth", "runs/b/last.pth", one]


def test_several_called_best() -> None:
    """ignite and Lightning may keep the three best: which of them is the best is not guessed from its name."""
    write(*(f"runs/a/best_model_{epoch}_dice={score}.pt" for epoch, score in ((1, 0.1), (2, 0.5), (3, 0.3))))
    with pytest.raises(CheckpointError, match="3 of its checkpoints are called best: best_model_1_") as said:
        shown("runs", prefer="best")
    assert "--ckpts 'runs/a/best_model_*_dice=*.*.pt'" in (said.value.hint or "")
    assert shown("runs", prefer="last") == ["runs/a/best_model_3_dice=0.3.pt"]
    write("runs/a/best_ema.pt", "runs/a/best.pt")
    assert shown("runs", prefer="best") == ["runs/a/best.pt"]


@pytest.mark.parametrize(
    ("prefer", "names", "chosen"),
    [
        ("best", ("best_acc.pt", "best_loss.pt", "last.pt"), None),
        ("best", ("best_acc.pt", "best_loss.pt", "best.pt"), "best.pt"),
        ("best", ("model_best.pth.tar", "model_best_ema.pth.tar", "best_f1.pth.tar"), "model_best.pth.tar"),
        ("best", ("best_model.pt", "model_best.pt"), None),
        ("best", ("best.pt", "best.safetensors"), None),
        ("best", ("best.ckpt", "best-v1.ckpt"), None),
        ("best", ("best_ema.pt", "best_swa.pt"), None),
        ("last", ("last.ckpt", "last-v1.ckpt"), None),
        ("last", ("model_final.pth", "last.pth"), None),
        ("last", ("last_acc.pt", "last.pt", "epoch_9.pt"), "last.pt"),
        ("last", ("epoch_9.pt", "epoch_10.pt", "epoch_11_ema.pt"), "epoch_10.pt"),
        ("last", ("epoch_9.pt", "step_900.pt"), None),
        ("last", ("epoch=1-score=-0.5.ckpt", "epoch=2-score=0.5.ckpt"), "epoch=2-score=0.5.ckpt"),
    ],
)
def test_no_name_is_preferred_unsaid(prefer: str, names: tuple[str, ...], chosen: str | None) -> None:
    """Where two names are as good, both are named and none is taken: best_acc or best_loss, last or last-v1."""
    write(*(f"runs/a/{name}" for name in names))
    if chosen is not None:
        assert shown("runs", prefer=prefer) == [f"runs/a/{chosen}"]
        return
    with pytest.raises(CheckpointError, match=f"2 of its checkpoints (are called|may be the) {prefer}: ") as refused:
        shown("runs", prefer=prefer)
    way = (refused.value.hint or "").partition("such as --ckpts '")[2].partition("'")[0]
    assert all(name in str(refused.value) for name in names if not name.startswith("last.pt"))
    assert shown(way or "runs/a/best.ckpt")[0].rpartition("/")[2] in names


@pytest.mark.parametrize(
    ("copy", "of", "prefer", "chosen"),
    [
        ("best.pt", "epoch_2.pt", "last", "epoch_2.pt"),
        ("best.pt", "epoch_2.pt", "best", "best.pt"),
        ("checkpoint.pt", "epoch_2.pt", "last", "epoch_2.pt"),
        ("zz_best.pt", "epoch_1.pt", "best", "zz_best.pt"),
        ("best_acc.pt", "best_loss.pt", "best", "best_loss.pt"),
        ("last_1.pt", "last_2.pt", "last", "last_2.pt"),
        ("checkpoint_2.pt", "epoch_2.pt", "last", "epoch_2.pt"),
    ],
)
@pytest.mark.parametrize("word", ["runs", "runs/*/*.pt"])
def test_copies(word: str, copy: str, of: str, prefer: str, chosen: str) -> None:
    """Many trainers copy the last epoch to a file of another name: each is a file of its own for --prefer."""
    write("runs/a/epoch_1.pt", "runs/a/epoch_2.pt", f"runs/a/{of}")
    Path("runs/a", copy).write_bytes(Path("runs/a", of).read_bytes())
    assert shown(word, prefer=prefer) == [f"runs/a/{chosen}"]


@pytest.mark.parametrize(
    ("prefer", "names"),
    [
        ("best", ("trunk_best2", "embedder_best2", "trunk_1")),
        ("last", ("trunk_last", "embedder_last")),
        ("last", ("D_100", "D_200", "G_100", "G_200")),
    ],
)
def test_networks_of_one_run(prefer: str, names: tuple[str, ...]) -> None:
    """pytorch-metric-learning and GANs save each of a run's networks by itself: none is chosen for all of them."""
    for name in names:
        Path("runs/a").mkdir(parents=True, exist_ok=True)
        width = 2 if name.startswith(("trunk", "D")) else 3
        torch.save({"weight": torch.zeros(width, width)}, f"runs/a/{name}.pth")
    with pytest.raises(CheckpointError, match="runs/a: holds different networks: ") as refused:
        shown("runs", prefer=prefer)
    assert "mix each by itself: --ckpts 'runs/a/" in (refused.value.hint or "")
    one = [str(path) for path in sorted(Path("runs/a").glob(f"{names[0][0]}*"))]
    assert shown("runs/a/" + names[0][0] + "*", prefer=prefer)[0] in one


def test_prefer_by_trainer() -> None:
    """Without such names the best is what the trainer wrote down, the last the highest number; else it is an error."""
    write(*(f"runs/a/checkpoint-{step}/model.safetensors" for step in (90, 100)))
    assert shown("runs", prefer="last") == ["runs/a/checkpoint-100"]
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is called best: checkpoint-90"):
        shown("runs", prefer="best")
    state = {"best_model_checkpoint": "/elsewhere/runs/a/checkpoint-90"}
    Path("runs/a/checkpoint-100/trainer_state.json").write_text(json.dumps(state))
    assert shown("runs", prefer="best") == ["runs/a/checkpoint-90"]
    assert len(shown("runs/*/*")) == 2


def test_soups_and_examples_below() -> None:
    """Soups and arrays of examples are no ingredients of what a folder stands for; named, a soup is one."""
    write("runs/a/model.safetensors", "runs/soup/model.safetensors")
    beside("runs/soup/soup.json")
    save_file({"inputs": torch.ones(2, 2), "labels": torch.zeros(2)}, "runs/val.safetensors")
    named = paths_of(["runs"])
    assert [str(path) for path in named.paths] == ["runs/a"]
    assert named.notes == ["runs: 1 soup below it passed over: runs/soup", "runs: 1 checkpoint below it"]
    assert shown("runs/soup", "runs/a") == ["runs/a", "runs/soup"]


def test_commas() -> None:
    """Paths with commas between them are answered with the words that work."""
    write("a.pth", "b.pth")
    with pytest.raises(CheckpointError) as refused:
        shown("a.pth,b.pth")
    assert refused.value.hint == "a space between two: --ckpts a.pth b.pth"


def test_circles() -> None:
    """A link to a folder above ends nothing."""
    write("runs/a/model.safetensors")
    Path("runs/b").mkdir()
    Path("runs/b/up").symlink_to(Path("runs").absolute())
    assert shown("runs") == ["runs/a"]
