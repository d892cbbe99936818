"""Files of up to 100 MB that are made to cost memory and time: each is answered in little of both.

python -m tests.torture hostile --megabytes 100

Each input is opened in a fork that has imported everything; its processor time and memory are its own.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from soupcli.cli.app import run
from tests.torture.fuzz import Result

MOST_SECONDS, MOST_MEGABYTES = 4.0, 130.0  # of a busy machine; a quiet one takes half the time
BIG = 100_000_000
YAML_LAUGHS = b"a0: &a0 [x,x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (at, at, b",".join([b"*a%d" % (at - 1)] * 9)) for at in range(1, 12)
)
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "rank_pattern": {"(a+)+b": 2}}
PEFT = f"base_model.model.{'a' * 60}.lora_{{}}.weight"
LAUGHS = b"".join(b"](" + b"h" + bytes([at]) + b"h" + bytes([at]) * 9 + b"eq" + bytes([at + 1]) for at in range(200))


def repeated(piece: bytes, end: bytes, begin: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: b"\x80\x02" + begin + piece * (size // len(piece)) + end + b"."


PICKLES: dict[str, Callable[[int], bytes]] = {
    "nothings": repeated(b"N", b""),
    "numbers": repeated(b"K\x01", b"l", b"("),
    "floats": repeated(b"G" + struct.pack(">d", 1.5), b"l", b"("),
    "lists": repeated(b"]", b"l", b"("),
    "dictionaries": repeated(b"}", b"l", b"("),
    "marks": repeated(b"(", b""),
    "texts": repeated(b"X\x02\x00\x00\x00ab", b"l", b"("),
    "a long text": lambda size: b"\x80\x02X" + struct.pack("<I", size) + b"a" * size + b".",
    "a long number": lambda size: b"\x80\x02\x8b" + struct.pack("<i", size) + b"\x7f" * size + b".",
    "classes": repeated(b"ctorch\nTensor\n", b"l", b"("),
    "calls": repeated(b"ca\nb\n)R", b"l", b"("),
    "tuples in tuples": repeated(b"\x85", b"", b"N"),
    "tuples of three": repeated(b"22\x87", b"", b"N"),
    "entries": repeated(b"K\x01N", b"u", b"}("),
    "recalls": repeated(b"h\x00", b"l", b"]q\x00("),
    "a far memo": lambda size: b"\x80\x02]" + b"".join(b"r" + struct.pack("<I", at) for at in range(size // 5)) + b".",
    "lists in lists": lambda size: b"\x80\x02" + b"]" * (size // 2) + b"a" * (size // 2 - 1) + b".",
    "lists of themselves": lambda size: b"\x80\x02]q\x00" + LAUGHS[: min(size, 200 * 14)] + b".",
}


def archive(path: Path, pickled: bytes, *, compressed: bool = False) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as out:
        out.writestr("archive/data.pkl", pickled)
        out.writestr("archive/version", "3\n")


def empty_records(path: Path, count: int) -> None:
    """An archive of `count` records without bytes, whose pickle may cost what that of as many tensors costs."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", b"\x80\x02(" + b"ca\nb\n)R" * count * 8 + b"l.")
        for number in range(count):
            out.writestr(f"archive/data/{number}", b"")


def folder_of(name: str, files: Iterable[tuple[str, bytes]]) -> None:
    """A folder with a small network, and further files."""
    shutil.rmtree(name, ignore_errors=True)
    Path(name).mkdir()
    save_file({"w": torch.ones(4)}, f"{name}/model.safetensors")
    for place, content in files:
        file = Path(name, place)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)


def header(path: Path, text: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(text)) + text)


