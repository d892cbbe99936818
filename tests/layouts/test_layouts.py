"""The real library writes the ingredients and opens the soup: its weights and outputs are the float64 mean's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Ran

Soup = Callable[..., Ran]


def load_mean(net: nn.Module, others: list[nn.Module]) -> None:
    """Gives the network the float64 mean of the others' weights."""
    states = [other.state_dict() for other in others]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }
    net.load_state_dict(mean)


def save_embedders(library: Any, seeds: int, pooling: str) -> list[Any]:
    """Writes runs/*/: networks of a word embedding, pooling and a dense layer. Returns them."""
    models = pytest.importorskip("sentence_transformers.models")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=8
    )
    Path("vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "soup", "bad"]))
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        transformers.BertModel(config).save_pretrained(f"bert/{seed}")
        transformers.BertTokenizer("vocab.txt").save_pretrained(f"bert/{seed}")
        parts = [models.Transformer(f"bert/{seed}"), models.Pooling(16, pooling_mode=pooling), models.Dense(16, 8)]
        made.append(library.SentenceTransformer(modules=parts, device="cpu"))
        made[-1].save(f"runs/{seed}")
    return made


def test_sentence_transformers(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word embedding, pooling and a dense layer: saved and opened by SentenceTransformer, equal embeddings."""
    library: Any = pytest.importorskip("sentence_transformers", reason="make layouts installs it")
    monkeypatch.chdir(tmp_path)
    made = save_embedders(library, 3, "mean")
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    load_mean(expected := library.SentenceTransformer("runs/0", device="cpu"), made)
    opened = library.SentenceTransformer("soup", device="cpu")
    texts = ["good soup", "bad"]
    assert torch.equal(
        opened.encode(texts, convert_to_tensor=True, show_progress_bar=False),
        expected.encode(texts, convert_to_tensor=True, show_progress_bar=False),
    )


def test_embeddings(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A python set gets the SentenceTransformer with a candidate's weights, pooling and dense layer too."""
    library: Any = pytest.importorskip("sentence_transformers", reason="make layouts installs it")
    monkeypatch.chdir(tmp_path)
    save_embedders(library, 2, "cls")
    program = (
        "def evaluate(model, device):\n    return float(model.encode(['good soup'], show_progress_bar=False).sum())\n"
    )
    Path("my_eval.py").write_text(program)
    Path("soup.yaml").write_text(
        "val: {sts: {python: 'my_eval.py:evaluate', metric: sum, higher_is_better: true}, text: {text: a.csv}}\n"
    )
    ran = soup("uniform", "--ckpts", "runs/*/", "--val", "sts", "--json")
    assert ran.code == 0, ran.stderr
    scores = json.loads(ran.stdout)["soup"]["scores"]["sts"]["sum"]["value"]
    opened = library.SentenceTransformer("soup", device="cpu")
    assert scores == pytest.approx(float(opened.encode(["good soup"], show_progress_bar=False).sum()), abs=1e-5)
    Path("a.csv").write_text("text,label\ngood,1\nbad,0\n")
    refused = soup("rank", "--ckpts", "runs/*/", "--val", "a.csv:text:label")
    assert refused.code == 2 and "gives embeddings of sentences, no logits" in refused.stderr


def test_diffusers(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of a U-Net and a scheduler: saved and opened by DDPMPipeline, equal noise."""
    diffusers: Any = pytest.importorskip("diffusers", reason="make layouts installs it")
    monkeypatch.chdir(tmp_path)
    settings = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = diffusers.UNet2DModel(**settings, **blocks)
        diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()).save_pretrained(f"runs/{seed}")
        made.append(net.eval())
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    load_mean(expected := diffusers.DDPMPipeline.from_pretrained("runs/0").unet, made)
    opened = diffusers.DDPMPipeline.from_pretrained("soup").unet
    noise = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(opened(noise, 3).sample, expected(noise, 3).sample, rtol=0, atol=1e-6)
    found = opened.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())
