"""The soup that a command wrote, and how it came about: decisions of a search, a fit, angles."""

from __future__ import annotations

from typing import Literal

from soupcli.report.scores import Ingredient, Number, ReportPart, Scores

Strategy = Literal["forward", "pruned", "replacement", "budgeted", "experts", "windows"]


class SearchStep(ReportPart):
    """One decision of the greedy recipe."""

    candidate: str
    score: Number
    """Null where the evaluation was given up, or where the score is not a number."""
    threshold: Number
    """The score that it was compared with; null for the start."""
    accepted: bool
    reason: str
    examples: int
    """Examples that were evaluated; 0 where the score was known from an earlier run."""
    seconds: float
    action: Literal["add", "remove", "take"] = "add"
    """What was tried: the candidate added to the members or removed from them, or a soup of its own taken."""
    members: list[str] = []
    """What was evaluated, where that is not the members so far with or without the candidate."""
    weights: list[float] = []
    """Of `members`, where they are not all the same."""
    bound: Number = None
    """The best score that was left to reach where the evaluation was given up, out of reach of the threshold."""


class SearchOrder(ReportPart):
    """One order in which a search went through the ingredients, and what it found."""

    order: list[str]
    members: list[str]
    score: Number
    evaluations: int


class Search(ReportPart):
    """Which soups were tried; `steps` are those of the order that found the soup."""

    strategy: Strategy
    evaluations: int
    """Soups whose score was asked for, in all orders; the ranking is not among them."""
    orders: list[SearchOrder] = []
    """Where there were several."""


class ExpertGroup(ReportPart):
    """Sets whose scores go together, and the ingredient that is best on them."""

    sets: list[str]
    expert: str


class Experts(ReportPart):
    """What the strategy `experts` saw in the scores of the ingredients."""

    sets: list[str]
    correlations: list[list[Number]]
    """Of every two sets over the ingredients; null where one of them does not vary."""
    ingredients: int
    threshold: float
    """Sets are joined from this correlation on."""
    groups: list[ExpertGroup]
    parts: int
    """Weights are multiples of 1 / parts."""


class Coefficients(ReportPart):
    """The coefficients of a learned soup by layer."""

    layers: list[str]
    members: list[str]
    alpha: list[list[float]]
    """One row for each layer, one column for each member; rows sum to 1."""
    tensors: list[list[str]]
    """The tensors of each layer."""
    scaled: dict[str, float] = {}
    """Tensors that are also multiplied by the learned temperature."""


class Stock(ReportPart):
    """What Model Stock found in each layer."""

    layers: list[str]
    cosines: list[float]
    """The mean cosine of the angle between two ingredients' offsets from the base."""
    ratios: list[float]
    """How far from the base (0) to the mean of the ingredients (1) the soup is."""


class Alpha(ReportPart):
    """A point between the base (0) and the mean of the ingredients (1)."""

    alpha: float
    scores: Scores


class SearchGeneration(ReportPart):
    """A generation of a search for coefficients; values are of what selects."""

    evaluations: int
    """Mixtures that were evaluated by its end."""
    best_so_far: Number
    best: Number
    mean: Number


class CoefficientSearch(ReportPart):
    """How the coefficients of a learned soup were searched for."""

    algorithm: Literal["CMA-ES", "sep-CMA-ES"]
    package: str
    seed: int
    population: int
    """Mixtures in a generation."""
    budget: int
    evaluations: int
    """Mixtures that the search chose from, the start among them."""
    ended_early: bool
    """Whether further mixtures would have been as good as the same."""
    start: Number
    """The value of the start."""
    best: Number
    """The value of the soup, before --scale."""
    generations: list[SearchGeneration]


class ScaledPoint(ReportPart):
    """A point of the way from the base (0) through the soup (1)."""

    scale: float
    value: Number
    """What it was chosen by: the score on the set that selects, or the objective."""
    scores: Scores
    """On the sets that select."""


