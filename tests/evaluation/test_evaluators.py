"""A score is the model library's own score; it is kept under what determines it, and under nothing else."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision import models

from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError, RecipeError, ValidationError
from soupcli.evaluation.score import Score
from soupcli.mixing.mixture import Mixture
from soupcli.soups.greedy import GreedySoup, greedy
from soupcli.soups.ranking import rank
from tests.conftest import Ran, write_family
from tests.helpers import transformers_toys as toys
from tests.helpers.evaluators import evaluators, score
from tests.helpers.memory import Alive, Spied
from tests.helpers.network_toys import randomised, saved
from tests.helpers.pictures import class_folders
from tests.networks.libraries.test_open_clip import CONFIG, folder_of

SENTENCES = ["the film was good", "bad", "a very bad plot", "good", "the plot was not good the film was badly bad"]
PAIRS = ["good", "the film was bad", "a plot", "very very bad", "not"]


PYTHON = shlex.quote(sys.executable)


def write_rows(file: Path, seed: int = 0) -> list[int]:
    """Sentences, pairs and labels; returns the labels."""
    labels = torch.randint(0, 2, (len(SENTENCES),), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [{"text": a, "other": b, "label": k} for a, b, k in zip(SENTENCES, PAIRS, labels, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [int(label) for label in labels]


def assert_score(found: Callable[[str], Score], logits_nk: Tensor, labels: list[int], *, rtol: float = 1e-6) -> None:
    """Accuracy is that of the library's logits, exactly; nll to the rounding of a batch of another size."""
    labels_n = torch.tensor(labels)
    wanted = (logits_nk.argmax(dim=1) == labels_n).sum().item() / len(labels)
    assert found("accuracy").value == wanted
    losses_n = cross_entropy(logits_nk.double(), labels_n, reduction="none")
    assert found("nll").value == pytest.approx(losses_n.mean().item(), rel=rtol)
    assert torch.allclose(found("nll").outcomes["nll"], losses_n, rtol=rtol, atol=1e-9)


def test_timm(tmp_path: Path) -> None:
    """Pictures through timm's data config, create_transform and model, in one loop as its documentation has it."""
    files = class_folders(tmp_path / "val", {"cat": 3, "dog": 4, "emu": 2}, size=(170, 180))
    model = randomised(timm.create_model("test_vit", num_classes=3))
    run = saved(model, tmp_path / "run")
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        logits = torch.stack([model(transform(Image.open(file).convert("RGB"))[None])[0] for file, _ in files])
    recipe = {
        "model": {"timm": "test_vit", "args": {"num_classes": 3}},
        "val": {"val": {"images": tmp_path / "val"}},
        "workers": 2,
    }
    assert_score(lambda metric: score({**recipe, "metric": metric}, run), logits, [label for _, label in files])


def test_transformers_pictures(tmp_path: Path) -> None:
    """Pictures through the folder's image processor; class folders find their logits by the model's label names."""
    files = class_folders(tmp_path / "val", {"dog": 3, "emu": 4})
    model = toys.vit(tmp_path / "run")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run")
    with torch.inference_mode():
        opened = [Image.open(file).convert("RGB") for file, _ in files]
        logits = model(**processor(images=opened, return_tensors="pt")).logits
    recipe = {"val": {"val": {"images": tmp_path / "val"}}}
    labels = [label + 1 for _, label in files]  # cat comes before dog and emu, and the set has none
    assert_score(lambda metric: score({**recipe, "metric": metric}, tmp_path / "run"), logits, labels)


