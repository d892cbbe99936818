"""timm's networks and transforms are timm's own, bit for bit, and its folders open as timm opens them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config, resolve_model_data_config
from timm.models import save_for_hf

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import NetworkError
from soupcli.networks.build import build
from soupcli.networks.network import Network
from soupcli.recipe.networks import TimmNetwork
from soupcli.recipe.sets import ImagesSet
from soupcli.run.caveats import other_network
from soupcli.run.other_inputs import known_other_inputs, other_inputs
from tests.helpers.network_toys import assert_same, loaded, randomised, saved
from tests.helpers.pictures import noise

NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("test_vit", {"num_classes": 5}),
    "vit_of_a_size": ("test_vit", {"num_classes": 5, "img_size": 64}),
    "vit_of_two_sizes": ("test_vit", {"num_classes": 5, "img_size": [64, 96]}),
    "efficientnet": ("test_efficientnet", {"num_classes": 5}),
    "resnet": ("test_resnet", {"num_classes": 5}),
    "byobnet": ("test_byobnet", {"num_classes": 5}),
    "grey": ("test_resnet", {"num_classes": 5, "in_chans": 1}),
    "tag": ("test_vit2.r160_in1k", {}),
}


def built(name: str, folder: Path, args: dict[str, Any]) -> Network:
    """The network of `folder`'s weights."""
    return build(TimmNetwork(timm=name, args=args), open_checkpoint(folder))


def whole_transform(model: Any, args: dict[str, Any]) -> Any:
    """timm's own evaluation transform, normalisation included."""
    size = args.get("img_size")
    size = (size, size) if isinstance(size, int) else tuple(size) if size else model.pretrained_cfg["input_size"][1:]
    wanted: dict[str, Any] = {"input_size": (args.get("in_chans", 3), *size)}
    if args.get("in_chans") == 1:
        wanted |= {key: (sum(model.pretrained_cfg[key]) / 3,) for key in ("mean", "std")}
    return create_transform(**resolve_data_config(wanted, model=model), is_training=False)


@pytest.mark.parametrize("kind", NAMES)
def test_equals_timm(kind: str, tmp_path: Path) -> None:
    """Weights, buffers, inputs and logits have the bits of timm's own model, transform and load_state_dict."""
    name, args = NAMES[kind]
    own_args = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    source = randomised(timm.create_model(name, **own_args))
    folder = saved(source, tmp_path / "run")
    reference = timm.create_model(name, **own_args).eval()
    reference.load_state_dict(source.state_dict(), strict=True)
    network = built(name, folder, args)
    assert all(parameter.is_meta for parameter in network.module.parameters())
    live = loaded(network, folder)
    assert_same(network.module, reference)
    pictures = network.pictures
    assert pictures is not None
    files = [noise(tmp_path / f"{i}.png", size=(170 + 31 * i, 200), seed=i) for i in range(2)]
    opened = [Image.open(file).convert(pictures.mode) for file in files]
    inputs = pictures.normalise(torch.stack([pictures.decode(picture) for picture in opened]))
    whole = torch.stack([whole_transform(reference, args)(picture) for picture in opened])
    assert torch.equal(inputs, whole)
    with torch.inference_mode():
        assert torch.equal(live.network.forward(inputs), reference(whole))


def test_transform_is_the_documented_one(tmp_path: Path) -> None:
    """Without arguments the transform is the two lines of timm's documentation."""
    model = timm.create_model("test_vit")
    network = built("test_vit", saved(model, tmp_path / "run"), {})
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    picture = Image.open(noise(tmp_path / "a.png", size=(200, 170))).convert("RGB")
    assert network.pictures is not None
    assert torch.equal(network.pictures.normalise(network.pictures.decode(picture)[None])[0], transform(picture))


@pytest.mark.parametrize(
    "args",
    [
        {"num_classes": 4},
        {"num_classes": 4, "img_size": 64},  # of any size: timm goes on recommending what it was trained at
        {"num_classes": 4, "img_size": 64, "dynamic_img_size": False},
        {"in_chans": 1},
    ],
)
def test_folder_that_timm_saved(args: dict[str, Any], tmp_path: Path) -> None:
    """`{timm: auto}`, and no `model:` at all, build from config.json what timm builds from `local-dir:`."""
    source: Any = randomised(timm.create_model("test_vit", **args))
    source.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)
    save_for_hf(source, str(tmp_path), safe_serialization=True)
    reference = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    for spec in (TimmNetwork(timm="auto"), None):
        network = build(spec, open_checkpoint(tmp_path))
        loaded(network, tmp_path)
        assert_same(network.module, reference)
        picture = Image.open(noise(tmp_path / "a.png", size=(200, 170)))
        assert network.pictures is not None
        picture = picture.convert(network.pictures.mode)
        transform = create_transform(**timm.data.resolve_input_data_config(reference), is_training=False)
        decoded = network.pictures.normalise(network.pictures.decode(picture)[None])[0]
        assert torch.equal(decoded, transform(picture))


def test_arguments_over_the_folder(tmp_path: Path) -> None:
    """`args:` of the recipe go over what config.json says."""
    save_for_hf(timm.create_model("test_vit", num_classes=4), str(tmp_path), safe_serialization=True)
    network = build(TimmNetwork(timm="auto", args={"num_classes": 7}), open_checkpoint(tmp_path))
    assert network.module.get_parameter("head.weight").shape[0] == 7


def test_label_names(tmp_path: Path) -> None:
    """Names of classes in config.json come with the network."""
    save_for_hf(
        timm.create_model("test_vit", num_classes=2),
        str(tmp_path),
        model_config={"label_names": ["n01", "n02"]},
        safe_serialization=True,
    )
    assert build(None, open_checkpoint(tmp_path)).outline.label_names == ("n01", "n02")


