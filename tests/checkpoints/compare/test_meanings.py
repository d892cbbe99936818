"""Rows that stand for other tokens or classes are not averaged; other differences of the files are named."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from typing import TYPE_CHECKING

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare import token_lists, tokens
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.formats.class_lists import MOST_LOOKED_AT, other_lists
from soupcli.checkpoints.formats.numpy_names import read_pickle
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError, NetworkError
from soupcli.networks.libraries.transformers import label_names
from soupcli.recipe.networks import TransformersNetwork
from soupcli.run.caveats import caveats

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Ran

EVERYTHING = TensorFilter()
WORDS = [f"w{number}" for number in range(12)]


def test_added_tokens_beside_one_vocabulary(tmp_path: Path) -> None:
    """One vocabulary says nothing of the tokens that each run has added, but one tokenizer.json does."""
    runs = []
    for name, added_words in (("a", ["x", "y"]), ("b", ["y", "x"])):
        tokens = json.dumps({word: 10 + row for row, word in enumerate(added_words)})
        runs.append(run(tmp_path / name, vocab_json="{}", added_tokens_json=tokens))
    with pytest.raises(MixError, match="the token 'x' is number 11"):
        check(runs[0], runs[1])
    for one in runs:
        (one / "tokenizer.json").write_text(word_level(WORDS))
    check(runs[0], runs[1])


def test_too_many_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more tokens than any tokenizer has is not read, and named."""
    monkeypatch.setattr(token_lists, "MOST_TOKENS", 10)
    monkeypatch.setattr(token_lists, "MOST_VALUES", 12)
    for name, texts in (
        ("vocab_txt", ("\n".join(WORDS), "\n".join(WORDS[::-1]))),
        ("tokenizer_json", (word_level(WORDS), word_level(WORDS[::-1]))),
    ):
        one, two = (run(tmp_path / f"{name}{number}", **{name: text}) for number, text in enumerate(texts))
        opened = [open_checkpoint(one), open_checkpoint(two)]
        [note] = check_meanings(opened, EVERYTHING)
        assert str(one / name.replace("_", ".")) in note and f"tokens of {one} and {two} are not compared" in note
        monkeypatch.setattr(tokens, "MAX_BYTES", 10)
        assert "has more than 10 bytes" in check_meanings(opened, EVERYTHING)[0]
        monkeypatch.setattr(tokens, "MAX_BYTES", 10_000)


def run(folder: Path, **files: str) -> Path:
    """A folder with embeddings of 12 tokens, a head of 3 classes, and files."""
    folder.mkdir()
    tensors = {"emb.weight": torch.rand(12, 4), "head.weight": torch.rand(3, 4), "type_embed.weight": torch.rand(3, 4)}
    save_file(tensors, folder / "model.safetensors")
    for name, text in files.items():
        file = folder / name.replace("_json", ".json").replace("_txt", ".txt")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return folder


def check(one: Path, two: Path, selection: TensorFilter = EVERYTHING) -> None:
    check_meanings([open_checkpoint(one), open_checkpoint(two)], selection)


def word_level(words: list[str]) -> str:
    return json.dumps({"model": {"vocab": {word: row for row, word in enumerate(words)}}, "added_tokens": []})


def unigram(words: list[str]) -> str:
    return json.dumps({"model": {"vocab": [[word, -1.0] for word in words]}})


def added(words: list[str]) -> str:
    tokens = [{"id": row, "content": word} for row, word in enumerate(words)]
    return json.dumps({"model": {"vocab": {}}, "added_tokens": tokens})


def sentencepiece(words: list[str]) -> str:
    return "".join(f"\n{chr(len(word) + 2)}\n{chr(len(word))}{word}" for word in words) + "\x12\x00"


VOCABULARIES: dict[str, tuple[str, Callable[[list[str]], str]]] = {
    "word level": ("tokenizer_json", word_level),
    "unigram": ("tokenizer_json", unigram),
    "added": ("tokenizer_json", added),
    "vocab.json": ("vocab_json", lambda words: json.dumps({word: row for row, word in enumerate(words)})),
    "vocab.txt": ("vocab_txt", "\n".join),
    "fairseq": ("dict_txt", lambda words: "\n".join(f"{word} 7" for word in words)),
    "added_tokens.json": ("added_tokens_json", lambda words: json.dumps({w: row for row, w in enumerate(words)})),
    "sentencepiece": ("spiece.model", sentencepiece),
    "sentencepiece of Marian": ("source.spm", sentencepiece),
    "its list": ("spm.vocab", lambda words: "\n".join(f"{word}\t-{row}.5" for row, word in enumerate(words))),
    "tiktoken of Llama 3": ("tokenizer.model", lambda words: "\n".join(f"{w} {row}" for row, w in enumerate(words))),
    "list in JSON": ("vocab_json", json.dumps),
    "back": ("vocab_json", lambda words: json.dumps(dict(enumerate(words)))),
    "RWKV": ("rwkv_vocab_txt", lambda words: "\n".join(f"{row} {word} 2" for row, word in enumerate(words))),
    "table": ("vocab.csv", lambda words: "token,id\n" + "\n".join(f"{w},{row}" for row, w in enumerate(words))),
    "slow": (
        "tokenizer_config_json",
        lambda words: json.dumps({"added_tokens_decoder": {row: {"content": w} for row, w in enumerate(words)}}),
    ),
    "AllenNLP": ("vocabulary/tokens_txt", "\n".join),
    "module of sentence-transformers": ("0_Words/whitespacetokenizer_config_json", lambda w: json.dumps({"vocab": w})),
    "pipeline of diffusers": (
        "tokenizer/vocab_json",
        lambda words: json.dumps({w: row for row, w in enumerate(words)}),
    ),
    "Whisper": ("assets/multilingual.tiktoken", lambda words: "\n".join(f"{w} {row}" for row, w in enumerate(words))),
}


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_tokens(tmp_path: Path, kind: str) -> None:
    """Two tokens that changed places are refused, naming both numbers; further tokens in one are not."""
    name, text = VOCABULARIES[kind]
    a = run(tmp_path / "a", **{name: text(WORDS)})
    swapped = [*WORDS[:3], WORDS[4], WORDS[3], *WORDS[5:]]
    b = run(tmp_path / "b", **{name: text(swapped)})
    with pytest.raises(MixError, match=r"the token 'w3( 2)?'( of \w+)? is number 4, .* it is 3: rows of 'emb\.weight'"):
        check(a, b)
    check(a, b, TensorFilter(exclude=("emb.*",)))
    check(a, run(tmp_path / "c", **{name: text([*WORDS, "more"])}))
    check(a, run(tmp_path / "d"))
    check(a, run(tmp_path / "e", **{name: "[" * 9000}))


