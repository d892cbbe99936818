"""The learned soup: what it finds, where it begins and ends, what it says, and that an interruption changes nothing."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soupcli.datasets.examples import ArrayExamples
from soupcli.errors import NetworkError
from soupcli.evaluation.labelled_set import LabelledSet
from soupcli.networks.learned.residence import Where
from soupcli.soups.learned.choice import KEPT, LearnedSoup, chosen, parts_of
from soupcli.soups.learned.fit import CONSTRAINTS, FLOOR, Curves, Fit, FitSplit, Round, affine, simplex
from tests.helpers.learned_family import Family, settings
from tests.helpers.learned_toys import CPU

ALL = list(itertools.product(["model", "layer", "tensor"], ["simplex", "affine"]))


@pytest.fixture
def toy(tmp_path: Path) -> Family:
    return Family(tmp_path / "family")


class Kept:
    """States of a fit, as they come back from JSON."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.states: list[str] = []
        self.stop_after = stop_after

    def get(self) -> dict[str, Any] | None:
        state: dict[str, Any] | None = json.loads(self.states[-1]) if self.states else None
        return state

    def put(self, state: dict[str, Any]) -> None:
        self.states.append(json.dumps(state))
        if len(self.states) == self.stop_after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("per", "constraint"), ALL)
def test_useless_ingredient(toy: Family, per: str, constraint: str) -> None:
    """An ingredient of loud noise gets next to nothing in each layer, and the soup is better than the start."""
    ingredients = toy.ingredients([toy.useless(), *toy.states[:3]])
    fitting = settings(per=per, constraint=constraint, steps=80, lr=0.3)
    soup = toy.fit(ingredients, fitting).soup
    assert soup.alpha_lk.shape[1] == 4
    torch.testing.assert_close(soup.alpha_lk.sum(dim=1), torch.ones(len(soup.alpha_lk), dtype=torch.float64))
    assert soup.alpha_lk[:, 0].abs().max() < 0.1
    assert soup.alpha_lk[:, 0].abs().mean() < 0.05
    assert soup.curves.held_out[soup.kept] < soup.curves.held_out[0] / 2
    if constraint == "simplex":
        assert soup.alpha_lk.min() >= 0


@pytest.mark.parametrize(("per", "constraint"), ALL)
def test_one_ingredient(toy: Family, per: str, constraint: str) -> None:
    """Alone it is its own soup: weight 1 everywhere."""
    layered = toy.fit(toy.ingredients(toy.states[:1]), settings(per=per, constraint=constraint)).layered
    assert all(row == [1.0] for row in layered.alpha_lk)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_identical_ingredients(toy: Family, constraint: str) -> None:
    """Copies of one get no gradient: the mean stays, in every layer."""
    learnt = toy.fit(toy.ingredients([toy.states[0]] * 4), settings(constraint=constraint))
    assert learnt.residence.needed == 0
    assert all(row == [0.25] * 4 for row in learnt.layered.alpha_lk)


@pytest.mark.parametrize(("per", "constraint"), ALL)
def test_same_from_everywhere(toy: Family, per: str, constraint: str) -> None:
    """Device, host memory and disk give the same coefficients and curves, bit for bit."""
    found = [
        toy.fit(toy.ingredients(), settings(per=per, constraint=constraint, resident=where))
        for where in get_args(Where)
    ]
    assert [learnt.residence.where for learnt in found] == list(get_args(Where))
    for other in found[1:]:
        assert torch.equal(other.soup.alpha_lk, found[0].soup.alpha_lk)
        assert (other.soup.beta, other.soup.curves) == (found[0].soup.beta, found[0].soup.curves)


def test_affine_goes_below_zero(toy: Family) -> None:
    """Where an ingredient lies on the wrong side, affine subtracts it; the simplex cannot."""
    away = {name: t + 3 * (toy.states[1][name] - t).sign() * 0.3 for name, t in toy.states[0].items()}
    ingredients = toy.ingredients([toy.states[0], away])
    for constraint, below in (("affine", True), ("simplex", False)):
        alpha_lk = toy.fit(ingredients, settings(constraint=constraint, per="layer", steps=60)).soup.alpha_lk
        assert bool((alpha_lk < 0).any()) == below


