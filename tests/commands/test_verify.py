"""`soup verify`: what a soup is made of can be checked; the report tells nothing of whose machine it was made on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Ran

Soup = Callable[..., Ran]
WEIGHTS = Path("soup/model.safetensors")


@pytest.fixture
def made(family: Path, soup: Soup) -> None:
    """A greedy soup with side files."""
    for number in range(5):
        Path(f"runs/{number}/config.json").write_text("{}")
    assert soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--quiet").code == 0


def test_killed_before_it_got_its_name(made: None, soup: Soup) -> None:
    """verify, mix, inspect and report finish what a killed process had begun, as the next writer does."""
    for words in (
        ["verify", "soup"],
        ["mix", "soup/soup.json", "--dry-run"],
        ["inspect", "--ckpts", "soup"],
        ["report", "soup"],
    ):
        WEIGHTS.parent.rename(".soup.999999999-0123abcd-1-0.new")
        ran = soup(*words)
        assert ran.code == 0, (words, ran.stderr)
        assert WEIGHTS.exists()


def verdicts(ran: Ran) -> dict[str, bool | None]:
    return {check["what"]: check["as_reported"] for check in json.loads(ran.stdout)["checks"]}


def entries() -> list[Path]:
    """All that lies in the working folder, but what Python compiles."""
    return sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts)


def test_as_it_was_written(made: None, soup: Soup) -> None:
    """Weights, members and the soup mixed again are as reported; nothing stays of the second soup."""
    before = entries()
    ran = soup("verify", "soup/", "--rebuild", "--json")
    assert ran.code == 0, ran.stderr
    found = verdicts(ran)
    members = json.loads(Path("soup/soup.json").read_bytes())["soup"]["members"]
    assert found == {"files": True, "weights": True, "rebuilt": True, **dict.fromkeys(members, True)}
    assert json.loads(ran.stdout)["verified"] is True
    assert entries() == before
    assert soup("verify", "soup/soup.json").stdout.splitlines()[0].split() == ["checked", "as", "reported", "found"]


def test_folders_with_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Soup) -> None:
    """The report says which file --weights-name took from each folder, so that the soup is checked and made again."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        for name in ("best", "last"):
            save_file({"w": torch.full((2, 2), float(number + len(name)))}, f"runs/{number}/{name}.safetensors")
    words = ["uniform", "--ckpts", "runs/*/", "--weights-name", "last.safetensors"]
    assert soup(*words, "--out", "mean", "--quiet").code == 0
    ran = soup("verify", "mean", "--rebuild", "--json")
    assert (ran.code, set(verdicts(ran).values())) == (0, {True})
    assert soup("mix", "mean/soup.json", "--out", "again", "--quiet").code == 0
    name = "last.safetensors"
    assert Path("again", name).read_bytes() == Path("mean", name).read_bytes()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)


def no_members() -> None:
    report = json.loads(Path("soup/soup.json").read_bytes())
    report["soup"]["members"][0] = "runs/nobody"
    Path("soup/soup.json").write_text(json.dumps(report))


def other_weights() -> None:
    report = json.loads(Path("soup/soup.json").read_bytes())
    report["soup"]["weights"] = [weight / 2 for weight in report["soup"]["weights"]]
    Path("soup/soup.json").write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda member: flip(WEIGHTS), ["weights", "rebuilt"]),
        (lambda member: flip(Path(member, "model.safetensors")), ["{member}", "rebuilt"]),
        (lambda member: Path("soup/config.json").write_text("{ }"), ["config.json", "rebuilt"]),
        (lambda member: Path("soup/config.json").unlink(), ["files", "rebuilt"]),
        (lambda member: WEIGHTS.unlink(), ["files", "weights", "rebuilt"]),
        (lambda member: no_members(), ["header of model.safetensors", "rebuilt"]),
        (lambda member: other_weights(), ["header of model.safetensors", "rebuilt"]),
        (lambda member: Path(member, "model.safetensors").write_text("x"), ["{member}", "rebuilt"]),
    ],
    ids=["weights", "member", "side file", "side file gone", "weights gone", "another member", "other weights", "none"],
)
def test_what_is_not_as_reported(made: None, soup: Soup, change: Callable[[str], None], broken: list[str]) -> None:
    """Each thing that is another one than reported is named, and the answer is no."""
    member = json.loads(Path("soup/soup.json").read_bytes())["soup"]["members"][0]
    change(member)
    ran = soup("verify", "soup", "--rebuild", "--quiet")
    assert (ran.code, ran.stdout.splitlines()) == (1, [name.format(member=member) for name in broken])