@pytest.mark.parametrize("form", ["{}_vocab.txt", "vocab_{}.txt", "{}.vocab", "{}-tokens.txt"])
def test_tokens_of_each_file(tmp_path: Path, form: str) -> None:
    """A list of tokens with the name of the weights beside it is theirs alone."""
    for name, words in (("run", WORDS), ("run_3", WORDS[::-1]), ("same", WORDS)):
        torch.save({"emb.weight": torch.rand(12, 2)}, tmp_path / f"{name}.pt")
        (tmp_path / form.format(name)).write_text("\n".join(words))
    with pytest.raises(MixError, match=r"the token 'w0' is number 11, .* it is 0|classes are w11"):
        check(tmp_path / "run.pt", tmp_path / "run_3.pt")
    check(tmp_path / "run.pt", tmp_path / "same.pt")


def test_tokens_of_languages(tmp_path: Path) -> None:
    """Each language of a vocabulary has numbers of its own, as those of MMS have."""
    texts = [json.dumps({"deu": {w: n for n, w in enumerate(words)}}) for words in (WORDS, WORDS[::-1])]
    a, b = (run(tmp_path / name, vocab_json=text) for name, text in zip("ab", texts, strict=True))
    with pytest.raises(MixError, match=r"the token 'w0' of deu is number 11, .* it is 0"):
        check(a, b)


def test_languages_of_one_vocabulary(tmp_path: Path) -> None:
    """Heads for two languages of one vocabulary have rows for other letters, unless both number them alike."""
    texts = {"deu": WORDS, "fra": WORDS[::-1], "ita": WORDS}
    vocabulary = json.dumps({name: {word: row for row, word in enumerate(words)} for name, words in texts.items()})
    a, b, c = (
        run(tmp_path / name, vocab_json=vocabulary, tokenizer_config_json=json.dumps({"target_lang": name}))
        for name in texts
    )
    with pytest.raises(MixError, match=r"the token 'w0' is number 11, .* it is 0"):
        check(a, b)
    check(a, c)


@pytest.mark.parametrize(
    ("file", "key"),
    [("config.json", "phoneme_id_map"), ("config.yaml", "token_list"), ("hparams.json", "symbol_map")],
)
def test_vocabularies_in_settings(tmp_path: Path, file: str, key: str) -> None:
    """Settings that number tokens (Piper's, ESPnet's) are compared as tokenizers are; a longer list is a sibling."""
    rows = {"a": WORDS[:8], "b": [*WORDS[:6], "w7", "w6"], "longer": WORDS[:9], "same": WORDS[:8]}
    for name, words in rows.items():
        value = words if key == "token_list" else {word: [row] for row, word in enumerate(words)}
        folder = run(tmp_path / name)
        (folder / file).write_text(json.dumps({"lr": name, "data": {key: value}}))
    with pytest.raises(MixError, match=rf"data.{key}: the token 'w6' is number 7, .* it is 6"):
        check(tmp_path / "a", tmp_path / "b")
    for name in ("longer", "same"):
        check(tmp_path / "a", tmp_path / name)


def test_instruments(tmp_path: Path) -> None:
    """Modules of a separator that are numbered as its instruments are named are noted if these are exchanged."""
    for name, stems in (("a", "vocals, bass, drums, other"), ("b", "bass, vocals, drums, other")):
        (tmp_path / name).mkdir()
        torch.save({f"masks.{at}.0.weight": torch.rand(3, 2) for at in range(4)}, tmp_path / name / "model.pt")
        (tmp_path / name / "config.yaml").write_text(f"training:\n  instruments: [{stems}]\n  lr: {len(name)}\n")
    [note] = check_meanings([open_checkpoint(tmp_path / name) for name in "ab"], EVERYTHING)
    assert "training.instruments lists bass, vocals" in note and "'masks.*' are the modules of these" in note


def test_pieces_beside_a_vocabulary(tmp_path: Path) -> None:
    """If vocab.json numbers the tokens, the order of pieces and merges says nothing of rows."""
    files = {"vocab_json": json.dumps({word: row for row, word in enumerate(WORDS)})}
    a = run(tmp_path / "a", **files, **{"source.spm": sentencepiece(WORDS), "merges.txt": "a b\nc d"})
    b = run(tmp_path / "b", **files, **{"source.spm": sentencepiece(WORDS[::-1]), "merges.txt": "c d\na b"})
    check(a, b)


