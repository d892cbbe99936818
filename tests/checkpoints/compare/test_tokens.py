"""Tokens whose numbers differ, in the forms and under the names that libraries give such lists."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
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
from soupcli.files.json_text import TooManyValuesError
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
    ("vocab.json.gz", lambda file, words: file.write_bytes(gzip.compress(json.dumps(numbered(words)).encode()))),
    ("WORDMAP_coco_5_cap_per_img.json", text(lambda words: json.dumps(numbered(words)))),
    ("ppocr_keys_v1.txt", text("\n".join)),
    ("en_dict.txt", text("\n".join)),
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
    assert set(of_torch(tmp_path / "vocab.pt")) == {f"{key}\0{word}" for key in ("itos", "stoi") for word in WORDS}
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


def vocabulary(folder: Path, words: list[str], rows: int = 12, name: str = "emb.weight") -> Path:
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(numbered(words)))
    save_file({name: torch.rand(rows, 3), "body.weight": torch.rand(40, 3)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ("<foo>", "<bar>", True),
        ("[unused7]", "<bar>", False),  # a row that stood for nothing
        ("<|reserved_special_token_7|>", "<|im_start|>", False),
        ("[PAD]", "<pad>", False),  # one token in two spellings
        ("\u0120the", "\u2581the", False),
    ],
)
def test_two_tokens_of_one_number(tmp_path: Path, one: str, other: str, *, refused: bool) -> None:
    """Vocabularies that were extended otherwise: a row of two tokens is refused; renamed and unused ones are not."""
    runs = [vocabulary(tmp_path / name, [*WORDS[:11], word]) for name, word in (("a", one), ("b", other))]
    checkpoints = list(map(open_checkpoint, runs))
    if not refused:
        assert not check_meanings(checkpoints, EVERYTHING)
        return
    with pytest.raises(MixError, match=r"number 11 is the token '<bar>', in .* it is '<foo>': a row of 'emb.weight'"):
        check_meanings(checkpoints, EVERYTHING)
    assert not check_meanings(checkpoints, TensorFilter(exclude=("emb.weight",)))
    (tmp_path / "b/vocab.json").write_text((tmp_path / "a/vocab.json").read_text())  # the hint's first way out
    assert not check_meanings(list(map(open_checkpoint, runs)), EVERYTHING)


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
@pytest.mark.parametrize(("other", "refused"), [("<y>", True), ("<x>", False), ("<X>", False), ("<unused1>", False)])
def test_tokens_added_to_one_vocabulary(tmp_path: Path, file: str, other: str, *, refused: bool) -> None:
    """Two trainings that each added a token of their own gave one row to both, in a list of these alone."""
    runs = []
    for name, token in (("a", "<x>"), ("b", other)):
        (tmp_path / name).mkdir()
        save_file({"emb.weight": torch.zeros(12, 2)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "vocab.txt").write_text("\n".join(WORDS[:11]))
        decoder = {"added_tokens_decoder": {"11": {"content": token}}}
        (tmp_path / name / file).write_text(json.dumps({token: 11} if file.startswith("added") else decoder))
        runs.append(open_checkpoint(tmp_path / name))
    with pytest.raises(MixError, match="number 11 is the token '<y>'") if refused else nullcontext():
        check_meanings(runs, EVERYTHING)


def test_renamed_tokens_of_no_table(tmp_path: Path) -> None:
    """Names that differ say nothing of a layer that merely has more rows than there are tokens."""
    runs = [vocabulary(tmp_path / name, [*WORDS[:11], name], 30, "lin.weight") for name in "ab"]
    assert not check_meanings(list(map(open_checkpoint, runs)), EVERYTHING)


@pytest.mark.parametrize(
    ("weights", "tokens"),
    [
        ("exp/pretrained.pt", "data/lang_char/tokens.txt"),
        ("exp", "data/lang_char/tokens.txt"),
        ("checkpoint-500", "processor/vocab.json"),
        ("final_model", "tokenizer/vocab.json"),
    ],
)
def test_lists_of_a_run(tmp_path: Path, weights: str, tokens: str) -> None:
    """Tokens in a folder of the run, beside that of the weights: those of one run are another's, or it is refused."""
    for name, words in (("a", WORDS), ("b", WORDS), ("c", WORDS[::-1])):
        run = tmp_path / name
        folder = run / weights.partition("/")[0]
        folder.mkdir(parents=True)
        (run / tokens).parent.mkdir(parents=True)
        torch.save({"model": {"emb.weight": torch.randn(len(words), 4)}}, folder / "pretrained.pt")
        lines = "".join(f"{word} {row}\n" for word, row in numbered(words).items())
        (run / tokens).write_text(json.dumps(numbered(words)) if tokens.endswith("json") else lines)
    one, same, other = (open_checkpoint(tmp_path / name / weights) for name in ("a", "b", "c"))
    assert check_meanings([one, same], EVERYTHING) == []
    with pytest.raises(MixError, match=rf"{Path(tokens).name}: the token 'w\d+' is number .* of 'emb.weight'"):
        check_meanings([one, other], EVERYTHING)


def sentencepiece(words: list[str]) -> bytes:
    """A model with these pieces."""
    pieces = [b"\x0a" + bytes([len(word)]) + word.encode() + b"\x15" + bytes(4) for word in words]
    return b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in pieces) + b"\x12\x02\x08\x01"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("count", [12, 3000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_model_of_sentencepiece_in_a_checkpoint(
    tmp_path: Path, kind: Callable[[bytes], Any], count: int, protocol: int
) -> None:
    """Its bytes, short or long and in every protocol, are compared as a file of them is; a list's key is no token."""
    words = [f"w{number}" for number in range(count)]
    for name, pieces in (("a", words), ("b", [words[1], words[0], *words[2:]]), ("c", words)):
        saved = {"model": {"emb.weight": torch.rand(count, 2)}, "tok": {"spm": kind(sentencepiece(pieces))}}
        torch.save(saved, tmp_path / f"{name}.pt", pickle_protocol=protocol)
    a, b, c = (open_checkpoint(tmp_path / f"{name}.pt") for name in "abc")
    with pytest.raises(MixError, match=r"b\.pt: tok\.spm\.vocab: the token 'w0' is number 1"):
        check_meanings([a, b], EVERYTHING)
    assert not check_meanings([a, c], EVERYTHING)


def test_the_key_above_a_token(tmp_path: Path) -> None:
    """A message names the token and the key of its list apart."""
    for name, words in (("a", WORDS), ("b", WORDS[::-1])):
        vocabulary(tmp_path / name, []).joinpath("vocab.json").write_text(json.dumps({"itos": words}))
    with pytest.raises(MixError, match="the token 'w0' of itos is number 11"):
        check_meanings([open_checkpoint(tmp_path / name) for name in "ab"], EVERYTHING)


def test_long_yaml() -> None:
    """YAML that its reader would take seconds for is read line by line if each line has one token."""
    many = [f"word{number:06}" for number in range(40_000)]
    for content in ("\n".join(f"{word}: {row}" for row, word in enumerate(many)), "\n".join(f"- {w}" for w in many)):
        assert of_any("vocab.yaml", content.encode()) == numbered(many)
    with pytest.raises(TooManyValuesError, match="not of one token in each line"):
        of_any("vocab.yaml", ("a:\n" + "\n".join(f"  {word}: 1" for word in many)).encode())
