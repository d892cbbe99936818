"""Every key of a recipe and every flag is in the keys of kept scores, or is known to change none of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.cli.app import COMMANDS
from soupcli.cli.options.common import IngredientOptions
from soupcli.commands.learned import _store
from soupcli.datasets.holdout import divide
from soupcli.evaluation import keys as keys_module
from soupcli.evaluation.evaluators import Evaluators
from soupcli.evaluation.outside.lm_eval import Tasks
from soupcli.files.manifest import Manifest
from soupcli.mixing.mixture import Mixture
from soupcli.recipe.methods import Cost, Greedy, Learned, Mix, Window
from soupcli.recipe.networks import NETWORKS
from soupcli.recipe.recipe import Recipe
from soupcli.recipe.section import Section
from soupcli.recipe.sets import SETS
from soupcli.run.words.recipe import LEARNED_KEYS, RECIPE_KEYS
from tests.helpers.evaluators import evaluators

ARRAYS = {"arrays": "val.safetensors"}
COMMAND = {"command": "python other.py {checkpoint}", "metric": "accuracy"}
BASE: dict[str, Any] = {"metric": "nll", "model": {"python": "net.py:build"}, "val": {"val": ARRAYS, "theirs": COMMAND}}

# Another value of each key that changes a score, as it is given in a recipe.
CHANGES: dict[str, Any] = {
    "metric": "accuracy",
    "metrics": ["accuracy"],
    "gates": {"val.accuracy": ">= 0.2"},
    "batch_norm": "recalibrate",
    "format": "torch",
    "keep_state": True,
    "max_shard_size": "1MB",
    "batch_size": 7,
    "amp": "bf16",
    "channels_last": True,
    "compile": True,
}
OF_WEIGHTS = "it chooses or makes weights, whose content is in every key"
ELSEWHERE = {
    **dict.fromkeys(
        ("ckpts", "window", "mix", "scale", "include", "exclude", "take", "base", "key", "dtype"), OF_WEIGHTS
    ),
    **dict.fromkeys(("model", "val", "learned"), "a test of its own, below"),
    "holdout": "a test of its own, below",
    "merge_adapters": "in the keys of commands: test_outside_keys",
    "device": "its kind is in every key",
}
NO_SCORE = {
    "objective": "combines scores",
    "require_gain": "compares scores",
    "greedy": "decides by scores",
    "early_stop": "decides by scores: what was stopped has a key of its own",
    "cost": "counts operations",
    "adapter_rank": "of the soup's files: the exact sum is evaluated",
    **dict.fromkeys(("out", "card"), "where, and what beside the soup"),
    **dict.fromkeys(("workers", "cache_inputs", "cache_limit"), "how inputs are decoded and kept"),
}
SET_CHANGES: dict[str, dict[str, Any]] = {
    "arrays": {"arrays": "other.safetensors", "metric": "accuracy"},
    "images": {
        "images": "pictures",
        "metric": "accuracy",
        "class_to_index": {"a": 1, "b": 0},
        "class_order": "natural",
        "classes": [1, 0],
        "labels": "labels.csv",
        "label": {"labels": "labels.csv", "label": ["a"]},
        "transform": "net.py:transform",
        "size": 8,
        "crop": 8,
        "mean": [0.1, 0.1, 0.1],
        "std": [0.1, 0.1, 0.1],
        "interpolation": "nearest",
        "border": 1,
        "classnames": "names.txt",
        "templates": "names.txt",
    },
    "text": {
        "text": "other.jsonl",
        "metric": "accuracy",
        "input": ["a"],
        "label": "other",
        "template": "{a}",
        "labels": ["no", "yes"],
        "max_length": 3,
    },
    "tokens": {"tokens": "names.txt", "context": 8, "stride": 8},
    "lm_eval": {
        "lm_eval": ["b"],
        "metric": "f1",
        "limit": 3,
        "num_fewshot": 1,
        "include_path": "tasks",
        "depends": ["names.txt"],
        "version": 1,
        "keep": False,
    },
    "python": {
        "python": "net.py:other",
        "metric": "f1",
        "higher_is_better": False,
        "depends": ["names.txt"],
        "version": 1,
        "keep": False,
    },
    "command": {
        "command": "python other.py -x {checkpoint}",
        "metric": "f1",
        "higher_is_better": False,
        "depends": ["names.txt"],
        "version": 1,
        "keep": False,
    },
}
SET_NO_SCORE = {
    "tokens.metric": "has one value",
    "command.timeout": "a command that takes longer has no score",
    "command.retries": "a command that fails has no score",
}
SET_BASE: dict[str, dict[str, Any]] = {
    "arrays": ARRAYS,
    "images": {"images": "val"},
    "text": {"text": "val.jsonl"},
    "tokens": {"tokens": "val.txt"},
    "lm_eval": {"lm_eval": ["a"]},
    "python": {"python": "net.py:evaluate", "metric": "accuracy"},
    "command": COMMAND,
}
NETWORK_CHANGES: dict[str, dict[str, Any]] = {
    "timm": {"timm": "other", "test_size": True, "args": {"x": 1}},
    "transformers": {"transformers": "Other", "head": 3, "args": {"x": 1}},
    "sentence_transformers": {"args": {"x": 1}},
    "open_clip": {"open_clip": "other", "head": 3, "args": {"x": 1}},
    "torchvision": {"torchvision": "other", "args": {"x": 1}},
    "python": {"python": "net.py:other", "transform": "net.py:transform", "args": {"x": 1}},
}
NETWORK_NO_SCORE = {"sentence_transformers.sentence_transformers": "has one value"}
NETWORK_BASE = dict.fromkeys(NETWORKS, "auto") | {"python": "net.py:build"}
LEARNED_CHANGES: dict[str, Any] = {
    "by": {"by": "search"},
    "per": "tensor",
    "groups": {"by": "search", "groups": 2},
    "budget": {"by": "search", "budget": 7},
    "constraint": "affine",
    "start": "greedy",
    "steps": 7,
    "lr": 0.5,
    "schedule": "constant",
    "batch_size": 7,
    "weight_decay": 0.5,
    "label_smoothing": 0.5,
    "temperature": False,
    "fold_temperature": True,
    "holdout": 0.5,
    "folds": 3,
    "seed": 7,
}
LEARNED_NO_SCORE = {"resident": "where the ingredients are kept"}
FLAGS = {
    **dict.fromkeys(("ckpts", "weights_name", "pairs", "seed", "grid", "margin"), OF_WEIGHTS),
    **dict.fromkeys(("recipe", "set_", "recalibrate", "by"), "they give keys of the recipe"),
    "val": "chooses sets, whose content is in the keys of their scores",
    **dict.fromkeys(("trust", "allow_class"), "have no effect"),
    "trust_code": "without it code beside the weights, which is in the key, is refused",
    **dict.fromkeys(("jobs", "speculate"), "how many commands run at once, and which before they are needed"),
    **dict.fromkeys(("as_json", "quiet", "dry_run", "relative", "output_format", "strict"), "what is printed"),
    **dict.fromkeys(("force", "report", "report_to"), "what is written"),
    "fresh": "ignores kept scores",
    **dict.fromkeys(("logits", "save_logits"), "keep logits under keys of their own"),
    "scores": "takes the place of scores",
    "with_uniform": "evaluates one soup more",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ingredients, and files for sets of every kind."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"val": 0.0, "other": 1.0}.items():
        save_file({"inputs": torch.full((4, 3), value), "labels": torch.zeros(4).long()}, f"{name}.safetensors")
    for place in ("val/a", "val/b", "pictures/a", "pictures/b"):
        Path(place).mkdir(parents=True)
        Image.new("RGB", (2, 2), (len(place), 0, 0)).save(f"{place}/0.bmp")
    Path("tasks").mkdir()
    texts = {"names.txt": "a\nb\n", "val.txt": "words", "val.jsonl": "{}\n", "other.jsonl": "{} \n", "other.py": ""}
    texts |= {"net.py": "build = evaluate = other = transform = print\n", "labels.csv": "file_name,a\n", "tasks/x": ""}
    for name, text in texts.items():
        Path(name).write_text(text)
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        save_file({"weight": torch.full((2, 3), float(number))}, f"runs/{number}/model.safetensors")
    monkeypatch.setattr("soupcli.evaluation.outside.lm_eval.load", _tasks)
    return tmp_path


def _tasks(spec: Any, *, trust_code: bool) -> Tasks:
    shots = spec.num_fewshot or 0
    task = SimpleNamespace(
        get_config=lambda _: shots, dump_config=lambda: {"shots": shots}, eval_docs=list("abcdef"), fewshot_docs=list
    )
    return Tasks(spec, {"tasks": dict.fromkeys(spec.lm_eval, task)}, [])


def keys(recipe: Mapping[str, Any]) -> dict[str, str | None]:
    """The keys of the scores of a mean on every set of the recipe."""
    found = evaluators(dict(recipe), Path("runs/0"))
    mean = Mixture.uniform([open_checkpoint(Path(f"runs/{number}")) for number in range(2)])
    return {name: found._keys.of_score(name, mean) for name in found.context.sets}


def assert_classified(fields: Mapping[str, object], *tables: Mapping[str, Any]) -> None:
    """Each key of the schema is in one of the tables, and nothing else is."""
    listed = [key for table in tables for key in table]
    assert sorted(listed) == sorted(fields), "say whether it changes a score, and see to it that it is in its key"


def test_keys_of_the_recipe(folder: Path) -> None:
    """What changes a score changes a key; a key of the recipe that nobody has thought of fails here."""
    assert_classified(Recipe.model_fields, CHANGES, ELSEWHERE, NO_SCORE)
    before = keys(BASE)
    for key, value in CHANGES.items():
        assert keys({**BASE, key: value}) != before, key


@pytest.mark.parametrize("kind", SETS)
def test_keys_of_sets(folder: Path, kind: str) -> None:
    """Each key of each kind of set."""
    own = {key.partition(".")[2]: why for key, why in SET_NO_SCORE.items() if key.startswith(f"{kind}.")}
    assert_classified(SETS[kind].model_fields, SET_CHANGES[kind], own)
    before = keys({**BASE, "val": {"val": SET_BASE[kind]}})
    for key, value in SET_CHANGES[kind].items():
        changed = {**SET_BASE[kind], **(value if key == "label" and kind == "images" else {key: value})}
        if "template" in changed:
            changed.pop("input", None)
        assert keys({**BASE, "val": {"val": changed}}) != before, key


@pytest.mark.parametrize("library", NETWORKS)
def test_keys_of_networks(folder: Path, library: str) -> None:
    """Each key of each kind of network."""
    own = {key.partition(".")[2]: why for key, why in NETWORK_NO_SCORE.items() if key.startswith(f"{library}.")}
    assert_classified(NETWORKS[library].model_fields, NETWORK_CHANGES[library], own)
    model = {library: NETWORK_BASE[library]}
    before = keys({**BASE, "model": model})["val"]
    for key, value in NETWORK_CHANGES[library].items():
        assert keys({**BASE, "model": {**model, key: value}})["val"] != before, key


def test_keys_of_fits(folder: Path) -> None:
    """Each key of `learned:` is in the key of a kept fit."""
    assert_classified(Learned.model_fields, LEARNED_CHANGES, LEARNED_NO_SCORE)
    runs = [open_checkpoint(Path(f"runs/{number}")) for number in range(2)]

    def key(learned: Mapping[str, Any]) -> Path:
        recipe = {**BASE, "learned": learned}
        found = evaluators(recipe, Path("runs/0"))
        run = SimpleNamespace(
            recipe=found.context.recipe,
            sharing=lambda _: runs,
            hashes=found.context.hashes,
            evaluators=found,
            selecting="val",
            options=SimpleNamespace(fresh=False),
            manifest=None,
        )
        return _store(run, runs[0], runs).file  # type: ignore[arg-type]

    before = key({})
    assert key({"resident": "disk"}) == before
    for name, value in LEARNED_CHANGES.items():
        assert key(value if isinstance(value, dict) else {name: value}) != before, name


def test_checkouts_of_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of a library counts that is no installed package, as after `pip install -e`; others have versions."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keys_module, "MODULES", ("torch", "a_checkout"))
    (tmp_path / "a_checkout/layers").mkdir(parents=True)
    for name, text in {"__init__.py": "", "layers/mlp.py": "SCALE = 1", "layers/notes.txt": ""}.items():
        (tmp_path / "a_checkout" / name).write_text(text)
    before = keys_module._checkouts(Manifest())
    (tmp_path / "a_checkout/layers/notes.txt").write_text("nothing to do with it")
    assert keys_module._checkouts(Manifest()) == before
    (tmp_path / "a_checkout/layers/mlp.py").write_text("SCALE = 2")
    after = keys_module._checkouts(Manifest())
    assert before.keys() == after.keys() == {"code of a_checkout"} and before != after


def test_keys_of_parts(folder: Path) -> None:
    """Both parts of a divided set, and each share."""
    found, mean = evaluators(BASE, Path("runs/0")), Mixture.uniform([open_checkpoint(Path("runs/0"))])
    seen = [keys(BASE)["val"]]
    for share in (0.5, 0.25):
        sets, parts = divide(found.context.sets, share)
        of_part = Evaluators(dataclasses.replace(found.context, sets=sets, parts=parts))._keys
        seen += [of_part.of_score(name, mean) for name in parts]
    assert len({*seen}) == 5


def test_flags() -> None:
    """Each flag of a command that evaluates gives a key of the recipe, or is known to change no score."""
    options = [command.options for command in COMMANDS if issubclass(command.options, IngredientOptions)]
    flags = {field.name for one in options for field in dataclasses.fields(one)}
    given = {*RECIPE_KEYS, *LEARNED_KEYS}
    assert {flag for flag in flags if flag not in given and flag not in FLAGS} == set()
    assert {*FLAGS} <= flags
    sections: dict[str, type[Section]] = {
        "": Recipe,
        "window": Window,
        "greedy": Greedy,
        "learned": Learned,
        "mix": Mix,
        "cost": Cost,
    }
    for key in [*RECIPE_KEYS.values(), *LEARNED_KEYS.values()]:
        section, _, name = key.rpartition(".")
        assert name in sections[section].model_fields, key


def test_keys_of_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is given a folder, and a program that PATH leads to."""
    before = keys(BASE)
    Path("runs/0/any.txt").write_text("beside the first ingredient, whose files a mean gets")
    beside = keys(BASE)
    assert (beside["val"], beside["theirs"] == before["theirs"]) == (before["val"], False)
    program = folder / "bin" / COMMAND["command"].split()[0]
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert keys(BASE)["theirs"] != beside["theirs"]


@pytest.mark.parametrize(("kind", "counts"), [("arrays", False), ("text", True), ("tokens", True), ("lm_eval", True)])
def test_the_batch_size(folder: Path, kind: str, counts: bool) -> None:
    """It counts where inputs are padded, or a metric shows last digits."""
    of_kind = {**BASE, "metric": "accuracy", "val": {"val": SET_BASE[kind]}}
    assert (keys({**of_kind, "batch_size": 7}) != keys(of_kind)) == counts
