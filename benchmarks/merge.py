"""`soup uniform` beside reading and writing the same bytes, mergekit and the usual loop: time and memory.

    python benchmarks/merge.py                       # make bench-merge: everything, 10 minutes and 25 GB on 2 cores
    python benchmarks/merge.py --parts wall help     # some parts
    python benchmarks/merge.py --mergekit ENV        # an environment that has mergekit (default: one is made)

Ingredients are ViTs of timm with seeded noise, made on the spot. What is compared takes turns, so that a noisy machine
is as noisy to all; ratios are of medians. Files are in the page cache but where it says `from disk`: these were dropped
from it. Results are flushed to disk by all but the loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import save_file
from side_by_side import ROOT, caches, compiled, copy_bytes, hash_bytes, in_turns, mergekit_environment, taken_in_turns
from torch import Tensor

from soupcli.checkpoints.find import find
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.write_soup import write_weights

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint

NOISE = 1 << 20  # numbers of an ingredient's own, repeated throughout it
PARTS = ("merge", "wall", "memory", "help")

# The usual script: the paper's release adds state dicts up one after the other, as this does.
LOOP = """
import sys, torch
*paths, out = sys.argv[1:]
soup = None
for path in paths:
    state = torch.load(path, map_location="cpu")
    terms = {name: tensor * (1 / len(paths)) for name, tensor in state.items()}
    soup = terms if soup is None else {name: terms[name] + tensor for name, tensor in soup.items()}
torch.save(soup, out)
"""


class Family(NamedTuple):
    """Ingredients of one size, as safetensors folders or as files of torch.save."""

    label: str
    members: int
    architecture: str
    depth: int
    dtype: torch.dtype

    def make(self, base: Path, *, pickled: bool = False) -> list[Path]:
        """The files, made where they are not there yet."""
        folder = base / f"{self.architecture}-{self.depth}-{str(self.dtype).removeprefix('torch.')}"
        return [self._ingredient(folder, number, pickled) for number in range(self.members)]

    def _ingredient(self, folder: Path, number: int, pickled: bool) -> Path:
        run = folder / f"{number:02d}"
        file = run / ("model.pt" if pickled else "model.safetensors")
        if not file.exists():
            run.mkdir(parents=True, exist_ok=True)
            state = self._state(number)
            torch.save(state, file) if pickled else save_file(state, file)
        return file

    def _state(self, number: int) -> dict[str, Tensor]:
        noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(number + 1)) * 0.001
        state = {}
        for name, start in _start(self.architecture, self.depth).items():
            own = noise.repeat(-(-start.numel() // NOISE))[: start.numel()].view_as(start)
            state[name] = (start + own).to(self.dtype)
        return state


@lru_cache(maxsize=1)
def _start(architecture: str, depth: int) -> dict[str, Tensor]:
    """What all ingredients of a family start from."""
    import timm

    with torch.device("meta"):
        shapes = timm.create_model(architecture, depth=depth).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(tensor.shape, generator=generator) * 0.02 for name, tensor in shapes.items()}


VIT_B = Family("8 x 86M float32", 8, "vit_base_patch16_224", 12, torch.float32)
VIT_B_BF16 = Family("8 x 86M bfloat16", 8, "vit_base_patch16_224", 12, torch.bfloat16)
VIT_S = Family("32 x 22M float32", 32, "vit_small_patch16_224", 12, torch.float32)
FEW_VIT_S = VIT_S._replace(label="8 x 22M float32", members=8)
DEEP_VIT_S = FEW_VIT_S._replace(label="8 x 43M float32", depth=24)
DEEP_VIT_B = VIT_B._replace(label="8 x 171M float32", depth=24)


def measure_merge(base: Path, rounds: int) -> None:
    """The merge alone: mixed, written, flushed, read back and hashed; against the plain reading and writing."""
    print("merge alone: wall / processor seconds, and ratios of both")
    print(f"{'':31}plain read + write         merge   merge / plain   target of wall")
    for family, target in ((VIT_B, 2.0), (VIT_B_BF16, 2.5), (VIT_S, 2.0)):
        files = family.make(base)
        members = list(find([str(file.parent) for file in files]).checkpoints)
        for label, before in caches(files):
            plain, merge = taken_in_turns(
                rounds,
                partial(copy_bytes, files, base / "plain"),
                partial(merge_into, members, base),
                before=before,
            )
            shown = " ".join(f"{taken.wall:10.2f} / {taken.processor:4.2f}" for taken in (plain, merge))
            ratios = f"{merge.wall / plain.wall:8.2f} / {merge.processor / plain.processor:4.2f}"
            print(f"{family.label + label:31}{shown} {ratios}   {target}", flush=True)
    print()


def merge_into(members: Sequence[Checkpoint], base: Path) -> None:
    """The mean of all, written to a temporary folder."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        write_weights(Mixture.uniform(members), Path(folder), metadata={"format": "pt"}, max_shard_size=sys.maxsize)


