"""The sections of a recipe that define how a soup is made: `greedy:`, `learned:`, `mix:` and `cost:`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from soupcli.recipe.section import Section
from soupcli.recipe.values import Decay, Grid, Margin, Numbers, Sizes


class Window(Section):
    """Which of the checkpoints that `ckpts` finds are used. Each key applies to what those before it kept."""

    prefer: Literal["best", "last"] | None = None
    """Where a run has several checkpoints, the one that is called so; where none is, `best` is the one that the trainer
    wrote down, `last` the one with the highest number. Default: all."""
    between: list[int] | None = Field(default=None, min_length=2, max_length=2)
    """First and last step, both included."""
    every: int | None = Field(default=None, gt=0)
    """Every Nth checkpoint of each run, counted back from its last one."""
    last: int | None = Field(default=None, gt=0)
    """The last N checkpoints of each run; a run is the checkpoints of one folder."""
    top: int | None = Field(default=None, gt=0)
    """The N best by the metric `by`."""
    by: str | None = None
    """A metric that the trainer recorded, e.g. eval_loss. If its name does not tell the direction: `-name` if lower is
    better, `+name` if higher is."""
    group_by: str | None = Field(default=None, min_length=1)
    """What is averaged first and then counts as one ingredient (FissionFusion): the checkpoints of
    each folder (`run`), or those below each folder that a shell pattern fits, e.g. `sweeps/*`."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.top is None) != (self.by is None):
            raise ValueError("top: and by: go together, e.g. --top 5 --by eval_loss")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError(f"between: {self.between[0]} lies after {self.between[1]}")
        return self


Strategy = Literal["forward", "pruned", "replacement", "budgeted", "experts", "windows"]


class Greedy(Section):
    """How `soup greedy` decides."""

    accept: Literal[">=", ">"] = ">="
    """Keep a candidate whose soup scores at least (`>=`, the paper) or more than (`>`, the authors' code) before; where
    members are pruned, take one away by the same rule."""
    min_delta: Margin = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """The margin by which a candidate must raise the score, in the metric's own unit: 0.001 of an accuracy is 0.1
    percentage points, as is `0.1%`."""
    strategy: Literal["forward", "pruned", "replacement", "budgeted", "experts"] = "forward"
    """Which soups are tried: one more ingredient at a time (forward, Recipe 1); all, then one less at a time (pruned,
    arXiv:2301.10092); the best addition of each round, members too (replacement, which gives whole-number weights);
    the first of many that saved logits predict to be good (budgeted, RADIN, arXiv:2401.17790); or weights for the best
    ingredient of each group of sets whose scores go together (experts, SoCE, arXiv:2511.13254)."""
    order: Literal["ranked", "random"] = "ranked"
    """Whom forward and pruned try first: the best ingredient (pruned: last), or one that is drawn."""
    orders: int = Field(default=1, gt=0)
    """In how many orders they go through the ingredients, the further ones drawn; the best soup is taken."""
    rounds: int = Field(default=50, gt=0)
    """Additions of replacement, at most."""
    budget: int | None = Field(default=None, gt=0)
    """Number of soups that budgeted evaluates, besides the best ingredient."""
    candidates: int = Field(default=1000, gt=0)
    """Soups whose score budgeted predicts."""
    seed: int = Field(default=0, ge=0)
    """Of orders and candidates that are drawn."""
    together: float = Field(default=0.5, ge=-1.0, le=1.0, allow_inf_nan=False)
    """For experts: sets whose scores correlate at least so much over the ingredients share one."""
    parts: int = Field(default=10, ge=2)
    """For experts: their weights are multiples of 1 / parts, at least one part for each."""
    windows: Sizes | None = None
    """Instead of a search over all: evaluate the mean of the last N checkpoints of one run for each of these N, and the
    last checkpoint, and take the best. No other checkpoint is evaluated."""
    decay: Decay | None = None
    """Weights in these windows that imitate a decay of the learning rate, as `mix.decay`; default: the mean."""

    @property
    def search(self) -> Strategy:
        """The strategy, or windows."""
        return self.strategy if self.windows is None else "windows"

    @model_validator(mode="after")
    def _windows_alone(self) -> Self:
        if self.decay is not None and self.windows is None:
            raise ValueError("decay: is for windows:, e.g. --windows 4,8 (soup mix --decay needs none)")
        others = {
            "strategy": self.strategy != "forward",
            "order": self.order != "ranked",
            "orders": self.orders > 1,
            "min_delta": self.min_delta > 0,
        }
        given = [key for key, is_given in others.items() if is_given]
        if self.windows is not None and given:
            raise ValueError(f"windows: the best window is taken, so {given[0]}: does not go with it")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        budgeted = self.strategy == "budgeted"
        if budgeted and self.budget is None:
            raise ValueError("strategy: budgeted needs a budget: the number of soups to evaluate")
        if self.budget is not None and not budgeted:
            raise ValueError(f"budget: is for strategy: budgeted, not for {self.strategy}")
        if budgeted and self.min_delta:
            raise ValueError("min_delta: budgeted takes the best of its soups, by whatever margin")
        if self.strategy == "experts" and self.min_delta:
            raise ValueError("min_delta: experts takes the best of its weights, by whatever margin")
        if self.strategy != "experts" and (self.together, self.parts) != (0.5, 10):
            raise ValueError(f"together: and parts: are for strategy: experts, not for {self.strategy}")
        if self.strategy not in ("forward", "pruned") and (self.orders > 1 or self.order == "random"):
            raise ValueError(f"order: and orders: are for forward and pruned, not for {self.strategy}")
        return self


