"""LoRA adapters of the real PEFT: read as the networks that they make, mixed by their products, refused by name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
from soupcli.checkpoints.adapters.config import read_adapter_config
from soupcli.checkpoints.compare.agreement import check_agreement
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.find import find
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import CheckpointError, MixError, NetworkError
from soupcli.mixing.adapter_mean import AdapterSoup
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.write_soup import WritingOptions, write_soup
from soupcli.networks.build import build
from soupcli.networks.slots import Slots
from tests.helpers.checkpoint_tensors import assert_same, read, read_all

peft = pytest.importorskip("peft", reason="peft is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TARGETS = ["q_proj", "v_proj", "down_proj"]
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny language model."""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=40
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def base_of(folder: Path) -> nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(folder)  # type: ignore[no-any-return]


def save_adapter(folder: Path, net: nn.Module, seed: int, **settings: Any) -> Path:
    """An adapter of `net` with random factors, as PEFT saves it."""
    with warnings.catch_warnings():  # PEFT's advice on what it finds
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(net, peft.LoraConfig(**settings))
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.2)
        adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, llama: Path) -> Make:
    """Saves an adapter of the language model under a name: make("a", r=4)."""

    def adapter(name: str, **settings: Any) -> Path:
        seed = int.from_bytes(name.encode(), "big") % 1000
        chosen = {"r": 4, "lora_alpha": 16, "target_modules": TARGETS, **settings}
        return save_adapter(tmp_path / name, base_of(llama), seed, **chosen)

    return adapter


def merged(adapter: Path, net: nn.Module) -> dict[str, Tensor]:
    """The weights that PEFT makes of the network in float64, under the network's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(net.double(), adapter, autocast_adapter_dtype=False).double()
        return dict(adapted.merge_and_unload().state_dict())


def adapters(folders: Sequence[Path], **how: Any) -> list[AdapterCheckpoint]:
    opened = [open_checkpoint(folder, How(**how)) for folder in folders]
    assert all(isinstance(checkpoint, AdapterCheckpoint) for checkpoint in opened)
    return opened  # type: ignore[return-value]


def write(mixture: Mixture, folder: Path, rank: int | None = None) -> float:
    """Writes the soup as an adapter and returns its relative error."""
    folder.mkdir()
    _, notes = write_soup(mixture, folder, WritingOptions(max_shard_size=1_000, adapter_rank=rank))
    assert notes is not None
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    return notes.relative_error


def assert_mean(soup: dict[str, Tensor], members: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> None:
    """The soup's weights are the weighted mean of the members', to the rounding of float32 factors."""
    for name, found in soup.items():
        parts = [weight * member[name] for weight, member in zip(weights, members, strict=True)]
        expected = torch.stack(parts).sum(dim=0)
        assert torch.allclose(found, expected, rtol=0, atol=3e-7), name


def test_is_the_network_that_it_makes(llama: Path, make: Make) -> None:
    """Every tensor of the merged network, as PEFT merges it; any part of one is that part."""
    folder = make("a", modules_to_save=["lm_head"])
    checkpoint = open_checkpoint(folder)
    assert checkpoint.origin.format == "PEFT adapter"
    assert checkpoint.folder == llama
    expected = merged(folder, base_of(llama))
    found = read_all(checkpoint)
    assert sorted(found) == sorted(expected)
    for name, tensor in found.items():
        assert torch.allclose(tensor.double(), expected[name], rtol=0, atol=1e-7), name
        flat = tensor.reshape(-1)
        for start, count in ((0, 5), (17, 30), (len(flat) - 3, 3)):
            if start + count <= len(flat):
                assert torch.equal(read(checkpoint, name, start, count), flat[start : start + count])


def test_uniform_mean_rounds_nothing(llama: Path, make: Make, tmp_path: Path) -> None:
    """Adapters of one scale: factors side by side, bit for bit, at a scale that is divided by their number."""
    folders = [make(name) for name in "abc"]
    write(Mixture.uniform(adapters(folders)), tmp_path / "soup")
    config = json.loads((tmp_path / "soup/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (12, 16, {})
    soup, members = (
        load_file(tmp_path / "soup/adapter_model.safetensors"),
        [load_file(folder / "adapter_model.safetensors") for folder in folders],
    )
    for name, tensor in soup.items():
        assert torch.equal(tensor, torch.cat([member[name] for member in members], dim=int("lora_B" in name)))
    assert_mean(
        merged(tmp_path / "soup", base_of(llama)), [merged(folder, base_of(llama)) for folder in folders], [1 / 3] * 3
    )


def test_any_mean(llama: Path, make: Make, tmp_path: Path) -> None:
    """Ranks, scales, rsLoRA, patterns and weights that differ: PEFT makes the mean of the networks of the soup."""
    folders = [
        make("a", r=4, lora_alpha=16, modules_to_save=["lm_head"]),
        make("b", r=8, lora_alpha=3, use_rslora=True, modules_to_save=["lm_head"]),
        make("c", rank_pattern={"v_proj": 2}, alpha_pattern={"layers.1.*": 5}, modules_to_save=["lm_head"]),
    ]
    weights = (0.5, 0.2, 0.3)
    check_agreement(adapters(folders))
    error = write(Mixture(tuple(adapters(folders)), weights), tmp_path / "soup")
    assert error == 0.0
    members = [merged(folder, base_of(llama)) for folder in folders]
    assert_mean(merged(tmp_path / "soup", base_of(llama)), members, weights)
    again = {name: tensor.double() for name, tensor in read_all(open_checkpoint(tmp_path / "soup")).items()}
    assert_mean(again, members, weights)


def test_functions_are_averaged(llama: Path, make: Make, tmp_path: Path) -> None:
    """Where the network is linear in what was adapted, the soup's logits are the mean of the logits."""
    folders = [make(name, target_modules=["lm_head"]) for name in "abc"]
    write(Mixture.uniform(adapters(folders)), tmp_path / "soup")
    words = torch.arange(12).reshape(2, 6)

    def logits(folder: Path) -> Tensor:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = peft.PeftModel.from_pretrained(base_of(llama).double(), folder, autocast_adapter_dtype=False)
            return net.double()(input_ids=words).logits  # type: ignore[no-any-return]

    mean = torch.stack([logits(folder) for folder in folders]).mean(dim=0)
    assert torch.allclose(logits(tmp_path / "soup"), mean, rtol=0, atol=1e-12)


