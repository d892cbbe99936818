"""A soup's folder: whole or not at all, and nothing of the user's is lost, whatever stands there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from soupcli.errors import OutputError
from soupcli.files import atomic
from soupcli.files.lock import claim, finish_abandoned
from soupcli.mixing import old_soup, soup_folder
from soupcli.mixing.soup_folder import REPORT, Input, SoupFolder, check_free


def soup_at(out: Path, text: str, *, force: bool = False, inputs: tuple[Input, ...] = (), more: str = "") -> None:
    """A folder that looks like a soup."""
    with SoupFolder(out, force=force, inputs=inputs) as folder:
        hashes = {"model.safetensors": folder.add("model.safetensors", text.encode())}
        if more:
            hashes[more] = folder.add(more, b"{}")
        soup = {"files": [*hashes, REPORT], "file_hashes": hashes}
        (folder.path / REPORT).write_text(json.dumps({"schema": "soup-report/1", "soup": soup}))
        before = out / "model.safetensors"
        assert not before.exists() or before.read_text() != text
        folder.commit()


def tree(folder: Path) -> dict[str, str]:
    """What stands below a folder: content of files, targets of links, modes of folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = f"-> {path.readlink()}" if path.is_symlink() else ""
        content = content or (path.read_text() if path.is_file() else oct(stat.S_IMODE(path.stat().st_mode)))
        found[str(path.relative_to(folder))] = content
    return found


def test_folder_appears_whole(tmp_path: Path) -> None:
    """It has its name once it is committed and not before; nothing else is left beside it."""
    soup_at(tmp_path / "soup", "one")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["model.safetensors", "soup", REPORT]


def test_force_replaces_what_soup_wrote_and_nothing_else(tmp_path: Path) -> None:
    """Files, folders and links of the user's stay, whatever their names; so do the modes of the folders."""
    out = tmp_path / "soup"
    soup_at(out, "one", more="1_Pooling/config.json")
    for name in ("notes.txt", "model_0.safetensors", "models/a.bin", "1_Pooling/mine.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (out / "link").symlink_to("/nowhere")
    (out / "empty").mkdir()
    out.chmod(0o2750)
    (out / "models").chmod(0o700)
    with pytest.raises(OutputError, match=f"{out}: already holds a soup") as caught:
        soup_at(out, "two")
    assert "--force" in str(caught.value.hint)
    before = tree(out)
    soup_at(out, "two", force=True)
    ours = {"1_Pooling/config.json", "model.safetensors", REPORT}
    assert {name: content for name, content in before.items() if name not in ours} == {
        name: content for name, content in tree(out).items() if name not in ours
    }
    assert (out / "model.safetensors").read_text() == "two" and not (out / "1_Pooling/config.json").exists()
    assert stat.S_IMODE(out.stat().st_mode) == 0o2750
    assert [path.name for path in tmp_path.iterdir()] == ["soup"]


def edit(out: Path) -> None:
    (out / "model.safetensors").write_text("mine")


def own_link(out: Path) -> None:
    (out.parent / "elsewhere").write_text("one")
    (out / "model.safetensors").unlink()
    (out / "model.safetensors").symlink_to("../elsewhere")


def own_name(out: Path) -> None:
    (out / "new.json").write_text("mine")


def no_hashes(out: Path) -> None:
    report = json.loads((out / REPORT).read_text())
    del report["soup"]["file_hashes"]
    (out / REPORT).write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit, "model.safetensors: is not what its report says"),
        (own_link, "model.safetensors: is not what its report says"),
        (own_name, "new.json: soup did not write it"),
        (no_hashes, "model.safetensors: has no hash in"),
    ],
)
def test_what_soup_did_not_write_is_refused_by_name(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    """With force too: the file is named, and all stays as it was."""
    out = tmp_path / "soup"
    soup_at(out, "one")
    change(out)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=message):
        soup_at(out, "two", force=True, more="new.json")
    assert tree(tmp_path) == before