# Keys that the other way of finding coefficients has no use for.
OF_WAY = {
    "gradient": (
        *("steps", "lr", "schedule", "batch_size", "weight_decay", "label_smoothing", "temperature"),
        *("fold_temperature", "holdout", "folds", "resident"),
    ),
    "search": ("groups", "budget"),
}


class Learned(Section):
    """How `soup learned` finds its coefficients."""

    by: Literal["gradient", "search"] = "gradient"
    """By gradient, on labelled examples; or by search (CMA-ES, arXiv:1604.00772), for any metric and kind of set."""
    per: Literal["model", "layer", "tensor"] = "layer"
    """One coefficient for each ingredient, or one for each ingredient and layer or tensor; of a search by default
    model."""
    groups: int | None = Field(default=None, gt=1)
    """For search: so many groups of consecutive layers (per: layer), each with coefficients of its own."""
    budget: int | None = Field(default=None, gt=1)
    """For search: the mixtures that are evaluated on what selects, the start among them, the ranking not; by default
    100."""
    constraint: Literal["simplex", "affine"] = "simplex"
    """Coefficients that sum to 1: between 0 and 1 (`simplex`, the paper), or negative ones too (`affine`)."""
    start: Literal["uniform", "greedy"] = "uniform"
    """Coefficients to begin with: of the mean of all, or of the greedy soup."""
    steps: int = Field(default=100, gt=0)
    """Steps of AdamW."""
    lr: float = Field(default=0.1, gt=0.0, allow_inf_nan=False)
    """Learning rate: what one step adds to a logit (simplex), or to K times a coefficient of K ingredients (affine)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The learning rate falls to 0 over the steps, or stays."""
    batch_size: int = Field(default=64, gt=0)
    """Examples in one step."""
    weight_decay: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """Pulls the coefficients towards the start."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the label that is spread over all classes."""
    temperature: bool = True
    """Fit a factor of the logits as well as the coefficients; the report has it. Losses are shown without it."""
    fold_temperature: bool = False
    """Multiply the last linear layer of the soup by the learned factor; losses are then shown with it."""
    holdout: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of each class of the first set that is not fitted, and chooses the step to keep."""
    folds: int | None = Field(default=None, gt=0)
    """Parts of the first set that are held out in turn, each from its own fit; 1: only one part. Default: 1 if the
    held-out part has 200 examples or more, else as many as hold out each example once."""
    seed: int = Field(default=0, ge=0)
    """Of the split and of the order of the batches; of what a search draws."""
    resident: Literal["auto", "device", "host", "disk"] = "auto"
    """Where to keep the ingredients: on the device, in host memory, or on disk; auto: the first with room for all."""

    @model_validator(mode="before")
    @classmethod
    def _per_model(cls, given: Any) -> Any:
        """A search has few evaluations, so it has few coefficients unless more are asked for."""
        if not isinstance(given, dict) or given.get("by") != "search" or "per" in given:
            return given
        return {**given, "per": "layer" if given.get("groups") is not None else "model"}

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.by == "gradient":
            given = next((key for key in OF_WAY["search"] if getattr(self, key) is not None), None)
            if given is not None:
                raise ValueError(f"{given}: is for by: search, e.g. --by search")
            return self
        defaults = type(self).model_fields
        given = next((key for key in OF_WAY["gradient"] if getattr(self, key) != defaults[key].default), None)
        if given is not None:
            raise ValueError(f"{given}: is for by: gradient, a search has no use for it: leave it out")
        if self.constraint != "simplex":
            raise ValueError(
                f"constraint: a search is over the simplex, {self.constraint} is for by: gradient: leave it out"
            )
        if self.groups is not None and self.per != "layer":
            raise ValueError(f"groups: are of layers, so they go with per: layer, not with {self.per}")
        return self


class Mix(Section):
    """What `soup mix` makes of its checkpoints."""

    method: Literal["mean", "stock"] = "mean"
    """The weighted mean, or Model Stock (arXiv:2403.19522), which needs a base."""
    weights: Numbers | None = None
    """The weight of each checkpoint in the order in which they are named, divided by their sum; default: all the same.
    """
    weights_for: dict[str, Numbers] = {}
    """Other weights for the tensors whose names fit a shell pattern, the first that they fit: `{'blocks.*': 0.7,0.3}`.
    """
    alpha: Grid | None = None
    """How far to go from the base (0) to the mean of the checkpoints (1), WiSE-FT (arXiv:2109.01903): a number, or a
    list or first:last:step. The best one on the first validation set is written.
    """
    decay: Decay | None = None
    """Weights that imitate a decay of the learning rate over the checkpoints of one run, in the order of their steps
    (WSM, arXiv:2507.17634): linear, 1-sqrt, cosine, `ema:0.99`, or a file with the multiplier of each interval, one a
    line."""
    per: Literal["model", "layer", "tensor"] = "layer"
    """What stock measures an angle of."""
    any_weights: bool = False
    """Use weights that are negative, or do not sum to 1, without dividing them by their sum; also an alpha below 0 or
    above 1."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.method == "stock" and (self.weights is not None or self.alpha is not None):
            raise ValueError("method: stock finds the weights: weights: and alpha: do not go with it")
        if self.decay is not None and (self.weights, self.alpha, self.method) != (None, None, "mean"):
            raise ValueError("decay: finds the weights: weights:, alpha: and method: stock do not go with it")
        if self.weights_for and (self.alpha, self.decay, self.method) != (None, None, "mean"):
            raise ValueError("weights_for: alpha:, decay: and method: stock do not go with it")
        if self.weights is not None:
            self._check_weights("weights", self.weights)
        for pattern, weights in self.weights_for.items():
            self._check_weights(f"weights_for: {pattern}", weights)
        outside = [alpha for alpha in self.alpha or () if not 0 <= alpha <= 1]
        if outside and not self.any_weights:
            raise ValueError(f"alpha: {outside[0]:g} is not between 0 and 1 (any_weights: true takes it)")
        return self

    def _check_weights(self, setting: str, weights: list[float]) -> None:
        negative = [weight for weight in weights if weight < 0]
        if negative and not self.any_weights:
            raise ValueError(f"{setting}: {negative[0]:g} is negative (any_weights: true takes it)")
        if not any(weights):
            raise ValueError(f"{setting}: all are 0")


class Cost(Section):
    """What a forward pass costs."""

    flops: bool = False
    """Count the floating-point operations of a forward pass of one example; the report compares them with an
    ensemble's.
    """
    beside: dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]] = {}
    """Other networks by name and their operations, from the literature: two for each multiplication with its addition.
    """