def test_factors_are_not_averaged(llama: Path, make: Make, tmp_path: Path) -> None:
    """The mean of the factors is another network: this is why adapters are not mixed tensor by tensor."""
    folders = [make(name) for name in "ab"]
    write(Mixture.uniform(adapters(folders)), tmp_path / "soup")
    members = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    (tmp_path / "wrong").mkdir()
    save_file(
        {name: (members[0][name] + members[1][name]) / 2 for name in members[0]},
        tmp_path / "wrong/adapter_model.safetensors",
    )
    (tmp_path / "wrong/adapter_config.json").write_bytes((folders[0] / "adapter_config.json").read_bytes())
    name = "model.layers.0.self_attn.q_proj.weight"
    right, wrong = (read(open_checkpoint(tmp_path / folder), name) for folder in ("soup", "wrong"))
    assert (right - wrong).abs().max() > 0.01


@pytest.mark.parametrize("rank", [None, 4, 2])
def test_identical_adapters(llama: Path, make: Make, tmp_path: Path, rank: int | None) -> None:
    """Adapters that are the same give back what each of them does, at its own rank too."""
    folders = [make("a"), make("a/copy")]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folders[1] / name).write_bytes((folders[0] / name).read_bytes())
    error = write(Mixture.uniform(adapters(folders)), tmp_path / "soup", rank)
    found, expected = merged(tmp_path / "soup", base_of(llama)), merged(folders[0], base_of(llama))
    if rank == 2:
        assert 0.1 < error < 1
        return
    assert error < 1e-12
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=0, atol=1e-15 if rank is None else 1e-6), name


