"""A soup's weights lie in the files, and have the names, that they have in the ingredients."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcli.checkpoints.open import open_checkpoint
from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, opened

Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def state(seed: int, *names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 4, generator=generator) for name in names or ("a", "b")}


def mean(*names: str) -> dict[str, Tensor]:
    states = [state(seed, *names) for seed in range(2)]
    return {name: torch.stack([one[name].double() for one in states]).mean(dim=0).float() for name in states[0]}


def save(file: Path, tensors: Mapping[str, Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(dict(tensors), file, metadata={"format": "pt"})
    else:
        torch.save(dict(tensors), file)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("model.safetensors",) * 2, "model.safetensors"),
        (("diffusion_pytorch_model.safetensors",) * 2, "diffusion_pytorch_model.safetensors"),
        (("diffusion_pytorch_model.fp16.safetensors",) * 2, "diffusion_pytorch_model.fp16.safetensors"),
        (("open_clip_model.safetensors",) * 2, "open_clip_model.safetensors"),
        (("diffusion_pytorch_model.bin",) * 2, "diffusion_pytorch_model.safetensors"),
        (("open_clip_pytorch_model.bin",) * 2, "open_clip_model.safetensors"),
        (("learned_embeds.bin",) * 2, "learned_embeds.safetensors"),
        (("pytorch_model.bin",) * 2, "model.safetensors"),
        (("pytorch_model.bin", "model.safetensors"), "model.safetensors"),
        (("model.safetensors", "mine.safetensors"), "model.safetensors"),
        (("weights.pt",) * 2, "model.safetensors"),
        (("pytorch_model_fsdp.bin",) * 2, "pytorch_model_fsdp.bin"),  # Accelerate reads no other
    ],
)
def test_name_of_the_file(soup: Soup, names: tuple[str, str], expected: str) -> None:
    """The ingredients' own, if all agree; that of the same library's safetensors; else the usual one."""
    for seed, name in enumerate(names):
        save(Path(f"runs/{seed}/{name}"), state(seed))
    ran = soup("uniform", "--ckpts", "runs/0", "runs/1", "--quiet")
    assert (ran.code, ran.stdout) == (0, f"soup/{expected}\n"), ran.stderr
    assert_same(opened(Path(f"soup/{expected}")), mean())
    assert soup("verify", "soup", "--rebuild").code == 0


def test_shards_keep_the_name(soup: Soup) -> None:
    """Past the largest size, shards and index begin as the one file would be called; they are read back."""
    for seed in range(2):
        save(Path(f"runs/{seed}/diffusion_pytorch_model.safetensors"), state(seed))
    ran = soup("uniform", "--ckpts", "runs/*/", "--quiet", "--max-shard-size", "60B")
    assert ran.stdout == "soup/diffusion_pytorch_model.safetensors.index.json\n", ran.stderr
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert sorted(path.name for path in Path("soup").iterdir()) == sorted(
        [*names, "diffusion_pytorch_model.safetensors.index.json", "README.md", "soup.json"]
    )
    assert_same(opened(Path("soup")), mean())
    assert soup("verify", "soup", "--rebuild").code == 0


def test_several_networks(soup: Soup) -> None:
    """A folder of sentence-transformers: each part has its own file, names and configuration; nothing is lost."""
    for seed in range(2):
        run = Path(f"runs/{seed}")
        save(run / "model.safetensors", state(seed, "embeddings.weight"))
        save(run / "2_Dense/model.safetensors", state(seed, "linear.weight"))
        for folder in ("", "1_Pooling", "2_Dense"):
            (run / folder).mkdir(exist_ok=True)
            (run / folder / "config.json").write_text("{}")
        rows = [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Dense"}]
        (run / "modules.json").write_text(json.dumps(rows))
    ran = soup("uniform", "--ckpts", "runs/*/", "--quiet")
    assert (ran.code, ran.stdout) == (0, "soup/model.safetensors\n"), ran.stderr
    assert_same(load_file("soup/model.safetensors"), mean("embeddings.weight"))
    assert_same(load_file("soup/2_Dense/model.safetensors"), mean("linear.weight"))
    before = sorted(str(path.relative_to("runs/0")) for path in Path("runs/0").rglob("*"))
    after = sorted(str(path.relative_to("soup")) for path in Path("soup").rglob("*"))
    assert after == sorted([*before, "README.md", "soup.json"])
    assert [part.file for part in open_checkpoint(Path("soup")).parts] == [
        part.file for part in open_checkpoint(Path("runs/0")).parts
    ]
    assert soup("verify", "soup", "--rebuild").code == 0
    assert soup("uniform", "--ckpts", "runs/0", "soup", "--out", "more", "--quiet").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--quiet", "--force").code == 0