@pytest.mark.parametrize("stop_after", [1, 2, 6])
def test_goes_on(toy: Family, stop_after: int) -> None:
    """Interrupted after any round, a fit ends in the same coefficients, curves and count of examples, to the bit."""
    ingredients, fitting = toy.ingredients(), settings(constraint="affine")
    whole = toy.fit(ingredients, fitting, states=Kept()).soup
    kept = Kept(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(ingredients, fitting, states=kept)
    kept.stop_after = None
    rounds = len(kept.states)
    resumed = toy.fit(ingredients, fitting, states=kept).soup
    assert len(kept.states) == len(whole.curves.steps)
    assert rounds == stop_after
    assert torch.equal(resumed.alpha_lk, whole.alpha_lk)
    assert (resumed.beta, resumed.curves, resumed.kept) == (whole.beta, whole.curves, whole.kept)
    again = toy.fit(ingredients, fitting, states=kept).soup
    assert (again.examples, again.curves) == (0, whole.curves)
    assert torch.equal(again.alpha_lk, whole.alpha_lk)


def test_curves(toy: Family) -> None:
    """They begin at step 0, have a point for each round, end at the last step; the least held-out loss is kept."""
    seen: list[int] = []
    fitting = settings(steps=25, batch_size=40)
    soup = toy.fit(toy.ingredients(), fitting, watch=lambda curves: seen.append(len(curves.steps))).soup
    assert soup.curves.steps == [0, 3, 6, 9, 12, 15, 18, 21, 24, 25]  # a tenth of the steps, before a pass of 4 is over
    assert seen == list(range(1, 11))
    assert soup.gain == pytest.approx(soup.curves.held_out[0] - min(soup.curves.held_out), abs=1e-12)
    assert (soup.fitted_examples, soup.held_out_examples) == (160, 40)
    assert soup.examples == 160 + 25 * 40 + 10 * 40


def test_start_is_kept_where_nothing_gains(toy: Family) -> None:
    """With labels of noise the held-out part gains nothing surely: the start is kept, and a warning says so."""
    labels = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(3))
    ingredients = toy.ingredients([toy.useless(seed) for seed in range(4)])
    for folds in (1, 4):
        learnt = toy.fit(ingredients, settings(steps=60, lr=1.0, per="tensor", seed=2, folds=folds), labels=labels)
        soup = learnt.soup
        assert (soup.kept == 0) == (soup.gain <= KEPT * soup.gain_stderr)
        if soup.kept == 0:
            assert all(row == [0.25] * 4 for row in learnt.layered.alpha_lk)
            assert (soup.warning is not None) == (soup.curves.fitted[-1] < soup.curves.fitted[0] or soup.gain > 0)


def a_fit(
    fitted: list[float], held_out: list[float], kept: int, *, gain: float = 0.0, error: float = 0.0
) -> str | None:
    curves = Curves([0, 5, 10], fitted, held_out)
    return LearnedSoup(torch.ones(1, 1), 1.0, curves, kept, 80, 20, 100, gain, error).warning


def test_warning() -> None:
    """It is said if the fitted part gains and the held-out part does not, or not surely, and with what was kept."""
    assert a_fit([2.0, 1.0, 0.5], [2.0, 1.5, 1.9], 1, gain=0.5, error=0.1) is None
    assert a_fit([2.0, 2.0, 2.0], [2.0, 2.0, 2.1], 0) is None
    said = "the loss fell from 2.0000 to 0.5000 on the 80 fitted examples, not on the 20 held out (2.0000 to 2.5000): "
    assert a_fit([2.0, 1.0, 0.5], [2.0, 1.9, 2.5], 1, gain=0.1, error=0.01) == said + "step 5 was kept"
    assert a_fit([2.0, 1.0, 0.5], [2.0, 2.1, 2.5], 0) == said + "the start was kept"
    chance = a_fit([2.0, 1.0, 0.5], [2.0, 1.9, 1.95], 0, gain=0.1, error=0.2) or ""
    assert "by 0.1000 ± 0.2000 on the 20 held-out examples, maybe by chance: the start was kept" in chance
    chance = a_fit([2.0, 1.0, 0.5], [2.0, 1.9, 1.95], 1, gain=0.1, error=0.07) or ""
    assert chance.startswith("the loss fell by 0.1000 ± 0.0700 on the 20 held-out examples, which may be chance")


