"""A seeded fuzzer of every reader: what is broken or hostile is told in one line, in time, in little memory.

python -m tests.torture fuzz --seed 0 --inputs 20000
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from safetensors.torch import save, save_file

from soupcli.cli.app import run
from soupcli.cli.parsing import guarded
from soupcli.datasets import arrays, tar_shards
from soupcli.datasets.image_folders import PictureFile
from soupcli.datasets.picture_decoder import Decoder
from soupcli.networks.network import ImageTransform
from soupcli.recipe.sets import ArraysSet
from tests.conftest import write_family
from tests.torture import stores
from tests.torture.mutations import mutated_bytes, mutated_json
from tests.torture.targets import Target, command

INDEX = "model.safetensors.index.json"

PROCESSES = 199  # of so many inputs one is read by a process of its own too
MEMORY = 100_000_000  # bytes above the start
CANARY = Path("canary")
HOSTILE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


SEVERAL = re.compile(r"\d+ of \d+ checkpoints cannot be opened:")
Result = tuple[Counter[str], list[str]]  # what was tried how often, and a line for each broken promise


class Outcome(NamedTuple):
    """What a reader made of one input."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    memory: int


def faults(outcome: Outcome, *, silent: bool, seconds: float = 1.0, codes: Sequence[int] = (0, 2)) -> Iterator[str]:
    """What is wrong with an outcome; nothing where the promise holds."""
    lines = [line for line in outcome.stderr.split("\n") if not line.startswith("warning: ")]
    if SEVERAL.fullmatch(lines[0]):  # each of them is named in a line of its own
        lines = [lines[0], *(line for line in lines[1:] if not line.startswith("  "))]
    if outcome.code not in ((0,) if silent else codes):
        yield f"exit code {outcome.code}"
    if outcome.code == 2 and outcome.stdout:
        yield "stdout is not empty"
    if "Traceback" in outcome.stderr or "internal error" in outcome.stderr:
        yield "a traceback or an internal error"
    usage = lines[0].startswith("Usage: ")  # an option that Typer refuses
    recipe = usage or all(".yaml" in line or line.startswith("hint: ") or not line for line in lines)
    if outcome.code == 2 and not (lines[0] and (recipe or (lines[1] == "" and (len(lines) == 2 or len(lines) == 4)))):
        yield "not one line and a hint"
    yield from _injected(outcome)
    if max(map(len, lines)) > 4_000:
        yield f"a line of {max(map(len, lines))} letters"
    if outcome.seconds > seconds:
        yield f"{outcome.seconds:.1f} seconds"
    if outcome.memory > MEMORY:
        yield f"{outcome.memory / 1e6:.0f} MB"
    if CANARY.exists():
        CANARY.unlink()
        yield "CODE WAS RUN"


def _injected(outcome: Outcome) -> Iterator[str]:
    """Yields what a name in a file sent to the terminal or to the log of a workflow."""
    said = outcome.stderr + outcome.stdout
    if HOSTILE.search(said):
        yield "a control character"
    if any(line.startswith("::") for line in said.split("\n")):
        yield "a command to a workflow"


def observed(read: Callable[[], int]) -> Outcome:
    """Runs a reader in this process and measures it."""
    out, err = io.StringIO(), io.StringIO()
    before = _reset_peak()
    began = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = read()
    seconds = time.process_time() - began
    return Outcome(code, out.getvalue(), err.getvalue(), seconds, max(0, _peak() - before))