@pytest.mark.parametrize(
    "made",
    [
        lambda words: {"vocab": words},
        lambda words: {"hyper_parameters": {"stoi": {word: row for row, word in enumerate(words)}}},
        lambda words: {"chars": "".join(chr(97 + WORDS.index(word)) for word in words)},
    ],
)
def test_tokens_in_the_file(tmp_path: Path, made: Callable[[list[str]], dict[str, object]]) -> None:
    """A vocabulary inside the file counts too, also if each has a token that the other lacks."""
    swapped, fewer = [*WORDS[:3], WORDS[4], WORDS[3], *WORDS[5:]], WORDS[1:]
    for name, words in (("a", WORDS), ("b", swapped), ("c", fewer), ("same", WORDS)):
        torch.save({"model": {"emb.weight": torch.rand(12, 2)}, **made(words)}, tmp_path / f"{name}.pt")
    for other in "bc":
        with pytest.raises(MixError, match=r"rows of 'emb\.weight' stand for other tokens"):
            check(tmp_path / "a.pt", tmp_path / f"{other}.pt")
    check(tmp_path / "a.pt", tmp_path / "same.pt")


def test_settings_of_modules(tmp_path: Path) -> None:
    """Files in sub-folders, such as the pooling of sentence-transformers, are compared as those beside the weights."""
    runs = [run(tmp_path / how, **{"1_Pooling/config_json": json.dumps({"mode": how})}) for how in ("mean", "cls")]
    [said] = caveats([open_checkpoint(one) for one in runs], EVERYTHING)
    assert '1_Pooling/config.json: mode ("mean" | "cls")' in said


def labels(*names: str) -> str:
    return json.dumps({"id2label": {str(row): name for row, name in enumerate(names)}})


def test_tokens_beside_files(tmp_path: Path) -> None:
    """A vocabulary beside a file of weights, or in the folder of its run, counts as one in the ingredient's folder."""
    for name, words in (("a", "cat dog eel"), ("b", "dog cat eel"), ("same", "cat dog eel")):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        torch.save({"emb.weight": torch.rand(3, 2)}, tmp_path / name / "checkpoints/last.pt")
        (tmp_path / name / "vocab.txt").write_text(words.replace(" ", "\n"))
    a, b, same = (tmp_path / name / "checkpoints/last.pt" for name in ("a", "b", "same"))
    with pytest.raises(MixError, match=r"b/vocab\.txt: the token 'cat' is number 1"):
        check(a, b)
    check(a, same)


def test_classes(tmp_path: Path) -> None:
    """A head whose classes stand in another order is refused with the order that would do; other spellings are one."""
    a = run(tmp_path / "a", config_json=labels("entailment", "neutral", "not-true"))
    b = run(tmp_path / "b", config_json=labels("NOT_TRUE", "Entailment", "neutral"))
    with pytest.raises(
        MixError, match=r"classes are NOT_TRUE, .* are entailment, .* rows of 'head\.weight'"
    ) as refused:
        check(a, b)
    assert "into the order [1, 2, 0]" in str(refused.value.hint)
    assert "--exclude 'head.*'" in str(refused.value.hint)
    check(a, b, TensorFilter(exclude=("head.*",)))
    check(a, run(tmp_path / "c", config_json=labels("Entailment", "NEUTRAL", "not true")))
    check(a, run(tmp_path / "d", config_json=labels("LABEL_0", "LABEL_1", "LABEL_2")))
    check(a, run(tmp_path / "e", config_json=labels("entail", "neutral", "not-true-at-all")))
    with pytest.raises(MixError, match="classes are yes, no, perhaps") as refused:
        check(a, run(tmp_path / "f", config_json=labels("yes", "no", "perhaps")))
    assert "under other names" in str(refused.value.hint)


def test_timm(tmp_path: Path) -> None:
    """Timm lists the names of classes in another key."""
    a = run(tmp_path / "a", config_json=json.dumps({"label_names": ["cat", "dog", "owl"]}))
    b = run(tmp_path / "b", config_json=json.dumps({"label_names": ["dog", "cat", "owl"]}))
    with pytest.raises(MixError, match="classes are"):
        check(a, b)


@pytest.mark.parametrize("text", ["{", "[]", '{"id2label": 3}', '{"id2label": {"a": "b"}}', '{"id2label": {"0": [1]}}'])
def test_broken(tmp_path: Path, text: str) -> None:
    """A configuration that says nothing about classes is none of this check's matters."""
    check(run(tmp_path / "a", config_json=labels("x", "y", "z")), run(tmp_path / "b", config_json=text))


