"""What `soup uniform` and `soup greedy` share: a mixture is written, scored on every set, shown and reported."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from soupcli import processes
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.cli.parsing import DONE
from soupcli.evaluation.compare import Side, compare
from soupcli.evaluation.score import Score
from soupcli.files.lock import claim
from soupcli.mixing.average import CPU
from soupcli.mixing.mixture import Mixture, differing
from soupcli.mixing.soup_folder import REPORT, SoupFolder, check_free, check_space
from soupcli.mixing.write_soup import INDEX, AdapterNotes, Written, soup_specs, write_soup
from soupcli.output import ci as ci_formats
from soupcli.output import console
from soupcli.output.text import cost_of, describe_verdict, score_table, sentences
from soupcli.report.scores import Scored
from soupcli.report.soups import Adapter, Coefficients, Fit, Soup
from soupcli.run import caveats as selection
from soupcli.run.gates import answer, verdicts
from soupcli.run.resolve import begins_at_base
from soupcli.run.run import Session, counted
from soupcli.run.to_report import report_scores, reported, reported_search

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.cli.options import SoupOptions
    from soupcli.evaluation.gates import Verdict
    from soupcli.progress import Progress
    from soupcli.report.comparisons import Comparison
    from soupcli.report.report import Report
    from soupcli.soups.search import Found

Row = tuple[str, Mapping[str, Score]]


class Cooked(NamedTuple):
    """A soup that is decided and scored, and not yet written."""

    mixture: Mixture
    scores: Mapping[str, Score]
    ingredients: Sequence[tuple[Checkpoint, Mapping[str, Score]]]  # best first where there was a ranking
    best: tuple[Checkpoint, Mapping[str, Score]] | None = None
    uniform: Mapping[str, Score] | None = None
    search: Found | None = None
    fit: Fit | None = None
    coefficients: Coefficients | None = None
    label: str | None = None  # what the table calls the soup, where that is not its command
    beside: Sequence[Row] = ()  # further rows of the table
    beneath: console.Table | None = None  # a further table
    parts: Mapping[str, Any] = {}  # further keys of the report

    @property
    def best_scores(self) -> Mapping[str, Score] | None:
        """Of the best ingredient, where it is known."""
        return self.best[1] if self.best is not None else None


@contextmanager
def reserved(session: Session, options: SoupOptions) -> Iterator[None]:
    """While the soup is cooked: its folder is this process's. Raises OutputError where it has no place or no room."""
    out = session.recipe.out
    if not processes.is_first():
        yield
        return
    with claim(out):
        check_free(out, force=options.force)
        one = session.average()(session.checkpoints[:1])
        check_space(out.absolute().parent, sum(spec.nbytes for spec in soup_specs(one).values()))
        yield


def serve(session: Session, options: SoupOptions, cooked: Cooked) -> int:
    """Writes the soup folder in one step, then shows it; the exit code says whether it passes its gates."""
    with processes.first_alone() as is_first:
        return _serve(session, options, cooked) if is_first else DONE


def _serve(session: Session, options: SoupOptions, cooked: Cooked) -> int:
    out = session.recipe.out
    with SoupFolder(out, force=options.force) as folder:
        with session.phase("mix") as progress:
            statistics = session.evaluators.running_statistics(cooked.mixture) if session.sets else {}
            size = session.recipe.max_shard_size
            rank = session.recipe.adapter_rank
            written, files, notes = fill(
                folder,
                cooked.mixture,
                session.hashes.of,
                size,
                statistics,
                progress,
                adapter_rank=rank,
                device=session.device,
            )
        if notes is not None and notes.relative_error and session.sets:
            cooked = cooked._replace(scores=_scores_as_written(session, folder))
        found = verdicts(session.gates, cooked.scores, cooked.best_scores)
        report = _report(session, cooked, written, files, notes, found)
        (folder.path / REPORT).write_text(report.to_json(), "utf-8")
        folder.commit()
    session.progress.close()
    _show(session, options, cooked, report, found)
    return answer(found)


