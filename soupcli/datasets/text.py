"""`{text: data/sst2-dev.jsonl, input: [sentence], label: label}`: rows of jsonl, csv, tsv or parquet.

Or `template: "sst2 sentence: {sentence}"` in place of `input`, for networks that read the task.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from soupcli.datasets import label_rows
from soupcli.datasets.class_names import check_order
from soupcli.datasets.classes import known_names
from soupcli.datasets.examples import TokenExamples
from soupcli.datasets.input_cache import input_key
from soupcli.datasets.kind import Prompted, SetKind
from soupcli.datasets.load_context import LoadContext, encoded, tokenizer_of
from soupcli.datasets.prompts import check_is_file, content_hash
from soupcli.datasets.rows import Row, class_names, read_rows
from soupcli.datasets.text_labels import ClassLabels, class_labels, measurements
from soupcli.errors import NetworkError, ValidationError
from soupcli.late import torch
from soupcli.metrics.table import metric_named
from soupcli.recipe.sets import TextSet, template_columns

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.label_rows import LabelRows
    from soupcli.files.manifest import Manifest
    from soupcli.networks.network import Network, Outline
    from soupcli.progress import Progress
    from soupcli.report.scores import ClassOrder

ROWS_AT_ONCE = 1024
NO_LIMIT = 1_000_000  # a tokenizer without a longest input says 1e30


def fingerprint(spec: TextSet, manifest: Manifest | None = None) -> str:
    """Return the fingerprint of the file's content and of how it is read."""
    reading = spec.model_dump(mode="json", exclude={"text", "metric"}) | {"suffix": spec.text.suffix.lower()}
    return f"text:{content_hash(spec.text, manifest)}:{json.dumps(reading, sort_keys=True)}"


def load(spec: TextSet, given: LoadContext) -> TokenExamples:
    """Tokenize all rows once, cut at the tokenizer's longest input or at `max_length`.

    Nothing longer than the network's positions goes in; `given.warn` is called. Labels are classes, or float64 if the
    metric is one of numbers. Raises NetworkError without a tokenizer; ValidationError if a column is missing, a label
    is neither a class number nor a known name (or, of numbers, no number), or sequences of many lengths cannot be
    padded.
    """
    network, tokenizer, progress = given.network, tokenizer_of(given), given.progress
    numbers = "numbers" in metric_named(given.metric).measures
    columns_read = template_columns(spec.template) if spec.template is not None else spec.input
    rows = read_rows(spec.text, (*columns_read, *_label_columns(spec)))
    labels = _labels(spec, rows, network.outline, numbers=numbers)
    texts = [_texts(spec, row, number, columns_read) for number, row in enumerate(rows, 1)]
    limit = _limit(spec, tokenizer, network.longest_input)
    key = input_key("text", fingerprint(spec, given.cache.manifest), given.mark, limit)
    make = partial(_tokenised, spec, texts, tokenizer, limit, progress)
    columns = given.cache.made(key, make, count=lambda _: len(rows), fits=partial(_are_rows, len(rows)))
    starts = columns.pop("starts")
    asked = _limit(spec, tokenizer, None)
    if limit != asked and int(starts.diff().max()) >= limit:
        cut = "no longest input" if asked >= NO_LIMIT else f"{asked} tokens"
        who = "max_length: says" if spec.max_length is not None else "the tokenizer says"
        given.warn(f"{spec.text}: texts are cut at {limit} tokens, the positions of the network ({who} {cut})")
    padding = _padding(spec, tokenizer, network.pad_token_id, set(starts.diff().tolist()))
    left = getattr(tokenizer, "padding_side", "right") == "left"
    return TokenExamples(columns, starts, labels, fingerprint(spec, given.cache.manifest), padding, left)


def _limit(spec: TextSet, tokenizer: Any, longest: int | None) -> int:
    """Return the longest input in tokens; NO_LIMIT or more if it is unknown."""
    own = tokenizer.model_max_length
    if spec.max_length is None and not (isinstance(own, int | float) and own > 0):
        raise ValidationError(f"{spec.text}: the tokenizer's model_max_length is {own!r}", hint="max_length: N says it")
    return int(min(spec.max_length or own, longest or NO_LIMIT, NO_LIMIT))


def _tokenised(
    spec: TextSet, texts: Sequence[Sequence[str]], tokenizer: Any, limit: int, progress: Progress
) -> dict[str, Tensor]:
    """The tokenizer's columns, all rows end to end, and `starts` [N + 1], where each row begins."""
    pieces: dict[str, array[int]] = {}
    starts = [0]
    cut: dict[str, Any] = {"truncation": True, "max_length": limit} if limit < NO_LIMIT else {}
    for begin in range(0, len(texts), ROWS_AT_ONCE):
        part = texts[begin : begin + ROWS_AT_ONCE]
        columns_in = [list(column) for column in zip(*part, strict=True)]
        made = encoded(tokenizer, *columns_in, where=str(spec.text), **cut)
        for name, sequences in made.items():
            flat = pieces.setdefault(name, array("q"))
            for sequence in sequences:
                flat.extend(sequence)
        for sequence in made["input_ids"]:
            starts.append(starts[-1] + len(sequence))
        progress(f"tokenising {spec.text}", min(begin + ROWS_AT_ONCE, len(texts)), len(texts))
    if empty := [number for number, (start, end) in enumerate(pairwise(starts), 1) if start == end]:
        raise ValidationError(f"{spec.text}: row {empty[0]}: becomes no token", hint="leave rows without text out")
    columns = {name: torch.frombuffer(flat, dtype=torch.int64) for name, flat in pieces.items()}
    return {**columns, "starts": torch.tensor(starts)}


