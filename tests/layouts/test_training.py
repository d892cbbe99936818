"""Libraries that train over many processes: their own savers write the ingredients, their own loaders open the soup."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from tests.conftest import Ran
from tests.helpers.checkpoint_tensors import assert_same, small_net
from tests.helpers.means import mean64

Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.long
def test_accelerate(soup: Soup, saved_by_two: Path) -> None:
    """Accelerate's FSDP2 folders: its own `merge_fsdp_weights` opens the soup, whose pieces lie as theirs."""
    utils: Any = pytest.importorskip("accelerate.utils")
    shutil.copytree(saved_by_two, "runs")
    expected = mean64([small_net(seed).state_dict() for seed in range(2)])
    assert soup("uniform", "--ckpts", "runs/*/accelerate", "--format", "same").code == 0
    pieces = {file.name for file in Path("runs/0/accelerate/pytorch_model_fsdp_0").iterdir()}
    assert {file.name for file in Path("soup/pytorch_model_fsdp_0").iterdir()} == pieces and len(pieces) == 3
    utils.merge_fsdp_weights("soup/pytorch_model_fsdp_0", "merged")
    assert_same(load_file("merged/model.safetensors"), expected)
    assert soup("uniform", "--ckpts", "runs/*/fsdp", "--format", "same", "--out", "fsdp").code == 0
    utils.merge_fsdp_weights("fsdp", "merged2")
    assert_same(load_file("merged2/model.safetensors"), expected)
    assert soup("verify", "soup", "--rebuild").code == 0 and soup("verify", "fsdp", "--rebuild").code == 0


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("one_process")
def test_megatron_core(soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """megatron.core's dist_checkpointing, torch_dist: its own save and load, with an optimizer beside the network."""
    checkpointing: Any = pytest.importorskip("megatron.core.dist_checkpointing", reason="make layouts installs it")
    parallel: Any = pytest.importorskip("megatron.core.parallel_state")
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)  # its writer asks, with nothing to wait for
        monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    parallel.initialize_model_parallel(1, 1)

    def sharded(state: dict[str, torch.Tensor]) -> dict[str, Any]:
        of = checkpointing.ShardedTensor.from_rank_offsets
        network = {name: of(name, tensor) for name, tensor in state.items()}
        moments = {name: of(f"optimizer.state.exp_avg.{name}", tensor * 2) for name, tensor in state.items()}
        return {"model": network, "optimizer": {"state": moments}, "iteration": 20}

    for seed in range(2):
        Path(f"runs/{seed}/iter_0000020").mkdir(parents=True)
        checkpointing.save(sharded(small_net(seed).state_dict()), f"runs/{seed}/iter_0000020")
        Path(f"runs/{seed}/latest_checkpointed_iteration.txt").write_text("20")
    expected = mean64([small_net(seed).state_dict() for seed in range(2)])
    found: dict[str, Any] = {}
    for words in ((), ("--keep-state",)):
        ran = soup("uniform", "--ckpts", "runs/*/", "--force", *words)
        assert ran.code == 0, ran.stderr
        template = sharded({name: torch.zeros_like(tensor) for name, tensor in expected.items()})
        if not words:
            del template["optimizer"]
        found = checkpointing.load(template, "soup/iter_0000020")
        assert_same(found["model"], expected)
        assert found["iteration"] == 20
    moments = {name: tensor * 2 for name, tensor in small_net(0).state_dict().items()}
    assert_same(found["optimizer"]["state"], moments)


@pytest.mark.filterwarnings("ignore")
def test_deepspeed_without_zero(soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's engine without ZeRO: its own save_checkpoint and load_checkpoint, also with the optimizer's state."""
    for name, value in {"DS_ACCELERATOR": "cpu", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    deepspeed: Any = pytest.importorskip("deepspeed", reason="make layouts installs it")
    monkeypatch.setattr(sys.modules["deepspeed.comm.torch"], "build_shm_op", lambda: None)  # it compiles for minutes

    def engine(seed: int) -> Any:
        net = small_net(seed)
        settings = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 0}}
        return deepspeed.initialize(model=net, optimizer=torch.optim.AdamW(net.parameters()), config=settings)[0]

    states = []
    for seed in range(2):
        made = engine(seed)
        made.save_checkpoint(f"runs/{seed}", tag=f"global_step{seed}")
        states.append({name: tensor.clone() for name, tensor in made.module.state_dict().items()})
    expected = mean64(states)
    for words, options in (((), {"load_module_only": True}), (("--keep-state",), {})):
        assert soup("uniform", "--ckpts", "runs/*/", "--force", *words).code == 0
        opened = engine(5)
        assert opened.load_checkpoint("soup", **options)[0] is not None
        assert_same(opened.module.state_dict(), expected)
    dist.destroy_process_group()