HEADERS: dict[str, Callable[[int], bytes]] = {
    "values": lambda size: b'{"a":[' + b"{}," * (size // 3) + b"{}]}",
    "levels": lambda size: b'{"a":' + b"[" * size,
    "metadata": lambda size: b'{"__metadata__":{' + b",".join(b'"%d":""' % at for at in range(size // 11)) + b"}}",
    "one module": lambda size: (
        b"{"
        + b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % at for at in range(size // 10_000))
        + b"}"
    ),
    "long names": lambda size: (
        b"{"
        + b",".join(
            b'"%s%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % (b"a." * 20_000, at)
            for at in range(size // 500_000)
        )
        + b"}"
    ),
    "tensors": lambda size: (
        b"{"
        + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % at for at in range(size // 60))
        + b"}"
    ),
}
REPORTS: dict[str, Callable[[int], bytes]] = {
    "values": lambda size: b'{"schema":"soup-report/1","soup":{},"a":[' + b"{}," * (size // 3) + b"{}]}",
    "levels": lambda size: b"[" * size,
    "a text": lambda size: b'{"schema":"soup-report/1","soup":{"x":"' + b"a" * size + b'"}}',
}
ENTRY = b'"%b.%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
HOLES = ("config.json", "tokenizer.json", "vocab.txt", "classes.txt", "spiece.model", "trainer_state.json", "README.md")


FOLDERS: dict[str, Callable[[int], Iterable[tuple[str, bytes]]]] = {
    "files of weights": lambda size: ((f"{at}.pt", b"") for at in range(size // 10_000)),
    "settings": lambda size: ((f"{at}.json", b"{}") for at in range(size // 10_000)),
    "texts": lambda size: ((f"{at}.txt", b"") for at in range(size // 5_000)),
    "sub-folders": lambda size: ((f"{at}/x.json", b"{}") for at in range(size // 20_000)),
    "networks below": lambda size: (
        (f"{at}/model.safetensors", Path("ok.safetensors").read_bytes()) for at in range(size // 50_000)
    ),
    "keys": lambda size: [("config.json", json.dumps({f"{at}": at for at in range(size // 1_000)}).encode())],
    "laughs": lambda size: [("config.yaml", YAML_LAUGHS[:size])],
    "steps": lambda size: [
        ("trainer_state.json", b'{"global_step":1,"log_history":[' + b'{"step":1},' * (size // 33) + b"{}]}")
    ],
    "unlike": lambda size: [("config.json", json.dumps({f"{at}": at for at in range(size // 3_300)}).encode())],
}


def inputs(size: int) -> Iterator[tuple[str, list[str]]]:
    """Makes one input after the other in the working folder; yields its name and the command that reads it."""
    save_file({"w": torch.ones(4)}, "ok.safetensors")
    for name, pickled in PICKLES.items():
        archive(Path("pickle.pt"), pickled(size))
        yield f"pickle: {name}", ["inspect", "--ckpts", "pickle.pt"]
    archive(Path("bomb.pt"), b"N" * size * 4, compressed=True)
    yield "zip: compressed", ["inspect", "--ckpts", "bomb.pt"]
    for count in (size // 10_000, size // 600):
        empty_records(Path("records.pt"), count)
        yield f"zip: {count} records", ["inspect", "--ckpts", "records.pt"]
    for name, text in HEADERS.items():
        header(Path("header.safetensors"), text(size - 1000))
        yield f"header: {name}", ["inspect", "--ckpts", "header.safetensors"]
    for name, files in FOLDERS.items():
        folder_of("beside", files(size))
        yield f"folder: {name}", ["inspect", "--ckpts", "beside"]
    folder_of("index", [])
    Path("index/model.safetensors").rename("index/part.safetensors")  # which is opened by its index alone
    entries = ",".join(f'"{at or "w"}":"part.safetensors"' for at in range(size // 410))
    Path("index/model.safetensors.index.json").write_text(f'{{"weight_map":{{{entries}}}}}')
    yield "folder: index", ["inspect", "--ckpts", "index"]
    for name in HOLES:
        for side in ("one", "two"):
            folder_of(side, [])
            Path(side, name).touch()
            os.truncate(Path(side, name), size * 10_000)  # holes, of which nothing lies on the disk
        yield f"holes: {name}", ["inspect", "--ckpts", "one", "two"]
    for side in ("one", "two"):
        names = (ENTRY % (side.encode(), at) for at in range(size // 20_000))
        header(Path(f"{side}.safetensors"), b"{" + b",".join(names) + b"}")
    yield "header: other names", ["inspect", "--ckpts", "one.safetensors", "two.safetensors"]
    folder_of("adapter", [("adapter_config.json", json.dumps(ADAPTER).encode())])
    save_file(
        {PEFT.format("A"): torch.ones(2, 2), PEFT.format("B"): torch.ones(2, 2)}, "adapter/adapter_model.safetensors"
    )
    yield "adapter: patterns", ["inspect", "--ckpts", "adapter/adapter_model.safetensors"]
    folder = Path("old")
    folder.mkdir(exist_ok=True)
    save_file({"w": torch.ones(4)}, folder / "model.safetensors")
    for name, text in REPORTS.items():
        (folder / "soup.json").write_bytes(text(size * 4))
        yield f"report: {name}, replaced", ["uniform", "--ckpts", "ok.safetensors", "--out", "old", "--force"]
        yield f"report: {name}, overwritten", ["rank", "--ckpts", "ok.safetensors", "--report", "old/soup.json"]
        for command in ("report", "plot", "mix"):
            yield f"report: {name}, {command}", [command, "old/soup.json"]
        yield f"report: {name}, verify", ["verify", "old"]


def campaign(folder: Path, *, size: int = BIG) -> Result:
    """Counts of the answers, with the most that one took; a line for each that was dear or no answer."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    os.chdir(folder)
    counts: Counter[str] = Counter()
    broken: list[str] = []
    most = [0.0, 0.0]
    try:
        for name, words in inputs(size):
            code, seconds, megabytes = measured(words)
            counts[f"{name.partition(':')[0]}: exit {code}"] += 1
            most = [max(most[0], seconds), max(most[1], megabytes)]
            if code not in (0, 1, 2) or seconds > MOST_SECONDS or megabytes > MOST_MEGABYTES:
                broken.append(f"{name}: exit {code}, {seconds:.1f} s, {megabytes:.0f} MB")
    finally:
        os.chdir(here)
    counts["most milliseconds of the processor"] = int(most[0] * 1000)
    counts["most megabytes"] = int(most[1])
    return counts, broken


def measured(words: list[str]) -> tuple[int, float, float]:
    """`soup WORDS` in a fork: exit code, seconds of the processor, megabytes above those of the fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            Path("/proc/self/clear_refs").write_text("5")
            before, began = _peak(), _seconds()
            code = run(words)
            os.write(writer, json.dumps([code, _seconds() - began, _peak() - before]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    code, seconds, megabytes = json.loads(said or "[99, 0, 0]")
    return int(code), float(seconds), float(megabytes)


def _seconds() -> float:
    found = os.times()
    return found.user + found.system


def _peak() -> float:
    """The most memory that this process has had, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
