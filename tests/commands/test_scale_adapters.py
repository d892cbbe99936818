"""--scale on LoRA adapters that PEFT wrote: the way from their base to the soup of their products."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Ran, build_net

peft = pytest.importorskip("peft", reason="peft is not installed")
Soup = Callable[..., Ran]
State = dict[str, torch.Tensor]
GRID = [0.0, 0.5, 1.0, 1.5, 2.0]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["0", "2"]},
    "head": {"target_modules": ["0"], "modules_to_save": ["2"]},
    "biases": {"target_modules": ["0", "2"], "bias": "all", "use_rslora": True},
    "lora_bias": {"target_modules": ["0", "2"], "lora_bias": True},
}


def loaded(folder: str, base: State | None = None) -> Any:
    """PEFT's network of an adapter on the base, or on other weights."""
    network = build_net()
    network.load_state_dict(load_file("base/model.safetensors") if base is None else base)
    return peft.PeftModel.from_pretrained(network, folder)


def save_adapters(settings: dict[str, Any], amount: float = 0.2) -> None:
    for seed in range(3):
        network = build_net()
        network.load_state_dict(load_file("base/model.safetensors"))
        config = peft.LoraConfig(r=2 + seed, lora_alpha=3, **settings)
        with warnings.catch_warnings():  # PEFT's advice
            warnings.simplefilter("ignore")
            adapted = peft.get_peft_model(network, config)
        generator = torch.Generator().manual_seed(seed)
        for parameter in (one for one in adapted.parameters() if one.requires_grad):
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * amount)
        with warnings.catch_warnings():  # of biases, as if they were broken factors
            warnings.simplefilter("ignore")
            adapted.save_pretrained(f"adapters/{seed}")


def merged(folder: str) -> State:
    """PEFT's own merge of an adapter into the base, in float64."""
    state: State = loaded(folder).double().merge_and_unload().state_dict()
    return state


def nll(network: torch.nn.Module) -> float:
    data = load_file("data/val.safetensors")
    with torch.no_grad():
        logits = network(data["inputs"].to(next(network.parameters()).dtype))
        return float(torch.nn.functional.cross_entropy(logits.double(), data["labels"]))


def of_state(state: State) -> torch.nn.Module:
    network = build_net().double()
    network.load_state_dict(state)
    return network


@pytest.fixture
def base(family: Path) -> State:
    shutil.move("runs/0", "base")
    return {name: tensor.double() for name, tensor in load_file("base/model.safetensors").items()}


def scaled(soup: Soup, command: str, *words: str) -> dict[str, Any]:
    few = ("--set", "learned.steps=4", "--set", "learned.folds=1") if command == "learned" else ()
    given = ("--ckpts", "adapters/*/", "--base", "base", "--val", "val", "--metric", "nll", "--json", "--force")
    found = soup(command, *given, *few, *words)
    assert found.code == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def weights_of(report: dict[str, Any], name: str) -> dict[str, float]:
    made = report["soup"]
    layers = made["coefficients"]
    if layers is None:
        return dict(zip(made["members"], made["weights"], strict=True))
    row = next(row for row, names in zip(layers["alpha"], layers["tensors"], strict=True) if name in names)
    return dict(zip(layers["members"], row, strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "kind"),
    [*(("uniform", kind) for kind in KINDS), ("greedy", "head"), ("learned", "head"), ("learned", "plain")],
)
def test_is_the_way_by_hand(base: State, soup: Soup, command: str, kind: str) -> None:
    """Each point scores as base + s mean(change), from PEFT's merged networks; PEFT opens what scored best."""
    save_adapters(KINDS[kind])
    plain = scaled(soup, command)
    networks = {f"adapters/{seed}": merged(f"adapters/{seed}") for seed in range(3)}

    def at(scale: float) -> State:
        shares = {name: weights_of(plain, name).items() for name in base}
        changes = {n: sum(w * (networks[one][n] - tensor) for one, w in shares[n]) for n, tensor in base.items()}
        return {name: tensor + scale * changes[name] for name, tensor in base.items()}

    report = scaled(soup, command, "--scale", "0:2:0.5")
    expected = {scale: nll(of_state(at(scale))) for scale in GRID}
    found = {point["scale"]: point["scores"]["val"]["nll"]["value"] for point in report["scale"]["points"]}
    assert found == pytest.approx(expected, rel=1e-5)
    best = report["scale"]["scale"]
    assert best == min(GRID, key=lambda scale: expected[scale])
    inputs = load_file("data/val.safetensors")["inputs"]
    with torch.no_grad():
        wanted = of_state(at(best))(inputs.double())
        torch.testing.assert_close(loaded("soup")(inputs).double(), wanted, rtol=1e-4, atol=1e-4)
    assert soup("verify", "soup", "--rebuild").code == 0
    again = soup("mix", "soup/soup.json", "--out", "again", "--json")
    assert json.loads(again.stdout)["soup"]["hash"] == report["soup"]["hash"]


