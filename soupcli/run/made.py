"""The results of soupcli's functions: a soup that is not written yet, or scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import read_part
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.cli.options.soups import SoupOptions
from soupcli.errors import NetworkError, UsageError
from soupcli.figures.draw import svg
from soupcli.figures.page import html
from soupcli.figures.registry import possible
from soupcli.figures.reports import ReadReport, gather
from soupcli.files.unfinished import scratch_folder
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.soup_folder import SoupFolder
from soupcli.networks.live import LiveNetwork
from soupcli.networks.network import Network
from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.report.tables import Table
from soupcli.run.make_soup import FinishedSoup, Prepare, decided, reserved, write
from soupcli.run.to_report import search_to_report
from soupcli.user_code.projects import one_turn
from soupcli.wording import with_article

if TYPE_CHECKING:
    from torch import Tensor, nn

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.report.report import Report
    from soupcli.report.soups import SearchStep
    from soupcli.run.run import Run


class MadeSoup:
    """A soup that is decided and scored. `save` writes it; until then nothing is written.

    It holds the network that evaluated it until it is no longer used.
    """

    path: Path | None = None
    """The folder that it was saved to."""

    def __init__(self, run: Run, finished: FinishedSoup, *, notes: bool) -> None:
        self._run, self._finished, self._notes = run, finished, notes
        self._folder = Path.cwd()  # which the members' paths begin at
        recipe = run.options.recipe
        self._home = self._folder if recipe is None else recipe.parent.absolute()
        self._report: Report | None = None

    @property
    def members(self) -> tuple[str, ...]:
        """Paths of the members, in the order of acceptance."""
        return tuple(str(member.path) for member in self._finished.mixture.members)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each member."""
        return self._finished.mixture.weights

    @property
    def scores(self) -> dict[str, float]:
        """The score on each set, by its selecting metric."""
        return {name: score.value for name, score in self._finished.scores.items()}

    @property
    def score(self) -> float | None:
        """The score on the set that selects; None if nothing was evaluated."""
        return next(iter(self.scores.values()), None)

    @property
    def steps(self) -> list[SearchStep]:
        """The decisions of a greedy search, in order; [] for other soups."""
        found, strategy = self._finished.search, self._run.recipe.greedy.strategy
        return list(search_to_report(strategy, found)["steps"]) if found is not None else []

    @property
    def report(self) -> Report:
        """The report that `save` writes. Before `save`, reading it writes the soup to a temporary folder once."""
        if self._report is None:
            with self._aside():
                pass
        assert self._report is not None
        return self._report

    @property
    def passed(self) -> bool:
        """Whether the soup meets all gates; the command's exit code is 1 if it does not."""
        return all(gate.met is not False for gate in self.report.gates)

    def save(self, path: str | Path | None = None, *, force: bool = False) -> Path:
        """Write the soup's folder at `path`, or where the recipe says. Returns the path.

        Raises OutputError if something is there, unless it is a soup and `force` is given.
        """
        run = self._run
        if path is not None:
            run.recipe = run.recipe.model_copy(update={"out": Path(path)})
        assert isinstance(run.options, SoupOptions)
        out = run.recipe.out
        self._check_paths()
        with one_turn(self._home), console.hushed(notes=self._notes):
            with reserved(run, dataclasses.replace(run.options, force=force)):
                self.fill(out, force=force)
            run.progress.close()
        return out

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that `save` writes, by their names there."""
        with self._opened() as checkpoint:
            return {
                name: read_part(checkpoint, name, 0, spec.numel).reshape(spec.shape)
                for name, spec in checkpoint.tensors.items()
            }

    def load_into(self, model: nn.Module) -> None:
        """Copy the soup's weights into `model`, in place. Raises NetworkError if they do not fit."""
        if not callable(getattr(model, "named_parameters", None)) or isinstance(model, type):
            hint = "soup.load_into(model), a torch.nn.Module; model=build is of the search"
            raise UsageError(f"load_into: {with_article(model)} is no network", hint=hint)
        absent = next((name for name, tensor in model.named_parameters() if tensor.is_meta), None)
        if absent is not None:
            hint = "model.to_empty(device='cpu') gives it memory for them"
            raise NetworkError(f"load_into: {absent!r} is on the meta device, which holds no values", hint=hint)
        first, modes = next(iter(model.parameters()), None), [(part, part.training) for part in model.modules()]
        with self._opened() as checkpoint:
            live = LiveNetwork(Network(model), first.device if first is not None else self._run.device.torch)
            live.load(Mixture.uniform([checkpoint]))
        for part, is_training in modes:
            part.training = is_training

    def fill(self, out: Path, *, force: bool) -> None:
        """Write the folder. Nobody else may write to it meanwhile."""
        with SoupFolder(out, force=force, inputs=self._run.inputs) as folder:
            self._report, _ = write(self._run, self._finished, folder)
        self._run.trackers.finished(self._report, out)
        self._run.trackers.close(failed=False)
        self.path = out

    def _check_paths(self) -> None:
        """Raises UsageError if the working folder has changed since the search, and a path begins at the old one.

        Changing back for a moment would move the ground under other threads of the caller.
        """
        run, recipe = self._run, self._run.recipe
        paths = [*(one.path for one in run.checkpoints), recipe.base, recipe.file if run.sets else None]
        relative = next((path for path in paths if path is not None and not path.is_absolute()), None)
        if relative is not None and Path.cwd() != self._folder:
            hint = f"os.chdir({str(self._folder)!r}) first, or give absolute paths to the search"
            raise UsageError(f"{relative}: begins at {self._folder}, the working folder is now {Path.cwd()}", hint=hint)

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """Yield the soup's folder, written to a temporary place for the block."""
        self._check_paths()
        with one_turn(self._home), console.hushed(notes=self._notes), scratch_folder() as place:
            with SoupFolder(place / "soup", force=False) as folder:
                report, _ = write(self._run, self._finished, folder)
            self._run.progress.close()
            self._report = self._report or report
            yield place / "soup"

    @contextmanager
    def _opened(self) -> Iterator[Checkpoint]:
        recipe = self._run.recipe
        with self._aside() as folder:
            soup = self.report.soup
            names = soup.weight_files if soup is not None and soup.format == "torch" else []
            place = folder / names[0] if len(names) == 1 else folder
            try:
                yield open_checkpoint(place, How(key=recipe.key, base=recipe.base))
            except NetworkError as unfit:  # the folder is gone when this is read
                raise NetworkError(str(unfit).replace(str(folder), "the soup"), hint=unfit.hint) from unfit

    def __repr__(self) -> str:
        score = f", score {self.score:.6g}" if self.score is not None else ""
        return f"<{self._run.command.name} soup of {len(self.members)} of {len(self._run.checkpoints)}{score}>"

    def _repr_html_(self) -> str:
        return shown(self.report)


