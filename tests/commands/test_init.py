"""`soup init` writes a recipe from which the same folder runs, and says what it did not find."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from soupcli.recipe.precedence import load_recipe
from tests.conftest import Ran

Soup = Callable[..., Ran]


def test_runs_from_it(family: Path, soup: Soup) -> None:
    """The recipe found equals in effect the one written by hand: the same ranking on the same sets."""
    by_hand = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--json").stdout)
    Path("soup.yaml").unlink()
    ran = soup("init")
    assert (ran.code, ran.stdout) == (0, "soup.yaml\n")
    assert ran.stderr == "soup.yaml: 5 checkpoints (runs/*/), 2 sets (val, test), model known\n"
    command = Path("soup.yaml").read_text().splitlines()[0]
    assert command == "# soup greedy --ckpts runs/*/ --val val test"
    found = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "test", "--json").stdout)
    assert found["ingredients"] == by_hand["ingredients"]
    assert soup(*command.split()[2:], "--quiet").stdout == "soup/model.safetensors\n"


def test_refuses_to_replace(family: Path, soup: Soup) -> None:
    """A recipe that is there stays; --force replaces one that is as soup init wrote it, and none that was edited."""
    before = Path("soup.yaml").read_text()
    ran = soup("init")
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr == "soup.yaml: exists already\n\nhint: --force replaces it, --out writes elsewhere\n"
    assert Path("soup.yaml").read_text() == before
    ran = soup("init", "--force")
    assert (ran.code, Path("soup.yaml").read_text()) == (2, before)
    assert "soup.yaml: exists and is not as soup init wrote it: nothing else is replaced" in ran.stderr
    Path("soup.yaml").unlink()
    assert soup("init").code == 0
    written = Path("soup.yaml").read_text()
    Path("runs/4").rename("gone")
    torch.save(torch.zeros(3), "data.pt")  # a file of tensors in the folder itself is no run with a best and a last
    assert soup("init", "--force").code == 0
    assert "--prefer" not in Path("soup.yaml").read_text()
    Path("soup.yaml").write_text(written.replace("soup/", "soups/"))
    assert soup("init", "--force").code == 2


def test_empty_folder(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder the recipe is one of comments to fill in; it reads as a recipe all the same."""
    monkeypatch.chdir(tmp_path)
    ran = soup("init")
    assert ran.code == 0
    assert ran.stderr == "soup.yaml: 0 checkpoints, no validation sets, model not known: fill it in\n"
    recipe = load_recipe(Path("soup.yaml"))
    assert (recipe.model, recipe.val, recipe.metric) == (None, {}, "accuracy")
    assert "# model: {timm: " in Path("soup.yaml").read_text()


