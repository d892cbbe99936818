"""Each checkpoint is judged by the files beside it: class names, tokenizer, image processor, configuration."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from soupcli.networks.live import LiveNetwork
from tests.helpers import transformers_toys as toys
from tests.helpers.pictures import noise


def scores(soup: Callable[..., Any], *runs: str, fresh: bool = False) -> dict[str, dict[str, float]]:
    """Accuracy and nll of each run, by its path."""
    ran = soup("eval", "--ckpts", *runs, "--val", "val", "--json", *(["--fresh"] if fresh else []))
    assert ran.code == 0, ran.stderr
    rows = json.loads(ran.stdout)["ingredients"]
    return {row["path"]: {name: of["value"] for name, of in row["scores"]["val"].items()} for row in rows}


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def other_names(run: Path) -> None:
    change(run / "config.json", id2label={"0": "positive", "1": "negative"}, label2id={"positive": 0, "negative": 1})


def other_activation(run: Path) -> None:
    change(run / "config.json", hidden_act="relu", layer_norm_eps=0.1)


def other_tokenizer(run: Path) -> None:
    toys.bert_tokenizer(run, model_max_length=4)


def other_words(run: Path) -> None:
    change(run / "tokenizer_config.json", do_lower_case=False)
    document = json.loads((run / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    (run / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize("changed", [other_names, other_activation, other_tokenizer, other_words])
def test_text(
    changed: Callable[[Path], None], tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three runs of which the second has other files: each scores beside the others as alone, kept or measured."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        toys.bert(Path(f"run{number}"), seed=1)
    changed(Path("run1"))
    rows = [("the film was good", "positive"), ("not good the film", "negative"), ("bad", "negative")] * 4
    Path("val.jsonl").write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows))
    Path("soup.yaml").write_text("val: {val: {text: val.jsonl}}\nmetrics: [nll]\n")
    alone = {run: scores(soup, run, fresh=True)[run] for run in ("run0", "run1", "run2")}
    assert scores(soup, "run0", "run1", "run2", fresh=True) == alone
    assert scores(soup, "run2", "run1", "run0") == alone
    assert alone["run1"] != alone["run0"]
    ran = soup("eval", "--ckpts", "run0", "run1", "run2", "--val", "val", "--json", "--fresh")
    assert "1 checkpoint has other files beside the weights than run0" in ran.stderr
    assert any("judged by its own" in warning for warning in json.loads(ran.stdout)["warnings"])


def test_notes_do_not_count(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run came from says nothing about its network: nothing is made anew, nothing is said."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        toys.bert(Path(f"run{number}"), seed=number)
    change(Path("run1/config.json"), _name_or_path="elsewhere", transformers_version="4.0")
    Path("val.jsonl").write_text(json.dumps({"text": "good", "label": "positive"}) + "\n")
    ran = soup("eval", "--ckpts", "run0", "run1", "--val", "val.jsonl")
    assert ran.code == 0
    assert "judged by its own" not in ran.stderr


def test_pictures(tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Image processors differ: each run sees pictures as it was trained, and one network is in memory at a time."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        toys.vit(Path(f"run{number}"), seed=2)
    size = {"height": 32, "width": 32}
    for number in (1, 2):
        mean = [0.1 * number] * 3
        transformers.ViTImageProcessor(size=size, image_mean=mean).save_pretrained(f"run{number}")
    for place, name in enumerate(("cat", "dog", "emu")):
        for number in range(2):
            noise(Path("val") / name / f"{number}.png", seed=10 * place + number)
    Path("soup.yaml").write_text("val: {val: {images: val}}\nmetrics: [nll]\n")
    most, networks = 0, list[weakref.ref[LiveNetwork]]()
    made = LiveNetwork.__init__

    def counted(self: LiveNetwork, *args: Any, **options: Any) -> None:
        nonlocal most
        made(self, *args, **options)
        networks.append(weakref.ref(self))
        gc.collect()
        most = max(most, sum(one() is not None for one in networks))

    monkeypatch.setattr(LiveNetwork, "__init__", counted)
    together = scores(soup, "run0", "run1", "run2", fresh=True)
    assert most == 1
    alone = {run: scores(soup, run, fresh=True)[run] for run in together}
    assert together == alone
    assert len({json.dumps(found) for found in alone.values()}) == 3


def test_soup_is_judged_by_what_it_carries(
    tmp_path: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score of a greedy soup is the one that its folder gets alone, whichever ingredient's files it has."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        toys.bert(Path(f"run{number}"), seed=number)
    other_tokenizer(Path("run1"))
    rows = [("the film was good", "positive"), ("not good the film", "negative"), ("bad", "negative")] * 4
    Path("val.jsonl").write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows))
    Path("soup.yaml").write_text("val: {val: {text: val.jsonl}}\nmetric: nll\n")
    ran = soup("greedy", "--ckpts", "run0", "run1", "--val", "val", "--out", "out", "--json")
    if ran.code == 2:  # other tokenizers are not mixed
        assert "tokenizer" in ran.stderr
        return
    found = json.loads(ran.stdout)["soup"]["scores"]["val"]["nll"]["value"]
    assert torch.isclose(torch.tensor(found), torch.tensor(scores(soup, "out", fresh=True)["out"]["nll"]), rtol=1e-5)
