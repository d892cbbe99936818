"""`soup learned` on LoRA adapters that PEFT wrote: the gradient goes through the adapters' own products."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.wide import widened
from soupcli.mixing.mixture import Mixture
from soupcli.networks.learned.layers import layers
from soupcli.networks.learned.mixed_network import MixedNetwork
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from tests.conftest import Ran, build_net

peft = pytest.importorskip("peft", reason="peft is not installed")
Soup = Callable[..., Ran]
State = dict[str, torch.Tensor]


def adapted(rank: int = 4) -> Any:
    network = build_net()
    network.load_state_dict(load_file("base/model.safetensors"))
    with warnings.catch_warnings():  # PEFT's advice
        warnings.simplefilter("ignore")
        return peft.get_peft_model(network, peft.LoraConfig(r=rank, lora_alpha=3, target_modules=["0", "2"]))


@pytest.fixture
def adapters(family: Path) -> Path:
    """Three adapters of the first ingredient, of several ranks, as their own `save_pretrained` wrote them."""
    shutil.move("runs/0", "base")
    for seed in range(3):
        network = adapted(rank=2 + seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in (one for one in network.parameters() if one.requires_grad):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * (0.02, 0.4, 0.6)[seed])
        network.save_pretrained(f"adapters/{seed}")
    return family


def learned(soup: Soup, *words: str) -> dict[str, Any]:
    found = soup(
        *(
            "learned",
            "--ckpts",
            "adapters/*/",
            "--base",
            "base",
            "--val",
            "val",
            "--metric",
            "nll",
            "--json",
            "--force",
        ),
        *("--set", "learned.folds=5", "--set", "learned.schedule=constant", *words),
    )
    assert found.code == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def products(dtype: torch.dtype) -> list[State]:
    """What each adapter adds to the base's weights, from its own file: s B A."""
    found = []
    for folder in sorted(Path("adapters").iterdir()):
        own = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        scale, part = config["lora_alpha"] / config["r"], "base_model.model.{}.lora_{}.weight"
        found.append(
            {
                f"{name}.weight": scale * own[part.format(name, "B")].to(dtype) @ own[part.format(name, "A")].to(dtype)
                for name in ("0", "2")
            }
        )
    return found


def mixed(alpha: dict[str, list[float]]) -> State:
    """The base's weights and, in each layer, the products by the coefficients of the layer."""
    base, own = load_file("base/model.safetensors"), products(torch.float64)
    added = {n: sum((a * p[n] for a, p in zip(alpha[n], own, strict=True)), torch.zeros(1)) for n in own[0]}
    return {name: (tensor.double() + added.get(name, 0.0)).float() for name, tensor in base.items()}


def test_soup_is_the_mixture_of_the_products(adapters: Path, soup: Soup) -> None:
    """The written adapter, loaded by PEFT, is the base with the products of each layer by its coefficients."""
    report = learned(soup, "--set", "learned.steps=8", "--per", "layer")
    found = report["soup"]["coefficients"]
    rows = {name: row for row, names in zip(found["alpha"], found["tensors"], strict=True) for name in names}
    assert len({tuple(row) for row in found["alpha"]}) == 2
    assert report["soup"]["adapter"]["relative_error"] == 0
    expected = build_net()
    expected.load_state_dict(mixed({name: rows[name] for name in ("0.weight", "2.weight")}))
    network = build_net()
    network.load_state_dict(load_file("base/model.safetensors"))
    loaded = peft.PeftModel.from_pretrained(network, "soup")
    inputs = load_file("data/val.safetensors")["inputs"]
    with torch.no_grad():
        assert torch.allclose(loaded(inputs), expected(inputs), atol=1e-5)
        labels = load_file("data/val.safetensors")["labels"]
        loss = float(torch.nn.functional.cross_entropy(expected(inputs).double(), labels))
    assert report["soup"]["scores"]["val"]["nll"]["value"] == pytest.approx(loss, rel=1e-5)
    assert report["learned"]["held_out"][-1] < report["learned"]["held_out"][0]
    assert soup("verify", "soup", "--rebuild").code == 0


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_is_through_the_products(adapters: Path, stored: torch.dtype) -> None:
    """dL/dalpha is autograd's through W + sum of alpha s B A, of adapters and a base in bfloat16 as well.

    There the rounding of each merged weight would be a tenth of it.
    """
    for file in (*Path("adapters").glob("*/adapter_model.safetensors"), Path("base/model.safetensors")):
        state = {n: 0.2 * tensor if "lora_B" in n else tensor for n, tensor in load_file(file).items()}
        save_file({name: tensor.to(stored) for name, tensor in state.items()}, file)
    opened = [open_checkpoint(path, How(base=Path("base"))) for path in sorted(Path("adapters").iterdir())]
    ingredients = [widened(one) for one in opened]
    module = build_net()
    live = LiveNetwork(Network(module.eval()), torch.device("cpu"))
    live.load(Mixture.uniform([ingredients[0]]))
    found, data = layers(module, per="tensor"), load_file("data/val.safetensors")
    alpha_lk = torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64).repeat(len(found), 1)
    taken: list[torch.Tensor] = []

    def update(rows: slice, gradient_lk: torch.Tensor) -> torch.Tensor:
        taken.append(gradient_lk.clone())
        return alpha_lk[rows]

    with MixedNetwork(live, ingredients, found) as network:
        network.mix(alpha_lk)
        torch.nn.functional.cross_entropy(module(data["inputs"]), data["labels"]).backward()
        network.step(update)
    rows = dict(zip((layer.name for layer in found), torch.cat(taken), strict=True))
    for name in ("0.weight", "2.weight"):
        wanted = gradient_by_autograd(name, data)
        torch.testing.assert_close(rows[name] - rows[name].mean(), wanted - wanted.mean(), rtol=1e-3, atol=1e-6)


def gradient_by_autograd(layer: str, data: State) -> torch.Tensor:
    """dL/dalpha of one layer at (0.5, 0.2, 0.3), through the explicit sum of the products."""
    base, added = load_file("base/model.safetensors"), products(torch.float64)
    leaf = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    state = {name: tensor.double() for name, tensor in base.items()}
    for name in added[0]:
        weights = leaf if name == layer else leaf.detach()
        state[name] = state[name] + torch.einsum("k,koi->oi", weights, torch.stack([p[name] for p in added]))
    logits = torch.func.functional_call(build_net().double(), state, (data["inputs"].double(),))
    (found,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, data["labels"]), leaf)
    return found
