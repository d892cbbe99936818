"""What tests of networks share: weights that are not the initial ones, and a network that was filled from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.mixture import Mixture
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from soupcli.networks.without_weights import make_without_weights

CPU = torch.device("cpu")


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, every floating tensor of its state moved away from where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator) * 0.1
                tensor.add_(noise if name.endswith("running_var") else noise - 0.05)
    return module.eval()


def saved(
    module: nn.Module, folder: Path, *, name: str = "model.safetensors", dtype: torch.dtype | None = None
) -> Path:
    """The folder, with the module's state dict in it; tied tensors under the first of their names alone."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in module.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        kept = tensor.detach().clone().contiguous()
        state[key] = kept.to(dtype) if dtype is not None and kept.is_floating_point() else kept
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    return folder


def loaded(network: Network, *checkpoints: Checkpoint | Path) -> LiveNetwork:
    """The network, filled with the mean of the checkpoints."""
    members = [open_checkpoint(c) if isinstance(c, Path) else c for c in checkpoints]
    live = LiveNetwork(network, CPU)
    live.load(Mixture.uniform(members))
    return live


def filled(builder: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """What `builder` makes, built without weights and filled from `folder`."""
    module = make_without_weights(builder)
    loaded(Network(module), folder)
    return module


def assert_same(module: nn.Module, reference: nn.Module) -> None:
    """Every parameter and every buffer, persistent or not, has the reference's bits, dtype and name."""
    for kind in ("named_parameters", "named_buffers"):
        own = dict(getattr(module, kind)(remove_duplicate=False))
        wanted = dict(getattr(reference, kind)(remove_duplicate=False))
        assert own.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert own[name].dtype == tensor.dtype, name
            assert torch.equal(own[name], tensor), name
    assert not any(part.training for part in module.modules())
