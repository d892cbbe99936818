"""The scores and logits that a run knows: those that earlier runs have kept, and its own.

scores = ScoresOfRun(context, keys)
score = scores.get("val", mixture, at_least=0.9)          # None if it has to be measured
scores.keep("val", mixture, score)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli import processes
from soupcli.evaluation.logits import LogitFile, LogitsSource
from soupcli.evaluation.outside.prints import say_what_is_unseen
from soupcli.files.json_text import key_of

if TYPE_CHECKING:
    from soupcli.evaluation.context import EvaluationContext
    from soupcli.evaluation.keys import Keys
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture


MOST_VARYING = 3  # files that are named


class ScoresOfRun:
    """Finds and keeps scores and logits, each under a key of everything that determines it.

    `examples` counts what went through the network or other programs. `again` has the keys of scores that were known,
    and are measured again because their logits were not kept.
    """

    def __init__(self, context: EvaluationContext, keys: Keys) -> None:
        self.context = context
        self.examples = 0
        self.again: set[str] = set()
        self._keys = keys
        self._early: set[str] = set()

    def get(self, name: str, weights: Mixture, at_least: float | None) -> Score | None:
        """The score that an earlier run has kept. Returns None if logits are requested and were not kept with it."""
        key = self._keys.of_score(name, weights) or self._own_key(name, weights)
        stop = at_least if self.context.recipe.early_stop else None
        score = self.context.store.get(key, at_least=stop) or self.context.store.get(self._own_key(name, weights))
        file = self.logit_file(name, weights) if score is not None else None
        if file is not None and not file.is_there:
            self.again.add(str(key))
            return None
        return score

    def tell(self, name: str, weights: Mixture, score: Score) -> None:
        """Tell everybody of a score, and what it may depend on that nobody sees, whether it was measured or kept."""
        say_what_is_unseen(name, self.context.sets[name], score.unseen, self.context.note)
        self.context.told(name, weights, score)

    def keep(self, name: str, weights: Mixture, score: Score) -> None:
        """Keep a measured score. Raises ValidationError if anything that was read for it has changed meanwhile."""
        self.context.manifest.confirm()
        if self._own_key(name, weights) in self._early:
            return
        self.examples += score.examples
        if processes.is_first():
            self._put(name, weights, score)

    def keep_early(self, name: str, weights: Mixture, score: Score) -> None:
        """Keep the score of a command at once, while other commands run on."""
        self._early.add(self._own_key(name, weights))
        self.examples += score.examples
        self._put(name, weights, score)

    def _put(self, name: str, weights: Mixture, score: Score) -> None:
        """Keep a score, only for this run if something unknown determines it."""
        self._keys.confirm_read(name, weights)
        self._keys.forget_if_changed(name)
        key = self._keys.of_score(name, weights)
        if key is not None:
            self.context.store.put(key, score)
            self._say_what_varies(name)
        if not self.context.sets[name].shows_examples:
            self.context.store.remember(self._own_key(name, weights), score)

    def _say_what_varies(self, name: str) -> None:
        """Say which files count as made by the user's programs: nothing tells whether somebody else changed them."""
        files = self.context.manifest.varying()
        for path in files[:MOST_VARYING]:
            self.context.note(
                f"val.{name}: {path} changes from one evaluation to the next: it counts as made by the program itself"
            )

    def _own_key(self, name: str, weights: Mixture) -> str:
        return f"{name}:{self._keys.of_weights(weights)}"

    def wants_logits(self, name: str) -> bool:
        """Whether the logits of single networks on the set `name` are kept."""
        return self.context.logits is not None and self.context.sets[name].labelled

    def logit_file(self, name: str, weights: Mixture) -> LogitFile | None:
        """The file of a network's logits on the set `name`; None for a mixture, and if no logits are requested."""
        alone = len(weights.members) == 1 and weights.is_uniform and weights.dtype is None
        if not alone or not self.wants_logits(name) or self.context.logits is None:
            return None
        parts, member = self._keys.of_outputs(name, weights), weights.members[0]
        fingerprint = self._keys.fingerprints[name]
        if parts is None or fingerprint is None:
            return None
        source = LogitsSource(key_of(parts), self.context.hashes.of(member), fingerprint, str(member.path), name)
        return self.context.logits.file(source)