def test_uniform(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """Uniform refuses what inspect names, and warns of what may be harmless."""
    a = run(tmp_path / "a", tokenizer_json=word_level(WORDS), config_json=json.dumps({"image_size": 3}))
    b = run(tmp_path / "b", tokenizer_json=word_level(WORDS[::-1]), config_json=json.dumps({"image_size": 4}))
    refused = soup("uniform", "--ckpts", a, b, "--out", tmp_path / "out")
    assert refused.code == 2
    assert "tokenizer" in refused.stderr
    looked = soup("inspect", "--ckpts", a, b).stdout
    assert "cannot be mixed" in looked
    warned = soup("uniform", "--ckpts", a, b, "--exclude", "emb.*", "--out", tmp_path / "out")
    assert warned.code == 0
    assert "config.json: image_size (3 | 4)" in warned.stderr
    assert "image_size" in json.loads((tmp_path / "out/soup.json").read_text())["warnings"][0]


ORDER = ["cat", "dog", "eel"]
MOVED = ["dog", "cat", "eel"]


def rows_of(names: list[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config_json", lambda names: {"label2id": rows_of(names)}),
        ("config_json", lambda names: {"id2label": dict(enumerate(ORDER)), "label2id": rows_of(names)}),
        ("config_json", lambda names: {"class_names": names}),
        ("config_json", lambda names: {"pretrained_cfg": {"label_names": names}}),
        (
            "config_json",
            lambda names: {"id2label": {str(row): f"LABEL_{ORDER.index(n)}" for row, n in enumerate(names)}},
        ),
        ("label_map_json", rows_of),
        ("mapping_json", rows_of),
        ("args_json", lambda names: {"data": {"class_names": names}}),
        ("label_list_json", lambda names: [{"id": row, "name": name} for row, name in enumerate(names)]),
        ("class_names_json", lambda names: names),
    ],
)
def test_wherever_the_order_is_said(tmp_path: Path, file: str, said: Callable[[list[str]], object]) -> None:
    """label2id, nested configurations, lists beside the weights: a head in another order is refused."""
    a, b, same = (
        run(tmp_path / name, **{file: json.dumps(said(names))})
        for name, names in (("a", ORDER), ("b", MOVED), ("same", ORDER))
    )
    with pytest.raises(MixError, match=r"rows of 'head\.weight' stand for other (classes|outputs)"):
        check(a, b)
    check(a, same)


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("data.yaml", "nc: 3\nnames: [{0}, {1}, {2}]"),
        ("data.yml", "names:\n  0: {0}\n  1: {1}\n  2: {2}"),
        ("coco.names", "{0}\n{1}\n{2}\n"),
        ("labels_txt", "0 {0}\n1: {1}\n2\t{2}"),
        ("labels_txt", "{0} 0\n{1} 1\n{2} 2\n"),
        ("classes_txt", "{0},{1},{2}"),
        ("classes.csv", "id,name\r\n0,{0}\r\n1,{1}\r\n2,{2}\r\n"),
        ("classes.csv", "label_id,name,weight\n0,{0},0.5\n1,{1},1.5\n2,{2},2.5\n"),
        ("classes.csv", "name,code\n{0},1\n{1},18\n{2},90\n"),
    ],
)
def test_lists_of_other_tools(tmp_path: Path, file: str, form: str) -> None:
    """YOLO's names, lists with numbers, tables: an order beside the weights counts in whatever form it is written."""
    a, b, same = (
        run(tmp_path / name, **{file: form.format(*names)})
        for name, names in (("a", ORDER), ("b", MOVED), ("c", ORDER))
    )
    with pytest.raises(MixError, match=r"classes are dog, cat, eel, those of .*a are cat, dog, eel"):
        check(a, b)
    check(a, same)


@pytest.mark.parametrize("text", ["[" * 60_000, "- " * 30_000, "{a: " * 15_000, "? " * 30_000, "&a [*a]", "["])
def test_yaml_that_is_no_list(tmp_path: Path, text: str) -> None:
    """A stranger's YAML that would overflow the stack, or is broken, is passed over."""
    check(
        run(tmp_path / "a", **{"data.yaml": f"names: {text}", "names.yaml": text}),
        run(tmp_path / "b", **{"data.yaml": "names: [a, b, c]"}),
    )


class Encoder:
    """What scikit-learn's LabelEncoder keeps."""

    def __init__(self, names: list[str], kind: object = None) -> None:
        self.classes_ = np.array(names, dtype=kind)  # type: ignore[call-overload]


def synsets(names: list[str]) -> str:
    return "".join(f"n0000000{sorted(names).index(name)} {name}\n" for name in names)


