"""Every form of --ckpts: many words, globs, stdin, files; each checkpoint once, in the order of paths."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

ALL = [f"runs/{number}" for number in range(5)]
Soup = Callable[..., Ran]


def found(soup: Soup, *words: str, cwd: Path | None = None) -> list[str]:
    """The checkpoints that a command takes, in its order."""
    ran = soup("uniform", "--dry-run", "--quiet", *words)
    assert ran.code == 0, ran.stderr
    return ran.stdout.splitlines()


def refused(soup: Soup, *words: str) -> str:
    """What stderr says where the words are the user's mistake; stdout stays empty."""
    ran = soup("uniform", "--dry-run", *words)
    assert (ran.code, ran.stdout) == (2, "")
    return ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--ckpts", *ALL],
        ["--ckpts", *reversed(ALL)],
        ["--ckpts", *(f"{path}/" for path in ALL)],
        ["--ckpts", "runs/*/"],
        ["--ckpts", "runs/*"],
        ["--ckpts", "**/[0-9]/"],
        ["--ckpts", "runs/[3-4]", "runs/[0-2]"],
        ["--ckpts", "runs/[3-4]", "--ckpts", "runs/[0-2]"],
        ["--ckpts", "runs/1", "--max-shard-size", "1GB", "--ckpts", "runs/*"],
        [f"--ckpts={ALL[0]}", *ALL[1:]],
        ["--ckpts", *ALL, "--dtype", "float16", "--force"],
        ["--ckpts", "--", *ALL],
    ],
    ids=" ".join,
)
def test_forms(family: Path, soup: Soup, words: list[str]) -> None:
    """All forms mean the same checkpoints in the order of their paths, whatever the shell's order."""
    assert found(soup, *words) == ALL