def fill(
    folder: SoupFolder,
    mixture: Mixture,
    hash_of: Callable[[Checkpoint], str],
    max_shard_size: int,
    statistics: Mapping[str, Tensor],
    progress: Progress,
    *,
    adapter_rank: int | None = None,
    device: torch.device = CPU,
) -> tuple[Written, list[str], AdapterNotes | None]:
    """Weights and side files into the folder; returns what was written and the names of all files of the soup.

    The ingredients' hashes are asked for when all is mixed: until then they are computed beside it.
    """

    def metadata(hash_of: Callable[[Checkpoint], str]) -> dict[str, str]:
        return {"format": "pt", "soup": provenance(mixture, hash_of)}

    specs, side_files = soup_specs(mixture), mixture.kept.side_files
    folder.need(sum(spec.nbytes for spec in specs.values()) + sum(file.stat().st_size for file in side_files))
    written, notes = write_soup(
        mixture,
        folder.path,
        metadata=metadata(lambda _: f"sha256:{'0' * 64}"),
        final_metadata=lambda: metadata(hash_of),
        max_shard_size=max_shard_size,
        adapter_rank=adapter_rank,
        overrides=statistics,
        device=device,
        progress=progress,
    )
    return written, [*written.files, *folder.copy(side_files), REPORT], notes


def _scores_as_written(session: Session, folder: SoupFolder) -> dict[str, Score]:
    """The scores of an approximated adapter: of what was written, not of the mean that it approximates."""
    adapter = open_checkpoint(folder.path, How(base=session.recipe.base))
    with session.phase("evaluate"):
        return session.evaluators.on_all(Mixture.uniform([adapter]))


def provenance(mixture: Mixture, hash_of: Callable[[Checkpoint], str]) -> str:
    """What the weights are made of, as one line of sorted JSON: equal soups have equal bytes."""
    hashes = [hash_of(member) for member in mixture.members]
    members = sorted(zip(hashes, mixture.weights, strict=True))
    made_of: dict[str, Any] = {"members": [m for m, _ in members], "weights": [w for _, w in members]}
    if mixture.coefficients is not None:
        rows = {name: sorted(zip(hashes, row, strict=True)) for name, row in mixture.coefficients.items()}
        made_of["coefficients"] = f"sha256:{hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()}"
    return json.dumps(made_of, sort_keys=True)


def _report(
    session: Session,
    cooked: Cooked,
    written: Written,
    files: list[str],
    notes: AdapterNotes | None,
    found: Sequence[Verdict],
) -> Report:
    mixture, out = cooked.mixture, session.recipe.out
    dtypes = Counter(str(spec.dtype).removeprefix("torch.") for spec in soup_specs(mixture).values())
    soup = Soup(
        path=str(out / (INDEX if INDEX in written.files else written.files[0])),
        hash=written.hash,
        members=[str(member.path) for member in mixture.members],
        weights=list(mixture.weights),
        scores=report_scores(cooked.scores),
        bytes=written.nbytes,
        files=files,
        differing=differing(mixture),
        dtypes=dict(dtypes),
        not_mixed=sorted(name for name in mixture.kept.tensors if not session.selection.mixes(name)),
        adapter=Adapter(rank=notes.rank, relative_error=notes.relative_error) if notes is not None else None,
        kept_from=str(mixture.kept.path),
        coefficients=cooked.coefficients,
    )
    best, comparisons = cooked.best, []
    if best is not None:
        with session.phase("compare") as progress:
            sides = Side(soup.path, cooked.scores), Side(str(best[0].path), best[1])
            comparisons = compare(*sides, progress=progress)
    seen = selection.shared_examples(session)
    session.warnings += selection.warnings(session, seen)
    return session.report(
        [session.ingredient(checkpoint, scores) for checkpoint, scores in cooked.ingredients],
        **reported_search(session.recipe.greedy.strategy, cooked.search) if cooked.search is not None else {},
        soup=soup,
        best=Scored(path=str(best[0].path), scores=report_scores(best[1])) if best else None,
        uniform=Scored(path="", scores=report_scores(cooked.uniform)) if cooked.uniform is not None else None,
        learned=cooked.fit,
        comparisons=comparisons,
        shared_examples=seen,
        gates=[reported(verdict, soup.path) for verdict in found],
        **cooked.parts,
        flops=counted(session, ingredients=len(cooked.ingredients), members=len(mixture.members)),
    )


