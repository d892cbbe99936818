"""Inputs in another order or of another scale are not averaged in silence."""

from __future__ import annotations

import io
import json
import pickle
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas  # type: ignore[import-untyped]
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save, save_file

from soupcli.checkpoints.compare.inputs import check_inputs, different_statistics
from soupcli.checkpoints.compare.settings import differing_settings
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

EVERYTHING = TensorFilter()
ORDER, MOVED, OTHERS = (["age", "bmi", "sex", "bp"], ["bmi", "age", "sex", "bp"], ["age", "bmi", "sex", "chol"])
NET = {"net.0.weight": torch.zeros(8, 4), "net.2.weight": torch.zeros(1, 8)}


Band = Enum("Band", [(name, name) for name in ORDER])  # type: ignore[misc]


class ByName(Enum):
    """An Enum whose members are pickled by their names, as Python 3.11.0 to 3.11.3 do with all."""

    AGE = "age"
    BMI = "bmi"
    SEX = "sex"
    BP = "bp"

    def __reduce_ex__(self, protocol: object) -> Any:
        """See pickle."""
        return getattr, (self.__class__, self._name_)


class Named(NamedTuple):
    """Columns by their places."""

    first: str
    second: str
    third: str
    fourth: str


def run(folder: Path, **files: bytes | str) -> Checkpoint:
    folder.mkdir()
    save_file(NET, folder / "model.safetensors")
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_checkpoint(folder)


def in_file(folder: Path, **said: Any) -> Checkpoint:
    folder.mkdir()
    torch.save({"state_dict": NET, **said}, folder / "a.pt")
    return open_checkpoint(folder / "a.pt")


WRITERS: dict[str, Callable[[Path, list[str]], Checkpoint]] = {
    "features.json": lambda at, names: run(at, features__json=json.dumps(names)),
    "a map": lambda at, names: run(at, feature_names__json=json.dumps({name: row for row, name in enumerate(names)})),
    "columns.txt": lambda at, names: run(at, columns__txt="\n".join(names)),
    "a pickle": lambda at, names: run(at, feature_columns__pkl=pickle.dumps(names)),
    "YAML": lambda at, names: run(at, config__yaml=f"data:\n  features: {names}\n"),
    "Lightning": lambda at, names: in_file(at, hyper_parameters={"features": names}),
    "indices": lambda at, names: in_file(at, column_idx={name: row for row, name in enumerate(names)}),
    "members of an Enum": lambda at, names: in_file(at, bands=[Band(name) for name in names]),
    "members by their names": lambda at, names: in_file(at, bands=[ByName(name) for name in names]),
    "a namedtuple": lambda at, names: in_file(at, features=Named(*names)),
    "a text": lambda at, names: in_file(at, features=", ".join(names)),
    "tensors": lambda at, names: in_file(at, feature_names={name: torch.tensor(row) for row, name in enumerate(names)}),
    "columns of pandas": lambda at, names: in_file(at, columns=pandas.Index(names)),
    "an archive of numpy": lambda at, names: run(at, features__npz=numpy_file(np.savez, columns=np.array(names))),
    "parquet": lambda at, names: run(at, features__parquet=parquet(feature=names)),
    "one kind of columns": lambda at, names: run(at, columns__yaml=f"numeric: {names}\n"),
    "maps in a list": lambda at, names: run(
        at, config__json=json.dumps({"input_features": [{"name": name} for name in names]})
    ),
    "channels": lambda at, names: in_file(at, args={"channel_order": names}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_order(kind: str, tmp_path: Path) -> None:
    """Wherever columns are listed: networks whose columns stand in another order are refused, others are not."""
    one, same, other = (
        WRITERS[kind](tmp_path / name, list(names)) for name, names in zip("abc", (ORDER, ORDER, MOVED), strict=True)
    )
    assert check_inputs(one, same, EVERYTHING) == []
    with pytest.raises(
        MixError, match=r"(?i)lists bmi, age, sex, bp, .* lists age, bmi, sex, bp: numbers of 'net.0.weight'"
    ):
        check_inputs(one, other, EVERYTHING)
    assert check_inputs(one, other, TensorFilter(exclude=("net.0.*",))) == []


OF_MLFLOW = """\
flavors:
  pytorch: {{model_data: data, pytorch_version: 2.3.0}}
run_id: {run}
signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "float", "name": "p"}}]'
  params: null
"""


def of_mlflow(folder: Path, inputs: list[dict[str, Any]]) -> Checkpoint:
    """A model of MLflow, whose weights lie in a folder below its signature."""
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text(OF_MLFLOW.format(run=folder.name, inputs=json.dumps(inputs)))
    torch.save(NET, folder / "data/model.pth")
    return open_checkpoint(folder / "data/model.pth")


def test_signatures_of_mlflow(tmp_path: Path) -> None:
    """Columns of a signature in another order are refused, another shape of its tensors is said; a run's id is not."""
    named = [[{"type": "double", "name": name} for name in names] for names in (ORDER, ORDER, MOVED)]
    one, same, other = (of_mlflow(tmp_path / name, inputs) for name, inputs in zip("abc", named, strict=True))
    assert check_inputs(one, same, EVERYTHING) == [] and differing_settings([one, same]) == []
    with pytest.raises(
        MixError, match=r"MLmodel: signature\.inputs lists bmi, age, sex, bp, .*: numbers of 'net.0.weight'"
    ):
        check_inputs(one, other, EVERYTHING)
    shapes = [[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, size]}}] for size in (4, 8)]
    one, two = (of_mlflow(tmp_path / name, inputs) for name, inputs in zip("de", shapes, strict=True))
    [setting] = differing_settings([one, two])
    assert setting.key == "../MLmodel: signature.input_shape" and setting.of_inputs


