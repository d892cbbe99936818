"""One run of a command: its checkpoints, what evaluates them, the seconds spent, and the report.

Nothing heavy happens until it is needed. If every score is known, no network is built and no input is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli import processes
from soupcli.checkpoints.compare.names import common_names
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.groups import CheckpointGroup, members_of
from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.read_ahead import announce_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.cli.options.soups import SoupOptions
from soupcli.datasets.holdout import whole_of
from soupcli.datasets.load import class_orders, transforms
from soupcli.environment import cache_folder, versions
from soupcli.errors import SoupError
from soupcli.evaluation.context import EvaluationContext, made_manifest
from soupcli.evaluation.kept_scores import ScoreStore
from soupcli.evaluation.logits import LogitFolder
from soupcli.files.atomic import check_file
from soupcli.files.json_text import plain
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.old_soup import Input, check_place
from soupcli.networks.build import outline
from soupcli.networks.memory import peak_bytes
from soupcli.output import console
from soupcli.output.progress_bars import ProgressReporter
from soupcli.output.trackers.tracker import TrackedRun
from soupcli.report.report import Report, RunCost, relative
from soupcli.report.scores import LeftOut
from soupcli.run.caveats import before_scores, caveats, check_checkpoints
from soupcli.run.ingredients import find_ingredients, ingredients_of, open_base
from soupcli.run.other_inputs import other_inputs
from soupcli.run.to_report import ingredient_to_report, lower_is_better
from soupcli.run.trackers import RunTrackers
from soupcli.run.words.resolve import Resolved, locate, no_sets
from soupcli.soups.ranking import Ranked, rank
from soupcli.user_code.projects import leave

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.evaluators import Evaluators
    from soupcli.evaluation.score import Score
    from soupcli.networks.device import Device
    from soupcli.networks.network import Outline
    from soupcli.progress import Progress
    from soupcli.recipe.recipe import Recipe
    from soupcli.report.scores import ClassOrder, Ingredient
    from soupcli.report.soups import OtherStatistics


class Row(NamedTuple):
    """Weights that are evaluated on every set, their name in progress lines, and the scores that are known."""

    label: str
    weights: Mixture
    known: Mapping[str, Score] = {}


class Run:
    """The state of a command: `resolved` is what the user asked for; everything else is opened or made here."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.command = resolved.command
        self.options = resolved.options
        self.recipe = resolved.recipe
        self.sets = resolved.sets
        self.logits = resolved.options.logit_folder
        if self.logits is not None:
            check_file(self.logits / ".soup-logits")
        self._said: list[str] = []
        self._noted: set[str] = set()
        wanted = resolved.options.report_to or []
        self.trackers = RunTrackers([] if self.options.dry_run else wanted, self._about)
        self.progress = ProgressReporter(silent=self.options.quiet)
        self.selection = TensorFilter(*map(tuple, (self.recipe.include, self.recipe.exclude, self.recipe.take)))
        found = find_ingredients(resolved, self.selection, self.progress, self.warn)
        self.singles = found.checkpoints
        self.names, self.constants, self.left_out = found.names, found.constants, found.left_out
        self._pinned_base = found.pinned_base
        self.checkpoints = ingredients_of(self.singles, resolved)
        if self.logits is not None:
            check_place(self.logits, self.inputs, hint="choose another folder for the logits")
        self._shared: dict[tuple[Checkpoint, Checkpoint], Checkpoint] = {}
        self.manifest = made_manifest(recipe=self.options.recipe, fresh=self.options.fresh, warn=console.warn)
        writes = isinstance(self.options, SoupOptions)  # its report says what the soup is made of
        self.hashes = ContentHashes(cache_folder() / "hashes", fresh=self.options.fresh or writes)
        self.seconds: dict[str, float] = {}
        self.other_statistics: dict[Mixture, OtherStatistics | None] = {}  # of soups, see run/methods/batch_norm.py
        self._lower: dict[str, set[str]] = {}  # set -> metrics of which less is better
        self._evaluators: Evaluators | None = None

    @property
    def device(self) -> Device:
        """Where networks compute."""
        return self.resolved.device

    @property
    def inputs(self) -> list[Input]:
        """The files that the run reads and must not replace."""
        found = [Input("ingredient", checkpoint.path) for checkpoint in self.singles]
        found += [Input("ingredient's file", file.path) for one in self.singles for file in one.files]
        named = [("base", self.recipe.base), ("recipe", self.options.recipe)]
        found += [Input(what, path) for what, path in named if path is not None]
        paths = [(name, value) for name, spec in self.sets.items() for _, value in spec if isinstance(value, Path)]
        return found + [Input(f"set {name!r}", path) for name, path in paths]

    def _about(self) -> TrackedRun:
        """Return what trackers know of the run before it begins."""
        out = f" {self.recipe.out}" if isinstance(self.options, SoupOptions) else ""
        recipe = plain(self.recipe.model_dump(exclude_none=True))
        return TrackedRun(self.command.name, f"{self.command.name}{out}", recipe, self.options.quiet)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._evaluators is not None:
            self._evaluators.close()
        self.trackers.close(failed=error is not None)
        self.hashes.close()
        self.progress.close()
        leave()
        if isinstance(error, SoupError):
            locate(error, self.recipe)

    def require_sets(self) -> None:
        """Raises UsageError if no set was named."""
        if not self.sets:
            raise no_sets(self.command, self.recipe)

    @property
    def selecting(self) -> str:
        """The selecting set, the first after --val. Raises UsageError if there is none."""
        self.require_sets()
        return next(iter(self.sets))

    @property
    def output_dtype(self) -> Dtype | None:
        """The dtype of --dtype, or None for the ingredients' own."""
        return Dtype(self.recipe.dtype) if self.recipe.dtype else None

    def check_mixable(self) -> None:
        """Raises MixError if the checkpoints cannot be averaged, whether or not the command averages them."""
        names = common_names(self.singles)[0] if self.resolved.takes_each_alone else self.names
        found = [names.applied(one) for one in self.singles]
        self._warn_if(*check_checkpoints(found, lambda one: self.shared(one, found[0]), self.selection, self.recipe))
        if isinstance(self.options, SoupOptions):
            self._warn_if(*caveats(found, self.selection))

    def open_base(self, path: Path) -> Checkpoint:
        """The checkpoint of --base, a whole network, with the names that the checkpoints have."""
        return open_base(path, self.options, self.names, self.constants)

    def sharing(self, source: Checkpoint) -> list[Checkpoint]:
        """Return the checkpoints, with tensors that are not mixed from `source`, or from the base if there is one."""
        return [self.shared(checkpoint, source) for checkpoint in self.checkpoints]

    def shared(self, checkpoint: Checkpoint, source: Checkpoint) -> Checkpoint:
        """Return the checkpoint, with tensors that are not mixed from `source`."""
        source = members_of(source)[-1]
        key = checkpoint, source
        if key not in self._shared:
            self._shared[key] = self._made_to_share(checkpoint, source)
        return self._shared[key]

    def _made_to_share(self, checkpoint: Checkpoint, source: Checkpoint) -> Checkpoint:
        if checkpoint.members:
            return CheckpointGroup(checkpoint.path, tuple(self.shared(one, source) for one in checkpoint.members))
        selection = self.selection if checkpoint.own is checkpoint else self.selection.of_best
        return selection.applied(checkpoint, source)

    @cached_property
    def classes(self) -> dict[str, ClassOrder]:
        """The classes of each set whose classes have names, as the first checkpoint's network counts them."""
        if not self.sets:
            return {}  # adapters can then be mixed if their base is missing
        return class_orders(self.sets, self.recipe.metric, self._outline)

    @cached_property
    def transforms(self) -> dict[str, str]:
        """Where each set's picture transform comes from, as the first checkpoint says."""
        return transforms(self.sets, self._outline)

    def _say_transforms(self) -> None:
        """Print which transform the pictures of the sets go through. A wrong one ruins every score."""
        sources: dict[str, list[str]] = {}
        for name, source in self.transforms.items():
            sources.setdefault(source, []).append(whole_of(name))
        for source, names in sources.items():
            if not self.options.quiet:
                console.note(f"transform of {', '.join(dict.fromkeys(names))}: {source}")

    def _outline(self) -> Outline:
        """Return what is known about the first checkpoint's network before it is built."""
        return outline(self.recipe.model, self.singles[0])

    def warn(self, text: str) -> None:
        """Print a warning once, and keep it for the report."""
        if text not in self._said:
            self._said.append(text)
            console.warn(text)

    def _note(self, text: str) -> None:
        """Say once what is seen while sets are read, unless the run is quiet."""
        if not self.options.quiet and text not in self._noted:
            self._noted.add(text)
            self.progress.close()  # a bar of the decoding would stay above the line
            console.note(text)

    def _warn_if(self, *texts: str | None) -> None:
        for text in texts:
            if text is not None:
                self.warn(text)

    @property
    def evaluators(self) -> Evaluators:
        """The evaluators of the run's sets. They are made when the first score is needed."""
        if self._evaluators is None:
            self._warn_if(*before_scores(self.singles, self.recipe.model, self.sets))
            self._say_transforms()
            said = {whole_of(name): order.warning for name, order in self.classes.items() if order.warning}
            self._warn_if(*(f"{name}: {text}" for name, text in said.items()))
            if processes.is_first():
                self.hashes.start(self.checkpoints)
            self._evaluators = self.evaluators_by(self.recipe)
        return self._evaluators

    def evaluators_by(self, recipe: Recipe) -> Evaluators:
        """Return evaluators of the same sets by another recipe."""
        from soupcli.evaluation.evaluators import Evaluators

        return Evaluators(
            EvaluationContext(
                recipe=recipe,
                sets=self.sets,
                parts=self.resolved.parts,
                device=self.device,
                first=self.singles[0],
                hashes=self.hashes,
                store=ScoreStore(cache_folder() / "scores", fresh=self.options.fresh, inputs=self.manifest),
                manifest=self.manifest,
                told=self.trackers.evaluated,
                building=lambda: self._warn_if(other_inputs(self.singles, self.recipe.model, self.sets)),
                jobs=self.options.jobs,
                makes_soups=isinstance(self.options, SoupOptions),
                logits=LogitFolder(self.logits, inputs=self.manifest) if self.logits is not None else None,
                progress=self.progress,
                trust_code=self.options.trust_code,
                warn=self.warn,
                note=self._note,
            )
        )

    def ranking(self, progress: Progress, some: Sequence[Checkpoint] | None = None) -> list[Ranked]:
        """Rank the checkpoints, or `some` of them, best first by their scores on the selecting set."""
        ranked = self.checkpoints if some is None else some
        with self.evaluators.expecting([Mixture.uniform([checkpoint]) for checkpoint in ranked]):
            evaluate = self.evaluators.on(self.selecting)
            return rank(ranked, evaluate, announce=announce_checkpoint, progress=progress)

    def scores(self, rows: Sequence[Row]) -> list[dict[str, Score]]:
        """Evaluate each row on every set. Rows are evaluated one after the other, so each is loaded once."""
        found: list[dict[str, Score]] = []
        for done, row in enumerate(rows, 1):
            scores = {name: row.known[name] for name in self.sets if name in row.known}
            for name in [name for name in self.sets if name not in scores]:
                score = scores[name] = self.evaluators.on(name)(row.weights)
                note = f"{row.label}: {score.selecting} {score.shown}"
                self.progress(f"on {name}", done, len(rows), note=note)
            found.append({name: scores[name] for name in self.sets})
            for name, score in found[-1].items():
                self._lower.setdefault(name, set()).update(lower_is_better(score))
        return found

    def average(self, keep_from: Checkpoint | None = None) -> Callable[[Sequence[Checkpoint]], Mixture]:
        """Return a function from members to their mean. `keep_from` gives the tensors that are not averaged."""

        def mean(members: Sequence[Checkpoint]) -> Mixture:
            shared = [self.shared(member, keep_from or members[0]) for member in members]
            return Mixture.uniform(shared, dtype=self.output_dtype, keep_from=keep_from)

        return mean

    @contextmanager
    def phase(self, name: str) -> Iterator[Progress]:
        """Add the seconds of the block to the phase `name`. Trackers begin before the first one."""
        self.trackers.begin()
        began = time.monotonic()
        yield self.progress
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)

    def _recipe_of_report(self) -> dict[str, Any]:
        """Return the recipe with its base at the commit that was used."""
        recipe = plain(self.recipe.model_dump(exclude_none=True))
        return recipe if self._pinned_base is None else {**recipe, "base": str(self._pinned_base)}

    def report(self, ingredients: Sequence[Ingredient], *, warnings: Sequence[str] = (), **parts: Any) -> Report:
        """Return the report of this run so far. Raises an error if any input changed while the command ran."""
        if self._evaluators is not None:
            self._evaluators.confirm()
        self.hashes.confirm([one for checkpoint in self.singles for one in (checkpoint, *checkpoint.sources)])
        report = Report(
            command=self.command.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions(),
            device=str(self.device),
            recipe=self._recipe_of_report(),
            ingredients=list(ingredients),
            left_out=[LeftOut(path=str(one.path), reason=reason) for one, reason in self.left_out],
            selecting_set=next(iter(self.sets), None),
            selecting_metrics=self._selecting_metrics(),
            lower_is_better={name: sorted(metrics) for name, metrics in self._lower.items() if metrics},
            weights_name=self.options.weights_name,
            sets=list(self.sets),
            classes=self.classes,
            transforms=self.transforms,
            warnings=list(dict.fromkeys([*self.resolved.warnings, *self._said, *warnings])),
            cost=self.cost(),
            **parts,
        )
        return relative(report, Path.cwd()) if self.options.relative else report

    def _selecting_metrics(self) -> dict[str, str]:
        return {name: found.metric_of(name) for name in self.sets} if (found := self._evaluators) else {}

    def cost(self) -> RunCost:
        """Return the examples, seconds and peak memory so far."""
        cost = RunCost(seconds=dict(self.seconds), peak_bytes=peak_bytes(self.device))
        found = self._evaluators
        if found is None:
            return cost
        inputs = {"decoded": found.inputs.decoded, "cached": found.inputs.cached, "on_device": list(found.on_device)}
        return cost.model_copy(update={"examples": found.examples, "batch_size": found.batch_size, **inputs})

    def ingredient(self, checkpoint: Checkpoint, scores: Mapping[str, Score]) -> Ingredient:
        """Return a checkpoint for the report."""
        return ingredient_to_report(checkpoint, scores, self.hashes)
