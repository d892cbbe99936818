"""Reading files out of packages' archives. Nothing here reaches a network: pip looks into a folder of the test."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from soupcli.demo import packages
from soupcli.environment import cache_folder
from soupcli.errors import SoupError

METADATA = "Metadata-Version: 2.1\nName: pantry\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def package(sha256: str = "") -> packages.Package:
    archive = "pantry-1.0-py3-none-any.whl"
    return packages.Package(name="pantry", version="1.0", module="pantry", archive=archive, sha256=sha256)


def write_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, with one file of data."""
    path = folder / package().archive
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("pantry/data.txt", "salt")
        wheel.writestr("pantry-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("pantry-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("pantry-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only index there is; empty at first."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_fetches_once_into_the_cache(index: Path) -> None:
    """The first call asks pip and reports it, the second reads what lies in the cache."""
    wheel, calls = write_wheel(index), list[tuple[int, int]]()
    wanted = package(hashlib.sha256(wheel.read_bytes()).hexdigest())

    def progress(task: str, done: int, total: int, *, note: str = "") -> None:
        calls.append((done, total))

    assert packages.read(wanted, ["pantry/data.txt"], progress) == {"pantry/data.txt": b"salt"}
    assert calls == [(0, 1), (1, 1)]
    wheel.unlink()
    assert packages.read(wanted, ["pantry/data.txt"], progress) == {"pantry/data.txt": b"salt"}
    assert [path.name for path in cache_folder().iterdir()] == [wanted.archive]


def test_refuses_another_file_than_the_one_expected(index: Path) -> None:
    """A wrong hash is an error, and the file does not get into the cache."""
    write_wheel(index)
    with pytest.raises(SoupError, match="holds another file"):
        packages.read(package("0" * 64), ["pantry/data.txt"])
    assert list(cache_folder().iterdir()) == []


def test_says_what_to_type_where_pip_fails(index: Path) -> None:
    """Without the package in reach the hint is a command that brings it."""
    with pytest.raises(SoupError, match=r"pantry 1.0: pip cannot fetch it: ERROR: ") as caught:
        packages.read(package(), ["pantry/data.txt"])
    assert "pip download --no-deps --only-binary pantry pantry==1.0 --dest " in str(caught.value.hint)


def test_reads_an_installed_package_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that fails on import still lends its files."""
    module = tmp_path / "site" / "pantry"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError\n")
    (module / "data.txt").write_text("pepper")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert packages.read(package(), ["pantry/data.txt"]) == {"pantry/data.txt": b"pepper"}


@pytest.mark.parametrize("archive", ["pantry-1.0-py3-none-any.whl", "pantry-1.0.tar.gz"])
def test_names_an_archive_that_cannot_be_read(archive: str) -> None:
    """A broken file in the cache is named, with what to do about it."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / archive).write_bytes(b"neither zip nor tar")
    broken = packages.Package(name="pantry", version="1.0", module="pantry", archive=archive, sha256="")
    with pytest.raises(SoupError, match=f"{archive}: cannot be read") as caught:
        packages.read(broken, ["pantry/data.txt"])
    assert caught.value.hint == "remove the file and try again"


def test_names_what_an_archive_lacks() -> None:
    """A file that is not in the archive is an error that names it."""
    write_wheel(cache_folder())
    with pytest.raises(SoupError, match=r"pantry/other\.txt"):
        packages.read(package(), ["pantry/other.txt"])


def test_a_pipe_in_the_cache(index: Path) -> None:
    """A pipe under the archive's name holds nobody up: the archive takes its place."""
    wanted = package(hashlib.sha256(write_wheel(index).read_bytes()).hexdigest())
    cache_folder().mkdir(parents=True, exist_ok=True)
    os.mkfifo(cache_folder() / wanted.archive)
    assert packages.read(wanted, ["pantry/data.txt"]) == {"pantry/data.txt": b"salt"}
