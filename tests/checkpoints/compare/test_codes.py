"""Codes stored as floating numbers are refused by their own numbers, and nothing that training leaves is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from soupcli.files.reading import read_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.files.reading import FileVersion

BF16, HALF, FP8 = torch.bfloat16, torch.float16, torch.float8_e4m3fn
NF4 = torch.tensor(
    [
        -1,
        -0.6962,
        -0.5251,
        -0.3949,
        -0.2844,
        -0.1848,
        -0.0911,
        0,
        0.0796,
        0.1609,
        0.2461,
        0.3379,
        0.4407,
        0.5626,
        0.723,
        1,
    ]
)
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def whole(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape).float()


def checkpoints(folder: Path, make: Callable[[int], Tensor], name: str = "l.w") -> list[Checkpoint]:
    """Two checkpoints with a tensor of that name beside a weight, and a partner whose name says nothing."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        path = folder / f"{seed}.safetensors"
        save_file({name: make(seed).contiguous(), "l.foo": torch.rand(8), "m.weight": torch.rand(8, 8)}, path)
        found.append(open_checkpoint(path))
    return found


CODES: dict[str, tuple[Callable[[int], Tensor], str]] = {
    "4 bits": (lambda _: whole(-8, 8, 8, 8), "whole numbers"),
    "4 bits without a sign": (lambda _: whole(0, 16, 8, 8).half(), "whole numbers"),
    "8 bits": (lambda _: whole(-128, 128, 8, 8), "whole numbers"),
    "8 bits in bfloat16": (lambda _: whole(0, 256, 8, 8).to(BF16), "whole numbers"),
    "16 bits": (lambda _: whole(-32768, 32768, 8, 8), "whole numbers"),
    "ternary": (lambda _: whole(-1, 2, 8, 8), "whole numbers"),
    "signs": (lambda _: whole(0, 2, 8, 8) * 2 - 1, "whole numbers"),
    "in float8": (lambda _: whole(-7, 8, 8, 8).to(FP8), "whole numbers"),
    "a flat weight": (lambda _: whole(-8, 8, 64), "whole numbers"),
    "of a convolution": (lambda _: whole(-8, 8, 4, 4, 3, 3), "whole numbers"),
    "exponents": (lambda _: whole(-12, -3, 32), "whole numbers"),
    "a mask": (lambda _: whole(0, 2, 8, 8), "a mask"),
    "a mask of channels": (lambda _: whole(0, 2, 64), "a mask"),
    "a mask of one that is not pruned": (lambda seed: whole(0, 2, 8, 8) if seed else torch.ones(8, 8), "a mask"),
    "codes around a half": (lambda _: whole(0, 16, 16, 16) - 7.5, "a few values"),
    "nf4": (lambda _: NF4[torch.randint(0, 16, (64, 64))], "a few values"),
    "nf4 in bfloat16": (lambda _: NF4[torch.randint(0, 16, (64, 64))].to(BF16), "a few values"),
    "fp4": (lambda _: FP4[torch.randint(0, 16, (16, 16))].to(BF16), "a few values"),
}


@pytest.mark.parametrize("name", CODES)
def test_codes(tmp_path: Path, name: str) -> None:
    """Codes that differ are refused whatever lies beside them; the same codes in all, and unmixed ones, are not."""
    make, what = CODES[name]
    found = checkpoints(tmp_path, make)
    with pytest.raises(MixError, match=f"tensor 'l.w' is (made of )?{what}") as refused:
        check_products(found, TensorFilter())
    assert "--take 'l.w'" in str(refused.value.hint)
    check_products(found, TensorFilter(take=("l.w",)))
    check_products(found[:1], TensorFilter())
    torch.manual_seed(0)
    same = make(1)
    check_products(checkpoints(tmp_path, lambda _: same), TensorFilter())


def shares(largest: float, *shape: int, block: int | None = None) -> Tensor:
    """A weight divided by the largest number of each row or block of a row."""
    weight = torch.randn(*shape).reshape(-1, block or shape[1])
    return (weight / weight.abs().amax(1, keepdim=True) * largest).reshape(shape)


NORMALISED: dict[str, Callable[[int], Tensor]] = {
    "to 1": lambda _: shares(1, 32, 32),
    "to 1 in bfloat16": lambda _: shares(1, 32, 32).to(BF16),
    "to 1 in float8": lambda _: shares(1, 32, 32).to(FP8),
    "in blocks": lambda _: shares(1, 32, 256, block=64),
    "of a convolution": lambda _: shares(1, 16, 36).reshape(16, 4, 3, 3),
    "8 bits over 127": lambda _: shares(127, 32, 32).round() / 127,
    "8 bits over 128": lambda _: shares(127, 32, 32).round() / 128,
}


@pytest.mark.parametrize("name", NORMALISED)
def test_normalised(tmp_path: Path, name: str) -> None:
    """Rows or blocks that were divided by their largest numbers are refused if they differ."""
    found = checkpoints(tmp_path, NORMALISED[name])
    with pytest.raises(MixError, match=r"tensor 'l.w' is made of rows that all have the same largest number"):
        check_products(found, TensorFilter())
    check_products(found, TensorFilter(take=("l.w",)))
    same = NORMALISED[name](0)
    check_products(checkpoints(tmp_path, lambda _: same), TensorFilter())


