"""What is gained on the set that selects, and on other examples: every search and fit, many draws of small sets.

    python benchmarks/selection.py                     # 10 draws of 50, 100, 300 and 1,000 examples: minutes
    python benchmarks/selection.py --draws 4 --sizes 50 --rows greedy pruned
    python benchmarks/selection.py --seed 1 --draws 12 --sizes 50 100 300 --rows 'learned by layer'    # another family

Prints the two tables of docs/results.md. The family is made here: ten fine-tunings of one small network on 300
examples, at four learning rates; test examples are 6,000. Gains are over the ingredient that is best on the set.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets.examples import ArrayExamples
from soupcli.evaluation.labelled_set import LabelledSet
from soupcli.evaluation.loop import score_of
from soupcli.metrics.table import METRICS
from soupcli.mixing.mixture import Mixture
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from soupcli.recipe.methods import Greedy, Learned
from soupcli.soups.learned.coefficient_search import Evolution, Judge, ScoredMixture, search_coefficients
from soupcli.soups.learned.learned import learn
from soupcli.soups.ranking import Ranked, rank
from soupcli.soups.search import search

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Score
    from soupcli.soups.learned.choice import LearnedSoup

WIDTH, CLASSES, RUNS = 16, 5, 10
CPU = torch.device("cpu")
State = dict[str, Tensor]
SEARCHES = {
    "greedy": Greedy(),
    "greedy, 5 orders": Greedy(orders=5),
    "pruned": Greedy(strategy="pruned"),
    "replacement": Greedy(strategy="replacement", rounds=10),
    "budgeted, 20": Greedy(strategy="budgeted", budget=20),
}
BUDGETS = {"learned by search, 100": 100}
FITS = {f"learned by {per}": Learned(per=per) for per in ("model", "layer", "tensor")}


ROWS = [*SEARCHES, *BUDGETS, *FITS]


def build() -> nn.Module:
    """A perceptron with two hidden layers."""
    hidden = 64
    return nn.Sequential(
        *(nn.Linear(WIDTH, hidden), nn.LayerNorm(hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU()),
        nn.Linear(hidden, CLASSES),
    )


def examples(n: int, seed: int, *, turn: float = 0.12, family: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and labels: five classes of three Gaussian clusters each; `turn` rotates them, each family has its own."""
    generator = torch.Generator().manual_seed(3 + family)
    centres = 1.1 * torch.randn(CLASSES, 3, WIDTH, generator=generator)
    tilt = torch.randn(WIDTH, WIDTH, generator=generator)
    generator = torch.Generator().manual_seed(seed + 1_000_000 * family)
    labels_n = torch.randint(CLASSES, (n,), generator=generator)
    cluster_n = torch.randint(3, (n,), generator=generator)
    inputs = centres[labels_n, cluster_n] + 1.3 * torch.randn(n, WIDTH, generator=generator)
    return inputs @ torch.matrix_exp(turn * (tilt - tilt.T)), labels_n


def train(state: State | None, data: tuple[Tensor, Tensor], *, lr: float, epochs: int, seed: int) -> State:
    """A network trained from `state` on, from random numbers without one."""
    torch.manual_seed(seed)
    net = build()
    if state is not None:
        net.load_state_dict(state)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    inputs, labels_n = data
    for _ in range(epochs):
        for some in torch.randperm(len(inputs)).split(64):
            loss = functional.cross_entropy(net(inputs[some]), labels_n[some])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def family(folder: Path, number: int) -> list[Checkpoint]:
    """The ingredients of the family with this number, in files."""
    start = train(None, examples(3000, 1, turn=0.0, family=number), lr=2e-3, epochs=8, seed=1000 * number)
    data = examples(300, 2, family=number)
    found = []
    for run in range(RUNS):
        lr = (5e-4, 1e-3, 2e-3, 4e-3)[run % 4]
        state = train(start, data, lr=lr, epochs=10, seed=1000 * number + run)
        save_file(state, folder / f"{run}.safetensors")
        found.append(open_checkpoint(folder / f"{run}.safetensors"))
    return found


