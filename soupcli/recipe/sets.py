"""`val:`, one class for each kind of validation set, and their table."""

from __future__ import annotations

import re
import string
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from soupcli.recipe.section import Section
from soupcli.recipe.values import ClassIds, Columns, PythonReference, RecipePath


class SetSpec(Section):
    """Any set; `kind` is the module whose `KIND` reads or measures such sets."""

    kind: ClassVar[str]
    shows_examples: ClassVar[bool] = False  # inputs go through the network here, one by one
    labelled: ClassVar[bool] = False  # examples have labels, so that coefficients can be fitted on them
    suffixes: ClassVar[tuple[str, ...]] = ()  # of files that --val takes as such a set
    takes_folder: ClassVar[bool] = False
    code_keys: ClassVar[tuple[str, ...]] = ()  # whose values are functions of the user's
    own_metrics: ClassVar[bool] = False  # metrics that others define, under any names
    batched: ClassVar[bool] = False  # evaluated in batches of the recipe's size
    padded: ClassVar[bool] = True  # inputs may differ in length: last digits may depend on the batch
    writes_files: ClassVar[bool] = False  # evaluating may change the files that are named

    metric: str | None = None
    """The metric that ranks and selects on this set; default: the recipe's. `--metric` goes over both."""

    @property
    def code(self) -> list[str]:
        """The user's functions that the set runs."""
        return [str(value) for key, value in self if key in self.code_keys and value is not None]

    @property
    def programs(self) -> list[str]:
        """The command lines that the set starts."""
        return []

    @property
    def higher_better(self) -> bool | None:
        """Whether more of the set's own metric is better; None if the recipe does not say."""
        return None


class _LabelledSet(SetSpec):
    shows_examples: ClassVar[bool] = True
    batched: ClassVar[bool] = True
    labelled: ClassVar[bool] = True


class ArraysSet(_LabelledSet):
    kind: ClassVar[str] = "soupcli.datasets.arrays"
    padded: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)

    arrays: RecipePath
    """A safetensors file with the tensors `inputs` [N, ...] and `labels`: integers [N], floats [N] for numbers, or
    [N, K] with a 0 or a 1 for each class (multi-label)."""


