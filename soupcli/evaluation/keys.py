"""What determines a score: the set, the network, the weights, how it is computed; and keys made of that."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from soupcli.checkpoints.tensor_filter import Selected
from soupcli.datasets import load as loading
from soupcli.environment import versions
from soupcli.files.json_text import key_of
from soupcli.recipe.networks import PythonNetwork
from soupcli.recipe.sets import LmEvalSet, SetSpec
from soupcli.user_code import content_of

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.evaluation.outside.lm_eval import LoadedTasks
    from soupcli.mixing.mixture import Mixture


class Keys:
    """Keys of scores, logits and examples. Raises ValidationError for a set whose files are not there."""

    def __init__(self, context: EvaluationContext, tasks: LoadedTasks) -> None:
        self._context = context
        self._tasks = tasks
        self.fingerprints = {name: self._fingerprint(name, spec) for name, spec in context.sets.items()}

    def of_score(self, name: str, weights: Mixture) -> str | None:
        """The key of a score, None where something unknown determines it: a function or a command of the user."""
        parts = self.of_outputs(name, weights)
        return key_of({**parts, "metrics": self._context.metrics_of(name)}) if parts is not None else None

    def of_outputs(self, name: str, weights: Mixture) -> dict[str, Any] | None:
        """What determines the outputs of a network on a set; None where something unknown does."""
        if self.fingerprints[name] is None:
            return None
        members = self.of_members(weights)
        average = self._context.recipe.batch_norm == "average"
        return {
            "members": sorted(zip(members, weights.weights, strict=True), key=json.dumps),
            "coefficients": [members, dict(weights.coefficients)] if weights.coefficients else None,
            "kept": self._of_checkpoint(weights.kept),
            "dtype": str(weights.dtype),
            "set": self.fingerprints[name],
            "network": self.of_network(),
            "batch_norm": None if average else [self.fingerprints[self._context.calibrating_set()[0]]],
            "device": self._context.device.type,
            "computing": [self._context.recipe.amp, self._context.recipe.channels_last, self._context.recipe.compile],
            "versions": versions(),
        }

    def of_members(self, weights: Mixture) -> list[list[Any]]:
        """What tells each member from every other checkpoint, in the order of the members."""
        return [self._of_checkpoint(member) for member in weights.members]

    def _of_checkpoint(self, checkpoint: Checkpoint) -> list[Any]:
        """Its content, the part of it that is read, the tensors that are mixed, and what it is completed by."""
        recipe = self._context.recipe
        chosen = [recipe.include, recipe.exclude] if isinstance(checkpoint, Selected) else None
        others = [self._of_checkpoint(other) for other in checkpoint.sources]
        return [self._context.hashes.of(checkpoint), checkpoint.origin.key, chosen, others]

    def of_contents(self, name: str) -> str:
        """The key of a set's examples as the network sees them."""
        return key_of({"set": self.fingerprints[name], "network": self.of_network()})

    def of_network(self) -> list[Any]:
        """What the network is built from: its recipe, the user's code, the configuration beside the weights."""
        spec = self._context.recipe.model
        files = [file for one in (self._context.first, *self._context.first.sources) for file in one.side_files]
        beside = [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files]
        if isinstance(spec, PythonNetwork):
            code = [content_of(reference) for reference in (spec.python, spec.transform) if reference is not None]
            return ["python", spec.args, code, beside]
        return [spec.model_dump(mode="json") if spec is not None else None, beside]

    def _fingerprint(self, name: str, spec: SetSpec) -> str | None:
        """Changes with everything in the set, and not with where it lies; None where code of the user's is the set."""
        if isinstance(spec, LmEvalSet):
            return self._tasks.of(spec).fingerprint
        found, part = loading.fingerprint(spec), self._context.parts.get(name)
        return found if part is None else f"{found}:{json.dumps([part.share, part.held_out])}"
