"""Ingredients from scikit-learn's handwritten digits: one small network, pre-trained once and fine-tuned 12 times.

    soup demo digits FOLDER
    cd FOLDER && soup greedy --ckpts runs/*/ --val val

The 1,797 pictures (8 x 8 pixels) are dealt into pre-training, fine-tuning, validation and test; the shifted sets are
the test pictures rotated, blurred or noisy. About a minute on two cores.

Letters in names: n pictures, b pictures of a batch, c classes.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from soupcli.demo import digits_network, finetune
from soupcli.demo.digits_network import CLASSES, DigitNetwork
from soupcli.demo.finetune import BatchLoss, Draw
from soupcli.environment import import_extra
from soupcli.files.atomic import write_whole
from soupcli.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class DigitsSize:
    """How much of everything; what is left of the pictures is the test set."""

    pretraining: int = 200
    training: int = 300
    validation: int = 300
    runs: int = 12
    pretraining_epochs: int = 60
    epochs: tuple[int, int] = (12, 20)


@dataclass(frozen=True)
class DigitImages:
    """Digits with their labels."""

    inputs: Tensor  # (n, 1, 8, 8) float32, 0 to 1
    labels: Tensor  # (n,) int64, 0 to 9


@dataclass(frozen=True)
class DigitsSplit:
    """The four parts that share no picture."""

    pretraining: DigitImages
    training: DigitImages
    validation: DigitImages
    test: DigitImages


def make(folder: Path, *, seed: int = 0, progress: Progress = silent, size: DigitsSize | None = None) -> None:
    """Fills `folder` with `runs/*/`, `data/`, `network.py` and `soup.yaml`; what is there already stays.

    Raises MissingExtra without scikit-learn, OutputError if the folder holds a demo of another seed or size.
    """
    size = size or DigitsSize()
    parts = split(load(), size, seed)
    finetune.claim(folder, {"demo": "digits", "seed": seed, **asdict(size), "epochs": list(size.epochs)})
    write_data(folder, parts.validation, parts.test, seed)
    with finetune.threads(at_most=1):
        start = _start(folder, parts, size, seed, progress)
        for index, draw in enumerate(draws(size, seed)):
            run = folder / "runs" / finetune.run_name(index, draw)
            if not (run / "model.safetensors").exists():
                network = copy.deepcopy(start)
                train(network, parts.training, draw, task=f"fine-tuning {run.name}", progress=progress)
                finetune.write_run(run, network, draw)


def load() -> DigitImages:
    """Returns scikit-learn's digits in their own order, each picture once."""
    digits = import_extra("sklearn.datasets", extra="demo").load_digits()
    inputs = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)  # pixels are 0 to 16
    labels = torch.from_numpy(digits.target).long()
    firsts: dict[bytes, int] = {}
    for index, picture in enumerate(digits.images):
        firsts.setdefault(picture.tobytes(), index)
    kept = torch.tensor(list(firsts.values()))
    return DigitImages(inputs[kept], labels[kept])


def split(pictures: DigitImages, size: DigitsSize, seed: int) -> DigitsSplit:
    """Deals the pictures into four parts at random."""
    order = torch.randperm(len(pictures.labels), generator=torch.Generator().manual_seed(seed))
    counts = [size.pretraining, size.training, size.validation]
    parts = torch.split(order, [*counts, len(order) - sum(counts)])
    return DigitsSplit(*[DigitImages(pictures.inputs[part], pictures.labels[part]) for part in parts])


def draws(size: DigitsSize, seed: int) -> list[Draw]:
    """Returns the hyper-parameters of every run, spread evenly over ranges that all train well."""
    generator = torch.Generator().manual_seed(seed)
    columns = zip(
        finetune.spread_log(1e-3, 3e-3, size.runs, generator),
        finetune.spread(size.epochs[0], size.epochs[1], size.runs, generator),
        finetune.spread_log(1e-3, 1e-1, size.runs, generator),
        finetune.spread(0.0, 0.1, size.runs, generator),
        finetune.spread(0.4, 1.0, size.runs, generator),
        finetune.spread(0.0, 0.2, size.runs, generator),
        strict=True,
    )
    return [
        Draw(
            lr=lr,
            epochs=round(epochs),
            seed=1000 * seed + index,
            weight_decay=weight_decay,
            label_smoothing=round(smoothing, 3),
            augment=round(augment, 3),
            mixup=round(mixup, 3),
        )
        for index, (lr, epochs, weight_decay, smoothing, augment, mixup) in enumerate(columns)
    ]


def _start(folder: Path, parts: DigitsSplit, size: DigitsSize, seed: int, progress: Progress) -> DigitNetwork:
    """Returns the weights that all runs leave from: pre-trained, then a head fitted on the fine-tuning pictures."""
    with finetune.seeded(seed):
        network = DigitNetwork()
    file = folder / "start" / "model.safetensors"
    if file.exists():
        network.load_state_dict(finetune.read_tensors(file))
        return network
    draw = Draw(lr=2e-3, epochs=size.pretraining_epochs, seed=seed, weight_decay=0.05, label_smoothing=0.1, augment=1.0)
    train(network, parts.pretraining, draw, task="pre-training", progress=progress)
    with torch.no_grad():
        features_nd = network.features(parts.training.inputs)
        weight_cd, bias_c = finetune.linear_probe(features_nd, parts.training.labels, CLASSES)
        network.head.weight.copy_(weight_cd)
        network.head.bias.copy_(bias_c)
    finetune.write_run(file.parent, network, draw)
    return network


