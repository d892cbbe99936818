"""The JSON report: `"schema": "soup-report/1"`, what `soup.json` holds and `--json` prints.

Keys may be added within /1, none changes. Paths are as the user gave them, counts are integers, scores fractions of 1.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from soupcli.errors import UsageError


def _finite_or_none(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


# JSON has no NaN: a score that is not a number is written as null.
Number = Annotated[float | None, BeforeValidator(lambda value: value), PlainSerializer(_finite_or_none)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class MetricScore(_Part):
    """One metric of one set of weights on one validation set."""

    value: Number
    stderr: Number = None
    """Standard error of the value; null where the metric has none."""
    n: int | None
    """Examples; null where a `python` or `command` set did not say."""


Scores = dict[str, dict[str, MetricScore]]
"""Validation set -> metric -> score."""


class Ingredient(_Part):
    path: str
    hash: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    """SHA-256 of the file; of the sorted list of names and hashes where there are several."""
    bytes: int
    scores: Scores = {}
    format: str = "safetensors"
    """How its weights were saved."""
    key: str | None = None
    """Where in its file they were; null where they lie there bare."""
    trainer_metrics: dict[str, Number] = {}
    """What its trainer measured and wrote down beside the weights."""


class Step(_Part):
    """One decision of the greedy recipe."""

    candidate: str
    score: Number
    """Null where the evaluation was given up, or where the score is not a number."""
    threshold: Number
    """What the score was held against; null for the start."""
    accepted: bool
    reason: str
    examples: int
    """Examples that were evaluated; 0 where the score was known from an earlier run."""
    seconds: float
    action: Literal["add", "remove", "take"] = "add"
    """What was tried: the candidate added to the members or removed from them, or a soup of its own taken."""
    members: list[str] = []
    """What was evaluated, where that is not the members so far with or without the candidate."""
    bound: Number = None
    """The best score that was left to reach where the evaluation was given up, out of reach of the threshold."""


Strategy = Literal["forward", "pruned", "replacement", "budgeted"]


class Order(_Part):
    """One order in which a search went through the ingredients, and what it found."""

    order: list[str]
    members: list[str]
    score: Number
    evaluations: int


class Search(_Part):
    """Which soups were tried; `steps` are those of the order that found the soup."""

    strategy: Strategy
    evaluations: int
    """Soups whose score was asked for, in all orders; the ranking is not among them."""
    orders: list[Order] = []
    """Where there were several."""


class Coefficients(_Part):
    """What a learned soup mixes its layers by."""

    layers: list[str]
    members: list[str]
    alpha: list[list[float]]
    """One row for each layer, one column for each member; rows sum to 1."""
    tensors: list[list[str]]
    """The tensors of each layer."""
    scaled: dict[str, float] = {}
    """Tensors that are multiplied by the learned temperature beside."""


class Stock(_Part):
    """What Model Stock found in each layer."""

    layers: list[str]
    cosines: list[float]
    """The mean cosine of the angle between two ingredients' offsets from the base."""
    ratios: list[float]
    """How far from the base (0) to the mean of the ingredients (1) the soup is."""


class Alpha(_Part):
    """A point between the base (0) and the mean of the ingredients (1)."""

    alpha: float
    scores: Scores


class Adapter(_Part):
    """What became of adapters."""

    rank: int
    """Of most layers."""
    relative_error: float
    """Of the change of the weights, in the Frobenius norm over all layers; 0 where the adapter is the exact mean."""


class Soup(_Part):
    path: str
    hash: str
    members: list[str]
    """In the order of acceptance."""
    weights: list[float]
    scores: Scores = {}
    bytes: int = 0
    files: list[str] = []
    """Every file of the soup folder that this command wrote."""
    differing: list[str] = []
    """Tensors that are not averaged (integers, booleans) and differ: the first member's, or the best's, were taken."""
    dtypes: dict[str, int] = {}
    """Output dtype -> number of tensors."""
    not_mixed: list[str] = []
    """Tensors that --include and --exclude left out: the base's, or those of `kept_from`."""
    adapter: Adapter | None = None
    kept_from: str | None = None
    """The ingredient that gave the tensors which are not averaged, and the side files."""
    coefficients: Coefficients | None = None
    """Where a learned soup weighs its members by layer; `weights` are then the means over all elements."""


class Fit(_Part):
    """How the coefficients of a learned soup were fitted."""

    beta: float
    """The learned factor of the logits; 1 where none was learned."""
    steps: list[int]
    """Steps after which the held-out loss was measured; 0 is the start."""
    fitted: list[float]
    """Mean loss of the batches since the step before; at the start that of the whole fitted part."""
    held_out: list[float]
    kept_step: int
    """The step with the least held-out loss: its coefficients are the soup's."""
    fitted_examples: int
    held_out_examples: int
    resident: Literal["device", "host", "disk"]
    """Where the ingredients lived."""
    resident_bytes: int
    warnings: list[str] = []


