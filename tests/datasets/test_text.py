"""Sets of sentences: labels of every form, tokens and padding as the tokenizer has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from soupcli.datasets import text
from soupcli.errors import RecipeError, ValidationError
from soupcli.recipe.precedence import load_recipe
from soupcli.recipe.sets import TextSet
from tests.helpers import transformers_toys as toys
from tests.helpers.load_contexts import load_context
from tests.helpers.transformers_toys import bert_tokenizer, word_tokenizer

CPU = torch.device("cpu")
SENTENCES = ["the film was good", "bad", "a very bad plot", "not good"]


def write(folder: Path, labels: list[Any], **columns: list[str]) -> TextSet:
    """A set of SENTENCES with these labels and further columns."""
    rows = [{"text": sentence, "label": label} for sentence, label in zip(SENTENCES, labels, strict=False)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextSet(text=folder / "val.jsonl", input=["text", *columns])


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [None, 5])
def test_tokens_are_the_tokenizers(pair: bool, side: str, max_length: int | None, tmp_path: Path) -> None:
    """Ids, mask and token types of every batch are what the tokenizer itself pads them to, on either side."""
    tokenizer = bert_tokenizer(tmp_path / "run", padding_side=side)
    other = ["the plot", "very very very very bad", "a", "good"]
    spec = write(tmp_path, [0, 1, 1, 0], **({"other": other} if pair else {}))
    found = text.load(spec.model_copy(update={"max_length": max_length}), load_context(tokenizer))
    assert found.labels.tolist() == [0, 1, 1, 0]
    for indices in ([0, 1, 2, 3], [1], [3, 1]):
        columns = [[column[i] for i in indices] for column in ([SENTENCES, other] if pair else [SENTENCES])]
        wanted = tokenizer(*columns, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        batch = found.batch(torch.tensor(indices), CPU)
        assert batch.keys() == wanted.keys()
        assert all(torch.equal(batch[name], wanted[name]) for name in batch)


def test_longest_first(tmp_path: Path) -> None:
    """Examples are visited longest first, in the order of the file where they are equally long."""
    found = text.load(write(tmp_path, [0, 1, 1, 0]), load_context(word_tokenizer(tmp_path / "run")))
    assert found.order().tolist() == [0, 2, 3, 1]


def test_long_inputs(tmp_path: Path) -> None:
    """Inputs are cut at the tokenizer's longest, not at all where it has none, or where the recipe says."""
    spec = write(tmp_path, [0, 1, 1, 0])
    for made, longest in ((bert_tokenizer(tmp_path / "a", model_max_length=4), 4), (word_tokenizer(tmp_path / "b"), 4)):
        assert int(text.load(spec, load_context(made)).starts.diff().max()) == longest
    assert int(text.load(spec.model_copy(update={"max_length": 3}), load_context(made)).starts.diff().max()) == 3


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0]),
        (["0", "1", " 1", "0"], None),
        (["0", "1", "1", "0"], [0, 1, 1, 0]),
        ([0.0, 1.0, 1.0, 0.0], [0, 1, 1, 0]),
        (["1.0", "0.", "+1", "-1"], [1, 0, 1, -1]),
        (["positive", "negative", "positive", "positive"], [1, 0, 1, 1]),
    ],
)
def test_labels(labels: list[Any], wanted: list[int] | None, tmp_path: Path) -> None:
    """Numbers in any notation and the model's own names are classes."""
    spec, tokenizer = write(tmp_path, labels), word_tokenizer(tmp_path / "run")
    if wanted is None:
        with pytest.raises(ValidationError, match=r"row 3: label ' 1' is neither a number nor one of"):
            text.load(spec, load_context(tokenizer, label_names=("negative", "positive")))
    else:
        assert text.load(spec, load_context(tokenizer, label_names=("negative", "positive"))).labels.tolist() == wanted


@pytest.mark.parametrize("names", [("False", "True"), ("yes", "no"), None])
def test_true_and_false(names: tuple[str, ...] | None, tmp_path: Path) -> None:
    """Truth values are names of classes: the hint's `labels:` says which if the network has no such names."""
    spec, tokenizer = write(tmp_path, [True, False, False, True]), word_tokenizer(tmp_path / "run")
    context = load_context(tokenizer, label_names=names)
    if names != ("False", "True"):
        with pytest.raises(ValidationError, match="label true is true or false") as refused:
            text.load(spec, context)
        assert "labels: ['false', 'true']" in str(refused.value.hint)
        spec = spec.model_copy(update={"labels": ["false", "true"]})
    assert text.load(spec, context).labels.tolist() == [1, 0, 0, 1]


