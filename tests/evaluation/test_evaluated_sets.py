"""Sets beyond plain class folders, from recipe to score: shards, subsets of classes, several labels, numbers."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcli.checkpoints.dtype import Dtype
from soupcli.checkpoints.open import open_checkpoint
from soupcli.datasets.classes import imagenet_wnids
from soupcli.errors import NetworkError, RecipeError, ValidationError
from soupcli.mixing.mixture import Mixture
from soupcli.recipe.precedence import load_recipe
from tests.conftest import build_net, write_family
from tests.helpers import transformers_toys as toys
from tests.helpers.evaluators import evaluators, score
from tests.helpers.network_toys import randomised, saved
from tests.helpers.pictures import class_folders, noise
from tests.networks.libraries.test_open_clip import CONFIG, folder_of

CLASSES = 12
WNIDS = sorted(imagenet_wnids())


class Timm:
    """A timm network of 12 classes, saved, and its own logits of picture files."""

    def __init__(self, folder: Path) -> None:
        self.model = randomised(timm.create_model("test_vit", num_classes=CLASSES))
        self.run = saved(self.model, folder / "run")
        self.transform = create_transform(**resolve_model_data_config(self.model), is_training=False)
        self.recipe = {"model": {"timm": "test_vit", "args": {"num_classes": CLASSES}}, "workers": 2}

    def logits(self, files: list[Path], *, border: int = 0) -> Tensor:
        """[N, 12], one picture at a time, `border` pixels cut off."""
        opened = [Image.open(file).convert("RGB") for file in files]
        cut = [im.crop((border, border, im.width - border, im.height - border)) for im in opened]
        with torch.inference_mode():
            return torch.cat([self.model(self.transform(im)[None]) for im in cut])

    def score(self, spec: dict[str, Any], metric: str = "accuracy", **keys: Any) -> Any:
        return score({**self.recipe, "metric": metric, "val": {"val": spec}, **keys}, self.run)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Timm:
    return Timm(tmp_path_factory.mktemp("timm"))


def assert_losses(found: Any, logits_nc: Tensor, labels_n: Tensor) -> None:
    """Accuracy exactly, nll to the rounding of a batch of another size."""
    assert found.metrics["accuracy"].value == (logits_nc.argmax(dim=1) == labels_n).sum().item() / len(labels_n)
    losses_n = cross_entropy(logits_nc.double(), labels_n, reduction="none")
    assert torch.allclose(found.outcomes["nll"], losses_n, rtol=1e-5)


@pytest.mark.parametrize("as_", ["range", "glob", "folder"])
def test_shards(network: Timm, tmp_path: Path, as_: str) -> None:
    """The same pictures in shards and in class folders: the same contributions, bit for bit."""
    files = class_folders(tmp_path / "val", {f"{label:02}": 2 for label in range(CLASSES)}, size=(170, 180))
    (tmp_path / "shards").mkdir()
    for number, part in enumerate((files[:10], files[10:])):
        with tarfile.open(tmp_path / f"shards/val-{number:03}.tar", "w") as archive:
            for place, (file, label) in enumerate(part):
                archive.add(file, f"{place}{file.suffix.lower()}")
                (tmp_path / "label").write_text(str(label))
                archive.add(tmp_path / "label", f"{place}.cls")
    where = {"range": "shards/val-{000..001}.tar", "glob": "shards/*.tar", "folder": "shards"}[as_]
    found = network.score({"images": tmp_path / where}, "nll")
    assert torch.equal(found.outcomes["nll"], network.score({"images": tmp_path / "val"}, "nll").outcomes["nll"])


def test_shifted_set(network: Timm, tmp_path: Path) -> None:
    """Like ImageNet-R: folders of wnids that are a part of the classes, judged among these alone."""
    covered = [2, 3, 7, 11]
    files = class_folders(tmp_path / "r", {WNIDS[k]: 5 for k in covered}, size=(170, 180))
    logits_nc = network.logits([file for file, _ in files])[:, covered]
    labels_n = torch.tensor([label for _, label in files])
    (tmp_path / "ids.txt").write_text("".join(f"{WNIDS[k]}\n" for k in covered))
    for classes in (tmp_path / "ids.txt", covered, "folders"):
        found = network.score({"images": tmp_path / "r", "classes": classes}, metrics=["nll", "top5"])
        assert_losses(found, logits_nc, labels_n)
        assert found.metrics["top5"].value == 1.0


def test_a_part_of_the_set(network: Timm, tmp_path: Path) -> None:
    """A list leaves the other folders out: the whole set judged on the classes of another one."""
    files = class_folders(tmp_path / "val", {WNIDS[k]: 3 for k in range(CLASSES)}, size=(170, 180))
    kept = [(file, [4, 9].index(label)) for file, label in files if label in (4, 9)]
    found = network.score({"images": tmp_path / "val", "classes": [4, 9]}, metrics=["nll"])
    assert_losses(found, network.logits([f for f, _ in kept])[:, [4, 9]], torch.tensor([k for _, k in kept]))


def test_several_logits_for_one_class(network: Timm, tmp_path: Path) -> None:
    """Like ObjectNet: a map to several logits, the largest counts; folders it lacks are left out, borders cut off."""
    files = class_folders(tmp_path / "o", {"bench": 4, "mug": 4, "yoyo": 2}, size=(170, 180))
    kept = [(file, label) for file, label in files if label < 2]
    spec = {"images": tmp_path / "o", "classes": {"bench": [5, 1, 8], "mug": 3}, "border": 2}
    logits_nk = network.logits([file for file, _ in kept], border=2)
    # In the order of the logits: bench, then mug.
    logits_nc = torch.stack([logits_nk[:, [1, 5, 8]].max(dim=1).values, logits_nk[:, 3]], dim=1)
    found = network.score(spec, metrics=["nll"])
    assert_losses(found, logits_nc, torch.tensor([label for _, label in kept]))
    with pytest.raises(ValidationError, match=r"bench/0.jpg: is 170 x 180, border: 90 leaves nothing of it"):
        network.score({**spec, "border": 90})


def test_several_labels(network: Timm, tmp_path: Path) -> None:
    """Like ReaL: pictures in any folders, right if the largest logit is one of the labels, none: left out."""
    files = [noise(tmp_path / f"val/{n % 2}/ILSVRC2012_val_{n + 1:08d}.png", size=(170, 180), seed=n) for n in range(9)]
    right = torch.randint(0, CLASSES, (9, 3)).tolist()
    right[4] = []
    (tmp_path / "real.json").write_text(json.dumps(right))
    spec = {"images": tmp_path / "val", "labels": tmp_path / "real.json"}
    best = network.logits(files).argmax(dim=1).tolist()
    found = network.score(spec)
    assert found.value == sum(best[n] in right[n] for n in range(9)) / 8
    assert found.metrics["accuracy"].n == 8
    with pytest.raises(
        ValidationError, match=r"val.val: has several right classes .*, which nll does not measure"
    ) as e:
        network.score(spec, "nll")
    assert e.value.hint == "--metric accuracy or top5"
    with pytest.raises(ValidationError, match="not on several"):
        evaluators({**network.recipe, "val": {"val": spec}}, network.run).labelled("val")


def test_too_few_folders(network: Timm, tmp_path: Path) -> None:
    """Fewer folders than the network has classes, and nothing says which they are: every label would be a guess."""
    class_folders(tmp_path / "val", {WNIDS[k]: 1 for k in (2, 3)}, size=(170, 180))
    with pytest.raises(ValidationError, match="val: has 2 classes, the network has 12") as raised:
        network.score({"images": tmp_path / "val"})
    assert "classes: in the recipe" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("classes: 3", "val.v.classes: expected a file, 'folders', a list of class ids, or a map .*, got 3"),
        ("classes: []", "val.v.classes: expected a file, .*got \\[\\]"),
        ("classes: [1.5]", "val.v.classes: expected a file, .*got \\[1.5\\]"),
        ("classes: {a: -1}", "val.v.classes: expected a file, .*got {'a': -1}"),
        ("classes: [1], labels: l.json", "val.v: labels: holds indices of logits, classes: and class_to_index:"),
        ("classes: {a: 1}, class_to_index: {a: 1}", "val.v: class_to_index: and a map in classes: both say"),
        ("border: -1", "val.v.border: expected at least 0, got -1"),
        ("clases: [1]", "val.v.clases: unknown key, did you mean 'classes'"),
    ],
)
def test_recipes_of_pictures(keys: str, problem: str, tmp_path: Path) -> None:
    """Keys that say nothing, or two things, with their place."""
    (tmp_path / "soup.yaml").write_text(f"val:\n  v: {{images: x, {keys}}}\n")
    with pytest.raises(RecipeError, match=rf"soup.yaml:2:\d+: {problem}"):
        load_recipe(tmp_path / "soup.yaml")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("{tokens: x, stride: 2000}", "val.v: stride: 2000 is more than the context, 1024"),
        ("{tokens: x, context: 1}", "val.v.context: expected more than 1, got 1"),
        ("{lm_eval: arc_easy}", "val.v.lm_eval: expected a list, got 'arc_easy'"),
        ("{lm_eval: []}", r"val.v.lm_eval: expected a list of at least 1, got \[\]"),
        ("{lm_eval: [a], limit: 0}", "val.v.limit: expected more than 0, got 0"),
        ("{lm_eval: [a], fewshot: 1}", "val.v.fewshot: unknown key, did you mean 'num_fewshot'"),
    ],
)
def test_recipes_of_language_models(spec: str, problem: str, tmp_path: Path) -> None:
    """Windows that would leave tokens out, tasks that are no list."""
    (tmp_path / "soup.yaml").write_text(f"val:\n  v: {spec}\n")
    with pytest.raises(RecipeError, match=rf"soup.yaml:2:\d+: {problem}"):
        load_recipe(tmp_path / "soup.yaml")


def test_zero_shot_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLIP head over all class names, judged among some: open_clip's bits; built once for each weights."""
    run, names = folder_of(tmp_path / "run", CONFIG), ["tabby cat", "great dane", "emu", "mug", "bench"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    files = class_folders(tmp_path / "val", {"a": 3, "b": 4})
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{run}")
    tokenizer, built = open_clip.get_tokenizer(f"local-dir:{run}"), open_clip.build_zero_shot_classifier
    classifier_dk = built(model.eval(), tokenizer, names, ["a photo of a {}."])
    with torch.inference_mode():
        features = model.encode_image(torch.stack([preprocess(Image.open(file)) for file, _ in files]), normalize=True)
        logits_nk = model.logit_scale.exp() * features @ classifier_dk
    calls: list[int] = []

    def counted(*words: Any, **keys: Any) -> Any:
        calls.append(1)
        return built(*words, **keys)

    monkeypatch.setattr(open_clip, "build_zero_shot_classifier", counted)
    spec = {"images": tmp_path / "val", "classnames": tmp_path / "names.txt"}
    sets = {"val": {**spec, "classes": [4, 1]}, "map": {**spec, "classes": {"a": [0, 3], "b": 2}}}
    made = evaluators({"val": sets, "metric": "nll"}, run)
    weights = Mixture.uniform([open_checkpoint(run)])
    labels_n = torch.tensor([label for _, label in files])
    for name, logits_nc in (
        ("val", logits_nk[:, [4, 1]]),
        ("map", torch.stack([logits_nk[:, [0, 3]].amax(dim=1), logits_nk[:, 2]], dim=1)),
    ):
        wanted = cross_entropy(logits_nc.double(), labels_n, reduction="none")
        assert torch.equal(made.on(name)(weights).outcomes["nll"], wanted)
    assert len(calls) == 1
    made.on("map")(Mixture.uniform([open_checkpoint(run)], dtype=Dtype.BFLOAT16))
    assert len(calls) == 2
    with pytest.raises(ValidationError, match="has 2 classes, the network has 5"):
        score({"val": {"val": spec}}, run)


def test_numbers(tmp_path: Path) -> None:
    """Sentences with measurements as labels: one logit against them, as scipy correlates the model's own outputs."""
    config = transformers.BertConfig(
        vocab_size=len(toys.WORDS), max_position_embeddings=32, num_labels=1, problem_type="regression", **toys.SIZES
    )
    toys.bert_tokenizer(tmp_path / "run")
    model = toys.saved(transformers.BertForSequenceClassification(config), tmp_path / "run")
    sentences = ["good film", "bad", "a very bad plot", "not good", "the plot was good", "very good"]
    measured = [4.5, 1.0, 0.25, 2.0, 3.0, 5.0]
    (tmp_path / "sts.csv").write_text(
        "text,label\n" + "".join(f"{s},{m}\n" for s, m in zip(sentences, measured, strict=True))
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    with torch.inference_mode():
        predicted = torch.cat([model(**tokenizer(s, return_tensors="pt")).logits[:, 0] for s in sentences]).double()
    recipe: dict[str, Any] = {"val": {"val": {"text": tmp_path / "sts.csv"}}, "metrics": ["spearman", "mse", "ece"]}
    found = score({**recipe, "metric": "pearson"}, tmp_path / "run")
    assert list(found.metrics) == ["pearson", "spearman", "mse"]
    assert found.value == pytest.approx(stats.pearsonr(predicted, measured).statistic, rel=1e-4)
    assert found.metrics["spearman"].value == pytest.approx(stats.spearmanr(predicted, measured).statistic, rel=1e-9)
    wanted = (predicted - torch.tensor(measured, dtype=torch.float64)).square().mean().item()
    assert found.metrics["mse"].value == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ValidationError, match=r"row 1: label '4.5' is a measurement, not a class"):
        score(recipe, tmp_path / "run")
    toys.bert(tmp_path / "two")
    with pytest.raises(ValidationError, match=r"val.val: labels are numbers, and the network gives 2 for each example"):
        score({**recipe, "metric": "mse"}, tmp_path / "two")
    (tmp_path / "sts.csv").write_text("text,label\ngood,high\n")
    with pytest.raises(ValidationError, match="row 1: label 'high' is not a number"):
        score({**recipe, "metric": "mse"}, tmp_path / "run")


NAMES = ["accuracy", "top5", "nll", "ece", "f1", "mcc"]


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_family(tmp_path / "family", members=2)
    monkeypatch.chdir(tmp_path / "family")
    return {"model": {"python": "net.py:build"}, "val": {"val": {"arrays": "data/val.safetensors"}}}


def test_all_at_once(family: dict[str, Any]) -> None:
    """Several metrics of one pass through the set are those that each has alone; the first selects."""
    passes = score({**family, "metric": "nll", "metrics": NAMES}, Path("runs/0"))
    assert (passes.selecting, list(passes.metrics)) == ("nll", ["nll", *[n for n in NAMES if n != "nll"]])
    assert passes.examples == 200
    for name in NAMES:
        assert score({**family, "metric": name}, Path("runs/0")).metrics[name] == passes.metrics[name]


def test_batch_size_changes_nothing(family: dict[str, Any]) -> None:
    """Counts are the same to the bit in batches of any size, probabilities to their own rounding."""
    found = [
        score({**family, "metrics": NAMES, "batch_size": size}, Path("runs/0"), cache=Path(f"cache{size}"))
        for size in (64, 1, 37, 200)
    ]
    for name in NAMES:
        values = [one.metrics[name].value for one in found]
        exact = name not in ("nll", "ece")
        assert all(value == (values[0] if exact else pytest.approx(values[0], rel=1e-5)) for value in values)


def test_f1_and_matthews(family: dict[str, Any]) -> None:
    """From the recipe to the value: what scikit-learn says of the network's own predictions."""
    net = build_net()
    net.load_state_dict(load_file("runs/0/model.safetensors"))
    data = load_file("data/val.safetensors")
    with torch.inference_mode():
        predicted = net(data["inputs"]).argmax(dim=1)
    found = score({**family, "metric": "f1", "metrics": ["mcc"]}, Path("runs/0"))
    assert found.value == pytest.approx(f1_score(data["labels"], predicted, average="macro"), abs=1e-12)
    assert found.metrics["mcc"].value == pytest.approx(matthews_corrcoef(data["labels"], predicted), abs=1e-12)


def test_kept_by_all_that_counts(network: Timm, tmp_path: Path) -> None:
    """Other metrics, classes, labels or borders, and another content of the files with them, are evaluated anew."""
    class_folders(tmp_path / "val", {WNIDS[k]: 1 for k in (2, 3)}, size=(170, 180))
    ids = tmp_path / "ids.txt"
    ids.write_text("2\n3\n")
    spec = {"images": tmp_path / "val", "classes": ids}
    cache = tmp_path / "cache"

    def examples(keys: dict[str, Any], **recipe: Any) -> int:
        val = {"val": {"val": {**spec, **keys}}}
        return score({**network.recipe, **val, **recipe}, network.run, cache=cache).examples

    changes: list[dict[str, Any]] = [{}, {"classes": [3, 2]}, {"classes": "folders"}, {"border": 1}]
    assert [examples(change) for change in changes] == [2, 2, 2, 2]
    assert [examples(change) for change in changes] == [0, 0, 0, 0]
    assert examples({}, metrics=["nll"]) == 2
    ids.write_text("2\n3\n4\n")
    assert examples({}) == 2


def test_sets_of_numbers_fit_nothing(tmp_path: Path, family: dict[str, Any]) -> None:
    """Arrays with numbers as labels: their error is measured, coefficients are not fitted on them."""
    save_file({"inputs": torch.randn(9, 8), "labels": torch.randn(9)}, "numbers.safetensors")
    recipe = {**family, "val": {"val": {"arrays": "numbers.safetensors"}}, "metric": "mse"}
    with pytest.raises(ValidationError, match="labels are numbers, and the network gives 3"):
        score(recipe, Path("runs/0"))
    with pytest.raises(ValidationError, match="on classes or rows of 0 and 1, not on numbers"):
        evaluators(recipe, Path("runs/0")).labelled("val")
    with pytest.raises(ValidationError, match="has numbers as labels, which accuracy does not measure"):
        score({**recipe, "metric": "accuracy"}, Path("runs/0"))


def test_classnames_for_other_networks(network: Timm, tmp_path: Path) -> None:
    """Class names are for CLIP alone."""
    class_folders(tmp_path / "val", {"a": 1}, size=(170, 180))
    (tmp_path / "names.txt").write_text("a\n")
    with pytest.raises(NetworkError, match="classnames: are for a CLIP network"):
        network.score({"images": tmp_path / "val", "classnames": tmp_path / "names.txt"})
