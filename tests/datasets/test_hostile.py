"""Files that no set should hold end in one line of error: pipes, devices, bombs, numbers beyond all classes."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import Ran
from tests.helpers import transformers_toys as toys
from tests.helpers.pictures import class_folders, noise
from tests.helpers.shard_toys import write_shard

NET = """
import torch
from torch import nn

def build():
    return nn.Linear(3, 2)

def transform(picture):
    return torch.zeros(3)
"""


@pytest.fixture
def evaluated(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`soup rank` of a small network on a set by its keys."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "run.pt")

    own = "{python: 'net.py:build', transform: 'net.py:transform'}"

    def rank(keys: str, *, model: str = own, run: str = "run.pt") -> Ran:
        Path("soup.yaml").write_text(f"model: {model}\nval: {{val: {keys}}}\n")
        ran: Ran = soup("rank", "--ckpts", run, "--val", "val")
        return ran

    return rank


def refused(ran: Ran, *words: str) -> None:
    """Exit code 2, one line of at most 2,000 characters that names the file."""
    assert ran.code == 2, ran.stderr[-2000:]
    assert len(ran.stderr) < 2000
    for word in words:
        assert word in ran.stderr, ran.stderr


def pipe(place: Path) -> None:
    os.mkfifo(place)


def device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def endless(place: Path) -> None:
    place.symlink_to("/dev/urandom")


@pytest.mark.parametrize("made", [pipe, device, endless])
def test_pipes_and_devices(made: Callable[[Path], None], evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """As a picture, a shard, a file of labels, of names or of classes, and as rows."""
    class_folders(tmp_path / "val", {"a": 1, "b": 1})
    made(tmp_path / "val/a/9.png")
    refused(evaluated("{images: val}"), "9.png")
    (tmp_path / "val/a/9.png").unlink()
    for name in ("x.tar", "x.json", "x.txt", "x.jsonl", "x.csv", "x.parquet", "x.safetensors"):
        made(tmp_path / name)
    for keys in (
        *("{images: x.tar}", "{images: val, labels: x.json}", "{images: val, classes: x.json}", "{text: x.jsonl}"),
        *("{images: val, classes: x.txt}", "{images: val, classnames: x.txt}", "{text: x.csv}", "{text: x.parquet}"),
        *("{tokens: x.txt}", "{arrays: x.safetensors}"),
    ):
        refused(evaluated(keys), "x.")


def test_endless_lines(evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """Lines of 40 MB and files of 3 GB, of which the disk holds nothing, are refused."""
    toys.bert(tmp_path / "bert")
    for suffix in ("jsonl", "csv", "tsv"):
        with (tmp_path / f"val.{suffix}").open("wb") as file:
            file.write(b"text,label\n" if suffix != "jsonl" else b"")
            file.truncate(40_000_000)
        refused(evaluated(f"{{text: val.{suffix}}}", model="{transformers: auto}", run="bert"), f"val.{suffix}:")
    for keys in ("{images: val, labels: big.json}", "{images: val, classnames: big.json}"):
        class_folders(tmp_path / "val", {"a": 1, "b": 1})
        with (tmp_path / "big.json").open("wb") as file:
            file.truncate(3_000_000_000)
        refused(evaluated(keys), "big.json")


def test_columns_that_nobody_named(evaluated: Callable[..., Ran], tmp_path: Path, monkeypatch: Any) -> None:
    """Of a parquet file the columns of the recipe are read, no others; one that unpacks to very much is refused."""
    toys.bert(tmp_path / "bert")
    rows = {"text": ["good", "bad"] * 20, "label": [0, 1] * 20, "other": ["x" * 100_000] * 40}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "val.parquet")
    read = pyarrow.parquet.ParquetFile.read
    asked: list[Any] = []

    def noted(self: Any, columns: Any = None, **options: Any) -> Any:
        asked.append(columns)
        return read(self, columns=columns, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read", noted)
    ran = evaluated("{text: val.parquet}", model="{transformers: auto}", run="bert")
    assert ran.code == 0, ran.stderr
    assert all(columns in (["text", "label"], ["label"]) for columns in asked)
    bomb = pyarrow.table({"text": ["x" * 1_000_000] * 300, "label": [0] * 300})
    pyarrow.parquet.write_table(bomb, tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False)
    refused(evaluated("{text: bomb.parquet}", model="{transformers: auto}", run="bert"), "bomb.parquet", "unpack to")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        *('{"a/0.jpg": 1e400, "b/0.jpg": 0}', '{"a/0.jpg": 1000000000000000000000000000000, "b/0.jpg": 0}'),
        *('{"a/0.jpg": ' + "9" * 400 + ', "b/0.jpg": 0}', '{"a/0.jpg": ' + "9" * 5000 + "}", '{"a/0.jpg": NaN}'),
        *(DEEP, '{"a/0.jpg": ' + DEEP, "[]", "{}", '"text"', '{"a/0.jpg": [[0]]}', '{"a/0.jpg": -1}', "\ud800"),
    ],
)
def test_labels_of_pictures(content: str, evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """In a file of labels, or as a map of classes."""
    class_folders(tmp_path / "val", {"a": 1, "b": 1})
    (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    refused(evaluated("{images: val, labels: x.json}"), "x.json")
    refused(evaluated("{images: val, classes: x.json}"), "x.json")


@pytest.mark.parametrize("label", [b"1" * 400, b"1e9", b"-1", b"NaN", b"1" + b"0" * 30, b"\xff", b"[" * 10000])
def test_labels_of_shards(label: bytes, evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """As the text of a .cls member, and in the object of a .json member."""
    noise(tmp_path / "p.png")
    for name, content in (("a.cls", label), ("a.json", b'{"label": ' + label + b"}")):
        write_shard(tmp_path / "x.tar", [("a.png", (tmp_path / "p.png").read_bytes()), (name, content)])
        refused(evaluated("{images: x.tar}"), "x.tar")


@pytest.mark.parametrize("line", ["1" * 400, "1" + "0" * 30, "99999999999", "9" * 5000, "\u0661" * 20, "-1", "1.5"])
def test_ids_of_classes(line: str, evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """In a file of classes, one a line."""
    class_folders(tmp_path / "val", {"a": 1, "b": 1})
    (tmp_path / "x.txt").write_text(f"{line}\n1\n")
    refused(evaluated("{images: val, classes: x.txt}"), "x.txt")


@pytest.mark.parametrize(
    "keys",
    [
        *("class_to_index: {a: 99999999999999999999999, b: 0}", "class_to_index: {a: -1, b: 0}", "size: 1000000000"),
        *("classes: [99999999999999999999999, 0]", "classes: {a: 99999999999999999999999}", "crop: -3", "mean: [.nan]"),
    ],
)
def test_numbers_of_the_recipe(keys: str, evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """Numbers that are no class and no size are errors of the recipe."""
    class_folders(tmp_path / "val", {"a": 1, "b": 1})
    refused(evaluated(f"{{images: val, {keys}}}"))


CHUNK = b"\0\0\0\0prVt" + zlib.crc32(b"prVt").to_bytes(4, "big")
PARTS = {  # of files that Pillow goes through step by step -> where they begin, and what is repeated there
    "PNG": (33, CHUNK),
    "JPEG": (2, b"\xff\xfe\0\x04ab"),
    "GIF": (-1, b"\x21\xfe\x01a\0"),
    "PPM": (3, b"#\n"),
}


@pytest.mark.parametrize("form", PARTS)
def test_pictures_of_very_many_parts(
    form: str, evaluated: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks, segments, blocks and comments of a few bytes each are left after some thousands of them."""
    class_folders(tmp_path / "val", {"a": 1, "b": 1})
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, form)
    whole = written.getvalue()
    place, part = PARTS[form]
    place = whole.index(b",") if form == "GIF" else place
    monkeypatch.setattr("soupcli.datasets.picture_decoder.MOST_STEPS", 2_000)
    for count in (3_000, 300):
        (tmp_path / "val/b/1.png").write_bytes(whole[:place] + part * count + whole[place:])
        ran = evaluated("{images: val}")
        if count > 2_000:
            refused(ran, "val/b/1.png: its first ", "more than 2000 parts of a few bytes each")
        else:
            assert ran.code == 0, ran.stderr


