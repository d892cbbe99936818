"""Configurations are data: none runs code, fetches anything or asks on the terminal, whatever it says."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError, SoupError
from soupcli.networks.build import build
from soupcli.networks.guard import CodeRefused, data_only
from soupcli.recipe.networks import TransformersNetwork
from tests.helpers import transformers_toys as toys

EVIL = "from pathlib import Path\nPath({mark!r}).touch()\nclass Evil: pass\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a stranger's code makes. Every question would be answered with yes."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    return tmp_path / "PWNED"


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))


def evil(folder: Path, mark: Path) -> Path:
    """A sound BERT, with a module beside it that makes the mark."""
    toys.bert(folder)
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    return folder


def as_config(run: Path) -> None:
    change(run / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil"})


def as_model(run: Path) -> None:
    change(run / "config.json", architectures=["Evil"], auto_map={"AutoModelForSequenceClassification": "evil.Evil"})


def as_unknown(run: Path) -> None:
    change(run / "config.json", model_type="evil", auto_map={"AutoModel": "evil.Evil"})


def as_auto_class(run: Path) -> None:
    change(
        run / "config.json",
        architectures=["AutoModelForDepthEstimation"],
        auto_map={"AutoModelForDepthEstimation": "evil.Evil"},
    )


def as_tokenizer(run: Path) -> None:
    change(run / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})


def as_processor(run: Path) -> None:
    change(run / "preprocessor_config.json", image_processor_type="Evil", auto_map={"AutoImageProcessor": "evil.Evil"})


def of_another_repository(run: Path) -> None:
    change(run / "config.json", auto_map={"AutoConfig": "stranger/repository--evil.Evil"})


def as_attention(run: Path) -> None:
    change(run / "config.json", attn_implementation="stranger/kernels")


def as_attention_of_parts(run: Path) -> None:
    change(run / "config.json", attn_implementation={"": "stranger/kernels"})


def as_timm_wrapper(run: Path) -> None:
    change(
        run / "config.json",
        model_type="timm_wrapper",
        architecture="hf-hub:stranger/repository",
        architectures=["TimmWrapperForImageClassification"],
    )


def as_timm(run: Path) -> None:
    (run / "config.json").write_text(json.dumps({"architecture": "hf-hub:stranger/repository"}))


def as_nothing_known(run: Path) -> None:
    change(run / "config.json", architectures=["pipeline"])


def as_number(run: Path) -> None:
    change(run / "config.json", architectures=3)


def of_many_levels(run: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    change(run / "config.json", task_specific_params=deep)


def of_endless_levels(run: Path) -> None:
    (run / "config.json").write_text('{"model_type": "bert", "a": ' + "[" * 200_000)


@pytest.mark.parametrize(
    "made",
    [
        *(as_config, as_model, as_auto_class, as_processor, of_another_repository, as_attention),
        as_attention_of_parts,
        *(as_timm_wrapper, as_timm, as_nothing_known, as_number, of_many_levels, of_endless_levels),
    ],
)
def test_transformers_and_timm(made: Any, mark: Path, tmp_path: Path) -> None:
    """Refused in one line that names the folder; the code beside it has not run."""
    run = evil(tmp_path / "run", mark)
    made(run)
    with pytest.raises(NetworkError) as caught:
        build(None, open_checkpoint(run))
        pytest.fail("was built")
    assert not mark.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("made", [as_model, as_unknown])
def test_code_is_named(made: Any, mark: Path, tmp_path: Path) -> None:
    """The message says which class was asked for, and the flag."""
    run = evil(tmp_path / "run", mark)
    made(run)
    with pytest.raises(
        NetworkError, match=r"config\.json: auto_map names code, 'evil\.Evil', which is not run"
    ) as said:
        build(None, open_checkpoint(run))
    assert "--trust-code" in str(said.value.hint)


@pytest.mark.parametrize("reference", ["evil.Evil", ["evil.Evil"]])
def test_odd_references(reference: object, mark: Path, tmp_path: Path) -> None:
    """An `auto_map` that is no map names nothing that the library needs."""
    run = evil(tmp_path / "run", mark)
    change(run / "config.json", auto_map=reference)
    assert type(build(None, open_checkpoint(run)).module).__name__ == "BertForSequenceClassification"
    assert not mark.exists()


def test_native_networks_need_no_code(mark: Path, tmp_path: Path) -> None:
    """Where the library has the class itself, code beside it is left alone and the network is built."""
    run = evil(tmp_path / "run", mark)
    change(run / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"})
    as_tokenizer(run)
    assert type(build(None, open_checkpoint(run)).module).__name__ == "BertForSequenceClassification"
    assert not mark.exists()


OWN = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(4, 2)
        self.post_init()

    def forward(self, x):
        return self.head(x)
"""


