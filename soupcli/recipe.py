"""soup.yaml to frozen models: every problem at once, each with file:line:column.

    recipe = load_recipe(Path("soup.yaml"), settings={"greedy.min_delta": "0.001"}, flags={"metric": "nll"})

Precedence: flag, then `--set`, then `SOUP_*` variable, then the file, then the default. Paths inside a recipe are
relative to the recipe's folder.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    PrivateAttr,
    Tag,
    ValidationInfo,
    model_validator,
)

from soupcli.errors import RecipeError
from soupcli.gates import Wanted, leaves, parse, parse_gain, wanted
from soupcli.recipe_yaml import MOST_DIGITS, Document, parse_value, read_document, suggestion

Dtype = Literal["float64", "float32", "float16", "bfloat16"]


def _beside_recipe(path: Path, info: ValidationInfo) -> Path:
    base: Path | None = (info.context or {}).get("base")
    return base / path if base is not None else path


def _python_reference(value: str, info: ValidationInfo) -> str:
    file, colon, function = value.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"expected 'file.py:function', got {value!r}")
    return f"{_beside_recipe(Path(file), info)}:{function}"


def _byte_size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", str(value).strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"expected a size such as 5GB or 500MB, got {value!r}")
    return int(float(match[1]) * 1000 ** ["B", "KB", "MB", "GB", "TB"].index(match[2].upper()))


def _checkpoint_word(word: str, info: ValidationInfo) -> str:
    """A path or glob of `ckpts`; a final slash, which asks for folders alone, is kept."""
    if word == "-" or word.startswith("~") or not word.strip():
        return word
    return f"{_beside_recipe(Path(word), info)}{'/' if word.endswith('/') else ''}"


def _class_ids(value: object, info: ValidationInfo) -> object:
    """A file, `folders`, a list of ids, or a map from class to indices."""
    if isinstance(value, Path | str) and str(value):
        return value if value == "folders" else _beside_recipe(Path(value), info)
    if isinstance(value, list) and value and all(_is_index(id_) or isinstance(id_, str) for id_ in value):
        return value
    if isinstance(value, dict) and value:
        several = {name: logits if isinstance(logits, list) else [logits] for name, logits in value.items()}
        if all(logits and all(map(_is_index, logits)) for logits in several.values()):
            return several
    raise ValueError(
        f"expected a file, 'folders', a list of class ids, or a map from class to index or indices, got {value!r}"
    )


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def template_columns(template: str) -> list[str]:
    """The columns in braces, each once. Raises ValueError where braces hold anything but a name."""
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as cause:
        raise ValueError(f"template: {cause}: a brace that is none is written twice, {{{{") from cause
    for _, column, form, conversion in fields:
        if not column or form or conversion or re.search(r"[.\[]", column):
            raise ValueError(f"template: {{{column}}} is not the name of a column")
    return list(dict.fromkeys(str(column) for _, column, _, _ in fields))


def _gate(value: object) -> object:
    """A bound, or a map from metric to bound, of which each can be read."""
    for _, bound in leaves({"": value}):
        parse(bound)
    return value


def _gain(value: object) -> object:
    parse_gain(value)
    return value


def _numbers(value: object) -> object:
    """`0.7,0.3`, as a flag gives it, as a list."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")]
    return value if isinstance(value, list) else [value]


