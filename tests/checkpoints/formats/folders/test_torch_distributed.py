"""torch's distributed checkpoints, read in one process, as they were saved."""

from __future__ import annotations

import importlib
import math
import os
import pickle
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.checkpoint import state_dict_saver

from soupcli.checkpoints.formats import torch_save
from soupcli.checkpoints.formats.folders import torch_distributed as distributed
from soupcli.checkpoints.formats.folders.distributed_metadata import Box
from soupcli.checkpoints.formats.folders.torch_distributed import check_boxes, read_boxes
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_same, opened, read, small_net
from tests.helpers.save_distributed import tensors


def save(state: dict[str, Any], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        state_dict_saver.save(state, checkpoint_id=folder)


@pytest.fixture
def two_processes(saved_by_two: Path) -> Path:
    """What two processes with gloo saved, each its part of every tensor."""
    return saved_by_two / "0"


@pytest.mark.long
def test_tensors_in_pieces(two_processes: Path) -> None:
    """Tensors cut along any axis, evenly or not, come out whole."""
    assert len(list((two_processes / "tensors").glob("*.distcp"))) == 2
    assert_same(opened(two_processes / "tensors"), tensors())


@pytest.mark.parametrize(("start", "count"), [(0, 4), (3, 9), (7, 1), (5, 10), (0, 0)])
def test_parts_of_pieces(two_processes: Path, start: int, count: int) -> None:
    """Any part of a tensor in pieces is that part of the whole one."""
    checkpoint = open_checkpoint(two_processes / "tensors")
    for name in ("rows", "columns", "middle"):
        expected = tensors()[name].reshape(-1)[start : start + count]
        assert torch.equal(read(checkpoint, name, start, count), expected)


def test_fsdp(two_processes: Path) -> None:
    """A network under FSDP: the model is taken, the optimizer beside it is not."""
    checkpoint = open_checkpoint(two_processes / "fsdp")
    assert checkpoint.origin[:2] == ("distributed", "model")
    assert_same(opened(two_processes / "fsdp"), small_net().state_dict())


def test_accelerate(two_processes: Path) -> None:
    """Accelerate's folder, from the checkpoint above it and from itself."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    (two_processes / "accelerate/optimizer_0").mkdir(exist_ok=True)
    for folder in (two_processes / "accelerate", two_processes / "accelerate/pytorch_model_fsdp_0"):
        assert_same(opened(folder), small_net().state_dict())


def test_lightning(tmp_path: Path) -> None:
    """A folder that ends in .ckpt with meta.pt, which holds the rest of the training and is not opened."""
    try:
        fsdp = importlib.import_module("lightning.fabric.strategies.fsdp")
    except ImportError:
        pytest.skip("lightning is not installed")
    folder = tmp_path / "epoch=0.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fsdp._distributed_checkpoint_save({"model": small_net().state_dict()}, folder)
    (folder / "meta.pt").write_text("not for us")
    assert_same(opened(folder), small_net().state_dict())


def test_one_process(tmp_path: Path) -> None:
    """State dicts saved bare, under a key and deeper, and tensors that do not lie in row-major order."""
    state = small_net().state_dict()
    odd = {"turned": torch.randn(4, 6).T, "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    save({**state, **odd}, tmp_path / "bare")
    assert_same(opened(tmp_path / "bare"), {**state, **odd})
    save({"app": {"model": state, "optim": {"lr": 0.1}}, "step": 3}, tmp_path / "deep")
    assert open_checkpoint(tmp_path / "deep").origin.key == "app.model"
    for key in (None, "app", "app.model"):
        assert_same(opened(tmp_path / "deep", key=key), state)
    save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "prefixed")
    assert_same(opened(tmp_path / "prefixed"), state)


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("evidence",))


def test_nothing_in_the_metadata_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pickle calls is not called, with --trust or without."""
    monkeypatch.chdir(tmp_path)
    save(small_net().state_dict(), tmp_path)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    metadata.planner_data["x"] = Runs()
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    for trust in (False, True):
        assert_same(opened(tmp_path, trust=trust), small_net().state_dict())
    assert not (tmp_path / "evidence").exists()


def test_broken_metadata(tmp_path: Path) -> None:
    """A pickle that is cut or holds something else is refused in one line."""
    save(small_net().state_dict(), tmp_path)
    whole = (tmp_path / ".metadata").read_bytes()
    for broken in (b"", whole[:100], whole[:-1], pickle.dumps([1]), pickle.dumps({"a": 1}), b"\x80\x05."):
        (tmp_path / ".metadata").write_bytes(broken)
        with pytest.raises(CheckpointError, match="not the metadata of a checkpoint") as refused:
            open_checkpoint(tmp_path)
        assert "\n" not in str(refused.value)


def test_missing_and_short_files(tmp_path: Path) -> None:
    """A file of pieces that is absent or cut short is named when the checkpoint is opened."""
    save(small_net().state_dict(), tmp_path)
    pieces = tmp_path / "__0_0.distcp"
    whole = pieces.read_bytes()
    pieces.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp: has \d+ bytes, tensor '.*' ends at byte"):
        open_checkpoint(tmp_path)
    pieces.unlink()
    with pytest.raises(CheckpointError, match=r"names the file __0_0\.distcp, which is not there"):
        open_checkpoint(tmp_path)


def edited(folder: Path, edit: Any) -> Path:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    edit(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def test_metadata_that_does_not_hold(tmp_path: Path) -> None:
    """Paths out of the folder, tensors without a place and pieces that leave gaps are refused."""

    def lead_out(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            info.relative_path = "../x"

    def forget(metadata: Any) -> None:
        metadata.storage_data.clear()

    def leave_a_gap(metadata: Any) -> None:
        metadata.state_dict_metadata["0.weight"].size = torch.Size([7, 4])

    def compress(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            info.transform_descriptors = ["zstd"]

    cases = {
        lead_out: "not a file name",
        forget: "not say where",
        leave_a_gap: "do not make up",
        compress: "compress",
    }
    for number, (edit, message) in enumerate(cases.items()):
        save(small_net().state_dict(), tmp_path / str(number))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(edited(tmp_path / str(number), edit))


def test_piece_of_another_tensor(tmp_path: Path) -> None:
    """A piece that is not what the metadata says is noticed when it is read."""

    def exchange(metadata: Any) -> None:
        places = {index.fqn: index for index in metadata.storage_data}
        storage = metadata.storage_data
        storage[places["0.weight"]] = storage[places["2.weight"]]

    save(small_net().state_dict(), tmp_path)
    checkpoint = open_checkpoint(edited(tmp_path, exchange))
    with pytest.raises(CheckpointError, match=r"a piece of tensor '0\.weight' has shape \[3, 6\]"):
        read(checkpoint, "0.weight")


def test_each_piece_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many chunks a tensor is read in, the archive of a piece is opened once."""
    save(small_net().state_dict(), tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    looked_up: list[int] = []
    original = torch_save.read_tensor_header

    def counted(file: Any, offset: int, length: int) -> Any:
        looked_up.append(offset)
        return original(file, offset, length)

    monkeypatch.setattr(distributed, "read_tensor_header", counted)
    for start in range(4):
        read(checkpoint, "0.weight", start, 2)
    assert len(looked_up) == 1


def test_a_tensor_in_many_pieces() -> None:
    """Thousands of pieces along one axis are checked at once; more than any save makes are refused."""
    boxes = [Box((number, 0), (1, 4)) for number in range(20_000)]
    check_boxes(Path("x"), "t", (20_000, 4), boxes)
    with pytest.raises(CheckpointError, match="lies in 20001 pieces"):
        check_boxes(Path("x"), "t", (20_001, 4), [*boxes, Box((20_000, 0), (1, 4))])


@st.composite
def cut_tensors(draw: st.DrawFn) -> tuple[Tensor, list[Box]]:
    """A tensor and boxes that make it up, from cuts along each axis."""
    shape = draw(st.lists(st.integers(1, 5), min_size=0, max_size=3))
    cuts = [sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=2))}) for size in shape]
    boxes = [Box((), ())]
    for axis in cuts:
        boxes = [Box((*box.offsets, low), (*box.sizes, high - low)) for box in boxes for low, high in pairwise(axis)]
    return torch.arange(math.prod(shape)).reshape(shape), draw(st.permutations(boxes))


@settings(deadline=None, max_examples=200)
@given(cut=cut_tensors(), data=st.data())
def test_boxes(cut: tuple[Tensor, list[Box]], data: st.DataObject) -> None:
    """Any part of a tensor is put together from boxes in any order; a box less, or one twice, is refused."""
    tensor, boxes = cut
    shape = tuple(tensor.shape)
    check_boxes(Path("x"), "t", shape, boxes)

    def read_box(number: int, out: Tensor, start: int) -> None:
        place = tuple(slice(o, o + s) for o, s in zip(*boxes[number], strict=True))
        out.view(-1).copy_(tensor[place].reshape(-1)[start : start + out.numel()])

    start = data.draw(st.integers(0, tensor.numel() - 1))
    out = torch.empty(data.draw(st.integers(0, tensor.numel() - start)), dtype=tensor.dtype)
    read_boxes(shape, boxes, read_box, out, start)
    assert torch.equal(out, tensor.reshape(-1)[start : start + out.numel()])
    for wrong in (boxes[1:], [*boxes, boxes[0]], [*boxes[1:], boxes[0]._replace(offsets=tuple(9 for _ in shape))]):
        if wrong != boxes and (shape or len(wrong) != 1):
            with pytest.raises(CheckpointError, match="do not make up"):
                check_boxes(Path("x"), "t", shape, wrong)


@pytest.mark.parametrize("key", [None, "model"])
def test_numbers_among_the_tensors(tmp_path: Path, key: str | None) -> None:
    """Plain numbers of the network's own dict are said and kept; those of a training are none of it."""
    state = {**tensors(), "temperature": 0.07, "levels": [1, 2], "epoch": 3, "n_samples": 7}
    save({key: state, "step": 5} if key else state, tmp_path / "a")
    origin = open_checkpoint(tmp_path / "a").origin
    assert sorted(origin.states) == ["levels", "temperature"]
    above = f"{key}." if key else ""
    assert origin.settings == {f"{above}levels": "[1, 2]", f"{above}temperature": "0.07"}