def rounds(held_out: list[float], gains: list[float], spread: float, alpha: float, count: int) -> list[Round]:
    """Of one fold with `count` held-out examples: mean gains, and what single ones vary by."""
    squares = [count * (spread**2 * (gain != 0) + gain**2) for gain in gains]
    return [
        Round(step, 1.0, loss, count * gain, square, spread, [[alpha, 1 - alpha]] if step else [[0.5, 0.5]], 1.0 + step)
        for step, (loss, gain, square) in enumerate(zip(held_out, gains, squares, strict=True))
    ]


@pytest.mark.parametrize(("spread", "kept"), [(0.5, 1), (3.0, 0)])
def test_choice(spread: float, kept: int) -> None:
    """Of two folds the step with the least loss together, and the mean of their coefficients; if it gains surely."""
    folds = [
        rounds([2.0, 1.9, 2.2], [0.0, 0.1, -0.2], spread, 0.6, 40),
        rounds([1.0, 0.8, 0.9], [0.0, 0.2, 0.1], spread, 0.9, 60),
    ]
    parts = [FitSplit(torch.arange(60), torch.arange(40)), FitSplit(torch.arange(40), torch.arange(60))]
    soup = chosen(folds, parts, torch.tensor([[0.5, 0.5]], dtype=torch.float64), 7)
    assert soup.curves.held_out == pytest.approx([1.4, 1.24, 1.42])
    assert soup.gain == pytest.approx(0.16)
    values = [0.16 + spread, 0.16 - spread] * 50 + [spread, -spread]
    assert soup.gain_stderr == pytest.approx(statistics.pstdev(values) / math.sqrt(101) * 1.02, rel=1e-2)
    assert soup.kept == kept
    assert soup.alpha_lk.tolist() == [pytest.approx([0.75, 0.25] if kept else [0.5, 0.5])]
    assert (soup.folds, soup.held_out_examples, soup.examples) == (2, 100, 7)


@pytest.mark.parametrize("stop_after", [1, 11, 14, 30])
def test_folds_go_on(toy: Family, stop_after: int) -> None:
    """Interrupted in any fold, a fit ends in the same coefficients and curves, to the bit."""
    ingredients, fitting = toy.ingredients(), settings(folds=3, steps=10)
    whole = toy.fit(ingredients, fitting, states=Kept()).soup
    kept = Kept(stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        toy.fit(ingredients, fitting, states=kept)
    kept.stop_after = None
    resumed = toy.fit(ingredients, fitting, states=kept).soup
    assert torch.equal(resumed.alpha_lk, whole.alpha_lk)
    assert (resumed.beta, resumed.curves, resumed.kept, resumed.gain) == (
        whole.beta,
        whole.curves,
        whole.kept,
        whole.gain,
    )


def test_folds_hold_out_each_example_once(toy: Family) -> None:
    """Small sets are divided into folds of all classes; from 200 held-out examples on, one part is held out."""
    labels_n = torch.arange(300) % 3
    parts = parts_of(labels_n, settings(folds=None))
    assert len(parts) == 5
    assert torch.equal(torch.cat([part.held_out for part in parts]).sort().values, torch.arange(300))
    for part in parts:
        assert torch.equal(torch.cat(part).sort().values, torch.arange(300))
        assert torch.bincount(labels_n[part.held_out]).tolist() == [20, 20, 20]
    assert len(parts_of(torch.arange(1000) % 3, settings(folds=None))) == 1
    assert len(parts_of(labels_n, settings(folds=None, holdout=0.5))) == 2


def test_no_gain_of_the_temperature_alone(toy: Family) -> None:
    """Copies of one ingredient gain by the factor of their logits only: curves do not show it, unless it is folded."""
    ingredients = toy.ingredients([{n: t * (0.2 if n.startswith("2.") else 1) for n, t in toy.states[0].items()}] * 3)
    apart = toy.fit(ingredients, settings()).soup
    assert apart.beta == 1.0
    assert apart.curves.held_out == pytest.approx([apart.curves.held_out[0]] * len(apart.curves.held_out), abs=1e-6)
    folded = toy.fit(ingredients, settings(fold_temperature=True)).soup
    assert folded.beta > 1.5
    assert folded.curves.held_out[folded.kept] < apart.curves.held_out[0] - 0.05


def test_temperature(toy: Family) -> None:
    """Networks that are far too sure get a factor below 1, timid ones above; without it the factor stays 1."""
    labels = toy.data["labels"].clone()
    labels[::3] = (labels[::3] + 1) % 3
    ingredients = toy.ingredients()
    cool = toy.fit(ingredients, settings(steps=60), labels=labels).soup
    timid = [{n: t * (0.2 if n.startswith("2.") else 1) for n, t in state.items()} for state in toy.states]
    hot = toy.fit(toy.ingredients(timid), settings(steps=60)).soup
    assert cool.beta < 0.9 < 1.5 < hot.beta
    assert toy.fit(toy.ingredients(), settings(temperature=False)).soup.beta == 1.0


def test_seed_and_smoothing_and_decay(toy: Family) -> None:
    """Each setting does something; the same ones twice do the same."""
    ingredients = toy.ingredients([toy.useless(), *toy.states[:3]])
    base = toy.fit(ingredients, settings()).soup
    assert torch.equal(toy.fit(ingredients, settings()).soup.alpha_lk, base.alpha_lk)
    for other in ({"seed": 1}, {"label_smoothing": 0.2}, {"weight_decay": 0.5}, {"schedule": "constant"}, {"lr": 0.1}):
        assert not torch.equal(toy.fit(ingredients, settings(**other)).soup.alpha_lk, base.alpha_lk), other


def test_start(toy: Family) -> None:
    """A start of some ingredients begins at their mean; those left out can come back, under the simplex too."""
    ingredients = toy.ingredients([toy.useless(), *toy.states[:3]])
    for constraint in CONSTRAINTS:
        soup = toy.fit(ingredients, settings(constraint=constraint, steps=80), start=ingredients[:1]).soup
        alone = toy.fit(ingredients[:1], settings(steps=1)).soup
        assert soup.curves.held_out[0] == pytest.approx(alone.curves.held_out[0], rel=1e-6)
        assert soup.curves.held_out[soup.kept] < soup.curves.held_out[0] / 2
        assert (soup.alpha_lk[:, 1:] != 0).all()


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_constraints(free: list[float]) -> None:
    """Both sum to 1; at 0 they are the start; a shift of all free numbers changes nothing."""
    free_lk = torch.tensor([free], dtype=torch.float64)
    start_lk = torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64)
    for alpha_of in (simplex, affine):
        torch.testing.assert_close(alpha_of(torch.zeros(1, 4, dtype=torch.float64), start_lk), start_lk)
        torch.testing.assert_close(alpha_of(free_lk, start_lk), alpha_of(free_lk + 1, start_lk))
        assert float(alpha_of(free_lk, start_lk).sum()) == pytest.approx(1.0, abs=1e-12)
    assert (simplex(free_lk, start_lk) > 0).all()


