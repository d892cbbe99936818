"""What determines a score: the set, the network, the weights, how it is computed; and keys made of that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.tensor_filter import Selected
from soupcli.datasets import load as loading
from soupcli.datasets.holdout import Part, whole_of
from soupcli.datasets.load import ExampleSet, LabelledSet
from soupcli.environment import versions
from soupcli.errors import ValidationError
from soupcli.evaluation.outside import lm_eval as lm_eval_task
from soupcli.files.json_text import key_of
from soupcli.metrics.table import metric_named
from soupcli.recipe.networks import PythonNetwork
from soupcli.recipe.sets import LmEvalSet, PythonSet, SetSpec, TokensSet
from soupcli.user_code import content_of

if TYPE_CHECKING:
    import torch

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.hashes import ContentHashes
    from soupcli.mixing.mixture import Mixture
    from soupcli.recipe.recipe import Recipe


class Identity:
    """The metrics of each set; keys of scores, logits and examples.

    Raises ValidationError for a metric that is not known and for a set whose files are not there.
    """

    def __init__(
        self,
        recipe: Recipe,
        sets: Mapping[str, SetSpec],
        parts: Mapping[str, Part],
        device: torch.device,
        first: Checkpoint,
        hashes: ContentHashes,
    ) -> None:
        self.recipe = recipe
        self.sets = sets
        self.parts = parts
        self.device = device
        self.first = first
        self._hashes = hashes
        self._tasks: dict[str, lm_eval_task.Tasks] = {}
        for name, spec in sets.items():
            if isinstance(spec, ExampleSet):
                for metric in self.metrics_of(name):
                    metric_named(metric)
        self.fingerprints = {name: self._fingerprint(name, spec) for name, spec in sets.items()}

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

    def of_score(self, name: str, weights: Mixture) -> str | None:
        """The key of a score, None where something unknown determines it: a function or a command of the user."""
        parts = self.of_outputs(name, weights)
        return key_of({**parts, "metrics": self.metrics_of(name)}) if parts is not None else None

    def of_outputs(self, name: str, weights: Mixture) -> dict[str, Any] | None:
        """What determines the outputs of a network on a set; None where something unknown does."""
        if self.fingerprints[name] is None:
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
            "sources": sorted({self._hashes.of(other) for member in weights.members for other in member.sources}),
            "dtype": str(weights.dtype),
            "set": self.fingerprints[name],
            "network": self.of_network(),
            "batch_norm": None if average else [self.fingerprints[self.calibrating_set()[0]]],
            "device": self.device.type,
            "computing": [self.recipe.amp, self.recipe.channels_last, self.recipe.compile],
            "versions": versions(),
        }

    def of_contents(self, name: str) -> str:
        """The key of a set's examples as the network sees them."""
        return key_of({"set": self.fingerprints[name], "network": self.of_network()})

    def of_network(self) -> list[Any]:
        """What the network is built from: its recipe, the user's code, the configuration beside the weights."""
        spec = self.recipe.model
        files = [file for one in (self.first, *self.first.sources) for file in one.side_files]
        beside = [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files]
        if isinstance(spec, PythonNetwork):
            code = [content_of(reference) for reference in (spec.python, spec.transform) if reference is not None]
            return ["python", spec.args, code, beside]
        return [spec.model_dump(mode="json") if spec is not None else None, beside]

    def calibrating_set(self) -> tuple[str, LabelledSet]:
        """The first set whose inputs this program makes itself: batch-norm statistics are re-estimated from it."""
        for name, spec in self.sets.items():
            if isinstance(spec, LabelledSet):
                return name, spec
        raise ValidationError(
            f"batch_norm: {self.recipe.batch_norm} needs a set of images, text or arrays to re-estimate from",
            hint="name one with --val, or batch_norm: average",
        )

    def harness(self, name: str, spec: LmEvalSet) -> lm_eval_task.Tasks:
        """The set's tasks, loaded once."""
        if name not in self._tasks:
            self._tasks[name] = lm_eval_task.load(spec)
        return self._tasks[name]

    def _fingerprint(self, name: str, spec: SetSpec) -> str | None:
        """Changes with everything in the set, and not with where it lies; None where code of the user's is the set."""
        if isinstance(spec, LmEvalSet):
            return self.harness(name, spec).fingerprint
        found, part = loading.fingerprint(spec), self.parts.get(name)
        return found if part is None else f"{found}:{json.dumps([part.share, part.held_out])}"