def test_a_disk_that_fails_is_no_answer(made: None, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read for now is an error (2); "is not what it was" (1) would be a lie."""

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", failing)
    ran = soup("verify", "soup/")
    assert (ran.code, ran.stdout) == (2, "")
    assert "Input/output error" in ran.stderr


def test_members_that_are_gone(made: None, soup: Soup) -> None:
    """What is not there cannot be checked: said, and no reason for a no; without it nothing can be mixed again."""
    Path("runs").rename("elsewhere")
    ran = soup("verify", "soup", "--json")
    assert ran.code == 0
    found = verdicts(ran)
    assert [found.pop("files"), found.pop("weights")] == [True, True]
    assert set(found.values()) == {None}
    assert soup("verify", "soup", "--rebuild").code == 1


@pytest.mark.parametrize("path", ["nowhere", "runs/0", "rank.json", "soup.yaml"])
def test_what_is_no_soup(family: Path, soup: Soup, path: str) -> None:
    """What has no report of a soup is the user's error."""
    assert soup("rank", "--ckpts", "runs/*/", "--val", "val", "--report", "rank.json").code == 0
    ran = soup("verify", path)
    assert (ran.code, ran.stdout) == (2, "")


@pytest.mark.parametrize("command", ["rank", "eval", "uniform", "greedy", "learned"])
def test_relative(family: Path, soup: Soup, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --relative no absolute path is in the report, whatever was absolute before; nor is the environment."""
    monkeypatch.setenv("API_KEY", "a-secret-of-the-environment")
    here = Path.cwd()
    for file in ("soup.yaml", "net.py"):
        (here / file).rename(here / "data" / file)
    recipe = (here / "data/soup.yaml").read_text().replace("data/", "").replace('"net.py', f'"{here}/data/net.py')
    (here / "data/soup.yaml").write_text(recipe)
    words = [command, "--recipe", f"{here}/data/soup.yaml", "--ckpts", *map(str, here.glob("runs/*"))]
    words += ["--val", f"{here}/data/val.safetensors", "--json", "--set", "learned.steps=5"]
    writes = ["--out", f"{here}/soup", "--force"] if command in ("uniform", "greedy", "learned") else []
    absolute = soup(*words, *writes)
    assert (absolute.code, str(here) in absolute.stdout) == (0, True), absolute.stderr
    ran = soup(*words, *writes, "--relative")
    assert ran.code == 0, ran.stderr
    assert str(here) not in ran.stdout and str(Path.home()) + "/" not in ran.stdout
    assert "a-secret" not in ran.stdout and os.environ["SOUP_CACHE"] not in ran.stdout
    report = json.loads(ran.stdout)
    assert report["ingredients"][0]["path"].startswith("runs/")
    assert list(report["ingredients"][0]["scores"]) in ([], ["data/val.safetensors"])
    if writes:
        assert (Path("soup/soup.json").read_text(), soup("verify", "soup", "--rebuild").code) == (ran.stdout, 0)


def test_dry_run_shows_what_would_run(family: Path, soup: Soup) -> None:
    """A recipe from elsewhere is shown with the code and the commands that it would start; nothing of it runs."""
    Path("net.py").write_text("import pathlib; pathlib.Path('ran').touch()\n" + Path("net.py").read_text())
    Path("mine.yaml").write_text(
        'model: {python: "net.py:build"}\nval:\n  mine: {python: "net.py:evaluate"}\n'
        "  theirs: {command: \"sh -c 'touch ran; echo 1' {checkpoint}\", metric: accuracy}\n"
    )
    words = ["rank", "--recipe", "mine.yaml", "--ckpts", "runs/*/", "--val", "mine", "theirs", "--dry-run"]
    plan = json.loads(soup(*words, "--json").stdout)
    assert [reference.rpartition("/")[2] for reference in plan["code"]] == ["net.py:build", "net.py:evaluate"]
    assert plan["commands"] == ["sh -c 'touch ran; echo 1' '{checkpoint}'"]
    shown = soup(*words).stdout
    assert "runs code" in shown and "sh -c 'touch ran; echo 1'" in shown
    assert not Path("ran").exists()
