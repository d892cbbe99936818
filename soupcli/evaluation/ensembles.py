"""Scores ensembles of networks from saved logits, with no forward pass.

    ensemble = Ensembles(files, ["accuracy", "nll", "ece"], name="val.imagenet")
    ensemble(Mixture.uniform(members))         # the Score of the mean of the members' logits

The outputs that are averaged are logits, as in the paper: 1/k sum_i f(x, θ_i) (Wortsman et al. 2022, arXiv:2203.05482,
Table 2), where f are logits (section 4, "logit-ensemble"). Numbers that a network predicts are averaged alike.

Letters in names: m mixtures, k members, n examples, c classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.errors import ValidationError
from soupcli.evaluation.loop import score_of
from soupcli.late import torch
from soupcli.metrics.table import metrics_for

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.logits import LogitFile
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture

BLOCK = 1 << 24  # logits that are averaged at once, in float64


class Ensembles:
    """Scores ensembles of networks whose logits on one set are saved. `examples` of such scores is 0."""

    def __init__(self, files: Mapping[Checkpoint, LogitFile], metrics: Sequence[str], *, name: str) -> None:
        """Messages name the set by `name`. Raises ValidationError for logits of another set, or of other classes."""
        first = next(iter(files.values()))
        self.labels, self.kind = first.labels(), first.kind
        self._files = files
        self._classes = first.rows(0, 1).shape[1]
        self._metrics = metrics_for(metrics, self.kind, where=name)
        self._selecting = metrics[0]
        self._sum = _RunningSum(files, len(self.labels), self._classes)
        for file in files.values():
            if file.rows(0, 1).shape[1] != self._classes or not torch.equal(file.labels(), self.labels):
                raise ValidationError(
                    f"{file.path}: is not of the set of {first.path}", hint="remove it: it is then made anew"
                )

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:  # noqa: ARG002 - see Evaluate
        """See Evaluate. Never stops early. An ensemble that grew by one member reads one file."""
        if not weights.is_uniform:
            return self.scores([weights])[0]
        parts = [self._contributions(mean_nc, rows) for rows, mean_nc in self._sum.means(weights.members)]
        return self._score(parts)

    def scores(self, mixtures: Sequence[Mixture]) -> list[Score]:
        """Return the score of each ensemble. All logits are read once."""
        members = list(dict.fromkeys(member for mixture in mixtures for member in mixture.members))
        weights_mk = torch.zeros(len(mixtures), len(members), dtype=torch.float64)
        for row_k, mixture in zip(weights_mk, mixtures, strict=True):
            for member, weight in zip(mixture.members, mixture.weights, strict=True):
                row_k[members.index(member)] += weight
        parts: list[list[dict[str, Tensor]]] = [[] for _ in mixtures]
        for rows in _blocks(len(self.labels), self._classes * len(members)):
            logits_knc = torch.stack([self._files[member].rows(rows.start, rows.stop) for member in members])
            for row_k, of_mixture in zip(weights_mk, parts, strict=True):
                mean_nc = torch.tensordot(row_k, logits_knc, dims=1)
                of_mixture.append(self._contributions(mean_nc, rows))
        return [self._score(of_mixture) for of_mixture in parts]

    def _contributions(self, mean_nc: Tensor, rows: slice) -> dict[str, Tensor]:
        labels = self.labels[rows]
        return {name: metric.contribution(mean_nc, labels) for name, metric in self._metrics.items()}

    def _score(self, parts: Sequence[Mapping[str, Tensor]]) -> Score:
        outcomes = {name: torch.cat([part[name] for part in parts]) for name in self._metrics}
        return score_of(outcomes, self._selecting, examples=0)


class _RunningSum:
    """The sum of the members' logits, float64 [n, c], without the last member, which is on trial."""

    def __init__(self, files: Mapping[Checkpoint, LogitFile], examples: int, classes: int) -> None:
        self._files = files
        self._shape = examples, classes
        self._members: tuple[Checkpoint, ...] = ()
        self._sum_nc = torch.zeros(0)

    def means(self, members: tuple[Checkpoint, ...]) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of rows with the mean of the members' logits."""
        if not self._members or members[: len(self._members)] != self._members or len(members) == len(self._members):
            self._members, self._sum_nc = (), torch.zeros(self._shape, dtype=torch.float64)
        added, trial = members[len(self._members) : -1], members[-1]
        self._members = ()  # not whole until every row is
        for rows in _blocks(*self._shape):
            for member in added:
                self._sum_nc[rows] += self._files[member].rows(rows.start, rows.stop)
            yield rows, (self._sum_nc[rows] + self._files[trial].rows(rows.start, rows.stop)) / len(members)
        self._members = members[:-1]


def _blocks(examples: int, width: int) -> Iterator[slice]:
    """Yield the rows of each block, if one example takes `width` numbers."""
    step = max(1, BLOCK // width)
    for begin in range(0, examples, step):
        yield slice(begin, min(begin + step, examples))
