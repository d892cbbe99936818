"""Numbers that go bad are named or handled as the contract says, through the commands, never passed on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Ran

Soup = Callable[..., Ran]


def two(first: torch.Tensor, second: torch.Tensor) -> list[str]:
    """Two ingredients of one tensor."""
    save_file({"w": first}, "a.safetensors")
    save_file({"w": second}, "b.safetensors")
    return ["uniform", "--ckpts", "a.safetensors", "b.safetensors", "--quiet"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_in_an_ingredient(soup: Soup, bad: float, dtype: torch.dtype) -> None:
    """A NaN or an infinity names file and tensor, in every dtype, also where one ingredient is copied."""
    words = two(torch.ones(3, dtype=dtype), torch.tensor([1, bad, 1], dtype=dtype))
    for command in (words, ["uniform", "--ckpts", "b.safetensors"]):
        ran = soup(*command)
        assert (ran.code, ran.stdout) == (2, "")
        assert ran.stderr.startswith("b.safetensors: ") and "'w'" in ran.stderr.splitlines()[0]
    assert not Path("soup").exists()


def test_overflow_of_the_output(soup: Soup) -> None:
    """A mean beyond float16 is no infinity in the file: an error names tensor, largest number and what to choose."""
    words = two(torch.tensor([7e4, 1.0]), torch.tensor([7e4, 1.0]))
    ran = soup(*words, "--dtype", "float16")
    assert ran.code == 2
    assert "tensor 'w': the mean goes beyond 65504" in ran.stderr and "--dtype" in ran.stderr
    assert soup(*words, "--dtype", "bfloat16").code == 0


def test_sum_that_only_the_mean_fits(soup: Soup) -> None:
    """Two numbers at the end of float16 have a mean, though their sum is none of float16."""
    assert soup(*two(torch.tensor([65504.0, 1]).half(), torch.tensor([65504.0, 3]).half())).code == 0
    assert load_file("soup/model.safetensors")["w"].tolist() == [65504.0, 2]


def test_mixed_dtypes(soup: Soup) -> None:
    """Ingredients of two dtypes give the narrowest that holds both, exactly; the report says which."""
    ran = soup(*two(torch.tensor([1 / 3]).half(), torch.tensor([1e30]).bfloat16()), "--json")
    mean = load_file("soup/model.safetensors")["w"]
    assert mean.dtype == torch.float32
    exact = (float(torch.tensor(1 / 3).half()) + float(torch.tensor(1e30).bfloat16())) / 2
    assert mean.item() == torch.tensor(exact, dtype=torch.float64).float().item()
    report = json.loads(Path("soup/soup.json").read_text())
    assert (ran.code, report["soup"]["dtypes"]) == (0, {"float32": 1})


def test_floats_and_integers_are_refused(soup: Soup) -> None:
    """A tensor that is whole numbers in one ingredient and fractions in another names both."""
    ran = soup(*two(torch.ones(2), torch.ones(2, dtype=torch.int64)))
    assert ran.code == 2
    assert "torch.int64" in ran.stderr and "torch.float32" in ran.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_denormals(soup: Soup, dtype: torch.dtype) -> None:
    """The smallest numbers of a dtype are kept, halves of them rounded to even, signed zeros stay."""
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    first = torch.tensor([tiny, 3 * tiny, tiny, -0.0], dtype=torch.float64).to(dtype)
    second = torch.tensor([tiny, 3 * tiny, 0.0, -0.0], dtype=torch.float64).to(dtype)
    assert soup(*two(first, second)).code == 0
    mean = load_file("soup/model.safetensors")["w"].double()
    assert mean.tolist() == [tiny, 3 * tiny, 0.0, 0.0]
    assert mean.signbit().tolist() == [False, False, False, True]


def test_gradient_that_is_nan(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not a number ends the fit of a learned soup with an error; no soup is written."""
    monkeypatch.chdir(family)
    net = Path("net.py").read_text()
    bad = "class Bad(nn.Sequential):\n    def forward(self, x):\n        return super().forward(x) * float('nan')\n\n"
    Path("net.py").write_text(net.replace("def build", f"{bad}def build").replace("return nn.Sequential", "return Bad"))
    ran = soup("learned", "--ckpts", "runs/*/", "--val", "val", "--quiet", "--set", "learned.steps=5")
    assert ran.code == 2, ran.stderr
    assert "Traceback" not in ran.stderr and not Path("soup").exists()
