"""An `Evaluate` for each validation set, over one live network, with the scores of earlier runs kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from soupcli import processes
from soupcli.datasets.input_cache import InputCache
from soupcli.datasets.load import kind_of
from soupcli.datasets.overlap import ContentStore
from soupcli.environment import cache_folder, versions
from soupcli.errors import ValidationError
from soupcli.evaluation import loop as in_process
from soupcli.evaluation.batches import BatchSize
from soupcli.evaluation.ensembles import Ensembles
from soupcli.evaluation.hardest_first import Difficulty
from soupcli.evaluation.keys import Keys
from soupcli.evaluation.logits import Collected, LogitFile
from soupcli.evaluation.outside.lm_eval import LoadedTasks
from soupcli.evaluation.outside.measure import OutsideSets
from soupcli.evaluation.outside.user_function import Stop
from soupcli.evaluation.runner import NetworkRunner
from soupcli.evaluation.score import Evaluate, Score
from soupcli.evaluation.scores_of_run import ScoresOfRun
from soupcli.files.json_text import key_of
from soupcli.metrics.metric import MetricValue
from soupcli.metrics.table import metric_named
from soupcli.mixing.mixture import Mixture
from soupcli.user_code.function import users_code

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.evaluation.labelled_set import LabelledSet
    from soupcli.networks.live import LiveNetwork
    from soupcli.networks.network import Network
    from soupcli.recipe.sets import SetSpec


class Evaluators:
    """Evaluates mixtures on the sets of a run.

    `examples` counts what went through the network, `inputs` what was decoded. Sets in `on_device` are there whole.
    The network is built, and inputs are decoded, when a score is needed that no earlier run has kept. Raises
    ValidationError at once for an unknown metric and for a set whose files are missing.
    """

    def __init__(self, context: EvaluationContext) -> None:
        recipe, sets = context.recipe, context.sets
        self.context = context
        folder = cache_folder() / "inputs" if recipe.cache_inputs else None
        self.inputs = InputCache(folder, manifest=context.manifest, limit=recipe.cache_limit, say=context.warn)
        self._batch_size = BatchSize(recipe.batch_size, say=context.warn)
        self._difficulty = {name: Difficulty() for name in sets}
        self._expected: list[Mixture] = []
        self._counted: dict[str, int | None] = {}  # examples of each set, once it was evaluated whole
        if recipe.cost.flops:
            context.counted_set()
        _check_metrics(context)
        self._tasks = LoadedTasks(trust_code=context.trust_code)
        self._keys = Keys(context, self._tasks)
        self._scores = ScoresOfRun(context, self._keys)
        contents = ContentStore(context.store.folder.parent / "contents", inputs=context.manifest)
        self._runner = NetworkRunner(context, self._keys, self.inputs, contents)
        self._outside = OutsideSets(context, self._runner, self._tasks, self._scores.keep_early)

    def on(self, name: str) -> Evaluate:
        """Return the function that evaluates mixtures on the set `name`."""

        def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
            score = processes.from_first(lambda: self._scores.get(name, weights, at_least))
            if score is None:
                with users_code():
                    dealt = self._dealt(name, weights, at_least)
                    measured = dealt or [(weights, self._measure(name, weights, at_least))]
                for one, of_one in measured:
                    self._scores.keep(name, one, of_one)
                score = next(of_one for one, of_one in measured if one == weights)
            if score.stopped is None:
                self._counted[name] = score.metrics[score.selecting].n
            if score.difficulty is not None:
                self._difficulty[name].add(_shares(weights), score.difficulty)
            self._scores.tell(name, weights, score)
            return score

        return evaluate

    @contextmanager
    def expecting(self, mixtures: Sequence[Mixture]) -> Iterator[None]:
        """Announce mixtures for the block. They are evaluated whole, so several processes may each take one."""
        self._expected = list(mixtures)
        try:
            yield
        finally:
            self._expected = []

    @property
    def again(self) -> int:
        """The number of scores that were kept, and are measured again because their logits were not."""
        return len(self._scores.again)

    @property
    def examples(self) -> int:
        """Examples that went through the network, or through what others run."""
        return self._scores.examples

    def count(self, examples: int) -> None:
        """Add `examples` that went through the network without a score, such as those of a fit."""
        self._scores.examples += examples

    def on_all(self, weights: Mixture) -> dict[str, Score]:
        """Return the mixture's score on every set."""
        return {name: self.on(name)(weights) for name in self.context.sets}

    def ensembles(self, name: str, members: Sequence[Checkpoint], metrics: Sequence[str]) -> Ensembles:
        """Return the scorer of ensembles of `members` on the set `name`. Networks without kept logits are evaluated.

        Raises ValidationError for a set that has no logits.
        """
        files: dict[Checkpoint, LogitFile] = {}
        for member in members:
            file = self._scores.logit_file(name, Mixture.uniform([member]))
            if file is None:
                raise ValidationError(
                    f"val.{name}: ensembles are scored from logits, which it does not show",
                    hint="name a set of images, text or arrays first: --val SET",
                )
            self.on(name)(Mixture.uniform([member]))
            files[member] = file
        processes.from_first(lambda: None)  # which writes the files that all of them read
        return Ensembles(files, metrics, name=f"val.{name}")

    def metric_of(self, name: str) -> str:
        """Return the metric that selects on the set `name`."""
        return self.context.metric_of(name)

    def metrics_of(self, name: str) -> list[str]:
        """Return all metrics that the recipe wants on the set `name`, the selecting one first."""
        return self.context.metrics_of(name)

    def shared(self, name: str, others: str) -> int | None:
        """Count the examples of a set that are also in another. Returns None if one of them was not loaded."""
        return self._runner.examples.shared(name, others)

    def running_statistics(self, weights: Mixture) -> dict[str, Tensor]:
        """Return batch-norm statistics re-estimated for `weights`, by name, if the soup takes them; otherwise {}."""
        if self.context.recipe.batch_norm != "recalibrate":
            return {}
        with users_code():
            return self._runner.statistics(weights)

    def flops(self) -> tuple[str, int]:
        """Return a set's name, and the FLOPs of a forward pass of the first example that is visited there."""
        name, spec = self.context.counted_set()
        keys, weights = self._keys, Mixture.uniform([self.context.first])
        key = key_of(
            {"flops": keys.fingerprints[name], "network": keys.of_network(self.context.first), "versions": versions()}
        )
        kept = self.context.store.get(key)
        if kept is None:
            with users_code():
                operations = self._runner.operations(name, spec, weights)
            kept = Score({"flops": MetricValue(operations, None, 1)}, "flops", False, 1, {})
            self.context.store.put(key, kept)
        return name, int(kept.value)

    def describe_by(self, checkpoint: Checkpoint) -> None:
        """Take the network and the preparation of its inputs from the files beside `checkpoint`."""
        self._runner.describe_by(checkpoint)

    def labelled(self, name: str) -> LabelledSet:
        """Return the set's examples, and the network's logits for them at its present weights.

        Raises ValidationError for sets without one class for each example.
        """
        return self._runner.labelled(name, self.require_labelled(name))

    def require_labelled(self, name: str) -> SetSpec:
        """Return the set. Raises ValidationError if it shows no labelled examples: its score then has no gradient."""
        spec = self.context.sets[name]
        if not spec.labelled:
            kind = type(spec).__name__.removesuffix("Set").lower()
            raise ValidationError(
                f"val.{name}: coefficients are fitted on labelled examples, which a {kind} set does not show",
                hint="name a set of images, text or arrays first: --val SET",
            )
        return spec

    def key_of_fit(self, name: str, start: Mixture, settings: Mapping[str, Any]) -> str:
        """Return the key of coefficients that are fitted on the set `name` from `start` on.

        A fit holds one coefficient for each member in their order, so the order is a part of its key.
        """
        parts = {"start": self._keys.of_score(name, start), "batch_size": self.context.recipe.batch_size}
        return key_of({**parts, "members": self._keys.of_members(start), **settings})

    def key_of_search(self, names: Sequence[str], start: Mixture, settings: Mapping[str, Any]) -> str | None:
        """Return the key of a coefficient search on the sets `names`, or None if scores there cannot be kept."""
        scores = {name: self._keys.of_score(name, start) for name in names}
        if None in scores.values():
            return None
        return key_of({"start": scores, "members": self._keys.of_members(start), **settings})

    @property
    def batch_size(self) -> int:
        """The number of examples in a batch. It is less than requested if memory ran out."""
        return self._batch_size.most

    @property
    def on_device(self) -> tuple[str, ...]:
        """The sets whose inputs are kept whole on the device."""
        return self._runner.examples.on_device

    @property
    def network(self) -> Network:
        """The recipe's network, without weights."""
        return self._runner.network

    @property
    def live(self) -> LiveNetwork:
        """The network that weights go into."""
        return self._runner.live

    def confirm(self) -> None:
        """Raises ValidationError if an input of the scores has changed meanwhile."""
        self.context.manifest.confirm()
        self._keys.confirm()

    def confirm_read(self, name: str, weights: Mixture) -> None:
        """Raises SoupError if `weights`, or what defines their network, have changed since they were read."""
        self._keys.confirm_read(name, weights)

    def close(self) -> None:
        """End the programs that run beside this process."""
        self._outside.close()

    def _dealt(self, name: str, weights: Mixture, at_least: float | None) -> list[tuple[Mixture, Score]]:
        """Evaluate `weights` and other expected mixtures, one per process; [] if sharing each set is faster."""
        spec = self.context.sets[name]
        if processes.count() == 1 or weights not in self._expected:
            return []
        unknown = processes.from_first(lambda: self._unknown(name, at_least, besides=weights))
        of_round = [weights, *(self._expected[place] for place in unknown)][: processes.count()]
        if not all(self._runner.shares_network(one.kept, weights.kept) for one in of_round):
            return []
        self._runner.describe_by(weights.kept)
        if not spec.shows_examples:
            return self._dealt_outside(name, of_round)
        examples = self._runner.examples.of(name, spec)  # the first process decodes before the others do
        batches = -(-len(examples.labels) // self._batch_size.even(len(examples.labels)))
        if not processes.deals_out(len(of_round), batches):
            return []
        if self.context.recipe.batch_norm != "average":
            self._runner.examples.of(*self.context.calibrating_set())
        own = processes.own_item(of_round)
        collected = (
            Collected(examples.labels, examples.kind) if own is not None and self._scores.wants_logits(name) else None
        )
        with processes.by_itself():
            score = self._measure_examples(name, spec, own, at_least, collected) if own is not None else None
        done = processes.gathered((score, self._batch_size.most))
        self._batch_size.most = min(most for _, most in done)
        for one, logits in zip(of_round, processes.to_first(collected), strict=False):
            whole = logits is not None and logits.is_whole
            if logits is not None and whole and (file := self._scores.logit_file(name, one)) is not None:
                self._keys.confirm_read(name, one)
                file.save(logits)
        return [(one, found) for one, (found, _) in zip(of_round, done, strict=False) if found is not None]

    def _dealt_outside(self, name: str, of_round: Sequence[Mixture]) -> list[tuple[Mixture, Score]]:
        own = processes.own_item(of_round)
        with processes.by_itself():
            score = self._measure_outside(name, own) if own is not None else None
        found = processes.gathered(score)
        return [(one, score) for one, score in zip(of_round, found, strict=False) if score is not None]

    def _measure_outside(self, name: str, weights: Mixture, at_least: float | None = None) -> Score:
        """Measure `weights`. With --jobs other announced mixtures are started as well."""
        if self.context.jobs > 1 and weights in self._expected:
            coming = [one for one in self._expected if one == weights or self._scores.get(name, one, None) is None]
            self._outside.expect(name, [(one, self._keys.of_weights(one)) for one in coming])
        total = self._counted.get(name)
        stop = Stop(at_least, total) if at_least is not None and total and self.context.recipe.early_stop else None
        return self._outside.score(name, weights, self._keys.of_weights(weights), stop)

    def _unknown(self, name: str, at_least: float | None, *, besides: Mixture) -> list[int]:
        """Return the places of announced mixtures with unknown scores, one for each other process."""
        expected = enumerate(self._expected)
        unknown = (place for place, one in expected if one != besides and self._scores.get(name, one, at_least) is None)
        return list(islice(unknown, processes.count() - 1))

    def _measure(self, name: str, weights: Mixture, at_least: float | None) -> Score:
        self._runner.describe_by(weights.kept)
        spec = self.context.sets[name]
        if not spec.shows_examples:
            if kind_of(spec).shares:
                return self._measure_outside(name, weights)
            return processes.from_first(lambda: self._measure_outside(name, weights, at_least))
        file = self._scores.logit_file(name, weights) if processes.is_first() else None
        examples = self._runner.examples.of(name, spec)
        collected = Collected(examples.labels, examples.kind) if file is not None else None
        score = self._measure_examples(name, spec, weights, at_least, collected)
        if file is not None and collected is not None and score.stopped is None:
            self._keys.confirm_read(name, weights)
            file.save(collected)
        return score

    def _measure_examples(
        self, name: str, spec: SetSpec, weights: Mixture, at_least: float | None, collected: Collected | None
    ) -> Score:
        self.live.load(weights)
        examples = self._runner.examples.of(name, spec)
        score = in_process.score(
            self._runner.forward(name, spec, weights),
            examples,
            name=f"val.{name}",
            metrics=self.metrics_of(name),
            device=self.context.device.torch,
            batch_size=self._batch_size,
            at_least=at_least,
            give_up=self.context.recipe.early_stop,
            difficulty=self._difficulty[name].expected(_shares(weights)) if at_least is not None else None,
            keep=collected,
            progress=self.context.progress,
        )
        return score._replace(unseen=self.context.manifest.unseen())


def _check_metrics(context: EvaluationContext) -> None:
    """Raises ValidationError for an unknown metric."""
    for name, spec in context.sets.items():
        if spec.shows_examples:
            for metric in context.metrics_of(name):
                metric_named(metric)


def _shares(weights: Mixture) -> dict[str, float]:
    """Return the weight of each member, by its path."""
    shares: dict[str, float] = {}
    for member, weight in zip(weights.members, weights.weights, strict=True):
        shares[str(member.path)] = shares.get(str(member.path), 0.0) + weight
    return shares