def _are_rows(rows: int, kept: dict[str, Tensor]) -> bool:
    """Whether kept tensors are what `_tokenised` makes of so many rows."""
    if any(tensor.dim() != 1 or tensor.dtype != torch.int64 for tensor in kept.values()):
        return False
    lengths = {len(tensor) for name, tensor in kept.items() if name != "starts"}
    starts = kept.get("starts")
    if starts is None or "input_ids" not in kept or len(starts) != rows + 1:
        return False
    return lengths == {int(starts[-1])} and int(starts[0]) == 0 and bool((starts.diff() > 0).all())


def _padding(spec: TextSet, tokenizer: Any, pad_token_id: int | None, lengths: set[int]) -> dict[str, int]:
    """The padding of each column; columns that are not named here, e.g. the attention mask, get 0."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else pad_token_id
    if pad is None and len(lengths) > 1:
        raise ValidationError(
            f"{spec.text}: rows have {min(lengths)} to {max(lengths)} tokens, and the tokenizer has no padding token",
            hint="set tokenizer.pad_token and model.config.pad_token_id, and save both beside the weights",
        )
    return {"input_ids": pad or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}


def _texts(spec: TextSet, row: Row, number: int, columns: Sequence[str]) -> list[str]:
    """Return the input texts: one or two columns, or the filled template."""
    texts = [_text(spec, row, number, column) for column in columns]
    return texts if spec.template is None else [spec.template.format(**dict(zip(columns, texts, strict=True)))]


def _text(spec: TextSet, row: Row, number: int, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        shown = repr(value) if not isinstance(value, int) or abs(value) < 10**60 else "a number of many digits"
        raise ValidationError(
            f"{spec.text}: row {number}: {column!r} is {shown[:80]}, not text",
            hint="input: names the columns of sentences; correct or remove the row",
        )
    try:
        value.encode()
    except UnicodeEncodeError as cause:
        raise ValidationError(f"{spec.text}: row {number}: {column!r} is no Unicode text: {cause.reason}") from cause
    return value


def _label_columns(spec: TextSet) -> list[str]:
    return [spec.label] if isinstance(spec.label, str) else spec.label


def _labels(spec: TextSet, rows: Sequence[Row], outline: Outline, *, numbers: bool) -> Tensor:
    if numbers:
        return measurements(spec, [row.get(_one_column(spec)) for row in rows])
    return _class_labels(spec, rows, outline).labels


def class_order(spec: TextSet, outline: Outline, metric: str) -> ClassOrder | None:
    """Return the order of classes, from the labels of all rows, or None for a metric of numbers."""
    if "numbers" in metric_named(metric).measures:
        return None
    return _class_labels(spec, read_rows(spec.text, _label_columns(spec)), outline).order


def _class_labels(spec: TextSet, rows: Sequence[Row], outline: Outline) -> ClassLabels | LabelRows:
    """One class for each row, or a 0 or 1 for each class: of several columns, and of lists in one."""
    if not isinstance(spec.label, str):
        known = spec.labels or known_names(spec.label, outline)[0]
        if known is None:
            check_order(spec.text, spec.label, outline.lists(), label_rows.WAY_OUT)
        return label_rows.of_columns(spec.text, rows, spec.label, known)
    values = [row.get(spec.label) for row in rows]
    if isinstance(values[0], list):
        listed = {each for value in values if isinstance(value, list) for each in value if isinstance(each, str)}
        return label_rows.of_lists(spec.text, values, spec.labels or known_names(sorted(listed), outline)[0])
    own = class_names(spec.text, spec.label)
    said = own or sorted({value for value in values if isinstance(value, str)})
    return class_labels(spec, values, known_names(said, outline)[0], own)


def _one_column(spec: TextSet) -> str:
    """The column of a label that is a number. Raises ValidationError if there are several."""
    if isinstance(spec.label, str):
        return spec.label
    raise ValidationError(
        f"{spec.text}: label: names {len(spec.label)} columns, a number is in one", hint="--metric map or f1_micro"
    )


def classifier(spec: TextSet, name: str, network: Network) -> Prompted | None:
    """Return a classifier for a network from text to text: the likelihoods of the labels' words."""
    answers = network.answers
    if answers is None:
        return None
    if spec.labels is None:
        raise NetworkError(
            f"val.{name}: the network answers in words, and the set does not say which",
            hint="labels: [negative, positive], in the order of the classes",
        )
    words = spec.labels
    return Prompted(tuple(words), lambda module: answers(module, words))


KIND: SetKind[TextSet] = SetKind(
    lambda spec, manifest, _: fingerprint(spec, manifest),
    load,
    class_order=class_order,
    classifier=classifier,
    check=lambda spec, _name, _trust: check_is_file(spec.text),
)
