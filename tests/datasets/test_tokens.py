"""Perplexity on a text, held against the loop of transformers' documentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from soupcli.datasets import tokens
from soupcli.errors import NetworkError, SoupError, ValidationError
from soupcli.recipe.sets import TokensSet
from tests.helpers import transformers_toys as toys
from tests.helpers.evaluators import evaluators, score
from tests.helpers.load_contexts import load_context

WIDE = {"vocab_size": len(toys.WORDS)}


def gpt2(folder: Path, **options: Any) -> Any:
    """A causal language model with 32 positions, and its tokenizer of whole words."""
    toys.word_tokenizer(folder)
    config = transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=2, n_head=2, **WIDE)
    return toys.saved(transformers.GPT2LMHeadModel(config), folder, **options)


def llama(folder: Path, **options: Any) -> Any:
    """One with rotary positions and a tied head."""
    toys.word_tokenizer(folder)
    config = transformers.LlamaConfig(**toys.SIZES, **WIDE, max_position_embeddings=64, tie_word_embeddings=True)
    return toys.saved(transformers.LlamaForCausalLM(config), folder, **options)


def text(file: Path, words: int, *, seed: int = 0) -> Path:
    """Random words of the vocabulary."""
    known = [word for word in toys.WORDS if word.isalpha()]
    drawn = torch.randint(0, len(known), (words,), generator=torch.Generator().manual_seed(seed))
    file.write_text(" ".join(known[i] for i in drawn.tolist()))
    return file


def documented(model: Any, ids: torch.Tensor, max_length: int, stride: int, *, exact: bool) -> float:
    """The loop of "Perplexity of fixed-length models"; `exact`: each predicted token counted, which it is not there."""
    seq_len = ids.size(1)
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, seq_len, stride):
        end_loc = min(begin_loc + max_length, seq_len)
        trg_len = end_loc - prev_end_loc
        input_ids = ids[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            neg_log_likelihood = model(input_ids, labels=target_ids).loss
        num_valid_tokens = int((target_ids != -100).sum())
        num_loss_tokens = num_valid_tokens - target_ids.size(0)
        if exact:
            num_loss_tokens = int((target_ids[:, 1:] != -100).sum())
        nll_sum += neg_log_likelihood * num_loss_tokens
        n_tokens += num_loss_tokens
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return float(torch.exp(torch.as_tensor(nll_sum / n_tokens)))


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize(
    ("words", "context", "stride"), [(100, 32, None), (100, 16, None), (20, 32, None), (95, 32, 8)]
)
def test_equals_the_documented_loop(make: Any, words: int, context: int, stride: int | None, tmp_path: Path) -> None:
    """Without a stride as it stands there; with one, every predicted token counted once."""
    model = make(tmp_path / "run")
    file = text(tmp_path / "wiki.txt", words)
    spec = {"tokens": file, "context": context, **({"stride": stride} if stride else {})}
    recipe = {"val": {"val": spec}, "batch_size": 1}
    found = score(recipe, tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    ids = tokenizer(file.read_text(), return_tensors="pt")["input_ids"]
    wanted = documented(model, ids, context, stride or context, exact=stride is not None)
    assert found.value == pytest.approx(wanted, rel=1e-6)
    assert (found.selecting, found.higher_is_better) == ("perplexity", False)
    in_windows = words - 1 if stride else words - math.ceil(words / context)
    assert found.metrics["perplexity"].n == in_windows


def test_one_token_left_over(tmp_path: Path) -> None:
    """A last window of one token predicts nothing (the documented loop ends in a NaN there): it is left out."""
    gpt2(tmp_path / "run")
    found = []
    for words in (32, 33):
        (tmp_path / "wiki.txt").write_text(" ".join(["good", "film"] * 17)[: 5 * words - 1])
        recipe = {"val": {"val": {"tokens": tmp_path / "wiki.txt", "context": 16}}}
        found.append(score(recipe, tmp_path / "run").metrics)
    assert found[0] == found[1]
    assert found[0]["perplexity"].n == 30


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_batch_size(batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows in one batch, a shorter last one among them, score as they do alone; so do parts of a batch."""
    gpt2(tmp_path / "run")
    recipe: dict[str, Any] = {"val": {"val": {"tokens": text(tmp_path / "wiki.txt", 75), "context": 16, "stride": 6}}}
    alone = score(recipe | {"batch_size": 1}, tmp_path / "run", cache=tmp_path / "1")
    together = score(recipe | {"batch_size": batch_size}, tmp_path / "run", cache=tmp_path / "2")
    assert torch.allclose(together.outcomes["perplexity"], alone.outcomes["perplexity"], rtol=1e-6)
    monkeypatch.setattr(tokens, "MAX_LOGITS", 2 * 16 * len(toys.WORDS))
    parts = score(recipe | {"batch_size": batch_size}, tmp_path / "run", cache=tmp_path / "3")
    assert torch.allclose(parts.outcomes["perplexity"], alone.outcomes["perplexity"], rtol=1e-6)