WRITERS: dict[str, tuple[str, Callable[[Path, list[str]], object]]] = {
    "npy": ("classes.npy", lambda file, names: np.save(file, np.array(names))),
    "npy of objects": ("classes.npy", lambda file, names: np.save(file, np.array(names, dtype=object))),
    "encoder": ("label_encoder.pkl", lambda file, names: file.write_bytes(pickle.dumps(Encoder(names)))),
    "old pickle": ("encoder.pkl", lambda file, names: file.write_bytes(pickle.dumps(Encoder(names, object), 2))),
    "scalars": ("classes.pickle", lambda file, names: file.write_bytes(pickle.dumps(list(np.array(names))))),
    "joblib": ("le.joblib", lambda file, names: joblib.dump({"n": np.ones(3), "le": Encoder(names), "m": 1}, file)),
    "joblib of objects": ("le.joblib", lambda file, names: joblib.dump({"le": Encoder(names, object)}, file)),
    "torch": ("class_to_idx.pt", lambda file, names: torch.save(rows_of(names), file)),
    "card": ("README.md", lambda file, names: file.write_text(f"---\nid2label: {dict(enumerate(names))}\n---\nText")),
    "pbtxt": (
        "label_map.pbtxt",
        lambda file, names: file.write_text(
            "".join(f"item {{\n  id: {row + 1}\n  name: '{name}'\n}}\n" for row, name in enumerate(names))
        ),
    ),
    "toml": ("train.toml", lambda file, names: file.write_text(f"[data]\nclasses = {json.dumps(names)}\n")),
    "a list of any name": ("birds.txt", lambda file, names: file.write_text("\n".join(names))),
    "one of ImageNet": ("synset_words.txt", lambda file, names: file.write_text(synsets(names))),
    "no ending": ("labels", lambda file, names: file.write_text("\n".join(names))),
    "Keras": (
        "imagenet_class_index.json",
        lambda file, names: file.write_text(json.dumps({row: [name, "x"] for row, name in enumerate(names)})),
    ),
    "numbers from 1": (
        "cat_to_name.json",
        lambda file, names: file.write_text(json.dumps({row + 1: name for row, name in enumerate(names)})),
    ),
    "a table": (
        "labels.csv",
        lambda file, names: file.write_text("name,id,count\n" + "".join(f"{n},{r},7\n" for r, n in enumerate(names))),
    ),
    "SpeechBrain": (
        "label_encoder.txt",
        lambda file, names: file.write_text(
            "".join(f"'{n}' => {r}\n" for r, n in enumerate(names)) + "=====\n'n' => 0"
        ),
    ),
    "COCO, from 1": (
        "categories.json",
        lambda file, names: file.write_text(json.dumps([{"id": r + 1, "name": n} for r, n in enumerate(names)])),
    ),
    "a small map in another file": (
        "meta.json",
        lambda file, names: file.write_text(json.dumps({"data": {"label_map": rows_of(names)}})),
    ),
    "targets": ("args.json", lambda file, names: file.write_text(json.dumps({"data": {"pathologies": names}}))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_lists_in_any_file(tmp_path: Path, kind: str) -> None:
    """Whatever the file and its form: rows of a head whose names stand in another order there are refused."""
    name, write = WRITERS[kind]
    a, b, same = (run(tmp_path / one) for one in ("a", "b", "same"))
    for folder, names in ((a, ORDER), (b, MOVED), (same, ORDER)):
        write(folder / name, names)
    with pytest.raises(MixError, match=r"rows of 'head\.weight' stand for other"):
        check(a, b)
    check(a, same)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("{run}/best.pt", "{run}/classes.json"),
        ("{run}/checkpoints/best.ckpt", "{run}/hparams.yaml"),
        ("{run}/weights/best.pt", "{run}/args.yaml"),
        ("{run}/checkpoints/last.ckpt", "{run}/.hydra/config.yaml"),
        ("all/{run}.pth", "all/{run}_classes.json"),
        ("all/{run}.pth", "all/{run}.json"),
        ("{run}/best.pt", "{run}/meta/classes.txt"),
        ("{run}/weights/best.pt", "{run}/data/lang/labels.json"),
        ("{run}/checkpoints/last.ckpt", "{run}/dataset/data.yaml"),
        ("{run}/best.pt", "{run}/targets.txt"),
        ("{run}/best.pt", "{run}/dataset/dataset_info.json"),
        ("{run}/checkpoints/last.ckpt", "{run}/genres.json"),
    ],
)
def test_lists_beside_files(tmp_path: Path, weights: str, said: str) -> None:
    """A list beside a file of weights, in the folder of its run, or under the file's own name counts as any other."""
    for name, names in (("a", ORDER), ("b", MOVED), ("c", ORDER)):
        file, list_ = (tmp_path / one.format(run=name) for one in (weights, said))
        for one in (file, list_):
            one.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"fc.weight": torch.rand(3, 4)}, file)
        is_text = said.endswith(".txt")
        list_.write_text("\n".join(names) if is_text else json.dumps(names if "s.json" in said else {"names": names}))
    with pytest.raises(MixError, match=r"rows of 'fc\.weight' stand for other (classes|outputs)"):
        check(tmp_path / weights.format(run="a"), tmp_path / weights.format(run="b"))
    check(tmp_path / weights.format(run="a"), tmp_path / weights.format(run="c"))


