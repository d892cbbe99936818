"""Names in the order of their numbers, in whatever form a list of them is kept."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas  # type: ignore[import-untyped]
import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints.compare.class_orders import class_orders
from soupcli.checkpoints.compare.documents import document_of
from soupcli.checkpoints.formats.class_lists import named_rows
from soupcli.checkpoints.formats.name_lists import names_by_row, names_in_text
from soupcli.checkpoints.open import open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ["dog", "cat", "ant", "bee"]
ROWS = dict(zip(NAMES, range(4), strict=True))
SORTED = sorted(NAMES)

FORMS: dict[str, Any] = {
    "pairs of a name and a number": [(name, ROWS[name]) for name in SORTED],
    "pairs of a number and a name": [[ROWS[name], name] for name in SORTED],
    "whole numbers as fractions": {name: float(ROWS[name]) for name in SORTED},
    "lists of one number": {name: [ROWS[name]] for name in SORTED},
    "one 1 among zeros": {name: [int(at == ROWS[name]) for at in range(4)] for name in SORTED},
    "columns": {"name": SORTED, "id": [ROWS[name] for name in SORTED]},
    "columns of pandas": {
        "label": dict(zip("0123", SORTED, strict=True)),
        "index": {str(at): ROWS[name] for at, name in enumerate(SORTED)},
    },
    "objects by name": {name: {"id": ROWS[name], "color": "red"} for name in SORTED},
    "a list in a list": [NAMES],
    "keys alone": dict.fromkeys(NAMES),
    "maps of one entry": [{name: ROWS[name]} for name in SORTED],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    """The numbers give the order if there are any, in whatever form they stand beside the names."""
    assert names_by_row(FORMS[form]) == NAMES


@pytest.mark.parametrize(
    "value",
    [
        [("cat", "dog"), ("ant", "bee")],
        [("cat", 0), ("dog", 0)],
        {"cat": [0, 1], "dog": [1, 1]},
        {"cat": 0.5, "dog": 1.5},
        {"name": SORTED, "id": [0, 1]},
        {"cat": {"id": 0}, "dog": {"color": "red"}},
        [{"cat": 0, "dog": 1}, {"ant": 0}],
        {0: 0, 1: 1},
        {1: 0, 2: 2},
    ],
)
def test_other_things(value: Any) -> None:
    """What has no number for each name is no list of them."""
    assert names_by_row(value) is None


@pytest.mark.parametrize(
    ("name", "number"), [("label", "value"), ("value", "index"), ("class_name", "class_id"), ("title", "code")]
)
def test_objects(name: str, number: str) -> None:
    """A name is a text and a number none, whichever key has which. Numbers with gaps count in their order."""
    assert names_by_row([{name: each, number: ROWS[each]} for each in SORTED]) == NAMES
    assert names_by_row([{number: 7 * row + 3, name: each} for row, each in enumerate(NAMES)]) == NAMES
    assert names_by_row([{number: 7 * ROWS[each] + 3, name: each} for each in SORTED]) is None


def test_numbers_of_a_data_set() -> None:
    """Numbers of categories that stand for those of rows are names of these."""
    assert names_by_row({1: 1, 3: 0}) == ["3", "1"]
    assert names_by_row({"n01440764": "tench", "n01443537": "goldfish"}) == ["n01440764", "n01443537"]


@pytest.mark.parametrize("text", ["{1: 'cat', 0: 'dog'}", "('dog', 'cat')", '["dog", "cat"]', "dog;cat;", "dog, cat"])
def test_texts(text: str) -> None:
    """Lists as Python prints them, and names with marks between them, are lists at the key of one."""
    assert named_rows({"args": {"classes": text}}) == {"args.classes": ["dog", "cat"]}
    assert not named_rows({"args": {"comment": text}})


def test_wrappers() -> None:
    """Entries of Weights & Biases count at their keys, and deep ones as any others."""
    assert named_rows({"classes": {"desc": None, "value": "dog,cat"}}) == {"classes": ["dog", "cat"]}
    deep = {"model": {"init_args": {"head": {"init_args": {"class_names": ["dog", "cat"]}}}}}
    assert named_rows(deep) == {"model.init_args.head.init_args.class_names": ["dog", "cat"]}
    assert not named_rows({"hardest": {"classes": ["dog", "cat"]}})


@pytest.mark.parametrize(("text", "key"), [("dog|cat, a pet", "tags"), ("dog\ncat, a pet\n", "tags")])
def test_marks(text: str, key: str) -> None:
    """The mark that stands in fewer names divides a text; a text without any is one name."""
    assert names_in_text(key, text) == ["dog", "cat, a pet"]
    assert names_in_text(key, "dog cat") is None
    assert names_in_text("rt_info.model_info.labels", "dog cat") == ["dog", "cat"]


INSIDE: dict[str, Callable[[], Any]] = {
    "tensors by name": lambda: {name: torch.tensor(ROWS[name]) for name in SORTED},
    "tensors of one number": lambda: {name: torch.tensor([ROWS[name]], dtype=torch.int32) for name in SORTED},
    "names by tensor": lambda: {torch.tensor(ROWS[name]): name for name in SORTED},
    "pairs with tensors": lambda: [(name, torch.tensor(ROWS[name])) for name in SORTED],
    "arrays by name": lambda: {name: np.array(ROWS[name]) for name in SORTED},
    "one-hot tensors": lambda: OrderedDict((name, torch.eye(4)[ROWS[name]]) for name in SORTED),
    "one-hot truth values": lambda: {name: torch.eye(4)[ROWS[name]].bool() for name in SORTED},
    "one-hot arrays": lambda: {name: np.eye(4)[ROWS[name]] for name in SORTED},
    "columns with a tensor": lambda: {"name": SORTED, "id": torch.tensor([ROWS[name] for name in SORTED])},
    "an array of pairs": lambda: np.array([[str(ROWS[name]), name] for name in SORTED]),
    "an array of objects": lambda: np.array([[ROWS[name], name] for name in SORTED], dtype=object),
    "bytes": lambda: [name.encode() for name in NAMES],
    "an index of pandas": lambda: pandas.Index(NAMES),
    "an index of numpy": lambda: pandas.Index(NAMES, dtype=object),
    "a column": lambda: pandas.Series(NAMES),
    "unique values": lambda: pandas.Series([*NAMES, *SORTED]).unique(),
    "categories": lambda: pandas.Categorical(SORTED, categories=NAMES),
}


@pytest.mark.parametrize("form", INSIDE)
def test_in_checkpoints(tmp_path: Path, form: str) -> None:
    """Tensors and arrays beside the weights are numbers too, at one key or in each part of the data."""
    value = INSIDE[form]()
    network = {"fc.weight": torch.ones(4, 2), "scale": torch.tensor(1)}
    for key, kept in (("classes", value), ("classes.train", {"train": value, "val": NAMES[:2]})):
        torch.save({"state_dict": network, "classes": kept}, tmp_path / "model.pt")
        assert class_orders(open_checkpoint(tmp_path / "model.pt"))[key] == NAMES


def test_yaml_in_checkpoints(tmp_path: Path) -> None:
    """A text of YAML, such as OmegaConf.to_yaml's, is settings; one of a log is not."""
    texts = {"config": "lr: 1\ndata:\n  names: [dog, cat]\n", "log": "epoch 1: ok\nnames: [dog, cat]\n"}
    torch.save({"state_dict": {"fc.weight": torch.ones(2, 2)}, **texts}, tmp_path / "model.pt")
    assert class_orders(open_checkpoint(tmp_path / "model.pt")) == {"config.data.names": ["dog", "cat"]}


