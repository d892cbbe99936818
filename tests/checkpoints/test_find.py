"""From words after --ckpts to checkpoints: sorted, each once, and a line for what is not there."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints import best_or_last
from soupcli.checkpoints.find import find
from soupcli.checkpoints.formats.folders import folder
from soupcli.checkpoints.open import How
from soupcli.errors import CheckpointError, UsageError
from soupcli.wording import natural_order
from tests.helpers.checkpoint_tensors import small_net


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three folders of weights, and the working folder above them."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["b", "a", "c"]):
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_file(small_net(number).state_dict(), tmp_path / "runs" / name / "model.safetensors")
    return tmp_path


def paths(words: list[str], **options: object) -> list[str]:
    return [str(checkpoint.path) for checkpoint in find(words, **options).checkpoints]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words", [["runs/*/"], ["runs/*"], ["runs/c", "runs/a", "runs/b"], ["runs/c/", "runs/[ab]"], ["**/a", "runs/?"]]
)
def test_forms(runs: Path, words: list[str]) -> None:
    """Globs and paths in any order are the same checkpoints in the order of their paths."""
    assert paths(words) == ["runs/a", "runs/b", "runs/c"]


def test_numbers_as_numbers(runs: Path) -> None:
    """Step 500 comes before step 1000."""
    for step in (1000, 500, 90):
        (runs / f"checkpoint-{step}").mkdir()
        save_file(small_net(step).state_dict(), runs / f"checkpoint-{step}/model.safetensors")
    assert paths(["checkpoint-*"]) == ["checkpoint-90", "checkpoint-500", "checkpoint-1000"]


def test_standard_input(runs: Path) -> None:
    """`-` reads one path a line; blank lines are passed over, an empty input is not."""
    assert paths(["-"], standard_input=["runs/b\n", "\n", "runs/a\r\n"]) == ["runs/a", "runs/b"]
    with pytest.raises(UsageError, match="has no path"):
        find(["-"], standard_input=["\n"])
    with pytest.raises(UsageError, match="more than 100000 lines"):
        find(["-"], standard_input=itertools.repeat("runs/a\n"))


def test_two_paths_to_one_file(runs: Path) -> None:
    """A folder and its file, a link and what it leads to, two names of one file: counted once, with a line."""
    (runs / "link").symlink_to("runs/a")
    os.link(runs / "runs/b/model.safetensors", runs / "hard.safetensors")
    found = find(["runs/*/", "runs/a/model.safetensors", "link", "hard.safetensors"])
    assert len(found.checkpoints) == 3
    assert len(found.notes) == 3
    assert all("is the same file as" in note for note in found.notes)


def test_equal_weights_count_once(runs: Path) -> None:
    """`last.pth` is often `best.pth`: whatever the format and the file's bytes, and the first folder stays."""
    save_file(small_net(0).state_dict(), runs / "runs/a/model.safetensors")
    torch.save(small_net(0).state_dict(), runs / "last.pt")
    found = find(["runs/*", "last.pt"])
    assert [str(one.path) for one in found.checkpoints] == ["runs/a", "runs/c"]
    assert [str(double.checkpoint.path) for double in found.doubles] == ["last.pt", "runs/b"]
    assert "last.pt holds the same weights as runs/a: counted once" in found.notes
    assert len(find(["runs/*"], doubles=True).checkpoints) == 3


def test_epochs_beside_a_checkpoint(runs: Path) -> None:
    """torchvision's reference script writes both into one folder: the error offers what takes one of them."""
    for number, name in enumerate(("model_3.pth", "model_12.pth", "checkpoint.pth")):
        (runs / "ref").mkdir(exist_ok=True)
        torch.save({"model": small_net(number).state_dict(), "epoch": 1}, runs / "ref" / name)
    with pytest.raises(CheckpointError) as refused:
        find(["ref"])
    assert "--prefer last" in f"{refused.value} {refused.value.hint}"
    found = find(["ref"], prefer="last")
    assert [str(one.path) for one in found.checkpoints] == ["ref/model_12.pth"]
    assert not any("--prefer" in note for note in found.notes)