class Evaluator:
    """Scores of mixtures on one set, in memory."""

    def __init__(self, checkpoints: Sequence[Checkpoint], data: tuple[Tensor, Tensor]) -> None:
        self.states = {one: load_file(one.path) for one in checkpoints}
        self.data, self.net = data, build().eval()

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """The accuracy of a mixture; no evaluation is stopped."""
        del at_least
        logits_nk = self.logits(weights)
        outcomes = {name: METRICS[name].contribution(logits_nk, self.data[1]) for name in ("accuracy", "nll")}
        return score_of(outcomes, "accuracy", examples=len(self.data[1]))

    @torch.no_grad()
    def logits(self, weights: Mixture) -> Tensor:
        """[N, K]."""
        mixed: State = {}
        for name in self.net.state_dict():
            row = (weights.coefficients or {}).get(name, weights.weights)
            shares = zip(row, weights.members, strict=True)
            mixed[name] = sum(share * self.states[member][name].double() for share, member in shares).float()  # type: ignore[union-attr]
        self.net.load_state_dict(mixed)
        logits_nk: Tensor = self.net(self.data[0])
        return logits_nk

    def predict(self, ensembles: Sequence[Mixture]) -> list[Score]:
        """Scores of ensembles of averaged logits."""
        alone = {one: self.logits(Mixture.uniform([one])) for one in self.states}
        found = []
        for ensemble in ensembles:
            logits_nk = torch.stack([alone[member] for member in ensemble.members]).mean(dim=0)
            right = METRICS["accuracy"].contribution(logits_nk, self.data[1])
            found.append(score_of({"accuracy": right}, "accuracy", examples=len(right)))
        return found


class Outcome(NamedTuple):
    """Accuracies on the set that selected and on the test examples, and what a fit says of itself."""

    val: float
    test: float
    fit: LearnedSoup | None = None
    start_loss: float = math.nan  # on the test examples
    loss: float = math.nan
    loss_stderr: float = math.nan  # of their difference


def outcomes(
    checkpoints: list[Checkpoint], drawn: tuple[Tensor, Tensor], rows: Sequence[str], test: Evaluator
) -> Iterator[tuple[str, Outcome]]:
    """Every method on one draw of examples."""
    val = Evaluator(checkpoints, drawn)
    ranking = rank(checkpoints, val)
    best = Mixture.uniform([ranking[0].checkpoint])
    yield "best ingredient", _outcome(best, val, test)
    yield "uniform", _outcome(Mixture.uniform(checkpoints), val, test)
    for name in rows:
        if name in SEARCHES:
            yield name, _outcome(searched(ranking, val, SEARCHES[name]), val, test)
        elif name in BUDGETS:
            yield name, _outcome(evolved(ranking, checkpoints, val, BUDGETS[name]), val, test)
        else:
            yield name, fitted(checkpoints, FITS[name], val, test)


def searched(ranking: Sequence[Ranked], val: Evaluator, settings: Greedy) -> Mixture:
    """The soup of a search."""
    return search(ranking, val, settings, predict=val.predict).soup.mixture


def evolved(ranking: Sequence[Ranked], checkpoints: Sequence[Checkpoint], val: Evaluator, budget: int) -> Mixture:
    """The soup of `soup learned --by search`, one coefficient for each ingredient, by accuracy; nothing held out."""
    rival = ScoredMixture(None, Mixture.uniform([ranking[0].checkpoint]), ranking[0].score)
    judge = Judge(lambda alpha_lk: Mixture(tuple(checkpoints), tuple(alpha_lk[0].tolist())), val, val)
    start_lk = torch.full((1, len(checkpoints)), 1 / len(checkpoints), dtype=torch.float64)
    sampler = Evolution(free=len(checkpoints) - 1, seed=0)
    return search_coefficients(start_lk, judge, sampler, budget=budget, rival=rival).mixture