class ImagesSet(_LabelledSet):
    kind: ClassVar[str] = "soupcli.datasets.images"
    padded: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = (".tar",)
    takes_folder: ClassVar[bool] = True
    code_keys: ClassVar[tuple[str, ...]] = ("transform",)

    images: RecipePath
    """A folder with one sub-folder of pictures for each class; or .tar shards in the WebDataset layout: a file, a
    folder of them, a glob, or ranges such as `val-{0000..0003}.tar`."""
    class_to_index: dict[str, Annotated[int, Field(ge=0, lt=2**31)]] | None = None
    """Class folder to index of the logit; default: by the network's own class names, else in `class_order`."""
    class_order: Literal["text", "natural"] | None = None
    """The order in which class folders are counted from 0: `text` (1, 10, 2: torchvision, datasets) or `natural`
    (1, 2, 10: timm). It goes over the network's class names. Default: by these names; without them in the order of the
    library that the network is of."""
    classes: ClassIds | None = None
    """Which of the network's classes the set covers, where it does not cover all: the other logits take no part. A
    file with one class a line (index of the logit, or wnid of ImageNet), a list of them in the order of the set's
    classes, or `folders`: those that the folders name. Or a map, also as .json file, from each class folder (or label
    in shards) to the index of its logit, or to several that count as one; folders that it does not name are left out.
    """
    labels: RecipePath | None = None
    """A .json file with the right classes of each picture, such as ReaL's real.json; the largest logit must be one of
    them. Pictures without any are left out. Or a .csv, .tsv, .jsonl or .parquet file with the picture in the column
    `file_name`, else the first. One other column holds the class of each picture: all names (as class folders have
    them), or all numbers of logits; without a header if the first line names a picture. Or a column of 0 and 1 for each
    class, for pictures that have any number of classes (multi-label), by the network's class names, else in the order
    of the logits. A sole column of 0 and 1 is such a class, unless it is called `label` or alike."""
    label: list[str] | None = Field(default=None, min_length=1)
    """The columns of such a file that are classes, in the order of the logits, or the one that holds the class;
    default: all but the picture's."""
    transform: PythonReference | None = None
    """`file.py:function` from a PIL picture to a tensor that goes into the network, in place of all of these:"""
    size: int | list[int] | None = None
    """Pixels of the shorter side that pictures are resized to, or [height, width]; default: as the network has it."""
    crop: int | list[int] | None = None
    """Pixels of the centre that is cut out after that, or [height, width]; default: `size` if that is given."""
    mean: list[float] | None = None
    """Mean of each channel that is taken off pixels from 0 to 1; default: as the network has it."""
    std: list[float] | None = None
    """Deviation of each channel that they are divided by; default: as the network has it."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    """How pictures are resized; default: as the network has it."""
    border: int = Field(default=0, ge=0)
    """Pixels that are cut from each side of every picture before the transform (ObjectNet: 2)."""
    classnames: RecipePath | None = None
    """A text file with one class name a line, in the order of the labels: builds a zero-shot CLIP classifier."""
    templates: RecipePath | None = None
    """A text file with one template a line, `{}` where the class name goes."""

    @model_validator(mode="after")
    def _readable_transform(self) -> Self:
        for key, value in (("size", self.size), ("crop", self.crop)):
            sides = [value] if isinstance(value, int) else value or [1]
            if len(sides) > 2 or (isinstance(value, list) and len(sides) != 2) or not all(0 < s < 2**16 for s in sides):
                raise ValueError(f"{key}: expected pixels, or [height, width], got {value!r}")
        if any(deviation <= 0 for deviation in self.std or ()):
            raise ValueError(f"std: expected numbers above 0, got {self.std!r}")
        plain = [key for key in ("size", "crop", "mean", "std", "interpolation") if key in self.model_fields_set]
        if self.transform is not None and plain:
            raise ValueError(f"transform: says it all, {plain[0]}: does not go with it")
        return self

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> Self:
        indices = self.labels is not None and self.labels.suffix.lower() == ".json"
        if indices and (self.classes is not None or self.class_to_index is not None):
            raise ValueError("labels: holds indices of logits, classes: and class_to_index: do not go with it")
        if self.label is not None and (self.labels is None or self.labels.suffix.lower() == ".json"):
            raise ValueError("label: names columns of a table: labels: FILE.csv")
        if self.class_order is not None and (indices or self.class_to_index is not None):
            raise ValueError("class_order: counts the folders, labels: and class_to_index: do not go with it")
        if self.class_to_index is not None and isinstance(self.classes, dict):
            raise ValueError("class_to_index: and a map in classes: both say which folder is which: give one")
        return self


class TextSet(_LabelledSet):
    kind: ClassVar[str] = "soupcli.datasets.text"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".csv", ".tsv", ".parquet")

    text: RecipePath
    """A .jsonl, .csv, .tsv or .parquet file, one example a row."""
    input: Columns = ["text"]
    """One or two text columns: `sentence`, or `[premise, hypothesis]`."""
    label: str | Annotated[list[str], Field(min_length=1)] = "label"
    """The column of the label: a class, or a number where the metric is one of numbers (pearson, spearman, mse).
    Several classes for one row (multi-label): a list of columns of 0 and 1, `[toxic, insult]`, by the network's class
    names, else in the order of the logits; or a column of lists (jsonl, parquet) of names, of class numbers, or of a 0
    or 1 for each class."""
    template: str | None = None
    """What goes in, in place of `input`, with columns in braces: `rte sentence1: {sentence1} sentence2: {sentence2}`.
    """
    labels: list[str] | None = None
    """Class names in the order of the logits, where the label column holds names. For a network from text to text these
    are the words that it answers with: the logit of a class is the log-likelihood of its words."""
    max_length: int | None = Field(default=None, gt=0)
    """Longest input in tokens, at most the positions of the network; default: what the tokenizer says."""

    @model_validator(mode="after")
    def _readable_template(self) -> Self:
        if self.template is None:
            return self
        if "input" in self.model_fields_set:
            raise ValueError("template: names its columns itself, input: does not go with it")
        if not template_columns(self.template):
            raise ValueError(f"template: has no {{column}} in braces, got {self.template!r}")
        return self


class TokensSet(SetSpec):
    kind: ClassVar[str] = "soupcli.datasets.tokens"
    shows_examples: ClassVar[bool] = True
    batched: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    tokens: RecipePath
    """A UTF-8 text file, on which the perplexity of a causal language model is measured."""
    metric: Literal["perplexity"] = "perplexity"  # type: ignore[mutable-override]  # sections are frozen
    """Such a set has its perplexity."""
    context: int = Field(default=1024, gt=1, lt=2**31)
    """Tokens in one window; a network with fewer positions has windows of these."""
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


class OutsideSet(SetSpec):
    """A set that others evaluate: code or a program of the user's, or the tasks of a library."""

    depends: list[RecipePath] = []
    """Further files, folders and globs that the scores depend on, besides the user's modules and the files that they
    open, which are found automatically. A kept score is used only while all of them are unchanged."""
    version: str | int | None = None
    """Any word. A change of it has everything evaluated anew."""
    keep: bool = True
    """Whether scores are kept for later runs."""