def test_lower_rank_is_the_best_one(llama: Path, make: Make, tmp_path: Path) -> None:
    """--adapter-rank gives the truncated decomposition of the mean change, and its error is the one reported."""
    folders = [make(name, r=3) for name in "abc"]
    error = write(Mixture.uniform(adapters(folders)), tmp_path / "soup", 4)
    config = json.loads((tmp_path / "soup/adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4
    start = base_of(llama).double().state_dict()
    soup, members = merged(tmp_path / "soup", base_of(llama)), [merged(f, base_of(llama)) for f in folders]
    lost = total = 0.0
    for name in (name for name in start if any(f".{target}." in name for target in TARGETS)):
        change = torch.stack([member[name] - start[name] for member in members]).mean(dim=0)
        values = torch.linalg.svdvals(change)
        assert torch.linalg.matrix_rank(soup[name] - start[name], atol=1e-6) == 4
        assert torch.linalg.norm(soup[name] - start[name] - change) == pytest.approx(float(values[4:].norm()), rel=1e-5)
        lost, total = lost + float(values[4:].square().sum()), total + float(values.square().sum())
    assert error == pytest.approx((lost / total) ** 0.5, rel=1e-6)


def test_order_does_not_matter(make: Make) -> None:
    """The same members in any order are the same tensors, bit for bit, exact and approximated."""
    folders = [make(name, r=rank) for name, rank in zip("abc", (2, 4, 3), strict=True)]
    opened = adapters(folders)
    for rank in (None, 4):
        one = AdapterSoup.of(Mixture(tuple(opened), (0.5, 0.25, 0.25)), rank=rank)
        other = AdapterSoup.of(Mixture((opened[2], opened[0], opened[1]), (0.25, 0.5, 0.25)), rank=rank)
        assert_same(read_all(one), read_all(other))


def test_without_its_base(make: Make, tmp_path: Path) -> None:
    """Adapters of a base that is not here are mixed all the same; whoever needs the network is told of --base."""
    folders = [make(name) for name in "ab"]
    for folder in folders:
        change(folder, base_model_name_or_path="organisation/model")
    opened = adapters(folders)
    assert sorted(opened[0].tensors) == sorted(
        f"model.layers.{layer}.{module}.weight"
        for layer in range(2)
        for module in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    )
    write(Mixture.uniform(opened), tmp_path / "soup")
    with pytest.raises(CheckpointError, match="its base organisation/model is not a folder here") as refused:
        _ = opened[0].folder
    assert "--base" in str(refused.value.hint)


def test_base_by_flag(llama: Path, make: Make) -> None:
    """--base gives the network where the name in the configuration leads nowhere."""
    folder = make("a")
    change(folder, base_model_name_or_path="organisation/model")
    checkpoint = open_checkpoint(folder, How(base=llama))
    assert checkpoint.folder == llama
    assert "lm_head.weight" in checkpoint.tensors


def change(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_base_of_another_network(make: Make, tmp_path: Path) -> None:
    """A base that has not what the adapter changes, or in another shape, is refused by the name of the tensor."""
    folder = make("a")
    save_file({"model.layers.0.self_attn.q.weight": torch.ones(16, 16)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"has no model\.layers\.0\.mlp\.down_proj\.weight, which"):
        open_checkpoint(folder, How(base=tmp_path / "other.safetensors"))
    wide = {name: torch.ones(20, 30) for name in open_checkpoint(folder).tensors}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(CheckpointError, match=r"as if it had shape \[16, 24\], its base has \[20, 30\]"):
        open_checkpoint(folder, How(base=tmp_path / "wide.safetensors"))


def test_base_without_its_outer_module(tmp_path: Path) -> None:
    """A classifier on a base that was saved without a head: names are matched as transformers does."""
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=40
    )
    net = transformers.BertForSequenceClassification(config)
    net.bert.save_pretrained(tmp_path / "base")
    settings = {"target_modules": ["query"], "task_type": "SEQ_CLS", "bias": "lora_only", "lora_bias": True}
    folder = save_adapter(tmp_path / "a", net, 0, **settings)
    torch.manual_seed(1)
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base")
    expected = merged(folder, again)
    found = read_all(open_checkpoint(folder, How(base=tmp_path / "base")))
    assert set(expected) <= set(found)
    for name, tensor in expected.items():
        assert torch.allclose(found[name].double(), tensor.double(), rtol=0, atol=1e-7), name


@pytest.mark.parametrize("rank", [None, 2])
def test_biases(tmp_path: Path, rank: int | None) -> None:
    """Biases of the layers, and of the factors B, are averaged with their scale, at a lower rank too."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4))
    save_file(net.state_dict(), tmp_path / "base.safetensors")
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def base() -> nn.Module:
        made = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4))
        made.load_state_dict(state)
        return made

    settings = {"target_modules": ["0", "1"], "bias": "lora_only", "lora_bias": True, "lora_alpha": 12}
    folders = [save_adapter(tmp_path / f"{seed}", base(), seed, r=2, **settings) for seed in range(3)]
    opened = adapters(folders, base=tmp_path / "base.safetensors")
    write(Mixture.uniform(opened), tmp_path / "soup", rank)
    members = [merged(folder, base()) for folder in folders]
    soup = merged(tmp_path / "soup", base())
    chosen = [name for name in soup if rank is None or name.endswith("bias")]
    assert_mean({name: soup[name] for name in chosen}, members, [1 / 3] * 3)


def gpt2() -> Any:
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=8, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv1d(6, 4, 2), nn.Conv2d(6, 5, 1), nn.Embedding(7, 4))


@pytest.mark.parametrize(
    ("build", "targets"), [(gpt2, ["c_attn", "c_proj", "wte"]), (convolutions, ["0", "1", "2", "3"])]
)
def test_other_layers(tmp_path: Path, build: Callable[[], nn.Module], targets: list[str]) -> None:
    """GPT-2's transposed layers, convolutions and embeddings are merged and mixed as PEFT merges them."""
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in build().state_dict().items() if name != "lm_head.weight"}
    save_file(state, tmp_path / "base.safetensors")

    def base() -> nn.Module:
        net = build()
        net.load_state_dict(state, strict=False)
        return net

    folders = [
        save_adapter(tmp_path / f"{seed}", base(), seed, r=2 + seed, lora_alpha=3, target_modules=targets)
        for seed in range(2)
    ]
    opened = adapters(folders, base=tmp_path / "base.safetensors")
    members = [merged(folder, base()) for folder in folders]
    for checkpoint, expected in zip(opened, members, strict=True):
        for name, tensor in read_all(checkpoint).items():
            assert torch.allclose(tensor.double(), expected[name], rtol=0, atol=1e-6), name
    write(Mixture.uniform(opened), tmp_path / "soup")
    assert_mean(merged(tmp_path / "soup", base()), members, [0.5, 0.5])
    write(Mixture.uniform(opened), tmp_path / "small", 2)
    assert set(merged(tmp_path / "small", base())) == set(members[0])


def test_shared_weights(tmp_path: Path) -> None:
    """An adapter of an embedding that is the output layer too cannot be evaluated as merged weights."""
    net = gpt2()
    net.save_pretrained(tmp_path / "base")
    for target in ("wte", "c_attn"):
        folder = save_adapter(tmp_path / target, gpt2(), 0, target_modules=[target])
        checkpoint = open_checkpoint(folder, How(base=tmp_path / "base"))
        slots = Slots(build(None, checkpoint))
        if target == "c_attn":
            assert slots.of(checkpoint)
            continue
        with pytest.raises(
            NetworkError, match=r"adapts 'transformer\.wte\.weight', whose weight the network .* shares"
        ):
            slots.of(checkpoint)


def test_dtypes(make: Make, llama: Path, tmp_path: Path) -> None:
    """Adapters in bfloat16 stay in it, rounded once; --dtype says otherwise."""
    folders = [make("a"), make("b", lora_alpha=5)]
    for folder in folders:
        state = load_file(folder / "adapter_model.safetensors")
        save_file({n: t.to(torch.bfloat16) for n, t in state.items()}, folder / "adapter_model.safetensors")
    opened = adapters(folders)
    write(Mixture.uniform(opened), tmp_path / "soup")
    write(Mixture.uniform(opened, dtype=Dtype.FLOAT32), tmp_path / "wide")
    narrow, wide = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("soup", "wide"))
    assert {tensor.dtype for tensor in narrow.values()} == {torch.bfloat16}
    for name, tensor in wide.items():
        assert torch.equal(tensor.to(torch.bfloat16), narrow[name]), name
    assert open_checkpoint(folders[0]).tensors["model.layers.0.self_attn.q_proj.weight"].dtype == Dtype.FLOAT32


def test_old_pickled_adapters(make: Make, tmp_path: Path) -> None:
    """adapter_model.bin, as PEFT wrote it before safetensors."""
    folder = make("a")
    state = load_file(folder / "adapter_model.safetensors")
    expected = read_all(open_checkpoint(folder))
    (folder / "adapter_model.safetensors").unlink()
    torch.save(state, folder / "adapter_model.bin")
    assert_same(read_all(open_checkpoint(folder)), expected)
    assert_same(read_all(open_checkpoint(folder / "adapter_model.bin")), expected)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has adapter_config\.json and no adapter_model\.safetensors"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora is true: the mean of such adapters is not an adapter"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora', which changes the base"),
        ({"trainable_token_indices": [1, 2]}, r"trainable_token_indices is \[1, 2\]"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication"),
    ],
)
def test_refused_settings(make: Make, settings: dict[str, Any], message: str) -> None:
    """Adapters that PEFT saved with settings of which no mean is exact are refused by the name of the setting."""
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(make("a", **settings))


