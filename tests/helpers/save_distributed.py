"""One of two processes that save distributed checkpoints: `python -m tests.helpers.save_distributed FOLDER...`.

The networks of the folders have the seeds 0, 1, ...
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from tests.helpers.checkpoint_tensors import small_net

# How the tensors of `tensors()` are cut between the processes; the others are whole in both.
CUT = {"rows": Shard(0), "columns": Shard(1), "middle": Shard(1), "half": Shard(0), "one": Shard(0)}


def tensors() -> dict[str, torch.Tensor]:
    """Tensors that are cut evenly, unevenly, along the first axis and along others."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"rows": (5, 3), "columns": (4, 6), "middle": (2, 5, 3), "half": (3, 4), "one": (1, 4), "whole": (3,)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**made, "half": made["half"].to(torch.bfloat16), "scalar": torch.tensor(2.5), "count": torch.tensor(7)}


def save(folder: Path, seed: int) -> None:
    """Tensors, a network under FSDP with its optimizer, and the same by Accelerate where it is installed."""
    mesh = init_device_mesh("cpu", (2,))
    cut = {name: distribute_tensor(tensor, mesh, [CUT.get(name, Replicate())]) for name, tensor in tensors().items()}
    state_dict_saver.save(cut, checkpoint_id=folder / "tensors")
    net = small_net(seed)
    fully_shard(net, mesh=mesh)  # in place
    optimizer = torch.optim.AdamW(net.parameters())
    state = {"model": get_model_state_dict(net), "optim": get_optimizer_state_dict(net, optimizer)}
    state_dict_saver.save(state, checkpoint_id=folder / "fsdp")
    try:
        from accelerate import PartialState  # noqa: PLC0415
        from accelerate.utils import FullyShardedDataParallelPlugin  # noqa: PLC0415
        from accelerate.utils.fsdp_utils import save_fsdp_model  # noqa: PLC0415
    except ImportError:
        pass
    else:
        PartialState(cpu=True)
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")
        here = SimpleNamespace(process_index=dist.get_rank(), num_processes=2)
        save_fsdp_model(plugin, here, net, str(folder / "accelerate"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for number, name in enumerate(sys.argv[1:]):
        save(Path(name), number)
    dist.destroy_process_group()
