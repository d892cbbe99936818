"""What `soup inspect` says of families of which the truth is known: small networks, really trained, one fault each.

    python benchmarks/verdicts.py --half tuned           # the half that thresholds were set on
    python benchmarks/verdicts.py --half unseen          # the other one, which nobody looked at before
    python benchmarks/verdicts.py --half tuned --folder families/ --situations sweep strangers --show

Prints the confusion matrix of docs/results.md: a line for each situation, with the number of families whose cause was
named, with another cause named, and with none. Eight architectures times the situations of `SITUATIONS`,
five ingredients each if not said otherwise. A family is made once and kept in `--folder`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from soupcli.cli.app import app

CLASSES, SIDE = 6, 8
State = dict[str, Tensor]
Data = tuple[Tensor, Tensor]

NETWORKS = """
import torch
from torch import nn

CLASSES = 6


class Residual(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(wide), nn.Linear(wide, 2 * wide), nn.Linear(2 * wide, wide)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Patches(nn.Module):
    def forward(self, x):
        return x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(len(x), 16, 12)


class Transformer(nn.Module):
    def __init__(self, wide=32):
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.place = nn.Parameter(0.1 * torch.randn(16, wide))
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(wide, 2, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
        )
        self.norm, self.head = nn.LayerNorm(wide), nn.Linear(wide, CLASSES)

    def forward(self, x):
        x = self.embed(self.patches(x)) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean(1)))


class Rows(nn.Module):
    def __init__(self, wide=40):
        super().__init__()
        self.body, self.head = nn.GRU(24, wide, batch_first=True), nn.Linear(wide, CLASSES)

    def forward(self, x):
        return self.head(self.body(x.permute(0, 2, 1, 3).flatten(2))[0].mean(1))


class Mixer(nn.Module):
    def __init__(self, wide=32):
        super().__init__()
        self.patches, self.embed = Patches(), nn.Linear(12, wide)
        self.tokens, self.channels = Residual(16), nn.Sequential(Residual(wide), Residual(wide))
        self.head = nn.Linear(wide, CLASSES)

    def forward(self, x):
        x = self.embed(self.patches(x))
        x = self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.channels(x).mean(1))


def dense(norm):
    def layer(wide, out):
        return [nn.Linear(wide, out), norm(out), nn.ReLU()]

    return nn.Sequential(nn.Flatten(), *layer(192, 48), *layer(48, 48), nn.Linear(48, CLASSES))


def conv(norm):
    def layer(wide, out, stride):
        return [nn.Conv2d(wide, out, 3, stride, 1), norm(out), nn.ReLU()]

    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layer(3, 16, 1), *layer(16, 24, 2), *layer(24, 32, 2), *pool, nn.Linear(32, CLASSES))


KINDS = {
    "dense": lambda: dense(nn.LayerNorm),
    "dense_bn": lambda: dense(nn.BatchNorm1d),
    "conv": lambda: conv(lambda out: nn.GroupNorm(1, out)),
    "conv_bn": lambda: conv(nn.BatchNorm2d),
    "transformer": Transformer,
    "rows": Rows,
    "residual": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 48), Residual(48), Residual(48), nn.LayerNorm(48), nn.Linear(48, CLASSES)
    ),
    "mixer": Mixer,
}


def build(kind):
    return KINDS[kind]()
