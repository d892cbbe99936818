"""`soup greedy` beside the loop of the authors' released code: wall time, forward passes, what is evaluated.

    python benchmarks/greedy.py                                # make bench-greedy: everything
    python benchmarks/greedy.py --parts images --pictures 120      # a part, smaller
    python benchmarks/greedy.py --parts images --width 500         # pictures of the size of ImageNet's
    python benchmarks/greedy.py --parts text --rows 500            # fewer sentences
    python benchmarks/greedy.py --parts demos --families DIR       # families of `soup demo` that are there already

images: JPEGs cut from scikit-learn's photographs, 12 ingredients of a small ViT of timm at 224 pixels.
text:   the MiniLM of `soup demo text` on the first rows of its validation and test sets.
demos:  `soup demo digits`, `images` and `text`, whole: the share of the full evaluations' examples that greedy
        evaluates. Candidates that are accepted are evaluated whole: it is never less than their share.
large:  where there is a CUDA device (or with --device cpu, small): synthetic ViT-B/32, many cached pictures.

The loop is that of main.py in https://github.com/mlfoundations/model-soups (Wortsman et al. 2022): every checkpoint is
loaded and evaluated on the whole set, then every candidate soup is, and each evaluation decodes its inputs anew. Both
sides run as processes of their own, one after the other, and must agree on members and scores. On a machine that does
other work at the same time, the processor time says more than the wall time.

What soup saves is decoding, and the passes of candidates that are given up: where passes take most of the loop's time,
no ratio can be lower than the share of its examples that must be evaluated, which is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

ROOT = Path(__file__).parent.parent
PARTS = ("images", "text", "demos", "large")
DEMOS = ("digits", "images", "text")
NETWORK = "vit_tiny_patch16_224"
ARGS = {"num_classes": 8, "patch_size": 32}
NOISE = (0.005, 0.01, 0.02, 0.04)  # of weights, in turn: some ingredients are worse than others
WORKERS = os.cpu_count() or 1

State = dict[str, Tensor]


# --- the authors' loop -----------------------------------------------------------------------------------------------


def authors(runs: Sequence[Path], load: Callable[[State], None], evaluate: Callable[[], float]) -> dict[str, Any]:
    """Ranking, then greedy as main.py has it: `>`, and a running mean of state dicts."""
    alone = {}
    for run in runs:
        load(load_file(run / "model.safetensors"))
        alone[run] = evaluate()
    ranking = sorted(runs, key=lambda run: (-alone[run], str(run)))
    members, best = [ranking[0]], alone[ranking[0]]
    soup = load_file(ranking[0] / "model.safetensors")
    for run in ranking[1:]:
        new, count = load_file(run / "model.safetensors"), len(members)
        trial = {
            name: tensor * (count / (count + 1)) + new[name] * (1 / (count + 1))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in soup.items()
        }
        load(trial)
        score = evaluate()
        if score > best:
            members, best, soup = [*members, run], score, trial
    return {"members": [str(run) for run in members], "score": best, "alone": {str(r): alone[r] for r in runs}}


def loop_over_pictures(folder: Path) -> dict[str, Any]:
    """The loop over class folders, as torchvision and timm decode them."""
    import timm
    from timm.data import create_transform, resolve_model_data_config
    from torchvision.datasets import ImageFolder

    model = timm.create_model(NETWORK, **ARGS).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)

    def evaluate() -> float:
        data = ImageFolder(str(folder / "val"), transform)
        right = 0
        with torch.inference_mode():
            for inputs, labels in DataLoader(data, batch_size=64, num_workers=WORKERS):
                right += int((model(inputs).argmax(dim=1) == labels).sum())
        return right / len(data)

    return authors(sorted((folder / "runs").iterdir()), lambda state: _load(model, state), evaluate)


def loop_over_sentences(folder: Path) -> dict[str, Any]:
    """The loop over rows of text, tokenised for each evaluation."""
    import transformers

    runs = sorted((folder / "runs").iterdir())
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(runs[0]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(runs[0])
    set_ = yaml.safe_load((folder / "soup.yaml").read_text())["val"]["val"]
    rows = [json.loads(line) for line in (folder / set_["text"]).read_text().splitlines()]
    column, label = set_.get("input", ["text"])[0], set_.get("label", "label")
    names = set_.get("labels") or [model.config.id2label[i] for i in sorted(model.config.id2label)]

    def evaluate() -> float:
        right = 0
        with torch.inference_mode():
            for begin in range(0, len(rows), 64):
                part = rows[begin : begin + 64]
                inputs = tokenizer([row[column] for row in part], truncation=True, padding=True, return_tensors="pt")
                wanted = [names.index(row[label]) if row[label] in names else int(row[label]) for row in part]
                right += int((model(**inputs).logits.argmax(dim=1) == torch.tensor(wanted)).sum())
        return right / len(rows)

    return authors(runs, lambda state: _load(model, state), evaluate)


def _load(model: nn.Module, state: State) -> None:
    model.load_state_dict(state)


# --- what is mixed ---------------------------------------------------------------------------------------------------


def make_pictures(folder: Path, count: int, *, width: int = 500) -> None:
    """JPEGs of so many pixels, 4 : 3, cut from two photographs; eight classes: where they were cut from."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    scale, height = width / 500, width * 3 // 4
    whole = (round(1600 * scale), round(1068 * scale))
    photographs = [Image.fromarray(pixels).resize(whole) for pixels in load_sample_images().images]
    draw = random.Random(0)
    for number in range(count):
        label = number % 8
        left = int(scale * ((label // 2 % 2) * 600 + draw.randint(0, 500)))
        top = int(scale * ((label // 4) * 300 + draw.randint(0, 393)))
        file = folder / f"{label}/{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        photographs[label % 2].crop((left, top, left + width, top + height)).save(file, quality=90)


def make_vits(folder: Path, count: int) -> None:
    """One ViT whose head is fitted to other pictures of the same kind; each ingredient has its own noise."""
    import timm
    from timm.data import create_transform, resolve_model_data_config
    from torchvision.datasets import ImageFolder

    torch.manual_seed(0)
    model = timm.create_model(NETWORK, **ARGS).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    make_pictures(folder / "train", 160)
    pairs = list(ImageFolder(str(folder / "train"), transform))
    with torch.inference_mode():
        pictures = torch.stack([pixels for pixels, _ in pairs])
        features_nd = model.forward_head(model.forward_features(pictures), pre_logits=True)
    targets_nc = torch.nn.functional.one_hot(torch.tensor([label for _, label in pairs]), 8).float()
    features_nd = torch.cat([features_nd, torch.ones(len(pairs), 1)], dim=1)
    for number in range(count):
        torch.manual_seed(number)
        drawn = torch.randint(0, len(pairs), (60 + 8 * number,))
        some = features_nd[drawn]
        weight = torch.linalg.solve(some.T @ some + 0.1 * torch.eye(some.shape[1]), some.T @ targets_nc[drawn])
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for name, tensor in state.items():
            noise = NOISE[number % len(NOISE)] * tensor.std(correction=0)
            state[name] = tensor + noise * torch.randn_like(tensor)
        state["head.weight"], state["head.bias"] = weight[:-1].T.contiguous(), weight[-1].contiguous()
        run = folder / f"runs/{number:02d}"
        run.mkdir(parents=True)
        save_file(state, run / "model.safetensors")


# --- ours ------------------------------------------------------------------------------------------------------------

# In a process of its own: the command, with the seconds that pass inside of the network.
TIMED = """
import json, sys, time
from soupcli.cli.app import run
from soupcli.networks.network import Network
import torch
inside, inner = [0.0], Network._logits
def logits(self, inputs):
    if torch.cuda.is_available(): torch.cuda.synchronize()
    start = time.monotonic()
    made = inner(self, inputs)
    if torch.cuda.is_available(): torch.cuda.synchronize()
    inside[0] += time.monotonic() - start
    return made
Network._logits = logits
code = run(sys.argv[1:])
print(json.dumps({"forward": inside[0]}), file=sys.stderr)
sys.exit(code)
"""


def soup(folder: Path, cache: Path, *words: str, timed: bool = False) -> tuple[dict[str, Any], float, float]:
    """The report of `soup WORDS... --json`, the seconds of the whole process and those inside of the network."""
    environment = {**os.environ, "SOUP_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    program = ["-c", TIMED] if timed else ["-m", "soupcli"]
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, *program, *words, "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - began
    if ran.returncode:
        raise SystemExit(ran.stderr)
    forward = json.loads(ran.stderr.splitlines()[-1])["forward"] if timed else 0.0
    return json.loads(ran.stdout), wall, forward


def side_by_side(name: str, folder: Path, loop: str) -> list[tuple[str, str, str]]:
    """Rows of the table: our wall beside the loop's, and what is no forward pass once the cache is warm."""
    began, before = time.monotonic(), processor_seconds()
    theirs = subprocess.run(
        [sys.executable, __file__, "--loop", loop, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    wall_of_loop, busy_of_loop = time.monotonic() - began, processor_seconds() - before
    expected = json.loads(theirs.stdout.splitlines()[-1])
    words = ("greedy", "--ckpts", "runs/*/", "--val", "val", "--set", "greedy.accept='>'", "--force")
    with tempfile.TemporaryDirectory() as cache:
        before = processor_seconds()
        report, wall, _ = soup(folder, Path(cache), *words)
        busy = processor_seconds() - before
        check(report, expected, folder)
        again, wall_again, forward = soup(folder, Path(cache), *words, "--fresh", timed=True)
    phases = again["cost"]["seconds"]
    whole = sum(phases.values())
    greedy = share_evaluated(report)
    n = next(iter(next(iter(report["ingredients"][0]["scores"].values())).values()))["n"]
    all_examples = n * (2 * len(report["ingredients"]) - 1)
    return [
        (f"{name}: wall beside the loop", f"{wall / wall_of_loop:.2f}", "at most 0.33" if name == "images" else ""),
        (f"{name}: seconds, ours and the loop's", f"{wall:.1f} {wall_of_loop:.1f}", ""),
        (f"{name}: processor time beside the loop", f"{busy / busy_of_loop:.2f}", ""),
        (f"{name}: processor seconds, ours and the loop's", f"{busy:.1f} {busy_of_loop:.1f}", ""),
        (f"{name}: examples, ours of the loop's", f"{report['cost']['examples'] / all_examples:.2f}", ""),
        (f"{name}: not in forward passes, cache warm", f"{1 - forward / whole:.1%}", "at most 10%"),
        (f"{name}: seconds of the process and in forward passes, cache warm", f"{wall_again:.1f} {forward:.1f}", ""),
        *((f"{name}: seconds of {phase}, cache warm", f"{seconds:.1f}", "") for phase, seconds in phases.items()),
        (f"{name}: examples of full evaluations", f"{greedy:.1%}", ""),
        (f"{name}: members", f"{len(report['soup']['members'])} of {len(report['ingredients'])}", "the same"),
    ]


def processor_seconds() -> float:
    """Of all processes that this one started and that have ended, with theirs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def check(report: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    """Raises AssertionError where members or scores are others than the loop's."""
    members = [str(folder / member) for member in report["soup"]["members"]]
    assert members == expected["members"], (members, expected["members"])
    alone = {str(folder / i["path"]): i["scores"]["val"]["accuracy"]["value"] for i in report["ingredients"]}
    assert alone == expected["alone"], (alone, expected["alone"])
    assert report["soup"]["scores"]["val"]["accuracy"]["value"] == expected["score"]


def share_evaluated(report: dict[str, Any]) -> float:
    """Examples that greedy evaluated, of those of full evaluations; ranking and start left out."""
    n = next(iter(next(iter(report["ingredients"][0]["scores"].values())).values()))["n"]
    candidates = report["steps"][1:]
    return float(sum(step["examples"] for step in candidates) / (n * len(candidates)))


# --- parts -----------------------------------------------------------------------------------------------------------


def images(base: Path, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Pictures and a small ViT."""
    folder = base / "images"
    make_pictures(folder / "val", options.pictures, width=options.width)
    make_vits(folder, options.ingredients)
    model = {"timm": NETWORK, "args": ARGS}
    (folder / "soup.yaml").write_text(yaml.safe_dump({"model": model, "val": {"val": {"images": "val"}}}))
    return side_by_side("images", folder, "pictures")


def text(base: Path, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Sentences and the MiniLM of the demo."""
    demo, folder = family("text", base, options), base / "text-part"
    (folder / "data").mkdir(parents=True)
    (folder / "runs").symlink_to(demo / "runs")
    recipe = yaml.safe_load((demo / "soup.yaml").read_text())
    lines = [
        line for name in ("val", "test") for line in (demo / recipe["val"][name]["text"]).read_text().splitlines(True)
    ]
    (folder / recipe["val"]["val"]["text"]).write_text("".join(lines[: options.rows]))
    (folder / "soup.yaml").write_text(yaml.safe_dump({**recipe, "val": {"val": recipe["val"]["val"]}}))
    return side_by_side("text", folder, "sentences")


def demos(base: Path, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """What greedy evaluates on the real tasks of the demo."""
    rows = []
    for kind in options.demos:
        shares = []
        for seed in options.seeds:
            folder = family(kind, base, options, seed)
            with tempfile.TemporaryDirectory() as cache:
                words = ("greedy", "--ckpts", "runs/*/", "--val", "val", "--out", f"{cache}/soup")
                report, _, _ = soup(folder, Path(cache), *words)
            shares.append(share_evaluated(report))
            accepted = sum(step["accepted"] for step in report["steps"][1:]) / len(report["steps"][1:])
            name = f"demo {kind}, seed {seed}: examples of full evaluations, accepted candidates"
            rows.append((name, f"{shares[-1]:.1%} {accepted:.1%}", ""))
        rows.append((f"demo {kind}: examples of full evaluations", f"{sum(shares) / len(shares):.1%}", "at most 60%"))
    return rows


def family(kind: str, base: Path, options: argparse.Namespace, seed: int = 0) -> Path:
    """A family of `soup demo`, made where it is not there yet."""
    folder: Path = (options.families or base) / f"{kind}-{seed}"
    if not (folder / "runs").is_dir():
        words = [sys.executable, "-m", "soupcli", "demo", kind, str(folder), "--seed", str(seed), "--quiet"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return folder.resolve()


def large(base: Path, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Synthetic ViT-B/32 checkpoints over many cached pictures: rank and greedy beside forward passes."""
    if options.device is None and not torch.cuda.is_available():
        return [("large: no CUDA device", "", "")]
    import timm

    folder, device = base / "large", options.device or "cuda"
    network = "vit_base_patch32_224"
    make_pictures(folder / "few", 256)
    for number in range(options.large_pictures):  # as many files as are asked for, few pictures
        source = folder / f"few/{number % 256 % 8}/{number % 256:05d}.jpg"
        file = folder / f"val/{number % 8}/{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.hardlink_to(source)
    torch.manual_seed(0)
    start = timm.create_model(network, num_classes=8).state_dict()
    for number in range(options.large_ingredients):
        generator = torch.Generator().manual_seed(number)
        run = folder / f"runs/{number:02d}"
        run.mkdir(parents=True)
        noisy = {
            n: t + 0.02 * t.std(correction=0) * torch.randn(t.shape, generator=generator) for n, t in start.items()
        }
        save_file(noisy, run / "model.safetensors")
    recipe = {
        "model": {"timm": network, "args": {"num_classes": 8}},
        "val": {"val": {"images": "val"}},
        "batch_size": 256,
    }
    (folder / "soup.yaml").write_text(yaml.safe_dump(recipe))
    words = ("--val", "val", "--device", device, "--fresh")
    cache = base / "large-cache"
    soup(folder, cache, "eval", "--ckpts", "runs/00", *words)  # decodes once
    report, _, _ = soup(folder, cache, "greedy", "--ckpts", "runs/*/", *words, "--force")
    seconds = report["cost"]["seconds"]["rank"] + report["cost"]["seconds"]["greedy"]
    forward = forward_alone(network, torch.device(device), options.large_pictures) * report["cost"]["examples"]
    network_bytes = sum(tensor.nbytes for tensor in start.values())
    largest = max(tensor.nbytes for tensor in start.values())
    inputs = options.large_pictures * 3 * 224 * 224
    allowed = network_bytes + 2 * network_bytes + largest + (inputs if report["cost"]["on_device"] else 0)
    peak = report["cost"]["peak_bytes"].get("device", 0)
    return [
        ("large: rank and greedy beside forward passes alone", f"{seconds / forward:.2f}", "at most 1.20"),
        ("large: seconds, forward passes alone", f"{seconds:.1f} {forward:.1f}", ""),
        ("large: device peak beside network, float64 sum, one tensor, inputs", f"{peak / allowed:.2f}", "activations"),
    ]


def forward_alone(network: str, device: torch.device, count: int) -> float:
    """Seconds of a forward pass of one example, in batches of 256 that lie on the device already, as floats."""
    import timm

    model = timm.create_model(network, num_classes=8).eval().to(device)
    inputs = torch.randn(min(256, count), 3, 224, 224, device=device)
    with torch.inference_mode():
        times = []
        for _ in range(12):
            began = time.monotonic()
            model(inputs).cpu()
            times.append(time.monotonic() - began)
    return sorted(times)[len(times) // 2] / len(inputs)


def main() -> None:
    """Measures the parts that are asked for and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--width", type=int, default=1600, help="of the JPEGs before they are scaled, in part images")
    parser.add_argument("--ingredients", type=int, default=12)
    parser.add_argument("--rows", type=int, default=2000, help="of the demo's validation and test sets, in part text")
    parser.add_argument("--demos", nargs="+", choices=DEMOS, default=list(DEMOS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the families, in part demos")
    parser.add_argument(
        "--families", type=Path, help="a folder of digits-SEED, images-SEED, text-SEED, as soup demo makes them"
    )
    parser.add_argument("--device", help="of part large (default: cuda, where there is one)")
    parser.add_argument("--large-pictures", type=int, default=26_000)
    parser.add_argument("--large-ingredients", type=int, default=72)
    parser.add_argument("--loop", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop is not None:
        loop = {"pictures": loop_over_pictures, "sentences": loop_over_sentences}[options.loop[0]]
        print(json.dumps(loop(Path(options.loop[1]))))
        return
    parts = {"images": images, "text": text, "demos": demos, "large": large}
    with tempfile.TemporaryDirectory() as temporary:
        for part in options.parts:
            for row in parts[part](Path(temporary).resolve(), options):
                print("{:<70} {:>14}  {}".format(*row).rstrip(), flush=True)


if __name__ == "__main__":
    main()