def test_arrays(evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """A measurement that is not a number, or no class of the network."""
    of_numbers, of_classes = torch.tensor([0.5, float("nan")]), torch.tensor([0, 2**40])
    for labels, word in ((of_numbers, "label 1 is nan"), (of_classes, "labels reach")):
        save_file({"inputs": torch.zeros(2, 3), "labels": labels}, tmp_path / "x.safetensors")
        refused(evaluated("{arrays: x.safetensors}"), word)


@pytest.mark.parametrize(
    "row",
    [
        *({"text": "\ud800", "label": 0}, {"text": 10**300, "label": 0}, {"text": ["a"], "label": 0}),
        *({"text": "a", "label": "\udcff"}, {"text": "a", "label": {"a": 1}}, {"text": "a", "label": 10**4000}),
    ],
)
def test_rows(row: dict[str, Any], evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """Lone surrogates, numbers and lists in place of text, and labels that are none."""
    toys.bert(tmp_path / "bert")
    (tmp_path / "val.jsonl").write_text(json.dumps({"text": "good", "label": 1}) + "\n" + json.dumps(row) + "\n")
    refused(evaluated("{text: val.jsonl}", model="{transformers: auto}", run="bert"), "val.jsonl")


def test_names_that_are_no_unicode(evaluated: Callable[..., Ran], tmp_path: Path) -> None:
    """Class folders named in another encoding are counted like others, and shown."""
    for name in (b"caf\xe9", b"the"):
        noise(tmp_path / "val" / os.fsdecode(name) / "0.png")
    ran = evaluated("{images: val}")
    assert ran.code == 0, ran.stderr