def test_a_model_card_that_was_edited_stays(tmp_path: Path) -> None:
    """The user's words in README.md are carried on, and the new soup writes none."""
    out = tmp_path / "soup"
    soup_at(out, "one", more="README.md")
    (out / "README.md").write_text("mine")
    with SoupFolder(out, force=True) as folder:
        assert folder.kept == ("README.md",)
    soup_at(out, "two", force=True)
    assert (out / "README.md").read_text() == "mine"


OTHER_REPORTS = {
    "of rank": {"schema": "soup-report/1", "command": "rank", "soup": None},
    "another program's": {"soup": {"files": ["model.safetensors"]}},
    "a list": [],
    "leads out": {"schema": "soup-report/1", "soup": {"files": ["../thesis.tex"], "file_hashes": {}}},
    "absolute": {"schema": "soup-report/1", "soup": {"files": ["/etc/passwd"], "file_hashes": {}}},
    "numbers": {"schema": "soup-report/1", "soup": {"files": [1, 2], "file_hashes": {}}},
}


@pytest.mark.parametrize("kind", OTHER_REPORTS)
def test_a_folder_with_another_report_is_no_soup(tmp_path: Path, kind: str) -> None:
    """A project folder in which a report of rank is called soup.json is not replaced."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / REPORT).write_text(json.dumps(OTHER_REPORTS[kind]))
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="project: is not a soup"):
        check_free(tmp_path / "project", force=True)
    (tmp_path / "project" / REPORT).write_text("[" * 100_000)
    with pytest.raises(OutputError, match="project: is not a soup"):
        check_free(tmp_path / "project", force=True)


def test_what_is_no_soup_is_never_replaced(tmp_path: Path) -> None:
    """A file, and a folder with other things in it, are refused with force too; an empty folder is taken."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    soup_at(tmp_path / "folder", "one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("years")
    for name, message in (("file", "is a file"), ("other", "exists and is not a soup")):
        with pytest.raises(OutputError, match=message):
            check_free(tmp_path / name, force=True)


def test_a_link_stays(tmp_path: Path) -> None:
    """A soup behind a link: the link stays, its target is replaced. One that dangles is followed."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "soup").symlink_to("disk/soup")
    soup_at(tmp_path / "soup", "one")
    soup_at(tmp_path / "soup", "two", force=True)
    assert (tmp_path / "soup").is_symlink()
    assert (tmp_path / "disk/soup/model.safetensors").read_text() == "two"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "model.safetensors", "soup", "soup", REPORT]


def test_what_is_mounted_in_a_soup_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A soup around a mounted folder is not replaced: its removal would go on into that folder."""
    out = tmp_path / "a soup"
    soup_at(out, "one")
    (out / "data of others").mkdir()
    (out / "data of others/mine.txt").write_text("mine")
    before = tree(tmp_path)
    mounts = tmp_path.parent / "mounts"
    monkeypatch.setattr(old_soup, "MOUNTS", mounts)
    place = str(out.resolve()).replace(" ", r"\040")
    mounts.write_text(rf"36 35 98:0 / {place}/data\040of\040others rw - ext4 /dev/sda rw" + "\n")
    with pytest.raises(OutputError, match="a soup/data of others: something else is mounted there") as refused:
        soup_at(out, "two", force=True)
    assert str(refused.value.hint).startswith(f"umount {out}/data of others")
    assert tree(tmp_path) == before
    mounts.write_text(f"36 35 98:0 / {place} rw - ext4 /dev/sda rw\n36 35 98:0 / {place}s/x rw - ext4 /dev/sda rw\n")
    soup_at(out, "two", force=True)


