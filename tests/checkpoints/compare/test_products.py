"""Weights in parts are refused by name where the parts differ, in every layout that libraries write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

from soupcli.checkpoints import checkpoint as checkpoint_module
from soupcli.checkpoints.compare.computed_weights import parametrised
from soupcli.checkpoints.compare.products import check_products, quantised
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import CheckpointError, MixError
from tests.helpers.operations import operations

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = TensorFilter()
FP8 = torch.float8_e4m3fn


def codes(dtype: torch.dtype, *shape: int) -> Tensor:
    """Random numbers of a narrow dtype."""
    if dtype == FP8:
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


# What each library writes for one layer: names and dtypes from its own code.
LAYOUTS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "bitsandbytes int8": lambda: {
        "l.weight": codes(torch.int8, 8, 8),
        "l.SCB": torch.rand(8),
        "l.weight_format": torch.tensor(0, dtype=torch.uint8),
    },
    "bitsandbytes nf4": lambda: {
        "l.weight": codes(torch.uint8, 32, 1),
        "l.weight.absmax": codes(torch.uint8, 4),
        "l.weight.quant_map": torch.rand(16),
        "l.weight.nested_absmax": torch.rand(1),
        "l.weight.nested_quant_map": torch.rand(16),
        "l.weight.quant_state.bitsandbytes__nf4": codes(torch.uint8, 40),
    },
    "GPTQ": lambda: {
        "l.qweight": codes(torch.int32, 4, 8),
        "l.qzeros": codes(torch.int32, 1, 4),
        "l.scales": torch.rand(1, 8).half(),
        "l.g_idx": codes(torch.int32, 8),
    },
    "AWQ": lambda: {
        "l.qweight": codes(torch.int32, 8, 2),
        "l.qzeros": codes(torch.int32, 1, 2),
        "l.scales": torch.rand(1, 8).half(),
    },
    "fp8": lambda: {"l.weight": codes(FP8, 8, 8), "l.weight_scale_inv": torch.rand(1, 1)},
    "fbgemm fp8": lambda: {"l.weight": codes(FP8, 8, 8), "l.weight_scale": torch.rand(8, 1)},
    "comfy fp8": lambda: {"l.weight": codes(FP8, 8, 8), "l.scale_weight": torch.rand(1), "l.bias": torch.rand(8)},
    "MXFP4": lambda: {"e.up_proj_blocks": codes(torch.uint8, 4, 2, 16), "e.up_proj_scales": codes(torch.uint8, 4, 2)},
    "NVFP4": lambda: {
        "l.weight": codes(torch.uint8, 8, 4),
        "l.weight_scale": codes(FP8, 8, 1),
        "l.weight_scale_2": torch.rand(()),
        "l.input_scale": torch.rand(()),
    },
    "compressed-tensors": lambda: {
        "l.weight_packed": codes(torch.int32, 8, 1),
        "l.weight_scale": torch.rand(8, 1),
        "l.weight_shape": torch.tensor([8, 8]),
    },
    "compressed-tensors int8": lambda: {"l.weight": codes(torch.int8, 8, 8), "l.weight_scale": torch.rand(8, 1)},
    "torchao": lambda: {
        "l._weight_qdata": codes(torch.int8, 8, 8),
        "l._weight_scale": torch.rand(8, 1),
        "l._weight_zero_point": codes(torch.int8, 8, 1),
    },
    "torchao fp8": lambda: {"l._weight_qdata": codes(FP8, 8, 8), "l._weight_scale": torch.rand(8, 1)},
    "torchao with colons": lambda: {"l.weight:qdata": codes(torch.int8, 8, 8), "l.weight:scale": torch.rand(8, 1)},
    "quanto": lambda: {
        "l.weight._data": codes(torch.int8, 8, 8),
        "l.weight._scale": torch.rand(8, 1),
        "l.input_scale": torch.ones(()),
        "l.output_scale": torch.ones(()),
    },
    "quanto fp8": lambda: {"l.weight._data": codes(FP8, 8, 8), "l.weight._scale": torch.rand(8, 1)},
    "HQQ": lambda: {"l.W_q": codes(torch.uint8, 4, 8), "l.scale": torch.rand(1, 8), "l.zero": torch.rand(1, 8)},
    "AQLM": lambda: {
        "l.codes": codes(torch.int16, 8, 1, 1),
        "l.codebooks": torch.rand(1, 16, 1, 8),
        "l.scales": torch.rand(8, 1, 1, 1),
    },
    "EETQ": lambda: {"l.weight": codes(torch.int8, 8, 8), "l.weight_scales": torch.rand(8).half()},
    "EETQ's own": lambda: {"l.qweight": codes(torch.int8, 8, 8), "l.weight_scales": torch.rand(8).half()},
    "MLX": lambda: {
        "l.weight": codes(torch.uint32, 8, 2),
        "l.scales": torch.rand(8, 1).half(),
        "l.biases": torch.rand(8, 1).half(),
    },
    "SVDQuant": lambda: {
        "l.qweight": codes(torch.int8, 8, 4),
        "l.wscales": torch.rand(1, 8).half(),
        "l.proj_down": torch.rand(8, 2).half(),
        "l.smooth_factor": torch.rand(8).half(),
    },
    "ExLlamaV3": lambda: {"l.trellis": codes(torch.int16, 4, 4, 8), "l.suh": torch.rand(8), "l.svh": torch.rand(8)},
    "QuIP#": lambda: {"l.Qidxs": codes(torch.int64, 8, 2), "l.SU": torch.rand(8), "l.SV": torch.rand(8)},
    "HIGGS": lambda: {
        "l.weight": codes(torch.int16, 8, 8),
        "l.scales": torch.rand(8, 1),
        "l.tables": torch.rand(16, 1),
        "l.tables2": torch.rand(16, 2, 2),
    },
    "fp8 with amax": lambda: {"l.weight": codes(FP8, 8, 8), "l.weight_amax": torch.rand(1)},
    "fp8 with a scale below it": lambda: {"l.weight": codes(FP8, 8, 8), "l.weight.descale": torch.rand(1)},
    "fp8 with a table of scales": lambda: {"l.a.weight": codes(FP8, 8, 8), "l.scales.a": torch.rand(1)},
    "fp8 with a scale above it": lambda: {"l.a.weight": codes(FP8, 8, 8), "l.a_weight_scale": torch.rand(1)},
    "fp8 with factors of any name": lambda: {"l.weight": codes(FP8, 8, 8), "l.factor": torch.rand(8, 1)},
    "fp8 with a descale": lambda: {"l.weight_fp8": codes(FP8, 8, 8), "l.descale": torch.rand(1)},
    "fp8 of Transformer Engine": lambda: {"l._weight_data": codes(FP8, 8, 8), "l._weight_scale_inv": torch.rand(1)},
    "quanto int4": lambda: {
        "l.weight._data._data": codes(torch.uint8, 8, 4),
        "l.weight._scale": torch.rand(8, 1),
        "l.weight._shift": torch.rand(8, 1),
    },
    "VPTQ": lambda: {
        "l.indices": codes(torch.int32, 1, 8, 8),
        "l.perm": codes(torch.int16, 64),
        "l.centroids.weight": torch.rand(1, 64),
        "l.weight_scale": torch.rand(64),
    },
    "BitNet": lambda: {"l.weight": codes(torch.uint8, 2, 8), "l.weight_scale": torch.rand(1)},
    "a weight of integers": lambda: {"l.weight": codes(torch.int8, 8, 8)},
}


def saved(folder: Path, tensors: dict[str, Tensor], config: dict[str, object] | None = None) -> Path:
    """A folder with these tensors, beside a norm that is always there."""
    folder.mkdir(parents=True)
    save_file({**tensors, "norm.weight": torch.rand(8)}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def two(tmp_path: Path, make: Callable[[], dict[str, Tensor]], config: dict[str, object] | None = None) -> list[Path]:
    return [saved(tmp_path / name, make(), config) for name in "ab"]


def check(paths: list[Path], selection: TensorFilter = EVERYTHING) -> None:
    check_products([open_checkpoint(path) for path in paths], selection)


@pytest.mark.parametrize("name", LAYOUTS)
def test_quantised(tmp_path: Path, name: str) -> None:
    """Each layout is refused, naming one of its tensors and the way out, but for parts that are the same in all."""
    paths = two(tmp_path, LAYOUTS[name])
    with pytest.raises(MixError, match=r"tensor '[le]\..*is a quantised weight") as refused:
        check(paths)
    assert str(refused.value.hint).startswith(("dequantise and save it first", "mix the networks from before"))
    check(paths[:1])
    check(paths, TensorFilter(exclude=("[le].*",)))
    check(paths, TensorFilter(take=("[le].*",)))
    same = LAYOUTS[name]()
    check(two(tmp_path / "same", lambda: same))


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("nested", [False, True])
def test_declared(tmp_path: Path, key: str, *, nested: bool) -> None:
    """A configuration that says so is enough, in a part of it too; the hint is for its method."""
    said: dict[str, object] = {key: {"quant_method": "mxfp4"}}
    paths = two(tmp_path, lambda: {"l.weight": torch.rand(8, 8)}, {"text_config": said} if nested else said)
    with pytest.raises(MixError, match=r"config\.json: quantization_config says .* \(mxfp4\)") as refused:
        check(paths)
    assert "Mxfp4Config" in str(refused.value.hint)
    check(paths[:1])


def test_hints_name_the_library_that_wrote_it(tmp_path: Path) -> None:
    """A library is told by what lies beside its weights: not everything called qweight is GPTQ's."""
    hints = {}
    for number, name in enumerate(("GPTQ", "EETQ's own", "SVDQuant", "MLX", "bitsandbytes nf4")):
        with pytest.raises(MixError) as refused:
            check(two(tmp_path / str(number), LAYOUTS[name]))
        hints[name] = str(refused.value.hint)
    assert "gptqmodel" in hints["GPTQ"]
    assert hints["EETQ's own"] == hints["SVDQuant"]
    assert "gptq" not in hints["EETQ's own"]
    assert "mlx_lm.convert" in hints["MLX"]
    assert "AutoModelForCausalLM" in hints["bitsandbytes nf4"]


