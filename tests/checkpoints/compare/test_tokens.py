"""Tokens whose numbers differ, in the forms and under the names that libraries give such lists."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.compare.token_lists import of_any, of_merges, of_torch
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from tests.helpers.temporary_modules import module_of

WORDS = [f"w{number}" for number in range(12)]
EVERYTHING = TensorFilter()


class Vocab:
    """The vocabulary of torchtext 0.8: names, numbers, and counts, which number nothing."""

    def __init__(self, words: list[str]) -> None:
        self.freqs = dict(zip(sorted(words), range(40, 60), strict=False))
        self.itos, self.stoi = words, {word: row for row, word in enumerate(words)}


class Compiled:
    """The vocabulary of torchtext 0.12, which is of C++ and pickled as a tuple."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __getstate__(self) -> tuple[object, ...]:
        return "0.0.2", [-1], self.words, []

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.words = state[2]  # type: ignore[assignment]


def numbered(words: list[str]) -> dict[str, int]:
    return {word: row for row, word in enumerate(words)}


def torch_saved(made: Callable[[list[str]], object]) -> Callable[[Path, list[str]], None]:
    return lambda file, words: torch.save(made(words), file)


def text(made: Callable[[list[str]], str]) -> Callable[[Path, list[str]], Any]:
    return lambda file, words: file.write_text(made(words))


def keras(words: list[str]) -> object:
    """The tokenizer of Keras, whose counts number nothing."""
    counts = dict(zip(sorted(words), range(40, 60), strict=False))
    return SimpleNamespace(word_counts=counts, word_index=numbered(words), num_words=None)


LISTS: list[tuple[str, Callable[[Path, list[str]], Any]]] = [
    ("vocab.pt", torch_saved(Vocab)),
    ("vocab.pth", torch_saved(Compiled)),
    ("stoi.pt", torch_saved(numbered)),
    ("tokenizer.pkl", lambda file, words: file.write_bytes(pickle.dumps(keras(words)))),
    ("vocab.yaml", text(lambda words: yaml.safe_dump({"tokens": words}))),
    ("tokens.yml", text(lambda words: yaml.safe_dump(numbered(words)))),
    ("word_index.json", text(lambda words: json.dumps(numbered(words)))),
    ("train_units.txt", text("\n".join)),
    ("entities.dict", text(lambda words: "\n".join(f"{row}\t{word}" for row, word in enumerate(words)))),
    ("merges.txt", text(lambda words: "\n".join(["#version: 0.2", *(f"{word} e" for word in words)]))),
    ("bpe.codes", text(lambda words: "\n".join(f"{word} e 7" for word in words))),
]


@pytest.fixture(autouse=True)
def _module_of_stranger() -> Iterator[None]:
    with module_of("torchtext.vocab", Vocab=Vocab, Compiled=Compiled):
        yield


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(("name", "write"), LISTS, ids=[name for name, _ in LISTS])
def test_lists(tmp_path: Path, name: str, write: Callable[[Path, list[str]], Any], bare: bool) -> None:
    """Equal lists are mixed, those in another order are refused, beside a folder's weights and beside a bare file."""
    for number, words in enumerate((WORDS, WORDS, WORDS[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        tensors = {"a.bias": torch.rand(16), "b.weight": torch.rand(20, 2), "embed.weight": torch.rand(14, 2)}
        save_file(tensors, folder / ("run.safetensors" if bare else "model.safetensors"))
        write(folder / name, words)
    paths = [tmp_path / str(number) / ("run.safetensors" if bare else "") for number in range(3)]
    one, same, moved = map(open_checkpoint, paths)
    assert check_meanings([one, same], EVERYTHING) == []
    with pytest.raises(MixError, match=r"rows of 'embed\.weight' stand for other tokens"):
        check_meanings([one, moved], EVERYTHING)


def test_counts_and_rules_number_nothing(tmp_path: Path) -> None:
    """Counts of words, and merges beside a vocabulary, may differ: the vocabulary says which row is which."""
    torch.save(Vocab(WORDS), tmp_path / "vocab.pt")
    assert set(of_torch(tmp_path / "vocab.pt")) == {f"{key}: {word}" for key in ("itos", "stoi") for word in WORDS}
    assert of_any("vocab.yaml", b"{b: '1', a: '0'}") == {"b": 1, "a": 0}
    assert of_merges(b"#version: 0.2\na b\nb c 7\n") == {"a b": 0, "b c": 1}
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"embed.weight": torch.rand(14, 2)}, folder / "model.safetensors")
        (folder / "vocab.json").write_text(json.dumps(numbered(WORDS)))
        (folder / "merges.txt").write_text("\n".join(["a b", "b c"][:: 1 - 2 * number]))
        (folder / "vocab_stats.json").write_text(json.dumps({"size": number, "unknown": 1 - number}))
        (folder / "stop_words.txt").write_text("\n".join(["of", *WORDS, "in"][:: 1 - 2 * number]))
    check_meanings([open_checkpoint(tmp_path / str(number)) for number in range(2)], EVERYTHING)


@pytest.mark.parametrize("count", [12, 5000])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_tokenizer_as_text(tmp_path: Path, count: int, protocol: int) -> None:
    """A whole tokenizer that lies as text in a file of torch.save, short or long, is compared as one beside it."""
    words = [f"w{number}" for number in range(count)]
    for number, order in enumerate((words, words, words[::-1])):
        tokenizer = json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": numbered(order)}})
        torch.save(
            {"model": {"embed.weight": torch.zeros(count, 1) + number}, "config": {"tokenizer": tokenizer}},
            tmp_path / f"{number}.pt",
            pickle_protocol=protocol,
        )
    one, same, moved = (open_checkpoint(tmp_path / f"{number}.pt") for number in range(3))
    assert check_meanings([one, same], EVERYTHING) == []
    with pytest.raises(MixError, match=rf"config.tokenizer.vocab: the token 'w0' is number {count - 1}"):
        check_meanings([one, moved], EVERYTHING)


@pytest.mark.parametrize(("rows", "refused"), [(5, True), (7, True), (8, False)])
def test_an_embedding_with_further_rows(tmp_path: Path, rows: int, *, refused: bool) -> None:
    """Styles in a sub-folder name the rows of an embedding that has one or two more, for padding."""
    names = ["calm", "sad", "glad", "loud", "low"]
    for number, order in enumerate((names, names[::-1])):
        folder = tmp_path / str(number) / "meta"
        folder.mkdir(parents=True)
        save_file({"style_embed.weight": torch.rand(rows, 2)}, folder.parent / "model.safetensors")
        (folder / "styles.json").write_text(json.dumps(order))
    both = [open_checkpoint(tmp_path / str(number)) for number in range(2)]
    if not refused:
        check_meanings(both, EVERYTHING)
        return
    with pytest.raises(MixError, match=r"rows of 'style_embed.weight' stand for other outputs"):
        check_meanings(both, EVERYTHING)