def measure_wall(base: Path, rounds: int, mergekit: Path) -> None:
    """Whole processes, from start to end; hashes are computed anew each time. All of them import torch first."""
    print("whole process: wall / processor seconds, and ratios of both")
    print(f"{'':31}import torch  hash files         soup     mergekit", end="  ")
    print("soup on .pt  loop on .pt   soup / mergekit   soup / loop")
    for family in (VIT_B, VIT_B_BF16, VIT_S):
        files, pickles = family.make(base), family.make(base, pickled=True)
        for label, before in caches([*files, *pickles]):
            torch_alone, hashes, soup, theirs, soup_pt, loop = taken_in_turns(
                rounds,
                partial(subprocess.run, [sys.executable, "-c", "import torch"], check=True),
                partial(hash_bytes, files),
                partial(run_soup, [file.parent for file in files], base, "model.safetensors"),
                partial(run_mergekit, files, base, mergekit),
                partial(run_soup, [file.parent for file in pickles], base, "model.pt"),
                partial(run_loop, pickles, base),
                before=before,
            )
            shown = [
                f"{taken.wall:5.1f} / {taken.processor:4.1f}"
                for taken in (torch_alone, hashes, soup, theirs, soup_pt, loop)
            ]
            ratios = [
                f"{ours.wall / other.wall:8.2f} / {ours.processor / other.processor:4.2f}"
                for ours, other in ((soup, theirs), (soup_pt, loop))
            ]
            print(f"{family.label + label:30}{' '.join(shown)}   {' '.join(ratios)}", flush=True)
    print("targets: soup / mergekit at most 0.45 / 0.5, soup / loop at most 0.75 / 0.75\n")


def run_soup(folders: Sequence[Path], base: Path, weights_name: str) -> int:
    """`soup uniform` in a process of its own, without what earlier runs kept; returns its peak memory in bytes."""
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        words = [sys.executable, "-m", "soupcli", "uniform", "--ckpts", *map(str, folders), "--json"]
        words += ["--out", f"{temporary}/soup", "--weights-name", weights_name]
        environment = os.environ | {"SOUP_CACHE": f"{temporary}/cache", "PYTHONPATH": str(ROOT)}
        environment |= compiled(base / "compiled")
        ran = subprocess.run(words, cwd=temporary, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        ran.check_returncode()
        peak: int = json.loads(ran.stdout)["cost"]["peak_bytes"]["host"]
        return peak


def run_mergekit(files: Sequence[Path], base: Path, environment: Path) -> None:
    """`mergekit-pytorch` with its linear method on the same files."""
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        models = "".join(f"  - model: {file}\n    parameters: {{weight: 1.0}}\n" for file in files)
        recipe = Path(temporary) / "linear.yaml"
        recipe.write_text(f"merge_method: linear\nmodels:\n{models}")
        words: list[str | Path] = [environment / "bin/mergekit-pytorch", recipe, f"{temporary}/out", "--quiet"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_loop(files: Sequence[Path], base: Path) -> None:
    """The usual loop in a process of its own."""
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        subprocess.run([sys.executable, "-c", LOOP, *map(str, files), f"{temporary}/soup.pt"], check=True)


def measure_memory(base: Path) -> None:
    """Peak memory of whole processes above that of `import torch`."""
    code = "import torch; print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM:')))"
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    torch_alone = int(ran.stdout) * 1024
    print(f"peak memory above import torch ({torch_alone / 1e6:.0f} MB)   target: at most 200 MB, within 10%")
    above = {}
    for family in (FEW_VIT_S, VIT_S, DEEP_VIT_S, VIT_B, DEEP_VIT_B, VIT_B_BF16):
        peaks = [run_soup([file.parent for file in family.make(base)], base, "model.safetensors") for _ in range(3)]
        above[family] = statistics.median(peaks) - torch_alone
        print(f"{family.label:24} {above[family] / 1e6:6.0f} MB", flush=True)
    print(f"32 / 8 ingredients {above[VIT_S] / above[FEW_VIT_S]:.3f}", end="; ")
    print(f"twice the model {above[DEEP_VIT_S] / above[FEW_VIT_S]:.3f} and {above[DEEP_VIT_B] / above[VIT_B]:.3f}\n")


def measure_help(rounds: int) -> None:
    """`soup --help` beside an interpreter that does nothing and one that imports torch."""
    words = [sys.executable, "-c"]
    start = "import sys; sys.argv = ['soup', '--help']; from soupcli.cli.app import main; "
    nothing, ours, torchs = in_turns(
        rounds,
        lambda: subprocess.run([*words, "pass"], check=True),
        lambda: subprocess.run([*words, f"{start}main()"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL),
        lambda: subprocess.run([*words, "import torch"], check=True),
    )
    loaded = f"{start}\ntry: main()\nfinally: sys.stderr.write(str('torch' in sys.modules))"
    ran = subprocess.run([*words, loaded], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    print(f"soup --help {ours:.3f} s (target 0.25 s): {ours / torchs:.2f} of `import torch`", end=", ")
    print(f"{ours / nothing:.1f} of an interpreter that does nothing; torch imported: {ran.stderr}")


def main() -> None:
    """Runs the parts and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where ingredients are made and kept (default: a temporary folder)")
    parser.add_argument("--mergekit", type=Path, default=ROOT / ".venv-mergekit", help="environment with mergekit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = options.folder or Path(temporary)
        base.mkdir(parents=True, exist_ok=True)
        if "merge" in options.parts:
            measure_merge(base, options.rounds)
        if "wall" in options.parts:
            measure_wall(base, options.rounds, mergekit_environment(options.mergekit))
        if "memory" in options.parts:
            measure_memory(base)
        if "help" in options.parts:
            measure_help(2 * options.rounds + 1)


if __name__ == "__main__":
    main()
