"""Which part of a saved object is taken, and what is said about the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from soupcli.checkpoints.compare.agreement import check_agreement
from soupcli.checkpoints.formats.network_part import AVERAGED, TRAINED
from soupcli.checkpoints.open import How, open_checkpoint
from soupcli.errors import CheckpointError, MixError
from tests.helpers.checkpoint_tensors import assert_same, opened, small_net


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    return small_net(seed).state_dict()


def adam() -> dict[str, Any]:
    """The state of an optimizer after a step, with tensors in it."""
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", [*AVERAGED, *TRAINED])
def test_usual_names(tmp_path: Path, key: str) -> None:
    """Each usual name is taken beside counters and training state, wherever it stands."""
    content = {"epoch": 1, "optimizer": adam(), "scheduler": {"last": torch.ones(2)}, key: state()}
    checkpoint = open_checkpoint(saved(tmp_path / "x.pt", content))
    assert checkpoint.origin.key == key
    assert checkpoint.origin.averaged == (key in AVERAGED)
    assert_same(opened(tmp_path / "x.pt"), state())


@pytest.mark.parametrize("averaged", AVERAGED)
@pytest.mark.parametrize("trained", ["state_dict", "model"])
def test_averaged_weights_come_first(tmp_path: Path, averaged: str, trained: str) -> None:
    """The averaged weights come before the trained ones, whatever their order in the file; a note says so."""
    path = saved(tmp_path / "x.pt", {trained: state(1), averaged: state(0)})
    assert_same(opened(path), state(0))
    note = f"weights are taken from {averaged!r}, which holds averaged ones; the trained ones: --key {trained}"
    assert open_checkpoint(path).origin.notes == (note,)
    assert_same(opened(path, key=trained), state(1))


def test_bare(tmp_path: Path) -> None:
    """A state dict that lies there bare has no key, with or without --key, and nothing is said."""
    path = saved(tmp_path / "x.pt", {**state(), "epoch": 3, "optimizer": adam()})
    assert open_checkpoint(path).origin.key is None
    assert_same(opened(path), state())
    torch.save(state(), path)
    for how in (How(), How(key="state_dict")):
        assert open_checkpoint(path, how).origin.key is None
        assert open_checkpoint(path, how).origin.notes == ()
    assert_same(opened(path), state())


def test_key_overrides(tmp_path: Path) -> None:
    """--key takes what it names, with dots where it lies deeper, and keys that hold dots themselves."""
    content = {"state_dict": state(0), "nets": {"g": state(1), "d": state(3)}, "v1.0": {"net": state(2)}}
    path = saved(tmp_path / "x.pt", content)
    assert_same(opened(path, key="nets.g"), state(1))
    assert_same(opened(path, key="v1.0.net"), state(2))
    assert_same(opened(path, key="v1.0"), state(2))
    with pytest.raises(CheckpointError, match=r"has no key 'teacher', only 'state_dict', 'nets', 'v1\.0'"):
        open_checkpoint(path, How(key="teacher"))
    with pytest.raises(CheckpointError, match=r"parts that may each be the network: nets\.g, nets\.d") as refused:
        open_checkpoint(path, How(key="nets"))
    assert refused.value.hint == "say which: --key nets.g, or --key nets.d; or all as one network: --key 'nets.*'"


def test_an_empty_average_is_not_taken(tmp_path: Path) -> None:
    """A key that is there without weights, as some trainers leave it, is passed over."""
    path = saved(tmp_path / "x.pt", {"state_dict_ema": None, "model_ema": {}, "ema": {"n": 1}, "model": state()})
    assert open_checkpoint(path).origin.key == "model"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"student": state(0), "teacher": state(1)}, ["student", "teacher"]),
        ({"generator": state(0), "discriminator": state(1), "optimizer_g": adam()}, ["generator", "discriminator"]),
        ({"model": state(0), "net": state(1)}, ["model", "net"]),
        ({"ema": state(0), "model_ema": state(1)}, ["model_ema", "ema"]),
        ({"model": {"encoder": state(0), "decoder": state(1)}}, ["model.encoder", "model.decoder"]),
    ],
    ids=["teacher", "gan", "two trained", "two averaged", "deeper"],
)
def test_what_is_not_clear_is_asked(tmp_path: Path, content: object, named: list[str]) -> None:
    """Where two parts may be the network both are named, and every hint takes one of them."""
    with pytest.raises(CheckpointError, match="may each be the network: " + ", ".join(named)) as refused:
        open_checkpoint(saved(tmp_path / "x.pt", content))
    hint = str(refused.value.hint).removeprefix("say which: ").partition("; or all")[0].replace(", or", "")
    assert hint.split() == [word for name in named for word in ("--key", name)]
    for name in named:
        assert open_checkpoint(tmp_path / "x.pt", How(key=name)).origin.key == name


def test_a_generator_beside_the_model(tmp_path: Path) -> None:
    """OpenNMT-py's last layer is a part of its own: both are one network, and no other file's parts are unasked."""
    content = {"model": state(0), "generator": state(1), "vocab": {"src": ["a"]}, "opt": {"lr": 1}, "optim": adam()}
    one = open_checkpoint(saved(tmp_path / "x.pt", content))
    assert one.origin.key == "*" and len(one.tensors) == 2 * len(state())
    other = open_checkpoint(saved(tmp_path / "y.pt", {**content, "generator": None}))
    assert other.origin.key == "model"
    with pytest.raises(MixError, match=r"taken from 'model', those of .* from '\*'") as refused:
        check_agreement([one, other])
    assert refused.value.hint is not None and "--key" not in refused.value.hint
    alone = open_checkpoint(saved(tmp_path / "z.pt", {"model": state(0), "generator": state(1)}))
    assert alone.origin.notes == ("left out beside 'model': generator; --key '*' mixes all as one network",)


def test_all_parts_as_one(tmp_path: Path) -> None:
    """`--key '*'` takes every part that may be a network, and tensors beside; names begin with their part's."""
    content = {"gen": state(0), "disc": {"state_dict": state(1), "opt": adam()}, "scale": torch.ones(1), "epoch": 3}
    content |= {"optimizer": adam(), "rng_state": torch.ones(8), "queue": [torch.ones(2)]}
    expected = {f"gen.{name}": tensor for name, tensor in state(0).items()}
    expected |= {f"disc.state_dict.{name}": tensor for name, tensor in state(1).items()}
    for path, key in ((saved(tmp_path / "x.pt", content), "*"), (saved(tmp_path / "y.pt", {"a": content}), "a.*")):
        assert_same(opened(path, key=key), {**expected, "scale": torch.ones(1)})
        origin = open_checkpoint(path, How(key=key)).origin
        assert origin.key == key and "left out beside them: queue" in origin.notes
    with pytest.raises(CheckpointError, match="leads into the state of an optimizer"):
        opened(tmp_path / "x.pt", key="optimizer.*")