def test_best_is_the_base(base: State, soup: Soup) -> None:
    """Where no change helps, the soup is an adapter that changes nothing, or merged the base itself, and says so."""
    save_adapters(KINDS["head"], amount=3.0)
    report = scaled(soup, "uniform", "--scale", "0:1:0.5")
    assert (report["scale"]["scale"], report["soup"]["members"]) == (0.0, ["base"])
    assert any("nothing of the ingredients is left" in warning for warning in report["warnings"])
    inputs = load_file("data/val.safetensors")["inputs"]
    with torch.no_grad():
        assert torch.equal(loaded("soup")(inputs), of_state(base).float()(inputs))
    assert "those of the base base, unchanged" in Path("soup/README.md").read_text()
    scaled(soup, "uniform", "--scale", "0:1:0.5", "--merge-adapters")
    assert all(torch.equal(tensor, load_file("base/model.safetensors")[n]) for n, tensor in whole("soup").items())


def whole(folder: str) -> State:
    return load_file(f"{folder}/model.safetensors")


@pytest.mark.parametrize("words", [(), ("--merge-adapters",)], ids=["adapter", "merged"])
def test_a_command_sees_what_is_written(base: State, soup: Soup, words: tuple[str, ...]) -> None:
    """A program is given the same kind of file for each point, the base too: adapters, or merged networks."""
    save_adapters(KINDS["plain"])
    Path("look.py").write_text(
        "import json, pathlib, sys\n"
        "files = sorted(file.name for file in pathlib.Path(sys.argv[1]).iterdir() if file.name.startswith('a'))\n"
        "print(json.dumps({'accuracy': len(files) / 100}))\n"
    )
    command = f"{sys.executable} look.py {{checkpoint}}"
    recipe = Path("soup.yaml").read_text().replace("val:\n", f'val:\n  look: {{command: "{command}"}}\n')
    Path("soup.yaml").write_text(recipe)
    given = ("--ckpts", "adapters/*/", "--base", "base", "--val", "look", "--scale", "0,1.5", "--json", "--force")
    soup("greedy", *given)  # whose scores are not taken for the other kind's
    report = json.loads(soup("greedy", *given, *words).stdout)
    points = [point["scores"]["look"]["accuracy"]["value"] for point in report["scale"]["points"]]
    alone = [one["scores"]["look"]["accuracy"]["value"] for one in report["ingredients"]]
    assert {*points, *alone} == {0.0 if words else 0.02}


def test_head_that_the_base_lacks(base: State, soup: Soup) -> None:
    """No way leads to a head that only the adapters hold: it is named, and --exclude takes the best adapter's."""
    save_adapters(KINDS["head"])
    stem = {name: tensor for name, tensor in whole("base").items() if name.startswith("0.")}
    Path("stem").mkdir()
    save_file(stem, "stem/model.safetensors")
    words = ("greedy", "--ckpts", "adapters/*/", "--base", "stem", "--val", "val", "--scale", "0:2:0.5")
    found = soup(*words)
    assert found.code == 2
    assert "adapters/0: holds tensor '2.bias', which its base stem has not" in found.stderr
    assert "--exclude '2.*'" in found.stderr
    report = json.loads(soup(*words, "--exclude", "2.*", "--json").stdout)
    best = load_file(Path(report["best"]["path"]) / "adapter_model.safetensors")
    name = "base_model.model.2.weight"
    assert torch.equal(load_file("soup/adapter_model.safetensors")[name], best[name])
    assert soup("verify", "soup", "--rebuild").code == 0


@pytest.mark.parametrize("words", [("--alpha", "0"), ("--alpha", "0.3"), ("--method", "stock")], ids=str)
def test_mix_begins_at_the_base(base: State, soup: Soup, words: tuple[str, ...]) -> None:
    """`soup mix --alpha` and Model Stock of adapters are those of the networks that PEFT merges."""
    save_adapters(KINDS["head"])
    for seed in range(3):
        Path(f"merged/{seed}").mkdir(parents=True)
        state = {name: tensor.float().contiguous() for name, tensor in merged(f"adapters/{seed}").items()}
        save_file(state, f"merged/{seed}/model.safetensors")
    for kind, out in (("adapters", "soup"), ("merged", "expected")):
        found = soup("mix", "--ckpts", f"{kind}/*/", "--base", "base", "--out", out, *words)
        assert found.code == 0, found.stderr
    for name, tensor in merged("soup").items():
        torch.testing.assert_close(tensor.float(), whole("expected")[name], rtol=1e-5, atol=1e-6)
    assert soup("verify", "soup", "--rebuild").code == 0