def test_names_of_the_recipe(tmp_path: Path) -> None:
    """Names of the recipe go over those of the model, also where they look like numbers."""
    spec = write(tmp_path, ["2", "10", "2", "10"]).model_copy(update={"labels": ["10", "2"]})
    found = text.load(spec, load_context(word_tokenizer(tmp_path / "run"), label_names=("negative", "positive")))
    assert found.labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (2.5, r"row 2: label 2\.5 is a measurement, not a class"),
        ("2.5", r"row 2: label '2\.5' is a measurement, not a class"),
        (float("nan"), r"row 2: label nan is a measurement, not a class"),
        (
            "positiv",
            r"row 2: label 'positiv' is neither a number nor one of negative, positive, did you mean 'positive'",
        ),
        (None, r"row 2: label None is neither a number nor one of"),
        (True, r"row 2: label True is neither a number nor one of"),
        ("1_0", r"row 2: label '1_0' is neither"),
        ([1], r"row 2: label \[1\] is neither"),
    ],
)
def test_labels_that_are_none(label: Any, message: str, tmp_path: Path) -> None:
    """A label that is no class is an error that names the row, and what the names are."""
    with pytest.raises(ValidationError, match=rf"val\.jsonl: {message}"):
        text.load(
            write(tmp_path, [0, label, 1]),
            load_context(word_tokenizer(tmp_path / "run"), label_names=("negative", "positive")),
        )


def test_texts_that_are_none(tmp_path: Path) -> None:
    """A row whose text is missing, a number or without a single token is an error that names it."""
    tokenizer = word_tokenizer(tmp_path / "run")
    for row, message in (
        ({"label": 1}, r"row 2: 'text' is None, not text"),
        ({"text": 3, "label": 1}, r"row 2: 'text' is 3, not text"),
        ({"text": " ", "label": 1}, r"row 2: becomes no token"),
    ):
        rows = [{"text": "good", "label": 0}, row]
        (tmp_path / "val.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        with pytest.raises(ValidationError, match=message):
            text.load(TextSet(text=tmp_path / "val.jsonl"), load_context(tokenizer))


def test_no_padding_token(tmp_path: Path) -> None:
    """Without a padding token the model's configuration says it; without that, rows of one length are all that goes."""
    tokenizer = word_tokenizer(tmp_path / "run", pad_token=None)
    spec = write(tmp_path, [0, 1, 1, 0])
    padded = text.load(spec, load_context(tokenizer, pad_token_id=7)).batch(torch.tensor([0, 1]), CPU)
    assert padded["input_ids"][1].tolist() == [7, 7, 7, toys.WORDS.index("bad")]
    assert padded["attention_mask"][1].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValidationError, match=r"rows have 1 to 4 tokens, and the tokenizer has no padding token"):
        text.load(spec, load_context(tokenizer))
    assert text.load(spec.model_copy(update={"max_length": 1}), load_context(tokenizer)).starts.tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_token_types_pad_with_their_own_number(tmp_path: Path) -> None:
    """Token types are padded with the tokenizer's number for them, the mask with 0."""
    tokenizer = bert_tokenizer(tmp_path / "run")
    tokenizer._pad_token_type_id = 3
    batch = text.load(write(tmp_path, [0, 1, 1, 0]), load_context(tokenizer)).batch(torch.tensor([0, 1]), CPU)
    assert batch["token_type_ids"][1].tolist() == [0, 0, 0, 3, 3, 3]
    assert batch["attention_mask"][1].tolist() == [1, 1, 1, 0, 0, 0]


