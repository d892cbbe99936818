"""Sizes that people have: language models of 1.1B parameters in shards, and adapters of one, from disk.

    python benchmarks/large.py                     # make bench-large: 13 GB of disk, 15 minutes on 2 cores
    python benchmarks/large.py --small             # the same program on 4 x 5M parameters, to try it
    python benchmarks/large.py --parts shards      # without the adapters

shards:   4 x 1.1B bfloat16 in shards of 1 GB (9 GB in, 2.2 GB out): soup uniform, mergekit-yaml (linear, lazy) and
          plain reading and writing take turns; files are dropped from memory before each.
adapters: 12 LoRA adapters of rank 16 of the same network: the exact soup, beside reading and writing their bytes.

Everything is made on the spot and deleted after. mergekit runs in an environment of its own, made if it is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from side_by_side import ROOT, copy_bytes, drop_from_cache, hash_bytes, mergekit_environment, taken_in_turns

PARTS = ("shards", "adapters")
SHARD = 10**9  # bytes of a shard


class Shape(NamedTuple):
    """A network of the Llama kind."""

    layers: int
    width: int
    inner: int
    vocabulary: int
    shard: int  # bytes


WHOLE = Shape(22, 2048, 5632, 32_000, SHARD)  # 1.1B parameters
SMALL = Shape(2, 256, 704, 4_000, 4_000_000)


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The tensors of the network, as transformers names them."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, shape.width)}
    for layer in range(shape.layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"model.layers.{layer}.self_attn.{name}.weight"] = (shape.width, shape.width)
        for name, size in {"gate_proj": (0, 1), "up_proj": (0, 1), "down_proj": (1, 0)}.items():
            sides = (shape.inner, shape.width)
            found[f"model.layers.{layer}.mlp.{name}.weight"] = (sides[size[0]], sides[size[1]])
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{name}.weight"] = (shape.width,)
    return found | {"model.norm.weight": (shape.width,), "lm_head.weight": (shape.vocabulary, shape.width)}


def make_model(run: Path, shape: Shape, seed: int) -> list[Path]:
    """A model of random weights in shards with an index, as save_pretrained lays it out. Returns the shards."""
    run.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, sides in shapes(shape).items():
        tensor = torch.empty(sides, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        if parts[-1] and size + tensor.nbytes > shape.shard:
            _save(parts[-1], run / f"{len(parts)}.part")
            parts, size = [*({} for _ in parts), {}], 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    _save(parts[-1], run / f"{len(parts)}.part")
    files: list[Path] = []
    index: dict[str, str] = {}
    for number in range(1, len(parts) + 1):
        file = run / f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        (run / f"{number}.part").rename(file)
        index |= dict.fromkeys(names_of(file), file.name)
        files.append(file)
    total = sum(file.stat().st_size for file in files)
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    (run / "model.safetensors.index.json").write_text(text)
    (run / "config.json").write_text(json.dumps(configuration(shape)))
    return files


def _save(part: dict[str, torch.Tensor], file: Path) -> None:
    save_file(part, file, metadata={"format": "pt"})


def names_of(file: Path) -> list[str]:
    """The names in the header of a safetensors file."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def configuration(shape: Shape) -> dict[str, object]:
    """What transformers and mergekit ask of config.json."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def run_soup(ckpts: Sequence[Path], base: Path) -> tuple[int, Path]:
    """`soup uniform` in a process of its own; its peak memory, and a file of the soup if `base` keeps it."""
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        words = [sys.executable, "-m", "soupcli", "uniform", "--ckpts", *map(str, ckpts), "--json"]
        environment = os.environ | {"SOUP_CACHE": f"{temporary}/cache", "PYTHONPATH": str(ROOT)}
        words += ["--out", f"{temporary}/soup", "--max-shard-size", "1GB"]
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=temporary)
        if ran.returncode:
            raise SystemExit(ran.stderr)
        report = json.loads(ran.stdout)
        return report["cost"]["peak_bytes"]["host"], Path(report["soup"]["path"])


def run_mergekit(runs: Sequence[Path], base: Path, environment: Path) -> None:
    """`mergekit-yaml` with its linear method, lazily."""
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        models = "".join(f"  - model: {run}\n    parameters: {{weight: 1.0}}\n" for run in runs)
        recipe = Path(temporary) / "linear.yaml"
        recipe.write_text(f"merge_method: linear\nmodels:\n{models}dtype: bfloat16\n")
        words: list[str | Path] = [environment / "bin/mergekit-yaml", recipe, f"{temporary}/out", "--lazy-unpickle"]
        words += ["--out-shard-size", "1B", "--no-copy-tokenizer", "--quiet"]
        offline = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=offline)


def peak_of_torch() -> int:
    """Peak memory of a process that imports torch alone."""
    code = "import torch; print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM:')))"
    return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout) * 1024


def plain(rows: Sequence[Sequence[Path]], base: Path) -> None:
    """Reads every ingredient and writes as many bytes as one of them holds, a shard at a time."""
    for shards in zip(*rows, strict=True):
        copy_bytes(shards, base / "plain")


def measure_shards(base: Path, shape: Shape, options: argparse.Namespace) -> None:
    """Uniform soups of whole models."""
    rows = [make_model(base / f"models/{number}", shape, number) for number in range(4)]
    runs, files = sorted((base / "models").iterdir()), [file for row in rows for file in row]
    size = sum(file.stat().st_size for file in files) / len(runs)
    environment = None if options.without_mergekit else mergekit_environment(options.mergekit)
    peaks: list[int] = []
    works: list[Callable[[], object]] = [
        partial(plain, rows, base),
        partial(hash_bytes, files),
        lambda: peaks.append(run_soup(runs, base)[0]),
    ]
    if environment is not None:
        works.append(partial(run_mergekit, runs, base, environment))
    copied, hashes, ours, *theirs = taken_in_turns(options.rounds, *works, before=partial(drop_from_cache, files))
    print(f"shards: 4 x {size / 2e9:.2f}B bfloat16 from disk; medians of {options.rounds}; by wall, by processor time")
    print(f"  sha256 of the files {hashes.wall:.1f} s, {hashes.processor:.1f} s")
    print(f"  plain read + write {copied.wall:.1f} s, {copied.processor:.1f} s; soup {ours.wall:.1f} s, ", end="")
    print(f"{ours.processor:.1f} s: {ours.wall / copied.wall:.2f}, {ours.processor / copied.processor:.2f}", end="")
    print(" (target 1.15; the whole process, import torch included)")
    for taken in theirs:
        print(
            f"  mergekit-yaml {taken.wall:.1f} s, {taken.processor:.1f} s: soup is {ours.wall / taken.wall:.2f}", end=""
        )
        print(f", {ours.processor / taken.processor:.2f} of it (target 0.5)")
    print(f"  memory above import torch: {(max(peaks) - peak_of_torch()) / 1e6:.0f} MB (target 150 MB)", flush=True)
    for file in files:
        file.unlink()


def make_adapter(run: Path, shape: Shape, seed: int, rank: int = 16) -> Path:
    """A LoRA adapter of all attention and inner layers, as PEFT lays it out. Returns its weights."""
    run.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, sides in shapes(shape).items():
        if "_proj" in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            state[f"{module}.lora_A.weight"] = torch.randn(rank, sides[1], generator=generator) * 0.02
            state[f"{module}.lora_B.weight"] = torch.randn(sides[0], rank, generator=generator) * 0.02
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": names}
    (run / "adapter_config.json").write_text(json.dumps(config))
    save_file(state, run / "adapter_model.safetensors")
    return run / "adapter_model.safetensors"


def measure_adapters(base: Path, shape: Shape, options: argparse.Namespace) -> None:
    """The exact soup of adapters; one product of factors is compared with the mean of the members' products."""
    files = [make_adapter(base / f"adapters/{number:02d}", shape, number) for number in range(12)]
    runs = [file.parent for file in files]
    peaks: list[int] = []
    copied, ours = taken_in_turns(
        options.rounds,
        partial(plain, [[file] for file in files], base),
        lambda: peaks.append(run_soup(runs, base)[0]),
        before=partial(drop_from_cache, files),
    )
    print(f"adapters: 12 of rank 16, {files[0].stat().st_size / 1e6:.0f} MB each, exact; medians of {options.rounds}")
    print(f"  plain read + write of one {copied.wall:.1f} s, {copied.processor:.1f} s of processor time", end="")
    print(f"; soup of rank 192 {ours.wall:.1f} s, {ours.processor:.1f} s", end="")
    print(f"; memory above import torch: {(max(peaks) - peak_of_torch()) / 1e6:.0f} MB (target 150 MB)")
    print(f"  largest relative error of a product: {error_of_products(files, base):.1e}", flush=True)