"""
namespace: dict[str, Any] = {}
exec(NETWORKS, namespace)
KINDS = tuple(namespace["KINDS"])
# Tensors of neurons that may be exchanged: name, dimension, and how many copies of them follow one another.
NEURONS: dict[str, list[tuple[str, int, int]]] = {
    "dense": [("1.weight", 0, 1), ("1.bias", 0, 1), ("2.weight", 0, 1), ("2.bias", 0, 1), ("4.weight", 1, 1)],
    "conv": [("0.weight", 0, 1), ("0.bias", 0, 1), ("1.weight", 0, 1), ("1.bias", 0, 1), ("3.weight", 1, 1)],
    "transformer": [
        (f"blocks.{block}.{name}", dim, 1)
        for block in (0, 1)
        for name, dim in (("linear1.weight", 0), ("linear1.bias", 0), ("linear2.weight", 1))
    ],
    "rows": [
        *((f"body.{name}_l0", 0, 3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        ("body.weight_hh_l0", 1, 1),
        ("head.weight", 1, 1),
    ],
    "residual": [("2.up.weight", 0, 1), ("2.up.bias", 0, 1), ("2.down.weight", 1, 1)],
    "mixer": [
        ("channels.0.up.weight", 0, 1),
        ("channels.0.up.bias", 0, 1),
        ("channels.0.down.weight", 1, 1),
    ],
}
NEURONS["dense_bn"] = NEURONS["dense"] + [(f"2.running_{name}", 0, 1) for name in ("mean", "var")]
NEURONS["conv_bn"] = NEURONS["conv"] + [(f"1.running_{name}", 0, 1) for name in ("mean", "var")]


def examples(n: int, seed: int, *, world: int = 0, noise: float = 1.0) -> Data:
    """Pictures [n, 3, 8, 8] of a class's pattern, moved by a pixel or two, under noise; and the classes."""
    generator = torch.Generator().manual_seed(100 + world)
    coarse = torch.randn(CLASSES, 3, 5, 5, generator=generator)
    patterns = functional.interpolate(coarse, size=SIDE + 2, mode="bicubic", align_corners=True)
    generator = torch.Generator().manual_seed(seed)
    labels_n = torch.randint(CLASSES, (n,), generator=generator)
    down_n, right_n = torch.randint(3, (2, n), generator=generator).tolist()
    moved = [patterns[c, :, y : y + SIDE, x : x + SIDE] for c, y, x in zip(labels_n, down_n, right_n, strict=True)]
    gain_n = 1 + 0.3 * torch.randn(n, 1, 1, 1, generator=generator)
    return torch.stack(moved) * gain_n + noise * torch.randn(n, 3, SIDE, SIDE, generator=generator), labels_n


def build(kind: str, seed: int) -> nn.Module:
    """A network of random numbers."""
    torch.manual_seed(seed)
    module: nn.Module = namespace["build"](kind)
    return module


def train(kind: str, state: State | None, data: Data, *, lr: float, epochs: float, seed: int, start: int = 0) -> State:
    """A network trained from `state` on, or from the random numbers of the seed `start`."""
    net = build(kind, start)
    if state is not None:
        net.load_state_dict(state)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    inputs, labels_n = data
    steps = round(epochs * len(inputs) / 64)
    order = torch.cat([torch.randperm(len(inputs)) for _ in range(int(epochs) + 1)])
    for step in range(steps):
        some = order[64 * step : 64 * step + 64]
        loss = functional.cross_entropy(net(inputs[some]), labels_n[some])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
    return {name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()}


@cache
def pretrained(kind: str, *, world: int = 0, start: int = 0, epochs: float = 6) -> State:
    """Where a family begins."""
    data = examples(2500, 1 + world, world=world, noise=0.7)
    return train(kind, None, data, lr=3e-3, epochs=epochs, seed=start, start=start)


TUNE, VAL = examples(500, 11, noise=1.4), examples(1000, 12, noise=1.4)


def tuned(
    kind: str, seed: int, *, lr: float = 1e-3, epochs: float = 4, begin: State | None = None, data: Data = TUNE
) -> State:
    """One ingredient: fine-tuned from the common start if no other is given."""
    return train(kind, pretrained(kind) if begin is None else begin, data, lr=lr, epochs=epochs, seed=seed)


class Family(NamedTuple):
    """Ingredients, the words that `soup inspect` gets beside, and the base if one is given."""

    states: list[State]
    base: State | None = None


SWEEP = (5e-4, 1e-3, 2e-3)


def sweep(kind: str, count: int = 5, seed: int = 0) -> list[State]:
    """Healthy ingredients, at three learning rates."""
    return [tuned(kind, seed + number, lr=SWEEP[number % 3]) for number in range(count)]


def with_odd(kind: str, odd: State, seed: int = 0) -> Family:
    """Four healthy ingredients and one that is not."""
    return Family([*sweep(kind, 4, seed), odd])


def even_split(kind: str) -> Family:
    near = [tuned(kind, number, lr=1e-5, epochs=1) for number in range(3)]
    return Family([*near, *(tuned(kind, number, lr=1e-3) for number in range(3, 6))], pretrained(kind))


def one_run(kind: str) -> Family:
    """Checkpoints of one run, and an exponential average of them."""
    states = [tuned(kind, 5, epochs=1)]
    for number in range(3):
        states.append(tuned(kind, 6 + number, epochs=1, begin=states[-1]))
    average = {
        name: sum(0.5 ** (4 - k) * state[name] for k, state in enumerate(states))
        / sum(0.5 ** (4 - k) for k in range(4))
        if states[0][name].is_floating_point()
        else states[-1][name]
        for name in states[0]
    }
    return Family([*states, {name: torch.as_tensor(tensor) for name, tensor in average.items()}])


