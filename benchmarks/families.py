"""Families of small networks, really trained, of which the truth is known: one situation each.

    from families import SEEN, SITUATIONS
    family = SITUATIONS["other inputs"].make(SEEN.trainer("conv_bn"))

A `World` is networks, data and seeds. Worlds share nothing but the code below: rules were made in `SEEN`, mended in
`UNSEEN` and `FRESH`, and asked once in `FOURTH`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import fourth_networks
import fresh_networks
import small_networks
import torch
from torch import Tensor, nn
from torch.nn import functional

State = dict[str, Tensor]
Data = tuple[Tensor, Tensor]
SWEEP = (5e-4, 1e-3, 2e-3)
HEALTHY = "nothing"


def moved_patterns(classes: int, side: int, n: int, seed: int, *, task: int, noise: float) -> Data:
    """Pictures [n, 3, side, side] of a class's pattern, moved by a pixel or two, under noise; and the classes."""
    generator = torch.Generator().manual_seed(100 + task)
    coarse = torch.randn(classes, 3, 5, 5, generator=generator)
    patterns = functional.interpolate(coarse, size=side + 2, mode="bicubic", align_corners=True)
    generator = torch.Generator().manual_seed(seed)
    labels_n = torch.randint(classes, (n,), generator=generator)
    down_n, right_n = torch.randint(3, (2, n), generator=generator).tolist()
    moved = [patterns[c, :, y : y + side, x : x + side] for c, y, x in zip(labels_n, down_n, right_n, strict=True)]
    gain_n = 1 + 0.3 * torch.randn(n, 1, 1, 1, generator=generator)
    return torch.stack(moved) * gain_n + noise * torch.randn(n, 3, side, side, generator=generator), labels_n


def coloured_waves(classes: int, side: int, n: int, seed: int, *, task: int, noise: float) -> Data:
    """Pictures [n, 3, side, side] of a wave in a class's direction, length and colour, somewhere; and the classes."""
    generator = torch.Generator().manual_seed(500 + task)
    turn_c = torch.arange(classes) * math.pi / classes + 0.3 * torch.randn(classes, generator=generator)
    wave_c = 0.6 + 0.9 * torch.rand(classes, generator=generator)
    colour_c3 = torch.randn(classes, 3, generator=generator)
    generator = torch.Generator().manual_seed(seed)
    labels_n = torch.randint(classes, (n,), generator=generator)
    turn_n = turn_c[labels_n] + 0.15 * torch.randn(n, generator=generator)
    phase_n = 2.4 * torch.rand(n, generator=generator)
    at = torch.arange(side, dtype=torch.float32)
    along_nyx = turn_n.cos()[:, None, None] * at[None, :, None] + turn_n.sin()[:, None, None] * at
    waves_nyx = torch.sin(wave_c[labels_n][:, None, None] * along_nyx + phase_n[:, None, None])
    pictures = waves_nyx[:, None] * colour_c3[labels_n][:, :, None, None]
    light_n3 = 0.5 * torch.randn(n, 3, 1, 1, generator=generator)
    return pictures + light_n3 + noise * torch.randn(n, 3, side, side, generator=generator), labels_n


def soft_dots(classes: int, side: int, n: int, seed: int, *, task: int, noise: float) -> Data:
    """Pictures [n, 3, side, side] of a class's four coloured dots, a little moved, under noise; and the classes."""
    generator = torch.Generator().manual_seed(900 + task)
    place_cd2 = 1.5 + (side - 4) * torch.rand(classes, 4, 2, generator=generator)
    colour_cd3 = torch.randn(classes, 4, 3, generator=generator)
    generator = torch.Generator().manual_seed(seed)
    labels_n = torch.randint(classes, (n,), generator=generator)
    place_nd2 = place_cd2[labels_n] + 0.8 * torch.randn(n, 4, 2, generator=generator)
    wide_nd = 1.2 + 0.6 * torch.rand(n, 4, generator=generator)
    at = torch.arange(side, dtype=torch.float32)
    away_ndys = (at - place_nd2[..., :1]).square() / wide_nd[..., None].square()
    across_ndxs = (at - place_nd2[..., 1:]).square() / wide_nd[..., None].square()
    dots_ndyx = torch.exp(-(away_ndys[..., :, None] + across_ndxs[..., None, :]))
    shown_nd = (torch.rand(n, 4, generator=generator) < 0.85).float() * 2.5
    pictures = torch.einsum("ndyx,nd,ndc->ncyx", dots_ndyx, shown_nd, colour_cd3[labels_n])
    return pictures + noise * torch.randn(n, 3, side, side, generator=generator), labels_n


