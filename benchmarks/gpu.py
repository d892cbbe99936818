"""What a GPU must prove, in one call: the same bytes as the CPU, speed beside pure passes, memory, learned, processes.

    python benchmarks/gpu.py                              # make gpu: all parts on CUDA, within 8 minutes
    python benchmarks/gpu.py --small --device cpu         # the same program on the CPU, to try it
    python benchmarks/gpu.py --parts bytes memory         # some parts

bytes:      uniform, greedy and learned on the CPU and on the device, in float32, bfloat16 and float16, with batch norm
            estimated again, and of LoRA adapters.
tests:      the tests of the suite that are marked `cuda`.
evaluation: rank and greedy of ViTs on generated pictures, beside the same number of pure forward passes; with
            --amp bf16, --channels-last and --compile.
memory:     peak device memory of rank with a third of the ingredients, and with all.
learned:    a step beside forward and backward, with the ingredients on the device, on the host and on disk.
processes:  torchrun with one process (nccl) and with two (gloo), against one plain process.

Nothing is fetched. Everything is made in a temporary folder. A part that fails is a row of the table, not its end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import yaml
from safetensors.torch import load_file, save_file
from side_by_side import ROOT
from torch import Tensor, nn

from soupcli.checkpoints.find import find
from soupcli.networks.learned.layers import layers
from soupcli.networks.learned.mixed_network import MixedNetwork
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RUNS = ("--ckpts", "runs/*/", "--val", "val")
NET = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)
    )
"""


class Size(NamedTuple):
    """How much is made and measured."""

    network: str  # of timm
    pictures: int
    ingredients: int
    batch: int
    rounds: int


WHOLE = Size("vit_base_patch16_224", 20_000, 24, 256, 10)
SMALL = Size("vit_tiny_patch16_224", 24, 4, 8, 2)


class Row(NamedTuple):
    """A line of the table."""

    what: str
    value: str
    target: str = ""


class Bench(NamedTuple):
    """What every part gets."""

    folder: Path
    device: str
    size: Size