@pytest.mark.parametrize("kind", ["IA3Config", "PromptTuningConfig", "VeraConfig"])
def test_other_adapters(llama: Path, tmp_path: Path, kind: str) -> None:
    """Only LoRA is W + s B A. The hint is to merge only what can be merged."""
    settings = (
        {"num_virtual_tokens": 2, "task_type": "CAUSAL_LM"} if "Prompt" in kind else {"target_modules": ["q_proj"]}
    )
    if kind == "IA3Config":
        settings["feedforward_modules"] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(base_of(llama), getattr(peft, kind)(**settings)).save_pretrained(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"a \w+ adapter, only LORA adapters are mixed") as refused:
        open_checkpoint(tmp_path / "a")
    assert ("merge_and_unload" in str(refused.value.hint)) == ("Prompt" not in kind)


def test_broken_settings(make: Make) -> None:
    """A configuration that is no JSON, or does not go with its tensors, is refused in one line."""
    folder = make("a")
    file = folder / "adapter_config.json"
    whole = json.loads(file.read_text())
    cases: dict[str, str | dict[str, Any]] = {
        "not JSON": "{",
        "not a JSON object": "[]",
        "a None adapter": {},
        "says that .* has rank 3, its tensors have 4": {**whole, "r": 3},
        "lora_alpha of .* is 'x', not a number": {**whole, "lora_alpha": "x"},
        "lora_alpha of .* is inf": {**whole, "lora_alpha": float("inf")},
    }
    for message, content in cases.items():
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(CheckpointError, match=message) as refused:
            open_checkpoint(folder)
        assert "\n" not in str(refused.value)


