"""Whether rows of one network lie in other places in another."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.diagnosis.neurons import reordered_matrix, rows_beyond


def test_tensors_of_one_network_alone(tmp_path: Path) -> None:
    """A matrix that the other network lacks, or has in another shape, is passed over; a reordered one is found."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(64, 256, generator=generator)
    save_file({name: matrix.clone() for name in ("lone", "wide", "fc")}, tmp_path / "a.safetensors")
    save_file({"wide": matrix[:, :128].contiguous(), "fc": matrix.flip(0)}, tmp_path / "b.safetensors")
    one, other = (open_checkpoint(tmp_path / f"{name}.safetensors") for name in "ab")
    assert reordered_matrix(one, other, ["lone", "wide"]) is None
    assert reordered_matrix(one, other, ["lone", "wide", "fc"]) == "fc"
    assert rows_beyond(one, [other]) == 1.0  # of fc alone: each row is longer or shorter than the other's