def started(words: Sequence[str]) -> Outcome:
    """The same as a process: what an interpreter says at its end is seen too."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-m", "soupcli", *words], capture_output=True, env=environment, check=False)
    return Outcome(ran.returncode, ran.stdout.decode(), ran.stderr.decode(), 0.0, 0)


def _reset_peak() -> int:
    """Bytes that the process holds now; the peak is counted from here, where the system lets it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource  # noqa: PLC0415 - Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def campaign(
    folder: Path, *, inputs: int, seed: int, make: Callable[[], list[Target]] | None = None
) -> tuple[Counter[str], list[str]]:
    """How many inputs each reader was given and what became of them, and a line for each broken promise.

    `make` writes whole files into the working folder and returns what reads them: `all_targets`, if it is None.
    """
    counts: Counter[str] = Counter()
    broken: list[str] = []
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        targets = (make or all_targets)()
        for number in range(inputs):
            target, rng = targets[number % len(targets)], random.Random(f"{seed}/{number}")
            target.write(rng)
            outcome = observed(target.read)
            if target.words and number % PROCESSES == 0:
                outcome, same = started(target.words), outcome.code
                counts["as processes"] += 1
                if outcome.code != same:
                    broken.append(f"input {number} ({target.name}): {same} here, {outcome.code} as a process")
            counts[f"{target.name}: {'passed over' if target.silent else f'exit {outcome.code}'}"] += 1
            for fault in faults(outcome, silent=target.silent, seconds=target.seconds, codes=target.codes):
                broken.append(f"input {number} ({target.name}): {fault}: {outcome.stderr[-300:]!r}")
                with contextlib.suppress(OSError):
                    Path(f"broken-{number}").write_text(f"{target.name}: {fault}\n{outcome.stderr}")
    finally:
        os.chdir(before)
    return counts, broken


def all_targets() -> list[Target]:
    """Every reader, over files that are whole to begin with, in the working folder."""
    write_family(Path(), members=3)
    os.environ["SOUP_CACHE"] = str(Path("cache").absolute())
    good = "runs/0/model.safetensors"
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(["uniform", "--ckpts", "runs/0", "runs/1", "--out", "good", "--quiet"]) == 0
    dry = ["--dry-run", "--quiet"]
    state = torch.load(io.BytesIO(torch_bytes({"w": torch.arange(6.0)})), weights_only=True)
    assert set(state) == {"w"}
    os.makedirs("index", exist_ok=True)  # noqa: PTH103
    for shard in ("a", "b"):
        save_file({shard: torch.ones(2)}, f"index/{shard}.safetensors")
    index = {"metadata": {"total_size": 16}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    report = json.loads(Path("good/soup.json").read_bytes())
    recipe = Path("soup.yaml").read_bytes() + RECIPE
    return [
        command("header", _header, "uniform", "--ckpts", "x.safetensors", good, *dry),
        command("tensors", _header, "uniform", "--ckpts", "x.safetensors", "--out", "o", "--force", "--quiet"),
        command("index", lambda r: _json(r, index, f"index/{INDEX}"), "uniform", "--ckpts", "index", *dry),
        command("torch", _torch, "uniform", "--ckpts", "x.pt", *dry),
        command("recipe", lambda r: _recipe(r, recipe), *RANK, "--recipe", "x.yaml", *dry),
        command("report", lambda r: _json(r, report, "x.json"), "mix", "x.json", *dry),
        Target("arrays", _arrays, lambda: _read(lambda: arrays.load(ArraysSet(arrays=Path("x.safetensors"))))),
        Target("shards", _tar, lambda: _read(lambda: tar_shards.read_index([Path("x.tar")]))),
        Target("pictures", _picture, lambda: _read(_decode)),
        *stores.targets(),
    ]


RANK = ("rank", "--ckpts", "runs/0", "--val", "val")
RECIPE = b"greedy: {accept: '>=', min_delta: 0.0}\nlearned: {steps: 10, per: layer}\nworkers: 1\nbatch_size: 8\n"
HOSTILE_YAML = [
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nval: *c\n",
    b"model: !!python/object/apply:os.system ['touch canary']\n",
    b"? [a, b]\n: x\n",
    b"<<: {model: x}\n",
    b"%TAG ! tag:yaml.org,2002:python/\n---\nx: !object/new:os.system [touch canary]\n",
    b"x: " + b"{a: " * 500 + b"1" + b"}" * 500,
    b"--- a\n--- b\n",
    b"batch_size: 1" + b"0" * 5000 + b"\n",
    b"'" + b"\\" * 1000,
]


def _read(reader: Callable[[], object]) -> int:
    def read() -> int:
        reader()
        return 0

    return guarded(read)


def _json(rng: random.Random, document: Any, path: str) -> None:
    whole = json.dumps(document).encode()
    Path(path).write_bytes(mutated_json(document, rng) if rng.random() < 0.7 else mutated_bytes(whole, rng))


def _recipe(rng: random.Random, whole: bytes) -> None:
    hostile = rng.random() < 0.2
    data = rng.choice(HOSTILE_YAML) + (whole if rng.random() < 0.5 else b"") if hostile else mutated_bytes(whole, rng)
    Path("x.yaml").write_bytes(data)


def _header(rng: random.Random) -> None:
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64), "c": torch.ones(1, dtype=torch.bfloat16)}
    whole = save(tensors)
    Path("x.safetensors").write_bytes(_mutated_safetensors(whole, rng))