def test_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are tokenised in several goes are in their places, and progress counts them all."""
    monkeypatch.setattr(text, "ROWS_AT_ONCE", 3)
    calls: list[tuple[int, int]] = []

    def noted(task: str, done: int, total: int, *, note: str = "") -> None:
        calls.append((done, total))

    tokenizer = bert_tokenizer(tmp_path / "run")
    found = text.load(write(tmp_path, [0, 1, 1, 0]), load_context(tokenizer, progress=noted))
    wanted = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    assert torch.equal(found.batch(torch.arange(4), CPU)["input_ids"], wanted["input_ids"])
    assert calls == [(3, 4), (4, 4)]


def test_template(tmp_path: Path) -> None:
    """Columns go into the template where it names them, one more than once; braces that are none are doubled."""
    spec = write(tmp_path, [0, 1, 1, 0], other=["the plot", "very bad", "a", "good"])
    made = bert_tokenizer(tmp_path / "run")
    template = "film {other} was {text} {{ {other}"
    found = text.load(TextSet(text=spec.text, template=template), load_context(made))
    filled = [f"film {o} was {t} {{ {o}" for t, o in zip(SENTENCES, ["the plot", "very bad", "a", "good"], strict=True)]
    wanted = made(filled, padding=True, truncation=True, return_tensors="pt")
    batch = found.batch(torch.arange(4), CPU)
    assert all(torch.equal(batch[name], wanted[name]) for name in batch)
    assert text.fingerprint(TextSet(text=spec.text, template=template)) != text.fingerprint(TextSet(text=spec.text))
    with pytest.raises(ValidationError, match="has no column 'txt', did you mean 'text'"):
        text.load(TextSet(text=spec.text, template="a {txt}"), load_context(made))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("template: 'sst2: {a}', input: [a]", "val.v: template: names its columns itself, input: does not go with it"),
        ("template: 'sst2:'", r"val.v: template: has no \{column\} in braces, got 'sst2:'"),
        ("template: 'a {b} {'", "val.v: template: .*a brace that is none is written twice, {{"),
        ("template: '{a.b}'", r"val.v: template: \{a.b\} is not the name of a column"),
        ("template: '{a!r}'", r"val.v: template: \{a\} is not the name of a column"),
        ("template: '{}'", r"val.v: template: \{\} is not the name of a column"),
    ],
)
def test_templates_that_are_none(keys: str, problem: str, tmp_path: Path) -> None:
    """A template has columns in braces and nothing else there, and is the one thing that says what goes in."""
    (tmp_path / "soup.yaml").write_text(f"val:\n  v: {{text: x.jsonl, {keys}}}\n")
    with pytest.raises(RecipeError, match=rf"soup.yaml:2:\d+: {problem}"):
        load_recipe(tmp_path / "soup.yaml")


@pytest.mark.parametrize("limit", [{}, {"model_max_length": 100}, {"max_length": 40}])
def test_longer_than_the_positions(limit: dict[str, int], tmp_path: Path) -> None:
    """Nothing longer than the network's positions goes in, whatever the tokenizer or the recipe allows; it is said."""
    tokenizer = word_tokenizer(tmp_path / "run", **{k: v for k, v in limit.items() if k == "model_max_length"})
    (tmp_path / "val.jsonl").write_text("".join(json.dumps({"text": "good " * n, "label": 0}) + "\n" for n in (3, 50)))
    spec = TextSet(text=tmp_path / "val.jsonl", max_length=limit.get("max_length"))
    said: list[str] = []
    found = text.load(spec, load_context(tokenizer, longest_input=32, warn=said.append))
    assert found.starts.tolist() == [0, 3, 35]
    assert len(said) == 1
    assert "texts are cut at 32 tokens, the positions of the network" in said[0]


def test_numbers_and_names_that_look_like_numbers(tmp_path: Path) -> None:
    """A JSON number is a class number, whatever the names are; text that may be either is refused."""
    stars, tokenizer = ("1", "2", "3"), word_tokenizer(tmp_path / "run")

    def labels(values: list[Any], **keys: Any) -> list[int]:
        spec = write(tmp_path, values).model_copy(update=keys)
        return text.load(spec, load_context(tokenizer, label_names=stars)).labels.tolist()

    assert labels([0, 1, 2, 1]) == [0, 1, 2, 1]
    assert labels(["1", "2", "3", "1"]) == [0, 1, 2, 0]  # 3 is no index
    assert labels(["0", "1", "2", "1"]) == [0, 1, 2, 1]  # 0 is no name
    with pytest.raises(ValidationError, match=r"labels 1, 2 may be class numbers, or names of the classes 1, 2, 3"):
        labels(["1", "2", "2", "1"])
    assert labels(["1", "2", "2", "1"], labels=["1", "2", "3"]) == [0, 1, 1, 0]
    with pytest.raises(ValidationError, match=r"row 1: label '1' is text, row 2: 2 is a number"):
        labels(["1", 2, "2", "1"])


def test_names_beside_the_weights(tmp_path: Path) -> None:
    """Names are those of a list beside the weights if the network itself has none; numbers are not names."""
    tokenizer, beside = word_tokenizer(tmp_path / "run"), {"label_encoder.pkl: classes_": ["1", "bad", "0"]}
    spec = write(tmp_path, ["bad", "0", "1", "bad"])
    assert text.load(spec, load_context(tokenizer, beside=beside)).labels.tolist() == [1, 2, 0, 1]
    assert text.load(write(tmp_path, [1, 0, 2, 1]), load_context(tokenizer, beside=beside)).labels.tolist() == [
        1,
        0,
        2,
        1,
    ]