def test_ip_adapter(tmp_path: Path) -> None:
    """Its two parts are one network, with the names that it has in safetensors."""
    path = saved(tmp_path / "x.bin", {"image_proj": state(0), "ip_adapter": state(1)})
    expected = {f"image_proj.{name}": tensor for name, tensor in state(0).items()}
    assert_same(opened(path), expected | {f"ip_adapter.{name}": tensor for name, tensor in state(1).items()})
    assert open_checkpoint(path).origin.format == "IP-Adapter"


@pytest.mark.parametrize("name", ["masks", "fisher", "initial"])
def test_further_numbers_for_the_same_names(tmp_path: Path, name: str) -> None:
    """Masks, or the importance of weights, beside the weights themselves are not offered as the network."""
    path = saved(tmp_path / "x.pt", {**state(0), name: dict(list(state(1).items())[:1])})
    with pytest.raises(CheckpointError, match=f"holds tensors, and further numbers for the same names: {name}$") as no:
        opened(path)
    assert f"if name not in ['{name}']" in str(no.value.hint) and "--key" not in str(no.value.hint)


def test_parts_beside_tensors(tmp_path: Path) -> None:
    """Tensors beside a part: which belong together is not known, so the hint says what --key leaves out."""
    path = saved(tmp_path / "x.pt", {"w": torch.ones(2), "encoder": state(0), "decoder": state(1)})
    with pytest.raises(CheckpointError, match="holds tensors, and parts with further tensors: encoder") as refused:
        open_checkpoint(path)
    assert "one part and nothing else: --key encoder, or --key decoder; or all" in str(refused.value.hint)
    assert_same(opened(path, key="encoder"), state(0))


class Holder:
    """An object of the user's with tensors in its attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Mapped(dict):  # type: ignore[type-arg]
    """A dict of the user's, as configuration libraries have."""


def test_objects_that_hold_the_network(tmp_path: Path) -> None:
    """A training state that is an object, a learner, a dict of another class: the usual names are found in them."""
    net = small_net()
    for number, content in enumerate(
        [
            Holder(model=net, opt=adam(), loss_func=nn.CrossEntropyLoss()),
            {"epoch": 1, "ema": Holder(ema=net, updates=3)},
            Mapped(state_dict=Mapped(net.state_dict()), cfg=Mapped(lr=0.1)),
        ]
    ):
        path = saved(tmp_path / f"{number}.pt", content)
        assert_same(opened(path), net.state_dict())
        assert open_checkpoint(path).origin.key == ["model", "ema.ema", "state_dict"][number]