def soup(folder: Path, *words: str, program: tuple[str, ...] = ("-m", "soupcli"), fresh: bool = True) -> dict[str, Any]:
    """The report of `soup WORDS... --json`. Raises RuntimeError with the last line of stderr."""
    environment = os.environ | {"SOUP_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *program, *words, "--json", *(["--fresh"] if fresh else [])]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(next((line for line in ran.stderr.strip().splitlines() if line), "no error was printed"))
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


# --- the same bytes --------------------------------------------------------------------------------------------------


def small_family(folder: Path, dtype: torch.dtype, *, runs: int = 5) -> Path:
    """Runs of one convolutional network with batch norm, a recipe and a labelled set."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 64, generator=generator)
    labels = (inputs @ torch.randn(64, 10, generator=generator)).argmax(dim=1)
    folder.mkdir(parents=True)
    save_file({"inputs": inputs, "labels": labels}, folder / "val.safetensors")
    (folder / "net.py").write_text(NET)
    (folder / "soup.yaml").write_text('model: {python: "net.py:build"}\nval: {val: {arrays: val.safetensors}}\n')
    names: dict[str, Any] = {}
    exec(NET, names)
    torch.manual_seed(0)
    start = fitted(names["build"](), inputs, labels)
    for number in range(runs):
        state = {
            name: (tensor + 0.02 * torch.randn(tensor.shape, generator=generator)).to(dtype).abs()
            if name.endswith("var")
            else (tensor + 0.02 * torch.randn(tensor.shape, generator=generator)).to(dtype)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in start.items()
        }
        (folder / f"runs/{number}").mkdir(parents=True)
        save_file(state, folder / f"runs/{number}/model.safetensors")
    return folder


def fitted(net: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The state of the network after a few steps."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    return net.eval().state_dict()


def adapters(folder: Path, *, count: int = 4, rank: int = 4, width: int = 64) -> None:
    """LoRA adapters of one linear layer, as PEFT lays them out."""
    generator = torch.Generator().manual_seed(0)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["proj"]}
    for number in range(count):
        run = folder / f"adapters/{number}"
        run.mkdir(parents=True)
        (run / "adapter_config.json").write_text(json.dumps(config))
        factors = {"lora_A": (rank, width), "lora_B": (width, rank)}
        state = {
            f"base_model.model.proj.{name}.weight": torch.randn(shape, generator=generator) * 0.1
            for name, shape in factors.items()
        }
        save_file(state, run / "adapter_model.safetensors")


def same_bytes(bench: Bench) -> Iterator[Row]:
    """The same soup from the CPU and from the device."""
    for name, dtype in DTYPES.items():
        folder = small_family(bench.folder / f"bytes-{name}", dtype)
        for command in ("uniform", "greedy"):
            yield compared(f"{command}, {name}", folder, bench.device, command, *RUNS)
        yield coefficients(f"learned, {name}", folder, bench.device)
    folder = bench.folder / "bytes-float32"
    again = ("--set", "batch_norm=recalibrate")
    yield compared("greedy, batch norm again", folder, bench.device, "greedy", *RUNS, *again)
    adapters(folder)
    yield compared(
        "uniform, adapters", folder, bench.device, "uniform", "--ckpts", "adapters/*/", model="adapter_model"
    )


def compared(what: str, folder: Path, device: str, *words: str, model: str = "model") -> Row:
    """Whether both soups are one file, else how far they are apart."""
    files = []
    for place in ("cpu", device):
        out = folder / f"soup-{len(list(folder.glob('soup-*')))}"
        soup(folder, *words, "--device", place, "--out", str(out))
        files.append(out / f"{model}.safetensors")
    if files[0].read_bytes() == files[1].read_bytes():
        return Row(f"bytes: {what}", "equal", "equal")
    first, second = map(load_file, files)
    apart = max(float((first[name].double() - second[name].double()).abs().max()) for name in first)
    return Row(f"bytes: {what}", f"differ by {apart:.1e}", "equal")


def coefficients(what: str, folder: Path, device: str) -> Row:
    """How far the coefficients of a learned soup are apart."""
    words = ("learned", *RUNS, "--set", "learned.steps=30", "--force", "--out", "learned", "--device")
    alphas = [torch.tensor(soup(folder, *words, place)["soup"]["coefficients"]["alpha"]) for place in ("cpu", device)]
    return Row(f"bytes: {what}", f"coefficients {float((alphas[0] - alphas[1]).abs().max()):.1e} apart", "at most 1e-6")


def cuda_tests(_: Bench) -> Iterator[Row]:
    """The closing line of the suite's CUDA tests."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    yield Row("tests: pytest -m cuda", ran.stdout.strip().splitlines()[-1].strip("= "), "no failure, none skipped")


# --- evaluation ------------------------------------------------------------------------------------------------------


def vit_family(bench: Bench) -> Path:
    """ViTs with noise around one start, and a set of generated pictures; made once."""
    import timm
    from PIL import Image

    folder, size = bench.folder / "vits", bench.size
    if folder.exists():
        return folder
    for number in range(size.pictures):
        file = folder / f"val/{number % 8}/{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(number)
        coarse = torch.randint(0, 256, (7, 7, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(coarse.numpy()).resize((224, 224), Image.Resampling.BICUBIC).save(file, quality=80)
    torch.manual_seed(0)
    start = timm.create_model(size.network, num_classes=8).state_dict()
    for number in range(size.ingredients):
        generator = torch.Generator().manual_seed(number)
        state = {
            name: tensor + 0.02 * tensor.std(correction=0) * torch.randn(tensor.shape, generator=generator)
            for name, tensor in start.items()
        }
        run = folder / f"runs/{number:02d}"
        run.mkdir(parents=True)
        save_file(state, run / "model.safetensors")
    recipe = {"model": {"timm": size.network, "args": {"num_classes": 8}}, "val": {"val": {"images": "val"}}}
    (folder / "soup.yaml").write_text(yaml.safe_dump(recipe | {"batch_size": size.batch}))
    soup(folder, "eval", "--ckpts", "runs/00", "--val", "val", "--device", bench.device)  # decodes the pictures
    return folder


def evaluation(bench: Bench) -> Iterator[Row]:
    """Rank and greedy over the time of as many pure forward passes; then ways to make passes faster, on few runs."""
    folder, on = vit_family(bench), ("--device", bench.device)
    fast = ("--amp", "bf16") if bench.device != "cpu" else ()
    report = soup(folder, "greedy", *RUNS, *on, *fast, "--force", "--out", "soup")
    yield over_passes("rank and greedy" + (", amp" if fast else ""), report, bench, amp=bool(fast))
    few = ("rank", "--ckpts", *(f"runs/{number:02d}" for number in range(3)), "--val", "val", *on)
    for options in ((), fast, (*fast, "--channels-last"), (*fast, "--compile")):
        report = soup(folder, *few, *options)
        yield over_passes(f"rank of 3 {' '.join(options)}".strip(), report, bench, amp=bool(fast and options))


def over_passes(what: str, report: dict[str, Any], bench: Bench, *, amp: bool) -> Row:
    """Seconds of the evaluations, over those of as many examples through the bare network, in the same precision."""
    seconds = sum(report["cost"]["seconds"].get(phase, 0.0) for phase in ("rank", "greedy"))
    pure = seconds_of_pass(bench, amp) * report["cost"]["examples"]
    return Row(f"evaluation: {what}", f"{seconds:.1f} s, {seconds / pure:.2f} of pure passes", "at most 1.2")


def seconds_of_pass(bench: Bench, amp: bool) -> float:
    """Seconds of one example in a pass of the bare network, inputs on the device."""
    import timm

    model = timm.create_model(bench.size.network, num_classes=8).eval().to(bench.device)
    inputs = torch.randn(bench.size.batch, 3, 224, 224, device=bench.device)

    def once() -> None:
        model(inputs).cpu()

    with torch.inference_mode(), torch.autocast(torch.device(bench.device).type, torch.bfloat16, enabled=amp):
        return median_seconds(once, bench) / bench.size.batch


def memory(bench: Bench) -> Iterator[Row]:
    """Peak device memory does not grow with the number of ingredients."""
    folder, key = vit_family(bench), "host" if bench.device == "cpu" else "device"
    peaks, on_device = [], False
    for count in (bench.size.ingredients // 3, bench.size.ingredients):
        paths = [f"runs/{number:02d}" for number in range(count)]
        report = soup(folder, "greedy", "--ckpts", *paths, "--val", "val", "--device", bench.device, "--force")
        peaks.append(report["cost"]["peak_bytes"][key])
        on_device = bool(report["cost"]["on_device"])
        yield Row(f"memory: greedy of {count}", f"{peaks[-1] / 1e6:.0f} MB on {key}")
    network = sum(tensor.nbytes for tensor in load_file(folder / "runs/00/model.safetensors").values())
    decoded = bench.size.pictures * 3 * 224 * 224 if on_device else 0
    yield Row("memory: all over a third of the ingredients", f"{peaks[1] / peaks[0]:.3f}", "at most 1.05")
    yield Row("memory: peak less network and set", f"{(peaks[1] - network - decoded) / 1e6:.0f} MB", "a pass and a sum")


# --- learned, processes ----------------------------------------------------------------------------------------------


def learned(bench: Bench) -> Iterator[Row]:
    """A step over forward and backward, wherever the ingredients are kept."""
    import timm

    folder, device = vit_family(bench), torch.device(bench.device)
    ingredients = list(find([str(folder / "runs/*/")]).checkpoints)[:8]
    module = timm.create_model(bench.size.network, num_classes=8).eval().to(device)
    inputs = torch.randn(min(64, bench.size.batch), 3, 224, 224, device=device)
    labels = torch.arange(len(inputs), device=device) % 8

    def pass_and_gradient() -> None:
        nn.functional.cross_entropy(module(inputs), labels).backward()

    plain = median_seconds(pass_and_gradient, bench)
    module.zero_grad(set_to_none=True)
    places: tuple[Literal["device", "host", "disk"], ...] = ("device", "host", "disk")
    for place in places:
        seconds = seconds_of_step(module, ingredients, place, pass_and_gradient, bench)
        shown = f"{seconds:.3f} s, {seconds / plain:.2f} of forward and backward"
        yield Row(f"learned: a step of {len(ingredients)}, on {place}", shown, "at most 1.15 and 2 reads")


def seconds_of_step(
    module: nn.Module,
    ingredients: list[Checkpoint],
    place: Literal["device", "host", "disk"],
    pass_and_gradient: Callable[[], None],
    bench: Bench,
) -> float:
    """Seconds of forward, backward and the step of the coefficients."""
    found = layers(module, per="layer", head="head")
    alpha_lk = torch.full((len(found), len(ingredients)), 1.0 / len(ingredients), dtype=torch.float64)
    live = LiveNetwork(Network(module), torch.device(bench.device))
    with MixedNetwork(live, ingredients, found, resident=place) as network:
        network.mix(alpha_lk)

        def whole() -> None:
            pass_and_gradient()
            network.step(lambda rows, _gradient_lk: alpha_lk[rows])

        return median_seconds(whole, bench)


def processes(bench: Bench) -> Iterator[Row]:
    """torchrun takes the decisions of one plain process."""
    folder = small_family(bench.folder / "processes", torch.float32)
    words = ("greedy", *RUNS, "--force", "--device", bench.device)
    plain = soup(folder, *words)
    for count, backend in ((1, "nccl"), (2, "gloo")):
        alone = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
        torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", str(count), *alone, "-m", "soupcli")
        report = soup(folder, *words, program=torchrun)
        same = (plain["soup"]["members"], plain["steps"][0]["score"]) == (
            report["soup"]["members"],
            report["steps"][0]["score"],
        )
        yield Row(
            f"processes: {count} under torchrun ({backend})", "same soup" if same else "another soup", "same soup"
        )


def median_seconds(work: Callable[[], None], bench: Bench) -> float:
    """The median of some rounds; the first one warms up, and the device has ended its work when a round ends."""
    taken = []
    for _ in range(bench.size.rounds + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "bytes": same_bytes,
    "tests": cuda_tests,
    "evaluation": evaluation,
    "memory": memory,
    "learned": learned,
    "processes": processes,
}


def rows(part: str, bench: Bench) -> Iterator[Row]:
    """The rows of a part; one that fails ends with a row that says how."""
    began = time.monotonic()
    try:
        yield from PARTS[part](bench)
    except Exception as failed:  # noqa: BLE001 - the other parts are still worth their time
        yield Row(f"{part}: FAILED", f"{type(failed).__name__}: {failed}"[:160])
    yield Row(f"{part}: took", f"{time.monotonic() - began:.0f} s")


def main() -> None:
    """Runs the parts and prints one table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny network and few pictures, to try the program")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --small --device cpu tries the program on the CPU")
    name = "CPU" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    print(f"| {name}, torch {torch.__version__} | | target |\n| --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary).resolve(), options.device, SMALL if options.small else WHOLE)
        for row in (found for part in options.parts for found in rows(part, bench)):
            print(f"| {row.what} | {row.value} | {row.target} |", flush=True)


if __name__ == "__main__":
    main()