def test_standard_input(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads one path a line, empty lines aside, and stands beside other words."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("runs/4\nruns/0/\n\nruns/2\r\n"))
    assert found(soup, "--ckpts", "-", "runs/1") == ["runs/0", "runs/1", "runs/2", "runs/4"]


def test_standard_input_takes_paths_as_they_are(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of stdin is a path, never a glob."""
    shutil.copytree("runs/0", "runs/a*")
    monkeypatch.setattr(sys, "stdin", io.StringIO("runs/a*\n"))
    assert found(soup, "--ckpts", "-") == ["runs/a*"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("runs/[0-4]\n"))
    assert refused(soup, "--ckpts", "-").startswith("runs/[0-4]: no such file or folder\n")


def test_empty_standard_input(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on stdin is an error that shows the form."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert refused(soup, "--ckpts", "-") == (
        "--ckpts -: standard input has no path\n\nhint: ls -d runs/*/ | soup ... --ckpts -\n"
    )


def test_files(family: Path, soup: Soup) -> None:
    """Weights files are checkpoints as their folders are, by name and by glob."""
    files = [f"{path}/model.safetensors" for path in ALL]
    assert found(soup, "--ckpts", *files) == files
    assert found(soup, "--ckpts", "runs/*/*.safetensors") == files


def test_existing_path_before_glob(family: Path, soup: Soup) -> None:
    """A path that exists is taken as it is, though it has a glob's characters and the glob would match another."""
    shutil.copytree("runs/0", "runs/lr[0.1]")
    shutil.copytree("runs/1", "runs/lr0")
    assert found(soup, "--ckpts", "runs/lr[0.1]") == ["runs/lr[0.1]"]
    assert found(soup, "--ckpts", "runs/lr[0]") == ["runs/lr0"]


def test_leading_dash(family: Path, soup: Soup) -> None:
    """After `--` a name that begins with a dash is a path."""
    shutil.copytree("runs/0", "-a")
    assert found(soup, "--ckpts", "runs/1", "--", "-a") == ["-a", "runs/1"]


def test_home(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quoted `~` is the home folder."""
    monkeypatch.setenv("HOME", str(family))
    assert found(soup, "--ckpts", "~/runs/[01]") == [f"{family}/runs/0", f"{family}/runs/1"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_two_paths_to_one_file(family: Path, soup: Soup, link: Callable[[Path, Path], None]) -> None:
    """Two paths to one file count once, the first by path, and stderr says so."""
    Path("runs/9").mkdir()
    link(family / "runs/0/model.safetensors", family / "runs/9/model.safetensors")
    ran = soup("uniform", "--ckpts", "runs/*", "--json")
    assert ran.code == 0
    assert json.loads(ran.stdout)["soup"]["members"] == ALL
    assert ran.stderr == "runs/9 is the same file as runs/0: counted once\n"


def test_linked_folder_and_file_inside(family: Path, soup: Soup) -> None:
    """A link to a folder, and the file inside the folder, are the same checkpoint as the folder."""
    Path("link").symlink_to("runs/0")
    ran = soup("uniform", "--dry-run", "--ckpts", "runs/0", "link", "runs/0/model.safetensors", "./runs/0/", "--json")
    assert [ingredient["path"] for ingredient in json.loads(ran.stdout)["ingredients"]] == ["link"]
    assert ran.stderr == (
        "runs/0 is the same file as link: counted once\n"
        "runs/0/model.safetensors is the same file as link: counted once\n"
    )


def test_equal_weights_count_once(family: Path, soup: Soup) -> None:
    """A copy is left out with a line, and the report says so; soup eval and --weights take it as it is given."""
    shutil.copytree("runs/0", "runs/copy")
    words = ["--ckpts", "runs/0", "runs/1", "runs/copy"]
    ran = soup("uniform", *words, "--json")
    report = json.loads(ran.stdout)
    assert report["soup"]["members"] == ["runs/0", "runs/1"]
    assert report["left_out"] == [{"path": "runs/copy", "reason": "holds the same weights as runs/0"}]
    assert "runs/copy holds the same weights as runs/0: counted once\n" in ran.stderr
    mixed = soup("mix", *words, "--weights", "2,1,1", "--json", "--force")
    assert json.loads(mixed.stdout)["soup"]["members"] == ["runs/0", "runs/1", "runs/copy"]
    assert len(json.loads(soup("eval", *words, "--val", "val", "--json").stdout)["ingredients"]) == 3


def test_weights_name(family: Path, soup: Soup) -> None:
    """--weights-name picks the file where folders hold several; without it the error lists them."""
    for path, other in zip(ALL[:2], ALL[2:4], strict=True):
        shutil.move(f"{path}/model.safetensors", f"{path}/b.safetensors")
        shutil.copy(f"{other}/model.safetensors", f"{path}/a.safetensors")
    assert refused(soup, "--ckpts", *ALL[:2]) == (
        "2 of 2 checkpoints cannot be opened:\n"
        "  runs/0: holds 2 checkpoints: a.safetensors, b.safetensors "
        "(pick one with --weights-name a.safetensors, or with --weights-name b.safetensors, "
        "or give the files: --ckpts 'runs/0/*')\n"
        "  runs/1: holds 2 checkpoints: a.safetensors, b.safetensors "
        "(pick one with --weights-name a.safetensors, or with --weights-name b.safetensors, "
        "or give the files: --ckpts 'runs/1/*')\n\n"
        "hint: mend them, or leave them out\n"
    )
    ran = soup("uniform", "--ckpts", *ALL[:2], "--weights-name", "a.safetensors", "--json")
    assert json.loads(ran.stdout)["soup"]["members"] == ALL[:2]
    assert refused(soup, "--ckpts", *ALL[:2], "--weights-name", "best.pt").startswith(
        "2 of 2 checkpoints cannot be opened:\n  runs/0: has no file best.pt"
    )


def test_ckpts_of_the_recipe(family: Path, soup: Soup) -> None:
    """Without --ckpts those of the recipe are taken, which lie beside it; the flag goes before."""
    with Path("soup.yaml").open("a") as recipe:
        recipe.write("ckpts: [runs/*/]\n")
    assert found(soup) == ALL
    assert found(soup, "--ckpts", "runs/1") == ["runs/1"]
    os.chdir("runs")
    assert found(soup, "-r", "../soup.yaml") == [f"../{path}" for path in ALL]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--ckpts: no checkpoints given\n\nhint: e.g. --ckpts runs/*/\n"),
        (["--ckpts"], "--ckpts: needs at least one value\n\nhint: did a glob match nothing?\n"),
        (["--ckpts", "--force"], "--ckpts: needs at least one value\n\nhint: did a glob match nothing?\n"),
        (["--ckpts", ""], "--ckpts: an empty word\n\nhint: is a shell variable unset?\n"),
        (["--ckpts", "runs/0", ""], "--ckpts: an empty word\n\nhint: is a shell variable unset?\n"),
        (["--ckpts="], "--ckpts: an empty word\n\nhint: is a shell variable unset?\n"),
        (["runs/0"], "unexpected argument 'runs/0'\n\nhint: checkpoints go after --ckpts: --ckpts runs/0\n"),
        (["--ckpts", "run/*"], "run/*: the glob matches nothing\n\nhint: . holds data, net.py, runs, soup.yaml\n"),
        (["--ckpts", "runs/x*"], "runs/x*: the glob matches nothing\n\nhint: runs holds 0, 1, 2, 3, 4\n"),
        (["--ckpts", "runs/7"], "runs/7: no such file or folder\n\nhint: runs holds 0, 1, 2, 3, 4\n"),
        (
            ["--ckpts", "net.py"],
            "net.py: not a checkpoint: none of torch.save, NeMo, safetensors, numpy pickle\n\n"
            "hint: --ckpts takes checkpoint files and folders that hold one\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(family: Path, soup: Soup, words: list[str], message: str) -> None:
    """Each mistake is one line and a hint that can be acted on, with exit code 2."""
    assert refused(soup, *words) == message