@pytest.mark.parametrize("columns", [["text"], ["text", "other"]])
def test_transformers_sentences(columns: list[str], tmp_path: Path) -> None:
    """One or two columns through the folder's tokenizer, token types and truncation included, as the Trainer pads."""
    labels = write_rows(tmp_path / "val.jsonl")
    model = toys.bert(tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    texts = [SENTENCES, PAIRS][: len(columns)]
    collate = transformers.DataCollatorWithPadding(tokenizer)
    features = [dict(tokenizer(*pair, truncation=True)) for pair in zip(*texts, strict=True)]
    with torch.inference_mode():
        logits = torch.cat([model(**collate(features[:3])).logits, model(**collate(features[3:])).logits])
    recipe = {"val": {"val": {"text": tmp_path / "val.jsonl", "input": columns}}, "batch_size": 2}
    assert_score(lambda metric: score({**recipe, "metric": metric}, tmp_path / "run"), logits, labels, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_token", ["[PAD]", None])
def test_last_token_classifiers(side: str, pad_token: str | None, tmp_path: Path) -> None:
    """GPT-2 counts positions and looks at the last token: padded on either side, each row scores as it does alone."""
    labels = write_rows(tmp_path / "val.jsonl")
    model = toys.gpt2(tmp_path / "run", tokenizer={"padding_side": side, "pad_token": pad_token})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in SENTENCES])
    recipe: dict[str, Any] = {"val": {"val": {"text": tmp_path / "val.jsonl"}}}
    for size in (1, 2, 64):
        recipe["batch_size"] = size
        assert_score(lambda metric: score({**recipe, "metric": metric}, tmp_path / "run"), logits, labels, rtol=1e-5)


def test_open_clip(tmp_path: Path) -> None:
    """Pictures against class names and templates from files, as open_clip's own zero-shot loop does it."""
    files = class_folders(tmp_path / "val", {"0": 3, "1": 4, "2": 2})
    run = folder_of(tmp_path / "run", CONFIG)
    (tmp_path / "names.txt").write_text("tabby cat\ngreat dane\nemu\n")
    (tmp_path / "templates.txt").write_text("a photo of a {}.\nart of the {}.\n")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{run}")
    model.eval()
    classifier = open_clip.build_zero_shot_classifier(
        model,
        open_clip.get_tokenizer(f"local-dir:{run}"),
        ["tabby cat", "great dane", "emu"],
        ["a photo of a {}.", "art of the {}."],
    )
    with torch.inference_mode():
        features = model.encode_image(torch.stack([preprocess(Image.open(file)) for file, _ in files]), normalize=True)
        logits = model.logit_scale.exp() * features @ classifier
    spec = {"images": tmp_path / "val", "classnames": tmp_path / "names.txt", "templates": tmp_path / "templates.txt"}
    recipe = {"val": {"val": spec}}
    assert_score(lambda metric: score({**recipe, "metric": metric}, run), logits, [label for _, label in files])