class Scored(_Part):
    path: str
    scores: Scores


class Comparison(_Part):
    """A soup against the best ingredient: one metric of one set, over the same examples."""

    set: str
    metric: str
    soup: str
    best: str
    difference: Number
    """The soup's value less that of the best ingredient."""
    low: Number = None
    """The 95% interval of the difference, by a paired bootstrap; null where a set shows no single examples."""
    high: Number = None
    p: Number = None
    """Exact McNemar test, two-sided, where each example is right or wrong."""
    n: int | None
    higher_is_better: bool


class GateResult(_Part):
    """What the recipe wants of a soup on a set, and what became of it."""

    soup: str
    set: str
    metric: str
    gate: str
    """E.g. `>= best - 0.5`."""
    key: str
    """The recipe's key that says it, e.g. `gates.imagenet-a` or `require_gain`."""
    value: Number
    needed: Number
    """What the value was held against."""
    met: bool | None
    """Null where there was no ingredient to hold the soup against."""
    reason: str


class Flops(_Part):
    """Floating-point operations of one example, two for each multiplication with its addition."""

    set: str
    """Whose first example was counted."""
    forward: int
    """Of one network, so of the soup as well."""
    ingredients: int
    ensemble: int
    """Of all ingredients."""
    ensemble_of_members: int | None = None
    """Of the soup's members; null where there is no soup."""
    beside: dict[str, float] = {}
    """Of other networks, as the recipe gives them."""


class Place(_Part):
    """A mixture on the plane through three checkpoints, and its scores."""

    x: float
    y: float
    """Distances in the space of the weights, from the first checkpoint along the plane's two axes."""
    weights: list[float]
    """Of the three checkpoints; negative ones outside the triangle. They sum to 1."""
    scores: Scores


class Landscape(_Part):
    """Scores over the plane through three checkpoints."""

    members: list[str]
    """The three, the plane's origin first."""
    corners: list[Place]
    """Where they lie."""
    mean: Place
    columns: list[float]
    rows: list[float]
    """Places of the grid along both axes."""
    grid: list[Place]
    """Row by row, the first row at the least y."""


class Pair(_Part):
    """Two ingredients, the angle between them as seen from their start, and their mean."""

    members: list[str]
    angle: Number
    """Degrees; null where one of them is the start."""
    scores: Scores
    """Of their mean."""
    gains: list[Comparison]
    """Their mean against the better of the two on each set, every metric."""


class Pairs(_Part):
    """Pairs of ingredients."""

    start: str
    """The checkpoint that angles are seen from."""
    possible: int
    """How many pairs there are."""
    seed: int
    """What drew the pairs, where not all were taken."""
    pairs: list[Pair]


class Ensemble(_Part):
    """Networks whose logits are averaged."""

    members: list[str]
    scores: Scores


class Inspected(_Part):
    """What the files of one checkpoint hold."""

    path: str
    tensors: int
    parameters: int
    dtypes: dict[str, int] = {}
    """Dtype -> number of tensors."""
    tied: list[list[str]] = []
    """Names of one and the same matrix."""


class Differing(_Part):
    """What one checkpoint has otherwise than most of the others."""

    path: str
    kind: str
    tensor: str | None = None
    found: str
    expected: str


class Distances(_Part):
    """Where the ingredients lie; matrices of numbers are in the order of `paths`, angles in degrees."""

    paths: list[str]
    base: str | None = None
    from_base: list[Number] = []
    from_mean: list[Number]
    distances: list[list[Number]]
    angles: list[list[Number]]
    """Between whole weights (of matrices: biases and norms are left out)."""
    offset_angles: list[list[Number]] = []
    """Between offsets from the base."""
    layer_angles: dict[str, Number] = {}
    """Layer -> the largest angle between whole weights of two ingredients."""
    layer_spread: dict[str, Number] = {}
    """Layer -> distance of the ingredients from their mean (root mean square), relative to the mean's length."""
    groups: list[list[str]] = []
    """Ingredients with a common start, the largest group first."""


class Barriers(_Part):
    """Scores on the straight line from each ingredient to the mean of all, on one set."""

    set: str
    metric: str
    """What heights are told in."""
    mean: dict[str, MetricScore]
    half_way: dict[str, dict[str, MetricScore]]
    """Ingredient -> score of the middle between it and the mean."""
    height: dict[str, Number]
    """Ingredient -> how much worse the middle is than the ingredient alone; negative where it is better."""
    settled_mean: dict[str, MetricScore] | None = None
    """The mean with batch-norm statistics estimated again."""


class Found(_Part):
    """One cause of failing soups that there is evidence of."""

    cause: str
    evidence: str
    words: str
    remedy: str