@dataclasses.dataclass(frozen=True, repr=False)
class Measurement:
    """The result of `rank`, `evaluate` and `inspect`: the report, and its scores."""

    report: Report

    def __repr__(self) -> str:
        best = f", best {self.best}" if self.best is not None else ""
        return f"<{self.report.command} of {len(self.report.ingredients)}{best}>"

    @property
    def scores(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Checkpoint path -> set -> metric -> value; a ranking has the best first."""
        return {
            one.path: {
                name: {metric: score.value for metric, score in of_set.items()} for name, of_set in one.scores.items()
            }
            for one in self.report.ingredients
        }

    @property
    def best(self) -> str | None:
        """The path of the best checkpoint of a ranking."""
        return self.report.best.path if self.report.best is not None else None

    @property
    def passed(self) -> bool:
        """Whether all gates are met."""
        return all(gate.met is not False for gate in self.report.gates)

    def _repr_html_(self) -> str:
        return shown(self.report)


def shown(report: Report) -> str:
    """Return the command's tables and the report's figures as HTML, for a notebook."""
    parts = [html.paragraph(f"Warning: {warning}", "warning") for warning in report.warnings]
    parts += [
        html.table_of(part) if isinstance(part, Table) else "".join(html.paragraph(_words(one)) for one in part)
        for part in report_text(report)
    ]
    figures, _ = possible(gather([ReadReport(Path("soup.json"), report)]))
    colours = f".soup-result{{{svg.stylesheet('light')}}}.soup-result svg{{background:var(--paper)}}{svg.RULES}"
    return f'<div class="soup-result"><style>{colours}</style>{"".join([*parts, *map(html.figure, figures)])}</div>'


def _words(sentence: str | console.Paragraph) -> str:
    return sentence if isinstance(sentence, str) else sentence.text


def made(run: Run, prepare: Prepare, options: SoupOptions, *, notes: bool) -> MadeSoup:
    """Make the soup of an open run, and write it if the options name a folder."""
    run.check_mixable()
    prepared = prepare(run, options)
    if options.out is None:
        soup = MadeSoup(run, decided(run, prepared), notes=notes)
    else:
        with reserved(run, options):
            soup = MadeSoup(run, decided(run, prepared), notes=notes)
            soup.fill(run.recipe.out, force=options.force)
    run.progress.close()
    return soup