def test_other_inputs(tmp_path: Path) -> None:
    """Another input in one place is said, and so is an order of inputs that no weight is known to have numbers for."""
    one, two = (in_file(tmp_path / name, features=names) for name, names in (("a", ORDER), ("b", OTHERS)))
    [note] = check_inputs(one, two, EVERYTHING)
    assert "lists age, bmi, sex, chol" in note and "if these are the networks' inputs" in note
    one, two = (in_file(tmp_path / name, cont_names=names) for name, names in (("c", ORDER[:3]), ("d", ORDER[2::-1])))
    assert len(check_inputs(one, two, EVERYTHING)) == 1
    both = {"cont_names": ORDER[:3], "x_reals": ORDER[:2]}, {"cont_names": ORDER[2::-1], "x_reals": MOVED[:2]}
    one, two = (in_file(tmp_path / name, **said) for name, said in zip("gh", both, strict=True))
    [note] = check_inputs(one, two, EVERYTHING)
    assert "(and 1 more lists)" in note
    one, two = (in_file(tmp_path / name, steps=names) for name, names in (("e", ORDER), ("f", MOVED)))
    assert check_inputs(one, two, EVERYTHING) == []


@pytest.mark.parametrize(
    ("file", "one", "other", "key"),
    [
        ("scaler__json", '{"mean": [1], "std": [2]}', '{"mean": [3], "std": [2]}', "scaler.json: mean"),
        ("norm_stats__json", '{"x": {"q01": 1}}', '{"x": {"q01": 2}}', "norm_stats.json: x.q01"),
        ("target_scaler__pkl", pickle.dumps({"a": 1}), pickle.dumps({"a": 2}), "target_scaler.pkl: content"),
        ("params__txt", "model: ViT-B-32\nlr: 1\n", "model: ViT-B-16\nlr: 2\n", "params.txt: model"),
        ("config__ini", "[model]\nact = relu\n", "[model]\nact = gelu\n", "config.ini: model.act"),
        ("model_config__yaml", "mlp: A\ndropout: 1\n", "mlp: B\ndropout: 2\n", "model_config.yaml: mlp"),
        ("args__yaml", "imgsz: 640\nlr: 1\n", "imgsz: 320\nlr: 2\n", "args.yaml: imgsz"),
        ("stats__json", '{"best_acc": 1, "loss_mean": 2}', '{"best_acc": 2, "loss_mean": 3}', None),
        ("timing_stats__json", '{"mean": 1, "std": 2}', '{"mean": 2, "std": 3}', None),
        ("metrics__json", '{"mean": 1, "std": 2}', '{"mean": 2, "std": 3}', None),
        ("hparams__yaml", "seed: 1\nmean_teacher: 2\n", "seed: 2\nmean_teacher: 3\n", None),
    ],
)
def test_scales(file: str, one: bytes | str, other: bytes | str, key: str | None, tmp_path: Path) -> None:
    """Scalers, statistics and sizes of inputs beside the weights are compared; measures of a training are not."""
    found = differing_settings([run(tmp_path / "a", **{file: one}), run(tmp_path / "b", **{file: other})])
    assert [setting.key for setting in found] == ([key] if key is not None else [])
    assert all(setting.of_inputs != setting.of_network for setting in found)


def parquet(**columns: list[str]) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), content)
    return content.getvalue()


def numpy_file(write: Callable[..., None], *values: Any, **arrays: Any) -> bytes:
    content = io.BytesIO()
    write(content, *values, **arrays)
    return content.getvalue()