# Scales beside weights that are floating numbers still: from the libraries' own code.
SCALES: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "quanto, calibrated": (
        lambda: {"l.weight": torch.rand(8, 8), "l.input_scale": torch.rand(()), "l.output_scale": torch.rand(())},
        "*put_scale",
    ),
    "keys and values": (lambda: {"attn.k_scale": torch.rand(()), "attn.v_scale": torch.rand(())}, "*[kv]_scale"),
    "ModelOpt": (lambda: {"l.input_quantizer._amax": torch.rand(()), "l.weight": torch.rand(8, 8)}, "*_quantizer.*"),
    "torch.ao": (
        lambda: {"l.fake.scale": torch.rand(1), "l.fake.fake_quant_enabled": torch.ones(1, dtype=torch.uint8)},
        "*scale",
    ),
    "fake-quantised": (lambda: {"l.weight": torch.rand(8, 8), "l.weight_scale": torch.rand(8, 1)}, "*weight_scale"),
    "SmoothQuant": (lambda: {"l.weight": torch.rand(8, 8), "l.pre_quant_scale": torch.rand(8)}, "*pre_quant_scale"),
    "whole numbers as floats": (
        lambda: {"l.codes": torch.randint(-1, 2, (8, 8)).half(), "l.alpha": torch.rand(8, 1)},
        "*codes",
    ),
    "signs, with the scale in a norm": (
        lambda: {"l.weight": torch.rand(8, 8).sub(0.5).sign(), "norm.weight": torch.rand(8)},
        "*l.weight",
    ),
    "whole numbers beside a step": (
        lambda: {"l.weight": torch.randint(-8, 8, (8, 8)).half(), "l.delta": torch.rand(8, 1)},
        "*l.weight",
    ),
    "whole numbers beside their largest": (
        lambda: {"l.weight": torch.randint(-127, 127, (8, 8)).half(), "l.weight_absmax": torch.rand(8)},
        "*l.weight",
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales_beside_floating_weights(tmp_path: Path, name: str) -> None:
    """Scales that were measured or multiply weights are refused if they differ, and --take of the pattern helps."""
    make, pattern = SCALES[name]
    paths = two(tmp_path, make)
    with pytest.raises(MixError, match=r"is (a scale|made of whole numbers alone, as codes of quantised weights)"):
        check(paths)
    check(paths, TensorFilter(take=(pattern,)))
    same = make()
    check(two(tmp_path / "same", lambda: same))


@pytest.mark.parametrize(
    "tensors",
    [
        {"attn.q_scale": torch.rand(8), "attn.k_scale": torch.rand(8)},  # learnt, of each dimension
        {"norm.scale": torch.rand(8), "norm.bias": torch.zeros(4, 8)},
        {"block.output_scale": torch.rand(())},
        {"conv.weight": torch.ones(8, 8), "conv.scale": torch.rand(8)},
    ],
)
def test_scales_of_the_network(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Learnt scales are mixed as any other weight."""
    check(
        [
            saved(tmp_path / name, {key: tensor * (number + 1) for key, tensor in tensors.items()})
            for number, name in enumerate("ab")
        ]
    )


PLAIN: dict[str, dict[str, Tensor]] = {
    "float8 as such": {"l.weight": codes(FP8, 8, 8), "l.scale": codes(FP8, 8), "logit_scale": torch.ones(())},
    "a learnt scale beside a float8 weight": {"positional_embedding": codes(FP8, 8, 8), "logit_scale": torch.ones(())},
    "a mask beside a scale": {"h.attn.bias": codes(torch.uint8, 1, 1, 8, 8), "h.attn.scale": torch.ones(())},
    "a codebook": {"vq.codebooks": torch.rand(2, 8, 4), "vq.indices": torch.arange(3)},
    "batch norm": {"bn.num_batches_tracked": torch.tensor(3), "bn.weight": torch.rand(8)},
    "counters": {"ema.num_updates": torch.tensor(3), "ema.scale": torch.rand(1)},
    "a layer's scale": {"block.pos": codes(FP8, 8, 8), "block.layer_scale": torch.rand(8), "block.bias": torch.rand(8)},
}


@pytest.mark.parametrize("name", PLAIN)
def test_whole_weights(name: str, tmp_path: Path) -> None:
    """Networks that have scales, masks and codebooks of their own are not quantised."""
    assert list(quantised(open_checkpoint(saved(tmp_path / "a", PLAIN[name])).tensors)) == []


def pruned(seed: int, mask: int) -> dict[str, Tensor]:
    torch.manual_seed(mask)
    layer = nn.Linear(6, 4)
    prune.random_unstructured(layer, "weight", 0.5)
    state = layer.state_dict()
    torch.manual_seed(seed)
    return {name: tensor if name.endswith("_mask") else torch.rand_like(tensor) for name, tensor in state.items()}


def test_pruned(tmp_path: Path) -> None:
    """Masks that differ are refused; one mask in all is right: the product of the mean is the mean of the products."""
    for number, (seed, mask) in enumerate([(0, 0), (1, 1), (2, 0)]):
        torch.save(pruned(seed, mask), tmp_path / f"{number}.pt")
    with pytest.raises(MixError, match="'weight_mask' is the mask of a pruned weight") as refused:
        check([tmp_path / "0.pt", tmp_path / "1.pt"])
    assert "torch.nn.utils.prune.remove" in str(refused.value.hint)
    check([tmp_path / "0.pt", tmp_path / "2.pt"])


class Masked(nn.Module):
    """A parametrisation that multiplies by 0 and 1."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.keep: Tensor
        self.register_buffer("keep", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight where it is kept."""
        kept: Tensor = weight * self.keep
        return kept


def test_masks_by_their_numbers(tmp_path: Path) -> None:
    """A tensor of nothing but 0 and 1 beside an original is a mask, whatever its name."""
    for number in range(2):
        torch.manual_seed(number)
        layer = nn.Linear(6, 4)
        parametrize.register_parametrization(layer, "weight", Masked((torch.rand(4, 6) > 0.5).float()))
        torch.save(layer.state_dict(), tmp_path / f"{number}.pt")
    with pytest.raises(MixError, match=r"'parametrizations\.weight\.0\.keep' is the mask of a pruned weight"):
        check([tmp_path / "0.pt", tmp_path / "1.pt"])


@pytest.mark.parametrize("wrap", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm(tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Its vectors are of unit length, which their mean is not; weight norm has nothing of the kind."""
    for number in range(2):
        torch.manual_seed(number)
        torch.save(wrap(nn.Linear(6, 4)).state_dict(), tmp_path / f"{number}.pt")
        torch.save(parametrizations.weight_norm(nn.Linear(6, 4)).state_dict(), tmp_path / f"weight{number}.pt")
    with pytest.raises(MixError, match="is a part of a weight under spectral norm"):
        check([tmp_path / "0.pt", tmp_path / "1.pt"])
    check([tmp_path / "weight0.pt", tmp_path / "weight1.pt"])


def test_dtypes_of_quantised_weights(tmp_path: Path) -> None:
    """A dtype that no whole weight has is refused when the file is opened."""
    header = b'{"w":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match="dtype F8_E8M0, which only quantised weights have"):
        open_checkpoint(tmp_path / "a.safetensors")


class OwnLora(nn.Module):
    """A parametrisation whose parts lie in modules of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight and a product."""
        return weight + self.up.weight @ self.down.weight


def orthogonal(layer: nn.Linear) -> None:
    """As torch parametrises it, beside a base of its own."""
    parametrizations.orthogonal(layer)


@pytest.mark.parametrize(
    "compute", [orthogonal, lambda layer: parametrize.register_parametrization(layer, "weight", OwnLora())]
)
def test_computed_weights(tmp_path: Path, compute: Callable[[nn.Linear], None]) -> None:
    """A weight that torch computes from parts is refused if the parts differ; the original alone may."""
    for seed in range(2):
        torch.manual_seed(seed)
        layer = nn.Linear(8, 8)
        compute(layer)
        torch.save(layer.state_dict(), tmp_path / f"{seed}.pt")
    state = torch.load(tmp_path / "0.pt")
    torch.save(state | {"parametrizations.weight.original": torch.rand(8, 8)}, tmp_path / "2.pt")
    with pytest.raises(MixError, match=r"'parametrizations.weight.0\..*' is a part of a weight that torch"):
        check([tmp_path / "0.pt", tmp_path / "1.pt"])
    check([tmp_path / "0.pt", tmp_path / "2.pt"])


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("fc.mask", lambda: torch.rand(8, 8).round(), "a mask of zeros and ones"),
        ("fc.connections", lambda: torch.rand(8, 8).round(), "a mask of zeros and ones"),
        ("masks.fc", lambda: torch.rand(8, 8).round(), "a mask of zeros and ones"),
        ("obs.histogram", lambda: torch.rand(32), "counts that an observer"),
    ],
)
def test_masks_and_histograms(tmp_path: Path, name: str, value: Callable[[], Tensor], word: str) -> None:
    """A mask beside a plain weight, and an observer's histogram: refused if they differ, mixed if they do not."""
    same = value()
    for seed in range(2):
        state = {"fc.weight": torch.rand(8, 8), "obs.min_val": torch.rand(()), name: value()}
        save_file(state, tmp_path / f"{seed}.safetensors")
        save_file(state | {name: same}, tmp_path / f"same{seed}.safetensors")
    with pytest.raises(MixError, match=word):
        check([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    check([tmp_path / "same0.safetensors", tmp_path / "same1.safetensors"])


def test_vectors_of_a_norm_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight, bias and statistics of a norm have one shape: that makes none of them a mask, which only values tell."""
    save_file({name: torch.ones(6) for name in ("n.weight", "n.bias", "n.running_mean")}, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    monkeypatch.setattr(checkpoint_module, "read_at", lambda *_, **__: pytest.fail("a tensor was read"))
    check_products([checkpoint], EVERYTHING)


def test_many_tensors_in_one_module(tmp_path: Path) -> None:
    """What goes together in a module of very many tensors is found in one pass over them."""

    def steps(count: int) -> int:
        save_file({f"t{number}": torch.ones(2, 3) for number in range(count)}, tmp_path / f"{count}.safetensors")
        checkpoint = open_checkpoint(tmp_path / f"{count}.safetensors")
        return operations(lambda: list(parametrised(checkpoint)))

    assert steps(400) < 6 * steps(100)


def test_plain_networks_are_not_looked_through(tmp_path: Path) -> None:
    """Of a network without integers and without names of quantised weights only names and dtypes are looked at."""

    def steps(count: int) -> int:
        save_file({f"layers.{n}.weight": torch.rand(2, 3) for n in range(count)}, tmp_path / f"{count}.safetensors")
        tensors = open_checkpoint(tmp_path / f"{count}.safetensors").tensors
        return operations(lambda: list(quantised(tensors)))

    steps(1)  # what is kept for the next time
    assert steps(200) - steps(100) < 100 * 20