def test_errors(tmp_path: Path) -> None:
    """Wrong names and arguments, and folders that name no network, are one-line errors."""
    folder = saved(timm.create_model("test_vit"), tmp_path / "run")
    with pytest.raises(NetworkError, match=r"timm \S+ has no 'vit_base_patch16_2244', did you mean 'vit_base_"):
        built("vit_base_patch16_2244", folder, {})
    with pytest.raises(NetworkError, match=r"has no 'hf-hub:timm/resnet18'"):
        built("hf-hub:timm/resnet18", folder, {})
    with pytest.raises(NetworkError, match=r"^timm.create_model\('test_vit'\): .*num_clases"):
        built("test_vit", folder, {"num_clases": 3})
    with pytest.raises(NetworkError, match=r"config\.json: .*[Nn]o such file"):
        built("auto", folder, {})
    (folder / "config.json").write_text("{")
    with pytest.raises(NetworkError, match=r"config\.json: Expecting property name"):
        built("auto", folder, {})
    (folder / "config.json").write_text(json.dumps(["test_vit"]))
    with pytest.raises(NetworkError, match=r"config\.json: (names no `architecture`|holds a list)"):
        built("auto", folder, {})
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vitt", "pretrained_cfg": {}}))
    with pytest.raises(NetworkError, match="has no 'test_vitt', did you mean 'test_vit"):
        built("auto", folder, {})


def test_test_size(tmp_path: Path) -> None:
    """Networks that timm tests at another size and crop: a choice of the recipe, which the transform's name tells."""
    saved(timm.create_model("test_resnet"), tmp_path)
    module = timm.create_model("resnet18.a1_in1k")
    found = {}
    for test_size in (False, True):
        spec = TimmNetwork(timm="resnet18.a1_in1k", test_size=test_size)
        pictures = build(spec, open_checkpoint(tmp_path)).pictures
        assert pictures is not None
        config = resolve_data_config({}, model=module, use_test_size=test_size)
        found[test_size] = pictures.settings
        assert pictures.settings.crop == config["input_size"][1:]
        assert ("test_size: true" in pictures.source) == (not test_size)
    assert found[False] != found[True]


@pytest.mark.parametrize(
    ("named", "args", "saved_args", "said"),
    [
        ("test_resnet", {"num_classes": 5}, {"num_classes": 5}, None),
        ("auto", {}, {"act_layer": "silu"}, None),
        ("test_resnet", {}, {"act_layer": "silu", "drop_rate": 0.1}, 'act_layer "silu"'),
        ("test_resnet", {"act_layer": "silu"}, {"act_layer": "silu"}, None),
        ("test_resnet", {}, {"global_pool": "max"}, 'global_pool "max"'),
        ("test_byobnet", {}, {}, 'architecture "test_resnet"'),
        ("test_resnet.r160_in1k", {}, {}, None),
    ],
)
def test_another_network_than_beside(
    named: str, args: dict[str, Any], saved_args: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    """A named network of other arguments than those of config.json has the same tensors: it is warned of."""
    module = timm.create_model("test_resnet", **saved_args)
    save_for_hf(module, str(tmp_path), model_args=saved_args, safe_serialization=True)
    found = other_network([open_checkpoint(tmp_path)], TimmNetwork(timm=named, args=args))
    assert found is None if said is None else found is not None and f"config.json says {said}, which" in found


def test_other_inputs_than_beside(tmp_path: Path) -> None:
    """A named network whose pictures go in otherwise than config.json says is warned of, unless the set says how."""
    module = timm.create_model("test_resnet", pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3), "crop_pct": 0.5})
    save_for_hf(module, str(tmp_path), safe_serialization=True)
    one, sets = [open_checkpoint(tmp_path)], {"val": ImagesSet(images=tmp_path)}
    assert known_other_inputs(one, TimmNetwork(timm="test_resnet"), sets) is None
    found = str(other_inputs(one, TimmNetwork(timm="test_resnet"), sets))
    assert known_other_inputs(one, TimmNetwork(timm="test_resnet"), sets) == found
    assert (
        "mean [0.1, 0.2, 0.3] (here [" in found
        and "crop_pct 0.5 (here" in found
        and "std" not in found[: found.index(": auto")]
    )
    assert other_inputs(one, TimmNetwork(timm="auto"), sets) is None
    assert other_inputs(one, TimmNetwork(timm="test_resnet"), {}) is None
    told = {"val": ImagesSet(images=tmp_path, mean=[0.1, 0.2, 0.3], crop=4)}
    assert other_inputs(one, TimmNetwork(timm="test_resnet"), told) is None
    assert known_other_inputs(one, TimmNetwork(timm="test_resnet"), told) is None
    save_for_hf(timm.create_model("test_resnet"), str(tmp_path), safe_serialization=True)
    assert known_other_inputs(one, TimmNetwork(timm="test_resnet"), sets) is None
    assert other_inputs(one, TimmNetwork(timm="test_resnet"), sets) is None


@pytest.mark.parametrize("size", [64, [64, 64]])
def test_sizes_that_are_the_same(size: int | list[int], tmp_path: Path) -> None:
    """timm writes one side as two, and the pooling that it has unasked: these are no other network."""
    args = {"num_classes": 5, "img_size": 64}
    save_for_hf(timm.create_model("test_vit", **args), str(tmp_path), model_args=args, safe_serialization=True)
    spec = TimmNetwork(timm="test_vit", args={"num_classes": 5, "img_size": size})
    assert other_network([open_checkpoint(tmp_path)], spec) is None
