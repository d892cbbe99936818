"""The report as a whole: its top keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from soupcli.files.json_text import dump_json, plain
from soupcli.report.comparisons import Comparison, Flops, GateResult
from soupcli.report.inspection import Inspection
from soupcli.report.scores import ClassOrder, Ensemble, Ingredient, Judged, LeftOut, ReportPart, Scored
from soupcli.report.soups import (
    Alpha,
    CoefficientSearch,
    Experts,
    LearnedFit,
    OtherStatistics,
    Scaled,
    Search,
    SearchStep,
    Soup,
    Stock,
)
from soupcli.report.surveys import Landscape, Pairs


class RunCost(ReportPart):
    examples: int = 0
    """Examples that went through the network."""
    decoded: int = 0
    """Inputs that were decoded or tokenised in this run; of a set of tokens its tokens."""
    cached: int = 0
    """Inputs that an earlier run had decoded or tokenised."""
    on_device: list[str] = []
    """Sets whose inputs lived on the device as a whole."""
    batch_size: int | None = None
    """Examples in one forward pass at the end: less than the recipe's where memory ran out."""
    seconds: dict[str, float] = {}
    peak_bytes: dict[str, int] = {}


class Report(ReportPart):
    schema_: Literal["soup-report/1"] = Field(default="soup-report/1", alias="schema")
    command: str
    created: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    device: str
    recipe: dict[str, Any]
    """The resolved recipe."""
    ingredients: list[Ingredient]
    """Best first if there was a ranking, otherwise by path."""
    left_out: list[LeftOut] = []
    """Checkpoints that `window:`, or --last, --top, --between or --every, left out."""
    steps: list[SearchStep] = []
    search: Search | None = None
    """Of the greedy recipe."""
    experts: Experts | None = None
    """Of its strategy `experts`."""
    soup: Soup | None = None
    best: Scored | None = None
    """The best ingredient on the selecting set; of windows, the last checkpoint."""
    uniform: Scored | None = None
    """The mean of all ingredients, where it was asked for."""
    other_statistics: OtherStatistics | None = None
    """Of networks with batch norm: the soup with statistics that are averaged if its own are estimated again, and the
    other way round."""
    learned: LearnedFit | None = None
    """The fit of a learned soup."""
    coefficient_search: CoefficientSearch | None = None
    """Of `soup learned --by search`."""
    second_best: Scored | None = None
    """The ingredient after the best, where ensembles were asked for."""
    ensemble: Ensemble | None = None
    """Of all ingredients."""
    greedy_ensemble: Ensemble | None = None
    """Of those that Recipe 1 takes when it averages outputs."""
    stock: Stock | None = None
    scale: Scaled | None = None
    """Of --scale."""
    alphas: list[Alpha] = []
    """Every point that `soup mix --alpha` evaluated."""
    alpha: float | None = None
    """The point that was written."""
    flops: Flops | None = None
    """Where the recipe asks for them."""
    weights_name: str | None = None
    """The file that was taken from each folder of an ingredient, where --weights-name gave it."""
    scores_file: str | None = None
    """The file of the ingredients' scores, if they were not measured."""
    inspection: Inspection | None = None
    """Of `soup inspect`."""
    objective: Judged | None = None
    """Where several sets selected; scores and thresholds of `steps` are then values of it."""
    selecting_set: str | None = None
    selecting_metrics: dict[str, str] = {}
    """Set -> the metric that ranks and selects on it."""
    lower_is_better: dict[str, list[str]] = {}
    """Set -> metrics for which lower is better."""
    sets: list[str] = []
    """All sets in the order in which they were named."""
    transforms: dict[str, str] = {}
    """Set of pictures -> where the transform of its pictures comes from."""
    classes: dict[str, ClassOrder] = {}
    """Set -> which class is which there, for sets whose classes have names."""
    comparisons: list[Comparison] = []
    """Soup against best ingredient on every set, every metric of both."""
    shared_examples: dict[str, int] = {}
    """Set -> how many of its examples are also in the selecting set, if there are any."""
    gates: list[GateResult] = []
    """What `gates:` and `--require-gain` came to."""
    landscape: Landscape | None = None
    """What `soup landscape` measures."""
    pairs: Pairs | None = None
    """What `soup pairs` measures."""
    warnings: list[str] = []
    """What should be known before the scores are believed."""
    cost: RunCost = RunCost()

    model_config = ConfigDict(extra="forbid", populate_by_name=True, defer_build=True)

    @property
    def hashes(self) -> dict[str, str]:
        """Path -> hash of every checkpoint that is an ingredient, a member of one, or the base of a scaled soup."""
        groups = {member.path: member.hash for one in self.ingredients for member in one.members}
        return {**groups, **{one.path: one.hash for one in (*self.ingredients, *self._bases)}}

    @property
    def revisions(self) -> dict[str, str | None]:
        """Path -> commit of every checkpoint that is an ingredient, or a member of one; None if it is no model."""
        groups = {member.path: member.revision for one in self.ingredients for member in one.members}
        return {**groups, **{one.path: one.revision for one in (*self.ingredients, *self._bases)}}

    @property
    def _bases(self) -> list[Ingredient]:
        return [] if self.scale is None else [self.scale.base]

    def weights_name_of(self, path: str) -> str | None:
        """Return the file that is taken from the folder of a member; that of a base has its own name."""
        return None if path == self.base_of_soup else self.weights_name

    @property
    def base_of_soup(self) -> str | None:
        """The base that the soup was scaled or mixed from on; a member of it, unless its weight there is 0."""
        if self.scale is not None:
            return self.scale.base.path
        return self.ingredients[-1].path if self.begins_at_base else None

    @property
    def parts_of_soup(self) -> list[str]:
        """The ingredients that the soup is made of: its members but for a base, or the groups that they are of."""
        members = [] if self.soup is None else self.soup.groups or self.soup.members
        return [path for path in members if path != self.base_of_soup]

    @property
    def gives_unmixed(self) -> str | None:
        """What gives the tensors that were not mixed: the base of whole networks, else a checkpoint."""
        if self.soup is None:
            return None
        adapters = self.soup.adapter is not None or self.recipe.get("merge_adapters")
        base: str | None = None if self.begins_at_base or adapters else self.recipe.get("base")
        return base or self.soup.kept_from

    @property
    def selecting_sets(self) -> list[str]:
        """The sets whose scores decided what the soup is."""
        if self.selected_on is None:
            return []
        if self.objective is None:
            return [self.selected_on]
        return [name for name in self.sets if name in self.objective.weights]  # JSON has these sorted

    @property
    def selected_on(self) -> str | None:
        """The set whose scores decided what the soup is; None if no scores did."""
        decided = bool(self.steps) or self.search is not None or self.is_learned or len(self.alphas) > 1
        decided = decided or self.scale is not None
        return self.selecting_set if decided else None

    @property
    def is_learned(self) -> bool:
        """Whether the soup's coefficients were fitted to a set."""
        layered = self.soup is not None and self.soup.coefficients is not None
        return self.learned is not None or self.coefficient_search is not None or (layered and self.stock is None)

    @property
    def scores_ingredients(self) -> bool:
        """Whether scores of its ingredients on several sets say something: not of the base, and not of a survey."""
        survey = (self.landscape, self.pairs, self.inspection)
        return not self.begins_at_base and all(part is None for part in survey)

    @property
    def averages_all(self) -> bool:
        """Whether the soup is the plain mean of all ingredients, and nothing was decided."""
        soup, paths = self.soup, {ingredient.path for ingredient in self.ingredients}
        if soup is None or self.selected_on is not None or self.begins_at_base:
            return False
        return (len(set(soup.weights)) == 1 or bool(soup.groups)) and set(self.parts_of_soup) == paths

    @property
    def name_of_best(self) -> str:
        """What `best` is: of windows, no other ingredient than the last checkpoint was evaluated."""
        windows = self.search is not None and self.search.strategy == "windows"
        return "last checkpoint" if windows else "best ingredient"

    @property
    def begins_at_base(self) -> bool:
        """Whether the soup was mixed from the base on: by `soup mix --alpha` or `--method stock`."""
        return self.alpha is not None or self.stock is not None

    def to_json(self) -> str:
        """Sorted JSON, indented, with a final newline."""
        return dump_json(self.model_dump(by_alias=True))


def relative(report: Report, folder: Path) -> Report:
    """The report with every absolute path in it made relative to `folder`."""
    document = plain(report.model_dump(by_alias=True))
    found = {word: os.path.relpath(word, folder) for text in _texts(document) for word in _absolute(text)}
    return Report.model_validate(_replaced(document, dict(sorted(found.items(), key=lambda pair: -len(pair[0])))))


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        yield from (text for pair in document.items() for part in pair for text in _texts(part))
    elif isinstance(document, list):
        yield from (text for part in document for text in _texts(part))


def _absolute(text: str) -> list[str]:
    """A path that is all of the text, or the words of a command or message that are one."""
    if text.startswith("/") and Path(text.partition(":")[0]).exists():
        return [text]
    return re.findall(r"(?<![^\s='\"(])/[^\s'\"),;]+", text)


def _replaced(document: Any, paths: dict[str, str]) -> Any:
    if isinstance(document, str):
        for path, seen in paths.items():
            document = document.replace(path, seen)
        return document
    if isinstance(document, dict):
        return {_replaced(key, paths): _replaced(value, paths) for key, value in document.items()}
    return [_replaced(part, paths) for part in document] if isinstance(document, list) else document