def test_names_of_the_file(tmp_path: Path) -> None:
    """Numbers in a parquet file of `datasets` stand for its own names, which are matched with the network's."""
    datasets = pytest.importorskip("datasets")
    names = ["Entailment", "Neutral", "Contradiction"]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": ["good", "bad", "good", "bad"], "label": [0, 1, 2, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "val.parquet")
    spec, tokenizer = TextSet(text=tmp_path / "val.parquet"), word_tokenizer(tmp_path / "run")
    known = ("contradiction", "entailment", "neutral")
    assert text.load(spec, load_context(tokenizer, label_names=known)).labels.tolist() == [1, 2, 0, 1]
    assert text.load(spec, load_context(tokenizer, beside={"classes.txt": known})).labels.tolist() == [1, 2, 0, 1]
    assert text.load(spec, load_context(tokenizer)).labels.tolist() == [0, 1, 2, 0]
    with pytest.raises(ValidationError, match="'Entailment' is neither a number nor one of no, yes"):
        text.load(spec, load_context(tokenizer, label_names=("no", "yes", "maybe")))


@pytest.mark.parametrize(
    "label", [10**30, "9" * 400, "9" * 5000, float("nan"), float("inf"), "nan", "1e5", "\ud800", -(2**40), "1" * 10**6]
)
def test_labels_beyond_all_classes(label: Any, tmp_path: Path) -> None:
    """Numbers of 400 digits, NaN and lone surrogates are errors of one short line."""
    with pytest.raises(ValidationError, match=r"val\.jsonl: row 2: label ") as caught:
        text.load(write(tmp_path, [0, label, 1]), load_context(word_tokenizer(tmp_path / "run")))
    assert len(str(caught.value)) < 1000


def test_tokenizers_that_fail(tmp_path: Path) -> None:
    """A longest input that is no number, and whatever a tokenizer raises, are errors of one line."""
    tokenizer, spec = word_tokenizer(tmp_path / "run"), write(tmp_path, [0, 1, 1, 0])
    for longest in (-5, "many", None, float("nan")):
        tokenizer.model_max_length = longest
        with pytest.raises(ValidationError, match="the tokenizer's model_max_length is "):
            text.load(spec, load_context(tokenizer))
        assert len(text.load(spec.model_copy(update={"max_length": 3}), load_context(tokenizer)).labels) == 4

    class Failing:
        model_max_length = 8

        def __call__(self, *texts: Any, **how: Any) -> Any:
            raise KeyError("vocabulary")

    with pytest.raises(ValidationError, match=r"val\.jsonl: the tokenizer fails: KeyError: 'vocabulary'"):
        text.load(spec, load_context(Failing()))


@pytest.mark.parametrize("source", ["label_names", "beside"])
def test_several_classes_for_one_text(tmp_path: Path, source: str) -> None:
    """Columns of 0 and 1 go by the network's names, lists of names too; such labels say which class is which."""
    names = ("negative", "positive")
    said: dict[str, Any] = {source: names if source == "label_names" else {"classes.npy": names}}
    context = load_context(word_tokenizer(tmp_path / "run"), **said, metric="map")
    (tmp_path / "dev.csv").write_text("text,positive,negative\ngood,1,0\nbad,0,1\ngood bad,1,1\nnone,0,0\n")
    columns = TextSet(text=tmp_path / "dev.csv", label=["positive", "negative"])
    rows = [["positive"], ["negative"], ["negative", "positive"], []]
    texts = ["good", "bad", "good bad", "none"]
    lines = [json.dumps({"text": text_, "label": row}) for text_, row in zip(texts, rows, strict=True)]
    (tmp_path / "dev.jsonl").write_text("\n".join(lines))
    for spec in (columns, TextSet(text=tmp_path / "dev.jsonl")):
        found = text.load(spec, context)
        assert (found.kind, found.labels.tolist()) == ("multilabel", [[0, 1], [1, 0], [1, 1], [0, 0]])
        order = text.class_order(spec, context.network.outline, "map")
        assert order is not None and order.index == {"negative": 0, "positive": 1}
    with pytest.raises(ValidationError, match=r"dev\.csv: label: names 2 columns, a number is in one"):
        text.load(columns, load_context(word_tokenizer(tmp_path / "run"), metric="mse"))
