"""An `Evaluate` for each validation set, over one live network, with the scores of earlier runs kept."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.content_hash import ContentHashes
from soupcli.checkpoints.mixing import Mixture
from soupcli.checkpoints.writing import write_weights
from soupcli.errors import NetworkError
from soupcli.network import Forward, Network
from soupcli.networks.batch_norm import has_running_statistics, recalibrate
from soupcli.networks.building import build
from soupcli.networks.live import LiveNetwork
from soupcli.progress import Progress
from soupcli.recipe import ArraysSet, CommandSet, ImagesSet, PythonNetwork, PythonSet, Recipe, SetSpec, TextSet
from soupcli.validation import arrays, command_task, images, in_process, python_task, text
from soupcli.validation.examples import Examples, batches
from soupcli.validation.metrics import metric_named
from soupcli.validation.score import Evaluate, Score
from soupcli.validation.score_store import ScoreStore, key_of
from soupcli.versions import versions


class Evaluators:
    """Evaluates mixtures on the sets of a run.

    `examples` counts what went through the network. The network is built, and inputs are decoded, when a score is
    asked for that no earlier run has kept.
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
    ) -> None:
        self.recipe = recipe
        self.sets = sets
        self.device = device
        self.examples = 0
        self._first = first
        self._hashes = hashes
        self._store = store
        self._progress = progress
        self._network: Network | None = None
        self._live: LiveNetwork | None = None
        self._examples: dict[str, Examples] = {}
        self._zero_shot: tuple[tuple[str, Mixture], Forward] | None = None
        self._fingerprints: dict[str, str | None] = {}
        for name, spec in sets.items():
            if not isinstance(spec, PythonSet | CommandSet):
                metric_named(self.metric_of(name))

    def on(self, name: str) -> Evaluate:
        """What evaluates mixtures on the set `name`."""

        def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
            key = self._key(name, weights)
            kept = self._store.get(key) if key is not None else None
            if kept is not None:
                return kept
            score = self._measure(name, weights)
            self.examples += score.examples
            if key is not None:
                self._store.put(key, score)
            return score

        return evaluate

    def on_all(self, weights: Mixture) -> dict[str, Score]:
        """The mixture's score on every set."""
        return {name: self.on(name)(weights) for name in self.sets}

    def metric_of(self, name: str) -> str:
        """The metric that selects on the set `name`."""
        spec = self.sets[name]
        return (spec.metric if isinstance(spec, CommandSet) else None) or self.recipe.metric

    def running_statistics(self, weights: Mixture) -> dict[str, torch.Tensor]:
        """Batch-norm statistics re-estimated for `weights`, where the recipe writes them into the soup."""
        if self.recipe.batch_norm != "recalibrate":
            return {}
        self.live.load(weights)
        return {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in self.live.network.module.state_dict().items()
            if name.rpartition(".")[2] in ("running_mean", "running_var")
        }

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
            settle = None
            if self.recipe.batch_norm != "average" and has_running_statistics(self.network.module):
                settle = self._recalibrate
            self._live = LiveNetwork(self.network, self.device, settle=settle)
        return self._live

    def _recalibrate(self) -> None:
        """Running statistics from the inputs of the first set that has any."""
        name = next((n for n, spec in self.sets.items() if not isinstance(spec, PythonSet | CommandSet)), None)
        if name is None:
            raise NetworkError("batch_norm: needs a validation set of images, text or arrays to re-estimate from")
        examples = self._load(name)
        inputs = (examples.batch(i, self.device) for i in batches(examples.order(), self.recipe.batch_size))
        recalibrate(self.network.module, self.network.forward, inputs)

    def _measure(self, name: str, weights: Mixture) -> Score:
        spec = self.sets[name]
        metric = self.metric_of(name)
        if isinstance(spec, CommandSet):
            return self._run_command(spec, weights, metric)
        self.live.load(weights)
        if isinstance(spec, PythonSet):
            return python_task.score(spec, self.live.network.module, self.device, metric=metric)
        return in_process.score(
            self._forward(name, weights),
            self._load(name),
            metrics=[metric],
            device=self.device,
            batch_size=self.recipe.batch_size,
            task=f"evaluating on {name}",
            progress=self._progress,
        )

    def _forward(self, name: str, weights: Mixture) -> Forward:
        """Inputs to logits; a zero-shot classifier is built once for each set and each weights."""
        spec = self.sets[name]
        if self.network.zero_shot is None:
            return self.network.forward
        if not isinstance(spec, ImagesSet) or spec.classnames is None:
            raise NetworkError(f"val.{name}: a CLIP network needs classnames: to classify", hint="classnames: FILE")
        if self._zero_shot is None or self._zero_shot[0] != (name, weights):
            classnames = spec.classnames.read_text("utf-8").splitlines()
            templates = spec.templates.read_text("utf-8").splitlines() if spec.templates else ["a photo of a {}."]
            with torch.inference_mode():
                forward = self.network.zero_shot(self.network.module, classnames, templates)
            self._zero_shot = (name, weights), forward
        return self._zero_shot[1]

    def _run_command(self, spec: CommandSet, weights: Mixture, metric: str) -> Score:
        """An ingredient is evaluated where it lies; a mixture is written for the command and removed after it."""
        if len(weights.members) == 1 and weights.dtype is None:
            return command_task.score(spec, weights.members[0].path, metric=metric)
        with tempfile.TemporaryDirectory(prefix="soup-") as folder:
            write_weights(weights, Path(folder), metadata={"format": "pt"}, max_shard_size=self.recipe.max_shard_size)
            for file in weights.kept.side_files:
                (Path(folder) / file.name).write_bytes(file.read_bytes())
            return command_task.score(spec, Path(folder), metric=metric)

    def _load(self, name: str) -> Examples:
        if name not in self._examples:
            self._examples[name] = self._read_examples(name)
        return self._examples[name]

    def _read_examples(self, name: str) -> Examples:
        spec, network = self.sets[name], self.network
        if isinstance(spec, ArraysSet):
            return arrays.load(spec)
        if isinstance(spec, ImagesSet):
            if network.pictures is None:
                raise NetworkError(
                    f"val.{name}: the network says nothing of how it sees pictures",
                    hint="add transform: 'net.py:transform' to model:, a function from a PIL picture to a tensor",
                )
            return images.load(spec, network.pictures, workers=self.recipe.workers, progress=self._progress)
        assert isinstance(spec, TextSet)
        if network.tokenizer is None:
            raise NetworkError(
                f"val.{name}: {self._first.path} holds no tokenizer",
                hint="tokenizer.save_pretrained(...) puts one beside the weights",
            )
        return text.load(spec, network.tokenizer, label_names=network.label_names, progress=self._progress)

    def _key(self, name: str, weights: Mixture) -> str | None:
        """The key of a score, None where something unknown determines it: a function or a command of the user."""
        fingerprint = self._fingerprint(name)
        if fingerprint is None:
            return None
        members = sorted(zip((self._hashes.of(m) for m in weights.members), weights.weights, strict=True))
        calibration = None if self.recipe.batch_norm == "average" else self._fingerprint(next(iter(self.sets)))
        return key_of(
            {
                "members": members,
                "kept": self._hashes.of(weights.kept),
                "dtype": str(weights.dtype),
                "set": fingerprint,
                "spec": self.sets[name].model_dump(mode="json"),
                "network": self._network_identity(),
                "metrics": [self.metric_of(name)],
                "batch_norm": [self.recipe.batch_norm, calibration],
                "device": self.device.type,
                "versions": versions(),
            }
        )

    def _network_identity(self) -> Any:
        """What the network is built from: its recipe, the user's code, the configuration beside the weights."""
        spec = self.recipe.model
        identity: list[Any] = [spec.model_dump(mode="json") if spec is not None else None]
        if isinstance(spec, PythonNetwork):
            references = [spec.python, *([spec.transform] if spec.transform else [])]
            identity += [_digest(Path(reference.rpartition(":")[0])) for reference in references]
        return [*identity, *([file.name, _digest(file)] for file in self._first.side_files)]

    def _fingerprint(self, name: str) -> str | None:
        if name not in self._fingerprints:
            self._fingerprints[name] = self._compute_fingerprint(name)
        return self._fingerprints[name]

    def _compute_fingerprint(self, name: str) -> str | None:
        spec = self.sets[name]
        if isinstance(spec, ArraysSet):
            return arrays.fingerprint(spec)
        if isinstance(spec, ImagesSet):
            return images.fingerprint(spec)
        if isinstance(spec, TextSet):
            return text.fingerprint(spec)
        return None


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as cause:
        return json.dumps([str(file), cause.strerror])