def coloured_strokes(classes: int, side: int, n: int, seed: int, *, task: int, noise: float) -> Data:
    """Pictures [n, 3, side, side] of a class's three coloured strokes, a little moved, under noise; and the classes."""
    generator = torch.Generator().manual_seed(1300 + task)
    ends_cs22 = 1.0 + (side - 3) * torch.rand(classes, 3, 2, 2, generator=generator)
    colour_cs3 = torch.randn(classes, 3, 3, generator=generator)
    generator = torch.Generator().manual_seed(seed)
    labels_n = torch.randint(classes, (n,), generator=generator)
    ends_ns22 = ends_cs22[labels_n] + 0.6 * torch.randn(n, 3, 2, 2, generator=generator)
    at = torch.arange(side, dtype=torch.float32)
    places_p2 = torch.cartesian_prod(at, at)
    begin_ns12, along_ns12 = ends_ns22[:, :, :1], ends_ns22[:, :, 1:] - ends_ns22[:, :, :1]
    from_nsp2 = places_p2 - begin_ns12
    share_nsp1 = (from_nsp2 * along_ns12).sum(3, True) / along_ns12.square().sum(3, True).clamp(min=0.1)
    away_nsp = (from_nsp2 - share_nsp1.clamp(0, 1) * along_ns12).square().sum(3)
    ink_ns = 0.5 + torch.rand(n, 3, generator=generator)
    pictures = torch.einsum("nsp,ns,nsc->ncp", torch.exp(-1.2 * away_nsp), 2 * ink_ns, colour_cs3[labels_n])
    paper_n3 = 0.4 * torch.randn(n, 3, 1, 1, generator=generator)
    shown = pictures.view(n, 3, side, side) + paper_n3
    return shown + noise * torch.randn(n, 3, side, side, generator=generator), labels_n


class World(NamedTuple):
    """Networks, data and seeds."""

    name: str
    networks: str  # the module that has them
    kinds: tuple[str, ...]
    classes: int
    side: int
    draw: Callable[..., Data]
    noise: tuple[float, float]  # of pre-training, of fine-tuning
    examples: tuple[int, int, int]  # of pre-training, fine-tuning and validation
    seed: int

    def data(self, n: int, seed: int, *, task: int = 0, pretraining: bool = False) -> Data:
        """Inputs and labels."""
        noise = self.noise[0 if pretraining else 1]
        return self.draw(self.classes, self.side, n, self.seed + seed, task=self.seed + task, noise=noise)

    def val(self) -> Data:
        """The examples that select."""
        return self.data(self.examples[2], 12)


_NETWORKS = {module.__name__: module for module in (small_networks, fresh_networks, fourth_networks)}
SEEN = World(
    "tuned", "small_networks", tuple(small_networks.SEEN), 6, 8, moved_patterns, (0.7, 1.4), (2500, 500, 1000), 0
)
UNSEEN = World(
    "unseen", "small_networks", tuple(small_networks.UNSEEN), 7, 10, coloured_waves, (1.0, 2.0), (2500, 500, 600), 4000
)
FRESH = World(
    "fresh", "fresh_networks", tuple(fresh_networks.FRESH), 5, 12, soft_dots, (0.8, 2.8), (2000, 400, 800), 9000
)
FOURTH = World(
    "fourth",
    "fourth_networks",
    tuple(fourth_networks.FOURTH),
    8,
    10,
    coloured_strokes,
    (0.6, 1.8),
    (2000, 400, 700),
    15000,
)