def train(network: DigitNetwork, pictures: DigitImages, draw: Draw, *, task: str, progress: Progress) -> None:
    """Trains `network` in place on `pictures` by the hyper-parameters of `draw`."""
    examples = len(pictures.labels)
    finetune.fit(network, batch_loss(pictures, draw), draw, examples=examples, task=task, progress=progress)


def batch_loss(pictures: DigitImages, draw: Draw) -> BatchLoss:
    """Returns the cross-entropy over distorted and mixed pictures (mixup: Zhang et al. 2018, arXiv:1710.09412)."""
    targets_nc = F.one_hot(pictures.labels, CLASSES).float()

    def loss(network: torch.nn.Module, indices_b: Tensor, generator: torch.Generator) -> Tensor:
        inputs = distort(pictures.inputs[indices_b], draw.augment, generator)  # (b, 1, 8, 8)
        targets_bc = targets_nc[indices_b]
        partners_b = torch.randperm(len(indices_b), generator=generator)
        share_b = draw.mixup * torch.rand(len(indices_b), generator=generator)
        inputs = inputs.lerp(inputs[partners_b], share_b[:, None, None, None])
        targets_bc = targets_bc.lerp(targets_bc[partners_b], share_b[:, None])
        return F.cross_entropy(network(inputs), targets_bc, label_smoothing=draw.label_smoothing)

    return loss


def distort(inputs: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Returns (n, 1, 8, 8) pictures rotated by up to 20 degrees, shifted by up to a pixel, and a little noisy."""
    angle_n, right_n, down_n = strength * (2 * torch.rand(3, len(inputs), generator=generator) - 1)
    moved = warp(inputs, 20 * angle_n, 0.25 * right_n, 0.25 * down_n)
    return moved + 0.15 * strength * torch.randn(inputs.shape, generator=generator)


def warp(inputs: Tensor, degrees_n: Tensor, right_n: Tensor, down_n: Tensor) -> Tensor:
    """Returns the pictures turned by `degrees_n` and shifted; a shift of 1 is half the picture's width."""
    sine_n, cosine_n = (degrees_n * math.pi / 180).sin(), (degrees_n * math.pi / 180).cos()
    rows = [torch.stack([cosine_n, -sine_n, right_n], 1), torch.stack([sine_n, cosine_n, down_n], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(inputs.shape), align_corners=False)  # (n, 8, 8, 2)
    return F.grid_sample(inputs, grid, align_corners=False)


def shifted(test: DigitImages, seed: int) -> dict[str, DigitImages]:
    """Returns the test pictures under three distribution shifts, each by its own fixed chance."""
    generator = torch.Generator().manual_seed(seed)
    still_n = torch.zeros(len(test.labels))
    turned_n = 20 + 20 * torch.rand(len(test.labels), generator=generator)  # 20 to 40 degrees, either way
    side_n = torch.where(torch.rand(len(test.labels), generator=generator) < 0.5, -1.0, 1.0)
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line)[None, None]  # (1, 1, 3, 3)
    noise = 0.3 * torch.randn(test.inputs.shape, generator=generator)
    return {
        "rotated": DigitImages(warp(test.inputs, side_n * turned_n, still_n, still_n), test.labels),
        "blurred": DigitImages(F.conv2d(F.pad(test.inputs, (1, 1, 1, 1), mode="replicate"), kernel), test.labels),
        "noisy": DigitImages(test.inputs + noise, test.labels),
    }


def write_data(folder: Path, validation: DigitImages, test: DigitImages, seed: int) -> None:
    """Writes the five sets, `network.py` and `soup.yaml`, each only if it is not there yet."""
    for name, pictures in {"val": validation, "test": test, **shifted(test, seed)}.items():
        file = folder / "data" / f"{name}.safetensors"
        if not file.exists():
            finetune.write_tensors(file, {"inputs": pictures.inputs, "labels": pictures.labels})
    for name, text in {"network.py": inspect.getsource(digits_network), "soup.yaml": RECIPE}.items():
        if not (folder / name).exists():
            write_whole(folder / name, text.encode())


RECIPE = """\
# Handwritten digits: runs/ holds fine-tuned copies of one pre-trained network, made by `soup demo digits`.
#
#   soup rank    --ckpts runs/*/ --val val       every run alone, best first
#   soup uniform --ckpts runs/*/ --val val       the mean of all
#   soup greedy  --ckpts runs/*/ --val val       the mean of those that help, into soup/
#   soup eval    --ckpts soup/ runs/*/ --val test rotated blurred noisy
#
# Runs on a CPU in seconds. Over five seeds the best run has 97.4 % on the test set, the greedy soup 98.2 %.

model: {python: "network.py:build"}              # the network's code; every run holds its weights
val:
  val:     {arrays: data/val.safetensors}        # 300 pictures, which choose the members of a soup
  test:    {arrays: data/test.safetensors}       # 997 others, for the last word
  rotated: {arrays: data/rotated.safetensors}    # the test pictures turned by 20 to 40 degrees,
  blurred: {arrays: data/blurred.safetensors}    # out of focus,
  noisy:   {arrays: data/noisy.safetensors}      # with a noisy camera
metric: accuracy
"""
