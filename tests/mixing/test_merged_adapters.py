"""--merge-adapters: a soup of the real PEFT's adapters as a full network, opened by transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from soupcli.checkpoints.adapters.base_as_adapter import BaseAsAdapter
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.mixing.merged_adapters import merged
from soupcli.mixing.mixture import Mixture, mix
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from tests.conftest import Ran

if TYPE_CHECKING:
    from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

Soup = Callable[..., Ran]
SETTINGS: Sequence[dict[str, Any]] = (
    {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]},
    {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "down_proj"]},
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny language model in base/, in bfloat16, and the working folder beside it."""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=40
    )
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def base(dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained("base", dtype=dtype)  # type: ignore[no-any-return]


def save(name: str, seed: int, *, autocast: bool = True, **settings: Any) -> None:
    """An adapter with random factors, as PEFT saves it, by default in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(base(), peft.LoraConfig(**settings), autocast_adapter_dtype=autocast)
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        adapted.save_pretrained(f"adapters/{name}")


def test_one_of_two_tied_matrices(place: Path, soup: Soup) -> None:
    """PEFT trains the embedding and leaves the output at the base's: no tied network is that, and it is refused."""
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=40,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained("base")
    for whole, code in (("embed_tokens", 2), ("lm_head", 0)):
        for seed in range(2):
            save(f"{whole}/{seed}", seed, r=2, target_modules=["q_proj"], modules_to_save=[whole])
        words = ("uniform", "--ckpts", f"adapters/{whole}/*/", "--base", "base")
        ran = soup(*words, "--merge-adapters", "--out", f"{whole}-merged")
        assert ran.code == code, ran.stderr
        assert code == 0 or "ensure_weight_tying" in ran.stderr
        assert soup(*words, "--out", f"{whole}-adapter").code == 0  # PEFT opens it as it opens the ingredients


def by_peft(name: str) -> dict[str, Tensor]:
    """What PEFT's merge_and_unload makes of the base, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(
            base(torch.float64), f"adapters/{name}", autocast_adapter_dtype=False
        ).double()
        return dict(adapted.merge_and_unload().state_dict())


@pytest.mark.parametrize("extra", [{}, {"modules_to_save": ["lm_head"]}, {"bias": "lora_only", "use_rslora": True}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_is_what_peft_merges(place: Path, soup: Soup, extra: dict[str, Any], dtype: str) -> None:
    """Every tensor is the float64 mean of PEFT's merged networks, rounded once; transformers opens it as a network."""
    for number, settings in enumerate(SETTINGS):
        save(str(number), number, **settings, **extra)
    words = ("--base", "base", "--merge-adapters", "--dtype", dtype, "--weights", "0.25,0.75")
    ran = soup("mix", "--ckpts", "adapters/0", "adapters/1", *words)
    assert ran.code == 0, ran.stderr
    assert not Path("soup/adapter_config.json").exists()
    assert json.loads(Path("soup/config.json").read_text())["dtype"] == dtype
    expected = [by_peft(str(number)) for number in range(2)]
    found = load_file("soup/model.safetensors")
    assert set(found) == set(load_file("base/model.safetensors"))
    for name, tensor in found.items():
        mean = expected[0][name] * 0.25 + expected[1][name] * 0.75
        unit = torch.finfo(tensor.dtype).eps
        assert torch.allclose(tensor.double(), mean, rtol=unit * 0.5001, atol=1e-7), name
    net = transformers.AutoModelForCausalLM.from_pretrained("soup", dtype="auto")
    assert {name for name, _ in net.named_parameters()} <= set(expected[0])
    assert next(net.parameters()).dtype == getattr(torch, dtype)


def test_scores_are_of_what_is_written(place: Path) -> None:
    """Weights that are evaluated are those that --merge-adapters writes, of adapters and a base in bfloat16 too."""
    for number in range(3):
        save(str(number), number, autocast=False, **SETTINGS[0])
    adapters = [open_checkpoint(Path(f"adapters/{number}"), How(base=Path("base"))) for number in range(3)]
    start = BaseAsAdapter.of(cast("AdapterCheckpoint", adapters[0]))
    for mixture in (Mixture.uniform(adapters), Mixture((*adapters, start), (0.5, 0.5, 0.5, -0.5), None, adapters[0])):
        live = LiveNetwork(Network(base()), torch.device("cpu"))
        live.load(mixture)
        wanted = merged(mixture)
        for name, tensor in live.places(mixture.kept).items():
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor.flatten(), mix(wanted, name, start=0, count=tensor.numel())), name


def test_rebuilt_and_in_shards(place: Path, soup: Soup) -> None:
    """The report tells it: verify mixes it again to the same bytes, in shards too; the card names no adapter."""
    for number, settings in enumerate(SETTINGS):
        save(str(number), number, **settings)
    words = ("--ckpts", "adapters/*/", "--base", "base", "--merge-adapters", "--max-shard-size", "4KB")
    assert soup("uniform", *words).code == 0
    assert len(list(Path("soup").glob("model-*.safetensors"))) > 1
    ran = soup("verify", "soup", "--rebuild")
    assert ran.code == 0, ran.stdout
    assert "library_name: peft" not in Path("soup/README.md").read_text()
    assert transformers.AutoModelForCausalLM.from_pretrained("soup") is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ckpts", "base", "--merge-adapters"), "--merge-adapters: these checkpoints are no adapters"),
        (("--ckpts", "adapters/0", "--merge-adapters", "--adapter-rank", "2"), "has no --adapter-rank"),
        (("--ckpts", "adapters/0", "--merge-adapters", "--format", "torch"), "not --format torch"),
    ],
)
def test_refused(place: Path, soup: Soup, words: Sequence[str], message: str) -> None:
    """What does not go together is said before anything is written."""
    save("0", 0, **SETTINGS[0])
    ran = soup("uniform", *words)
    assert ran.code == 2
    assert message in ran.stderr
    assert not Path("soup").exists()


def test_base_not_at_hand(place: Path, soup: Soup) -> None:
    """The error says which base is missing, and how to name it."""
    save("0", 0, **SETTINGS[0])
    Path("base").rename("moved")
    ran = soup("uniform", "--ckpts", "adapters/0", "--merge-adapters")
    assert ran.code == 2
    assert "its base base is not a folder here" in ran.stderr
    assert soup("uniform", "--ckpts", "adapters/0", "--merge-adapters", "--base", "moved").code == 0