class Trainer:
    """Trains networks of one kind in a world."""

    def __init__(self, world: World, kind: str, variant: str | None = None, plain: Trainer | None = None) -> None:
        self.world, self.kind, self.variant, self.plain = world, kind, variant, plain
        self.tune = world.data(world.examples[1], 11)
        self.pretrained = cache(self._pretrained)
        self.sweep = cache(self._sweep)

    def of_variant(self, variant: str) -> Trainer:
        """A trainer of a variant of the network, which begins with the same pre-trained weights."""
        return Trainer(self.world, self.kind, variant, self)

    def build(self, seed: int) -> nn.Module:
        """A network of random numbers."""
        torch.manual_seed(self.world.seed + seed)
        build = _NETWORKS[self.world.networks].build
        made: nn.Module = build(self.kind, classes=self.world.classes, side=self.world.side, variant=self.variant)
        return made

    def train(self, state: State | None, data: Data, *, lr: float, epochs: float, seed: int, start: int = 0) -> State:
        """A network trained from `state` on, or from the random numbers of the seed `start`."""
        net = self.build(start)
        if state is not None:
            net.load_state_dict(state)
        torch.manual_seed(self.world.seed + seed)
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
        inputs, labels_n = data
        order = torch.cat([torch.randperm(len(inputs)) for _ in range(int(epochs) + 1)])
        net.train()
        for step in range(round(epochs * len(inputs) / 64)):
            some = order[64 * step : 64 * step + 64]
            loss = functional.cross_entropy(net(inputs[some]), labels_n[some])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
        return _state(net.eval())

    def _pretrained(self, *, task: int = 0, start: int = 0, epochs: float = 4) -> State:
        if self.plain is not None:
            begin = self.plain.pretrained(task=task, start=start, epochs=epochs)
            net = self.build(start)
            net.load_state_dict({f"net.{name}": tensor for name, tensor in begin.items()}, strict=False)
            return _state(net)
        data = self.world.data(self.world.examples[0], 1 + task, task=task, pretraining=True)
        return self.train(None, data, lr=3e-3, epochs=epochs, seed=start, start=start)

    def tuned(
        self,
        seed: int,
        *,
        lr: float = 1e-3,
        epochs: float = 4,
        begin: State | None = None,
        data: Data | None = None,
    ) -> State:
        """One ingredient: fine-tuned from the common start if no other is given."""
        begin = self.pretrained() if begin is None else begin
        return self.train(begin, self.tune if data is None else data, lr=lr, epochs=epochs, seed=seed)

    def _sweep(self, count: int = 5, seed: int = 0) -> tuple[State, ...]:
        """Healthy ingredients, at three learning rates."""
        return tuple(self.tuned(seed + number, lr=SWEEP[number % 3]) for number in range(count))

    def with_odd(self, odd: State, seed: int = 0) -> Family:
        """Four healthy ingredients and one that is not."""
        return Family([*self.sweep(4, seed), odd])


def _state(net: nn.Module) -> State:
    return {name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()}


class Family(NamedTuple):
    """Ingredients; the base if one is given; how many validation examples there are, if not all."""

    states: Sequence[State]
    base: State | None = None
    examples: int | None = None


def even_split(t: Trainer) -> Family:
    near = [t.tuned(number, lr=1e-5, epochs=1) for number in range(3)]
    return Family([*near, *(t.tuned(number, lr=1e-3) for number in range(3, 6))], t.pretrained())


def one_run(t: Trainer) -> Family:
    """Early and late checkpoints of one run, and an exponential average of them."""
    states = [t.tuned(5, epochs=1)]
    for number in range(3):
        states.append(t.tuned(6 + number, epochs=1, begin=states[-1]))
    shares = [0.5 ** (4 - number) for number in range(4)]
    average: State = {}
    for name, last in states[-1].items():
        summed = sum((share * state[name] for share, state in zip(shares, states, strict=True)), torch.zeros(()))
        average[name] = summed / sum(shares) if last.is_floating_point() else last
    return Family([*states, average])


def renamed_labels(t: Trainer) -> Family:
    order = torch.arange(t.world.classes).roll(1)
    return t.with_odd(t.tuned(9, data=(t.tune[0], order[t.tune[1]]), lr=2e-3, epochs=12))