def test_lists_that_name_no_rows(tmp_path: Path) -> None:
    """Orders of other things, lists of other lengths and broken files say nothing; the hint names the way out."""
    runs = [run(tmp_path / one) for one in "ab"]
    for folder, names in zip(runs, (ORDER, MOVED), strict=True):
        (folder / "seeds.json").write_text(json.dumps({"a": {"seed": names.index("cat"), "fold": names.index("dog")}}))
        (folder / "args.json").write_text(json.dumps({"datasets": names, "target_modules": names, "files": names}))
        (folder / "hparams.json").write_text(json.dumps({"seed": 7 * names.index("cat"), "epochs": 2, "n": 1}))
        (folder / "four.txt").write_text("\n".join([*names, "ox"]))
        (folder / "classes.npy").write_bytes(b"\x93NUMPY\x01\0\x10\0{'descr': " + bytes(names[0], "ascii"))
        (folder / "le.joblib").write_bytes(pickle.dumps(Encoder(names))[:-9])
    check(runs[0], runs[1])
    for folder, names in zip(runs, (ORDER, MOVED), strict=True):
        (folder / "genres.txt").write_text("\n".join(names))
    with pytest.raises(MixError, match=r"genres\.txt lists dog, cat, eel, that of .*a lists cat, dog, eel") as refused:
        check(runs[0], runs[1])
    assert "if the list is of something else, write one order into both" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("args.json", '{{"train_aug": ["{0}", "{1}", "{2}"], "freeze": ["{0}", "{1}", "{2}"]}}'),
        ("hparams.yaml", "loss: {{terms: [{0}, {1}, {2}]}}\ntrainer: {{log: [{0}, {1}, {2}]}}"),
        ("README.md", "---\nbase_model: [{0}, {1}, {2}]\n---\n"),
        ("results.json", '{{"ranking": ["{0}", "{1}", "{2}"]}}'),
        ("all_results.json", '{{"{0}": 0, "{1}": 1, "{2}": 2}}'),
        ("params.json", '{{"{0}": 0, "{1}": 1, "{2}": 2}}'),
        ("mixed.json", '{{"first": ["{0}.jpg", "{1}.jpg", "{2}.jpg"]}}'),
        ("train.txt", "/data/{0}\n/data/{1}\n/data/{2}\n"),
        ("setup.txt", "{0}==1.2\n{1}>=0\n{2} @ git+https://x.org/y"),
        ("requirements.txt", "{0}\n{1}\n{2}\n"),
        ("class_weights.csv", "class,weight\n{0},0.25\n{1},0.5\n{2},2.5\n"),
        ("label_distribution.json", '{{"{0}": 0, "{1}": 1, "{2}": 2}}'),
        ("val/labels.txt", "{0}\n{1}\n{2}\n"),
        ("predictions/classes.csv", "name,id\n{0},0\n{1},1\n{2},2\n"),
        ("wandb/run-1/labels.json", '["{0}", "{1}", "{2}"]'),
        ("predict_results_mnli.txt", "index\tprediction\n0\t{0}\n1\t{1}\n2\t{2}\n"),
        ("train_names.txt", "{0}\n{1}\n{2}\n"),
        ("per_class_accuracy.json", '{{"{0}": 0, "{1}": 1, "{2}": 2}}'),
        ("hardest_classes.json", '["{0}", "{1}", "{2}"]'),
        ("machines.txt", "{0}\n{1}\n{2}\n"),
        ("data/val_labels.csv", "id,label\n1,{0}\n2,{1}\n3,{2}\n"),
        ("data/metadata.json", '{{"columns": ["{0}", "{1}", "{2}"]}}'),
        ("per_class.csv", "class,f1,support\n{0},0.91,10\n{1},0.52,7\n{2},0.33,5\n"),
        ("classes.csv", "class,errors\n{0},12\n{1},7\n{2},5\n"),
        ("map_per_class.txt", "{0}: 0.91\n{1}: .5\n{2}: 33%\n"),
        ("per_class.txt", "class hits\n{0} 19/20\n{1} 7/20\n{2} 5/20\n"),
        ("top_errors.json", '["{0}", "{1}", "{2}"]'),
        ("classes_by_f1.json", '["{0}", "{1}", "{2}"]'),
        ("metrics_rank.json", '{{"{0}": 0, "{1}": 1, "{2}": 2}}'),
        ("swa_log.json", '{{"averaged": ["{0}", "{1}", "{2}"]}}'),
        ("fold_3.json", '{{"subjects": ["{0}", "{1}", "{2}"]}}'),
        ("speakers_heldout.txt", "{0}\n{1}\n{2}\n"),
        ("teachers.json", '["{0}", "{1}", "{2}"]'),
    ],
)
def test_lists_that_differ_in_healthy_runs(tmp_path: Path, file: str, form: str) -> None:
    """Seeds and sweeps order transforms, results, files and packages differently, which says nothing of the head."""
    runs = [run(tmp_path / one) for one in "ab"]
    for folder, names in zip(runs, (ORDER, MOVED), strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(form.format(*names))
    check(runs[0], runs[1])


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("run.json", ["seed", "fold", "trial"]),
        ("setup.json", ["bestEpoch", "local_rank", "num_workers"]),
        ("fold.txt", ["accuracy", "val_loss", "step"]),
        ("counts.json", ["tp", "fp", "depth"]),
        ("run.yaml", ["lr", "batch_size", "rect"]),
    ],
)
def test_settings_that_count_from_0(tmp_path: Path, file: str, names: list[str]) -> None:
    """Numbers of settings and measures are no rows. A map of other names may be a list of classes.

    The hint says what to do in either case, and both ways out end in a soup.
    """
    for name, order in (("a", names), ("b", [names[1], names[0], names[2]])):
        form = "{}: {}\n" if file.endswith("txt") else '"{}": {}, '
        text = "".join(form.format(word, row) for row, word in enumerate(order))
        run(tmp_path / name)
        (tmp_path / name / file).write_text(text if file.endswith("txt") else f"{{{text[:-2]}}}")
    check(tmp_path / "a", tmp_path / "b")
    for name, order in (("a", ORDER), ("b", MOVED)):
        (tmp_path / name / file).unlink()
        (tmp_path / name / "animals.json").write_text(json.dumps(rows_of(order)))
    with pytest.raises(MixError, match=r"animals\.json lists dog, cat, eel, .* if these are their names") as refused:
        check(tmp_path / "a", tmp_path / "b")
    assert "into the order [1, 0, 2]" in str(refused.value.hint) and "write one order into both" in str(
        refused.value.hint
    )
    check(tmp_path / "a", tmp_path / "b", TensorFilter(exclude=("head.*",)))
    (tmp_path / "b/animals.json").write_text(json.dumps(rows_of(ORDER)))
    check(tmp_path / "a", tmp_path / "b")


def test_numbers_are_no_names(tmp_path: Path) -> None:
    """Measures step by step are no list of classes, whichever file has as many of them as the head has rows."""
    for name, rates in (("a", "0.1\n0.2\n1e-3"), ("b", "0.2\n0.1\n1e-3")):
        (run(tmp_path / name) / "history.txt").write_text(rates)
        (tmp_path / name / "lr.csv").write_text(
            "step,lr\n" + "".join(f"{n},{r}\n" for n, r in enumerate(rates.split()))
        )
    check(tmp_path / "a", tmp_path / "b")


def test_lists_of_layers(tmp_path: Path) -> None:
    """Names of the network's own parts are no classes; neither is any list if both runs name their rows alike."""
    for name, parts in (("a", ["head", "weight"]), ("b", ["weight", "head"])):
        run(tmp_path / name, list_json=json.dumps({"unlocked": parts}))
        save_file({"head.weight": torch.rand(2, 2)}, tmp_path / name / "model.safetensors")
    check(tmp_path / "a", tmp_path / "b")
    ranked = [run(tmp_path / name, worst_json=json.dumps(names)) for name, names in (("e", ORDER), ("f", MOVED))]
    check(ranked[0], ranked[1])  # by merit
    named = [run(tmp_path / name, config_json=labels(*ORDER)) for name in "cd"]
    for folder, names in zip(named, (ORDER, MOVED), strict=True):
        (folder / "found.json").write_text(json.dumps(names))
    check(named[0], named[1])
    (named[1] / "config.json").unlink()
    with pytest.raises(MixError, match=r"found\.json lists"):
        check(named[0], named[1])


