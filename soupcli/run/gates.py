"""The gates of a run. No candidate that breaks one is accepted; the exit code says whether the soup passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.cli.parsing import ANSWER_NO, DONE
from soupcli.errors import UsageError
from soupcli.evaluation.gates import Gate, GateOutcome, check, judge
from soupcli.output import console
from soupcli.output.sentences import describe_gate
from soupcli.recipe.gates import GAIN
from soupcli.run.to_report import gate_to_report

if TYPE_CHECKING:
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.run.run import Run


def check_gates(run: Run) -> None:
    """Raises ValidationError for gates that make no sense, before anything is evaluated."""
    for gate in run.resolved.gates:
        check(gate, gate.metric or run.evaluators.metric_of(gate.set))


def refuse_gain(gain: str | None) -> None:
    """Raises UsageError for --require-gain with a command that does not evaluate the ingredients."""
    if gain is not None:
        raise UsageError(
            f"--require-gain {gain}: soup mix evaluates only the mixture, not its ingredients",
            hint="soup eval --ckpts soup/ runs/*/ --require-gain ... compares a soup with them",
        )


def gated_evaluations(run: Run, trials: int) -> int:
    """Return the most evaluations that gates add to a search of `trials` candidates."""
    sets = {gate.set for gate in _of_candidates(run)} - {*run.resolved.selecting_sets}
    return len(sets) * max(0, trials - 1)


def _of_candidates(run: Run) -> list[Gate]:
    """Return the gates for candidates: all except the required gain and those on a held-out part."""
    return [gate for gate in run.resolved.gates if gate.key != GAIN and gate.set not in run.resolved.parts]


def needs_best(run: Run) -> bool:
    """Whether a gate compares the soup with the best ingredient."""
    return any(gate.bound.best for gate in run.resolved.gates)


class Gatekeeper:
    """Evaluates trial soups, and refuses one that scores enough but breaks a gate on another set."""

    def __init__(self, run: Run, best: Mixture, best_scores: Mapping[str, Score]) -> None:
        self._run = run
        self._best = best
        self.best: dict[str, Score] = dict(best_scores)
        self._passed: list[tuple[Mixture, dict[str, Score]]] = []

    def guarded(self, evaluate: Evaluate) -> Evaluate:
        """Add gates to `evaluate`, of the selecting set. A score that breaks one names it in `refused`."""
        gates = _of_candidates(self._run)
        if not gates:
            return evaluate

        def with_gates(weights: Mixture, *, at_least: float | None = None) -> Score:
            score = evaluate(weights, at_least=at_least)
            if at_least is None or score.goodness < at_least:
                return score
            scores = self.of_sets(score)
            for gate in gates:
                best = self._on(gate.set, self._best, self.best) if gate.bound.best else None
                verdict = judge(gate, self._on(gate.set, weights, scores), best)
                if not verdict.met:
                    return score._replace(refused=f"breaks the gate {describe_gate(gate_to_report(verdict, ''))}")
            self._passed.append((weights, scores))
            return score

        return with_gates

    def of_sets(self, score: Score) -> dict[str, Score]:
        """Return the score under its set's name, or {} for an objective, which is a score on no single set."""
        return {self._run.selecting: score} if self._run.recipe.objective is None else {}

    def known(self, weights: Mixture) -> dict[str, Score]:
        """Return the scores of a soup that passed, on the sets of the gates."""
        return next((scores for passed, scores in self._passed if passed == weights), {})

    def _on(self, name: str, weights: Mixture, scores: dict[str, Score]) -> Score:
        if name not in scores:
            scores[name] = self._run.evaluators.on(name)(weights)
        return scores[name]


def verdicts(gates: Sequence[Gate], scores: Mapping[str, Score], best: Mapping[str, Score] | None) -> list[GateOutcome]:
    """Check every gate on the scores of a soup and of the best ingredient, which may be unknown (None)."""
    return [judge(gate, scores[gate.set], (best or {}).get(gate.set)) for gate in gates if gate.set in scores]


def exit_code(found: Sequence[GateOutcome]) -> int:
    """Return 1 and print the gate to stderr if one is not met, otherwise 0."""
    broken = [f"{verdict.gate.set} {verdict.gate.text}" for verdict in found if verdict.met is False]
    if broken:
        console.fail(f"{len(broken)} of {len(found)} gates not met: {', '.join(broken)}")
    return ANSWER_NO if broken else DONE