def test_torchvision(tmp_path: Path) -> None:
    """Pictures through the preset of torchvision's default weights."""
    files = class_folders(tmp_path / "val", {"a": 1, "b": 2}, size=(240, 260))
    model = randomised(models.resnet18(num_classes=2))
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    with torch.inference_mode():
        logits = model(torch.stack([preset(Image.open(file).convert("RGB")) for file, _ in files]))
    recipe = {
        "model": {"torchvision": "resnet18", "args": {"num_classes": 2}},
        "val": {"val": {"images": tmp_path / "val"}},
    }
    run = saved(model, tmp_path / "run")
    assert_score(lambda metric: score({**recipe, "metric": metric}, run), logits, [label for _, label in files])


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The recipe of a family in the working folder, runs/0 to runs/4, as plain data."""
    write_family(tmp_path / "family")
    monkeypatch.chdir(tmp_path / "family")
    return {"model": {"python": "net.py:build"}, "val": {"val": {"arrays": "data/val.safetensors"}}}


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_batch_size_and_workers(arrays: dict[str, Any], metric: str) -> None:
    """No score depends on the batch size or the number of workers."""
    runs = [Path("runs/0"), Path("runs/1")]
    first: Score | None = None
    for number, (size, workers) in enumerate([(64, None), (1, 0), (7, 1), (199, 3), (1000, 2)]):
        recipe = {**arrays, "metric": metric, "batch_size": size, "workers": workers}
        found = score(recipe, *runs, cache=Path(f"cache{number}"))
        assert found.examples == 200
        first = first or found
        assert found.value == (first.value if metric == "accuracy" else pytest.approx(first.value, rel=1e-6))
        assert found.metrics[metric].stderr == pytest.approx(first.metrics[metric].stderr, rel=1e-6)


def test_pictures_with_workers(tmp_path: Path) -> None:
    """Pictures decoded by many threads are the same pictures in the same order."""
    class_folders(tmp_path / "val", {"cat": 5, "dog": 6, "emu": 3})
    toys.vit(tmp_path / "run")
    recipe: dict[str, Any] = {"val": {"val": {"images": tmp_path / "val"}}, "metric": "nll", "batch_size": 14}
    scores = [score({**recipe, "workers": n}, tmp_path / "run", cache=tmp_path / f"cache{n}") for n in (0, 1, 4)]
    assert all(torch.equal(found.outcomes["nll"], scores[0].outcomes["nll"]) for found in scores)


def test_batch_norm_goes_into_the_soup(tmp_path: Path, soup: Callable[..., Ran], monkeypatch: Any) -> None:
    """Statistics that were re-estimated are written; evaluated as they stand, the soup has the score of the report."""
    write_normed_family(tmp_path)
    monkeypatch.chdir(tmp_path)
    files: dict[str, dict[str, Tensor]] = {}
    for kind in ("average", "recalibrate", "keep"):
        for size in (64, 7):
            words = ("--ckpts", "runs/*/", "--val", "val", "--set", f"batch_norm={kind}", "--batch-size", size)
            ran = soup("uniform", *words, "--out", f"{kind}{size}", "--metric", "nll", "--json")
            assert ran.code == 0, ran.stderr
            report = json.loads(ran.stdout)
            files[f"{kind}{size}"] = load_file(f"{kind}{size}/model.safetensors")
            if kind != "keep":
                again = soup("eval", "--ckpts", f"{kind}{size}", "--val", "val", "--metric", "nll", "--fresh", "--json")
                values = [part["scores"]["val"]["nll"]["value"] for part in json.loads(again.stdout)["ingredients"]]
                wanted = report["soup"]["scores"]["val"]["nll"]["value"]
                assert values == [wanted if size == 64 else pytest.approx(wanted, rel=1e-6)]
        for name, tensor in files[f"{kind}64"].items():
            assert torch.equal(tensor, files[f"{kind}7"][name]), name
    means = {kind: files[f"{kind}64"]["1.running_mean"] for kind in ("average", "recalibrate", "keep")}
    assert torch.equal(means["keep"], means["average"])
    assert not torch.allclose(means["recalibrate"], means["average"], rtol=0.01)


def write_normed_family(folder: Path) -> None:
    """Three ingredients with batch norm whose statistics are not those of the validation set."""
    (folder / "net.py").write_text(
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))\n"
    )
    (folder / "soup.yaml").write_text(
        'model: {python: "net.py:build"}\nval:\n  val: {arrays: val.safetensors}\n  mine: {python: "net.py:build"}\n'
    )
    for seed in range(3):
        torch.manual_seed(seed)
        saved(
            randomised(
                nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
            ),
            folder / f"runs/{seed}",
        )
    save_file({"inputs": torch.randn(130, 8) + 2, "labels": torch.randint(0, 3, (130,))}, folder / "val.safetensors")


@pytest.mark.parametrize("kind", ["average", "recalibrate", "keep"])
def test_evaluation_mode(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an evaluation, after a function of the user's too, every layer is in evaluation mode."""
    write_normed_family(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def evaluate(model, device):\n    model.train()\n    return {'accuracy': 0.5, 'n': 3}\n"
    )
    recipe: dict[str, Any] = {
        "model": {"python": "net.py:build"},
        "val": {"mine": {"python": "mine.py:evaluate"}, "val": {"arrays": "val.safetensors"}},
        "batch_norm": kind,
    }
    found = evaluators(recipe, Path("runs/0"))
    mixture = Mixture.uniform([open_checkpoint(Path(f"runs/{i}")) for i in range(3)])
    assert found.on("mine")(mixture).value == 0.5
    assert not any(part.training for part in found.network.module.modules())
    before = found.on("val")(mixture)
    assert not any(part.training for part in found.network.module.modules())
    alone = score({**recipe, "val": {"val": recipe["val"]["val"]}}, *(Path(f"runs/{i}") for i in range(3)))
    assert alone.value == before.value