def steps(shape: tuple[int, ...], start: float, rate: float, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A constant tensor after some steps of an optimizer by signs."""
    moved = torch.full(shape, start)
    for _ in range(count):
        moved = (moved + rate * torch.randn(shape).sign()).to(dtype).float()
    return moved.to(dtype)


def rows(trained: Tensor, start: Tensor) -> Tensor:
    """A table whose last rows alone were trained."""
    return torch.cat([start[: -len(trained)], trained])


HEALTHY: dict[str, Callable[[int], Tensor]] = {
    "random": lambda _: torch.randn(32, 32),
    "random in bfloat16": lambda _: (torch.randn(64, 64) * 0.02).to(BF16),
    "large in bfloat16": lambda _: ((torch.rand(8, 8) + 0.5) * 1000).to(BF16),
    "large in float16": lambda _: ((torch.rand(8, 8) + 0.5) * 10_000).half(),
    "wide in bfloat16": lambda _: (torch.randn(64, 64) * 1000).to(BF16),
    "zeros, trained by one": lambda seed: torch.randn(32, 32) * seed,
    "an identity, trained by one": lambda seed: torch.eye(32) + seed * torch.randn(32, 32) * 1e-3,
    "ones and zeros of layers": lambda seed: torch.full((32,), float(seed)),
    "an identity of which rows were trained": lambda _: rows(torch.randn(4, 1200), torch.eye(1200)),
    "one hot, few rows trained": lambda seed: (
        torch.eye(300) + torch.randn(300, 300) * (torch.arange(300) == 7 + seed)[:, None]
    ),
    "one step by signs": lambda _: steps((32, 32), 0, 1e-3, 1),
    "three steps by signs": lambda _: steps((32, 32), 0, 1e-3, 3),
    "a norm after steps by signs": lambda _: steps((256,), 1, 1e-3, 3),
    "norms of many layers in bfloat16": lambda _: steps((16, 64), 1, 4e-3, 2, BF16),
    "ternary with a scale multiplied in": lambda seed: whole(-1, 2, 16, 16) * (0.6 + seed / 10),
    "a palette of its own": lambda _: torch.randn(16)[torch.randint(0, 16, (64, 64))],
    "clipped": lambda _: torch.randn(32, 64).clamp(-1, 1),
    "clipped, a few in each row": lambda _: torch.randn(32, 64).clamp(-1.8, 1.8),
    "rows of unit length": lambda _: nn.functional.normalize(torch.randn(32, 32)),
    "rows that begin the same": lambda seed: (
        torch.arange(1, 17).log().repeat(32, 1) + seed * torch.eye(32)[:, :16] * 1e-3
    ),
    "rows that begin the same, in bfloat16": lambda _: (
        torch.arange(1, 17).log().repeat(32, 1).to(BF16) + (torch.rand(32, 16) * 4e-3).to(BF16)
    ),
    "of a range, in bfloat16": lambda _: (torch.rand(32, 400) * 2 - 1).to(BF16),
    "bounded": lambda _: torch.rand(32, 32) * 2 - 1,
    "float8 alone": lambda _: torch.randn(32, 32).to(FP8),
    "float8 of large embeddings": lambda _: (torch.randn(32, 32) * 8).to(FP8),
    "float8, widened": lambda _: (torch.randn(64, 64) * 0.1).to(FP8).float(),
    "few numbers": lambda _: whole(-8, 8, 4, 4),
    "a padded table": lambda _: torch.cat([torch.zeros(2, 64), torch.randn(8, 64)]),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_weights(tmp_path: Path, name: str) -> None:
    """Initial values, first steps, large numbers in narrow dtypes, dequantised and pruned weights are mixed."""
    check_products(checkpoints(tmp_path, HEALTHY[name]), TensorFilter())
    check_products(checkpoints(tmp_path, HEALTHY[name])[::-1], TensorFilter())


@pytest.mark.parametrize(
    "name", ["vq.cluster_size", "metric.confusion_matrix", "ema.count", "h.attn.bias", "moe.tokens_per_expert"]
)
def test_counts(tmp_path: Path, name: str) -> None:
    """Known counts and indices may differ: any mean of them will do."""
    check_products(checkpoints(tmp_path, lambda _: whole(0, 50, 8, 8), name), TensorFilter())


def test_one_dtype_is_another(tmp_path: Path) -> None:
    """The same numbers in two dtypes are the same, and so are 0 and -0."""
    mask = torch.rand(8, 8).round()
    check_products(checkpoints(tmp_path, lambda seed: mask.half() if seed else -mask * -1), TensorFilter())


def test_scaled_float8(tmp_path: Path) -> None:
    """One vector of scales for all float8 layers: its name tells, or that the numbers reach the end of their range."""
    for name in ("scales", "foo"):
        for seed in range(2):
            torch.manual_seed(seed)
            weights = {f"{layer}.weight": torch.randn(32, 32) * 10**layer for layer in range(3)}
            scales = {key: weight.abs().max() / 448 for key, weight in weights.items()}
            stored = {key: (weight / scales[key]).to(FP8) for key, weight in weights.items()}
            save_file(stored | {name: torch.stack(list(scales.values()))}, tmp_path / f"{name}{seed}.safetensors")
        found = [open_checkpoint(tmp_path / f"{name}{seed}.safetensors") for seed in range(2)]
        with pytest.raises(MixError, match=r"tensor '0.weight' \(float8_e4m3fn\) is a quantised weight"):
            check_products(found, TensorFilter())
        check_products(found, TensorFilter(exclude=("*",)))
        check_products([found[0], found[0]], TensorFilter())


def test_float8_of_any_range(tmp_path: Path) -> None:
    """A vector with a number for each float8 matrix scales them, wherever their range ends; one of a norm does not."""
    for name in ("foo", "norm.weight"):
        for seed in range(2):
            torch.manual_seed(seed)
            stored = {f"{layer}.weight": torch.randn(8, 8).to(FP8) for layer in range(3)}
            save_file(stored | {name: torch.rand(3)}, tmp_path / f"{name}{seed}.safetensors")
    found = {
        name: [open_checkpoint(tmp_path / f"{name}{n}.safetensors") for n in range(2)]
        for name in ("foo", "norm.weight")
    }
    with pytest.raises(MixError, match=r"tensor '0.weight' \(float8_e4m3fn\) is a quantised weight"):
        check_products(found["foo"], TensorFilter())
    check_products(found["norm.weight"], TensorFilter())


def test_weights_are_told_by_their_first_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a trained tensor only its first numbers are read, in the first checkpoint alone."""
    found = checkpoints(tmp_path, lambda _: torch.randn(1000, 100))
    read: list[int] = []

    def seen(file: FileVersion, at: int, out: memoryview) -> None:
        read.append(out.nbytes)
        read_at(file, at, out)

    monkeypatch.setattr("soupcli.checkpoints.checkpoint.read_at", seen)
    check_products(found, TensorFilter())
    # All of a bias, first numbers of l.w and m.weight, and the first two rows of the large one.
    assert read == [32, 256, 256, 800]


Tensors = dict[str, Tensor]


def divided(divide: Callable[[Tensor], Tensor], *, weight: str = "fc.weight", scale: str = "fc.scale") -> Tensors:
    """A weight divided by its largest number, which lies beside it."""
    whole = torch.randn(24, 32)
    largest = whole.abs().max()
    return {weight: divide(whole / largest), scale: largest[None]}


DIVIDED: dict[str, Callable[[], Tensors]] = {
    "by its largest number": lambda: divided(torch.clone),
    "rounded to fractions": lambda: divided(lambda w: (w * 127).round() / 127),
    "named alike": lambda: divided(torch.clone, weight="fc.w", scale="fc.w_scale"),
    "a scale of its own word": lambda: divided(torch.clone, scale="fc.wscale"),
    "few whole numbers": lambda: {"fc.weight": torch.randint(-127, 128, (2, 8)).float(), "fc.scale": torch.rand(1)},
}
SCALED: dict[str, Callable[[], Tensors]] = {
    "a learnt scale": lambda: {"fc.weight": torch.randn(24, 32) * 0.1, "fc.scale": torch.rand(1)},
    "clipped": lambda: {"fc.weight": torch.randn(24, 32).clamp(-1, 1), "fc.scale": torch.rand(1)},
    "CLIP's": lambda: {"text_projection": divided(torch.clone)["fc.weight"], "logit_scale": torch.rand(())},
    "one scale": lambda: {"fc.weight": divided(torch.clone)["fc.weight"], "fc.scale": torch.ones(1)},
    "few whole numbers without a scale": lambda: {"fc.weight": torch.randint(-127, 128, (2, 8)).float()},
}


def of_tensors(folder: Path, make: Callable[[], Tensors]) -> list[Checkpoint]:
    for seed in range(2):
        torch.manual_seed(seed)
        save_file(make() | {"norm.weight": torch.rand(9)}, folder / f"{seed}.safetensors")
    return [open_checkpoint(folder / f"{seed}.safetensors") for seed in range(2)]


@pytest.mark.parametrize("name", DIVIDED)
def test_divided(tmp_path: Path, name: str) -> None:
    """A weight that was divided by the scale beside it is refused, and so are few whole numbers with a scale."""
    with pytest.raises(MixError, match=r"tensor 'fc\.w\w*' is (divided by a scale|made of whole numbers)"):
        check_products(of_tensors(tmp_path, DIVIDED[name]), TensorFilter())
    same = DIVIDED[name]()
    check_products(of_tensors(tmp_path, lambda: same), TensorFilter())


@pytest.mark.parametrize("name", SCALED)
def test_scaled(tmp_path: Path, name: str) -> None:
    """Learnt scales, clipped weights, scales that are the same in all and scales of others are mixed."""
    check_products(of_tensors(tmp_path, SCALED[name]), TensorFilter())