def test_integers_apart(runs: Path) -> None:
    """Integers that have no mean and no known meaning tell two checkpoints apart, counters do not."""
    for number in range(2):
        tensors = {"w": torch.ones(3), "step": torch.tensor(number), "codes": torch.arange(20) + number}
        save_file(tensors, runs / f"coded-{number}.safetensors")
        save_file({**tensors, "codes": torch.arange(20)}, runs / f"counted-{number}.safetensors")
    assert len(find(["coded-*"]).checkpoints) == 2
    assert len(find(["counted-*"]).checkpoints) == 1


def test_one_number_apart(runs: Path) -> None:
    """Weights that differ in one element in the middle of a tensor are two ingredients."""
    tensors = {"w": torch.zeros(10_000)}
    save_file(tensors, runs / "one.safetensors")
    tensors["w"][5_000] = 1.0
    save_file(tensors, runs / "other.safetensors")
    assert len(find(["*.safetensors"]).checkpoints) == 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("absent/*", "the glob matches nothing"),
        ("runs/absent", "no such file or folder"),
        ("runs/empty", "holds no checkpoint"),
    ],
)
def test_nothing_there(runs: Path, word: str, message: str) -> None:
    """The line names the word, the hint what is there instead."""
    (runs / "runs/empty").mkdir()
    with pytest.raises(CheckpointError, match=message) as refused:
        find([word])
    assert word in str(refused.value)
    assert "runs" in (refused.value.hint or "") or "empty" in (refused.value.hint or "")


@pytest.mark.parametrize("word", ["", " "])
def test_empty_word(runs: Path, word: str) -> None:
    """An unset shell variable is a mistake, not the working folder."""
    with pytest.raises(UsageError, match="an empty word"):
        find([word])


def test_odd_names(runs: Path) -> None:
    """Names with spaces, newlines, brackets, emoji, a leading dash or no Unicode at all are files like any others."""
    names = ["with space", "new\nline", "[ab]", "🍲", "-dash", os.fsdecode(b"\xff")]
    for number, name in enumerate(names):
        save_file(small_net(number).state_dict(), runs / "plain")
        (runs / "plain").rename(runs / name)
    assert sorted(paths([f"./{name}" for name in names])) == sorted(names)


def test_how_is_passed_on(runs: Path) -> None:
    """What the user says of opening holds for every checkpoint, and progress is told of each."""
    for name in ("a", "b", "c"):
        save_file({"only": torch.ones(1)}, runs / "runs" / name / "other.safetensors")
    seen: list[tuple[int, int]] = []

    def progress(task: str, done: int, total: int, *, note: str = "") -> None:
        seen.append((done, total))

    found = find(["runs/*"], how=How(weights_name="other.safetensors"), progress=progress)
    assert all(list(checkpoint.tensors) == ["only"] for checkpoint in found.checkpoints)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_run_beside_a_broken_one(tmp_path: Path) -> None:
    """A folder without weights is passed over, but named if another checkpoint is broken: both may be broken runs."""
    for name in "abc":
        (tmp_path / name).mkdir()
    save_file({"w": torch.randn(3)}, tmp_path / "a/model.safetensors")
    assert [one.path.name for one in find([str(tmp_path / "*/")]).checkpoints] == ["a"]
    (tmp_path / "c/model.safetensors").write_bytes(b"\x09")
    with pytest.raises(CheckpointError) as raised:
        find([str(tmp_path / "*/")])
    assert f"{tmp_path / 'b'}: holds no checkpoint" in str(raised.value)


def test_many_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside weights a folder may hold any number of other files, which are neither sorted nor looked into."""
    for number in range(300):
        (tmp_path / f"{number}.txt").touch()
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    asked: list[str] = []

    def recorded(name: str) -> tuple[list[tuple[int, str]], str]:
        asked.append(name)
        return natural_order(name)

    monkeypatch.setattr(folder, "natural_order", recorded)
    monkeypatch.setattr(best_or_last, "natural_order", recorded)
    assert len(find([str(tmp_path)]).checkpoints) == 1
    assert not [name for name in asked if name.endswith(".txt")]
