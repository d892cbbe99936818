"""An `Evaluate` for each validation set, over one live network, with the scores of earlier runs kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from soupcli import processes
from soupcli.cache_folder import cache_folder
from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.content_hash import ContentHashes
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.selection import Selected, sources
from soupcli.checkpoints.soup_files import write_soup
from soupcli.errors import NetworkError, ValidationError
from soupcli.leftovers import scratch_folder
from soupcli.network import Batch, Forward, Network
from soupcli.networks import flops, residence
from soupcli.networks.batch_norm import calibration_batches, layers_with_statistics, recalibrate
from soupcli.networks.building import build
from soupcli.networks.computing import arrange, computing, eagerly
from soupcli.networks.live import LiveNetwork
from soupcli.progress import Progress
from soupcli.python_file import content_of, users_code
from soupcli.recipe.networks import PythonNetwork
from soupcli.recipe.recipe import Recipe
from soupcli.recipe.sets import CommandSet, ImagesSet, LmEvalSet, PythonSet, SetSpec, TextSet, TokensSet
from soupcli.validation import command_task, in_process, lm_eval_task, loading, prompts, python_task, tokens
from soupcli.validation.batching import BatchSize, unsaid
from soupcli.validation.contents import ContentStore, contents_of, shared
from soupcli.validation.difficulty import Difficulty
from soupcli.validation.ensembles import Ensembles
from soupcli.validation.examples import ArrayExamples, Examples
from soupcli.validation.input_cache import InputCache
from soupcli.validation.labelled import Labelled
from soupcli.validation.loading import ExampleSet, LabelledSet
from soupcli.validation.metrics import metric_named
from soupcli.validation.parts import Part, part_of, whole_of
from soupcli.validation.saved_logits import Collected, LogitFile, LogitFolder, Source
from soupcli.validation.score import Evaluate, MetricValue, Score
from soupcli.validation.score_store import ScoreStore, key_of
from soupcli.versions import versions


class Evaluators:
    """Evaluates mixtures on the sets of a run.

    `examples` counts what went through the network, `inputs` what was decoded; the sets `on_device` live there whole.
    `warn` is told what a user should know. The network is built, and inputs are decoded, when a score is asked for that
    no earlier run has kept. Raises ValidationError at once for a metric that is not known and for a set whose files are
    not there.
    """

    def __init__(
        self,
        recipe: Recipe,
        sets: Mapping[str, SetSpec],
        device: torch.device,
        first: Checkpoint,
        hashes: ContentHashes,
        store: ScoreStore,
        progress: Progress,
        warn: Callable[[str], None] = unsaid,
        logits: LogitFolder | None = None,
        *,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        self.recipe = recipe
        self.sets = sets
        self.parts = parts or {}
        self.device = device
        self.examples = 0
        self._first = first
        self._hashes = hashes
        self._store = store
        self.inputs = InputCache(cache_folder() / "inputs" if recipe.cache_inputs else None, say=warn)
        self.on_device: tuple[str, ...] = ()
        self._progress = progress
        self._again: set[str] = set()
        self._expected: list[Mixture] = []
        self._logits = logits
        self._batch_size = BatchSize(recipe.batch_size, say=warn)
        self._network: Network | None = None
        self._live: LiveNetwork | None = None
        self._examples: dict[str, Examples] = {}
        self._whole: dict[str, Examples] = {}
        self._difficulty = {name: Difficulty() for name in sets}
        self._tasks: dict[str, lm_eval_task.Tasks] = {}
        self._zero_shot: tuple[tuple[prompts.Prompts, Mixture], Forward] | None = None
        for name, spec in sets.items():
            if isinstance(spec, ExampleSet):
                for metric in self.metrics_of(name):
                    metric_named(metric)
        if recipe.cost.flops:
            self._counted_set()
        self._fingerprints = {name: self._fingerprint(name, spec) for name, spec in sets.items()}
        self._contents = ContentStore(store.folder.parent / "contents")

    def on(self, name: str) -> Evaluate:
        """What evaluates mixtures on the set `name`."""

        def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
            score = processes.from_first(lambda: self._kept(name, weights, at_least))
            if score is None:
                with users_code():
                    dealt = self._dealt(name, weights) if at_least is None else []
                    measured = dealt or [(weights, self._measure(name, weights, at_least))]
                for one, of_one in measured:
                    self._keep(name, one, of_one)
                score = next(of_one for one, of_one in measured if one == weights)
            if score.difficulty is not None:
                self._difficulty[name].add(_shares(weights), score.difficulty)
            return score

        return evaluate

    @contextmanager
    def expecting(self, mixtures: Sequence[Mixture]) -> Iterator[None]:
        """Within the block these are evaluated whole: several processes may each take one of them."""
        self._expected = list(mixtures)
        try:
            yield
        finally:
            self._expected = []

    @property
    def again(self) -> int:
        """Scores that were known, and measured again because the logits were not."""
        return len(self._again)

    def _keep(self, name: str, weights: Mixture, score: Score) -> None:
        self.examples += score.examples
        if processes.is_first() and (key := self._key(name, weights)) is not None:
            self._store.put(key, score)

    def _dealt(self, name: str, weights: Mixture) -> list[tuple[Mixture, Score]]:
        """The mixture and others that are expected, each evaluated by one process; none where all share the set."""
        spec = self.sets[name]
        if processes.count() == 1 or weights not in self._expected or not isinstance(spec, ExampleSet):
            return []
        unknown = processes.from_first(lambda: self._unknown(name, besides=weights))
        of_round = [weights, *(self._expected[place] for place in unknown)][: processes.count()]
        examples = self._load(name, spec)  # the first process decodes before the others do
        batches = -(-len(examples.labels) // self._batch_size.even(len(examples.labels)))
        if not processes.deals_out(len(of_round), batches):
            return []
        if self.recipe.batch_norm != "average":
            self._load(*self._calibrating_set())
        own = processes.mine(of_round)
        collected = Collected(examples.labels, examples.kind) if own is not None and self._wants_logits(name) else None
        with processes.by_itself():
            score = self._measure_examples(name, spec, own, None, collected) if own is not None else None
        done = processes.gathered((score, self._batch_size.most))
        self._batch_size.most = min(most for _, most in done)
        for one, logits in zip(of_round, processes.to_first(collected), strict=False):
            if logits is not None and (file := self.logit_file(name, one)) is not None:
                file.save(logits)
        return [(one, found) for one, (found, _) in zip(of_round, done, strict=False) if found is not None]

    def _unknown(self, name: str, *, besides: Mixture) -> list[int]:
        """Places of expected mixtures whose scores are not known, as many as there are other processes."""
        expected = enumerate(self._expected)
        unknown = (place for place, one in expected if one != besides and self._kept(name, one, None) is None)
        return list(islice(unknown, processes.count() - 1))

    def _kept(self, name: str, weights: Mixture, at_least: float | None) -> Score | None:
        """The score that an earlier run has kept, where its logits are kept too if they are asked for."""
        key = self._key(name, weights)
        stop = at_least if self.recipe.early_stop else None
        score = self._store.get(key, at_least=stop) if key is not None else None
        file = self.logit_file(name, weights) if score is not None else None
        if file is not None and not file.is_there:
            self._again.add(str(key))
            return None
        return score

    def on_all(self, weights: Mixture) -> dict[str, Score]:
        """The mixture's score on every set."""
        return {name: self.on(name)(weights) for name in self.sets}

    def logit_file(self, name: str, weights: Mixture) -> LogitFile | None:
        """Where a network's logits on the set `name` are kept; None for mixtures, and where none are asked for."""
        alone = len(weights.members) == 1 and weights.is_uniform and weights.dtype is None
        if not alone or not self._wants_logits(name) or self._logits is None:
            return None
        parts, member, fingerprint = self._parts(name, weights), weights.members[0], self._fingerprints[name]
        if parts is None or fingerprint is None:
            return None
        return self._logits.file(Source(key_of(parts), self._hashes.of(member), fingerprint, str(member.path), name))

    def _wants_logits(self, name: str) -> bool:
        return self._logits is not None and isinstance(self.sets[name], LabelledSet)

    def ensembles(self, name: str, members: Sequence[Checkpoint], metrics: Sequence[str]) -> Ensembles:
        """What scores ensembles of `members` on the set `name`; networks whose logits are missing are evaluated.

        Raises ValidationError for a set that has no logits.
        """
        files: dict[Checkpoint, LogitFile] = {}
        for member in members:
            file = self.logit_file(name, Mixture.uniform([member]))
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
        """The metric that selects on the set `name`."""
        spec = self.sets[name]
        if isinstance(spec, TokensSet):
            return "perplexity"
        return (None if isinstance(spec, PythonSet) else spec.metric) or self.recipe.metric

    def metrics_of(self, name: str) -> list[str]:
        """All metrics that the recipe asks of the set `name`, the selecting one first."""
        whole = whole_of(name)
        gates = [gate.metric for gate in self.recipe.wanted if gate.set in (name, whole) and gate.metric is not None]
        return list(dict.fromkeys([self.metric_of(name), *self.recipe.metrics, *gates]))

    def shared(self, name: str, others: str) -> int | None:
        """How many examples of a set are also in another, None where nobody has looked into one of them."""
        own, other = (self._contents.get(self._key_of_contents(one)) for one in (name, others))
        return shared(own, other) if own is not None and other is not None else None

    def running_statistics(self, weights: Mixture) -> dict[str, Tensor]:
        """Batch-norm statistics re-estimated for `weights`, by their names there, where they go into the soup."""
        if self.recipe.batch_norm != "recalibrate":
            return {}
        with users_code():
            return self._statistics(weights)

    def flops(self) -> tuple[str, int]:
        """A set of examples, and the operations of a forward pass of the first example that is visited there."""
        name, spec = self._counted_set()
        key = key_of({"flops": self._fingerprints[name], "network": self._network_identity(), "versions": versions()})
        kept = self._store.get(key)
        if kept is None:
            weights = Mixture.uniform([self._first])
            with users_code():
                self.live.load(weights)
                examples = self._load(name, spec)
                batch = examples.batch(examples.order()[:1], self.device)
                operations = flops.count(eagerly(self._forward(name, spec, weights)), batch)
            kept = Score({"flops": MetricValue(operations, None, 1)}, "flops", False, 1, {})
            self._store.put(key, kept)
        return name, int(kept.value)

    def _counted_set(self) -> tuple[str, ExampleSet]:
        """The first set whose examples go through the network here, one by one."""
        for name, spec in self.sets.items():
            if isinstance(spec, ExampleSet):
                return name, spec
        raise ValidationError(
            "cost.flops: needs a set of images, text, arrays or tokens, to show the network an example of it",
            hint="name one with --val, or leave --flops out",
        )

    def labelled(self, name: str) -> Labelled:
        """The set's examples, and the network's logits for them at whatever weights it has when it is asked.

        Raises ValidationError for sets without one class for each example.
        """
        spec = self.require_labelled(name)
        examples = self._load(name, spec)
        if examples.kind != "classes":
            raise ValidationError(
                f"val.{name}: coefficients are fitted on one class for each example, not on {examples.kind}"
            )

        def forward() -> Forward:
            return self._judged(name, spec, eagerly(self._classifier(name, spec) or self.network.forward))

        return Labelled(examples, forward, f"val.{name}", self.device, self.recipe.batch_size)

    def require_labelled(self, name: str) -> LabelledSet:
        """The set. Raises ValidationError for one that shows no labelled examples: its score has no gradient."""
        spec = self.sets[name]
        if not isinstance(spec, LabelledSet):
            kind = type(spec).__name__.removesuffix("Set").lower()
            raise ValidationError(
                f"val.{name}: coefficients are fitted on labelled examples, which a {kind} set does not show",
                hint="name a set of images, text or arrays first: --val SET",
            )
        return spec

    def key_of_fit(self, name: str, start: Mixture, settings: Mapping[str, Any]) -> str:
        """The key of coefficients that are fitted on the set `name` from `start` on."""
        return key_of({"start": self._key(name, start), "batch_size": self.recipe.batch_size, **settings})

    @property
    def batch_size(self) -> int:
        """Examples that go through the network at a time: less than was asked for where memory ran out."""
        return self._batch_size.most

    @property
    def network(self) -> Network:
        """The recipe's network, without weights."""
        if self._network is None:
            self._network = build(self.recipe.model, self._first)
        return self._network

    @property
    def live(self) -> LiveNetwork:
        """The network that weights go into."""
        if self._live is None:
            again = self.recipe.batch_norm != "average" and layers_with_statistics(self.network.module)
            self._live = LiveNetwork(self.network, self.device, settle=self._settle if again else None)
            recipe = self.recipe
            arrange(self.network, channels_last=recipe.channels_last, compiled=recipe.compile)
        return self._live

    def _measure(self, name: str, weights: Mixture, at_least: float | None) -> Score:
        spec = self.sets[name]
        if not isinstance(spec, ExampleSet):
            return processes.from_first(lambda: self._measure_whole(spec, name, weights))
        file = self.logit_file(name, weights) if processes.is_first() else None
        examples = self._load(name, spec)
        collected = Collected(examples.labels, examples.kind) if file is not None else None
        score = self._measure_examples(name, spec, weights, at_least, collected)
        if file is not None and collected is not None and score.stopped is None:
            file.save(collected)
        return score

    def _measure_examples(
        self, name: str, spec: ExampleSet, weights: Mixture, at_least: float | None, collected: Collected | None
    ) -> Score:
        self.live.load(weights)
        examples = self._load(name, spec)
        return in_process.score(
            self._forward(name, spec, weights),
            examples,
            name=f"val.{name}",
            metrics=self.metrics_of(name),
            device=self.device,
            batch_size=self._batch_size,
            at_least=at_least,
            give_up=self.recipe.early_stop,
            difficulty=self._difficulty[name].expected(_shares(weights)) if at_least is not None else None,
            keep=collected,
            progress=self._progress,
        )

    def _measure_whole(self, spec: SetSpec, name: str, weights: Mixture) -> Score:
        """The score on a set whose examples are not seen here."""
        metric = self.metric_of(name)
        if isinstance(spec, CommandSet):
            return self._run_command(spec, weights, metric)
        self.live.load(weights)
        if isinstance(spec, PythonSet):
            try:
                return python_task.score(spec, self.live.network.module, self.device, metric=metric)
            finally:
                self.live.forget()
        assert isinstance(spec, LmEvalSet)
        try:
            module, size = self.live.network.module, self.recipe.batch_size
            return self._harness(name, spec).score(module, self.network.tokenizer, batch_size=size)
        finally:
            self.live.forget()

    def _forward(self, name: str, spec: ExampleSet, weights: Mixture) -> Forward:
        """Inputs to what the set's metrics take, computed as the recipe says."""
        recipe, device = self.recipe, self.device
        if isinstance(spec, TokensSet):
            forward = tokens.likelihood_of(self.network.forward, len(self.network.tokenizer))
        else:
            with torch.inference_mode():
                classifier = self._classifier(name, spec, weights)
            forward = self._judged(name, spec, classifier or self.network.forward)
        return computing(forward, amp=recipe.amp, channels_last=recipe.channels_last, device=device)

    def _judged(self, name: str, spec: LabelledSet, forward: Forward) -> Forward:
        """The logits of those classes that the set covers."""
        classes = self._load(name, spec).classes
        return classes.onto(forward) if classes is not None else forward

    def _classifier(self, name: str, spec: LabelledSet, weights: Mixture | None = None) -> Forward | None:
        """What makes logits of networks that are no classifiers themselves, for their present weights; else None.

        A CLIP network's zero-shot classifier is built once for all sets of the same class names and templates where
        the weights are known; a network from text to text is asked how likely the words of the labels are.
        """
        if self.network.answers is not None and isinstance(spec, TextSet):
            if spec.labels is None:
                raise NetworkError(
                    f"val.{name}: the network answers in words, and the set does not say which",
                    hint="labels: [negative, positive], in the order of the classes",
                )
            return self.network.answers(self.network.module, spec.labels)
        zero_shot = self.network.zero_shot
        classnames = spec.classnames if isinstance(spec, ImagesSet) else None
        if zero_shot is None and classnames is None:
            return None
        if zero_shot is None:
            raise NetworkError(f"val.{name}: classnames: are for a CLIP network", hint="model: {open_clip: NAME}")
        if classnames is None:
            raise NetworkError(
                f"val.{name}: a CLIP network needs classnames: to classify", hint="classnames: FILE, one name a line"
            )
        words = prompts.read(classnames, spec.templates if isinstance(spec, ImagesSet) else None)
        if weights is None:
            return zero_shot(self.network.module, *words)
        if self._zero_shot is None or self._zero_shot[0] != (words, weights):
            self._zero_shot = (words, weights), zero_shot(self.network.module, *words)
        return self._zero_shot[1]

    def _run_command(self, spec: CommandSet, weights: Mixture, metric: str) -> Score:
        """An ingredient is evaluated where it lies; a mixture is written for the command and removed after it."""
        command_task.split(spec.command)
        first = weights.members[0].path
        as_it_lies = len(weights.members) == 1 and not isinstance(weights.members[0], Selected)
        if as_it_lies and weights.dtype is None and self.recipe.batch_norm == "average":
            return command_task.score(spec, first, metric=metric)
        with scratch_folder() as folder:
            written, _ = write_soup(
                weights,
                folder,
                metadata={"format": "pt"},
                max_shard_size=self.recipe.max_shard_size,
                overrides=self._statistics(weights) if self.recipe.batch_norm != "average" else {},
            )
            for file in weights.kept.side_files:
                (folder / file.name).write_bytes(file.read_bytes())
            alone = not first.is_dir() and len(written.files) == 1
            return command_task.score(spec, folder / written.files[0] if alone else folder, metric=metric)

    def _load(self, name: str, spec: ExampleSet) -> Examples:
        if name not in self._examples:
            examples, part = self._load_whole(name, spec), self.parts.get(name)
            if part is not None:
                examples = part_of(examples, part, str(self._fingerprints[name]))
            key = self._key_of_contents(name)
            if processes.is_first() and self._contents.get(key) is None:
                self._contents.put(key, contents_of(examples))
            self._examples[name] = examples
        return self._examples[name]

    def _load_whole(self, name: str, spec: ExampleSet) -> Examples:
        """The set that `name` is, or is a part of."""
        whole = whole_of(name) if name in self.parts else name
        if whole not in self._whole:
            with processes.first_before_others():
                examples = loading.load(
                    spec,
                    self.network,
                    name=f"val.{whole}",
                    beside=str(self._first.path),
                    metric=self.metric_of(name),
                    workers=self.recipe.workers,
                    cache=self.inputs,
                    mark=key_of({"network": self._network_identity()}),
                    progress=self._progress,
                )
            self._whole[whole] = self._settled(whole, examples)
        return self._whole[whole]

    def _key_of_contents(self, name: str) -> str:
        return key_of({"set": self._fingerprints[name], "network": self._network_identity()})

    def _settled(self, name: str, examples: Examples) -> Examples:
        """The whole set on a CUDA device, where it fits beside the network, its sum and what a batch needs."""
        if self.device.type != "cuda" or not isinstance(examples, ArrayExamples):
            return examples
        network = sum(tensor.nbytes for tensor in self.network.module.state_dict().values())
        if residence.plan(examples.inputs.nbytes, 4 * network, self.device, wanted="auto").where != "device":
            return examples
        self.on_device += (name,)
        return replace(examples, inputs=examples.inputs.to(self.device))

    def _harness(self, name: str, spec: LmEvalSet) -> lm_eval_task.Tasks:
        if name not in self._tasks:
            self._tasks[name] = lm_eval_task.load(spec)
        return self._tasks[name]

    def _fingerprint(self, name: str, spec: SetSpec) -> str | None:
        """Changes with everything in the set, and not with where it lies; None where code of the user's is the set."""
        if isinstance(spec, LmEvalSet):
            return self._harness(name, spec).fingerprint
        found, part = loading.fingerprint(spec), self.parts.get(name)
        return found if part is None else f"{found}:{json.dumps([part.share, part.held_out])}"

    def _calibrating_set(self) -> tuple[str, LabelledSet]:
        """The first set whose inputs this program makes itself: batch-norm statistics are re-estimated from it."""
        for name, spec in self.sets.items():
            if isinstance(spec, LabelledSet):
                return name, spec
        raise ValidationError(
            f"batch_norm: {self.recipe.batch_norm} needs a set of images, text or arrays to re-estimate from",
            hint="name one with --val, or batch_norm: average",
        )

    def _settle(self, weights: Mixture) -> None:
        """Re-estimates running statistics, then rounds them as the soup's file does."""
        examples = self._load(*self._calibrating_set())
        recalibrate(self.network.module, eagerly(self.network.forward), self._calibrating_inputs(examples))
        for name, place in self._statistics_of(weights).items():
            place.copy_(place.to(weights.spec(name).dtype))

    def _calibrating_inputs(self, examples: Examples) -> Iterator[Batch]:
        done = 0
        for indices in calibration_batches(len(examples.labels)):
            yield examples.batch(indices, self.device)
            done += len(indices)
            self._progress("re-estimating batch norm", done, len(examples.labels))

    def _statistics(self, weights: Mixture) -> dict[str, Tensor]:
        """Copies of the running statistics that an evaluation of `weights` works with."""
        if not layers_with_statistics(self.network.module):
            return {}
        self.live.load(weights)
        return {name: place.detach().to("cpu", copy=True) for name, place in self._statistics_of(weights).items()}

    def _statistics_of(self, weights: Mixture) -> dict[str, Tensor]:
        """The live network's running means and variances, by their names in the checkpoints."""
        layers = layers_with_statistics(self.network.module)
        own = {id(tensor) for layer in layers for tensor in (layer.running_mean, layer.running_var)}
        return {name: place for name, place in self.live.places(weights.kept).items() if id(place) in own}

    def _key(self, name: str, weights: Mixture) -> str | None:
        """The key of a score, None where something unknown determines it: a function or a command of the user."""
        parts = self._parts(name, weights)
        return key_of({**parts, "metrics": self.metrics_of(name)}) if parts is not None else None

    def _parts(self, name: str, weights: Mixture) -> dict[str, Any] | None:
        """What determines the outputs of a network on a set; None where something unknown does."""
        if self._fingerprints[name] is None:
            return None
        hashes = [self._hashes.of(member) for member in weights.members]
        selected = any(isinstance(member, Selected) for member in weights.members)
        members = sorted(zip(hashes, weights.weights, strict=True))
        average = self.recipe.batch_norm == "average"
        return {
            "members": members,
            "coefficients": [hashes, dict(weights.coefficients)] if weights.coefficients else None,
            "kept": self._hashes.of(weights.kept),
            "selection": [self.recipe.include, self.recipe.exclude] if selected else None,
            "sources": sorted({self._hashes.of(other) for member in weights.members for other in sources(member)}),
            "dtype": str(weights.dtype),
            "set": self._fingerprints[name],
            "network": self._network_identity(),
            "batch_norm": None if average else [self._fingerprints[self._calibrating_set()[0]]],
            "device": self.device.type,
            "computing": [self.recipe.amp, self.recipe.channels_last, self.recipe.compile],
            "versions": versions(),
        }

    def _network_identity(self) -> list[Any]:
        """What the network is built from: its recipe, the user's code, the configuration beside the weights."""
        spec = self.recipe.model
        files = [file for one in (self._first, *sources(self._first)) for file in one.side_files]
        beside = [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files]
        if isinstance(spec, PythonNetwork):
            code = [content_of(reference) for reference in (spec.python, spec.transform) if reference is not None]
            return ["python", spec.args, code, beside]
        return [spec.model_dump(mode="json") if spec is not None else None, beside]


def _shares(weights: Mixture) -> dict[str, float]:
    """The weight of each member, by its path."""
    shares: dict[str, float] = {}
    for member, weight in zip(weights.members, weights.weights, strict=True):
        shares[str(member.path)] = shares.get(str(member.path), 0.0) + weight
    return shares
