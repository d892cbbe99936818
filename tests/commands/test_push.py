"""`soup push` to a hub on the loopback: the soup's own files, after it was verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import small_net
from tests.helpers.hub import Hub, serve

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