def test_lists_that_hold_themselves_many_times() -> None:
    """A small pickle of a stranger's that stands for 10^15 entries, or for 10^9 names in lists, is not gone through."""
    names = [f"name {number}" for number in range(1000)]
    inner: list[object] = [*names]
    for _ in range(4):
        inner = [inner] * 1000
    with pytest.raises(ValueError, match="more than 300,000 entries"):
        read_pickle(pickle.dumps({"classes": inner}))
    found = other_lists({f"list {number}": names for number in range(900)})
    assert 0 < sum(map(len, found.values())) <= MOST_LOOKED_AT


class Yolo(torch.nn.Module):
    """A network that knows the names of its classes."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.head, self.names = torch.nn.Linear(2, 3), dict(enumerate(names))


STATED: dict[str, Callable[[list[str]], object]] = {
    "torchvision": lambda names: {"class_to_idx": rows_of(names)},
    "mmengine": lambda names: {"meta": {"dataset_meta": {"classes": tuple(names)}}, "message_hub": {}},
    "Lightning": lambda names: {"hyper_parameters": {"class_names": names}},
    "numpy": lambda names: {"classes": np.array(names)},
    "scalars of numpy": lambda names: {"class_to_idx": dict(zip(np.array(names), np.arange(3), strict=True))},
    "other keys": lambda names: {"config": {"pathologies": names}},
    "arguments": lambda names: {"args": Namespace(labels=names)},
}


@pytest.mark.parametrize("kind", STATED)
def test_said_beside_the_state_dict(tmp_path: Path, kind: str) -> None:
    """Trainers write the classes into the file of the weights; a network in another order is refused."""
    for name, names in (("a", ORDER), ("b", MOVED), ("c", ORDER)):
        said = STATED[kind](names)
        assert isinstance(said, dict)
        torch.save({"state_dict": torch.nn.Linear(2, 3).state_dict(), **said}, tmp_path / f"{name}.pth")
    with pytest.raises(MixError, match=r"rows of 'weight' stand for other (classes|outputs)") as refused:
        check(tmp_path / "a.pth", tmp_path / "b.pth")
    assert "last layer (is it weight and bias?) into the order [1, 0, 2]" in str(refused.value.hint)
    assert "--exclude with its name, such as weight bias" in str(refused.value.hint)
    check(tmp_path / "a.pth", tmp_path / "c.pth")


def test_said_by_a_module_or_a_header(tmp_path: Path) -> None:
    """So is a whole network whose names are those of YOLO, and a header of safetensors that states classes."""
    for name, names in (("a", ORDER), ("b", MOVED)):
        torch.save({"model": Yolo(names)}, tmp_path / f"{name}.pt")
        said = {"classes": json.dumps(names), "labels": "{"}
        save_file({"weight": torch.rand(3, 2)}, tmp_path / f"{name}.safetensors", metadata=said)
    for ending in ("pt", "safetensors"):
        with pytest.raises(MixError, match="stand for other classes"):
            check(tmp_path / f"a.{ending}", tmp_path / f"b.{ending}")


@pytest.mark.parametrize("file", ["speaker_ids.json", "spk2id.json", "speakers.json", "speakers.pth", "spk2id"])
def test_speakers(tmp_path: Path, file: str) -> None:
    """Without a head of as many rows an embedding has them: of speakers in another order, which are not averaged."""
    names = ["anna", "bert", "carl"]
    for run, order in (("a", names), ("b", names), ("c", [*names[1:], names[0]])):
        (tmp_path / run).mkdir()
        save_file(
            {"enc.weight": torch.eye(9), "speaker_embedding.weight": torch.eye(9)[:3]}, tmp_path / run / "m.safetensors"
        )
        said = order if file == "speakers.json" else {name: row for row, name in enumerate(order)}
        if file == "speakers.pth":
            torch.save(said, tmp_path / run / file)
        elif file == "spk2id":
            (tmp_path / run / file).write_text("".join(f"{name} {row}\n" for row, name in enumerate(order)))
        else:
            (tmp_path / run / file).write_text(json.dumps(said))
    one, same, other = (open_checkpoint(tmp_path / run) for run in "abc")
    assert check_meanings([one, same], TensorFilter()) == []
    with pytest.raises(MixError, match=r"rows of 'speaker_embedding.weight' stand for other"):
        check_meanings([one, other], TensorFilter())


def test_a_head_with_one_row_more(tmp_path: Path) -> None:
    """A detector's row for no object does not hide that the others have changed places."""
    for name, names in (("a", ORDER), ("b", MOVED)):
        run(tmp_path / name, config_json=labels(*names))
        save_file(
            {"box.weight": torch.rand(5, 2), "cls.weight": torch.rand(4, 2)}, tmp_path / name / "model.safetensors"
        )
    with pytest.raises(MixError, match=r"rows of 'cls\.weight' stand for other classes"):
        check(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(("name", "named"), [("fc", "fc.weight"), ("top", "body.weight")])
def test_hidden_layers_as_wide_as_the_head(tmp_path: Path, name: str, named: str) -> None:
    """The head is told by its name, and what the hint says to exclude is enough where no name tells."""
    for folder, names in (("a", ORDER), ("b", MOVED)):
        run(tmp_path / folder, config_json=labels(*names))
        tensors = {f"{layer}.weight": torch.rand(3, 3) for layer in ("body", name)}
        save_file({**tensors, f"{name}.bias": torch.rand(3)}, tmp_path / folder / "model.safetensors")
    with pytest.raises(MixError, match=f"rows of '{named}' stand"):
        check(tmp_path / "a", tmp_path / "b")
    check(tmp_path / "a", tmp_path / "b", TensorFilter(exclude=(f"{name}.*",)))


def test_one_says_names_and_the_other_numbers(tmp_path: Path) -> None:
    """id2label of one is compared with label2id of the other; a list of lines is one too."""
    a = run(tmp_path / "a", config_json=json.dumps({"id2label": dict(enumerate(ORDER))}))
    b = run(tmp_path / "b", config_json=json.dumps({"label2id": rows_of(MOVED)}))
    with pytest.raises(MixError, match="stand for other classes"):
        check(a, b)
    with pytest.raises(MixError, match="stand for other classes"):
        check(run(tmp_path / "c", labels_txt="\n".join(ORDER)), run(tmp_path / "d", labels_txt="\n".join(MOVED)))
    check(a, run(tmp_path / "e", config_json=json.dumps({"label2id": {"cat": 5, "dog": "x"}})))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"num_attention_heads": 2}, {"num_attention_heads": 4}, "config.json: num_attention_heads (2 | 4)"),
        ({"text": {"hidden_act": "gelu"}}, {"text": {"hidden_act": "relu"}}, "config.json: text.hidden_act"),
        ({"hidden_act": "gelu", "attention_dropout": 0.1}, {"attention_dropout": 0.0, "is_decoder": False}, None),
    ],
)
def test_networks_that_compute_differently(
    one: dict[str, object], other: dict[str, object], said: str | None, tmp_path: Path, soup: Callable[..., Ran]
) -> None:
    """A soup of networks with other settings of their own is warned of; not if they matter only in training."""
    runs = [run(tmp_path / name, config_json=json.dumps(config)) for name, config in (("a", one), ("b", other))]
    ran = soup("uniform", "--ckpts", *map(str, runs), "--out", str(tmp_path / "soup"))
    assert ran.code == 0
    assert (said in ran.stderr) if said is not None else ("different networks" not in ran.stderr)