def _show(session: Session, options: SoupOptions, cooked: Cooked, report: Report, found: Sequence[Verdict]) -> None:
    assert report.soup is not None
    for warning in report.warnings:
        console.warn(warning)
    if options.as_json:
        console.print_result(report.to_json())
    elif options.quiet:
        console.print_lines([report.soup.path])
    elif options.output_format != "text":
        console.print_result(ci_formats.formatted(options.output_format, report, session.recipe.place))
    else:
        _show_people(session, cooked, report, report.soup, found)


def _show_people(session: Session, cooked: Cooked, report: Report, soup: Soup, found: Sequence[Verdict]) -> None:
    """Tables, sentences, and what became of the soup."""
    _show_tables(session, cooked)
    said = _compared(session, cooked, report.comparisons) + [describe_verdict(verdict) for verdict in found]
    if said:
        console.print_sentences([*said, ""])
    if report.flops is not None:
        console.print_sentences([cost_of(report.flops), ""])
    if soup.differing:
        shown = ", ".join(soup.differing[:3])
        console.note(f"not averaged and different, taken from {cooked.mixture.kept.path}: {shown}")
    if soup.not_mixed:
        of_base = session.recipe.base if not begins_at_base(session.name, session.recipe) else None
        source = of_base or cooked.mixture.kept.path
        console.note(f"not mixed, taken from {source}: {len(soup.not_mixed)} tensors")
    if soup.adapter is not None and soup.adapter.relative_error:
        error = soup.adapter.relative_error
        console.note(f"adapter of rank {soup.adapter.rank}, {error:.2%} off the exact mean of the changes")
    console.print_result(f"members: {_members(soup)}\nsoup: {soup.path}")


def _show_tables(session: Session, cooked: Cooked) -> None:
    tables = [cooked.beneath]
    if session.sets:
        rows, metrics = _rows(session, cooked), session.recipe.metrics
        tables.insert(0, score_table(rows, list(session.sets), first="weights", metrics=metrics))
    for table in filter(None, tables):
        console.print_table(table)
        console.print_result("")


def _members(soup: Soup) -> str:
    """The paths; with the weights, where one soup holds more of one member than of another."""
    if len(set(soup.weights)) == 1 or soup.coefficients is not None:
        return ", ".join(soup.members)
    return ", ".join(f"{path} ({weight:.4g})" for path, weight in zip(soup.members, soup.weights, strict=True))


def _compared(session: Session, cooked: Cooked, comparisons: list[Comparison]) -> list[str]:
    if cooked.best is None:
        return []
    best = Side(str(cooked.best[0].path), cooked.best[1])
    if [str(member.path) for member in cooked.mixture.members] == [best.path]:
        return ["the soup is the best ingredient alone"]
    selected = session.selecting if selection.selects(session) else None
    return sentences(comparisons, Side("", cooked.scores), best, selected=selected)


def _rows(session: Session, cooked: Cooked) -> list[Row]:
    members, ingredients = cooked.mixture.members, cooked.ingredients
    rows: list[Row] = []
    if cooked.best is not None:
        rows.append((f"best ingredient ({cooked.best[0].path})", cooked.best[1]))
    if cooked.uniform is not None:
        rows.append((f"uniform soup ({len(ingredients)} ingredients)", cooked.uniform))
    label = cooked.label or f"{session.name} soup ({len(members)} of {len(ingredients)})"
    return [*rows, *cooked.beside, (label, cooked.scores)]
