"""Eight small networks for pictures, of yet other architectures: `build(kind, classes=8, side=10)`.

Those of the fourth world, which was asked once, after the rules of verdicts were mended on the other three.
"""

from __future__ import annotations

import torch
from small_networks import VARIANTS, Build, Patches
from torch import Tensor, nn


class Highway(nn.Module):
    """A layer whose gate says how much of its input goes through unchanged."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(wide, wide), nn.Linear(wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).sigmoid()
        made: Tensor = gate * torch.tanh(self.change(x)) + (1 - gate) * x
        return made


class Inverted(nn.Module):
    """Channels become more, are filtered one by one, and become fewer, as in MobileNetV2."""

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__()
        many = 3 * wide
        self.body = nn.Sequential(
            *(nn.Conv2d(wide, many, 1, bias=False), nn.BatchNorm2d(many), nn.ReLU6()),
            *(nn.Conv2d(many, many, 3, stride, 1, groups=many, bias=False), nn.BatchNorm2d(many), nn.ReLU6()),
            *(nn.Conv2d(many, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        self.adds = stride == 1 and wide == out

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.body(x)
        return x + made if self.adds else made


class Dilated(nn.Module):
    """Gated convolutions along the rows of a picture, ever wider apart, as in WaveNet."""

    def __init__(self, classes: int, side: int, wide: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3 * side, wide, 1)
        apart = (1, 2, 4)
        self.filters = nn.ModuleList(nn.Conv1d(wide, wide, 3, padding=by, dilation=by) for by in apart)
        self.gates = nn.ModuleList(nn.Conv1d(wide, wide, 3, padding=by, dilation=by) for by in apart)
        self.outs = nn.ModuleList(nn.Conv1d(wide, wide, 1) for _ in apart)
        self.head = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.permute(0, 1, 3, 2).flatten(1, 2))
        for filtered, gate, out in zip(self.filters, self.gates, self.outs, strict=True):
            x = x + out(torch.tanh(filtered(x)) * gate(x).sigmoid())
        made: Tensor = self.head(x.mean(2))
        return made


class Latents(nn.Module):
    """A few learned vectors read the patches, as in Perceiver; their mean goes into the head."""

    def __init__(self, classes: int, side: int, wide: int = 32) -> None:
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.place = nn.Parameter(0.1 * torch.randn((side // 2) ** 2, wide))
        self.latents = nn.Parameter(0.3 * torch.randn(6, wide))
        self.reads = nn.ModuleList(nn.MultiheadAttention(wide, 2, batch_first=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(wide) for _ in range(2))
        self.ups = nn.ModuleList(nn.Linear(wide, 2 * wide) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(2 * wide, wide) for _ in range(2))
        self.head = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.embed(self.patches(x)) + self.place
        held = self.latents.expand(len(x), -1, -1)
        for read, norm, up, down in zip(self.reads, self.norms, self.ups, self.downs, strict=True):
            held = held + read(held, seen, seen, need_weights=False)[0]
            held = held + down(nn.functional.gelu(up(norm(held))))
        made: Tensor = self.head(held.mean(1))
        return made


class Fourier(nn.Module):
    """A perceptron after a Fourier transform over patches and channels, as in FNet."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.up, self.down = nn.Linear(wide, 2 * wide), nn.Linear(2 * wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm(torch.fft.fft2(x).real)
        made: Tensor = x + self.down(nn.functional.silu(self.up(self.inner(x))))
        return made


class Frequencies(nn.Module):
    """Blocks of the above; the mean over patches goes into the head."""

    def __init__(self, classes: int, side: int, wide: int = 32) -> None:
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.place = nn.Parameter(0.1 * torch.randn((side // 2) ** 2, wide))
        self.blocks = nn.Sequential(Fourier(wide), Fourier(wide))
        self.head = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.blocks(self.embed(self.patches(x)) + self.place).mean(1))
        return made


class Grouped(nn.Module):
    """Convolutions of groups of channels, added to the input, as in ResNeXt."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        first = [nn.Conv2d(wide, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        second = [nn.Conv2d(wide, wide, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        self.body = nn.Sequential(*first, *second, nn.Conv2d(wide, wide, 1))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.relu(x + self.body(x))
        return made


class Experts(nn.Module):
    """Four perceptrons whose outputs are mixed as a gate says, added to the normalised input."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm, self.gate = nn.LayerNorm(wide), nn.Linear(wide, 4)
        self.ups = nn.ModuleList(nn.Linear(wide, 40) for _ in range(4))
        self.downs = nn.ModuleList(nn.Linear(40, wide) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        share_n4 = self.gate(normed).softmax(1)
        said = [down(nn.functional.gelu(up(normed))) for up, down in zip(self.ups, self.downs, strict=True)]
        return x + torch.stack([share_n4[:, place, None] * each for place, each in enumerate(said)]).sum(0)


class Elman(nn.Module):
    """A plain recurrent network of two layers over columns; mean and last of its outputs go into the head."""

    def __init__(self, classes: int, side: int, wide: int = 40) -> None:
        super().__init__()
        self.body, self.head = nn.RNN(3 * side, wide, 2, batch_first=True), nn.Linear(2 * wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x.permute(0, 3, 1, 2).flatten(2))[0]
        made: Tensor = self.head(torch.cat([out.mean(1), out[:, -1]], dim=1))
        return made


def _highway(c: int, s: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * s * s, 48), Highway(48), Highway(48), nn.Linear(48, c))


def _inverted(c: int, _s: int) -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, c)]
    return nn.Sequential(*stem, Inverted(16, 24, 2), Inverted(24, 24, 1), *pool)


def _grouped(c: int, _s: int) -> nn.Module:
    last = [nn.Conv2d(24, 40, 3, 2, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU()]
    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(160, c)]
    return nn.Sequential(nn.Conv2d(3, 24, 2, 2), Grouped(24), Grouped(24), *last, *pool)


def _experts(c: int, s: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * s * s, 40), Experts(40), Experts(40), nn.Linear(40, c))


FOURTH: dict[str, Build] = {
    "highway": _highway,
    "inverted": _inverted,
    "dilated": Dilated,
    "latents": Latents,
    "frequencies": Frequencies,
    "grouped": _grouped,
    "experts": _experts,
    "elman": Elman,
}


def build(kind: str, *, classes: int, side: int, variant: str | None = None) -> nn.Module:
    """A network of random numbers, for pictures [n, 3, side, side]."""
    net = FOURTH[kind](classes, side)
    return net if variant is None else VARIANTS[variant](net)
