"""`soup mix`: by weights, along the line from the base, by Model Stock; beside its first form, `soup mix REPORT`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import Ran, build_net
from tests.helpers import greedy_reference as reference

Soup = Callable[..., Ran]
RUNS = ("runs/1", "runs/0", "runs/2")


@pytest.fixture
def base(family: Path) -> dict[str, Tensor]:
    """A start that ingredients could have been fine-tuned from, in init/."""
    states = [load_file(file) for file in sorted(family.glob("runs/*/model.safetensors"))]
    generator = torch.Generator().manual_seed(0)
    start = {
        name: sum(state[name] for state in states) / len(states) * 0.9
        + 0.05 * torch.randn(states[0][name].shape, generator=generator)
        for name in states[0]
    }
    (family / "init").mkdir()
    save_file(start, family / "init/model.safetensors")
    return start


def report_of(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def states(*paths: str) -> list[dict[str, Tensor]]:
    return [load_file(f"{path}/model.safetensors") for path in paths]


def written() -> dict[str, Tensor]:
    return load_file("soup/model.safetensors")


def is_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(found[name].double(), expected[name], rtol=2e-7, atol=1e-12) for name in expected)


def test_weights_go_with_the_words(family: Path, soup: Soup) -> None:
    """The first weight is the first word's, whatever the order of the paths; the report says which is whose."""
    report = report_of(soup("mix", "--ckpts", *RUNS, "--weights", "0.5,0.3,0.2", "--json"))
    assert report["soup"]["members"] == list(RUNS)
    assert report["soup"]["weights"] == [0.5, 0.3, 0.2]
    weighed = zip((0.5, 0.3, 0.2), states(*RUNS), strict=True)
    pairs = list(weighed)
    assert is_close(written(), {n: torch.stack([w * s[n].double() for w, s in pairs]).sum(dim=0) for n in written()})
    ran = soup("mix", "--ckpts", *RUNS, "--weights", "0.5,0.3,0.2", "--force")
    assert "members: runs/1 (0.5), runs/0 (0.3), runs/2 (0.2)" in ran.stdout


def test_without_weights_the_mean(family: Path, soup: Soup) -> None:
    """No weights are equal weights: the bytes of soup uniform."""
    assert soup("mix", "--ckpts", "runs/*/", "--out", "mixed").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--out", "mean").code == 0
    assert Path("mixed/model.safetensors").read_bytes() == Path("mean/model.safetensors").read_bytes()


def test_weights_are_divided_by_their_sum(family: Path, soup: Soup) -> None:
    """Weights of any sum are shares, which is said; equal ones are the mean, bit for bit."""
    ran = soup("mix", "--ckpts", *RUNS[:2], "--weights", "2,1", "--json")
    assert json.loads(ran.stdout)["soup"]["weights"] == [2 / 3, 1 / 3]
    assert "--weights: divided by their sum: 0.666667, 0.333333" in ran.stderr
    assert soup("mix", "--ckpts", *RUNS, "--weights", "1,1,1", "--out", "mixed").code == 0
    assert soup("uniform", "--ckpts", *RUNS, "--out", "mean").code == 0
    assert Path("mixed/model.safetensors").read_bytes() == Path("mean/model.safetensors").read_bytes()


def test_weights_for_patterns(family: Path, soup: Soup) -> None:
    """Tensors that fit a pattern have its weights, others the mean's or those of --weights; verify makes it again."""
    first, second = states(*RUNS[:2])
    words = ["mix", "--ckpts", *RUNS[:2], "--weights-for", "0.*", "0.75,0.25", "2.bias", "0,1"]
    for more, share in (([], 0.5), (["--weights", "0.25,0.75"], 0.25)):
        assert soup(*words, *more, "--force").code == 0
        shares = {"0.weight": 0.75, "0.bias": 0.75, "2.bias": 0.0, "2.weight": share}
        assert is_close(written(), {n: s * first[n].double() + (1 - s) * second[n].double() for n, s in shares.items()})
        assert soup("verify", "soup", "--rebuild").code == 0
    for wrong, message in (
        (["9.*", "1,0"], "--weights-for 9.*: fits no tensor"),
        (["0.*"], "--weights-for 0.*: a pattern and its weights, each pattern once"),
        (["0.*", "1,0", "0.*", "0,1"], "each pattern once"),
        (["0.*", "1"], "1 weights for 2 checkpoints"),
        (["0.*", "x,y"], "expected a number, got 'x'"),
        (["0.*", "0,0"], "--weights-for: 0.*: all are 0"),
        (["0.*", "2,-1"], "--weights-for: 0.*: -1 is negative"),
    ):
        ran = soup("mix", "--ckpts", *RUNS[:2], "--weights-for", *wrong, "--force")
        assert (ran.code, message in ran.stderr) == (2, True), ran.stderr