def fitted(checkpoints: list[Checkpoint], settings: Learned, val: Evaluator, test: Evaluator) -> Outcome:
    """A learned soup, its test loss held against that of its start."""
    module = build().eval()
    live = LiveNetwork(Network(module), CPU)
    live.load(Mixture.uniform(checkpoints[:1]))
    task = LabelledSet(ArrayExamples(*val.data, "val"), lambda: Network(module).forward, "val", CPU, 256)
    learnt = learn(live, checkpoints, task, settings, start=checkpoints)
    mixture = learnt.layered.mixture(dtype=None, keep_from=checkpoints[0])
    losses = [test(each).outcomes["nll"] for each in (Mixture.uniform(checkpoints), mixture)]
    worse_n = losses[1] - losses[0]
    error = float(worse_n.std()) / math.sqrt(len(worse_n))
    start, soup = (float(each.mean()) for each in losses)
    return _outcome(mixture, val, test)._replace(fit=learnt.soup, start_loss=start, loss=soup, loss_stderr=error)


def _outcome(mixture: Mixture, val: Evaluator, test: Evaluator) -> Outcome:
    return Outcome(100 * val(mixture).value, 100 * test(mixture).value)


def gains(found: dict[str, list[Outcome]]) -> Iterator[tuple[str, str]]:
    """For each method its mean gains over the best ingredient: `val / test`."""
    best = found["best ingredient"]
    for name, each in found.items():
        if name != "best ingredient":
            pairs = list(zip(each, best, strict=True))
            yield name, f"{_mean([a.val - b.val for a, b in pairs])} / {_mean([a.test - b.test for a, b in pairs])}"


def _mean(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):+.2f} ± {error:.2f}"


def fits(found: dict[str, list[Outcome]]) -> Iterator[tuple[str, str]]:
    """For each kind of fit: how often its test loss is surely above its start's, and how many of these warned."""
    for name, each in found.items():
        made = [(one, one.fit) for one in each if one.fit is not None]
        if made:
            worse = [(one, fit) for one, fit in made if one.loss - one.start_loss > one.loss_stderr]
            silent = sum(fit.warning is None for _, fit in worse)
            kept = sum(fit.kept == 0 for _, fit in made)
            change = statistics.mean(one.loss - one.start_loss for one, _ in made)
            yield name, f"{change:+.4f}; start kept {kept}; worse {len(worse)}, silent {silent} of {len(made)}"


def table(columns: dict[int, dict[str, str]]) -> str:
    """Markdown: a column for each size."""
    lines = [f"| | {' | '.join(f'n = {n:,}' for n in columns)} |", f"|---|{'---|' * len(columns)}"]
    names = next(iter(columns.values()))
    lines += [f"| {name} | {' | '.join(cells[name] for cells in columns.values())} |" for name in names]
    return "\n".join(lines)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the family and of the draws")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 300, 1000])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    options = parser.parse_args()
    began = time.monotonic()
    of_gains: dict[int, dict[str, str]] = {}
    of_fits: dict[int, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = family(Path(folder), options.seed)
        test = Evaluator(checkpoints, examples(6000, 4, family=options.seed))
        for n in options.sizes:
            found: dict[str, list[Outcome]] = {}
            for draw in range(options.draws):
                drawn = examples(n, 100 * n + draw, family=options.seed)
                for name, one in outcomes(checkpoints, drawn, options.rows, test):
                    found.setdefault(name, []).append(one)
            of_gains[n], of_fits[n] = dict(gains(found)), dict(fits(found))
            print(f"n = {n} done: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for columns in (of_gains, of_fits):
        if next(iter(columns.values())):
            print(f"{table(columns)}\n")
    print(f"{options.draws} draws, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