@pytest.mark.parametrize("name", ["vocab-src.json", "tekken.json", "qwen.tiktoken", "tokens.txt", "symbols.txt"])
def test_lists_of_tokens_of_other_libraries(tmp_path: Path, name: str) -> None:
    """Tokens of FSMT, Mistral, Qwen and wenet that have other numbers are refused; the same ones are not."""

    def written(words: list[str]) -> str:
        ranks = [{"rank": row, "token_bytes": word} for row, word in enumerate(words)]
        forms = {
            "vocab-src.json": json.dumps({word: row for row, word in enumerate(words)}),
            "tekken.json": json.dumps({"vocab": ranks}),
            "symbols.txt": "\n".join(words),
        }
        return forms.get(name, "\n".join(f"{word} {row}" for row, word in enumerate(words)))

    runs = [run(tmp_path / one, **{name: written(WORDS)}) for one in "ab"]
    check(runs[0], runs[1])
    (runs[1] / name).write_text(written(WORDS[::-1]))
    with pytest.raises(MixError, match="the token 'w0' is number 11"):
        check(runs[0], runs[1])


def test_a_vocabulary_beside_a_tokenizer(tmp_path: Path) -> None:
    """vocab.txt of one and tokenizer.json of the other are compared if no file is beside both."""
    one = run(tmp_path / "a", vocab_txt="\n".join(WORDS))
    other = run(tmp_path / "b", tokenizer_json=word_level(WORDS))
    check(one, other)
    (other / "tokenizer.json").write_text(word_level(WORDS[::-1]))
    with pytest.raises(MixError, match=r"b/tokenizer.json: the token 'w0' is number 11, in .*a/vocab.txt it is 0"):
        check(one, other)


def test_one_configuration_says_two_orders(tmp_path: Path) -> None:
    """A mix with id2label and label2id that contradict each other is warned of, an evaluation refused, with both."""
    names = {"id2label": {str(row): name for row, name in enumerate(ORDER)}, "label2id": rows_of(MOVED)}
    both = run(tmp_path / "a", config_json=json.dumps(names))
    said = "two orders of its classes: id2label cat, dog, eel; label2id dog, cat, eel"
    assert [said in line for line in caveats([open_checkpoint(both)], EVERYTHING)] == [True]
    auto = TransformersNetwork(transformers="auto")
    with pytest.raises(NetworkError, match=said):
        label_names(auto, both)
    assert label_names(auto.model_copy(update={"args": {"id2label": dict(enumerate(MOVED))}}), both) == tuple(MOVED)
    placeholders = {"id2label": {str(row): f"LABEL_{row}" for row in range(3)}, "label2id": rows_of(MOVED)}
    real = run(tmp_path / "b", config_json=json.dumps(placeholders))
    assert label_names(auto, real) == tuple(MOVED)
    assert caveats([open_checkpoint(real)], EVERYTHING) == []


def test_heads_of_several_sizes(tmp_path: Path) -> None:
    """YOLO has a head for each size, MONAI's UNet a transposed one: no hint mends or excludes a part of the head."""
    head = {"weight": torch.ones(2, 4), "bias": torch.ones(2)}
    yolo = {f"model.22.cv3.{size}.2.{name}": head[name].clone() for size in range(3) for name in head}
    unet = {"model.2.conv.weight": torch.ones(4, 2, 3), "model.2.conv.bias": torch.ones(2)}
    for network, excluded in ((yolo, "'model.22.cv3.*.2.*'"), (unet, "'model.2.conv.*'")):
        for run, names in enumerate((["cat", "dog"], ["dog", "cat"])):
            torch.save({"model": network, "names": dict(enumerate(names))}, tmp_path / f"{run}.pt")
        with pytest.raises(MixError, match="its classes are dog, cat") as refused:
            check(tmp_path / "0.pt", tmp_path / "1.pt")
        assert "put the rows" not in str(refused.value.hint)
        assert f"such as {excluded}" in str(refused.value.hint)
