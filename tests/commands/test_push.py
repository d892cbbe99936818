"""`soup push` to a hub on the loopback: the soup's own files, after it was verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import small_net
from tests.helpers.hub import Hub, Model, serve

Soup = Callable[..., Ran]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Soup) -> Iterator[Hub]:
    """A hub that huggingface_hub asks in this process, and a soup beside a file that is not its own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        save_file(small_net(number).state_dict(), f"runs/{number}/model.safetensors")
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    Path("soup/notes.txt").write_text("mine alone")
    with serve() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
        yield served


def test_uploads_the_soup(hub: Hub, soup: Soup) -> None:
    """A new private model holds the files that the report lists, as they are, and nothing else of the folder."""
    ran = soup("push", "soup", "org/new", "--private", "--json")
    assert ran.code == 0, ran.stderr
    model = hub.models["org/new"]
    assert model.private
    files = model.commits[json.loads(ran.stdout)["commit"]]
    assert set(files) == {".gitattributes", "README.md", "model.safetensors", "soup.json"}
    assert all(files[name] == Path("soup", name).read_bytes() for name in set(files) - {".gitattributes"})


def test_branch(hub: Hub, soup: Soup) -> None:
    """--revision makes the branch, the main one stays; pushing again is no error."""
    for _ in range(2):
        ran = soup("push", "soup/soup.json", "org/new", "--revision", "v2", "--quiet")
        assert ran.code == 0, ran.stderr
    model = hub.models["org/new"]
    assert "model.safetensors" in model.commits[model.branches["v2"]]
    assert "model.safetensors" not in model.commits[model.branches["main"]]


def test_verified_first(hub: Hub, soup: Soup) -> None:
    """A soup that is not what its report says stays here: exit code 1, and nothing was asked of the Hub."""
    save_file(small_net(7).state_dict(), "soup/model.safetensors")
    assert soup("push", "soup", "org/new").code == 1
    assert hub.requests == []


@pytest.mark.parametrize("to", ["name", "org/name@main", "a/b/c", "org/", "https://hub/org/name"])
def test_no_id(hub: Hub, soup: Soup, to: str) -> None:
    """What is no id of a model is refused by name."""
    ran = soup("push", "soup", to)
    assert ran.code == 2
    assert f"{to}: not the id of a model on the Hub" in ran.stderr


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own call of httpx
def test_large_files(hub: Hub, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files over the Hub's threshold go by large file storage, with the hash of what lies in the soup."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # its server is none of this hub's
    hub.lfs_from = 400
    ran = soup("push", "soup", "org/new", "--quiet")
    assert ran.code == 0, ran.stderr
    model = hub.models["org/new"]
    files = model.commits[model.branches["main"]]
    assert files["model.safetensors"] == Path("soup/model.safetensors").read_bytes()
    assert files["model.safetensors"] in hub.objects.values()


def test_other_files_are_there(hub: Hub, soup: Soup, tmp_path: Path) -> None:
    """Files of no soup are refused by name, with --force they stay; an earlier soup's files are replaced."""
    hub.models["org/theirs"] = Model()
    hub.models["org/theirs"].commit({".gitattributes": b"", "pytorch_model.bin": b"theirs", "README.md": b"theirs"})
    for words in ((), ("--revision", "new")):
        ran = soup("push", "soup", "org/theirs", *words)
        assert ran.code == 2 and "org/theirs: holds files that are of no soup: README.md, pytorch" in ran.stderr
        assert "--force" in ran.stderr
    assert list(hub.models["org/theirs"].branches) == ["main"] and len(hub.models["org/theirs"].commits) == 1
    assert soup("push", "soup", "org/theirs", "--force").code == 0
    model = hub.models["org/theirs"]
    assert model.commits[model.branches["main"]]["pytorch_model.bin"] == b"theirs"
    assert soup("uniform", "--ckpts", "runs/*/", "--out", "shards", "--max-shard-size", "200B").code == 0
    assert soup("push", "shards", "org/mine").code == 0 and soup("push", "soup", "org/mine").code == 0
    mine = hub.models["org/mine"]
    files = set(mine.commits[mine.branches["main"]])
    assert files == {".gitattributes", "README.md", "model.safetensors", "soup.json"}


def test_no_token(hub: Hub, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a token nothing is asked of the Hub, and the message says how to get one."""
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    ran = soup("push", "soup", "org/new")
    assert ran.code == 2 and "there is no token of the Hub" in ran.stderr and "hf auth login" in ran.stderr
    assert hub.requests == []


def test_no_paths_of_this_machine(hub: Hub, soup: Soup, tmp_path: Path) -> None:
    """Absolute paths are told from the working folder or the ingredients' on; what was uploaded verifies."""
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    for number in range(2):
        (elsewhere / f"deep/{number}").mkdir(parents=True)
        save_file(small_net(number + 5).state_dict(), elsewhere / f"deep/{number}/model.safetensors")
    words = ("--ckpts", str(tmp_path / "runs/0"), str(elsewhere / "deep/0"), str(elsewhere / "deep/1"))
    assert soup("uniform", *words, "--out", str(tmp_path / "mixed")).code == 0
    before = Path("mixed/soup.json").read_text()
    assert str(tmp_path) in before
    assert soup("push", "mixed", "org/new").code == 0
    model = hub.models["org/new"]
    files = model.commits[model.branches["main"]]
    assert not any(str(tmp_path.parent).encode() in data for data in files.values())
    members = json.loads(files["soup.json"])["soup"]["members"]
    assert "runs/0" in members and len(set(members)) == 3 and not any(name.startswith("/") for name in members)
    assert Path("mixed/soup.json").read_text() == before
    Path("down").mkdir()
    for name, data in files.items():
        Path("down", name).write_bytes(data)
    assert soup("verify", "down").code == 0
