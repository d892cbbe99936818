"""Writes a soup again from its ingredients, byte for byte, as its report says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from soupcli.checkpoints.adapters.adapter import AdapterCheckpoint
from soupcli.checkpoints.adapters.base_as_adapter import BaseAsAdapter
from soupcli.checkpoints.compare.agreement import check_mixable
from soupcli.checkpoints.compare.constants import Everything, with_these
from soupcli.checkpoints.compare.names import Names
from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.hub import pinned
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.datasets.holdout import divide, selecting_part_of, whole_of
from soupcli.environment import cache_folder
from soupcli.errors import MixError, UsageError
from soupcli.evaluation.context import EvaluationContext, made_manifest
from soupcli.evaluation.kept_scores import ScoreStore
from soupcli.files.lock import claim, finish_abandoned
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.soup_folder import Input, SoupFolder, check_free
from soupcli.networks.device import choose_device
from soupcli.output import console
from soupcli.output.progress_bars import ProgressReporter
from soupcli.recipe.recipe import Recipe
from soupcli.report.report_file import read_report
from soupcli.report.tables import Column, Table
from soupcli.run.finish_folder import finish
from soupcli.run.stranger import check_out, check_soup, check_trusted, re_estimates
from soupcli.run.words.sets import choose_sets
from soupcli.soups.learned.learned import Layered

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options.soups import MixOptions
    from soupcli.mixing.fill_folder import Filled
    from soupcli.report.report import Report


def write_again(options: MixOptions, file: Path) -> int:
    """Write the soup of the report in `file` and return the exit code.

    Raises MixError if an ingredient has changed.
    """
    finish_abandoned(file)
    report = read_report(file)
    check_soup(report, file)
    recipe = recipe_of(report, file)
    out = check_out(options.out, recipe, file)
    check_trusted(report, recipe, file, trust_code=options.trust_code)
    hashes = ContentHashes(cache_folder() / "hashes", fresh=True)
    try:
        mixture = mixture_of_report(options, report, file, recipe, hashes)
        if options.dry_run:
            return _show_members(options, mixture)
        with claim(out):
            check_free(out, force=options.force, inputs=_members(mixture))
            return _write(options, report, recipe, mixture, out, hashes)
    finally:
        hashes.close()


def recipe_of(report: Report, file: Path) -> Recipe:
    """Return the recipe in the report. Raises UsageError if it is not a valid recipe."""
    try:
        return Recipe.model_validate(report.recipe)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(map(str, ("recipe", *first["loc"])))
        raise UsageError(f"{file}: not a report of a soup: {where}: {first['msg']}") from invalid


class Opening(Protocol):
    """Options that say how checkpoints are opened."""

    @property
    def weights_name(self) -> str | None:
        """See cli/options/common.py."""

    @property
    def trust(self) -> bool:
        """See cli/options/common.py."""

    @property
    def allow_class(self) -> list[str] | None:
        """See cli/options/common.py."""


def how_to_open(options: Opening, report: Report, recipe: Recipe, path: str) -> How:
    """Return how the checkpoint at `path` was opened when the report was written."""
    name = options.weights_name or report.weights_name_of(path)
    return How(name, recipe.key, options.trust, tuple(options.allow_class or ()), recipe.base)


def mixture_of_report(options: Opening, report: Report, file: Path, recipe: Recipe, hashes: ContentHashes) -> Mixture:
    """Return the mixture of the report in `file`. Raises MixError if an ingredient has changed."""
    soup = report.soup
    assert soup is not None
    known = report.hashes
    kept_from = soup.kept_from or soup.members[0]
    commits = report.revisions
    places = {path: pinned(path, commits.get(path)) for path in dict.fromkeys([*soup.members, kept_from])}
    opened = _with_base_as_adapter(
        {path: open_checkpoint(place, how_to_open(options, report, recipe, path)) for path, place in places.items()}
    )
    hashes.start(list(opened.values()))
    for path, checkpoint in opened.items():
        if hashes.of(checkpoint) != known.get(path):
            raise MixError(
                f"{path}: has changed since {file} was written: it is {hashes.of(checkpoint)}, "
                f"it was {known.get(path, 'not among the ingredients')}",
                hint="a soup is written again from the very same ingredients",
            )
    names = Names(soup.aliases, frozenset(soup.passed_over))
    opened = {path: with_these(names.applied(checkpoint), Everything()) for path, checkpoint in opened.items()}
    selection = TensorFilter(tuple(recipe.include), tuple(recipe.exclude), tuple(recipe.take))
    best, source = opened[kept_from], opened[kept_from]
    if (
        recipe.base is not None
        and any(selection.of_base)
        and not report.begins_at_base
        and not any(one.is_adapter for one in opened.values())
    ):
        base = open_checkpoint(recipe.base, How(trust=options.trust, allow=tuple(options.allow_class or ())))
        source = with_these(names.applied(base), Everything())
    if source is not best:
        opened = {path: selection.of_base.applied(checkpoint, source) for path, checkpoint in opened.items()}
        selection, source = selection.of_best, opened[kept_from]
    kept = opened[kept_from]
    members = [selection.applied(opened[path], source) for path in soup.members]
    check_mixable([*members, kept])
    dtype = Dtype(recipe.dtype) if recipe.dtype else None
    layers = soup.coefficients
    if layers is None:
        return Mixture(tuple(members), tuple(soup.weights), dtype, kept)
    unknown = next((name for names in layers.tensors for name in names if name not in members[0].tensors), None)
    if unknown is not None:
        raise MixError(f"{file}: soup.coefficients name the tensor {unknown!r}, which {members[0].path} has not")
    layered = Layered(members, layers.alpha, layers.layers, layers.tensors, layers.scaled)
    return layered.mixture(dtype=dtype, keep_from=kept)


def _with_base_as_adapter(opened: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Return the members, of which a whole network among adapters is their base."""
    adapter = next((one for one in opened.values() if isinstance(one, AdapterCheckpoint)), None)
    if adapter is None:
        return dict(opened)
    return {path: one if one.is_adapter else BaseAsAdapter.of(adapter) for path, one in opened.items()}