def test_broken_tensors(make: Make) -> None:
    """Factors without their other half, of other shapes, or of another method are refused by name."""
    folder = make("a")
    file = folder / "adapter_model.safetensors"
    whole = load_file(file)
    b = next(name for name in whole if "lora_B" in name)
    cases = {
        f"has no '{b}' to go with it": {name: tensor for name, tensor in whole.items() if name != b},
        r"have shapes \[4, \d+\] and \[16, 5\]": {**whole, b: torch.ones(16, 5)},
        "is no factor of a plain LoRA": {**whole, b.replace("lora_B.weight", "lora_magnitude_vector"): torch.ones(16)},
        "there are no LoRA factors": {"x": torch.ones(1)},
    }
    for message, state in cases.items():
        save_file(state, file)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(folder)


def test_what_does_not_go_together(make: Make, llama: Path, tmp_path: Path) -> None:
    """Bases, target modules, bias settings and kinds that differ are refused, naming both checkpoints."""
    first = make("a")
    elsewhere = make("b")
    change(elsewhere, base_model_name_or_path="other/model")
    revised = make("c")
    change(revised, revision="v2")
    cases = {
        r"an adapter of other/model, .*/a is of ": elsewhere,
        r"an adapter of revision v2 of .*/a is of None": revised,
        r"does not adapt model\.layers\.0\.mlp\.down_proj\.weight, .*/a does": make("d", target_modules=["q_proj"]),
        r"/a: does not adapt model\.layers\.0\.self_attn\.k_proj\.weight, ": make(
            "e", target_modules=[*TARGETS, "k_proj"]
        ),
        "bias is 'all', .*/a has 'none'": make("f", bias="all"),
        "is an adapter, .* is a whole network": llama,
    }
    for message, folder in cases.items():
        with pytest.raises(MixError, match=message):
            check_agreement([open_checkpoint(first), open_checkpoint(folder)])
    opened = adapters([first, elsewhere], base=llama)
    check_agreement(opened, base=llama)