@given(length=st.integers(2, 80), context=st.integers(2, 20), stride=st.integers(1, 20))
def test_windows(length: int, context: int, stride: int) -> None:
    """No window is longer than the context; where they overlap, each token but the first is predicted once."""
    stride = min(stride, context)
    starts, ends, predicted = (part.tolist() for part in tokens.windows(length, context, stride))
    assert all(end - start <= context for start, end in zip(starts, ends, strict=True))
    covered = [p for end, count in zip(ends, predicted, strict=True) for p in range(end - count, end)]
    first = {0} if stride < context else set(range(0, length, context))
    assert covered == [p for p in range(length) if p not in first]
    assert all(end - count > start for start, end, count in zip(starts, ends, predicted, strict=True))


def test_batches() -> None:
    """Targets are the tokens that follow; what is not predicted, and what fills up a window, has none."""
    starts, ends, predicted = tokens.windows(7, 4, 2)
    made = tokens.TokenWindows(torch.arange(10, 17), starts, ends, predicted, "")
    assert made.kind == "tokens"
    batch = made.batch(torch.tensor([0, 2]), torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13], [14, 15, 16, 16]]
    assert batch["targets"].tolist() == [[11, 12, 13, -100], [-100, 16, -100, -100]]


class Counting:
    """A tokenizer that counts how often it is asked, and for what."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, asked: str, **options: Any) -> dict[str, list[int]]:
        self.texts.append(asked)
        return {"input_ids": list(range(len(asked)))}


def test_tokenised_once(tmp_path: Path) -> None:
    """The whole text goes through the tokenizer in one piece, every byte of it as it stands."""
    (tmp_path / "wiki.txt").write_bytes("é = 1\r\n\r\n\ttwo ".encode())
    tokenizer = Counting()
    made = tokens.load(TokensSet(tokens=tmp_path / "wiki.txt"), load_context(tokenizer))
    assert tokenizer.texts == ["é = 1\r\n\r\n\ttwo "]
    assert int(made.labels.sum()) == len(tokenizer.texts[0]) - 1


def test_no_warning_of_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That the text is longer than the network's context is what windows are for: nothing is said."""
    tokenizer = toys.bert_tokenizer(tmp_path / "run")
    tokens.load(TokensSet(tokens=text(tmp_path / "wiki.txt", 50), context=12), load_context(tokenizer))
    assert not caplog.records


def test_fingerprint(tmp_path: Path) -> None:
    """It changes with the text and the windows, not with the file's name."""
    file, other = text(tmp_path / "a.txt", 20), text(tmp_path / "b.txt", 20)
    spec = TokensSet(tokens=file, context=8)
    assert tokens.fingerprint(spec) == tokens.fingerprint(TokensSet(tokens=other, context=8))
    changed = [TokensSet(tokens=file, context=9), TokensSet(tokens=file, context=8, stride=4)]
    changed.append(TokensSet(tokens=text(tmp_path / "c.txt", 20, seed=1), context=8))
    assert len({tokens.fingerprint(made) for made in (spec, *changed)}) == 4


@pytest.mark.parametrize(
    ("content", "context", "problem"),
    [
        (b"good", 32, "wiki.txt: has 1 tokens, at least 2 are needed"),
        (b"", 32, "wiki.txt: has 0 tokens"),
        (b"good \xff", 32, "wiki.txt: not UTF-8 at byte 5"),
        (None, 32, "wiki.txt: no such file"),
    ],
)
def test_errors(content: bytes | None, context: int, problem: str, tmp_path: Path) -> None:
    """A text with nothing to predict, a file that is no text."""
    gpt2(tmp_path / "run")
    if content is not None:
        (tmp_path / "wiki.txt").write_bytes(content)
    with pytest.raises(ValidationError, match=problem):
        score({"val": {"val": {"tokens": tmp_path / "wiki.txt", "context": context}}}, tmp_path / "run")


def test_networks_that_predict_no_tokens(tmp_path: Path) -> None:
    """A classifier gives no logits of tokens; a network without a tokenizer cannot read; neither fits coefficients."""
    toys.gpt2(tmp_path / "run")
    recipe: dict[str, Any] = {"val": {"val": {"tokens": text(tmp_path / "wiki.txt", 50), "context": 16}}}
    with pytest.raises(SoupError, match=r"the network gives \[4, 2\] for windows \[4, 16\]"):
        score(recipe, tmp_path / "run")
    with pytest.raises(ValidationError, match="fitted on labelled examples, which a tokens set does not show"):
        evaluators(recipe, tmp_path / "run").labelled("val")
    for file in (tmp_path / "run").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(NetworkError, match="run holds no tokenizer"):
        score(recipe, tmp_path / "run")


def test_context_beyond_the_positions(tmp_path: Path) -> None:
    """A network with fewer positions than the context has windows of these, and says so."""
    gpt2(tmp_path / "run")
    spec, said = TokensSet(tokens=text(tmp_path / "wiki.txt", 90)), list[str]()
    tokenizer = toys.word_tokenizer(tmp_path / "run")
    cut = tokens.load(spec, load_context(tokenizer, longest_input=32, warn=said.append))
    asked = tokens.load(spec.model_copy(update={"context": 32}), load_context(tokenizer, longest_input=32))
    assert torch.equal(cut.starts, asked.starts)
    assert torch.equal(cut.ends, asked.ends)
    assert said == [f"{spec.tokens}: windows of 32 tokens, not 1024: the network has 32 positions"]
    found = score({"val": {"val": {"tokens": spec.tokens}}}, tmp_path / "run")
    wanted = score({"val": {"val": {"tokens": spec.tokens, "context": 32}}}, tmp_path / "run")
    assert found.value == wanted.value
