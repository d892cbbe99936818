"""What programs and workers read that the user's code starts: a score depends on it, whoever reads it."""

from __future__ import annotations

import io
import json
import os
import random
import sqlite3
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from soupcli.files.manifest import Manifest, UserReads
from soupcli.user_code import notes as user_notes
from soupcli.user_code.changes import made_files
from soupcli.user_code.files import read_files, started_commands
from soupcli.user_code.function import load_function, users_code
from soupcli.user_code.packages import used_packages
from soupcli.user_code.programs import unseen_programs
from tests.conftest import Ran
from tests.helpers.system import tells_of_openings

Soup = Callable[..., Ran]

PROGRAM = """
import importlib
import json
import os
import sqlite3
import subprocess
import sys

base = sqlite3.connect(":memory:")  # a compiled library
base.execute("attach 'of_a_li" + "brary' as other")
open("count", "a").write("x")  # what it writes is no input, even if it reads it
open("co" + "unt").read()
variables = dict(os.environ)
found = [
    open("in" + "put.txt").read(),
    os.listdir("fol" + "der"),
    importlib.import_module("hel" + "per").X,
    variables.get("of_the_run"),
    base.execute("select * from other.found").fetchall(),
    subprocess.check_output([sys.executable, "-c", "print(open('of_a_' + 'child.txt').read())"]).decode(),
]
print(json.dumps({"accuracy": 1 / len(str(found))}))
"""

CHANGES: dict[str, Callable[[], object]] = {
    "a file": lambda: Path("input.txt").write_text("two"),
    "a folder": lambda: Path("folder/b").touch(),
    "a module": lambda: Path("helper.py").write_text("X = 22"),
    "a variable": lambda: os.environ.__setitem__("of_the_run", "two"),
    "a file of a library": lambda: keep_in_database("two"),
    "a file of a program of the program": lambda: Path("of_a_child.txt").write_text("two"),
}


def keep_in_database(word: str) -> None:
    """Write a word into the file that sqlite opens by itself."""
    Path("of_a_library").unlink(missing_ok=True)
    base = sqlite3.connect("of_a_library")
    base.execute("create table found (word)")
    base.execute("insert into found values (?)", (word,))
    base.commit()
    base.close()


