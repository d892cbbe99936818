"""Shards are found, indexed and read in place; what is no whole, honest archive of samples is refused by name."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from soupcli.datasets import tar_shards
from soupcli.errors import ValidationError
from tests.helpers.shard_toys import picture, sample, write_shard

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def test_reads_what_was_written(tmp_path: Path) -> None:
    """Every picture's bytes and label, in the order of shards and members, whatever stands beside them."""
    first = [*sample(tmp_path, "0001", 3, seed=1), *sample(tmp_path, "0002", 0, suffix=".jpg", seed=2)]
    third = ("deep/er/0003.WEBP", picture(tmp_path, ".webp", seed=3)), ("deep/er/0003.json", b'{"label": 12, "x": 1}')
    fourth = ("./a.jpeg", picture(tmp_path, ".jpeg", seed=4)), ("./a.json", b'{"cls": 7}'), ("./a.txt", b"a caption")
    others = [("._0001.png", b"junk"), ("README", b"text"), ("0001.seg.png", b"a mask"), ("9.bin", b"alone")]
    shards = [write_shard(tmp_path / "a.tar", [*others, *first]), write_shard(tmp_path / "b.tar", [*third, *fourth])]
    index = tar_shards.read_index(shards)
    assert [label for _, label in index] == [3, 0, 12, 7]
    assert [file.read() for file, _ in index] == [first[0][1], first[2][1], third[0][1], fourth[0][1]]
    assert [str(file) for file, _ in index][2] == f"{tmp_path}/b.tar/deep/er/0003.WEBP"
    assert [file.name for file, _ in index] == ["0001.png", "0002.jpg", "0003.WEBP", "a.jpeg"]


@pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)
def test_formats(format_: int, tmp_path: Path) -> None:
    """Long names as each kind of archive holds them; folders among the members are passed over."""
    key = "/".join(["a" * 60] * (2 if format_ == tarfile.USTAR_FORMAT else 4)) + "/0"
    shard = write_shard(tmp_path / "x.tar", sample(tmp_path, key, 5), format_=format_)
    with tarfile.open(shard, "a", format=format_) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    [(file, label)] = tar_shards.read_index([shard])
    assert (file.member, file.read(), label) == (f"{key}.png", picture(tmp_path), 5)


def test_labels_with_white_space(tmp_path: Path) -> None:
    """A label's file may end in a newline and fill up with zeros; .cls comes before .json."""
    members = [("0.png", picture(tmp_path)), ("0.cls", b" 007\n"), ("0.json", b'{"label": 1}')]
    assert tar_shards.read_index([write_shard(tmp_path / "x.tar", members)])[0][1] == 7


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("val-0.tar", ["val-0.tar"]),
        ("val-{0..2}.tar", ["val-0.tar", "val-1.tar", "val-2.tar"]),
        ("val-{00..01}.tar", ["val-00.tar", "val-01.tar"]),
        ("val-{8..11}.tar", ["val-10.tar", "val-11.tar", "val-8.tar", "val-9.tar"]),
        ("{0..1}/x-{3..4}.tar", ["0/x-3.tar", "0/x-4.tar", "1/x-3.tar", "1/x-4.tar"]),
        ("val-?.tar", ["val-0.tar", "val-1.tar", "val-2.tar", "val-8.tar", "val-9.tar"]),
        ("*/x-3.tar", ["0/x-3.tar", "1/x-3.tar"]),
        ("0", ["0/x-3.tar", "0/x-4.tar"]),
        ("missing.tar", ["missing.tar"]),
        ("real[1].tar", ["real[1].tar"]),
        ("mixed", None),
        ("nowhere", None),
    ],
)
def test_find(word: str, names: list[str] | None, tmp_path: Path) -> None:
    """A file, a folder, a glob, ranges; a folder with class folders is none of shards, whatever else it holds."""
    touch(tmp_path, *(f"val-{n}.tar" for n in (0, 1, 2, 8, 9, 10, 11, "00", "01")))
    touch(tmp_path, *(f"{n}/x-{m}.tar" for n in (0, 1) for m in (3, 4)), "0/.hidden.tar")
    touch(tmp_path, "real[1].tar", "mixed/all.tar", "mixed/cat/0.png")
    found = tar_shards.find(tmp_path / word)
    assert found == (None if names is None else [tmp_path / name for name in names])


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("x-{0..3}.tar", "x-2.tar: no such shard"),
        ("y-*.tar", r"y-\*.tar: no such shard"),
        ("x-{3..0}.tar", r"\{3..0\} is no range"),
        ("x-{0..999999999}.tar", "is no range"),
    ],
)
def test_find_missing(word: str, problem: str, tmp_path: Path) -> None:
    """Every shard of a range must be there; a glob must match; a range counts upwards and ends."""
    touch(tmp_path, "x-0.tar", "x-1.tar", "x-3.tar")
    with pytest.raises(ValidationError, match=problem):
        tar_shards.find(tmp_path / word)