def test_one_base_under_two_names(make: Make, llama: Path, tmp_path: Path) -> None:
    """Paths that lead to one folder are one base."""
    folders = [make("a"), make("b")]
    (tmp_path / "link").symlink_to(llama)
    change(folders[1], base_model_name_or_path=str(tmp_path / "link"))
    check_agreement(adapters(folders))


def test_weights_that_do_not_sum_to_one(make: Make) -> None:
    """An adapter cannot scale its base: a learned temperature is refused."""
    opened = tuple(adapters([make("a"), make("b")]))
    with pytest.raises(MixError, match=r"the weights sum to 1\.5"):
        AdapterSoup.of(Mixture(opened, (0.5, 1.0)))


def test_nan(make: Make, tmp_path: Path) -> None:
    """A factor that holds a NaN is named with its file."""
    folders = [make("a"), make("b")]
    file = folders[1] / "adapter_model.safetensors"
    state = load_file(file)
    name = min(state)
    state[name][0, 0] = float("nan")
    save_file(state, file)
    for rank in (None, 2):
        with pytest.raises(MixError, match=r"b/adapter_model\.safetensors: tensor '.*' holds a NaN"):
            write(Mixture.uniform(adapters(folders)), tmp_path / f"soup-{rank}", rank)


def test_factors_in_plain_files(make: Make, tmp_path: Path) -> None:
    """Factors without a configuration are not averaged as if they were weights."""
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes((make(name) / "adapter_model.safetensors").read_bytes())
    opened = [open_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab"]
    with pytest.raises(MixError, match="is a part of an adapter"):
        check_agreement(opened)


def test_wrappers_in_the_names(make: Make, tmp_path: Path) -> None:
    """An adapter that was trained inside torch.compile is the same adapter: its names and patterns lose the wrapper."""
    plain, wrapped = make("a"), tmp_path / "wrapped"
    wrapped.mkdir()
    settings = json.loads((plain / "adapter_config.json").read_text())
    for folder, wrapper in ((plain, ""), (wrapped, r"_orig_mod\.")):
        named = {"alpha_pattern": {rf"layers\.{wrapper}0.mlp\.down_proj": 40}, "target_modules": f".*{wrapper}mlp.*"}
        (folder / "adapter_config.json").write_text(json.dumps(settings | named))
    state = load_file(plain / "adapter_model.safetensors")
    names = {name: name.replace("model.layers.", "model._orig_mod.layers._orig_mod.") for name in state}
    save_file({names[name]: tensor for name, tensor in state.items()}, wrapped / "adapter_model.safetensors")
    opened = adapters([plain, wrapped])
    first, other = (read_all(one) for one in opened)
    assert first.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in first.items())
    write(Mixture.uniform(opened), tmp_path / "soup")
    assert load_file(tmp_path / "soup/adapter_model.safetensors").keys() == state.keys()
    write(Mixture.uniform(list(reversed(opened))), tmp_path / "turned")
    for name in ("soup", "turned"):
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["target_modules"] == ".*mlp.*"