def test_functions_cannot_spoil_weights(arrays: dict[str, Any]) -> None:
    """What a function of the user's does to the weights is gone before the next evaluation."""
    Path("mine.py").write_text(
        "def evaluate(model, device):\n    [p.zero_() for p in model.parameters()]\n    return {'accuracy': 0.1}\n"
    )
    recipe = {**arrays, "val": {"mine": {"python": "mine.py:evaluate"}, **arrays["val"]}}
    mixture = Mixture.uniform([open_checkpoint(Path("runs/0"))])
    found = evaluators(recipe, Path("runs/0"))
    assert found.on_all(mixture)["val"].value == score(arrays, Path("runs/0"), cache=Path("other")).value


def test_what_users_print_goes_to_stderr(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """stdout carries results alone: what the user's code prints while it is loaded, built or run goes to stderr."""
    Path("mine.py").write_text(
        "print('loaded')\ndef evaluate(model, device):\n    print('run')\n    return {'accuracy': 1}\n"
    )
    Path("net.py").write_text("print('net')\n" + Path("net.py").read_text().replace("):\n", "):\n    print('built')\n"))
    score({**arrays, "val": {"val": {"python": "mine.py:evaluate"}}}, Path("runs/0"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split() == ["net", "built", "loaded", "run"]


def replaced(path: Path, old: str, new: str) -> None:
    """Replaces text in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def with_weights(path: Path) -> None:
    """One bit of the weights is another one; size and name are as before."""
    state = load_file(path)
    state["0.bias"][0] += 1e-6
    save_file(state, path)


def with_inputs(path: Path) -> None:
    """One number of the set is another one."""
    tensors = load_file(path)
    tensors["inputs"][0, 0] += 1e-6
    save_file(tensors, path)


def with_another_function(recipe: dict[str, Any]) -> None:
    """The recipe names another function of the same file."""
    replaced(Path("net.py"), "def build", "other = lambda: build()\ndef build")
    recipe["model"].update(python="net.py:other")


Change = Callable[[dict[str, Any]], Any]
OTHER_SCORES: dict[str, Change] = {
    "weights": lambda recipe: with_weights(Path("runs/0/model.safetensors")),
    "set": lambda recipe: with_inputs(Path("data/val.safetensors")),
    "arguments": lambda recipe: recipe["model"].update(args={"width": 16}),
    "code": lambda recipe: replaced(Path("net.py"), "ReLU", "GELU"),
    "function": with_another_function,
    "metric": lambda recipe: recipe.update(metric="nll"),
    "batch_norm": lambda recipe: recipe.update(batch_norm="keep"),
    "configuration": lambda recipe: Path("runs/0/config.json").write_text("{}"),
}
SAME_SCORES: dict[str, Change] = {
    "nothing": lambda recipe: None,
    "batch_size": lambda recipe: recipe.update(batch_size=3),
    "workers": lambda recipe: recipe.update(workers=2),
    "path_of_set": lambda recipe: (
        shutil.move("data/val.safetensors", "elsewhere.safetensors"),
        recipe["val"]["val"].update(arrays="elsewhere.safetensors"),
    ),
    "saved_again": lambda recipe: Path("data/val.safetensors").write_bytes(Path("data/val.safetensors").read_bytes()),
    "output": lambda recipe: recipe.update(out="somewhere", device="auto"),
}


@pytest.mark.parametrize("change", OTHER_SCORES)
def test_a_change_is_evaluated_anew(arrays: dict[str, Any], change: str) -> None:
    """Whatever determines a score makes another key."""
    assert score(arrays, Path("runs/0"), Path("runs/1")).examples == 200
    OTHER_SCORES[change](arrays)
    assert score(arrays, Path("runs/0"), Path("runs/1")).examples == 200


@pytest.mark.parametrize("change", SAME_SCORES)
def test_what_changes_nothing_is_not_evaluated_again(arrays: dict[str, Any], change: str) -> None:
    """Paths, batches and workers are in no key; a kept score has the value, the error and the outcomes it had."""
    first = score(arrays, Path("runs/0"), Path("runs/1"))
    SAME_SCORES[change](arrays)
    again = score(arrays, Path("runs/0"), Path("runs/1"))
    assert again.examples == 0
    assert again.metrics == first.metrics
    assert torch.equal(again.outcomes["accuracy"], first.outcomes["accuracy"])


def test_a_loss_depends_on_the_batch_size(arrays: dict[str, Any]) -> None:
    """Layers may round an example by the size of its batch: a loss of another size is not served."""
    assert score({**arrays, "metric": "nll", "batch_size": 8}, Path("runs/0")).examples == 200
    assert score({**arrays, "metric": "nll", "batch_size": 16}, Path("runs/0")).examples == 200
    assert score({**arrays, "metric": "nll", "batch_size": 8}, Path("runs/0")).examples == 0


def test_ingredients_elsewhere(arrays: dict[str, Any]) -> None:
    """The same weights in other folders are the same mixture."""
    score(arrays, Path("runs/0"), Path("runs/1"), cache=Path("cache"))
    shutil.copytree("runs", "elsewhere/deeper")
    cache, moved = Path("cache"), [Path("elsewhere/deeper/0"), Path("elsewhere/deeper/1")]
    assert score(arrays, *moved, cache=cache).examples == 0
    assert score(arrays, moved[0], cache=cache).examples == 200


def test_dtype_and_versions(arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The output dtype and the versions of the libraries are in the key."""
    members = [open_checkpoint(Path("runs/0"))]
    found = evaluators(arrays, Path("runs/0"))
    assert found.on("val")(Mixture.uniform(members)).examples == 200
    assert found.on("val")(Mixture.uniform(members, dtype=Dtype.BFLOAT16)).examples == 200
    assert found.on("val")(Mixture.uniform(members)).examples == 0
    assert found.examples == 400
    monkeypatch.setattr("soupcli.evaluation.keys.versions", lambda: {"torch": "1.0"})
    assert score(arrays, Path("runs/0")).examples == 200


def test_keys_of_pictures_and_sentences(tmp_path: Path) -> None:
    """Sets of pictures and sentences that were moved are known again; other labels, columns or files are not."""
    class_folders(tmp_path / "val", {"dog": 2, "emu": 2})
    write_rows(tmp_path / "val.jsonl")
    toys.vit(tmp_path / "vit")
    toys.bert(tmp_path / "bert")

    def pictures(**options: Any) -> int:
        recipe = {"val": {"val": {"images": tmp_path / "val", **options}}}
        return score(recipe, tmp_path / "vit", cache=tmp_path / "cache").examples

    def sentences(**options: Any) -> int:
        recipe = {"val": {"val": {"text": tmp_path / "val.jsonl", **options}}}
        return score(recipe, tmp_path / "bert", cache=tmp_path / "cache").examples

    assert (pictures(), sentences()) == (4, 5)
    for old, new in (("val", "pictures"), ("val.jsonl", "sentences.jsonl")):
        shutil.move(tmp_path / old, tmp_path / new)
    assert pictures(images=tmp_path / "pictures") == 0
    assert sentences(text=tmp_path / "sentences.jsonl") == 0
    assert pictures(images=tmp_path / "pictures", class_to_index={"dog": 0, "emu": 1}) == 4
    assert sentences(text=tmp_path / "sentences.jsonl", input=["text", "other"]) == 5
    assert sentences(text=tmp_path / "sentences.jsonl", max_length=4) == 5
    toys.bert_tokenizer(tmp_path / "bert", do_lower_case=False)
    assert sentences(text=tmp_path / "sentences.jsonl") == 5
    (tmp_path / "pictures/dog/0.jpg").unlink()
    assert pictures(images=tmp_path / "pictures") == 3


COUNTING = """
def evaluate(model, device):
    with open("calls", "a") as calls:
        calls.write(".")
    return {"accuracy": 0.5, "n": 200}
"""


@pytest.mark.parametrize("spec", [{"python": "mine.py:evaluate"}, {"command": f"{PYTHON} mine.py {{checkpoint}}"}])
def test_users_evaluations_are_kept(arrays: dict[str, Any], spec: dict[str, Any]) -> None:
    """What a function or a command of the user's says is asked for once, and again when its file has changed."""
    program = COUNTING + "\nif __name__ == '__main__':\n    import json; print(json.dumps(evaluate(0, 0)))"
    for number in range(2):
        Path("mine.py").write_text(program + f"\n# {number}\n")
        Path("calls").write_text("")
        found = [score({**arrays, "val": {"val": spec}}, Path("runs/0")) for _ in range(2)]
        assert [(one.value, one.examples) for one in found] == [(0.5, 200), (0.5, 0)]
        assert Path("calls").read_text() == "."
    silent = {**spec, "keep": False}
    found = [score({**arrays, "val": {"val": silent}}, Path("runs/0")) for _ in range(2)]
    assert [one.examples for one in found] == [200, 200]


def test_unwritable_cache(arrays: dict[str, Any], tmp_path: Path) -> None:
    """A cache folder that cannot be made is no error: scores are kept for the run alone."""
    (tmp_path / "file").write_text("not a folder")
    found = evaluators(arrays, Path("runs/0"), cache=tmp_path / "file/cache")
    mixture = Mixture.uniform([open_checkpoint(Path("runs/0"))])
    assert found.on("val")(mixture).examples == 200
    assert found.on("val")(mixture).examples == 0


LOOK = """
import json, math, struct, sys
from pathlib import Path
path = Path(sys.argv[1])
raw = (path / "model.safetensors" if path.is_dir() else path).read_bytes()
base = 8 + struct.unpack("<Q", raw[:8])[0]
begin, end = json.loads(raw[8:base])["0.bias"]["data_offsets"]
beside = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
print(json.dumps({"path": str(path), "beside": beside}), file=sys.stderr)
print(json.dumps({"accuracy": math.fsum(struct.unpack(f"<{(end - begin) // 4}f", raw[base + begin : base + end]))}))
"""


def total(tensor: Tensor) -> float:
    """What LOOK says of a tensor."""
    return math.fsum(tensor.tolist())


def test_what_a_command_is_given(arrays: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """An ingredient is named where it lies; a mixture is written with its side files, or as a file."""
    Path("look.py").write_text(LOOK)
    recipe = {"val": {"val": {"command": f"{PYTHON} look.py {{checkpoint}}"}}}
    biases = [load_file(f"runs/{i}/model.safetensors")["0.bias"] for i in range(2)]
    Path("runs/0/config.json").write_text("{}")
    folders = [Path("runs/0"), Path("runs/1")]
    assert score(recipe, folders[0]).value == total(biases[0])
    told = json.loads(capfd.readouterr().err)
    assert told == {"path": "runs/0", "beside": ["config.json", "model.safetensors"]}
    mean = ((biases[0].double() + biases[1].double()) / 2).float()
    assert score(recipe, *folders).value == total(mean)
    told = json.loads(capfd.readouterr().err)
    assert told["beside"] == ["config.json", "model.safetensors"]
    assert not Path(told["path"]).exists()
    assert score(recipe, *(folder / "model.safetensors" for folder in folders)).value == total(mean)
    assert json.loads(capfd.readouterr().err)["path"].endswith("/model.safetensors")


def test_commands_see_statistics_that_were_re_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where batch norm is re-estimated, the weights that a command is given hold the new statistics."""
    write_normed_family(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("look.py").write_text(LOOK.replace("0.bias", "1.running_mean"))
    sets = {"val": {"arrays": "val.safetensors"}, "theirs": {"command": f"{PYTHON} look.py {{checkpoint}}"}}
    recipe = {"model": {"python": "net.py:build"}, "val": sets}
    runs = [Path("runs/0"), Path("runs/1")]
    values = [
        score({**recipe, "batch_norm": kind}, *runs, name="theirs").value for kind in ("average", "recalibrate", "keep")
    ]
    assert values[0] != values[1] == values[2]
    only = {**recipe, "val": {"theirs": sets["theirs"]}, "batch_norm": "recalibrate"}
    with pytest.raises(ValidationError, match="batch_norm: recalibrate needs a set of images, text or arrays"):
        score(only, *runs, name="theirs")


def test_sets_that_are_not_there(arrays: dict[str, Any]) -> None:
    """Every set is looked at before the first evaluation, and the error names its file."""
    for spec, message in (
        ({"arrays": "data/vla.safetensors"}, r"data/vla\.safetensors: no such file"),
        ({"arrays": "data"}, r"data: is a folder, not a file"),
        ({"text": "data/val.jsonl"}, r"data/val\.jsonl: no such file"),
        ({"images": "data/val"}, r"data/val: no such folder"),
        ({"images": "data"}, r"data: holds no pictures"),
    ):
        with pytest.raises(ValidationError, match=message):
            evaluators({**arrays, "val": {**arrays["val"], "second": spec}}, Path("runs/0"))


def test_networks_that_cannot_be_fed(arrays: dict[str, Any], tmp_path: Path) -> None:
    """A set that the network has no eyes, no tokenizer or no names for is an error that says what to add."""
    class_folders(tmp_path / "val", {"a": 1})
    (tmp_path / "names.txt").write_text("a\n")
    (tmp_path / "val.csv").write_text("text,label\ngood,1\n")
    with Path("net.py").open("a") as net:
        net.write("\ndef transform(picture):\n    import torch\n    return torch.zeros(8)\n")
    pictures = {"images": tmp_path / "val"}
    sees = {"transform": "net.py:transform"}
    for spec, model, message, hint in (
        (pictures, {}, r"val\.val: no image transform for the network Sequential", "transform:"),
        ({"text": tmp_path / "val.csv"}, {}, r"val\.val: runs/0 holds no tokenizer", "save_pretrained"),
        (pictures | {"classnames": tmp_path / "names.txt"}, sees, "classnames: are for a CLIP", "open_clip"),
    ):
        with pytest.raises(NetworkError, match=message) as raised:
            score({"model": {**arrays["model"], **model}, "val": {"val": spec}}, Path("runs/0"))
        assert hint in str(raised.value.hint)


def test_zero_shot_needs_names(tmp_path: Path) -> None:
    """A CLIP network without class names, with an empty line among them, or with a template without a place."""
    run = folder_of(tmp_path / "run", CONFIG)
    class_folders(tmp_path / "val", {"a": 1, "b": 1})
    spec: dict[str, Any] = {"images": tmp_path / "val"}
    with pytest.raises(NetworkError, match=r"val\.val: a CLIP network needs classnames:"):
        score({"val": {"val": spec}}, run)
    spec |= {"classnames": tmp_path / "names.txt", "templates": tmp_path / "templates.txt"}
    for names, templates, message in (
        ("cat\n\ndog\n", "a {}\n", r"names\.txt:2: an empty line"),
        ("", "a {}\n", r"names\.txt: has no lines"),
        ("cat\ndog\n", "a {}\na photo\n", r"templates\.txt:2: has no \{\}"),
        ("cat\ndog\n", "a {name}\n", r"templates\.txt:1: not a template"),
        ("cat\n", "a {}\n", r"the network has 1"),
    ):
        (tmp_path / "names.txt").write_text(names)
        (tmp_path / "templates.txt").write_text(templates)
        with pytest.raises(ValidationError, match=message):
            score({"val": {"val": spec}}, run)


def test_unknown_metric(arrays: dict[str, Any]) -> None:
    """A metric that nobody knows is an error with the nearest name, before anything is evaluated."""
    with pytest.raises(ValidationError, match=r"metric: 'acuracy' is not known, did you mean 'accuracy'\?"):
        evaluators({**arrays, "metric": "acuracy"}, Path("runs/0"))


def test_code_that_is_not_there(arrays: dict[str, Any]) -> None:
    """A file of the recipe's that is missing is an error that names it."""
    with pytest.raises(RecipeError, match=r"nets\.py: No such file or directory, the recipe names nets\.py:build"):
        score({**arrays, "model": {"python": "nets.py:build"}}, Path("runs/0"))


SPARE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.spare = nn.Parameter(torch.zeros(600_000))

def build():
    return Net()
"""


def test_memory_of_greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranking and search hold the network, one sum and what is read of one checkpoint: for nine as for three."""
    states = write_family(tmp_path / "family", members=9)
    monkeypatch.chdir(tmp_path / "family")
    Path("net.py").write_text(SPARE)
    for number, state in enumerate(states):
        save_file({**state, "spare": torch.full((600_000,), float(number))}, f"runs/{number}/model.safetensors")
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": {"arrays": "data/val.safetensors"}}}
    nbytes = 4 * 600_000

    def peak(members: int) -> int:
        with Alive() as alive:
            files = [open_checkpoint(Path(f"runs/{number}")) for number in range(members)]
            spies = [Spied(file, on_read=alive.count) for file in files]
            found = evaluators(recipe, Path("runs/0"), cache=tmp_path / f"cache-{members}")
            soup = greedy(rank(spies, found.on("val")), found.on("val"), min_delta=-1.0)
            assert len(soup.mixture.members) == members
        return int(alive.peak)

    of_three, of_nine = peak(3), peak(9)
    assert of_nine == pytest.approx(of_three, rel=0.05)
    assert of_three < 6.5 * nbytes  # the network, a sum that is twice as wide, one that is read and the next one


def cooked(recipe: dict[str, Any], runs: list[Path], cache: Path, **options: Any) -> tuple[GreedySoup, int, int]:
    """Recipe 1 over the set `val`, the examples of its ranking, and those of greedy."""
    found = evaluators(recipe, runs[0], cache=cache)
    evaluate = found.on("val")
    ranking = rank([open_checkpoint(run) for run in runs], evaluate)
    before = found.examples
    return greedy(ranking, evaluate, **options), before, found.examples - before


def assert_giving_up_changes_nothing(recipe: dict[str, Any], runs: list[Path], cache: Path) -> tuple[int, int]:
    """Members, thresholds, decisions and scores to the bit, whatever is given up, and a second run evaluates nothing.

    Returns the examples of greedy with early stops and without.
    """
    early, _, fewer = cooked(recipe, runs, cache / "early")
    full, _, all_of_them = cooked({**recipe, "early_stop": False}, runs, cache / "full")
    assert [member.path for member in early.mixture.members] == [member.path for member in full.mixture.members]
    assert early.score.metrics == full.score.metrics
    for ours, theirs in zip(early.steps, full.steps, strict=True):
        assert (ours.threshold, ours.accepted) == (theirs.threshold, theirs.accepted)
        assert ours.score == theirs.score or ours.bound is not None
    again, ranked, evaluated = cooked(recipe, runs, cache / "early")
    assert (ranked, evaluated) == (0, 0)
    assert [step[2:5] for step in again.steps] == [step[2:5] for step in early.steps]
    _, _, whole = cooked({**recipe, "early_stop": False}, runs, cache / "early")
    assert whole > 0 or fewer == all_of_them  # what was stopped is not taken for a score
    return fewer, all_of_them


@pytest.mark.parametrize("metric", ["accuracy", "nll", "f1", "mcc"])
def test_giving_up(arrays: dict[str, Any], metric: str, tmp_path: Path) -> None:
    """With real networks: less is evaluated, and no decision or score is another one."""
    runs = [Path(f"runs/{i}") for i in range(5)]
    recipe = {**arrays, "metric": metric, "batch_size": 8}
    fewer, all_of_them = assert_giving_up_changes_nothing(recipe, runs, tmp_path / "cache")
    assert fewer < all_of_them if metric != "mcc" else fewer == all_of_them


@pytest.mark.parametrize("kind", ["recalibrate", "keep"])
def test_giving_up_with_batch_norm(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics are re-estimated from the whole set, however soon the evaluation after it is given up."""
    write_normed_family(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = {"model": {"python": "net.py:build"}, "val": {"val": {"arrays": "val.safetensors"}}, "batch_norm": kind}
    assert_giving_up_changes_nothing(recipe, [Path(f"runs/{i}") for i in range(3)], tmp_path / "cache")


def test_giving_up_with_sentences(tmp_path: Path) -> None:
    """Sequences of many lengths, visited by difficulty and length, padded in other batches."""
    runs = []
    rows = [{"text": f"{SENTENCES[i % 5]} {PAIRS[i % 3]}" * (1 + i % 3), "label": i % 2} for i in range(48)]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in range(3):
        torch.manual_seed(seed)
        runs.append(tmp_path / f"{seed}")
        toys.bert(runs[-1])
    recipe = {"val": {"val": {"text": tmp_path / "val.jsonl"}}}
    assert_giving_up_changes_nothing(recipe, runs, tmp_path / "cache")