def _grid(value: object) -> object:
    """`0:1:0.25` as [0, 0.25, 0.5, 0.75, 1], in decimals; else as `_numbers`."""
    if not isinstance(value, str) or ":" not in value:
        return _numbers(value)
    try:
        first, last, step = map(Fraction, value.split(":"))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected first:last:step, e.g. 0:1:0.1, got {value!r}") from None
    if step <= 0 or last < first or (last - first) / step > 1000:
        raise ValueError(f"expected first:last:step that goes up, in at most 1000 steps, got {value!r}")
    return [float(first + step * number) for number in range((last - first) // step + 1)]


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"expected auto, cpu, cuda, cuda:N or mps, got {value!r}")
    return value


RecipePath = Annotated[Path, AfterValidator(_beside_recipe)]
PythonReference = Annotated[str, AfterValidator(_python_reference)]
Device = Annotated[str, AfterValidator(_device)]
ClassIds = Annotated[
    Path | Literal["folders"] | list[int | str] | dict[str, list[int]],
    PlainValidator(_class_ids, json_schema_input_type=str | list[int | str] | dict[str, int | list[int]]),
]
GateBounds = Annotated[Any, PlainValidator(_gate, json_schema_input_type=str | dict[str, Any])]
Gain = Annotated[float | str, PlainValidator(_gain, json_schema_input_type=float | str)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Numbers = Annotated[
    list[Finite],
    Field(min_length=1),
    pydantic.BeforeValidator(_numbers, json_schema_input_type=str | float | list[float]),
]
Grid = Annotated[
    list[Finite],
    Field(min_length=1),
    pydantic.BeforeValidator(_grid, json_schema_input_type=str | float | list[float]),
]
ByteSize = Annotated[int, pydantic.BeforeValidator(_byte_size), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Network(_Section):
    args: dict[str, Any] = {}
    """Keyword arguments for the builder."""


class TimmNetwork(_Network):
    timm: str
    """Name of a network for `timm.create_model`."""


class TransformersNetwork(_Network):
    transformers: str
    """`auto` (the class that the checkpoint's own config.json names) or a class of transformers."""
    head: int | None = Field(default=None, gt=0)
    """Classes of a linear layer on the normalised image embedding of CLIP or ALIGN. Weights are then named `model.*`
    and `classification_head.*`, as the authors of model soups save theirs."""


class OpenClipNetwork(_Network):
    open_clip: str
    """Name of a network for `open_clip.create_model`."""
    head: int | None = Field(default=None, gt=0)
    """Classes of a linear layer on the normalised image embedding. Weights are then named `model.*` and
    `classification_head.*`, as the authors of model soups save theirs."""


class TorchvisionNetwork(_Network):
    torchvision: str
    """Name of a network for `torchvision.models.get_model`."""


class PythonNetwork(_Network):
    python: PythonReference
    """`file.py:function`; the function returns the `nn.Module`."""
    transform: PythonReference | None = None
    """`file.py:function` from a PIL picture to a tensor, for sets of pictures."""


class _Set(_Section):
    pass


class _LabelledSet(_Set):
    metric: str | None = None
    """The metric that ranks and selects on this set; default: the recipe's. `--metric` goes over both."""


class ArraysSet(_LabelledSet):
    arrays: RecipePath
    """A safetensors file with the tensors `inputs` [N, ...] and `labels` [N]: integers, or floats for numbers."""


class ImagesSet(_LabelledSet):
    images: RecipePath
    """A folder with one sub-folder of pictures for each class; or .tar shards in the WebDataset layout: a file, a
    folder of them, a glob, or ranges such as `val-{0000..0003}.tar`."""
    class_to_index: dict[str, int] | None = None
    """Class folder to index of the logit; default: folders sorted by name, counted from 0."""
    classes: ClassIds | None = None
    """Which of the network's classes the set covers, where it does not cover all: the other logits take no part. A
    file with one class a line (index of the logit, or wnid of ImageNet), a list of them in the order of the set's
    classes, or `folders`: those that the folders name. Or a map, also as .json file, from each class folder (or label
    in shards) to the index of its logit, or to several that count as one; folders that it does not name are left out.
    """
    labels: RecipePath | None = None
    """A .json file with the right classes of each picture, such as ReaL's real.json; the largest logit must be one of
    them. Pictures without any are left out."""
    border: int = Field(default=0, ge=0)
    """Pixels that are cut from each side of every picture before the transform (ObjectNet: 2)."""
    classnames: RecipePath | None = None
    """A text file with one class name a line, in the order of the labels: builds a zero-shot CLIP classifier."""
    templates: RecipePath | None = None
    """A text file with one template a line, `{}` where the class name goes."""

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> Self:
        if self.labels is not None and (self.classes is not None or self.class_to_index is not None):
            raise ValueError("labels: holds indices of logits, classes: and class_to_index: do not go with it")
        if self.class_to_index is not None and isinstance(self.classes, dict):
            raise ValueError("class_to_index: and a map in classes: both say which folder is which: give one")
        return self


class TextSet(_LabelledSet):
    text: RecipePath
    """A .jsonl, .csv, .tsv or .parquet file, one example a row."""
    input: list[str] = Field(default=["text"], min_length=1, max_length=2)
    """One or two text columns."""
    label: str = "label"
    """The column of the label: a class, or a number where the metric is one of numbers (pearson, spearman, mse)."""
    template: str | None = None
    """What goes in, in place of `input`, with columns in braces: `rte sentence1: {sentence1} sentence2: {sentence2}`.
    """
    labels: list[str] | None = None
    """Class names in the order of the logits, where the label column holds names. For a network from text to text these
    are the words that it answers with: the logit of a class is the log-likelihood of its words."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest input in tokens; default: what the tokenizer says."""

    @model_validator(mode="after")
    def _readable_template(self) -> Self:
        if self.template is None:
            return self
        if "input" in self.model_fields_set:
            raise ValueError("template: names its columns itself, input: does not go with it")
        if not template_columns(self.template):
            raise ValueError(f"template: has no {{column}} in braces, got {self.template!r}")
        return self


class TokensSet(_Set):
    tokens: RecipePath
    """A UTF-8 text file, on which the perplexity of a causal language model is measured."""
    context: int = Field(default=1024, gt=1)
    """Tokens in one window, at most what the network takes."""
    stride: int | None = Field(default=None, gt=0)
    """Tokens from the start of one window to that of the next. A token is predicted in the first window that holds it,
    with more text before it the smaller the stride. Default: the context, so that windows do not overlap."""

    @model_validator(mode="after")
    def _no_gaps(self) -> Self:
        if self.stride is not None and self.stride > self.context:
            raise ValueError(
                f"stride: {self.stride} is more than the context, {self.context}: tokens would be left out"
            )
        return self


class LmEvalSet(_Set):
    lm_eval: list[str] = Field(min_length=1)
    """Tasks or groups of lm-evaluation-harness; the score is the mean over them."""
    metric: str = "acc"
    """The harness's metric, `name` or `name,filter`; all others that the tasks have are reported."""
    limit: int | None = Field(default=None, gt=0)
    """Examples of each task, the first ones; default: all."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples in the prompt; default: what the task says."""
    include_path: RecipePath | None = None
    """A folder of further tasks, in the harness's own YAML."""


class PythonSet(_Set):
    python: PythonReference
    """`file.py:function` from (model, device) to {metric: value}."""
    higher_is_better: bool = True


class CommandSet(_Set):
    command: str
    """A command that prints one JSON object {metric: value} on its last line; `{checkpoint}` is the soup's path."""
    metric: str | None = None
    """The metric of this set; default: the recipe's."""
    higher_is_better: bool = True


_NETWORKS = ("timm", "transformers", "open_clip", "torchvision", "python")
_SETS = ("images", "text", "arrays", "tokens", "lm_eval", "python", "command")


def _kind_among(kinds: tuple[str, ...]) -> Discriminator:
    def kind(value: Any) -> str | None:
        keys = value if isinstance(value, dict) else {name: 0 for name in kinds if hasattr(value, name)}
        found = [name for name in kinds if name in keys]
        return found[0] if len(found) == 1 else None

    return Discriminator(
        kind,
        custom_error_type="kind",
        custom_error_message=f"needs exactly one of the keys {', '.join(kinds)}",
    )


NetworkSpec = Annotated[
    Annotated[TimmNetwork, Tag("timm")]
    | Annotated[TransformersNetwork, Tag("transformers")]
    | Annotated[OpenClipNetwork, Tag("open_clip")]
    | Annotated[TorchvisionNetwork, Tag("torchvision")]
    | Annotated[PythonNetwork, Tag("python")],
    _kind_among(_NETWORKS),
]
SetSpec = Annotated[
    Annotated[ImagesSet, Tag("images")]
    | Annotated[TextSet, Tag("text")]
    | Annotated[ArraysSet, Tag("arrays")]
    | Annotated[TokensSet, Tag("tokens")]
    | Annotated[LmEvalSet, Tag("lm_eval")]
    | Annotated[PythonSet, Tag("python")]
    | Annotated[CommandSet, Tag("command")],
    _kind_among(_SETS),
]


class Greedy(_Section):
    """How `soup greedy` decides."""

    accept: Literal[">=", ">"] = ">="
    """Keep a candidate whose soup scores at least (`>=`, the paper) or more than (`>`, the authors' code) before; where
    members are pruned, take one away by the same rule."""
    min_delta: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    """The margin by which a candidate must raise the score."""
    strategy: Literal["forward", "pruned", "replacement", "budgeted"] = "forward"
    """Which soups are tried: one more ingredient at a time (forward, Recipe 1); all, then one less at a time (pruned,
    arXiv:2301.10092); the best addition of each round, members too (replacement, which gives whole-number weights);
    or the first of many that saved logits predict to be good (budgeted, RADIN, arXiv:2401.17790)."""
    order: Literal["ranked", "random"] = "ranked"
    """Whom forward and pruned try first: the best ingredient (pruned: last), or one that is drawn."""
    orders: int = Field(default=1, gt=0)
    """In how many orders they go through the ingredients, the further ones drawn; the best soup is taken."""
    rounds: int = Field(default=50, gt=0)
    """Additions of replacement, at most."""
    budget: int | None = Field(default=None, gt=0)
    """Soups that budgeted evaluates, beside the best ingredient alone."""
    candidates: int = Field(default=1000, gt=0)
    """Soups whose score budgeted predicts."""
    seed: int = Field(default=0, ge=0)
    """Of orders and candidates that are drawn."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        budgeted = self.strategy == "budgeted"
        if budgeted and self.budget is None:
            raise ValueError("strategy: budgeted needs a budget: the number of soups to evaluate")
        if self.budget is not None and not budgeted:
            raise ValueError(f"budget: is for strategy: budgeted, not for {self.strategy}")
        if budgeted and self.min_delta:
            raise ValueError("min_delta: budgeted takes the best of its soups, by whatever margin")
        if self.strategy in ("replacement", "budgeted") and (self.orders > 1 or self.order == "random"):
            raise ValueError(f"order: and orders: are for forward and pruned, not for {self.strategy}")
        return self


class Learned(_Section):
    """How `soup learned` fits its coefficients."""

    per: Literal["model", "layer", "tensor"] = "layer"
    """One coefficient for each ingredient, or one for each ingredient and layer or tensor."""
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
    """Learn a factor of the logits beside the coefficients; the report says it."""
    fold_temperature: bool = False
    """Multiply the last linear layer of the soup by the learned factor."""
    holdout: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of each class of the first set that is not fitted, and chooses the step to keep."""
    seed: int = Field(default=0, ge=0)
    """Of the split and of the order of the batches."""
    resident: Literal["auto", "device", "host", "disk"] = "auto"
    """Where the ingredients live: on the device, in host memory, or on disk; auto: the first that has room for all."""


class Mix(_Section):
    """What `soup mix` makes of its checkpoints."""

    method: Literal["mean", "stock"] = "mean"
    """The weighted mean, or Model Stock (arXiv:2403.19522), which needs a base."""
    weights: Numbers | None = None
    """The weight of each checkpoint in the order in which they are named; default: all the same."""
    alpha: Grid | None = None
    """How far to go from the base (0) to the mean of the checkpoints (1), WiSE-FT (arXiv:2109.01903): a number, a list
    or first:last:step, of which the best on the first validation set is written."""
    per: Literal["model", "layer", "tensor"] = "layer"
    """What stock measures an angle of."""
    any_weights: bool = False
    """Take weights that are negative, or do not sum to 1, as they are; an alpha below 0 or above 1 too."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.method == "stock" and (self.weights is not None or self.alpha is not None):
            raise ValueError("method: stock finds the weights: weights: and alpha: do not go with it")
        if self.weights is not None:
            self._check_weights(self.weights)
        outside = [alpha for alpha in self.alpha or () if not 0 <= alpha <= 1]
        if outside and not self.any_weights:
            raise ValueError(f"alpha: {outside[0]:g} is not between 0 and 1 (any_weights: true takes it)")
        return self

    def _check_weights(self, weights: list[float]) -> None:
        total, negative = math.fsum(weights), [weight for weight in weights if weight < 0]
        if negative and not self.any_weights:
            raise ValueError(f"weights: {negative[0]:g} is negative (any_weights: true takes it)")
        if abs(total - 1) > 1e-9 and not self.any_weights:
            raise ValueError(f"weights: sum to {total:.10g}, not to 1 (any_weights: true takes them as they are)")
        if not any(weights):
            raise ValueError("weights: all are 0")


class Cost(_Section):
    """What a forward pass costs."""

    flops: bool = False
    """Count the floating-point operations of a forward pass of one example; the report has them beside an ensemble's.
    """
    beside: dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]] = {}
    """Other networks by name and their operations, from the literature: two for each multiplication with its addition.
    """


_SECTIONS: dict[str, type[BaseModel]] = {"greedy": Greedy, "learned": Learned, "mix": Mix, "cost": Cost}


class Recipe(_Section):
    """A whole recipe, as it stands after files, variables and flags have been put together."""

    model: NetworkSpec | None = None
    """The network that the weights go into; not needed by `soup uniform` without a validation set."""
    ckpts: list[Annotated[str, AfterValidator(_checkpoint_word)]] = []
    """Checkpoint files, folders or globs; default of --ckpts."""
    val: dict[str, SetSpec] = {}
    """Validation sets by name."""
    metric: str = "accuracy"
    """The metric that ranks and selects: accuracy, top5, nll, ece, f1 (of class 1 where there are two classes, else the
    mean over classes) or mcc of classes; pearson, spearman or mse of numbers. `accuracy+f1` is the mean of the
    two. A set of tokens has its perplexity."""
    metrics: list[str] = []
    """Further metrics, reported beside it on every set that has them."""
    batch_norm: Literal["average", "recalibrate", "keep"] = "average"
    """Running statistics: averaged; or re-estimated before each evaluation and written into the soup (recalibrate);
    or re-estimated for the evaluations alone while the soup keeps the averaged ones (keep)."""
    gates: dict[str, GateBounds] = {}
    """What a soup must reach, by set or `set.metric`: `">= best - 0.5"` (against the best ingredient; for accuracy and
    other shares in points of a per cent), `">= 0.8"` or `">= 80%"`. A candidate that breaks one is not accepted; a soup
    that breaks one is written, and ends with exit code 1."""
    require_gain: Gain | None = None
    """How much better than the best ingredient the soup must be, e.g. 0.1 (points of a per cent for shares); on the set
    that did not select where one was held out, else on the one that did; or on a set by name: `test=0.1`."""
    holdout: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of the first set, of each class, that takes no part in the selection and is reported as a set of its own;
    the set is then `SET[selecting]` and `SET[held out]`. Default: nothing is held out."""
    greedy: Greedy = Greedy()
    learned: Learned = Learned()
    mix: Mix = Mix()
    cost: Cost = Cost()
    out: RecipePath = Path("soup")
    """The folder that the soup is written to."""
    max_shard_size: ByteSize = 5_000_000_000
    """Past this size the weights are written as shards with an index."""
    dtype: Dtype | None = None
    """The dtype of the output weights; default: the ingredients' own."""
    include: list[str] = []
    """Shell patterns of the tensors that are mixed; default: all."""
    exclude: list[str] = []
    """Shell patterns of tensors that are not mixed, e.g. heads of other classes: they come from `base`, else from the
    best ingredient (of `soup uniform`: from the first)."""
    base: RecipePath | None = None
    """The network that adapters were trained on; of whole networks, where tensors that are not mixed come from."""
    key: str | None = None
    """Where the state dict lies in a file of torch.save, with dots where it lies deeper; default: the first there of
    state_dict_ema, model_ema, state_dict, model, else the file itself."""
    adapter_rank: int | None = Field(default=None, gt=0)
    """The rank that a soup of adapters is approximated to; default: it is exact, of the summed rank."""
    device: Device = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda, cuda:N or mps."""
    batch_size: int = Field(default=64, gt=0)
    """Examples in one forward pass; no score depends on it. Where memory runs out it is halved."""
    workers: int | None = Field(default=None, ge=0)
    """Threads that decode inputs; default: one for each core."""
    amp: Literal["bf16", "fp16"] | None = None
    """Evaluate in mixed precision (torch.autocast); default: in the precision of the weights. Scores depend on it."""
    channels_last: bool = False
    """Pictures and convolutions with their channels last, which some devices compute faster."""
    compile: bool = False
    """Compile the network with torch.compile: slower to begin with, faster afterwards."""
    cache_inputs: bool = True
    """Keep decoded pictures and token ids for the next run, in `inputs/` of the cache folder."""
    early_stop: bool = True
    """Give up a candidate of `soup greedy` once it can no longer be good enough; no decision depends on it."""
    _document: Document = PrivateAttr(default_factory=Document)

    @property
    def wanted(self) -> list[Wanted]:
        """Each gate, with its set and metric."""
        return wanted(self.gates, self.val)

    def place(self, key: str) -> str | None:
        """`soup.yaml:8:10` where the recipe file gives the dotted key, None where something else does."""
        place = self._document.position(self._document.keys_of(key))
        return place if self._document.file is not None and place.startswith(f"{self._document.file}:") else None

    def located(self, message: str) -> str:
        """`message` with the place in the recipe before it, where it begins with a key that the recipe gives."""
        key, _, rest = message.partition(": ")
        keys = self._document.keys_of(key)
        return f"{self._document.place(keys)}: {rest}" if self._document.gives(keys) else message


def load_recipe(
    file: Path | None,
    *,
    variables: Mapping[str, object] | None = None,
    settings: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Recipe:
    """The recipe in `file` (None: an empty one) with environment, `--set` and flags laid over it.

    All keys are dotted; the values of `settings` are text that is read as YAML. Raises RecipeError with every problem,
    a line each.
    """
    document = read_document(file) if file is not None else Document()
    for key, value in (variables or {}).items():
        shown = key.rpartition(".")[2].upper()
        document.lay_over(tuple(key.split(".")), value, f"SOUP_{shown}", beside_recipe=False)
    for key, text in (settings or {}).items():
        document.lay_over(tuple(key.split(".")), parse_value(text, f"--set {key}"), f"--set {key}")
    for key, value in (flags or {}).items():
        shown = key.rpartition(".")[2].replace("_", "-")
        document.lay_over(tuple(key.split(".")), value, f"--{shown}", beside_recipe=False)
    return _validate(document)


def _validate(document: Document) -> Recipe:
    base = document.file.parent if document.file is not None else Path()
    lines, recipe = list(document.problems), None
    try:
        recipe = Recipe.model_validate(document.data, context={"base": base})
    except pydantic.ValidationError as invalid:
        lines += [_line(error, document) for error in invalid.errors()]
    if recipe is not None:
        lines += _unknown_sets(recipe, document)
    if recipe is None or lines:
        raise RecipeError("\n".join(sorted(dict.fromkeys(lines), key=_natural)))
    outside = {key: Path(str(document.data[key])) for key in document.outside if key in ("out", "base")}
    recipe = recipe.model_copy(update=outside)
    recipe._document = document
    return recipe


def _unknown_sets(recipe: Recipe, document: Document) -> list[str]:
    """A line for each gate of a set that the recipe has not got."""
    unknown = [gate for gate in recipe.wanted if gate.set not in recipe.val]
    places = [document.place(document.keys_of(gate.key), of_key=True) for gate in unknown]
    return [
        f"{place}: no set {gate.set!r}{suggestion(gate.set, recipe.val)}"
        for place, gate in zip(places, unknown, strict=True)
    ]


def _natural(line: str) -> list[int | str]:
    return [int(part) if part.isdecimal() and len(part) < MOST_DIGITS else part for part in re.split(r"(\d+)", line)]


def _line(error: Any, document: Document) -> str:
    kind = error["type"]
    path = tuple(part for part in error["loc"] if part != "[key]")
    names = _without_tags(path)
    place = document.place(names, of_key=kind == "extra_forbidden")
    if kind == "extra_forbidden":
        return f"{place}: unknown key{suggestion(str(names[-1]), _known_keys(path))}"
    if kind == "missing":
        return f"{place}: missing"
    return f"{place}: {_message(error)}"


# What pydantic says for people who write Python, said for people who write a recipe.
_MESSAGES = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "expected a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected a mapping of keys"),
    "string_type": "expected text",
    "path_type": "expected a path",
    "list_type": "expected a list",
    "too_short": "expected at least {min_length}",
    "too_long": "expected at most {max_length}",
    "less_than": "expected less than {lt}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "literal_error": "expected {expected}",
}


def _message(error: Any) -> str:
    kind, given = error["type"], error["input"]
    if kind in _MESSAGES:
        message = _MESSAGES[kind].format(**error.get("ctx", {}))
    else:
        message = str(error["msg"]).removeprefix("Value error, ")
    if "got" not in message and not isinstance(given, dict):
        message += f", got {'nothing' if given is None else repr(given)}"
    if kind == "literal_error":
        message += suggestion(str(given), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    if kind == "kind" and isinstance(given, dict):
        kinds = _NETWORKS if error["loc"] == ("model",) else _SETS
        message += next(filter(None, (suggestion(str(key), kinds) for key in given if key not in kinds)), "")
    return message


def _without_tags(path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys of `path` as they stand in the file: pydantic adds the tag of a union after `model` and `val.NAME`."""
    tag = {"model": 1, "val": 2}.get(str(path[0]), len(path)) if path else 0
    return path[:tag] + path[tag + 1 :]


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where the unknown key at `path` stands."""
    place = path[:-1]
    if place and place[0] in _SECTIONS:
        return list(_SECTIONS[str(place[0])].model_fields)
    classes: dict[str, type[BaseModel]] = {}
    if place and place[0] == "model":
        named = (TimmNetwork, TransformersNetwork, OpenClipNetwork, TorchvisionNetwork, PythonNetwork)
        classes = dict(zip(_NETWORKS, named, strict=True))
    elif place and place[0] == "val":
        classes = dict(
            zip(_SETS, (ImagesSet, TextSet, ArraysSet, TokensSet, LmEvalSet, PythonSet, CommandSet), strict=True)
        )
    if classes:
        return list(classes[str(place[-1])].model_fields)
    return list(Recipe.model_fields)