@pytest.mark.parametrize("text", ["dog|cat", "['dog', 'cat']", '["dog", "cat"]', '{"1": "cat", "0": "dog"}'])
def test_metadata_of_safetensors(tmp_path: Path, text: str) -> None:
    """Metadata of safetensors is text, in which a list has any form that a text may have."""
    for key, said in (("classes", text), ("config.classes", f"lr: 1\nclasses: {text}\n")):
        metadata = {key.partition(".")[0]: said}
        save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors", metadata=metadata)
        assert class_orders(open_checkpoint(tmp_path / "model.safetensors"))[key] == ["dog", "cat"]


def test_files_of_numpy(tmp_path: Path) -> None:
    """A map in an array of none but it, pairs, and bytes in a pickle are lists of classes."""
    np.save(tmp_path / "map.npy", np.array(ROWS, dtype=object), allow_pickle=True)
    assert document_of(tmp_path / "map.npy") == ROWS
    np.save(tmp_path / "pairs.npy", np.array([*ROWS.items()]))
    assert document_of(tmp_path / "pairs.npy") == [[name, str(row)] for name, row in ROWS.items()]
    (tmp_path / "bytes.pkl").write_bytes(pickle.dumps([name.encode() for name in NAMES], protocol=2))
    torch.save([name.encode() for name in NAMES], tmp_path / "bytes.pt")
    assert document_of(tmp_path / "bytes.pkl") == document_of(tmp_path / "bytes.pt") == NAMES


def test_pickles_of_pandas(tmp_path: Path) -> None:
    """A table's columns, pickled alone, are a list."""
    for protocol in (2, 5):
        for columns in (pandas.Index(NAMES), pandas.Index(NAMES, dtype=object)):
            (tmp_path / "columns.pkl").write_bytes(pickle.dumps(columns, protocol=protocol))
            assert document_of(tmp_path / "columns.pkl") == NAMES


def test_parts_of_the_data(tmp_path: Path) -> None:
    """Classes of the training are those of the head; others, such as those of few-shot splits, need not be."""
    torch.save({"fc.weight": torch.ones(4, 2)}, tmp_path / "model.pt")
    (tmp_path / "classes.json").write_text(json.dumps({"train": NAMES, "val": SORTED}))
    assert class_orders(open_checkpoint(tmp_path)) == {"classes.json: train": NAMES}