def error_of_products(files: Sequence[Path], base: Path) -> float:
    """How far the first layer's change by the soup is from the mean of the members' changes."""
    out = base / "adapter-soup"
    words = [sys.executable, "-m", "soupcli", "uniform", "--ckpts", *(str(file.parent) for file in files), "--quiet"]
    environment = os.environ | {"SOUP_CACHE": str(base / "cache"), "PYTHONPATH": str(ROOT)}
    subprocess.run([*words, "--out", str(out)], env=environment, check=True, stdout=subprocess.DEVNULL, cwd=base)
    module = "base_model.model.model.layers.0.self_attn.q_proj"

    def change(file: Path) -> torch.Tensor:
        config, state = json.loads((file.parent / "adapter_config.json").read_text()), load_file(file)
        product = state[f"{module}.lora_B.weight"].double() @ state[f"{module}.lora_A.weight"].double()
        scale = float(config["lora_alpha"]) / float(config["r"])
        return product * scale

    mean = torch.stack([change(file) for file in files]).mean(dim=0)
    return float((change(out / "adapter_model.safetensors") - mean).norm() / mean.norm())


def main() -> None:
    """Makes, measures and prints the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the program")
    parser.add_argument("--folder", type=Path, help="where ingredients are made (default: a temporary folder)")
    parser.add_argument("--mergekit", type=Path, default=ROOT / ".venv-mergekit", help="environment with mergekit")
    parser.add_argument("--without-mergekit", action="store_true")
    options = parser.parse_args()
    parts = {"shards": measure_shards, "adapters": measure_adapters}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for part in options.parts:
            parts[part](Path(temporary).resolve(), SMALL if options.small else WHOLE, options)


if __name__ == "__main__":
    main()
