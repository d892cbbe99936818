"""Where the parts are put together: from options to a recipe, checkpoints, evaluators and a report.

Nothing heavy happens until it is needed: where every score is known, no network is built and no input decoded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from soupcli import processes
from soupcli.checkpoints.checkpoint import Checkpoint, announce_checkpoint
from soupcli.checkpoints.compare.agreement import check_agreement, check_mixable
from soupcli.checkpoints.find import find
from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.tensor_filter import Selected, Selection
from soupcli.datasets.holdout import divide
from soupcli.environment import cache_folder, versions
from soupcli.errors import SoupError, UsageError
from soupcli.evaluation.context import EvaluationContext
from soupcli.evaluation.evaluators import Evaluators
from soupcli.evaluation.kept_scores import ScoreStore
from soupcli.evaluation.logits import LogitFolder
from soupcli.files.atomic import check_file
from soupcli.mixing.mixture import Mixture
from soupcli.output import console
from soupcli.report.comparisons import Flops
from soupcli.report.paths import relative
from soupcli.report.report import Cost, Report
from soupcli.run.resolve import (
    begins_at_base,
    check_metric,
    check_output,
    choose_device,
    choose_sets,
    gates_of_run,
    locate,
    located,
    resolve_recipe,
)
from soupcli.run.to_report import peak_bytes, report_ingredient
from soupcli.soups.ranking import Ranked, rank

if TYPE_CHECKING:
    from soupcli.cli.options import IngredientOptions
    from soupcli.cli.parsing import Invocation
    from soupcli.evaluation.score import Score
    from soupcli.progress import Progress
    from soupcli.recipe.recipe import Recipe
    from soupcli.report.scores import Ingredient

CALIBRATION = ("nll", "ece")  # what soups and ensembles are compared by where logits are kept
FROM_BASE = {"inspect", "pairs"}  # commands that see all checkpoints from --base, whatever they are


class Row(NamedTuple):
    """Weights that are evaluated on every set, what to call them, and the scores that are known."""

    label: str
    weights: Mixture
    known: Mapping[str, Score] = {}


class Session:
    """One run of a command: its recipe, its checkpoints, and what has been measured so far."""

    def __init__(self, name: str, options: IngredientOptions, invocation: Invocation) -> None:
        self.name = name
        self.options = options
        check_output(options)
        self.recipe = resolve_recipe(options, invocation)
        self.logits: Path | None = getattr(options, "save_logits", None) or getattr(options, "logits", None)
        if self.logits is not None:
            check_file(self.logits / ".soup-logits")
            metrics = dict.fromkeys((*self.recipe.metrics, *CALIBRATION))
            self.recipe = self.recipe.model_copy(update={"metrics": list(metrics)})
        self.device = choose_device(self.recipe.device)
        self.progress = console.ProgressReporter(silent=options.quiet)
        self.sets = choose_sets(options.val or [], self.recipe, asked=options.metric)
        if options.holdout is not None:
            self.require_sets()
        with located(self.recipe):
            self.sets, self.parts = divide(self.sets, self.recipe.holdout)
        self.warnings: list[str] = []
        self.gates = gates_of_run(self)
        check_metric(self.recipe, self.sets)
        self.selection = Selection(tuple(self.recipe.include), tuple(self.recipe.exclude))
        self.checkpoints = self._find()
        self._shared: dict[tuple[Checkpoint, Checkpoint], Checkpoint] = {}
        self.hashes = ContentHashes(cache_folder() / "hashes", fresh=options.fresh)
        self.seconds: dict[str, float] = {}
        self._evaluators: Evaluators | None = None

    def _find(self) -> list[Checkpoint]:
        words = self.options.ckpts or self.recipe.ckpts
        if not words:
            raise UsageError("--ckpts: no checkpoints given", hint="e.g. --ckpts runs/*/")
        options, recipe = self.options, self.recipe
        how = How(options.weights_name, recipe.key, options.trust, tuple(options.allow_class or ()), recipe.base)
        with self.progress:
            found = find(words, how=how, standard_input=sys.stdin if "-" in words else (), progress=self.progress)
        if not self.options.quiet:
            for line in found.notes:
                console.note(line)
        self._check_use(found.checkpoints)
        self.selection.check(found.checkpoints)
        adapters = any(one.is_adapter for one in found.checkpoints)
        if recipe.base is None or not any(self.selection) or adapters or begins_at_base(self.name, recipe):
            return found.checkpoints
        base = self.open_base(recipe.base)
        return [self.selection.applied(checkpoint, base) for checkpoint in found.checkpoints]

    def open_base(self, path: Path) -> Checkpoint:
        """The checkpoint of --base, a whole network."""
        return open_checkpoint(path, How(trust=self.options.trust, allow=tuple(self.options.allow_class or ())))

    def _check_use(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Raises UsageError for flags that say something of other checkpoints than these."""
        adapters = any(one.is_adapter for one in checkpoints)
        options, rank = self.options, getattr(self.options, "adapter_rank", None)
        needs_base = adapters or any(self.selection) or begins_at_base(self.name, self.recipe) or self.name in FROM_BASE
        if options.base is not None and not needs_base:
            hint = "it goes with adapters, and with --include and --exclude"
            raise UsageError(f"--base {options.base}: these checkpoints need none", hint=hint)
        if options.key is not None and all(checkpoint.origin.key is None for checkpoint in checkpoints):
            raise UsageError(f"--key {options.key}: these checkpoints hold one bare state dict each")
        if rank is not None and not adapters:
            raise UsageError(f"--adapter-rank {rank}: these checkpoints are no adapters")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.hashes.close()
        self.progress.close()
        if isinstance(error, SoupError):
            locate(error, self.recipe)

    def require_sets(self) -> None:
        """Raises UsageError where no set was named."""
        if not self.sets:
            known = f": {', '.join(self.recipe.val)}" if self.recipe.val else ", or a path: --val data/val"
            raise UsageError(f"soup {self.name}: needs --val", hint=f"name a set of the recipe{known}")

    @property
    def selecting(self) -> str:
        """The set that selects: the first after --val. Raises UsageError where there is none."""
        self.require_sets()
        return next(iter(self.sets))

    @property
    def output_dtype(self) -> torch.dtype | None:
        """The dtype that was asked for, None: the ingredients' own."""
        return getattr(torch, self.recipe.dtype) if self.recipe.dtype else None

    def check_mixable(self) -> None:
        """Raises MixError where the checkpoints cannot be mixed."""
        recipe = self.recipe
        check_agreement(self.checkpoints, key=recipe.key, base=recipe.base, selection=self.selection)
        check_mixable(self.sharing(self.checkpoints[0]))

    def sharing(self, source: Checkpoint) -> list[Checkpoint]:
        """The checkpoints, with the tensors that are not mixed from `source`, or from the base where there is one."""
        return [self._sharing(checkpoint, source) for checkpoint in self.checkpoints]

    def _sharing(self, checkpoint: Checkpoint, source: Checkpoint) -> Checkpoint:
        if isinstance(checkpoint, Selected):
            return checkpoint
        key = checkpoint, source
        if key not in self._shared:
            self._shared[key] = self.selection.applied(checkpoint, source)
        return self._shared[key]

    @property
    def evaluators(self) -> Evaluators:
        """What evaluates mixtures on each set; made when the first score is asked for."""
        if self._evaluators is None:
            if processes.is_first():
                self.hashes.start(self.checkpoints)
            self._evaluators = self.evaluators_by(self.recipe)
        return self._evaluators

    def evaluators_by(self, recipe: Recipe) -> Evaluators:
        """What evaluates on the same sets as another recipe says."""
        return Evaluators(
            EvaluationContext(
                recipe=recipe,
                sets=self.sets,
                parts=self.parts,
                device=self.device,
                first=self.checkpoints[0],
                hashes=self.hashes,
                store=ScoreStore(cache_folder() / "scores", fresh=self.options.fresh),
                logits=LogitFolder(self.logits) if self.logits is not None else None,
                progress=self.progress,
                warn=console.warn,
            )
        )

    def ranking(self, progress: Progress) -> list[Ranked]:
        """All checkpoints, best first by their scores on the selecting set."""
        with self.evaluators.expecting([Mixture.uniform([checkpoint]) for checkpoint in self.checkpoints]):
            evaluate = self.evaluators.on(self.selecting)
            return rank(self.checkpoints, evaluate, announce=announce_checkpoint, progress=progress)

    def scores(self, rows: Sequence[Row]) -> list[dict[str, Score]]:
        """Each row's score on every set; one set of weights after the other, so that each is loaded once."""
        found: list[dict[str, Score]] = []
        for done, row in enumerate(rows, 1):
            scores = {name: row.known[name] for name in self.sets if name in row.known}
            for name in [name for name in self.sets if name not in scores]:
                score = scores[name] = self.evaluators.on(name)(row.weights)
                note = f"{row.label}: {score.selecting} {score.value:.4f}"
                self.progress(f"on {name}", done, len(rows), note=note)
            found.append({name: scores[name] for name in self.sets})
        return found

    def average(self, keep_from: Checkpoint | None = None) -> Callable[[Sequence[Checkpoint]], Mixture]:
        """The mean in the output dtype, with the tensors that are not averaged from `keep_from`."""

        def mean(members: Sequence[Checkpoint]) -> Mixture:
            shared = [self._sharing(member, keep_from or members[0]) for member in members]
            return Mixture.uniform(shared, dtype=self.output_dtype, keep_from=keep_from)

        return mean

    @contextmanager
    def phase(self, name: str) -> Iterator[Progress]:
        """Counts the seconds of a phase of the work."""
        began = time.monotonic()
        yield self.progress
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)

    def report(self, ingredients: Sequence[Ingredient], **parts: Any) -> Report:
        """The report of this run so far. Raises CheckpointError where an ingredient is not what it was."""
        self.hashes.confirm([one for checkpoint in self.checkpoints for one in (checkpoint, *checkpoint.sources)])
        report = Report(
            command=self.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            device=str(self.device),
            recipe=self.recipe.model_dump(mode="json", exclude_none=True),
            ingredients=list(ingredients),
            selecting_set=next(iter(self.sets), None),
            sets=list(self.sets),
            warnings=self.warnings,
            cost=self.cost(),
            **parts,
        )
        return relative(report, Path.cwd()) if self.options.relative else report

    def cost(self) -> Cost:
        """Examples, seconds and peak memory so far."""
        cost = Cost(seconds=dict(self.seconds), peak_bytes=peak_bytes(self.device))
        found = self._evaluators
        if found is None:
            return cost
        inputs = {"decoded": found.inputs.decoded, "cached": found.inputs.cached, "on_device": list(found.on_device)}
        return cost.model_copy(update={"examples": found.examples, "batch_size": found.batch_size, **inputs})

    def ingredient(self, checkpoint: Checkpoint, scores: Mapping[str, Score]) -> Ingredient:
        """A checkpoint as it stands in the report."""
        return report_ingredient(checkpoint, scores, self.hashes)


def counted(session: Session, *, ingredients: int, members: int | None = None) -> Flops | None:
    """The count where it is asked for; a recipe's wish is none of a soup's that is made without any set.

    `members`: of the soup, None where there is none.

    Raises ValidationError where no set is one of examples that go through the network one by one.
    """
    settings = session.recipe.cost
    if not settings.flops or not (session.sets or session.options.flops):
        return None
    with session.phase("count"):
        name, forward = session.evaluators.flops()
    return Flops(
        set=name,
        forward=forward,
        ingredients=ingredients,
        ensemble=forward * ingredients,
        ensemble_of_members=forward * members if members is not None else None,
        beside=dict(settings.beside),
    )
