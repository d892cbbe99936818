"""Sixteen small networks for pictures, of as many architectures: `build(kind, classes=7, side=10)`.

The rules of verdicts were made on `SEEN`, and mended on `UNSEEN`; fresh_networks.py has eight more. A family of
`benchmarks/verdicts.py` holds both files beside its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

Norm = Callable[[int], nn.Module]


class Residual(nn.Module):
    """A perceptron with one hidden layer, added to its normalised input."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(wide), nn.Linear(wide, 2 * wide), nn.Linear(2 * wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return made


class Patches(nn.Module):
    """[n, 3, side, side] to patches [n, (side / 2)^2, 12]."""

    def forward(self, x: Tensor) -> Tensor:
        cut = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5)
        return cut.reshape(len(x), cut.shape[1] * cut.shape[2], 12)


class Transformer(nn.Module):
    """Blocks over patches; `token`: its output is read, else the mean of all."""

    def __init__(self, classes: int, side: int, *, wide: int, heads: int, token: bool, act: str) -> None:
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.token = nn.Parameter(0.1 * torch.randn(1, 1, wide)) if token else None
        self.place = nn.Parameter(0.1 * torch.randn((side // 2) ** 2 + token, wide))
        self.blocks = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(wide, heads, 2 * wide, 0.0, act, batch_first=True, norm_first=True)
                for _ in range(2)
            ]
        )
        self.norm, self.head = nn.LayerNorm(wide), nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.patches(x))
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.place
        for block in self.blocks:
            x = block(x)
        made: Tensor = self.head(self.norm(x.mean(1) if self.token is None else x[:, 0]))
        return made


class Rows(nn.Module):
    """A recurrent network over rows of a picture."""

    def __init__(self, body: nn.GRU | nn.LSTM, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(body.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.body(x.permute(0, 2, 1, 3).flatten(2))[0].mean(1))
        return made


class Mixer(nn.Module):
    """Perceptrons over places, then over channels."""

    def __init__(self, classes: int, side: int, wide: int = 32) -> None:
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.tokens, self.channels = Residual((side // 2) ** 2), nn.Sequential(Residual(wide), Residual(wide))
        self.head = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.patches(x))
        x = self.tokens(x.transpose(1, 2)).transpose(1, 2)
        made: Tensor = self.head(self.channels(x).mean(1))
        return made


class Block(nn.Module):
    """Two convolutions with batch norm, added to the input, as in ResNet."""

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(wide, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.short = nn.Conv2d(wide, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        made = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(made + self.short(x))


class Gated(nn.Module):
    """A gated perceptron, as in language models, added to its normalised input."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(wide)
        self.gate, self.up = nn.Linear(wide, 2 * wide, bias=False), nn.Linear(wide, 2 * wide, bias=False)
        self.down = nn.Linear(2 * wide, wide, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        made: Tensor = x + self.down(nn.functional.silu(self.gate(normed)) * self.up(normed))
        return made


def dense(inputs: int, classes: int, wide: int, hidden: int, norm: Norm, act: type[nn.Module]) -> nn.Sequential:
    """A perceptron with some hidden layers."""
    widths = [inputs, *[wide] * hidden]
    layers = [layer for one, other in pairwise(widths) for layer in (nn.Linear(one, other), norm(other), act())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(wide, classes))


def conv(classes: int, norm: Norm) -> nn.Sequential:
    """Three convolutions."""

    def layer(wide: int, out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(wide, out, 3, stride, 1), norm(out), nn.ReLU()]

    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layer(3, 16, 1), *layer(16, 24, 2), *layer(24, 32, 2), *pool, nn.Linear(32, classes))


def depthwise(classes: int) -> nn.Sequential:
    """Convolutions of single channels and of single places in turn, as in MobileNet."""

    def layer(wide: int, out: int, stride: int) -> list[nn.Module]:
        each = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        return [each, nn.BatchNorm2d(wide), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out), nn.Hardswish()]

    stem = [nn.Conv2d(3, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.Hardswish()]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, *layer(24, 32, 2), *layer(32, 48, 2), *pool, nn.Linear(48, classes))


def _group_norm(out: int) -> nn.Module:
    return nn.GroupNorm(1, out)


def without_norm(_out: int) -> nn.Module:
    """No norm."""
    return nn.Identity()


def _seen_residual(c: int, s: int) -> nn.Module:
    wide = [Residual(48), Residual(48), nn.LayerNorm(48), nn.Linear(48, c)]
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * s * s, 48), *wide)


def _gated(c: int, s: int) -> nn.Module:
    wide = [Gated(64), Gated(64), nn.RMSNorm(64), nn.Linear(64, c)]
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * s * s, 64), *wide)


def _resnet(c: int, _s: int) -> nn.Module:
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, c)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), Block(16, 24, 2), Block(24, 32, 2), *pool)


Build = Callable[[int, int], nn.Module]  # classes, side
SEEN: dict[str, Build] = {
    "dense": lambda c, s: dense(3 * s * s, c, 48, 2, nn.LayerNorm, nn.ReLU),
    "dense_bn": lambda c, s: dense(3 * s * s, c, 48, 2, nn.BatchNorm1d, nn.ReLU),
    "conv": lambda c, _s: conv(c, _group_norm),
    "conv_bn": lambda c, _s: conv(c, nn.BatchNorm2d),
    "transformer": lambda c, s: Transformer(c, s, wide=32, heads=2, token=False, act="relu"),
    "rows": lambda c, s: Rows(nn.GRU(3 * s, 40, batch_first=True), c),
    "residual": _seen_residual,
    "mixer": Mixer,
}
UNSEEN: dict[str, Build] = {
    "plain": lambda c, s: dense(3 * s * s, c, 64, 3, without_norm, nn.GELU),
    "deep_bn": lambda c, s: dense(3 * s * s, c, 64, 3, nn.BatchNorm1d, nn.SiLU),
    "gated": _gated,
    "resnet": _resnet,
    "depthwise": lambda c, _s: depthwise(c),
    "vit": lambda c, s: Transformer(c, s, wide=40, heads=4, token=True, act="gelu"),
    "lstm": lambda c, s: Rows(nn.LSTM(3 * s, 40, batch_first=True), c),
    "conv_plain": lambda c, _s: conv(c, without_norm),
}


class Tied(nn.Module):
    """A network whose last layer has a second name, as the head and the embedding of a language model are one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(x)
        return made


class Observed(nn.Module):
    """A network in quantisation-aware training: inputs and outputs are rounded to 8 bits of an observed range."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.before, self.after = (
            FakeQuantize(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255) for _ in range(2)
        )

    def train(self, mode: bool = True) -> Observed:
        """Ranges are observed in training alone."""
        for each in (self.before, self.after):
            each.enable_observer() if mode else each.disable_observer()
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.after(self.net(self.before(x)))
        return made


VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {"tied": Tied, "observed": Observed}


def build(kind: str, *, classes: int, side: int, variant: str | None = None) -> nn.Module:
    """A network of random numbers, for pictures [n, 3, side, side]."""
    net = (SEEN | UNSEEN)[kind](classes, side)
    return net if variant is None else VARIANTS[variant](net)
