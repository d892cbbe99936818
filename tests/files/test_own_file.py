"""No command replaces a file of another kind than it writes: inputs, recipes, sets and other programs' files stay."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from soupcli.errors import OutputError
from soupcli.files.own_file import KINDS, check_target, signed
from tests.conftest import Ran

Soup = Callable[..., Ran]


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def test_reports_replace_reports_alone(family: Path, soup: Soup) -> None:
    """--report takes a new name and an old report of its kind; anything else is refused by name and stays."""
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    words = ["rank", "--ckpts", "runs/*/", "--val", "val", "--quiet", "--report"]
    assert [soup(*words, "rank.json").code for _ in range(2)] == [0, 0]
    Path("link.json").symlink_to("runs/0/model.safetensors")
    os.link("soup.yaml", "hard.json")
    Path("mine.json").write_text('{"schema": "mine"}')
    Path("through.json").symlink_to("rank.json")
    before = contents()
    others = ("soup.yaml", "runs/0/model.safetensors", "data/val.safetensors", "link.json", "hard.json", "mine.json")
    for path in (*others, "soup/soup.json", "net.py", "runs/../soup.yaml", "new/../soup.yaml"):
        ran = soup(*words, path)
        assert (ran.code, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"{path}: exists and is not a report of soup that may be replaced: nothing else")
    assert contents() == before
    assert soup(*words, "through.json").code == 0
    assert Path("through.json").is_symlink()
    Path("rank.json").chmod(0o444)
    for path in ("rank.json", "through.json"):
        assert soup(*words, path).stderr.startswith(f"{path}: exists, and nobody may write to it")


def test_init_replaces_no_file_behind_a_folder_to_be(family: Path, soup: Soup) -> None:
    """`new/../net.py` is net.py as soon as `new` is made."""
    before = contents()
    assert soup("init", "--out", "new/../net.py", "--force").code == 2
    assert soup("init", "--out", "new/../soup.yaml").code == 2
    assert contents() == before


def test_pages_and_pictures(family: Path, soup: Soup) -> None:
    """`soup report` replaces its pages, `soup plot` its pictures, and no file of the user's that names soup."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--quiet").code == 0
    commands = {
        "page.html": ["report"],
        "a.png": ["plot", "--kind", "path"],
        "a.svg": ["plot", "--kind", "path"],
        "page.md": ["report"],
    }
    for name, (command, *rest) in commands.items():
        words = [command, "soup/soup.json", *rest, "--out"]
        assert [soup(*words, name).code for _ in range(2)] == [0, 0]
        for mine in (
            b"<html>of the user",
            b"<html>made from what soup (model soups) wrote",
            b"\x89PNG soup (model soups)",
        ):
            Path(f"mine-{name}").write_bytes(mine)
            ran = soup(*words, f"mine-{name}")
            assert (ran.code, Path(f"mine-{name}").read_bytes()) == (2, mine)


def test_logits(family: Path, soup: Soup) -> None:
    """Logits go into no ingredient and no set, and replace no file that is not theirs."""
    words = ["rank", "--ckpts", "runs/*/", "--val", "val", "--quiet", "--save-logits"]
    before = contents()
    for folder in ("runs/0", "runs/0/logits", "data", ".", "runs"):
        ran = soup(*words, folder)
        assert (ran.code, ran.stdout) == (2, ""), folder
    assert contents() == before
    assert soup(*words, "logits").code == 0
    [kept] = sorted(Path("logits").rglob("*.safetensors"))[:1]
    kept.write_bytes(Path("runs/0/model.safetensors").read_bytes())
    ran = soup(*words, "logits", "--fresh")
    assert ran.code == 2 and f"{kept}: exists and is not logits that soup kept" in ran.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_odd_files(tmp_path: Path, kind: str) -> None:
    """Whatever stands there, the answer is an error that names it: no hang, and nothing is replaced."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("[" * 50_000)
    (tmp_path / "latin").write_bytes(b"\xff\xfe{}")
    (tmp_path / "list").write_text("[]")
    (tmp_path / "number").write_text("1" * 10_000)
    (tmp_path / "soup").write_text(json.dumps({"schema": "soup-report/1", "soup": {}}))
    for name in ("pipe", "deep", "latin", "list", "number", "soup"):
        with pytest.raises(OutputError, match=name):
            check_target(tmp_path / name, kind)  # type: ignore[arg-type]
    for device in ("/dev/null", "/dev/stdout", "/dev/full"):
        with pytest.raises(OutputError, match=device):
            check_target(Path(device), kind)  # type: ignore[arg-type]
    (tmp_path / "empty").touch()
    check_target(tmp_path / "empty", kind)  # type: ignore[arg-type]


def test_a_recipe_is_known_while_it_is_untouched(tmp_path: Path) -> None:
    """One letter more, anywhere, and it is the user's."""
    text = signed(b"# a recipe\nout: soup/\n")
    (tmp_path / "soup.yaml").write_bytes(text)
    check_target(tmp_path / "soup.yaml", "recipe")
    for changed in (b" " + text, text + b"\n", text.replace(b"soup/", b"soups/"), signed(text)[:-1]):
        (tmp_path / "soup.yaml").write_bytes(changed)
        with pytest.raises(OutputError, match=r"is not as soup init wrote it"):
            check_target(tmp_path / "soup.yaml", "recipe")