def test_quantised_base(llama: Path, make: Make, tmp_path: Path) -> None:
    """A base whose weights are integers is refused: W + s B A of their codes is no network."""
    tensors = load_file(llama / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    (tmp_path / "int8").mkdir()
    save_file({**tensors, name: tensors[name].to(torch.int8)}, tmp_path / "int8/model.safetensors")
    with pytest.raises(CheckpointError, match="which its base holds as int8: a quantised weight"):
        open_checkpoint(make("a"), How(base=tmp_path / "int8"))


def test_named_adapter(make: Make, tmp_path: Path) -> None:
    """PEFT saves an adapter with a name of its own below the folder: one is opened, of two one has to be named."""
    make("a").rename(tmp_path / "math")
    (tmp_path / "run").mkdir()
    (tmp_path / "math").rename(tmp_path / "run/math")
    torch.save({"state": {}, "param_groups": []}, tmp_path / "run/optimizer.pt")  # as the Trainer leaves it beside
    checkpoint = open_checkpoint(tmp_path / "run")
    assert checkpoint.is_adapter
    assert checkpoint.path == tmp_path / "run"
    make("b").rename(tmp_path / "run/code")
    with pytest.raises(CheckpointError, match="holds 2 adapters: code, math") as refused:
        open_checkpoint(tmp_path / "run")
    assert str(refused.value.hint).startswith(f"--ckpts '{tmp_path}/*/code' mixes one; or if each is a run")


def test_named_adapters_are_no_runs(make: Make, tmp_path: Path) -> None:
    """Adapters of one network, which PEFT saved beside its model card, are not mixed as runs; steps of one run are."""
    for run, names in {"peft": ("code", "math"), "runs": ("checkpoint-1", "checkpoint-2")}.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "README.md").write_text("---\nbase_model: x\nlibrary_name: peft\n---\n")
        for name, adapter in zip(names, "ab", strict=True):
            make(adapter).rename(tmp_path / run / name)
    with pytest.raises(CheckpointError, match="holds 2 adapters: code, math"):
        find([str(tmp_path / "peft")])
    assert len(find([str(tmp_path / "runs")])[0]) == 2


def test_heads_that_adapters_hold_whole(make: Make) -> None:
    """Rows of a head in `modules_to_save` that stand for other names are refused; a head of the base is not mixed."""
    names = [f"name {row}" for row in range(40)]
    for modules in (["lm_head"], None):
        folders = [make(f"{name}{modules is None}", modules_to_save=modules) for name in "ab"]
        for folder, order in zip(folders, (names, names[::-1]), strict=True):
            (folder / "classes.txt").write_text("\n".join(order))
        if modules is None:
            check_meanings(adapters(folders), TensorFilter())
            continue
        with pytest.raises(MixError, match=r"rows of '[\w.]*lm_head\.weight' stand for other classes"):
            check_meanings(adapters(folders), TensorFilter())


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", ".*" * 10 + "b", "(a{9}){9}b"])
def test_patterns_without_end(tmp_path: Path, pattern: str) -> None:
    """A pattern of a stranger's that could be matched in ways without end is refused before it is tried."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "rank_pattern": {pattern: 2}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="rank_pattern has patterns that take too long to match"):
        read_adapter_config(tmp_path).scale("a" * 60, 2)


@pytest.mark.parametrize(
    "pattern", ["v_proj", r"layers\.\d+\.v_proj", "layers.[0-9]+.*", ".*v_proj", r"^layers\.0\.v_proj"]
)
def test_patterns_of_peft(tmp_path: Path, pattern: str) -> None:
    """Patterns as people write them choose the rank of 5,000 modules."""
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "rank_pattern": {f"{n}x": 3 for n in range(9)} | {pattern: 4},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    read = read_adapter_config(tmp_path)
    assert {read.scale("layers.0.v_proj", 4) for _ in range(5000)} == {Fraction(1, 2)}
