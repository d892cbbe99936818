"""A file of functions that compare the embeddings of pairs of sentences with their scores, for `soup init` to write.

text = functions_of({"dev": {"text": "data/dev.csv", "input": ["sentence1", "sentence2"], "label": "score"}})
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

READERS = {
    ".csv": "list(csv.DictReader(lines))",
    ".tsv": 'list(csv.DictReader(lines, delimiter="\\t"))',
    ".jsonl": "[json.loads(line) for line in lines]",
}
HEAD = '''"""Rank correlations of cosine similarities with scores, as EmbeddingSimilarityEvaluator computes them."""

import {library}

from scipy.stats import spearmanr
from torch.nn.functional import cosine_similarity


def spearman(model, file):
    with open(file, encoding="utf-8", newline="") as lines:
        rows = {reader}
    first, second = (
        model.encode([row[name] for row in rows], convert_to_tensor=True, show_progress_bar=False)
        for name in ({first}, {second})
    )
    similar = cosine_similarity(first.double(), second.double()).cpu()
    scores = [float(row[{label}]) for row in rows]
    return {{"spearman": float(spearmanr(similar, scores).statistic), "n": len(rows)}}
'''
ONE = """

def {function}(model, device):
    return spearman(model, {file})
"""


def functions_of(sets: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, str]] | None:
    """Return the text of the file, and the function of each set, or None if no set has pairs with scores.

    Sets whose columns or kind of file are not those of the first one are left out.
    """
    kinds = {name: kind for name, spec in sets.items() if (kind := _kind(spec)) is not None}
    if not kinds:
        return None
    reader, first, second, label = next(iter(kinds.values()))
    alike = [name for name, kind in kinds.items() if kind == (reader, first, second, label)]
    names = {name: re.sub(r"\W", "_", f"pairs_{name}") for name in alike}
    text = HEAD.format(
        library="json" if "json" in reader else "csv",
        reader=reader,
        first=_text(first),
        second=_text(second),
        label=_text(label),
    )
    return text + "".join(ONE.format(function=names[name], file=_text(sets[name]["text"])) for name in alike), names


def _kind(spec: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Return how a set of pairs is read: the reader of its file, two columns of sentences and one of scores."""
    file, inputs, label = str(spec.get("text", "")), spec.get("input", []), spec.get("label")
    reader = next((reader for suffix, reader in READERS.items() if file.endswith(suffix)), None)
    if reader is None or len(inputs) != 2 or not isinstance(label, str):
        return None
    return reader, inputs[0], inputs[1], label


def _text(value: str) -> str:
    """Return a literal of Python, in double quotes."""
    return json.dumps(value, ensure_ascii=False)