def test_an_object_with_tensors_is_no_network(tmp_path: Path) -> None:
    """A tensor in a class of the user's, as quantisers have, is neither taken apart nor dropped."""
    packed = Holder(data=torch.ones(2), scale=torch.ones(1))
    for content in ({"w": packed}, {"w": packed, "b": torch.ones(1)}):
        with pytest.raises(CheckpointError, match=r"'w' is a .*Holder of tensors without names"):
            open_checkpoint(saved(tmp_path / "x.pt", content))


def test_one_network_under_two_names(tmp_path: Path) -> None:
    """A module and its own state dict hold the same storages: there is nothing to ask."""
    net = small_net()
    path = saved(tmp_path / "x.pt", {"model": net, "state_dict": net.state_dict()})
    assert open_checkpoint(path).origin.key == "state_dict"
    assert_same(opened(path), net.state_dict())


def test_the_only_part(tmp_path: Path) -> None:
    """A single part with tensors is taken whatever its name, at any depth, and a note says which."""
    beside = {"epoch": 3, "optimizer": adam(), "torch_rng_state": torch.ones(8)}
    path = saved(tmp_path / "x.pt", {"app": {"weights": state(), "opt": adam()}, **beside})
    origin = open_checkpoint(path).origin
    assert origin.key == "app.weights"
    assert [note.partition(",")[0] for note in origin.notes] == [
        "weights are taken from 'app'",
        "weights are taken from 'app.weights'",
    ]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"head": {"fc.weight": torch.ones(2)}}, "head"),
        ({"logit_scale": torch.tensor(1.0)}, "logit_scale"),
        ({"queue": torch.ones(5)}, "queue"),
        ({"prototypes": [torch.ones(2), torch.ones(2)]}, "prototypes"),
        ({"criterion": nn.BCEWithLogitsLoss(pos_weight=torch.ones(2))}, "criterion"),
        ({"callbacks": {"ema": {"shadow": {"w": torch.ones(3)}}}}, "callbacks"),
        ({"callbacks": {"best": {"best_model_score": torch.tensor(0.5)}}}, None),
        ({"optimizer_states": [adam()], "lr_schedulers": [{"x": torch.ones(1)}]}, None),
        ({"optimizers": {"a": adam(), "b": adam()}, "grad_scaler": {"scale": torch.ones(1)}}, None),
        ({"rng_state": torch.ones(8), "cuda_rng_states": [torch.ones(8)], "best_acc": torch.tensor(0.5)}, None),
        ({"hyper": {"optimizer": adam()}}, None),
        ({"training": {"optimizer": adam(), "scheduler": {"last": torch.ones(1)}, "epoch": 3}}, None),
        ({"training": {"optimizer": adam(), "queue": [torch.ones(5)]}}, "training"),
    ],
)
def test_what_is_left_out_is_named(tmp_path: Path, beside: dict[str, Any], said: str | None) -> None:
    """A part with tensors beside the weights is named, unless it is the training's own."""
    notes = open_checkpoint(saved(tmp_path / "x.pt", {"model": state(), **beside})).origin.notes
    assert tuple(note.partition(";")[0] for note in notes) == ((f"left out beside 'model': {said}",) if said else ())
    asked = open_checkpoint(tmp_path / "x.pt", How(key="model")).origin.notes
    assert asked == tuple(note.partition(";")[0] for note in notes)


def test_an_optimizer_is_never_taken(tmp_path: Path) -> None:
    """Neither where nothing else is there, nor by --key, on no way into it."""
    content = {"epoch": 1, "optimizer_state_dict": adam(), "others": {"a": adam()}}
    path = saved(tmp_path / "x.pt", content)
    with pytest.raises(CheckpointError, match="no state dict: it holds 'epoch', 'optimizer_state_dict'"):
        open_checkpoint(path)
    for key in ("optimizer_state_dict", "optimizer_state_dict.state.0", "others.a.state"):
        with pytest.raises(CheckpointError, match=f"--key {key} leads into the state of an optimizer"):
            open_checkpoint(path, How(key=key))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": torch.ones(2), "codebooks": [torch.ones(2)]}, "'codebooks' is a list of tensors without names"),
        ({"model": {"w": torch.ones(2), "pair": (torch.ones(2),)}}, "'pair' under 'model' is a tuple of tensors"),
        ({1: torch.ones(2), "1": torch.zeros(2)}, "two tensors with the name 1, as a text and as a number"),
        ({b"w": torch.ones(2)}, "for a name, not a text"),
        ({(1, 2): torch.ones(2)}, "for a name, not a text"),
        ({"\ud800": torch.ones(2)}, "is no valid text"),
        ([state()], "holds a list, not a state dict"),
        ({"ema": {"shadow_params": [torch.ones(2)]}}, "may each be the network: ema"),
    ],
)
def test_tensors_without_a_name_of_their_own(tmp_path: Path, content: object, message: str) -> None:
    """Tensors in lists and under keys that are no names are refused, never dropped."""
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(saved(tmp_path / "x.pt", content))


