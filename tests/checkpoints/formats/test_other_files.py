"""Files and folders of other programs, and what stands in the place of a file: each is called what it is."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.find import find
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 4400000\n"
FILES = {
    "lfs": (LFS, "is a Git LFS pointer", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s1--ab.pt\n", "git-annex pointer", "git annex get"),
    "annex link": (b"../.git/annex/objects/Gk/SHA256E-s1--ab.pt", "git-annex pointer", "git annex get"),
    "empty": (b"", "is empty (0 bytes)", ""),
    "html": (b"<!DOCTYPE html>\n<html><head>", "is a web page", "download it again"),
    "html with mark": (b"\xef\xbb\xbf\n  <HTML lang=en>", "is a web page", ""),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is XML", ""),
    "json": (json.dumps({"error": "gated repository"}).encode(), "is JSON", ""),
    "json like a header": (b'{"mode":{"a": 1}}', "is JSON", ""),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is HDF5", "state_dict()"),
    "gguf": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1), "is GGUF", "converted from"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "is ONNX", "exported from"),
    "msgpack": (b"\x81\xa6params\x81\xa1w\xc7", "is msgpack", "from_flax"),
    "npy": (b"\x93NUMPY\x01\x00", "is a numpy array", "safetensors"),
    "pickle": (pickle.dumps({"w": [1.0]}), "is a plain pickle", "save it again"),
    "gzip": (gzip.compress(b"weights"), "is compressed by gzip", "gunzip"),
    "ctranslate2": (struct.pack("<IH", 6, 12) + b"WhisperSpec\0", "is CTranslate2", "export the soup"),
    "tensorrt": (b"ftrt" + bytes(60), "is a TensorRT engine", "export the soup"),
    "zeros": (bytes(5000), "begins with zeros", ""),
    "lfs of Windows": (LFS.replace(b"\n", b"\r\n"), "is a Git LFS pointer", "git lfs pull"),
    "text": (b"Entry not found\n", "is a text, not weights: 'Entry not found'", "a failed download"),
    "other": (b"weights\1", "none of torch.save, NeMo, safetensors", "--ckpts takes"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["model.safetensors", "weights.pt"])
def test_files(tmp_path: Path, kind: str, name: str) -> None:
    """Whatever name it has, a file of another kind is called what it is, with the way out."""
    content, message, hint = FILES[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        open_checkpoint(tmp_path / name)
    assert f"{tmp_path / name}: " in str(refused.value)
    assert message in str(refused.value)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors.index.json", LFS, "is a Git LFS pointer"),
        ("model.safetensors.index.json", b"", "is empty"),
        ("x.pt", b"", "is empty"),
        ("best.ckpt", b"", "is empty"),
    ],
)
def test_folders_of_what_stands_in(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """An index that is a pointer, and an empty file of whatever name, are called so beside a configuration."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_downloads_that_go_on(tmp_path: Path) -> None:
    """aria2c gives a file its length at once, with zeros where it is still to be fetched: it is no checkpoint yet."""
    for file in (tmp_path / "run/model.safetensors", tmp_path / "alone.safetensors"):
        file.parent.mkdir(exist_ok=True)
        save_file({"w": torch.zeros(3)}, file)
        control = file.with_name(f"{file.name}.aria2")
        control.touch()
        for path in {file, file.parent} - {tmp_path}:
            with pytest.raises(CheckpointError, match="its download has not ended"):
                open_checkpoint(path)
        control.unlink()
        open_checkpoint(file)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("model.weights.h5", "a Keras model"),
        ("w.npy", "numpy arrays"),
        ("x/constants.pkl", "a TorchScript archive"),
        ("x/code/__torch__.py", "a TorchScript archive"),
        ("x/.data/extern_modules", "a torch.package archive"),
        ("x/archive_format", "an exported program"),
        ("notes.txt", "a zip archive of other things: notes.txt"),
        ("_stable_baselines3_version", "an agent of stable-baselines3"),
    ],
)
def test_archives(tmp_path: Path, member: str, message: str) -> None:
    """Zip archives of other programs are known by what is in them, compressed or not."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, b"1234" * 9)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "x.pt")


def test_numpy_archive(tmp_path: Path) -> None:
    """A real .npz."""
    numpy.savez(tmp_path / "x.npz", w=numpy.zeros(3))
    with pytest.raises(CheckpointError, match="numpy arrays") as refused:
        open_checkpoint(tmp_path / "x.npz")
    assert "safetensors.numpy.save_file" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("_CHECKPOINT_METADATA", "is an Orbax checkpoint"),
        ("saved_model.pb", "is a SavedModel of TensorFlow"),
        ("model.ckpt-1.index", "is a checkpoint of TensorFlow"),
        ("openvino_model.xml", "is OpenVINO"),
        ("0/weight.memmap", "is a memory-mapped TensorDict"),
        ("params.a/.zarray", "is an Orbax checkpoint"),
        ("flax_model.msgpack", "is weights of Flax"),
        ("model-q4.gguf", "holds GGUF files"),
        ("model.onnx", "holds ONNX files"),
        ("model.keras", "holds Keras files"),
        ("model.engine", "holds TensorRT engines"),
        ("0/_CHECKPOINT_METADATA", "is steps of Orbax"),
        ("Data/com.apple.CoreML/model.mlmodel", "is a Core ML package"),
        ("config.cfg", "is a pipeline of spaCy"),
    ],
)
def test_folders(tmp_path: Path, name: str, message: str) -> None:
    """A folder with nothing but weights of another program is called what it is."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"some bytes of it")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=message) as refused:
        open_checkpoint(tmp_path)
    assert refused.value.hint
    torch.save({"w": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(open_checkpoint(tmp_path).tensors) == ["w"]


@pytest.mark.parametrize("kind", ["pickle", "gzip", "npy", "msgpack"])
def test_files_of_others_in_a_folder(tmp_path: Path, kind: str) -> None:
    """The only file of a folder is called what it is there too, and does not matter beside weights."""
    content, message, hint = FILES[kind]
    (tmp_path / "weights.x").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as refused:
        open_checkpoint(tmp_path)
    assert hint in str(refused.value.hint)
    torch.save({"w": torch.ones(1)}, tmp_path / "best.pth")
    assert list(open_checkpoint(tmp_path).tensors) == ["w"]


def test_files_without_tensors(tmp_path: Path) -> None:
    """A loss without weights and a trainer's counters (skorch, OLMo) are no checkpoints beside one."""
    torch.save({"w": torch.ones(1)}, tmp_path / "params.pt")
    torch.save(torch.nn.NLLLoss().state_dict(), tmp_path / "criterion.pt")
    (tmp_path / "state").mkdir()
    torch.save({"global_step": 5}, tmp_path / "state/train.pt")
    assert list(open_checkpoint(tmp_path).tensors) == ["w"]
    assert find([str(tmp_path)]).notes == []
    with pytest.raises(CheckpointError, match="no state dict: it holds 'global_step'"):
        open_checkpoint(tmp_path / "state")


def test_links_to_nothing(tmp_path: Path) -> None:
    """A link to a file that is not there is called so; git-annex's with its own command."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/model.safetensors").symlink_to("../.git/annex/objects/Gk/x/SHA256E-s1.safetensors")
    (tmp_path / "b.pt").symlink_to("absent.pt")
    for path in (tmp_path / "a", tmp_path / "a/model.safetensors"):
        with pytest.raises(CheckpointError, match="is a git-annex link to a file that is not here"):
            open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"is a link to absent\.pt, which is not there"):
        open_checkpoint(tmp_path / "b.pt")


def test_parts_of_distributed_checkpoints(tmp_path: Path) -> None:
    """A file out of a distributed checkpoint: the folder is what to give."""
    torch.save(torch.ones(2), tmp_path / "__0_0.distcp")
    with pytest.raises(CheckpointError, match="is a part of a distributed checkpoint") as refused:
        open_checkpoint(tmp_path / "__0_0.distcp")
    assert str(refused.value.hint) == f"give the folder: {tmp_path}"