class Inspection(_Part):
    """What `soup inspect` found."""

    mixable: bool
    refused: str | None = None
    """Why they cannot be mixed."""
    checkpoints: list[Inspected]
    differences: list[Differing] = []
    integers: list[str] = []
    """Tensors that are never averaged and are not the same in all."""
    not_finite: dict[str, dict[str, str]] = {}
    """Checkpoint -> tensor -> its first NaN or infinity."""
    duplicates: list[list[str]] = []
    settings: dict[str, list[str]] = {}
    """Setting of the files beside the weights -> its value beside each checkpoint, where they differ."""
    geometry: Distances | None = None
    barriers: list[Barriers] = []
    verdicts: list[Found] = []


class Cost(_Part):
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


class Report(_Part):
    schema_: Literal["soup-report/1"] = Field(default="soup-report/1", alias="schema")
    command: str
    created: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    device: str
    recipe: dict[str, Any]
    """The resolved recipe."""
    ingredients: list[Ingredient]
    """Best first where there was a ranking, otherwise by path."""
    steps: list[Step] = []
    search: Search | None = None
    """Of the greedy recipe."""
    soup: Soup | None = None
    best: Scored | None = None
    """The best ingredient on the selecting set."""
    uniform: Scored | None = None
    """The mean of all ingredients, where it was asked for."""
    learned: Fit | None = None
    """The fit of a learned soup."""
    second_best: Scored | None = None
    """The ingredient after the best, where ensembles were asked for."""
    ensemble: Ensemble | None = None
    """Of all ingredients."""
    greedy_ensemble: Ensemble | None = None
    """Of those that Recipe 1 takes when it averages outputs."""
    stock: Stock | None = None
    alphas: list[Alpha] = []
    """Every point that `soup mix --alpha` evaluated."""
    alpha: float | None = None
    """The point that was written."""
    flops: Flops | None = None
    """Where the recipe asks for them."""
    scores_file: str | None = None
    """Where the ingredients' scores were taken from, where they were not measured."""
    inspection: Inspection | None = None
    """Of `soup inspect`."""
    selecting_set: str | None = None
    sets: list[str] = []
    """All sets in the order in which they were named."""
    comparisons: list[Comparison] = []
    """Soup against best ingredient on every set, every metric of both."""
    shared_examples: dict[str, int] = {}
    """Set -> how many of its examples are in the selecting set too, where there are any."""
    gates: list[GateResult] = []
    """What `gates:` and `--require-gain` came to."""
    landscape: Landscape | None = None
    """What `soup landscape` measures."""
    pairs: Pairs | None = None
    """What `soup pairs` measures."""
    warnings: list[str] = []
    """What should be known before the scores are believed."""
    cost: Cost = Cost()

    model_config = ConfigDict(extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    def to_json(self) -> str:
        """Sorted JSON, indented, with a final newline."""
        return dump_json(self.model_dump(mode="json", by_alias=True))


def read_report(path: Path, *, ignore_unknown: bool = False) -> Report:
    """The report in `path`. Raises UsageError where that is not one.

    `ignore_unknown`: keys that a later version has added are left out.
    """
    try:
        text = path.read_bytes()
    except OSError as cause:
        raise UsageError(f"{path}: {cause.strerror}", hint="a soup's report is the soup.json in its folder") from cause
    try:
        return Report.model_validate(json.loads(text))  # pydantic's own reader knows no paths of other bytes than UTF-8
    except (ValueError, RecursionError) as invalid:
        if not isinstance(invalid, ValidationError):
            raise UsageError(f"{path}: not a report of a soup: not JSON: {invalid}") from invalid
        if ignore_unknown and (known := _without_unknown(text, invalid)) is not None:
            return known
        errors = [error for error in invalid.errors() if not ignore_unknown or error["type"] != "extra_forbidden"]
        first = errors[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: not a report of a soup: {where + ': ' if where else ''}{first['msg']}") from invalid


def _without_unknown(text: bytes, invalid: ValidationError) -> Report | None:
    """The report without the keys that `invalid` calls unknown, None where that is not all that is wrong with it."""
    if {error["type"] for error in invalid.errors()} != {"extra_forbidden"}:
        return None
    document = json.loads(text)
    for error in invalid.errors():
        *parents, key = error["loc"]
        part = document
        for name in parents:
            part = part[name]
        del part[key]
    return Report.model_validate(document)


def relative(report: Report, folder: Path) -> Report:
    """The report with every absolute path in it, wherever it stands, as seen from `folder`."""
    document = report.model_dump(mode="json", by_alias=True)
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


def dump_json(document: object) -> str:
    """Sorted, indented JSON with a final newline, as every JSON file and output of this program is written."""
    text = _dumped(document, ascii_alone=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        text = _dumped(document, ascii_alone=True)
    return text + "\n"


def _dumped(document: object, *, ascii_alone: bool) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=ascii_alone, allow_nan=False)
