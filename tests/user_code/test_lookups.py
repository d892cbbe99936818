"""What the user's code asks for without opening it: missing files, variables, packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from threading import Thread

import pytest

from soupcli.cli.parsing import guarded
from soupcli.evaluation.context import made_manifest
from soupcli.files.manifest import Manifest, UserReads
from soupcli.user_code import changes
from soupcli.user_code import files as user_files
from soupcli.user_code import lookups as user_lookups
from soupcli.user_code import projects as user_projects
from soupcli.user_code.files import read_files
from soupcli.user_code.function import load_function, users_code
from soupcli.user_code.lookups import asked_files, asked_variables, stated_files
from soupcli.user_code.packages import used_packages

NET = """
import os
from glob import glob
from pathlib import Path
import yaml

def ask():
    os.path.exists("missing.txt")
    glob("*.nowhere")
    Path("folder").is_dir()
    os.access("readable.txt", os.R_OK)
    os.environ.get("ASKED" + "_FOR")
    return dict(os.environ)

def copy():
    return {**os.environ}.get("split")

def count():
    return sum(1 for name, value in os.environ.items() if name.startswith("SPLIT_"))
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def test_questions(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of the user's code are remembered, those of others are not.

    A loop over all variables counts, but for those of the session. Of a copy those count that texts of the code name.
    """
    load_function(f"{net}:ask")()
    monkeypatch.setenv("split", "")
    load_function(f"{net}:copy")()
    assert {"split", "SPLIT_"} <= set(asked_variables())
    Path("ours.txt").exists()
    assert {net.parent / name for name in ("missing.txt", "folder", "readable.txt")} <= asked_files()
    assert net.parent / "ours.txt" not in asked_files()
    assert "ASKED_FOR" in asked_variables()
    assert "PATH" not in asked_variables()
    before = Manifest(user=UserReads(variables=asked_variables)).depends()
    load_function(f"{net}:count")()
    kept = Manifest(user=UserReads(variables=asked_variables)).depends()
    assert len(before) < len(kept)
    monkeypatch.setenv("SHLVL", "99")
    assert Manifest().holds(kept)
    with users_code():  # which puts a folder on the path of what is started
        assert Manifest().holds(kept)
    monkeypatch.setenv("SPLIT_A", "")
    assert Manifest().holds(before)
    assert not Manifest().holds(kept)


OTHERS = """
import locale, os, subprocess

def number():
    return len(os.environ)

def shell():
    return subprocess.check_output("echo ${for_shell:-1}; sh script.sh", shell=True)
"""


def test_variables_that_no_text_of_python_names(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number, those of the language, and those of a shell with defaults, in a script too, count as read."""
    Path("others.py").write_text(OTHERS)
    Path("script.sh").write_text("echo ${in_script:-2}")
    of_run = made_manifest()
    called = Thread(target=load_function("others.py:shell"))  # in the main thread this program is to call it
    called.start()
    called.join()
    known = set(of_run._user.variables())
    assert known >= {"LC_ALL", "LANG", "for_shell", "in_script"}
    kept = Manifest(user=UserReads(variables=asked_variables)).depends()
    load_function("others.py:number")()
    counted = Manifest(user=UserReads(variables=asked_variables)).depends()
    monkeypatch.setenv("one_more", "")
    assert Manifest().holds(kept)
    assert not Manifest().holds(counted)


LOOKS = """
import os
from pathlib import Path

def look():
    os.path.getmtime("timed.txt")
    os.access("mode.sh", os.X_OK)
    Path("sized.txt").stat()
    os.path.exists("there.txt")
    os.path.samefile("one" + ".txt", "two" + ".txt")
    os.fstat(os.open("open" + ".txt", os.O_RDONLY))
    os.read(os.open("direct" + ".txt", os.O_RDONLY), 1)
    folder = os.open(".", os.O_RDONLY)
    os.read(os.open("within" + ".txt", os.O_RDONLY, dir_fd=folder), 1)
    return [entry.stat().st_size for entry in os.scandir("scanned")], os.listdir("listed")
"""


def test_versions_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many kept results depend on a distribution, a run looks for its version once, and the next one anew."""
    looked: list[str] = []
    found = metadata.distribution

    def counted(name: str) -> metadata.Distribution:
        looked.append(name)
        return found(name)

    monkeypatch.setattr(metadata, "distribution", counted)
    manifest = Manifest(user=UserReads(packages=lambda: ["torch"]))
    kept = manifest.depends()
    assert all(manifest.holds(kept) for _ in range(3)) and looked == ["torch"]
    assert manifest.again().holds(kept) and looked == ["torch", "torch"]


def test_sizes_times_and_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count where the user's code may look at them, not where it only asks whether a file is there.

    So does the kind of each entry of a folder that is listed.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "looks.py").write_text(LOOKS)
    named = [f"{name}.txt" for name in ("timed", "sized", "there", "one", "two", "open", "direct", "within")]
    for name in ("mode.sh", "scanned/a", "listed/a", *named):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(user_files, "_begun", [sys.maxsize])
    called = Thread(target=load_function("looks.py:look"))  # in the main thread this program is to call it
    called.start()
    called.join()
    manifest = Manifest(user=UserReads(seen=read_files, asked=asked_files, stated=stated_files))
    kept = manifest.depends()

    def to_folder() -> None:
        Path("listed/a").unlink()
        Path("listed/a").mkdir()

    def to_one_file() -> None:
        Path("two.txt").unlink()
        Path("two.txt").hardlink_to("one.txt")

    changes: list[Callable[[], object]] = [
        lambda: os.utime("timed.txt", (1, 1)),
        lambda: Path("mode.sh").chmod(0o777),
        lambda: os.utime("sized.txt", (1, 1)),
        lambda: Path("scanned/a").write_text("longer"),
        to_folder,
        to_one_file,
        lambda: Path("another").hardlink_to("open.txt"),
        lambda: Path("direct.txt").write_text("opened by os.open, which this program stands in for"),
        lambda: Path("within.txt").write_text("opened in the folder of a descriptor"),
    ]
    os.utime("there.txt", (1, 1))
    Path("listed/a").write_text("content of a file that is only listed")
    for change in changes:
        assert manifest.again().holds(kept)
        change()
        assert not manifest.again().holds(kept)
        kept = manifest.again().depends()


def test_packages(net: Path) -> None:
    """The distributions behind what the user's code imports, by their own names."""
    load_function(f"{net}:ask")
    assert "PyYAML" in used_packages()


def test_versions_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What depended on a package is served until another version of it is installed, or none."""
    manifest = Manifest(user=UserReads(packages=lambda: ["PyYAML"]))
    kept = manifest.depends()
    assert manifest.holds(kept)
    assert not manifest.holds([[name, "1.2.3"] for name, _ in kept])
    installed = tmp_path / "pyyaml-99.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: PyYAML\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not manifest.again().holds(kept)
    for place in ("one", "two"):
        kept = manifest.again().depends()
        (installed / "direct_url.json").write_text(f'{{"url": "file:///{place}", "dir_info": {{"editable": true}}}}')
        assert not manifest.again().holds(kept)


def test_names_that_begin_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file called `$HOME.txt` is a file: its content counts, not the variable of that name."""
    monkeypatch.chdir(tmp_path)
    for name in ("$HOME.txt", "?x", "@y"):
        Path(name).write_text("one")
        manifest = Manifest(user=UserReads(seen=lambda name=name: {Path.cwd() / name: None}))  # type: ignore[misc]
        kept = manifest.depends()
        assert manifest.again().holds(kept)
        Path(name).write_text("two")
        assert not manifest.again().holds(kept)


def test_functions_of_os_stay_what_they_were() -> None:
    """What asks whether os.stat can take a folder is told the same as before."""
    user_lookups.watch()
    assert os.stat in os.supports_dir_fd
    assert os.stat in os.supports_follow_symlinks
    assert os.access in os.supports_effective_ids


POOL = """
from multiprocessing import get_context

def read(name):
    return open(name).read()

def reads():
    with get_context("fork").Pool(1) as pool:
        return pool.map(read, ["".join(["in_a_", "worker.txt"])])
"""


def test_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forked process opens for the user's code counts: workers of a DataLoader read its pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool.py").write_text(POOL)
    (tmp_path / "in_a_worker.txt").write_text("one")
    reads = load_function("pool.py:reads")
    assert guarded(lambda: len(reads()) - 1) == 0
    assert tmp_path / "in_a_worker.txt" in read_files()


SOUGHT = """
import sys

def seek():
    try:
        import plugin
    except ImportError:
        return 0
"""


def test_modules_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module for which the user's code looks counts where it would be found, before somebody puts it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sought.py").write_text(SOUGHT)
    load_function("sought.py:seek")()
    assert {tmp_path / "plugin.py", tmp_path / "plugin/__init__.py"} <= asked_files()


def test_where_modules_are_looked_for(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another PYTHONPATH, .pth file or time zone counts, which code reads without asking; what code adds does not."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(user_projects, "_added", set())
    monkeypatch.delenv("TZ", raising=False)
    changes.begin(net.parent)
    load_function(f"{net}:ask")()
    manifest = Manifest(user=UserReads(variables=asked_variables))
    kept = manifest.depends()
    sys.path.insert(0, str(net.parent.parent / "added by code"))
    user_projects.leave()
    changes.begin(net.parent)
    sys.path.append(str(net.parent))  # the working folder, as with `python -m`
    assert manifest.again().holds(kept)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert not manifest.again().holds(kept)
    monkeypatch.delenv("TZ")
    user_projects.leave()
    (net.parent / "of PYTHONPATH").mkdir()
    sys.path.append(str(net.parent / "of PYTHONPATH"))
    for name, is_served in (("another", True), ("yaml", False)):
        (net.parent / f"of PYTHONPATH/{name}.py").touch()
        changes.begin(net.parent)
        assert manifest.again().holds(kept) is is_served
        user_projects.leave()