def test_what_the_system_does_not_remove_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of an old soup, such as a file that chattr +i protects, does not stay beside the new one unsaid."""
    soup_at(tmp_path / "soup", "one")
    with SoupFolder(tmp_path / "soup", force=True) as folder:
        (folder.path / REPORT).write_text("{}")
        with monkeypatch.context() as patch:
            patch.setattr(soup_folder, "remove", lambda _: None)
            folder.commit()
        assert folder.rest is not None
        assert (folder.rest / "model.safetensors").read_text() == "one"


def test_inputs_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a soup is none of an input's, in any spelling: not the same, not above it, not in it."""
    monkeypatch.chdir(tmp_path)
    ingredient = Path("runs/a")
    soup_at(ingredient, "an ingredient that is a soup")
    Path("link").symlink_to("runs/a")
    Path("other").symlink_to("runs")
    spelled = {
        "runs/a": "is the ingredient",
        "runs/../runs/a/": "is the ingredient",
        "link": "is the ingredient",
        "other/a": "is the ingredient",
        "runs": "holds the ingredient",
        "runs/a/soup": "lies in the ingredient",
        "link/deep/er": "lies in the ingredient",
        ".": "is the working folder",
        "..": "is the working folder, or holds it",
        "/": "is the root",
        "other/a/../../../../../../../../..": "is the root",
    }
    before = tree(tmp_path)
    for out, message in spelled.items():
        with pytest.raises(OutputError, match=message):
            soup_at(Path(out), "two", force=True, inputs=(Input("ingredient", ingredient),))
    for path in (Path("link"), Path("other/a/model.safetensors"), tmp_path / "runs/a"):
        with pytest.raises(OutputError, match=r"runs/a: (is|holds) the ingredient"):
            check_free(Path("runs/a"), force=True, inputs=[Input("ingredient", path)])
    assert tree(tmp_path) == before


def killed_at(step: int, out: Path) -> bool:
    """Replaces the soup in a fork that is killed before its `step`-th renaming; whether it was killed."""
    child = os.fork()
    if child == 0:
        steps = iter(range(step))
        rename = Path.rename

        def counted(path: Path, target: Path) -> Path:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)

        Path.rename = counted  # type: ignore[method-assign, assignment]
        atomic._exchange_at_once = lambda one, other: False  # a file system that cannot
        soup_at(out, "two", force=True)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_between_two_renames(tmp_path: Path) -> None:
    """Where two folders cannot be exchanged, the next start finishes what was begun, at whatever step it was killed."""
    out = tmp_path / "soup"
    found = []
    for step in range(9):
        if out.exists():
            with claim(out):
                pass
            for path in out.iterdir():
                path.unlink()
            out.rmdir()
        soup_at(out, "one")
        (out / "notes.txt").write_text("mine")
        killed = killed_at(step, out)
        there_at_once = out.exists()
        with claim(out):
            assert (out / "notes.txt").read_text() == "mine"
            whole = (out / "model.safetensors").read_text()
            assert json.loads((out / REPORT).read_text())["soup"]["file_hashes"] == {
                "model.safetensors": f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"
            }
        assert [path.name for path in tmp_path.iterdir()] == ["soup"]
        found.append((killed, there_at_once, whole))
        if not killed:
            break
    assert found == [(True, True, "one"), (True, True, "one"), (True, False, "two"), (False, True, "two")]


@pytest.mark.parametrize("asked", ["soup", "soup/", "soup/soup.json"])
def test_killed_between_two_renames_and_then_read(asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only reads the soup gets the new one, whether its folder or a file in it was named; nothing else stays."""
    monkeypatch.chdir(tmp_path)
    soup_at(Path("soup"), "one")
    assert killed_at(2, Path("soup"))
    assert not Path("soup").exists()
    finish_abandoned(Path(asked))
    assert Path("soup/model.safetensors").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["soup"]
    finish_abandoned(Path("soup\0"))


def test_a_soup_in_a_folder_that_only_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the complete folder that waits beside, and the command that gives it its name."""
    soup_at(tmp_path / "soup", "one")
    assert killed_at(2, tmp_path / "soup")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match=r"nothing can be written .*\.new was to get this name") as refused:
        finish_abandoned(tmp_path / "soup")
    assert str(refused.value.hint).startswith("mv ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_owner_of_a_folder_stays(tmp_path: Path) -> None:
    """A soup that root makes again in a user's folder leaves it the user's."""
    out = tmp_path / "soup"
    soup_at(out, "one")
    os.chown(out, 12, 34)
    out.chmod(0o2750)
    soup_at(out, "two", force=True)
    found = out.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12, 34, 0o2750)