def test_any_weights(family: Path, soup: Soup) -> None:
    """Weights that are negative or all 0 are refused; --any-weights takes any as they are."""
    for weights, message in (("1.5,-0.5", "-0.5 is negative"), ("0,0", "all are 0")):
        ran = soup("mix", "--ckpts", *RUNS[:2], "--weights", weights)
        assert (ran.code, message in ran.stderr) == (2, True), ran.stderr
    first, second = states(*RUNS[:2])
    assert soup("mix", "--ckpts", *RUNS[:2], "--weights", "1.5,-0.5", "--any-weights").code == 0
    assert is_close(written(), {n: 1.5 * first[n].double() - 0.5 * second[n].double() for n in first})
    assert soup("mix", "--ckpts", *RUNS[:2], "--weights", "1,1", "--any-weights", "--force").code == 0
    assert is_close(written(), {n: first[n].double() + second[n].double() for n in first})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ckpts", "runs/*/", "--weights", "0.7,0.3"), "go with checkpoints that are named one by one"),
        (("--ckpts", "runs/0", "runs/1", "--weights", "1"), "1 weights for 2 checkpoints: runs/0, runs/1"),
        (("--ckpts", "runs/0", "--alpha", "0.5"), "--alpha: needs --base"),
        (("--ckpts", "runs/0", "--base", "init", "--method", "stock"), "has no angle to another"),
        (("--ckpts", "runs/0", "runs/1", "--method", "stock"), "--method stock: needs --base"),
        (("--ckpts", "runs/0", "--base", "init"), "--base init: these checkpoints need none"),
        (("--ckpts", "runs/0", "init", "--base", "init", "--alpha", "1"), "--base init: is one of the checkpoints too"),
        (("--ckpts", "runs/0", "--base", "init", "--alpha", "0:1:0.5"), "3 points, and no set that says which"),
        (("--ckpts", "runs/0", "--base", "init", "--alpha", "1:0:0.5"), "expected first:last:step that goes up"),
        (("--ckpts", "runs/0", "--base", "init", "--alpha", "1.5"), "1.5 is not between 0 and 1"),
        (("--ckpts", "runs/*/", "--base", "init", "--alpha", "1", "--method", "stock"), "stock finds the weights"),
        (("soup.json", "--ckpts", "runs/0"), "--ckpts: does not go with soup.json"),
        (("soup.json", "--alpha", "0.5"), "--alpha: does not go with soup.json"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_what_does_not_go_together(base: object, soup: Soup, words: tuple[str, ...], message: str) -> None:
    """Settings that contradict each other, or lack something, are errors that say so; nothing is written."""
    ran = soup("mix", *words)
    assert (ran.code, message in ran.stderr) == (2, True), ran.stderr
    assert not Path("soup").exists()


def test_one_alpha(base: dict[str, Tensor], soup: Soup) -> None:
    """A number needs no set: (1 - α) of the base and α of the mean, with the base as a member."""
    report = report_of(soup("mix", "--ckpts", "runs/0", "runs/1", "--base", "init", "--alpha", "0.25", "--json"))
    assert report["soup"]["members"] == ["runs/0", "runs/1", "init"]
    assert report["soup"]["weights"] == [0.125, 0.125, 0.75]
    assert report["alpha"] == 0.25
    first, second = states("runs/0", "runs/1")
    expected = {n: 0.75 * base[n].double() + 0.125 * (first[n].double() + second[n].double()) for n in base}
    assert is_close(written(), expected)


def test_no_point_has_a_score(base: dict[str, Tensor], soup: Soup) -> None:
    """If every point scores NaN, none is written as the best."""
    Path("nan.py").write_text("def evaluate(model, device):\n    return {'nll': float('nan')}\n")
    text = Path("soup.yaml").read_text()
    Path("soup.yaml").write_text(text.replace("val:", "val:\n  nan: {python: 'nan.py:evaluate', metric: nll}", 1))
    found = soup("mix", "--ckpts", "runs/0", "--base", "init", "--alpha", "0,1", "--val", "nan")
    assert (found.code, Path("soup").exists()) == (2, False)
    assert "not a number for any of the 2 points" in found.stderr


def test_alphas(base: dict[str, Tensor], soup: Soup) -> None:
    """Every point is scored on every set as torch scores it; the best on the first set is written; `mix` repeats it."""
    words = ("mix", "--ckpts", "runs/0", "runs/1", "--base", "init", "--alpha", "0:1:0.25", "--val", "val", "test")
    report = report_of(soup(*words, "--metric", "nll", "--json"))
    assert [point["alpha"] for point in report["alphas"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    first, second, net = *states("runs/0", "runs/1"), build_net()
    for name in ("val", "test"):
        data = load_file(f"data/{name}.safetensors")
        for point in report["alphas"]:
            a = point["alpha"]
            net.load_state_dict({n: (1 - a) * base[n] + a * (first[n] + second[n]) / 2 for n in base})
            with torch.no_grad():
                expected = reference.nll(net(data["inputs"]), data["labels"])
            assert point["scores"][name]["nll"]["value"] == pytest.approx(expected, rel=1e-5)
    values = {point["alpha"]: point["scores"]["val"]["nll"]["value"] for point in report["alphas"]}
    assert report["alpha"] == min(values, key=values.__getitem__)
    assert report["soup"]["scores"]["val"]["nll"]["value"] == min(values.values())
    assert soup("mix", "soup/soup.json", "--out", "again").code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()
    lines = soup(*words, "--force").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:6]] == [f"alpha {a}" for a in ("0", "0.25", "0.5", "0.75", "1")]


def test_ends_of_the_line(base: dict[str, Tensor], soup: Soup) -> None:
    """At 0 it is the base, at 1 soup uniform, bit for bit."""
    assert soup("mix", "--ckpts", "runs/*/", "--base", "init", "--alpha", "0").code == 0
    assert all(torch.equal(written()[name], base[name]) for name in base)
    assert soup("mix", "--ckpts", "runs/*/", "--base", "init", "--alpha", "1", "--force").code == 0
    assert soup("uniform", "--ckpts", "runs/*/", "--out", "mean").code == 0
    assert Path("mean/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


@pytest.mark.parametrize(("per", "layers"), [("layer", 2), ("tensor", 4), ("model", 1)])
def test_stock(base: dict[str, Tensor], soup: Soup, per: str, layers: int) -> None:
    """Cosine and ratio of each layer are those of the formula, and so is every tensor; `mix` writes it again."""
    words = ("mix", "--ckpts", *RUNS, "--base", "init", "--method", "stock", "--set", f"mix.per={per}", "--json")
    report = report_of(soup(*words, "--val", "val"))
    found, tensors = report["stock"], report["soup"]["coefficients"]["tensors"]
    assert len(found["layers"]) == layers
    runs = states(*sorted(RUNS))
    for names, cosine, t in zip(tensors, found["cosines"], found["ratios"], strict=True):
        offsets = [torch.cat([(s[n].double() - base[n].double()).flatten() for n in names]) for s in runs]
        units = torch.stack([offset / offset.norm() for offset in offsets])
        expected = float((units @ units.T)[[0, 0, 1], [1, 2, 2]].mean())
        assert cosine == pytest.approx(expected, rel=1e-9)
        assert t == pytest.approx(3 * expected / (2 * expected + 1), rel=1e-9)
        mean = {n: sum(s[n].double() for s in runs) / 3 for n in names}
        assert is_close(written(), {n: t * mean[n] + (1 - t) * base[n].double() for n in names})
    assert soup("mix", "soup/soup.json", "--out", "again").code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


def test_a_head_that_is_not_mixed(base: dict[str, Tensor], soup: Soup) -> None:
    """What --exclude leaves out is the first ingredient's, so that a base with another head will do."""
    save_file({**base, "2.weight": torch.zeros(7, 16), "2.bias": torch.zeros(7)}, "init/model.safetensors")
    words = ("mix", "--ckpts", "runs/0", "runs/1", "--base", "init", "--alpha", "0.5")
    assert "--exclude" in soup(*words).stderr
    assert soup(*words, "--exclude", "2.*").code == 0
    [first] = states("runs/0")
    assert torch.equal(written()["2.weight"], first["2.weight"])
    assert not torch.equal(written()["0.weight"], first["0.weight"])
    assert soup("mix", "soup/soup.json", "--out", "again").code == 0


def test_report_before_or_after_flags(family: Path, soup: Soup) -> None:
    """REPORT stands alone, whatever flags of one word surround it."""
    assert soup("uniform", "--ckpts", "runs/*/").code == 0
    for number, words in enumerate((("--out", "a0", "soup/soup.json"), ("soup/soup.json", "--out", "a1", "--force"))):
        assert soup("mix", *words).code == 0
        assert Path(f"a{number}/model.safetensors").exists()
    assert "unexpected extra argument" in soup("mix", "soup/soup.json", "b.json").stderr