class LmEvalSet(OutsideSet):
    kind: ClassVar[str] = "soupcli.evaluation.outside.lm_eval"
    batched: ClassVar[bool] = True

    lm_eval: list[str] = Field(min_length=1)
    """Tasks or groups of lm-evaluation-harness; the score is the mean over them."""
    metric: str = "acc"  # type: ignore[mutable-override]  # sections are frozen
    """The harness's metric, `name` or `name,filter`; all others that the tasks have are reported."""
    limit: int | None = Field(default=None, gt=0)
    """Examples of each task, the first ones; default: all."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples in the prompt; default: what the task says."""
    include_path: RecipePath | None = None
    """A folder of further tasks, in the harness's own YAML. Python that they name runs only with `--trust-code`."""


class PythonSet(OutsideSet):
    kind: ClassVar[str] = "soupcli.evaluation.outside.user_function"
    code_keys: ClassVar[tuple[str, ...]] = ("python",)
    own_metrics: ClassVar[bool] = True

    python: PythonReference
    """`file.py:function` from (model, device) to {metric: value}; or to one number, if `metric:` says which; or a
    function that yields whether each example is right."""
    higher_is_better: bool | None = None
    """Whether more of the metric is better; needed if its name does not tell: accuracy, f1, mae, wer, ... do."""

    @property
    def higher_better(self) -> bool | None:
        """See SetSpec.higher_better."""
        return self.higher_is_better


class CommandSet(OutsideSet):
    kind: ClassVar[str] = "soupcli.evaluation.outside.command"
    own_metrics: ClassVar[bool] = True
    writes_files: ClassVar[bool] = True

    command: str
    """A command that prints one JSON object {metric: value} on its last line; `{checkpoint}` is the soup's path.
    `{weights}` is the file of its weights, `{folder}` their folder, `{device}` the device. Several sets of one command
    are evaluated at once if it prints `{set: {metric: value}, ...}`."""
    higher_is_better: bool | None = None
    """Whether more of the metric is better; needed if its name does not tell: accuracy, f1, mae, wer, ... do."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which the command is ended."""
    retries: int = Field(default=0, ge=0)
    """How often a command that fails is tried again."""

    @property
    def programs(self) -> list[str]:
        """See SetSpec.programs."""
        return [self.command]

    @property
    def higher_better(self) -> bool | None:
        """See SetSpec.higher_better."""
        return self.higher_is_better


def template_columns(template: str) -> list[str]:
    """The columns in braces, each once. Raises ValueError if braces hold anything but a name."""
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as cause:
        raise ValueError(f"template: {cause}: a brace that is none is written twice, {{{{") from cause
    for _, column, form, conversion in fields:
        if not column or form or conversion or re.search(r"[.\[]", column):
            raise ValueError(f"template: {{{column}}} is not the name of a column")
    return list(dict.fromkeys(str(column) for _, column, _, _ in fields))


SETS: dict[str, type[SetSpec]] = {
    "images": ImagesSet,
    "text": TextSet,
    "arrays": ArraysSet,
    "tokens": TokensSet,
    "lm_eval": LmEvalSet,
    "python": PythonSet,
    "command": CommandSet,
}
