"""The safetensors format: every dtype as the library writes it, and no header is believed before it is checked."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.formats.safetensors import DTYPES, read_header
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion
from tests.helpers.checkpoint_tensors import assert_reads_or_refuses, assert_same, opened, read, small_net
from tests.helpers.operations import operations


def test_every_dtype(tmp_path: Path) -> None:
    """Each dtype that both torch and the format have, scalars and empty tensors too, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, dtype in DTYPES.items():
        raw = torch.randint(0, 2, (3, 4 * dtype.itemsize), dtype=torch.uint8, generator=generator)
        state[name] = raw.view(dtype.torch) if dtype != Dtype.BOOL else raw.to(torch.bool)
    state |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 7), "é 🍲\n": torch.ones(2)}
    save_file(state, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert_same(opened(tmp_path / "x.safetensors"), state)
    assert read_header(FileVersion.of(tmp_path / "x.safetensors"))[2] == {"format": "pt"}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 24), count=st.integers(0, 24))
def test_parts(tmp_path: Path, start: int, count: int) -> None:
    """Any part of a tensor is read by its position."""
    tensor = torch.arange(24, dtype=torch.float16).reshape(4, 6)
    if not (tmp_path / "x.safetensors").exists():
        save_file({"a": torch.ones(3), "t": tensor}, tmp_path / "x.safetensors")
    count = min(count, 24 - start)
    part = read(open_checkpoint(tmp_path / "x.safetensors"), "t", start, count)
    assert torch.equal(part, tensor.view(-1)[start : start + count])


def test_changed_after_opening(tmp_path: Path) -> None:
    """A file that was written to since its header was read is named, not read."""
    path = tmp_path / "x.safetensors"
    save_file({"t": torch.ones(4)}, path)
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="changed while it was read"):
        read(checkpoint, "t")


def written(path: Path, header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "its header is not JSON"),
        (b"{" * 50_000, "its header is not JSON"),
        (b'{"a": \xff}', "its header is not JSON"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice"),
        ({"a": 3}, "needs dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "needs dtype, shape and data_offsets"),
        ({"a": {**ONE, "dtype": "F5"}}, "has dtype 'F5', which this version does not read"),
        ({"a": {**ONE, "dtype": 3}}, "has dtype 3"),
        ({"a": {**ONE, "shape": [-1]}}, r"has shape \[-1\]"),
        ({"a": {**ONE, "shape": [True]}}, r"has shape \[True\]"),
        ({"a": {**ONE, "shape": 1}}, "has shape 1"),
        ({"a": {**ONE, "shape": [2]}}, "needs 8 bytes, its data_offsets span 4"),
        ({"a": {**ONE, "shape": [2**62, 2**62]}}, r"needs \d+ bytes"),
        ({"a": {**ONE, "data_offsets": [4, 0]}}, "needs 4 bytes, its data_offsets span -4"),
        ({"a": {**ONE, "data_offsets": [0, 4, 8]}}, "data_offsets"),
        ({"a": {**ONE, "data_offsets": [4, 8]}}, "begins at byte 4 of the data, 0 was expected"),
        ({"a": ONE, "b": ONE}, "begins at byte 0 of the data, 4 was expected"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [4, 8]}}, "end at byte 8 of the data, which has 4"),
        ({}, "end at byte 0 of the data, which has 4"),
        ({"a": ONE, "__metadata__": {"x": 1}}, "__metadata__ is not a mapping of text to text"),
        ({"a": ONE, "__metadata__": ["x"]}, "__metadata__ is not a mapping of text to text"),
    ],
)
def test_headers_that_do_not_hold(tmp_path: Path, header: bytes | dict[str, Any], message: str) -> None:
    """Each statement of a header is checked: names, dtypes, shapes, gaps, overlaps and the end of the file."""
    with pytest.raises(CheckpointError, match=message) as refused:
        open_checkpoint(written(tmp_path / "x.safetensors", header, b"\0" * 4))
    assert "\n" not in str(refused.value)
    assert str(tmp_path / "x.safetensors") in str(refused.value)


def test_the_last_of_many_keys_twice(tmp_path: Path) -> None:
    """A doubled key is named wherever it stands, without a comparison of each key with all others."""
    keys = [f'"{number}": {{}}' for number in (*range(30_000), 29_999)]
    with pytest.raises(CheckpointError, match="has the key '29999' twice"):
        open_checkpoint(written(tmp_path / "x.safetensors", f"{{{', '.join(keys)}}}".encode()))


def test_few_steps_for_each_tensor(tmp_path: Path) -> None:
    """A header of very many tensors is read in few lines of Python for each of them."""

    def steps(count: int) -> int:
        entries = {str(n): {**ONE, "data_offsets": [4 * n, 4 * n + 4]} for n in range(count)}
        file = FileVersion.of(written(tmp_path / f"{count}.safetensors", entries, bytes(4 * count)))
        return operations(lambda: read_header(file))

    assert steps(200) - steps(100) < 100 * 40


@pytest.mark.parametrize("length", [2**63, 10**9, 200])
def test_lengths_that_do_not_hold(tmp_path: Path, length: int) -> None:
    """A header that would be longer than the file, or than the format allows, is not read."""
    with pytest.raises(CheckpointError, match="the header says it has"):
        open_checkpoint(written(tmp_path / "x.safetensors", {"a": ONE}, b"\0" * 4, length))


def test_too_short_for_a_length(tmp_path: Path) -> None:
    """Where a file is known to be one of safetensors, such as a soup's, one that was cut to a byte is refused too."""
    (tmp_path / "x.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"has 1 bytes, too few for a header"):
        read_header(FileVersion.of(tmp_path / "x.safetensors"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_files_are_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """However a file is cut or changed, it opens as a checkpoint or ends in one line."""
    path = tmp_path / "whole.safetensors"
    if not path.exists():
        save_file(small_net().state_dict(), path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    broken = tmp_path / "broken"
    broken.write_bytes(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    assert_reads_or_refuses(broken)