def other_channels(t: Trainer) -> Family:
    inputs = t.tune[0].flip(1).transpose(2, 3).contiguous()
    return t.with_odd(t.tuned(9, data=(inputs, t.tune[1]), lr=2e-3, epochs=12))


def bgr(t: Trainer) -> Family:
    return t.with_odd(t.tuned(9, data=(t.tune[0].flip(1).contiguous(), t.tune[1])))


def other_scale(t: Trainer) -> Family:
    return t.with_odd(t.tuned(9, data=(10 * t.tune[0], t.tune[1]), lr=2e-3, epochs=12))


_BOTH = ("weight", "bias")
_OF_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
# Tensors of neurons that may be exchanged: name, dimension, and how many copies of them follow one another.
NEURONS: dict[str, list[tuple[str, int, int]]] = {
    "dense": [("1.weight", 0, 1), ("1.bias", 0, 1), ("2.weight", 0, 1), ("2.bias", 0, 1), ("4.weight", 1, 1)],
    "conv": [("0.weight", 0, 1), ("0.bias", 0, 1), ("1.weight", 0, 1), ("1.bias", 0, 1), ("3.weight", 1, 1)],
    "transformer": [
        (f"blocks.{block}.{name}", dim, 1)
        for block in (0, 1)
        for name, dim in (("linear1.weight", 0), ("linear1.bias", 0), ("linear2.weight", 1))
    ],
    "residual": [("2.up.weight", 0, 1), ("2.up.bias", 0, 1), ("2.down.weight", 1, 1)],
    "mixer": [("channels.0.up.weight", 0, 1), ("channels.0.up.bias", 0, 1), ("channels.0.down.weight", 1, 1)],
    "plain": [("1.weight", 0, 1), ("1.bias", 0, 1), ("4.weight", 1, 1)],
    "conv_plain": [("0.weight", 0, 1), ("0.bias", 0, 1), ("3.weight", 1, 1)],
    "gated": [("2.gate.weight", 0, 1), ("2.up.weight", 0, 1), ("2.down.weight", 1, 1)],
    "resnet": [
        *((f"{block}.conv1.weight", 0, 1) for block in (1, 2)),
        *((f"{block}.bn1.{name}", 0, 1) for block in (1, 2) for name in ("weight", "bias", "running_mean")),
        *((f"{block}.bn1.running_var", 0, 1) for block in (1, 2)),
        *((f"{block}.conv2.weight", 1, 1) for block in (1, 2)),
    ],
    "depthwise": [
        *((name, 0, 1) for name in ("0.weight", "0.bias", "3.weight")),
        *((f"{layer}.{name}", 0, 1) for layer in (1, 4) for name in ("weight", "bias", "running_mean", "running_var")),
        ("5.weight", 1, 1),
    ],
}
NEURONS |= {
    "leaky": NEURONS["plain"],
    "strip": [
        *((name, 0, 1) for name in ("body.0.weight", "body.0.bias")),
        *((f"body.1.{name}", 0, 1) for name in ("weight", "bias", "running_mean", "running_var")),
        ("body.3.weight", 1, 1),
    ],
    "last_norm": NEURONS["transformer"],
    "both_ways": [
        *(
            (f"body.{name}_l0{way}", 0, 3)
            for way in ("", "_reverse")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ),
        *((f"body.weight_hh_l0{way}", 1, 1) for way in ("", "_reverse")),
        ("head.weight", 1, 2),
    ],
    "next": [
        (f"{block}.{name}", dim, 1)
        for block in (1, 2)
        for name, dim in (("up.weight", 0), ("up.bias", 0), ("down.weight", 1))
    ],
    "growing": [
        *((f"layers.{layer}.2.weight", 0, 1) for layer in range(3)),
        *(
            (f"layers.{layer}.3.{name}", 0, 1)
            for layer in range(3)
            for name in ("weight", "bias", "running_mean", "running_var")
        ),
        *((f"layers.{layer}.5.weight", 1, 1) for layer in range(3)),
    ],
    "over_places": [
        *((f"blocks.{block}.up.{name}", 0, 2) for block in (0, 1) for name in ("weight", "bias")),
        *((f"blocks.{block}.inner.{name}", 0, 1) for block in (0, 1) for name in ("weight", "bias")),
        *((f"blocks.{block}.down.weight", 1, 1) for block in (0, 1)),
    ],
    "excited": [
        *((f"0.{layer}.{name}", 0, 1) for layer in ("conv", "norm", "excite") for name in ("weight", "bias")),
        ("0.squeeze.weight", 1, 1),
        ("1.conv.weight", 1, 1),
    ],
}
NEURONS |= {
    "highway": [
        *((name, 0, 1) for name in ("1.weight", "1.bias")),
        *((f"{layer}.{part}.{name}", 0, 1) for layer in (2, 3) for part in ("change", "gate") for name in _BOTH),
        *((f"{layer}.{part}.weight", 1, 1) for layer in (2, 3) for part in ("change", "gate")),
        ("4.weight", 1, 1),
    ],
    "inverted": [
        *((f"{block}.body.{layer}.weight", 0, 1) for block in (3, 4) for layer in (0, 3)),
        *((f"{block}.body.{layer}.{name}", 0, 1) for block in (3, 4) for layer in (1, 4) for name in _OF_BATCH_NORM),
        *((f"{block}.body.6.weight", 1, 1) for block in (3, 4)),
    ],
    "dilated": [
        *((f"{part}.{layer}.{name}", 0, 1) for layer in range(3) for part in ("filters", "gates") for name in _BOTH),
        *((f"outs.{layer}.weight", 1, 1) for layer in range(3)),
    ],
    "latents": [
        *((f"ups.{layer}.{name}", 0, 1) for layer in (0, 1) for name in _BOTH),
        *((f"downs.{layer}.weight", 1, 1) for layer in (0, 1)),
    ],
    "frequencies": [
        *((f"blocks.{block}.up.{name}", 0, 1) for block in (0, 1) for name in _BOTH),
        *((f"blocks.{block}.down.weight", 1, 1) for block in (0, 1)),
    ],
    "grouped": [
        *((f"{block}.body.{layer}.weight", dim, 1) for block in (1, 2) for layer, dim in ((0, 1), (6, 0))),
        *((f"{block}.body.6.bias", 0, 1) for block in (1, 2)),
        *(("0.weight", 0, 1), ("0.bias", 0, 1), ("3.weight", 1, 1)),
    ],
    "experts": [
        *((f"{block}.ups.{each}.{name}", 0, 1) for block in (2, 3) for each in range(4) for name in _BOTH),
        *((f"{block}.downs.{each}.weight", 1, 1) for block in (2, 3) for each in range(4)),
    ],
    "elman": [
        *((f"body.{name}_l0", 0, 1) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        *((f"body.{name}", 1, 1) for name in ("weight_hh_l0", "weight_ih_l1")),
    ],
}
_STATISTICS = [(f"2.running_{name}", 0, 1) for name in ("mean", "var")]
NEURONS["dense_bn"] = NEURONS["deep_bn"] = [*NEURONS["dense"], *_STATISTICS]
NEURONS["conv_bn"] = NEURONS["conv"] + [(f"1.running_{name}", 0, 1) for name in ("mean", "var")]
NEURONS["vit"] = NEURONS["transformer"]
for _kind, _gates in (("rows", 3), ("lstm", 4)):
    NEURONS[_kind] = [
        *((f"body.{name}_l0", 0, _gates) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        ("body.weight_hh_l0", 1, 1),
        ("head.weight", 1, 1),
    ]


def reordered(t: Trainer) -> Family:
    """Raises AssertionError if the reordered network computes something else."""
    own = t.tuned(9)
    state, orders = dict(own), dict[int, Tensor]()
    for name, dim, copies in NEURONS[t.kind]:
        size = state[name].shape[dim] // copies
        generator = torch.Generator().manual_seed(t.world.seed + 4)
        order = orders.setdefault(size, torch.randperm(size, generator=generator))
        index = torch.cat([order + size * number for number in range(copies)])
        state[name] = state[name].index_select(dim, index).contiguous()
    outputs = []
    for each in (own, state):
        net = t.build(0).eval()
        net.load_state_dict(each)
        outputs.append(net(t.tune[0][:50]).detach())
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)
    return t.with_odd(state)


def two_pretrainings(t: Trainer) -> Family:
    other = t.pretrained(task=1)
    return Family([*t.sweep(3), *(t.tuned(20 + number, begin=other, epochs=6) for number in range(2))])


def strangers(t: Trainer) -> Family:
    other = t.pretrained(start=7)
    return Family([*t.sweep(3), *(t.tuned(20 + number, begin=other) for number in range(2))])


def new_head(t: Trainer) -> Family:
    begin, fresh = dict(t.pretrained()), t.build(77).state_dict()
    begin |= {name: fresh[name].clone() for name in list(begin)[-2:]}
    return t.with_odd(t.tuned(9, begin=begin))


def sibling_as_base(t: Trainer) -> Family:
    return Family(t.sweep(5, 110), t.tuned(9, lr=2e-3))


def dominating(t: Trainer) -> Family:
    begin = t.pretrained(epochs=0.1)
    near = [t.tuned(number, lr=1e-5, epochs=1, begin=begin) for number in range(4)]
    return Family([*near, t.tuned(9, lr=2e-3, epochs=10, begin=begin)], begin)


def observed(t: Trainer) -> Family:
    return Family(t.of_variant("observed").sweep(5, 70))


class Situation(NamedTuple):
    """The cause that is right, and how its family is made."""

    cause: str
    make: Callable[[Trainer], Family]
    variant: str | None = None  # of the network


def _healthy(make: Callable[[Trainer], Family], variant: str | None = None) -> Situation:
    return Situation(HEALTHY, make, variant)


SITUATIONS: dict[str, Situation] = {
    "sweep": _healthy(lambda t: Family(t.sweep(seed=30))),
    "sweep with its base": _healthy(lambda t: Family(t.sweep(seed=40), t.pretrained())),
    "even split of rates": _healthy(even_split),
    "two ingredients": _healthy(lambda t: Family(t.sweep(2, seed=50))),
    "24 ingredients": _healthy(lambda t: Family(t.sweep(24, seed=60))),
    "a high rate that is good": _healthy(lambda t: t.with_odd(t.tuned(9, lr=4e-3))),
    "one run and its average": _healthy(one_run),
    "one stopped early": _healthy(lambda t: t.with_odd(t.tuned(9, epochs=0.25), 100)),
    "tied head": _healthy(lambda t: Family(t.of_variant("tied").sweep(5, 80)), "tied"),
    "labels in another order": Situation("labels in another order", renamed_labels),
    "channels in another order": Situation("trained on other inputs", other_channels),
    "blue and red exchanged": Situation("trained on other inputs", bgr),
    "inputs ten times as large": Situation("trained on other inputs", other_scale),
    "neurons in another order": Situation("neurons in another order", reordered),
    "two pre-trainings": Situation("no common start", two_pretrainings),
    "strangers": Situation("no common start", strangers),
    "ruinous rate": Situation("learning rate too high", lambda t: t.with_odd(t.tuned(9, lr=1e-1))),
    "ruinous rate, 60 examples": Situation(
        "learning rate too high", lambda t: t.with_odd(t.tuned(9, lr=1e-1), 10)._replace(examples=60)
    ),
    "head made anew": Situation("a layer made anew", new_head),
    "another base": Situation("another base", lambda t: Family(t.sweep(), t.pretrained(start=7))),
    "a sibling as base": Situation("another base", sibling_as_base),
    "one dominates": Situation("one ingredient dominates", dominating),
    "all too far": Situation(
        "too far apart", lambda t: Family([t.tuned(n, lr=3e-2, epochs=10) for n in range(5)], t.pretrained())
    ),
    "ranges of quantisation": Situation("ranges of quantisation", observed, "observed"),
    "40 examples": Situation("too few validation examples", lambda t: Family(t.sweep(seed=90), None, 40)),
}


def chosen(world: World, situations: Sequence[str], kinds: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Situation and kind of network of each family of a world."""
    return [(name, kind) for name in SITUATIONS if name in situations for kind in kinds or world.kinds]
