"""NeMo's archives are read in place; a tar archive of another kind, and one in parts, are refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net


def archive(file: Path, *names: str, mode: str = "w:", texts: Mapping[str, bytes] | None = None) -> Path:
    """As NeMo's save_restore_connector writes it: `tar.add(folder, arcname='.')`."""
    content = io.BytesIO()
    torch.save(small_net().state_dict(), content)
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            stem = name.removeprefix("./").partition(".")[0]
            data = content.getvalue() if name.endswith(".ckpt") else (texts or {}).get(stem, b"name: x\n")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def test_read_in_place(tmp_path: Path) -> None:
    """The weights, from the file and from its folder."""
    file = archive(tmp_path / "a.nemo", "./model_config.yaml", "./model_weights.ckpt", "./tokenizer.model")
    assert open_checkpoint(file).origin.format == "NeMo"
    assert_same(opened(file), small_net().state_dict())
    assert_same(opened(tmp_path), small_net().state_dict())


def test_what_the_archive_states(tmp_path: Path) -> None:
    """Labels, vocabularies and settings in the archive are the checkpoint's own, and so is its tokenizer."""
    tokenizer = f"{'0' * 32}_tokenizer"
    pieces = b"".join(b"\n%c\n%c%b" % (len(piece) + 2, len(piece), piece) for piece in (b"a", b"b", b"c", b"d"))
    config = b"labels: [yes, no]\nsample_rate: 16000\ndecoder: {vocabulary: [a, b, c]}\ntrain_ds: {sample_rate: 1}\n"
    names = ("./model_config.yaml", "./model_weights.ckpt", f"./{tokenizer}.model", "./vocab.txt")
    texts = {"model_config": config, tokenizer: pieces, "vocab": b"x\ny\nz\n"}
    origin = open_checkpoint(archive(tmp_path / "a.nemo", *names, texts=texts)).origin
    assert origin.classes == {"config.labels": ["yes", "no"]}
    assert origin.settings == {"config.sample_rate": '"16000"'}
    assert origin.lists["config.decoder.vocabulary"] == ["a", "b", "c"]
    assert origin.lists["tokenizer.model.vocab"] == ["a", "b", "c", "d"]
    assert origin.lists["vocab.txt.vocab"] == ["x", "y", "z"]
    broken = open_checkpoint(
        archive(tmp_path / "b.nemo", *names, texts={"model_config": b"a: [", "vocab": b"\xff"})
    ).origin
    assert (broken.classes, broken.settings) == ({}, {})


@pytest.mark.parametrize("first", ["model_weights.ckpt", "mp_rank_00/model_weights.ckpt"])
def test_parts(tmp_path: Path, first: str) -> None:
    """Weights of several processes are refused, with the way to join them."""
    file = archive(tmp_path / "a.nemo", "model_config.yaml", first, "mp_rank_01/model_weights.ckpt")
    with pytest.raises(CheckpointError, match=r"holds 2 of model_weights\.ckpt") as refused:
        open_checkpoint(file)
    assert "parallel sizes of 1" in str(refused.value.hint)


def test_other_archives(tmp_path: Path) -> None:
    """Another tar archive, and a compressed one, are refused as they were."""
    with pytest.raises(CheckpointError, match="is a tar archive"):
        open_checkpoint(archive(tmp_path / "a.tar", "model_weights.ckpt"))
    with pytest.raises(CheckpointError, match="is compressed by gzip"):
        open_checkpoint(archive(tmp_path / "a.nemo", "model_config.yaml", "model_weights.ckpt", mode="w:gz"))
    whole = archive(tmp_path / "b.nemo", "model_config.yaml", "model_weights.ckpt").read_bytes()
    for size in (100, 600, len(whole) // 2):
        (tmp_path / "cut.nemo").write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path / "cut.nemo")
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    assert open_checkpoint(tmp_path / "a.safetensors").origin.format == "safetensors"


def test_headers_are_small(tmp_path: Path) -> None:
    """An extended header of megabytes is not read: no library writes one."""
    file = tmp_path / "a.nemo"
    with tarfile.open(file, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name in ("model_config.yaml", "model_weights.ckpt"):
            member = tarfile.TarInfo(name)
            member.pax_headers = {"comment": "a" * 2_000_000}
            tar.addfile(member)
    with pytest.raises(CheckpointError, match="is a tar archive"):
        open_checkpoint(file)