def renamed_labels(kind: str) -> Family:
    order = torch.tensor([1, 2, 3, 4, 5, 0])
    return with_odd(kind, tuned(kind, 9, data=(TUNE[0], order[TUNE[1]]), lr=2e-3, epochs=12))


def other_inputs(kind: str) -> Family:
    inputs = TUNE[0].flip(1).transpose(2, 3).contiguous()
    return with_odd(kind, tuned(kind, 9, data=(inputs, TUNE[1]), lr=2e-3, epochs=12))


def reordered(kind: str) -> Family:
    state = dict(tuned(kind, 9))
    size = state[NEURONS[kind][0][0]].shape[0] // NEURONS[kind][0][2]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(4))
    for name, dim, copies in NEURONS[kind]:
        index = torch.cat([order + size * number for number in range(copies)])
        state[name] = state[name].index_select(dim, index).contiguous()
    return with_odd(kind, state)


def two_pretrainings(kind: str) -> Family:
    other = pretrained(kind, world=1)
    return Family([*sweep(kind, 3), *(tuned(kind, 20 + number, begin=other, epochs=6) for number in range(2))])


def strangers(kind: str) -> Family:
    other = pretrained(kind, start=7)
    return Family([*sweep(kind, 3), *(tuned(kind, 20 + number, begin=other) for number in range(2))])


def ruinous_rate(kind: str) -> Family:
    return with_odd(kind, tuned(kind, 9, lr=1e-1))


def new_head(kind: str) -> Family:
    begin, fresh = dict(pretrained(kind)), build(kind, 77).state_dict()
    names = list(begin)[-2:]
    begin |= {name: fresh[name].clone() for name in names}
    return with_odd(kind, tuned(kind, 9, begin=begin))


def wrong_base(kind: str) -> Family:
    return Family(sweep(kind), pretrained(kind, start=7))


def dominating(kind: str) -> Family:
    begin = pretrained(kind, epochs=0.1)
    near = [tuned(kind, number, lr=1e-5, epochs=1, begin=begin) for number in range(4)]
    return Family([*near, tuned(kind, 9, lr=2e-3, epochs=10, begin=begin)], begin)


def all_too_far(kind: str) -> Family:
    return Family([tuned(kind, number, lr=3e-2, epochs=10) for number in range(5)], pretrained(kind))


HEALTHY = "nothing"
HARMLESS = 1.5  # points that the mean of all may lack to the best ingredient: the fault did not show
SITUATIONS: dict[str, tuple[str, Callable[[str], Family]]] = {
    "sweep": (HEALTHY, lambda kind: Family(sweep(kind, seed=30))),
    "sweep with its base": (HEALTHY, lambda kind: Family(sweep(kind, seed=40), pretrained(kind))),
    "even split of rates": (HEALTHY, even_split),
    "two ingredients": (HEALTHY, lambda kind: Family(sweep(kind, 2, seed=50))),
    "twelve ingredients": (HEALTHY, lambda kind: Family(sweep(kind, 12, seed=60))),
    "a high rate that is good": (HEALTHY, lambda kind: with_odd(kind, tuned(kind, 9, lr=4e-3))),
    "one run and its average": (HEALTHY, one_run),
    "labels in another order": ("labels in another order", renamed_labels),
    "other inputs": ("trained on other inputs", other_inputs),
    "neurons in another order": ("neurons in another order", reordered),
    "two pre-trainings": ("no common start", two_pretrainings),
    "strangers": ("no common start", strangers),
    "ruinous rate": ("learning rate too high", ruinous_rate),
    "head made anew": ("a layer made anew", new_head),
    "another base": ("another base", wrong_base),
    "one dominates": ("one ingredient dominates", dominating),
    "all too far": ("too far apart", all_too_far),
}
# Named beside another cause these are no mistake: statistics are estimated again first, a small set is small.
BESIDE = {"batch-norm statistics", "too few validation examples"}


class Said(NamedTuple):
    """What was said of a family."""

    kind: str
    situation: str
    verdicts: list[dict[str, Any]]
    without_val: list[str]
    summary: str
    lost: float  # points by which the mean of all is below the best ingredient

    @property
    def causes(self) -> list[str]:
        """Names, without those that may stand beside any other."""
        expected = SITUATIONS[self.situation][0]
        return [v["cause"] for v in self.verdicts if v["cause"] not in BESIDE or v["cause"] == expected]