PNG = b"not decoded here"


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("../0.png", PNG), ("../0.cls", b"1")], "member '../0.png': a name that leads out of the archive"),
        ([("/etc/0.png", PNG)], "member '/etc/0.png': a name that leads out"),
        ([("0.png", PNG)], "sample '0' has no label"),
        ([("0.cls", b"1")], "sample '0' has no picture"),
        ([("0.png", PNG), ("0.jpg", PNG), ("0.cls", b"1")], "sample '0' has 0.jpg and 0.png"),
        ([("0.png", PNG), ("0.png", PNG), ("0.cls", b"1")], "has the member '0.png' twice"),
        ([("0.png", PNG), ("0.cls", b"cat")], "'0.cls': the label is b'cat', not a whole number from 0"),
        ([("0.png", PNG), ("0.cls", b"-1")], "the label is b'-1'"),
        ([("0.png", PNG), ("0.cls", b"1.5")], "the label is b'1.5'"),
        ([("0.png", PNG), ("0.json", b'{"label": 1.5}')], "the label is 1.5"),
        ([("0.png", PNG), ("0.json", b'{"label": true}')], "the label is True"),
        ([("0.png", PNG), ("0.json", b'{"class": 1}')], "the label is None"),
        ([("0.png", PNG), ("0.json", b"{")], "the label is b'{'"),
        ([("0.png", PNG), ("0.cls", b"1" * 2**20 + b"1")], "a label has at most"),
    ],
)
def test_refused_members(members: list[tuple[str, bytes]], problem: str, tmp_path: Path) -> None:
    """Names that lead out, samples that are not whole, labels that are no class: named, with the shard."""
    shard = write_shard(tmp_path / "x.tar", members)
    with pytest.raises(ValidationError) as raised:
        tar_shards.read_index([shard])
    assert str(raised.value).startswith(f"{shard}: ")
    assert problem in str(raised.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_refused_links(kind: bytes, tmp_path: Path) -> None:
    """A link or device in an archive is refused, wherever it points."""
    shard = write_shard(tmp_path / "x.tar", sample(tmp_path, "0", 1))
    with tarfile.open(shard, "a") as archive:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = kind, "0.png"
        archive.addfile(link)
    with pytest.raises(ValidationError, match=r"x.tar: member '1.png': is a link or a device"):
        tar_shards.read_index([shard])


def header(name: str, size: int, **fields: object) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (2**40, "1099511627776 bytes, a picture has at most"),
        (2**20, "the file at 1024: cut short"),
        (-512, "-512 bytes, a picture has at most"),
    ],
)
def test_refused_sizes(size: int, problem: str, tmp_path: Path) -> None:
    """A size that no picture has, that reaches past the end, or that leads backwards; nothing of it is read."""
    shard = tmp_path / "x.tar"
    shard.write_bytes(header("0.png", size) + bytes(512))
    with pytest.raises(ValidationError, match=problem):
        tar_shards.read_index([shard])


def test_refused_headers(tmp_path: Path) -> None:
    """A header that claims a long name of a gigabyte costs no memory; a negative one costs no time."""
    for size, kind in ((2**30, tarfile.GNUTYPE_LONGNAME), (-(2**20), tarfile.XHDTYPE)):
        shard = tmp_path / "x.tar"
        shard.write_bytes(header("0.png", size, type=kind) + bytes(4096))
        os.truncate(shard, 2**30 + 8192)  # sparse on disk
        with pytest.raises(ValidationError, match="not a tar archive: an extended header of"):
            tar_shards.read_index([shard])


def test_refused_sparse(tmp_path: Path) -> None:
    """A member stored sparse has no place in the file to read from."""
    shard = write_shard(tmp_path / "x.tar", [])
    with tarfile.open(shard, "w") as archive:
        member = tarfile.TarInfo("0.png")
        member.size, member.pax_headers = 512, {"GNU.sparse.map": "0,512", "GNU.sparse.size": "512"}
        archive.addfile(member, io.BytesIO(bytes(512)))
    with pytest.raises(ValidationError, match="stored sparse"):
        tar_shards.read_index([shard])


def test_not_whole(tmp_path: Path) -> None:
    """No archive, a compressed one, one cut short anywhere, one with a damaged header: never a part of the set."""
    whole = write_shard(tmp_path / "whole.tar", [m for n in range(3) for m in sample(tmp_path, str(n), n)])
    content, shard = whole.read_bytes(), tmp_path / "x.tar"
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    for cut in (*range(1, end + 1, 300), end):
        shard.write_bytes(content[:cut])
        with pytest.raises(ValidationError, match=r"x.tar: "):
            tar_shards.read_index([shard])
    damaged = bytearray(content)
    second = tar_shards.read_index([whole])[1][0].offset - 512
    damaged[second] ^= 1
    for other in (gzip.compress(content), bytes(damaged), b"", b"text" * 300):
        shard.write_bytes(other)
        with pytest.raises(ValidationError, match=r"x.tar: "):
            tar_shards.read_index([shard])
    with pytest.raises(ValidationError, match=r"nowhere.tar: No such file"):
        tar_shards.read_index([tmp_path / "nowhere.tar"])


def test_a_shard_that_shrank(tmp_path: Path) -> None:
    """A picture that is not there any more is an error of reading, not a shorter picture."""
    shard = write_shard(tmp_path / "x.tar", sample(tmp_path, "0", 1))
    [(file, _)] = tar_shards.read_index([shard])
    os.truncate(shard, file.offset + 10)
    with pytest.raises(OSError, match="early"):
        file.read()


def test_progress(tmp_path: Path) -> None:
    """Indexing says how many shards are done."""
    shards = [write_shard(tmp_path / f"{n}.tar", sample(tmp_path, "0", n)) for n in range(3)]
    told: list[tuple[str, int, int]] = []
    tar_shards.read_index(shards, progress=lambda task, done, total, note="": told.append((task, done, total)))
    assert told == [("indexing shards", n, 3) for n in (1, 2, 3)]