def _mutated_safetensors(whole: bytes, rng: random.Random) -> bytes:
    """Raw bytes changed, or a header whose length goes with what it says."""
    if rng.random() < 0.4:
        return mutated_bytes(whole, rng)
    (length,) = struct.unpack("<Q", whole[:8])
    header = mutated_json(json.loads(whole[8 : 8 + length]), rng)
    said = len(header) if rng.random() < 0.9 else rng.choice([0, 1, 2**63 - 1, 2**64 - 1, length, 100_000_001])
    return struct.pack("<Q", said) + header + whole[8 + length :]


def _arrays(rng: random.Random) -> None:
    whole = save({"inputs": torch.ones(4, 3), "labels": torch.arange(4)})
    Path("x.safetensors").write_bytes(_mutated_safetensors(whole, rng))


class Bomb:
    """What a stranger's pickle does when it is opened as pickle opens things."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def torch_bytes(content: Any) -> bytes:
    """What `torch.save` writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _torch(rng: random.Random) -> None:
    content: Any = {"state_dict": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}, "epoch": 2}
    kind = rng.random()
    if kind < 0.15:
        content["optimizer"] = Bomb()
        data = torch_bytes(content)
    elif kind < 0.3:
        data = _rezipped(torch_bytes(content), rng)
    elif kind < 0.4:
        data = rng.choice([pickle.dumps(Bomb()), b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + pickle.dumps(Bomb())])
    else:
        data = mutated_bytes(torch_bytes(content), rng)
    Path("x.pt").write_bytes(data)


def _rezipped(whole: bytes, rng: random.Random) -> bytes:
    """The archive with a record that is changed, compressed (a bomb), doubled, or named to lead out."""
    out = io.BytesIO()
    kind = rng.randrange(5)
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("data.pkl"):
                if kind == 0:
                    data = mutated_bytes(data, rng)
                elif kind == 1:
                    data = bytes(300_000_000) if rng.random() < 0.02 else bytes(3_000_000)
                elif kind == 2:
                    data = pickle.dumps(Bomb())
            name = f"../../{info.filename}" if kind == 3 else info.filename
            new.writestr(name, data, zipfile.ZIP_DEFLATED if kind == 1 else zipfile.ZIP_STORED)
            if kind == 4 and not info.filename.endswith("byteorder"):
                with contextlib.suppress(UserWarning):
                    new.writestr(info.filename, data)
    return out.getvalue()


def _tar(rng: random.Random) -> None:
    file = io.BytesIO()
    kind = rng.randrange(10)
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in {"a.png": b"x" * 30, "a.cls": b"1", "b.png": b"y" * 9, "b.json": b'{"label": 2}'}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name == "b.png" and kind < 3:
                info.name = rng.choice(["../../b.png", "/b.png", "x/../../b.png"])
            if name == "a.png" and kind in (3, 4):
                info.type, info.linkname, info.size = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]), "/etc/passwd", 0
            if name == "b.json" and kind == 5:
                info.pax_headers = {"size": rng.choice(["-1", "1" * 5000, "9" * 18, "x"])}
            archive.addfile(info, io.BytesIO(data))
    Path("x.tar").write_bytes(mutated_bytes(file.getvalue(), rng) if kind > 5 else file.getvalue())


def _picture(rng: random.Random) -> None:
    file = io.BytesIO()
    kind = rng.randrange(12)
    picture = Image.new("RGB", (40, 30), (200, 10, 10))
    picture.save(file, rng.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]))
    data = mutated_bytes(file.getvalue(), rng)
    if kind == 0:
        data = picture_bomb(rng.choice([8_000, 20_000, 2**31 - 1]))
    Path("x.png").write_bytes(data)


def picture_bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _decode() -> object:
    decoder = Decoder(ImageTransform(lambda picture: torch.zeros(3, 4, 4), lambda pixels: pixels, ""), 0)
    return decoder.decode(PictureFile(Path("x.png")))