def numbers(file: str, number: float) -> bytes:
    """What a library writes under this name, with statistics that begin with a number."""
    mean = np.array([number, 1.0])
    tensor = torch.from_numpy(mean)
    if file.endswith("__npz"):
        pack = np.savez_compressed if "cmvn" in file else np.savez
        return numpy_file(pack, mean=mean, sum=mean * 2, loss_mean=np.random.default_rng().normal(size=3))
    if file.endswith("__npy"):
        return numpy_file(np.save, mean)
    if file.endswith("__safetensors"):
        return save({"observation.state.mean": tensor, "reward.mean": torch.rand(1)})
    if file.endswith("__pth"):
        return numpy_file(
            lambda to, value: torch.save(value, to), {"obs_mean": mean, "act_std": tensor, "steps": number}
        )
    return f"<AddShift> [ {number} 1 ]".encode()


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("feats_stats__npz", ["mean", "sum"]),
        ("cmvn__npz", ["mean", "sum"]),
        ("mean__npy", ["content"]),
        ("am__mvn", ["content"]),
        ("global_cmvn", ["content"]),
        ("norm_stats__csv", ["content"]),
        ("policy_preprocessor_step_3_normalizer_processor__safetensors", ["observation.state.mean"]),
        ("normalizer__pth", ["obs_mean", "act_std"]),
        ("history__npz", []),
        ("grad_norm__npy", []),
        ("val_predictions__npy", []),
        ("stats__txt", []),
        ("test_mean__csv", []),
        ("eval_stats__npz", []),
        ("scaler__pt", []),
    ],
)
def test_files_of_statistics(file: str, keys: list[str], tmp_path: Path) -> None:
    """Other statistics in a file are said with their keys; equal ones, and measures of a training, are not."""
    one, same, other = (
        run(tmp_path / name, **{file: numbers(file, value)}) for name, value in (("a", 0.0), ("b", 0.0), ("c", 5.0))
    )
    assert differing_settings([one, same]) == []
    found = differing_settings([one, other])
    assert [setting.key for setting in found] == [f"{file.replace('__', '.')}: {key}" for key in keys]
    assert all(setting.of_inputs for setting in found)


def test_statistics_in_folders_below(tmp_path: Path) -> None:
    """openpi keeps statistics three folders below the weights."""
    made = []
    for number in (0, 1):
        made.append(run(tmp_path / str(number)))
        below = tmp_path / str(number) / "assets/physical-intelligence/libero"
        below.mkdir(parents=True)
        (below / "norm_stats.json").write_text(json.dumps({"norm_stats": {"state": {"q01": [number, 2]}}}))
    [setting] = differing_settings(made)
    assert setting.key.endswith("norm_stats.json: norm_stats.state.q01") and setting.of_inputs


@pytest.mark.parametrize("file", ["stats__npz", "stats__pth", "stats__npy"])
def test_broken_statistics(file: str, tmp_path: Path) -> None:
    """A file of statistics that is cut short is no statistics, whatever it holds."""
    whole = numbers(file, 1.0)
    broken = [run(tmp_path / str(end), **{file: whole[:end]}) for end in (len(whole) // 2, len(whole) - 30)]
    assert all(setting.key.endswith(("npy: content", ": mean")) for setting in differing_settings(broken))


def test_settings_in_the_file(tmp_path: Path) -> None:
    """Settings in the file of the weights are compared among those that state them, whatever differs otherwise."""
    made = [
        in_file(tmp_path / str(n), args={"act": act, "lr": n}) if act else in_file(tmp_path / str(n), args={"lr": n})
        for n, act in enumerate(("relu", None, "gelu"))
    ]
    [setting] = differing_settings(made)
    assert setting.key == "in the file: args.act" and setting.of_network and not setting.of_inputs
    assert setting.values == ('"relu"', "missing", '"gelu"')
    assert differing_settings(made[:2]) == []


def test_statistics_among_the_weights(tmp_path: Path) -> None:
    """Statistics that are tensors of the network are averaged, which is said; those of batch norm are known."""
    for name, number in (("a", 0.0), ("b", 1.0)):
        state = {"obs_rms.mean": torch.full((3,), number), "bn.running_mean": torch.full((3,), number)}
        torch.save(state, tmp_path / f"{name}.pt")
    pair = [open_checkpoint(tmp_path / f"{name}.pt") for name in "ab"]
    assert "'obs_rms.mean' differs" in str(different_statistics(pair, EVERYTHING))
    assert different_statistics(pair, TensorFilter(exclude=("obs_rms.*",))) is None
    assert different_statistics([pair[0], pair[0]], EVERYTHING) is None
