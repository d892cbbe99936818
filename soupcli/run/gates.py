"""The gates of a run: which there are, that no candidate which breaks one is accepted, and what the soup comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.cli.parsing import ANSWER_NO, DONE
from soupcli.errors import UsageError
from soupcli.evaluation.gates import Gate, Verdict, check, judge
from soupcli.output import console

if TYPE_CHECKING:
    from soupcli.cli.options import SoupOptions
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.run import Session
from soupcli.output.text import describe_gate
from soupcli.recipe.gates import GAIN


def check_gates(session: Session) -> None:
    """Raises ValidationError for gates that make no sense, before anything is evaluated."""
    for gate in session.gates:
        check(gate, gate.metric or session.evaluators.metric_of(gate.set))


def refuse_gain(options: SoupOptions) -> None:
    """Raises UsageError for --require-gain where ingredients are not evaluated, so that none is known as the best."""
    if options.require_gain is not None:
        raise UsageError(
            f"--require-gain {options.require_gain}: soup mix evaluates the mixture alone, not its ingredients",
            hint="soup eval --ckpts soup/ runs/*/ --require-gain ... holds a soup against them",
        )


def gated_evaluations(session: Session, trials: int) -> int:
    """How many more evaluations than without gates a search of so many trials makes at most."""
    sets = {gate.set for gate in _of_candidates(session)} - {session.selecting}
    return len(sets) * max(0, trials - 1)


def _of_candidates(session: Session) -> list[Gate]:
    """Gates that are asked of each candidate: not the gain, and none on a part that is held out from selecting."""
    return [gate for gate in session.gates if gate.key != GAIN and gate.set not in session.parts]


def needs_best(session: Session) -> bool:
    """Whether a gate asks what the best ingredient scores."""
    return any(gate.bound.best for gate in session.gates)


class Gatekeeper:
    """Evaluates trial soups: one that scores enough, and breaks a gate on another set, is refused for that."""

    def __init__(self, session: Session, best: Mixture, best_score: Score) -> None:
        self._session = session
        self._best = best
        self.best: dict[str, Score] = {session.selecting: best_score}
        self._passed: list[tuple[Mixture, dict[str, Score]]] = []

    def guarded(self, evaluate: Evaluate) -> Evaluate:
        """`evaluate`, of the selecting set, with gates: a score that breaks one says so in `refused`."""
        gates = _of_candidates(self._session)
        if not gates:
            return evaluate

        def with_gates(weights: Mixture, *, at_least: float | None = None) -> Score:
            score = evaluate(weights, at_least=at_least)
            if at_least is None or score.goodness < at_least:
                return score
            scores = {self._session.selecting: score}
            for gate in gates:
                verdict = judge(gate, self._on(gate.set, weights, scores), self._on(gate.set, self._best, self.best))
                if not verdict.met:
                    return score._replace(refused=f"breaks the gate {describe_gate(verdict)}")
            self._passed.append((weights, scores))
            return score

        return with_gates

    def known(self, weights: Mixture) -> dict[str, Score]:
        """Scores of a soup that passed, on the sets of the gates."""
        return next((scores for passed, scores in self._passed if passed == weights), {})

    def _on(self, name: str, weights: Mixture, scores: dict[str, Score]) -> Score:
        if name not in scores:
            scores[name] = self._session.evaluators.on(name)(weights)
        return scores[name]


def verdicts(gates: Sequence[Gate], scores: Mapping[str, Score], best: Mapping[str, Score] | None) -> list[Verdict]:
    """Every gate, held against the scores of a soup and of the best ingredient (None: not known)."""
    return [judge(gate, scores[gate.set], (best or {}).get(gate.set)) for gate in gates if gate.set in scores]


def answer(found: Sequence[Verdict]) -> int:
    """The exit code: 1 where a gate is not met, which stderr says in a line."""
    broken = [f"{verdict.gate.set} {verdict.gate.text}" for verdict in found if verdict.met is False]
    if broken:
        console.fail(f"{len(broken)} of {len(found)} gates not met: {', '.join(broken)}")
    return ANSWER_NO if broken else DONE