class Scaled(ReportPart):
    """What `--scale` made of the soup."""

    scale: float
    """The point that was taken; 1 is the soup as it was."""
    points: list[ScaledPoint]
    evaluations: int
    """Points that were evaluated besides the soup itself."""
    base: Ingredient
    """Where the way begins; a member of the soup, unless the scale is 1."""


class Adapter(ReportPart):
    """What became of adapters."""

    rank: int
    """Of most layers."""
    relative_error: float
    """Of the change of the weights, in the Frobenius norm over all layers; 0 where the adapter is the exact mean."""


class Soup(ReportPart):
    path: str
    hash: str
    members: list[str]
    """In the order of acceptance."""
    weights: list[float]
    groups: list[str] = []
    """Of --group-by: the groups that the members are of, in the order of acceptance."""
    scores: Scores = {}
    bytes: int = 0
    files: list[str] = []
    """Every file of the soup folder that this command wrote."""
    file_hashes: dict[str, str] = {}
    """The hash of each of `files`, but of the report itself."""
    left_out: list[str] = []
    """What the soup lacks of the best ingredient although it may be needed, and why: files beside the weights, and
    other parts of a file of torch.save.
    """
    format: Literal["safetensors", "torch", "distributed"] = "safetensors"
    """How the weights were written."""
    weight_files: list[str] = []
    """Those of `files` that hold the weights: `hash` is of these."""
    differing: list[str] = []
    """Tensors that are not averaged (integers, booleans) and differ: the first member's, or the best's, were taken."""
    dtypes: dict[str, int] = {}
    """Output dtype -> number of tensors."""
    not_mixed: list[str] = []
    """Tensors that --include and --exclude left out: the base's, or those of `kept_from`."""
    aliases: dict[str, str] = {}
    """Tensor -> another name under which some ingredients store it."""
    passed_over: list[str] = []
    """Names that some ingredients store and the soup does not: other names of its tensors, buffers that follow from the
    configuration."""
    adapter: Adapter | None = None
    kept_from: str | None = None
    """The ingredient that gave the tensors which are not averaged, and the side files."""
    coefficients: Coefficients | None = None
    """Where a learned soup weighs its members by layer; `weights` are then the means over all elements."""


FAR_ABOVE = 0.1  # of an accuracy: soups gain a few hundredths over their best ingredient


class OtherStatistics(ReportPart):
    """The soup with running statistics (batch norm) made the other way than those that its scores are of."""

    kind: Literal["estimated again", "averaged"]
    scores: Scores

    def is_unlike_training(self, name: str, best: Scores, soup: Scores) -> bool:
        """Whether statistics of the set's own inputs lift the soup far above the best ingredient and averaged ones.

        No soup gains that much: the statistics in the files do not fit these inputs.
        """
        own, averaged, again = (of.get(name, {}).get("accuracy") for of in (best, soup, self.scores))
        values = [one.value for one in (own, averaged, again) if one is not None and one.value is not None]
        if self.kind != "estimated again" or len(values) < 3:
            return False
        return values[2] - max(values[:2]) > FAR_ABOVE


class LearnedFit(ReportPart):
    """How the coefficients of a learned soup were fitted."""

    beta: float
    """The learned factor of the logits; 1 if none was learned. Losses are without it unless it is folded in."""
    steps: list[int]
    """Steps after which the held-out loss was measured; 0 is the start."""
    fitted: list[float]
    """Mean loss of the batches since the step before; at the start that of the whole fitted part."""
    held_out: list[float]
    kept_step: int
    """The step whose coefficients are the soup's: that with the least held-out loss, or 0, the start."""
    fitted_examples: int
    held_out_examples: int
    """Of all folds together."""
    folds: int = 1
    """Number of fits, each with another held-out part; the soup has the mean of their coefficients."""
    gain: float = 0.0
    """How much less than at the start the held-out loss was where it was least."""
    gain_stderr: float = 0.0
    """Over the held-out examples; the start is kept unless the gain is 1.75 times as large."""
    threads: int | None = None
    """Threads that computed the fit. Others, like another batch size, may change the last places of coefficients."""
    resident: Literal["device", "host", "disk"]
    """Where the ingredients were kept."""
    resident_bytes: int
    warnings: list[str] = []
