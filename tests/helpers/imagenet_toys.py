"""ImageNet and its shifted sets at a toy size, in the layout of the recipes, and the authors' way to score them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from soupcli.datasets.classes import imagenet_wnids
from tests.helpers.pictures import noise

CLASSES = 12
WNIDS = sorted(imagenet_wnids())[:CLASSES]
R, A = (1, 2, 5, 8, 11), (0, 3, 7)  # the classes that the two sets cover
OBJECTS = {"bench": [4, 9], "mug": [2]}  # yoyo is none of ImageNet's
SETS = ("imagenet-2p", "imagenet", "imagenet-v2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a")


class Range(NamedTuple):
    """What a share may be: one number, but for logits that a bfloat16 network gives as good as equal."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


Logits = Callable[[Sequence[Path]], Tensor]  # picture files to [N, 12]


def write(data: Path, *, size: int = 40) -> None:
    """Every set of the recipes, of noise, each picture another."""

    def picture(file: Path, number: int) -> None:
        noise(file, size=(size + number % 3, size), seed=number)

    for place, (folder, classes, each) in enumerate(
        (
            ("imagenet-minival", WNIDS, 2),
            ("imagenet/val", WNIDS, 2),
            ("imagenetv2-matched-frequency-format-val", [str(k) for k in range(CLASSES)], 1),
            ("imagenet-r", [WNIDS[k] for k in R], 2),
            ("sketch", WNIDS, 1),
            ("imagenet-a", [WNIDS[k] for k in A], 2),
            ("objectnet-1.0/images", ["bench", "mug", "yoyo"], 3),
        )
    ):
        for number in range(len(classes) * each):
            name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
            picture(data / folder / classes[number // each] / name, 1000 * place + number)
    (data / "objectnet-1.0/classes.json").write_text(json.dumps(OBJECTS))
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(0, CLASSES, (2 * CLASSES, 4), generator=generator).tolist()
    right[3] = []
    (data / "real.json").write_text(json.dumps(right))
    named = {f"ILSVRC2012_val_{n + 1:08d}.JPEG": sorted(set(r[:2])) for n, r in enumerate(right)}
    (data / "multilabel.json").write_text(json.dumps(named))


def accuracies(data: Path, logits_of: Logits, *, margin: float = 0.0) -> dict[str, Range]:
    """Each set's accuracy as the authors' own evaluation has it: logits projected to the set's classes, then argmax."""
    folders = {"imagenet-2p": "imagenet-minival", "imagenet": "imagenet/val", "imagenet-sketch": "sketch"}
    folders |= {"imagenet-v2": "imagenetv2-matched-frequency-format-val"}
    folders |= {name: name for name in ("imagenet-r", "imagenet-a")}
    found: dict[str, Range] = {}
    for name, folder in folders.items():
        files = sorted((data / folder).glob("*/*"))
        truth = [int(f.parent.name) if name == "imagenet-v2" else WNIDS.index(f.parent.name) for f in files]
        covered = sorted(set(truth))
        found[name] = share(logits_of(files)[:, covered], [[covered.index(t)] for t in truth], margin)
    files = [f for f in sorted((data / "objectnet-1.0/images").glob("*/*")) if f.parent.name in OBJECTS]
    logits = logits_of([_without_border(f) for f in files])
    each = torch.stack([logits[:, columns].max(dim=1).values for columns in OBJECTS.values()], dim=1)
    found["objectnet"] = share(each, [[list(OBJECTS).index(f.parent.name)] for f in files], margin)
    return found


def share(logits_nk: Tensor, right: Sequence[Sequence[int]], margin: float) -> Range:
    """The least and the largest share that is right, where logits as close as `margin` (of their spread) may tie."""
    close = margin * float(logits_nk.std())
    sure = possible = 0
    for row, labels in zip(logits_nk.tolist(), right, strict=True):
        first = {k for k, value in enumerate(row) if value >= max(row) - close}
        sure += first <= set(labels)
        possible += bool(first & set(labels))
    return Range(sure / len(right), possible / len(right))


def _without_border(file: Path) -> Path:
    """A copy without the two pixels at each side."""
    out = file.parents[3] / "cut" / file.parent.name / f"{file.stem}.png"  # without losses
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(file) as picture:
        picture.crop((2, 2, picture.width - 2, picture.height - 2)).save(out)
    return out


def in_any(file: Path, data: Path, logits_of: Logits, *, margin: float = 0.0) -> Range:
    """The share of ImageNet's pictures whose largest logit is among their labels in a list or map; none: left out."""
    files = sorted((data / "imagenet/val").glob("*/*"))
    content = json.loads(file.read_text())
    labels = [content[int(f.stem[-8:]) - 1] if isinstance(content, list) else content[f.name] for f in files]
    kept = [place for place, right in enumerate(labels) if right]
    return share(logits_of(files)[kept], [labels[place] for place in kept], margin)