def chosen(half: str, situations: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Families of a half: architectures and situations as on a chessboard."""
    for row, situation in enumerate(SITUATIONS):
        for column, kind in enumerate(KINDS):
            if situation in situations and ((row + column) % 2 == 0) == (half == "tuned"):
                yield kind, situation


def written(folder: Path, kind: str, situation: str) -> Path:
    """The family in files, made if it is not there."""
    place = folder / f"{situation.replace(' ', '-')}-{kind}"
    if (place / "soup.yaml").exists():
        return place
    family = SITUATIONS[situation][1](kind)
    for number, state in enumerate(family.states):
        (place / f"runs/{number:02d}").mkdir(parents=True, exist_ok=True)
        save_file(state, place / f"runs/{number:02d}/model.safetensors")
    if family.base is not None:
        (place / "base").mkdir(exist_ok=True)
        save_file(family.base, place / "base/model.safetensors")
    save_file({"inputs": VAL[0].contiguous(), "labels": VAL[1]}, place / "val.safetensors")
    (place / "net.py").write_text(NETWORKS)
    recipe = f'model: {{python: "net.py:build", args: {{kind: {kind}}}}}\nval:\n  val: {{arrays: val.safetensors}}\n'
    (place / "soup.yaml").write_text(recipe)
    return place


def inspected(place: Path, *words: str) -> dict[str, Any]:
    """The inspection of `soup inspect`."""
    base = ["--base", "base"] if (place / "base").exists() else []
    with contextlib.chdir(place), contextlib.redirect_stderr(io.StringIO()):
        ran = CliRunner().invoke(app, ["inspect", "--ckpts", "runs/*/", "--json", *base, *words])
    if ran.exit_code != 0:
        raise RuntimeError(f"{place}: {ran.output} {ran.exception}")
    report = json.loads(ran.stdout)
    inspection: dict[str, Any] = report["inspection"]
    inspection["alone"] = [each["scores"].get("val") for each in report["ingredients"]]
    return inspection


def asked(folder: Path, kind: str, situation: str) -> Said:
    """What is said of one family, with the set and without it."""
    place = written(folder, kind, situation)
    found, by_weights = inspected(place, "--val", "val"), inspected(place)
    [barrier] = found["barriers"]
    soup = barrier["settled_mean"] or barrier["mean"]
    best = max(scores["accuracy"]["value"] for scores in found["alone"])
    lost = 100 * (best - soup["accuracy"]["value"])
    mean = f"mean {100 * soup['accuracy']['value']:.0f}"
    left = [f"{100 * each['accuracy']['value']:.0f}" for each in barrier["without"].values()]
    summary = f"{mean}, without each {' '.join(left)}"
    return Said(kind, situation, found["verdicts"], [v["cause"] for v in by_weights["verdicts"]], summary, lost)


def table(said: Sequence[Said]) -> str:
    """Markdown: a line for each situation."""
    lines = [
        "| situation | families | named | another cause named | nothing said | of these harmless | others named "
        "| by weights |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for situation, (expected, _) in SITUATIONS.items():
        of = [one for one in said if one.situation == situation]
        if of:
            healthy = expected == HEALTHY
            named = sum(not one.causes if healthy else expected in one.causes for one in of)
            wrong = [cause for one in of for cause in one.causes if cause != expected]
            other = sum(any(cause != expected for cause in one.causes) for one in of)
            silent = sum(not one.causes for one in of)
            harmless = sum(not one.causes and one.lost < HARMLESS for one in of)
            alone = sum(not one.without_val if healthy else expected in one.without_val for one in of)
            names = ", ".join(sorted(set(wrong)))
            lines.append(f"| {situation} | {len(of)} | {named} | {other} | {silent} | {harmless} | {names} | {alone} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["tuned", "unseen"], required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--situations", nargs="+", choices=list(SITUATIONS), default=list(SITUATIONS))
    parser.add_argument("--show", action="store_true", help="each family")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        os.environ["SOUP_CACHE"] = str(Path(scratch) / "cache")
        said = []
        for kind, situation in chosen(options.half, options.situations):
            one = asked(folder.absolute(), kind, situation)
            said.append(one)
            if options.show:
                print(f"{situation}, {kind}: {one.causes} {one.without_val} {one.summary}", flush=True)
                for verdict in one.verdicts:
                    print(f"    {verdict['cause']} ({verdict['sure']}): {verdict['evidence']}", flush=True)
    print(table(said))
    print(f"\n{len(said)} families, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
