"""The context of a run's evaluations: the recipe, the sets, the device, and callbacks for messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.datasets.holdout import SetPart, whole_of
from soupcli.environment import cache_folder
from soupcli.errors import ValidationError
from soupcli.evaluation.outside.program_files import scripts_behind, variables_named
from soupcli.files.cache import STORES
from soupcli.files.kept_file import refusal
from soupcli.files.manifest import Manifest, UserReads
from soupcli.progress import Progress, silent, unsaid
from soupcli.recipe.sets import SetSpec
from soupcli.user_code.changes import begin, changed_files, made_files
from soupcli.user_code.files import is_written_now, one_moment, read_files, started_commands, written_files
from soupcli.user_code.lookups import asked_files, asked_variables, stated_files
from soupcli.user_code.packages import used_packages
from soupcli.user_code.programs import unseen_programs

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.hashes import ContentHashes
    from soupcli.evaluation.kept_scores import ScoreStore
    from soupcli.evaluation.logits import LogitFolder
    from soupcli.evaluation.score import Score
    from soupcli.mixing.mixture import Mixture
    from soupcli.networks.device import Device
    from soupcli.recipe.recipe import Recipe
    from soupcli.recipe.sets import SetSpec


def untold(_name: str, _weights: Mixture, _score: Score) -> None:
    """A callback that ignores scores."""


def unasked() -> None:
    """A callback that does nothing before a network is built."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationContext:
    """One run's recipe and sets. `first` is the checkpoint whose folder describes the network.

    `manifest` records what is read. `parts` has the sets that are parts of another set. `logits` keeps logits, if
    requested. `told` is called with every score, its set and weights, `building` before a network is built, which a
    run whose scores are all kept never does. `jobs` commands run at once. `makes_soups` means that mixtures will be
    evaluated after ingredients.
    """

    recipe: Recipe
    sets: Mapping[str, SetSpec]
    device: Device
    first: Checkpoint
    hashes: ContentHashes
    store: ScoreStore
    manifest: Manifest = field(default_factory=Manifest)
    parts: Mapping[str, SetPart] = field(default_factory=dict)
    logits: LogitFolder | None = None
    trust_code: bool = False  # whether code beside the weights, which the user wrote, is run
    jobs: int = 1
    makes_soups: bool = False
    told: Callable[[str, Mixture, Score], None] = untold
    building: Callable[[], None] = unasked
    progress: Progress = silent
    warn: Callable[[str], None] = unsaid
    note: Callable[[str], None] = unsaid

    def metric_of(self, name: str) -> str:
        """The metric that selects on the set `name`."""
        return self.sets[name].metric or self.recipe.metric

    def metrics_of(self, name: str) -> list[str]:
        """All metrics that the recipe asks of the set `name`, the selecting one first."""
        whole = whole_of(name)
        gates = [gate.metric for gate in self.recipe.wanted if gate.set in (name, whole) and gate.metric is not None]
        return list(dict.fromkeys([self.metric_of(name), *self.recipe.metrics, *gates]))

    def calibrating_set(self) -> tuple[str, SetSpec]:
        """The first labelled set: batch-norm statistics are re-estimated from its inputs.

        Raises ValidationError if there is none.
        """
        for name, spec in self.sets.items():
            if spec.labelled:
                return name, spec
        raise ValidationError(
            f"batch_norm: {self.recipe.batch_norm} needs a set of images, text or arrays to re-estimate from",
            hint="name one with --val, or batch_norm: average",
        )

    def counted_set(self) -> tuple[str, SetSpec]:
        """The first set whose examples go through the network one by one: operations are counted on it.

        Raises ValidationError if there is none.
        """
        for name, spec in self.sets.items():
            if spec.shows_examples:
                return name, spec
        raise ValidationError(
            "cost.flops: needs a set of images, text, arrays or tokens, to show the network an example of it",
            hint="name one with --val, or leave --flops out",
        )


def made_manifest(*, recipe: Path | None = None, fresh: bool = False, warn: Callable[[str], None] = unsaid) -> Manifest:
    """Return the manifest of a run, which includes the files that the user's code reads.

    `recipe` is the file of the recipe, if there is one: code of its folder has modules of its own.
    `warn` is called once if the cache is not used because others can write there.
    """
    folder = cache_folder()
    reasons = (refusal(place) for place in (folder, *(folder / name for name in STORES)))
    reason = next(filter(None, reasons), None)
    if reason is not None:
        warn(f"{reason}: nothing is kept there between runs, and nothing of it is used (chmod go-w, or SOUP_CACHE=DIR)")
    begin(recipe.parent if recipe is not None else Path.cwd())
    moved: set[Path] = set()  # since the run began, of the files behind scripts

    def seen() -> dict[Path, str | None]:
        behind = _behind_scripts()
        moved.update(file for file in behind if is_written_now(str(file)))
        return dict.fromkeys(behind - moved) | read_files()

    user = UserReads(
        seen=seen,
        written=written_files,
        made=lambda: made_files() | moved,
        changed=changed_files,
        changed_by_programs=lambda: changed_files("opened by a program"),
        variables=lambda: {*asked_variables(), *_variables_of_scripts()},
        asked=asked_files,
        stated=stated_files,
        packages=used_packages,
        unseen=unseen_programs,
        at_once=one_moment,
    )
    return Manifest(folder / "hashes", fresh=fresh, user=user)


def _behind_scripts() -> set[Path]:
    """Return the scripts that the user's code has started, and what they name and import."""
    here = Path.cwd()
    return {file for words in started_commands() for file in scripts_behind(words, here)}


def _variables_of_scripts() -> set[str]:
    """Return the environment variables that they name."""
    here = Path.cwd()
    return {name for words in started_commands() for name in variables_named(words, scripts_behind(words, here))}