def test_left_out_by_the_start() -> None:
    """What a greedy start left out has a small share of the softmax, so that its gradient is not 0."""
    alpha_lk = simplex(
        torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
    )
    assert alpha_lk[0, 2].item() == alpha_lk[0, 3].item() == pytest.approx(FLOOR / 4, rel=0.05)


def test_passes_take_all_examples(toy: Family) -> None:
    """Each pass goes over every fitted example once, in another order."""
    task = LabelledSet(ArrayExamples(toy.data["inputs"], toy.data["labels"], "x"), lambda: None, "val", CPU, 64)  # type: ignore[arg-type,return-value]
    fitting = settings(batch_size=64)
    [part] = parts_of(task.labels, fitting)
    fit = Fit(None, task, torch.ones(1, 1), fitting, part, save=print, watch=None, progress=print)  # type: ignore[arg-type]
    passes: list[Tensor] = []
    for number in range(2):
        passes.append(torch.cat([fit.batch(number * fit.passes + step) for step in range(fit.passes)]))
        assert torch.equal(passes[-1].sort().values, fit.fitted)
    assert not torch.equal(*passes)


def test_schedule(toy: Family) -> None:
    """Half a cosine from lr to 0, or lr for all steps."""
    fit = Fit.__new__(Fit)
    fit.settings = settings(steps=10, lr=0.4)
    assert [fit.lr(0), fit.lr(5)] == pytest.approx([0.4, 0.2])
    assert fit.lr(9) < 0.01
    fit.settings = settings(steps=10, lr=0.4, schedule="constant")
    assert fit.lr(9) == 0.4


def test_loss_that_is_not_finite(toy: Family) -> None:
    """A network whose loss is NaN ends the fit with the step, before anything is kept."""
    states = [{name: t * 1e30 for name, t in state.items()} for state in toy.states]
    with pytest.raises(NetworkError, match=r"the loss is (nan|inf)"):
        toy.fit(toy.ingredients(states), settings())