def test_lists_of_averages_do_not_hide_the_weights(tmp_path: Path) -> None:
    """Averages that are kept as a list have no names: the trained weights are taken, the list is named."""
    content = {"model": state(), "ema": {"decay": 0.9, "shadow_params": [torch.ones(2)]}}
    origin = open_checkpoint(saved(tmp_path / "x.pt", content)).origin
    assert (origin.key, origin.averaged, origin.notes) == ("model", False, ("left out beside 'model': ema",))


def test_extra_state_is_none_of_the_weights(tmp_path: Path) -> None:
    """What a module keeps for itself may have any form."""
    path = saved(tmp_path / "x.pt", {**state(), "0._extra_state": [torch.ones(3)], "1._extra_state": {"a": 1}})
    assert_same(opened(path), state())


def test_averaged_weights_under_the_usual_name(tmp_path: Path) -> None:
    """mmengine's EMA hook puts the averaged weights under state_dict and the trained ones under ema_state_dict."""
    content = {
        "meta": {"mmengine_version": "0.10"},
        "message_hub": {},
        "state_dict": state(0),
        "ema_state_dict": {"steps": torch.tensor(3), **{f"module.{name}": tensor for name, tensor in state(1).items()}},
    }
    path = saved(tmp_path / "x.pth", content)
    origin = open_checkpoint(path).origin
    assert (origin.format, origin.key, origin.averaged) == ("mmengine", "state_dict", True)
    assert_same(opened(path), state(0))
    assert_same(opened(path, key="ema_state_dict"), state(1))


def test_averaged_model(tmp_path: Path) -> None:
    """torch's AveragedModel: its counter is none of the network's tensors."""
    net = small_net()
    averaged = AveragedModel(net)
    averaged.update_parameters(net)
    torch.save(averaged.state_dict(), tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_same(opened(tmp_path / "x.pt"), averaged.module.state_dict())
    assert checkpoint.origin.format == "averaged"
    torch.save({"n_averaged": torch.tensor(1), "w": torch.ones(1)}, tmp_path / "y.pt")
    assert sorted(opened(tmp_path / "y.pt")) == ["n_averaged", "w"]


def test_fairseq(tmp_path: Path) -> None:
    """fairseq's keys: the weights are under `model`, its configuration needs no class."""
    content = {"args": None, "cfg": {"task": "x"}, "model": state(), "extra_state": {}, "last_optimizer_state": None}
    path = saved(tmp_path / "checkpoint_best.pt", content)
    checkpoint = open_checkpoint(path)
    assert (checkpoint.origin.format, checkpoint.origin.key) == ("fairseq", "model")
    assert_same(opened(path), state())


def test_numpy_arrays(tmp_path: Path) -> None:
    """Arrays in the place of the weights are refused, beside them named, and in objects of the training left alone."""
    arrays = {"w": numpy.ones(2)}
    with pytest.raises(CheckpointError, match="no state dict: its numbers are numpy arrays"):
        open_checkpoint(saved(tmp_path / "a.pt", {"model": arrays, "epoch": 1}))
    content = {"model": state(), "prototypes": numpy.ones(2), "stats": arrays, "best_acc": numpy.ones(1)}
    content |= {"log": Holder(history=numpy.ones(2))}
    notes = open_checkpoint(saved(tmp_path / "b.pt", content)).origin.notes
    assert notes == ("left out beside 'model': prototypes, stats",)


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        ({"encoder": state(), "decoder": state(), "epoch": 3}, "encoder", "decoder"),
        ({"nets": {"encoder": state(), "decoder": state()}, "head": state()}, "nets.encoder", "head, nets.decoder"),
        ({"state_dict": state(), "state_dict_ema": state()}, "state_dict", None),
        ({"state_dict": state(), "state_dict_ema": state(), "teacher": state()}, "state_dict", "teacher"),
    ],
)
def test_what_key_leaves_out_is_named(tmp_path: Path, content: dict[str, Any], key: str, said: str | None) -> None:
    """Other parts than that of --key are named, but for the averaged or trained weights of the same network."""
    notes = open_checkpoint(saved(tmp_path / "x.pt", content), How(key=key)).origin.notes
    assert notes == ((f"left out beside {key!r}: {said}",) if said else ())