def own(folder: Path) -> Path:
    folder.mkdir()
    (folder / "own.py").write_text(OWN)
    auto = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "own", "architectures": ["OwnModel"], "auto_map": auto})
    )
    save_file({"head.weight": torch.ones(2, 4), "head.bias": torch.zeros(2)}, folder / "model.safetensors")
    return folder


def test_trusted_code(mark: Path, tmp_path: Path) -> None:
    """Code of a local folder runs with --trust-code alone."""
    checkpoint = open_checkpoint(own(tmp_path / "run"))
    with pytest.raises(NetworkError, match="is not run"):
        build(None, checkpoint)
    assert type(build(None, checkpoint, trust_code=True).module).__name__ == "OwnModel"
    change(tmp_path / "run/config.json", auto_map={"AutoConfig": "stranger/repository--own.OwnConfig"})
    with pytest.raises(NetworkError, match="code of another repository, which is never run"):
        build(None, open_checkpoint(tmp_path / "run"), trust_code=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"hf_model_name": "hf-hub:stranger/repository", "hf_tokenizer_name": "x"},
        {"hf_model_name": "stranger/repository", "hf_tokenizer_name": "stranger/repository"},
        {"hf_model_name": "EVIL", "hf_tokenizer_name": "EVIL"},
    ],
)
def test_open_clip(text: dict[str, Any], mark: Path, tmp_path: Path) -> None:
    """A text tower of transformers, or its tokenizer, is neither fetched nor run."""
    run, other = tmp_path / "run", evil(tmp_path / "other", mark)
    as_config(other)
    run.mkdir()
    named = {key: str(other) if value == "EVIL" else value for key, value in text.items()}
    vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
    sizes = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": sizes | named}, "preprocess_cfg": {}}
    (run / "open_clip_config.json").write_text(json.dumps(config))
    change(run / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    (run / "evil.py").write_text(EVIL.format(mark=str(mark)))
    save_file({"w": torch.ones(1)}, run / "open_clip_model.safetensors")
    with pytest.raises(SoupError):
        build(None, open_checkpoint(run))
    assert not mark.exists()


class Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, ()


def test_what_slips_through_is_stopped() -> None:
    """A connection, a question and a pickle are refused within the block alone, and nothing else is."""
    content = pickle.dumps(Pickled())
    with data_only():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 9))
        with pytest.raises(CodeRefused):
            input("?")
        with pytest.raises(CodeRefused):
            pickle.loads(content)
    assert pickle.loads(content) == os.getcwd()  # noqa: PTH109
    with data_only(trust_code=True):
        assert pickle.loads(content)
        with data_only(), pytest.raises(CodeRefused):
            pickle.loads(content)


def test_the_hub_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub looks into its cache at once within blocks, and is as before when the last one has ended."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits to try again"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with data_only():
        with data_only(), pytest.raises(LocalEntryNotFoundError):
            hf_hub_download("stranger/repository", "config.json")
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_a_name_in_the_recipe(mark: Path, tmp_path: Path) -> None:
    """The recipe's own words are held to the same: a network by the name of a function is none."""
    run = evil(tmp_path / "run", mark)
    with pytest.raises(NetworkError, match="has no 'pipeline'"):
        build(TransformersNetwork(transformers="pipeline"), open_checkpoint(run))
