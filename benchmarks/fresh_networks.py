"""Eight more small networks for pictures, of other architectures: `build(kind, classes=5, side=12)`.

Those that were asked once, after the rules of verdicts were made on the networks of small_networks.py.
"""

from __future__ import annotations

import torch
from small_networks import VARIANTS, Build, Patches, dense, without_norm
from torch import Tensor, nn


class Strip(nn.Module):
    """Convolutions along the rows of a picture, which are the places of a signal of 3 * side channels."""

    def __init__(self, classes: int, side: int, wide: int = 40) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (3 * side, wide, wide):
            layers += [nn.Conv1d(inputs, wide, 3, padding=1), nn.BatchNorm1d(wide), nn.ELU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(2 * wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.permute(0, 1, 3, 2).flatten(1, 2))
        made: Tensor = self.head(torch.cat([x.mean(2), x.amax(2)], dim=1))
        return made


class LastNorm(nn.Module):
    """A transformer whose norms follow the sums, over the rows of a picture; a learned query reads its outputs."""

    def __init__(self, classes: int, side: int, wide: int = 36) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(3 * side, wide), nn.Parameter(0.1 * torch.randn(side, wide))
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(wide, 3, 2 * wide, 0.0, "gelu", batch_first=True) for _ in range(2)]
        )
        self.query, self.head = nn.Linear(wide, 1), nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.permute(0, 2, 1, 3).flatten(2)) + self.place
        for block in self.blocks:
            x = block(x)
        made: Tensor = self.head((self.query(x).softmax(1) * x).sum(1))
        return made


class Next(nn.Module):
    """A convolution of single channels and a perceptron at each place, added to the input, as in ConvNeXt."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.each, self.norm = nn.Conv2d(wide, wide, 5, padding=2, groups=wide), nn.LayerNorm(wide)
        self.up, self.down = nn.Linear(wide, 3 * wide), nn.Linear(3 * wide, wide)
        self.scale = nn.Parameter(torch.full((wide,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.each(x).permute(0, 2, 3, 1))
        made: Tensor = x + (self.scale * self.down(nn.functional.gelu(self.up(inner)))).permute(0, 3, 1, 2)
        return made


class Growing(nn.Module):
    """Convolutions whose outputs are put beside their inputs, each after a narrower one, as in DenseNet."""

    def __init__(self, classes: int, growth: int = 12, narrow: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.layers = nn.ModuleList()
        for wide in (16, 16 + growth, 16 + 2 * growth):
            first = [nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, narrow, 1, bias=False)]
            second = [nn.BatchNorm2d(narrow), nn.ReLU(), nn.Conv2d(narrow, growth, 3, 1, 1, bias=False)]
            self.layers.append(nn.Sequential(*first, *second))
        self.norm, self.head = nn.BatchNorm2d(16 + 3 * growth), nn.Linear(16 + 3 * growth, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(self.stem(x), 2)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        made: Tensor = self.head(torch.relu(self.norm(x)).mean((2, 3)))
        return made


class SpatialGate(nn.Module):
    """A perceptron whose one half is multiplied by a mix over places of the other, as in gMLP."""

    def __init__(self, places: int, wide: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(wide), nn.Linear(wide, 4 * wide), nn.Linear(2 * wide, wide)
        self.inner, self.mix = nn.LayerNorm(2 * wide), nn.Linear(places, places)
        nn.init.normal_(self.mix.weight, std=0.05)
        nn.init.ones_(self.mix.bias)

    def forward(self, x: Tensor) -> Tensor:
        kept, gate = nn.functional.gelu(self.up(self.norm(x))).chunk(2, dim=2)
        gate = self.mix(self.inner(gate).transpose(1, 2)).transpose(1, 2)
        made: Tensor = x + self.down(kept * gate)
        return made


class OverPlaces(nn.Module):
    """Blocks over patches, whose mean goes into the head."""

    def __init__(self, classes: int, side: int, wide: int = 28) -> None:
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.blocks = nn.Sequential(*(SpatialGate((side // 2) ** 2, wide) for _ in range(2)))
        self.head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, classes))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.blocks(self.embed(self.patches(x))).mean(1))
        return made


class Excited(nn.Module):
    """A convolution whose channels are scaled by what all places say, as in squeeze and excitation."""

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(wide, out, 3, stride, 1), nn.GroupNorm(out, out)
        self.squeeze, self.excite = nn.Linear(out, out // 4), nn.Linear(out // 4, out)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm(self.conv(x)))
        scale_nc = self.excite(torch.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        made: Tensor = x * scale_nc[:, :, None, None]
        return made


class BothWays(nn.Module):
    """A recurrent network over columns, in both directions; the largest outputs go into the head."""

    def __init__(self, classes: int, side: int, wide: int = 28) -> None:
        super().__init__()
        self.body = nn.GRU(3 * side, wide, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.body(x.permute(0, 3, 1, 2).flatten(2))[0].amax(1))
        return made


def _next(c: int, _s: int) -> nn.Module:
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(24), nn.Linear(24, c)]
    return nn.Sequential(nn.Conv2d(3, 24, 2, 2), Next(24), Next(24), *pool)


def _excited(c: int, _s: int) -> nn.Module:
    pool = [nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(96, c)]
    return nn.Sequential(Excited(3, 16, 1), Excited(16, 24, 2), Excited(24, 24, 1), *pool)


FRESH: dict[str, Build] = {
    "leaky": lambda c, s: dense(3 * s * s, c, 80, 2, without_norm, nn.LeakyReLU),
    "strip": Strip,
    "last_norm": LastNorm,
    "both_ways": BothWays,
    "next": _next,
    "growing": lambda c, _s: Growing(c),
    "over_places": OverPlaces,
    "excited": _excited,
}


def build(kind: str, *, classes: int, side: int, variant: str | None = None) -> nn.Module:
    """A network of random numbers, for pictures [n, 3, side, side]."""
    net = FRESH[kind](classes, side)
    return net if variant is None else VARIANTS[variant](net)