@pytest.fixture
def project(family: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ingredients, and a program whose inputs have names that are put together."""
    monkeypatch.chdir(family)
    monkeypatch.setenv("of_the_run", "one")
    Path("folder").mkdir()
    texts = {"eval.py": PROGRAM, "input.txt": "one", "folder/a": "", "helper.py": "X = 1", "of_a_child.txt": "one"}
    for name, text in texts.items():
        Path(name).write_text(text)
    keep_in_database("one")
    return family


def recipe(command: str, **keys: object) -> None:
    Path("soup.yaml").write_text(json.dumps({"val": {"theirs": {"command": command, "metric": "accuracy", **keys}}}))


def test_a_program(project: Path, soup: Soup) -> None:
    """Any of its inputs is changed, in a seeded order: it runs again, and it does not without a change."""
    recipe(f"{sys.executable} eval.py {{checkpoint}}")
    words = ("rank", "--ckpts", "runs/0", "--val", "theirs")
    ran = soup(*words)
    assert ran.code == 0, ran.stderr
    assert "not seen" not in ran.stderr
    order = [name for name in CHANGES if name != "a file of a library" or tells_of_openings(str(project))]
    random.Random(0).shuffle(order)
    for number, name in enumerate(order, 1):
        assert soup(*words).code == 0
        assert len(Path("count").read_text()) == number, f"before: {name}"
        CHANGES[name]()
        assert soup(*words).code == 0
        assert len(Path("count").read_text()) == number + 1, name


def test_the_ingredients_are_no_inputs(project: Path, soup: Soup) -> None:
    """A program reads each ingredient: another one that changes leaves the kept scores of the rest."""
    Path("eval.py").write_text("import sys; open(sys.argv[1] + '/model.safetensors', 'rb').read()\n" + PROGRAM)
    recipe(f"{sys.executable} eval.py {{checkpoint}}")
    assert soup("rank", "--ckpts", "runs/0", "runs/1", "--val", "theirs").code == 0
    Path("runs/1/model.safetensors").write_bytes(Path("runs/2/model.safetensors").read_bytes())
    assert soup("rank", "--ckpts", "runs/0", "--val", "theirs").code == 0
    assert len(Path("count").read_text()) == 2


@pytest.mark.parametrize("key", ["depends", "version", None])
def test_programs_that_nobody_sees(key: str | None, project: Path, soup: Soup) -> None:
    """Of another program than Python each run says that its inputs are not seen, unless the recipe speaks of them."""
    Path("eval.sh").write_text("""x=put; cat in${x}.txt; echo; echo '{"accuracy": 0.5}'""")
    recipe("sh eval.sh {checkpoint}", **({key: ["input.txt"] if key == "depends" else 1} if key else {}))
    words = ("--ckpts", "runs/*/", "--val", "theirs")
    for ran in (soup("rank", *words), soup("rank", *words), soup("greedy", *words), soup("eval", *words)):
        assert ran.code == 0, ran.stderr
        assert ran.stderr.count("what 'sh' reads is not seen") == (key is None)


MAKES = """
import subprocess, sys

subprocess.run(["cp", sys.argv[1] + "/model.safetensors", "of_" + "each.bin"], check=True)
open("of_" + "each.bin", "rb").read()
open("of_" + "all.txt").read()
print('{"accuracy": 0.5}')
"""


def test_files_that_are_as_young_as_a_program(project: Path, soup: Soup) -> None:
    """A file written just before a program starts is an input. One that is another each time is named."""
    Path("eval.py").write_text(MAKES)
    recipe(f"{sys.executable} eval.py {{checkpoint}}")
    words = ("rank", "--ckpts", "runs/*/", "--val", "theirs")
    Path("of_all.txt").write_text("one")
    time.sleep(2e-9 * user_notes.FINE)
    ran = soup(*words)
    assert ran.code == 0, ran.stderr
    said = "of_each.bin changes from one evaluation to the next: it counts as made by the program itself"
    assert ran.stderr.count(said) == 1
    assert str(project / "of_all.txt") in user_notes.every("read") - user_notes.every("made")


STARTS = """
import os, subprocess

subprocess.run([PYTHON, "-c", "1"])
subprocess.run(["./script.py", "x"])
subprocess.run(["env", PYTHON, "-c", "2"])
subprocess.run([PYTHON, "app.pyz"])
subprocess.run([PYTHON, "-I", "-c", ""])
subprocess.run([PYTHON, "-sE", "-c", ""])
subprocess.run([PYTHON, "-c", "3"], env={})
subprocess.run(["env", "-i", PYTHON, "-c", "4"])
subprocess.run(["cat", "/dev/null"])
os.system(":")
os.waitpid(os.posix_spawn(PYTHON, [PYTHON, "-S", "-c", ""], {}), 0)
os.execv(PYTHON, [PYTHON, "-IB", "-c", ""])
"""


def test_programs_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a watched program starts is seen if it is a watched Python too, by whatever words; the rest is not."""
    monkeypatch.chdir(tmp_path)
    python = Path(sys.executable).with_name("python")
    Path("script.py").write_text(f"#!{python}\n")
    Path("script.py").chmod(0o755)
    with zipfile.ZipFile("app.pyz", "w") as app:
        app.writestr("__main__.py", "")
    Path("program.py").write_text(f"PYTHON = {str(python)!r}\n{STARTS}")
    user_notes.forget_others()
    environment = {**os.environ, **user_notes.environment_of_command()}
    subprocess.run([python, "program.py"], env=environment, check=True)
    unseen = ["python -I -c", "python -IB -c", "python -S -c", "python -c 3", "python -sE -c"]
    assert unseen_programs() == ["cat", "env", *unseen, "sh"]


def test_packages_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may import packages of another environment: their versions there count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    scheme = sysconfig.get_preferred_scheme("user")
    folder = Path(sysconfig.get_path("purelib", scheme, {"userbase": str(tmp_path)}))
    for version in ("1.0", "2.0"):
        (folder / f"ourlib_all-{version}.dist-info").mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: ourlib-all\nVersion: {version}\n"
        (folder / f"ourlib_all-{version}.dist-info/METADATA").write_text(metadata)
        (folder / f"ourlib_all-{version}.dist-info/RECORD").write_text("ourlib/__init__.py,,\n")
    (folder / "ourlib_all-2.0.dist-info").rename("later")
    (folder / "ourlib").mkdir()
    (folder / "ourlib/__init__.py").touch()
    Path("program.py").write_text(f"import sys\nsys.path.append({str(folder)!r})\nimport ourlib\n")
    user_notes.forget_others()
    before = {*used_packages()}  # of modules that tests before this one have loaded
    environment = {**os.environ, **user_notes.environment_of_command()}
    subprocess.run([sys.executable, "program.py"], env=environment, check=True)
    assert {*used_packages()} - before == {f"ourlib-all {folder}"}
    manifest = Manifest(user=UserReads(packages=used_packages))
    kept = manifest.depends()
    assert manifest.holds(kept)
    (folder / "ourlib_all-1.0.dist-info").rename("before")
    Path("later").rename(folder / "ourlib_all-2.0.dist-info")
    assert not manifest.again().holds(kept)


WORKER = """
import subprocess
import sys
from multiprocessing import get_context

def read(name):
    return open(name).read()

def reads():
    with get_context("spawn").Pool(1) as pool:
        return pool.map(read, ["".join(["in_a_", "worker.txt"])])
"""


def test_spawned_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker opens that was spawned, not forked, counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("call.py").write_text("def call():\n    import workers\n    return workers.reads()\n")
    Path("workers.py").write_text(WORKER)
    Path("in_a_worker.txt").write_text("one")
    with users_code():
        assert load_function("call.py:call")() == ["one"]
    assert tmp_path / "in_a_worker.txt" in made_files() | set(read_files())  # it is as young as the worker
    assert "SOUP_NOTES" not in os.environ


def test_other_startup_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sitecustomize` of the user's still runs at the start of what is started."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.OWN = 7")
    (tmp_path / "start.py").write_text(
        "import subprocess, sys\n"
        "def start():\n"
        "    return subprocess.check_output([sys.executable, '-c', 'print(OWN)'])\n"
    )
    with users_code():
        assert load_function(f"{tmp_path / 'start.py'}:start")() == b"7\n"


ALIKE = """
import os, pickle, platform, sys

print(platform.OWN, sys.path, os.fstat(fd=0).st_size >= 0, os.stat(path="/").st_ino)
print(all(pickle.loads(pickle.dumps(one)) is one for one in (os.stat, os.lstat, os.access, os.open)))
try:
    import sitecustomize
except ImportError as absent:
    print(absent)
try:
    import soupcli
except ImportError as absent:
    print(absent)
"""


@pytest.mark.parametrize("words", [["program.py"], ["-m", "program"], ["-c", "import program"]])
def test_a_program_runs_as_without_it(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the program still comes before Python's of its name, and nothing else is there to import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    Path("platform.py").write_text("OWN = 7")
    Path("program.py").write_text(ALIKE)
    time.sleep(2e-9 * user_notes.FINE)  # what is younger than a program by a tick of the clock counts as its own
    python = str(Path(sys.executable).resolve())  # without the packages of this environment
    alone = subprocess.check_output([python, *words], text=True)
    environment = {**os.environ, **user_notes.environment_of_command()}
    assert subprocess.check_output([python, *words], env=environment, text=True) == alone
    assert str(tmp_path / "platform.py") in user_notes.every("read")


JUNK = [
    *("1", "[]", "{}", '[["a"], "b"]', '["read", 3]', '["read", "/\\u0000"]', '["read", "/\\ud800"]', '["none", "x"]'),
    *('["started", "x"]', '["started", "{}"]', '["started", "[1]"]', '["started", "5"]'),
    *("[" * 100_000, "x" * 3_000_000),
]


class Overtaken(io.BufferedReader):
    """A file of notes that another thread reads as soon as this one begins to."""

    def seek(self, *given: int) -> int:
        found = super().seek(*given)
        user_notes.every("read")
        return found


def test_two_threads_that_read_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of --jobs may read them at one time: what is written later is still heard."""
    user_notes.forget_others()
    file = Path(user_notes.environment()["SOUP_NOTES"])

    def opened(path: str, _mode: str) -> Overtaken:
        monkeypatch.delattr(user_notes, "open")
        return Overtaken(io.FileIO(path))

    monkeypatch.setattr(user_notes, "open", opened, raising=False)
    for path in ("/first", "/later"):
        with file.open("a") as notes:
            notes.write(json.dumps(["read", path]) + "\n")
        assert path in user_notes.every("read")
    user_notes.forget_others()


def test_junk_among_the_notes(tmp_path: Path) -> None:
    """Any program can write to the file of the notes: what is no note is passed over, and half a note waits."""
    user_notes.forget_others()
    before, commands = user_notes.every("read"), started_commands()  # of tests before this one
    file = Path(user_notes.environment()["SOUP_NOTES"])
    with file.open("a") as notes:
        notes.write("\n".join([*JUNK, json.dumps(["read", "/a"]), '["read", "/b']))
    assert [sorted(user_notes.every(kind) - before) for kind in ("read", "none")] == [["/a"], []]
    assert started_commands() == commands
    with file.open("a") as notes:
        notes.write('"]\n')
    assert user_notes.every("read") - before == {"/a", "/b"}
    user_notes.forget_others()
