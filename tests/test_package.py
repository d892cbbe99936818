"""The wheel and the source archive, built and used as a user gets them."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli import __version__

ROOT = Path(__file__).parent.parent
# Stands where the console script stands: none of the optional extras can be imported.
WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"timm", "torchvision", "transformers", "open_clip", "PIL", "sklearn", "pyarrow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from soupcli.cli.app import main
main()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    wheel = next(built.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`soup WORDS...` from the installed wheel, without any optional extra."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-c", WITHOUT_EXTRAS, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_wheel_alone_shows_its_help(installed: Path, tmp_path: Path) -> None:
    """The wheel with its core dependencies alone runs `soup --help`."""
    ran = run(installed, tmp_path, "--help")
    assert ran.returncode == 0, ran.stderr
    assert "greedy" in ran.stdout


def test_wheel_alone_makes_a_uniform_soup(installed: Path, tmp_path: Path) -> None:
    """The wheel with its core dependencies alone mixes checkpoints."""
    for number in range(3):
        (tmp_path / f"runs/{number}").mkdir(parents=True)
        save_file({"w": torch.full((4, 3), float(number))}, tmp_path / f"runs/{number}/model.safetensors")
    ran = run(installed, tmp_path, "uniform", "--ckpts", "runs/0", "runs/1", "runs/2", "--quiet")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "soup/model.safetensors\n"
    assert torch.equal(load_file(tmp_path / "soup/model.safetensors")["w"], torch.full((4, 3), 1.0))


def test_wheel_holds_every_module_and_its_data(installed: Path) -> None:
    """Every file of the package in the repository is in the wheel, py.typed and the license too, and tests are not."""
    expected = {path.relative_to(ROOT) for path in (ROOT / "soupcli").rglob("*") if path.is_file()}
    expected = {path for path in expected if "__pycache__" not in path.parts}
    assert expected <= {path.relative_to(installed) for path in installed.rglob("*")}
    assert Path("soupcli/py.typed") in expected
    assert len(list(installed.glob("model_soup-*.dist-info/licenses/LICENSE"))) == 1
    assert not (installed / "tests").exists()


def test_one_version_and_two_names(installed: Path) -> None:
    """The version is that of soupcli/__init__.py, in the wheel and in CITATION.cff; `model-soup` is `soup`."""
    metadata = next(installed.glob("model_soup-*.dist-info"))
    assert f"\nVersion: {__version__}\n" in (metadata / "METADATA").read_text()
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    scripts = configparser.ConfigParser()
    scripts.read(metadata / "entry_points.txt")
    assert dict(scripts["console_scripts"]) == dict.fromkeys(("soup", "model-soup"), "soupcli.cli.app:main")


def test_source_archive_holds_what_builds_and_tests(built: Path) -> None:
    """The source archive carries the package, its tests, recipes and the files that set them up."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "Makefile", "constraints.txt", "soupcli/cli/app.py"} <= names
    assert any(name.startswith("tests/") for name in names)