def test_finds_sets(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures in class folders, sentences and arrays become sets under their names; training data does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/val/cat").mkdir(parents=True)
    (tmp_path / "data/val/cat/1.jpg").write_bytes(b"")
    (tmp_path / "data/train/cat").mkdir(parents=True)
    (tmp_path / "data/train/cat/1.jpg").write_bytes(b"")
    (tmp_path / "dev set.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 1}\n')
    (tmp_path / "test.csv").write_text("text,label\na,1\n")
    (tmp_path / "other.csv").write_text("price,size\n1,1\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    save_file({"inputs": torch.zeros(2, 3), "labels": torch.zeros(2)}, tmp_path / "arrays.safetensors")
    soup("init")
    assert yaml.safe_load(Path("soup.yaml").read_text())["val"] == {
        "dev set": {"text": "dev set.jsonl", "input": ["sentence1", "sentence2"], "label": "label"},
        "val": {"images": "data/val"},
        "arrays": {"arrays": "arrays.safetensors"},
        "test": {"text": "test.csv", "input": ["text"], "label": "label"},
    }
    assert list(load_recipe(Path("soup.yaml")).val) == ["dev set", "val", "arrays", "test"]


def test_what_sets_say(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of 0 and 1 name classes and pictures, whose size is told; a function of (model, device) evaluates."""
    monkeypatch.chdir(tmp_path)
    for name in ("val/a.png", "test/b.png", "more/c.png", "more/d.png"):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 32)).save(Path("data", name))
    Path("data/val.csv").write_text("file,cat,dog,split\nval/a.png,1,0,val\n")
    Path("data/test.csv").write_text("file,cat,dog\ntest/b.png,0,1\n")
    Path("data/more.csv").write_text("c.png,cat\nd.png,dog\n")
    Path("comments.csv").write_text("id,comment,toxic,insult\n1,oh,0,1\n0,ah,1,1\n")
    Path("mine.py").write_text(
        "def wer(model, device):\n    return 0.5\n\n\ndef train(model, device):\n    return model\n"
    )
    assert soup("init").code == 0
    recipe = load_recipe(Path("soup.yaml"))
    assert (recipe.metric, list(recipe.val)) == ("map", ["val", "comments", "more", "test", "wer"])
    assert yaml.safe_load(Path("soup.yaml").read_text())["val"] == {
        "val": {"images": "data/val", "labels": "data/val.csv", "label": ["cat", "dog"]},
        "comments": {"text": "comments.csv", "input": ["comment"], "label": ["toxic", "insult"]},
        "more": {"images": "data/more", "labels": "data/more.csv", "metric": "accuracy"},
        "test": {"images": "data/test", "labels": "data/test.csv"},
        "wer": {"python": "mine.py:wer", "metric": "wer"},
    }
    assert "# pictures of 32 x 48: size: [32, 48] if they went into training like that" in Path("soup.yaml").read_text()


@pytest.mark.parametrize(("scores", "metric"), [("4.0 0.25", "spearman"), ("4.0 1.0", "accuracy"), ("3 1", "accuracy")])
def test_scores_of_pairs(scores: str, metric: str, tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels with a fraction are measured, whole ones are classes."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"a,b,{score}\n" for score in scores.split())
    Path("sts.csv").write_text(f"sentence1,sentence2,score\n{rows}")
    soup("init")
    assert load_recipe(Path("soup.yaml")).metric == metric


def test_embeddings(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of sentence-transformers get functions that compare embeddings, in a file that runs; it is kept."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        Path(f"models/{seed}").mkdir(parents=True)
        Path(f"models/{seed}/modules.json").write_text(
            '[{"path": "", "type": "sentence_transformers.models.Transformer"}]'
        )
        Path(f"models/{seed}/config.json").write_text('{"model_type": "bert"}')
        save_file({name: torch.zeros(2) for name in "abc"}, Path(f"models/{seed}/model.safetensors"))
    for name in ("dev", "test"):
        Path(f"{name}.csv").write_text("a,sentence1,sentence2,score\n1,x,y,0.5\n1,y,z,0.25\n")
    Path("reviews.csv").write_text("text,label\na,1\n")
    ran = soup("init")
    assert ran.code == 0, ran.stderr
    recipe = yaml.safe_load(Path("soup.yaml").read_text())
    assert recipe["model"] == {"sentence_transformers": "auto"} and recipe["metric"] == "spearman"
    assert recipe["val"] == {
        name: {"python": f"pair_scores.py:pairs_{name}", "metric": "spearman"} for name in ("dev", "test")
    }

    class Same:
        def encode(self, sentences: list[str], **_: bool) -> torch.Tensor:
            return torch.tensor([[ord(text[0]) - 119.0, 1.0] for text in sentences])

    defined: dict[str, object] = {}
    exec(compile(Path("pair_scores.py").read_text(), "pair_scores.py", "exec"), defined)
    assert defined["pairs_dev"](Same(), "cpu") == {"spearman": pytest.approx(-1.0), "n": 2}  # type: ignore[operator]
    Path("pair_scores.py").write_text("def mine(model, device):\n    return 1\n")
    soup("init", "--force")
    assert list(load_recipe(Path("soup.yaml")).val) == ["mine"] and "mine" in Path("pair_scores.py").read_text()


def test_a_metric_for_each_set(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set whose labels are of another kind than those of the first one has its own metric."""
    monkeypatch.chdir(tmp_path)
    Path("dev.csv").write_text("text,label\na,1\nb,0\n")
    Path("sts.csv").write_text("sentence1,sentence2,score\na,b,0.5\na,c,0.25\n")
    assert soup("init").code == 0
    recipe = load_recipe(Path("soup.yaml"))
    assert [recipe.metric, *(one.metric for one in recipe.val.values())] == ["accuracy", None, "spearman"]


def test_adapters(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters of a language model have its library, and a text is a set of them."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        folder = Path(f"adapters/{seed}")
        folder.mkdir(parents=True)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": 2,
            "lora_alpha": 4,
            "base_model_name_or_path": "b",
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
        parts = [f"base_model.model.{layer}.lora_{factor}.weight" for layer in "xyz" for factor in "AB"]
        save_file({name: torch.zeros(2, 2) for name in parts}, folder / "adapter_model.safetensors")
    Path("val.txt").write_text("word " * 1000)
    assert soup("init").stderr == "soup.yaml: 2 checkpoints (adapters/*/), 1 set (val), model known\n"


def test_takes_the_largest_group(family: Path, soup: Soup) -> None:
    """Of several folders of checkpoints the one with most is named; a soup beside them is none of them."""
    soup("uniform", "--ckpts", "runs/*/")
    shutil.copytree("runs", "more")
    shutil.rmtree("more/4")
    Path("soup.yaml").unlink(missing_ok=True)
    assert "5 checkpoints (runs/*/)" in soup("init").stderr


def test_elsewhere(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--out looks into the folder of the recipe that it writes."""
    monkeypatch.chdir(tmp_path)
    ran = soup("init", "--out", "family/new.yaml")
    assert "5 checkpoints (runs/*/), 2 sets (val, test)" in ran.stderr
    assert load_recipe(Path("family/new.yaml")).val == load_recipe(Path("family/soup.yaml")).val


def test_any_depth(family: Path, soup: Soup) -> None:
    """Checkpoints are found at any depth; soups, other networks and what is called a start are not among them."""
    for number in range(5):
        shutil.move(f"runs/{number}", f"runs/lr{number}/seed/out/final")
    shutil.copytree("runs/lr0", "runs/start")
    (Path("runs/other")).mkdir()
    save_file({f"{name}.weight": torch.zeros(2) for name in "abc"}, "runs/other/model.safetensors")
    soup("uniform", "--ckpts", "runs/lr0", "runs/lr1", "--out", "runs/mean")
    Path("soup.yaml").unlink()
    ran = soup("init")
    assert ran.stderr.startswith("soup.yaml: 5 checkpoints (runs/lr0 runs/lr1 runs/lr2 runs/lr3 runs/lr4), 2 sets")
    command = Path("soup.yaml").read_text().splitlines()[0]
    assert soup(*command.split()[2:], "--quiet").code == 0


@pytest.mark.parametrize(
    ("word", "taken", "other"),
    [("best", "best.safetensors", "last.safetensors"), ("last", "model_3.safetensors", "checkpoint.safetensors")],
)
def test_one_of_each_run(family: Path, soup: Soup, word: str, taken: str, other: str) -> None:
    """Runs with several checkpoints, a best one or epochs, are offered with --prefer; the command runs."""
    for number in range(5):
        folder = Path(f"runs/{number}")
        (folder / "model.safetensors").rename(folder / taken)
        save_file({"0.weight": torch.zeros(1)}, folder / other)
    Path("soup.yaml").unlink()
    assert f"5 checkpoints (runs/ --prefer {word})" in soup("init").stderr
    command = Path("soup.yaml").read_text().splitlines()[0]
    ran = soup(*command.split()[2:], "--quiet")
    assert (ran.code, ran.stdout) == (0, f"soup/{taken}\n"), ran.stderr


def test_more_kinds_of_text(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A csv with one other column beside its label is a set; a text is one for a network that writes text."""
    monkeypatch.chdir(tmp_path)
    Path("dev.csv").write_text("id,comment,stars\n1,good,5\n")
    Path("wiki.txt").write_text("word " * 1000)
    assert "dev" in soup("init").stderr and "wiki" not in Path("soup.yaml").read_text()
    assert load_recipe(Path("soup.yaml")).val["dev"].model_dump()["input"] == ["comment"]
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_file({f"{key}.weight": torch.zeros(2) for key in "xyz"}, f"runs/{name}/model.safetensors")
        config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(config))
    assert soup("init", "--force").code == 0
    assert load_recipe(Path("soup.yaml")).val["wiki"].model_dump()["tokens"] == Path("wiki.txt")
