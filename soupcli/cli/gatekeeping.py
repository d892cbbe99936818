"""The gates of a run: which there are, that no candidate which breaks one is accepted, and what the soup comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.mixing import Mixture
from soupcli.cli import console
from soupcli.cli.commands import ANSWER_NO, DONE
from soupcli.cli.options import EvalOptions, SoupOptions
from soupcli.errors import UsageError
from soupcli.gates import Bound, parse, parse_gain
from soupcli.recipe_yaml import suggestion
from soupcli.report.comparisons import GateResult
from soupcli.validation.gating import Gate, Verdict, check, judge
from soupcli.validation.parts import held_out_of, whole_of
from soupcli.validation.score import Evaluate, Score

if TYPE_CHECKING:
    from soupcli.cli.session import Session

GAIN = "require_gain"


def gates_of_run(session: Session) -> list[Gate]:
    """The gates that hold in this run; the sets of those that are not among the session's are added to them.

    `soup eval` adds the set that --require-gain names, and checks other gates on the sets it was given. Raises
    UsageError for a gain on a set that is not there.
    """
    recipe, sets = session.recipe, session.sets
    if not isinstance(session.options, SoupOptions | EvalOptions):
        return []
    if not sets:
        if session.options.require_gain is not None:
            raise UsageError("--require-gain: needs --val", hint="a gain is measured on a set")
        if recipe.gates or recipe.require_gain is not None:
            session.warnings.append("the gates of the recipe are not checked: without --val nothing is evaluated")
        return []
    if isinstance(session.options, SoupOptions):
        _add_sets(session, [gate.set for gate in recipe.wanted])
    wanted = [
        Gate(_reported(session, gate.set), gate.metric, parse(gate.text), gate.text, gate.key) for gate in recipe.wanted
    ]
    return [*(gate for gate in wanted if gate.set in session.sets), *_required_gain(session)]


def _required_gain(session: Session) -> list[Gate]:
    """`require_gain` as a gate: on the set it names, else on the one that selects."""
    if session.recipe.require_gain is None:
        return []
    gain = parse_gain(session.recipe.require_gain)
    name = gain.set or whole_of(session.selecting)
    _add_sets(session, [name])
    name = _reported(session, name)
    if name not in session.sets:
        raise UsageError(
            f"--require-gain {session.recipe.require_gain}: no set {name!r}{suggestion(name, session.sets)}",
            hint=f"the sets of this run are {', '.join(session.sets)}",
        )
    text = f">= best {'-' if gain.margin < 0 else '+'} {float(abs(gain.margin)):g}"
    return [Gate(name, None, Bound(">=", True, gain.margin, better=True), text, GAIN)]


def _add_sets(session: Session, names: Sequence[str]) -> None:
    from soupcli.cli.choosing import choose_sets

    recipe, known = session.recipe, {whole_of(name) for name in session.sets}
    more = [name for name in names if name in recipe.val and name not in known]
    session.sets |= choose_sets(more, recipe, asked=session.options.metric)


def _reported(session: Session, name: str) -> str:
    """The set, or the part of it that is held out: what a soup is held against takes no part in selecting it."""
    return held_out_of(name) if held_out_of(name) in session.parts else name


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
                    return score._replace(refused=f"breaks the gate {said(verdict)}")
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


def said(verdict: Verdict) -> str:
    """E.g. `test >= best - 0.5: 75.90%, best 76.67%: -0.77, at least -0.50 is needed`."""
    metric = "" if verdict.metric == "accuracy" else f" {verdict.metric}"
    return f"{verdict.gate.set}{metric} {verdict.gate.text}: {verdict.reason}"


def sentence(verdict: Verdict) -> str:
    """E.g. `gate not met: test >= best - 0.5: ...`."""
    name = "required gain" if verdict.gate.key == GAIN else "gate"
    return f"{name} {MET[verdict.met]}: {said(verdict)}"


MET = {True: "met", False: "not met", None: "open"}


def reported(verdict: Verdict, soup: str) -> GateResult:
    """A verdict as it stands in the report."""
    return GateResult(
        soup=soup,
        set=verdict.gate.set,
        metric=verdict.metric,
        gate=verdict.gate.text,
        key=verdict.gate.key,
        value=verdict.value,
        needed=verdict.needed,
        met=verdict.met,
        reason=verdict.reason,
    )


def answer(found: Sequence[Verdict]) -> int:
    """The exit code: 1 where a gate is not met, which stderr says in a line."""
    broken = [f"{verdict.gate.set} {verdict.gate.text}" for verdict in found if verdict.met is False]
    if broken:
        console.fail(f"{len(broken)} of {len(found)} gates not met: {', '.join(broken)}")
    return ANSWER_NO if broken else DONE
