"""How a network computes: what options of speed change, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.mixture import Mixture
from soupcli.networks.precision import arrange, computing, eagerly
from tests.conftest import write_family
from tests.helpers import transformers_toys as toys
from tests.helpers.evaluators import evaluators, score
from tests.helpers.network_toys import randomised, saved
from tests.helpers.pictures import class_folders
from tests.networks.libraries.test_open_clip import CONFIG, folder_of
from tests.networks.test_live import ingredients, live_net, state_of

CPU = torch.device("cpu")


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Pictures and a small convolutional network of timm."""
    class_folders(tmp_path / "val", {"cat": 4, "dog": 5})
    saved(randomised(timm.create_model("test_resnet", num_classes=2)), tmp_path / "run")
    model = {"timm": "test_resnet", "args": {"num_classes": 2}}
    return {"model": model, "val": {"val": {"images": tmp_path / "val"}}, "metric": "nll"}


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision(recipe: dict[str, Any], amp: str, tmp_path: Path) -> None:
    """The score is that of torch.autocast, near the plain one and not the same, and is kept apart from it."""
    plain = score(recipe, tmp_path / "run")
    mixed = score({**recipe, "amp": amp}, tmp_path / "run")
    assert mixed.examples == 9
    assert mixed.value != plain.value
    assert mixed.value == pytest.approx(plain.value, rel=0.1)
    linear = nn.Linear(8, 4)
    forward = computing(linear, amp=amp, channels_last=False, device=CPU)  # type: ignore[arg-type]
    inputs = torch.randn(3, 8)
    with torch.autocast("cpu", {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]):
        wanted = linear(inputs)
    assert torch.equal(forward(inputs), wanted)
    assert forward(inputs).dtype != torch.float32


def test_channels_last(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Convolutions see channels last, in weights and in pictures; the score is the same up to rounding."""
    plain = score(recipe, tmp_path / "run")
    found = evaluators({**recipe, "channels_last": True}, tmp_path / "run")
    seen: list[Tensor] = []
    convolution = next(part for part in found.network.module.modules() if isinstance(part, nn.Conv2d))
    convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    other = found.on("val")(Mixture.uniform([open_checkpoint(tmp_path / "run")]))
    assert other.examples == 9
    assert other.value == pytest.approx(plain.value, rel=1e-4)
    for tensor in (*seen, convolution.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_weights_go_in_as_before(tmp_path: Path) -> None:
    """Channels last and compiled, the network's parameters are the same objects, which mixtures are loaded into."""
    live = live_net()
    before = dict(live.network.module.named_parameters())
    arrange(live.network, channels_last=True, compiled=True)
    after = dict(live.network.module.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    live.load(Mixture.uniform(ingredients(tmp_path, [state_of(3)])))
    assert torch.equal(live.network.module.get_parameter("matrix"), state_of(3)["matrix"])


def test_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled network scores the same up to rounding, with every mixture that goes into it; gradients run eagerly.

    The network is traced for real; its code is then run by torch instead of by a C++ compiler, which takes half a
    minute.
    """
    compile_, compiled_code = nn.Module.compile, []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled_code.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend=backend))
    write_family(tmp_path / "family", members=3)
    monkeypatch.chdir(tmp_path / "family")
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": {"arrays": "data/val.safetensors"}}, "metric": "nll"}
    found = evaluators({**recipe, "compile": True}, Path("runs/0"))
    members = [open_checkpoint(Path(f"runs/{i}")) for i in range(3)]
    for count in (1, 2, 3):
        compiled = found.on("val")(Mixture.uniform(members[:count]))
        plain = score(recipe, *(member.path for member in members[:count]), cache=tmp_path / "plain")
        assert compiled.examples == 200
        assert compiled.value == pytest.approx(plain.value, rel=1e-5)
    assert len(compiled_code) == 1
    labelled = found.labelled("val")
    assert labelled.logits(torch.arange(5)).shape == (5, 3)


def _clip(folder: Path) -> Path:
    toys.clip(folder)
    return folder


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_compiled_towers(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero-shot classifiers call no forward of the whole network: the tower that sees pictures is compiled."""
    compile_, ran = nn.Module.compile, []

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*given: Any) -> Any:
            ran.append(len(given))
            return graph.forward(*given)

        return run

    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend=backend))
    class_folders(tmp_path / "val", {"0": 3, "1": 2})
    (tmp_path / "names.txt").write_text("tabby cat\ngreat dane\n")
    run = folder_of(tmp_path / "run", CONFIG) if library == "open_clip" else _clip(tmp_path / "run")
    spec = {"images": tmp_path / "val", "classnames": tmp_path / "names.txt"}
    recipe = {"val": {"val": spec}, "metric": "nll"}
    plain = score(recipe, run, cache=tmp_path / "plain")
    assert not ran
    compiled = score({**recipe, "compile": True}, run, cache=tmp_path / "compiled")
    assert ran
    assert compiled.value == pytest.approx(plain.value, rel=1e-4)


def test_eagerly() -> None:
    """What is compiled is passed by."""
    ran: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        ran.append(1)
        return graph.forward

    compiled = torch.compile(nn.Linear(2, 2), backend=backend)
    inputs = torch.randn(1, 2)
    eagerly(compiled)(inputs)
    assert ran == []
    compiled(inputs)
    assert ran == [1]