def _members(mixture: Mixture) -> list[Input]:
    """Return the inputs, which the soup must not replace."""
    return [Input("ingredient", member.path) for member in (*mixture.members, mixture.kept)]


def _write(
    options: MixOptions, report: Report, recipe: Recipe, mixture: Mixture, out: Path, hashes: ContentHashes
) -> int:
    """Write the soup. Raises MixError if its bytes differ from the report's."""
    soup = report.soup
    assert soup is not None
    with (
        ProgressReporter(silent=options.quiet) as progress,
        SoupFolder(out, force=options.force, inputs=_members(mixture)) as folder,
    ):
        filled = mixed(folder, report, recipe, mixture, hashes, progress)
        written = filled.written
        if written.hash != soup.hash:
            made_by = f"soup {report.versions.get('soup')} and torch {report.versions.get('torch')}"
            raise MixError(
                f"{options.report}: the soup is {soup.hash}, from the same ingredients {written.hash} was mixed",
                hint=f"it was written by {made_by}: other versions may mix other bytes",
            )
        hashes.confirm([*mixture.members, mixture.kept])
        path = str(out / written.main)
        about = {"files": filled.files, "file_hashes": filled.file_hashes, "left_out": filled.left_out}
        again = report.model_copy(update={"soup": soup.model_copy(update={"path": path, **about})})
        again = finish(folder, again, mixture)
    if options.as_json:
        console.print_json(again.to_json())
    else:
        console.print_lines([path if options.quiet else f"soup: {path}"])
    return 0


def mixed(
    folder: SoupFolder,
    report: Report,
    recipe: Recipe,
    mixture: Mixture,
    hashes: ContentHashes,
    progress: ProgressReporter,
) -> Filled:
    """Write the report's mixture into the folder. Returns what was written."""
    from soupcli.mixing.fill_folder import fill
    from soupcli.mixing.write_soup import WritingOptions

    statistics = _statistics(report, recipe, mixture, hashes, progress)
    size, rank = recipe.max_shard_size, recipe.adapter_rank
    writing = WritingOptions(
        max_shard_size=size,
        adapter_rank=rank,
        overrides=statistics,
        format=recipe.format,
        keep_state=recipe.keep_state,
        merge_adapters=recipe.merge_adapters,
    )
    return fill(folder, mixture, hashes, writing, progress)


def _statistics(
    report: Report, recipe: Recipe, mixture: Mixture, hashes: ContentHashes, progress: ProgressReporter
) -> Mapping[str, Tensor]:
    """Estimate batch-norm statistics from the same set as the soup's. Returns {} if the soup's were averaged."""
    if not re_estimates(report, recipe):
        return {}
    from soupcli.evaluation.evaluators import Evaluators

    manifest, device = made_manifest(warn=console.warn), choose_device(recipe.device)
    words = list(dict.fromkeys(map(whole_of, report.sets)))
    divided = [name for name in words if selecting_part_of(name) in report.sets]
    sets, parts = divide(choose_sets(words, recipe), recipe.holdout, divided)
    context = EvaluationContext(
        recipe=recipe,
        sets=sets,
        parts=parts,
        device=device,
        first=mixture.kept,
        hashes=hashes,
        store=ScoreStore(cache_folder() / "scores", inputs=manifest),
        manifest=manifest,
        progress=progress,
    )
    return Evaluators(context).running_statistics(mixture)


def _show_members(options: MixOptions, mixture: Mixture) -> int:
    """Print what would be mixed."""
    if options.quiet:
        console.print_lines([str(member.path) for member in mixture.members])
        return 0
    rows: list[list[str]] = []
    for member, weight in zip(mixture.members, mixture.weights, strict=True):
        rows.append([str(member.path), f"{weight:.4f}"])
    console.print_table(Table("Members", [Column("member"), Column("weight", is_number=True)], rows))
    return 0
