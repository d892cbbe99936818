"""The fine-tuning that the demos share: one start, one head, one run for each draw of hyper-parameters.

    soup demo digits FOLDER
    soup demo text FOLDER
    soup demo images FOLDER

Ordinary good practice, as in Wortsman et al. 2022, appendix E: every run leaves from the same weights, whose head a
linear probe has fitted before; AdamW, linear warm-up, cosine decay, clipped gradients. Files appear whole or not at
all, and what exists is not made again, so that an interrupted demo goes on from there.

Letters in names: n examples, b examples of a batch, c classes, d features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from soupcli.errors import OutputError
from soupcli.files.atomic import write_whole
from soupcli.progress import Progress, silent

WARM_UP = 0.1  # of all steps
CLIP = 1.0  # norm of the gradient

BatchLoss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""(network in training mode, indices_b of the batch's examples, the run's generator) -> mean loss, a scalar."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The hyper-parameters of one run, as its `train.json` records them."""

    lr: float
    epochs: int
    seed: int  # of the order of examples, the augmentation and dropout
    batch_size: int = 32
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    augment: float = 0.0  # strength of the pictures' distortions, 0 to 1
    mixup: float = 0.0  # largest share of a second example, 0 to 0.5


def run_name(index: int, draw: Draw) -> str:
    """Returns the run's folder name, which sorts by index: `03-lr2.1e-3-ep20`."""
    mantissa, exponent = f"{draw.lr:.1e}".split("e")
    return f"{index:02d}-lr{mantissa.removesuffix('.0')}e{int(exponent)}-ep{draw.epochs}"


def spread(low: float, high: float, count: int, generator: torch.Generator) -> list[float]:
    """Returns `count` values in random order, one from each of `count` equal slices of [low, high]."""
    within = torch.rand(count, generator=generator, dtype=torch.float64)
    slices = torch.randperm(count, generator=generator)
    return (low + (high - low) * (slices + within) / count).tolist()


def spread_log(low: float, high: float, count: int, generator: torch.Generator) -> list[float]:
    """Returns `spread` on a log scale, rounded to two digits so that a name tells the value itself."""
    return [float(f"{math.exp(x):.2g}") for x in spread(math.log(low), math.log(high), count, generator)]


def fit(
    network: nn.Module,
    batch_loss: BatchLoss,
    draw: Draw,
    *,
    examples: int,
    task: str,
    progress: Progress = silent,
) -> None:
    """Trains the parameters of `network` that require a gradient, in place, and leaves it in evaluation mode.

    All randomness comes from `draw.seed`; the caller's random state does not change.
    """
    generator = torch.Generator().manual_seed(draw.seed)
    optimizer = torch.optim.AdamW(_parameter_groups(network, draw.weight_decay), lr=draw.lr, fused=True)
    total = draw.epochs * math.ceil(examples / draw.batch_size)
    step = 0
    network.train()
    with seeded(draw.seed):  # dropout knows no other generator
        for _ in range(draw.epochs):
            for indices_b in torch.split(torch.randperm(examples, generator=generator), draw.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = draw.lr * warm_up_cosine(step, total)
                loss = batch_loss(network, indices_b, generator)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimizer.step()
                step += 1
                progress(task, step, total, note=f"loss {loss.item():.4f}" if step == total else "")
    network.eval()


def warm_up_cosine(step: int, total: int) -> float:
    """Returns the share of the peak learning rate at `step` of `total`: up in a line, down in half a cosine to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},  # biases and norms
    ]


def linear_probe(
    features_nd: Tensor, labels_n: Tensor, classes: int, *, weight_decay: float = 1e-2
) -> tuple[Tensor, Tensor]:
    """Returns the head that fits best on frozen features: weight_cd and bias_c, float32.

    Multinomial logistic regression by L-BFGS from zero, which needs no seed. `weight_decay` is the penalty on half
    the squared norm of the weight, the features scaled to a mean square of 1.
    """
    scale = features_nd.double().square().mean().sqrt().clamp_min(1e-12)
    features_nd = features_nd.double() / scale
    weight_cd = torch.zeros(classes, features_nd.shape[1], dtype=torch.float64, requires_grad=True)
    bias_c = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_cd, bias_c], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features_nd @ weight_cd.T + bias_c, labels_n)
        value = value + 0.5 * weight_decay * weight_cd.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (weight_cd.detach() / scale).float(), bias_c.detach().float()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's own generator on the CPU inside, and afterwards leaves it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def threads(at_most: int) -> Iterator[None]:
    """Holds torch to `at_most` threads inside: small networks gain nothing from more and wait for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, at_most))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def claim(folder: Path, settings: Mapping[str, object]) -> None:
    """Notes in `folder/start/demo.json` what the folder is made from, so that no other family is mixed in later.

    `settings`: JSON values that say which demo this is, its seed and its sizes.
    Raises OutputError if the folder already belongs to other settings.
    """
    note = folder / "start" / "demo.json"
    wanted = to_json(settings)
    if not note.exists():
        write_whole(note, wanted)
    elif note.read_bytes() != wanted:
        old = json.loads(note.read_bytes())
        changed = sorted(key for key in {*old, *settings} if old.get(key) != settings.get(key))
        was = ", ".join(f"{key} {old.get(key)}" for key in changed)
        asked = ", ".join(f"{key} {settings.get(key)}" for key in changed)
        raise OutputError(f"{folder}: holds a demo with {was}, asked for {asked}", hint="choose another folder")


def to_json(value: Mapping[str, object]) -> bytes:
    """Returns a JSON document with sorted keys and a newline at its end."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file whole or not at all; the same tensors give the same bytes."""
    contiguous = {name: tensors[name].detach().contiguous() for name in sorted(tensors)}
    write_whole(path, safetensors.torch.save(contiguous, metadata={"format": "pt"}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, on the CPU."""
    tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    return tensors


def write_run(run: Path, network: nn.Module, draw: Draw) -> None:
    """Writes `train.json`, then `model.safetensors`, whose presence says that the run is finished."""
    write_whole(run / "train.json", to_json(asdict(draw)))
    write_tensors(run / "model.safetensors", network.state_dict())
