"""`model: {timm: vit_base_patch16_224, args: {num_classes: 1000}}`, or `{timm: auto}` for a folder that timm saved."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import NetworkError
from soupcli.networks.guard import data_only
from soupcli.networks.library import Library, OtherInputs, differing, named, names_in_order, read_config
from soupcli.networks.network import ClassFolders, ImageTransform, Network, mean_and_std
from soupcli.networks.pictures import RESAMPLING, PictureSettings
from soupcli.networks.without_weights import make_without_weights
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import nn

    from soupcli.recipe.networks import TimmNetwork

# timm.data.readers.reader_image_folder: natural_key of the innermost folder's name
FOLDERS = ClassFolders("timm", "natural", innermost=True)


def build(spec: TimmNetwork, folder: Path, trust_code: bool = False) -> Network:
    """Build `timm.create_model` without weights, with the evaluation transform of its own data config."""
    timm = import_extra("timm", extra="timm")
    name, source, config = spec.timm, spec.timm, {}
    if name == "auto":
        config = _config_of(folder)
        name, source = config["architecture"], f"local-dir:{folder}"
    if not timm.is_model(name.split(".")[0]):
        raise NetworkError(
            f"model.timm: timm {timm.__version__} has no {name!r}{suggestion(name, timm.list_models())}",
            hint="timm.list_models() names those of this version",
        )
    try:
        with data_only(trust_code=trust_code):
            module = make_without_weights(lambda: timm.create_model(source, pretrained=False, **spec.args))
        channels = {**config.get("model_args", {}), **spec.args}.get("in_chans")
        pictures = _pictures(timm.data, module, channels, spec)
    except Exception as cause:
        raise NetworkError(
            f"timm.create_model({name!r}): {cause}", hint="see args: of model: in the recipe, and timm's own names"
        ) from cause
    return Network(module, pictures)


def _config_of(folder: Path) -> dict[str, Any]:
    """Read the config.json that timm writes beside its weights."""
    file, hint = folder / "config.json", "name the network: model: {timm: NAME}"
    try:
        config = read_config(file)
    except NetworkError as cause:
        raise NetworkError(str(cause), hint=hint) from cause
    if not isinstance(config.get("architecture"), str):
        raise NetworkError(f"{file}: names no `architecture`", hint=hint)
    return config


def label_names(spec: TimmNetwork, folder: Path) -> tuple[str, ...] | None:
    """Return the names in the folder's config.json, a list or a map from logits, if the network comes from there."""
    if spec.timm != "auto":
        return None
    names = _config_of(folder).get("label_names")
    return named(names) if isinstance(names, list) else names_in_order(names, folder / "config.json", key="label_names")


def _pictures(data: Any, module: nn.Module, channels: int | None, spec: TimmNetwork) -> ImageTransform:
    """Return timm's evaluation transform, for the channels and the size of the recipe's network."""
    own = data.resolve_data_config({}, model=module, use_test_size=spec.test_size)
    channels, size = channels or own["input_size"][0], spec.args.get("img_size")
    height, width = (size, size) if isinstance(size, int) else size or own["input_size"][1:]
    wanted: dict[str, Any] = {"input_size": (channels, height, width)}
    for key in ("mean", "std"):
        if len(own[key]) != channels:
            wanted[key] = (sum(own[key]) / len(own[key]),)  # as timm does it
    config = data.resolve_data_config(wanted, model=module, use_test_size=spec.test_size)
    decode = data.create_transform(**config, is_training=False, normalize=False)
    mode = "L" if channels == 1 else "RGB"
    normalise, description = mean_and_std(config["mean"], config["std"]), f"timm:{sorted(config.items())}"
    return ImageTransform(decode, normalise, description, mode, _origin(data, module, spec), _settings(config))


def _origin(data: Any, module: nn.Module, spec: TimmNetwork) -> str:
    """Return the transform's description, with the alternative if timm tests this network at another size."""
    at = {test: data.resolve_data_config({}, model=module, use_test_size=test) for test in (False, True)}
    if spec.test_size:
        return "timm's data config, at its test size"
    if at[False] == at[True] or "img_size" in spec.args:
        return "timm's data config"
    size, crop = at[True]["input_size"][1], at[True]["crop_pct"]
    return f"timm's data config, at its training size (test_size: true in model: tests at {size}, crop {crop})"


def _settings(config: Mapping[str, Any]) -> PictureSettings:
    """timm's data config in plain settings: the shorter side is the height over `crop_pct`."""
    _, height, width = config["input_size"]
    known = config["interpolation"] if config["interpolation"] in RESAMPLING else "bicubic"
    return PictureSettings(
        size=int(min(height, width) / config["crop_pct"]),
        crop=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=known,
    )


def _transform(spec: TimmNetwork, _folder: Path) -> str | None:
    return "timm's data config in config.json" if spec.timm == "auto" else f"timm's data config of {spec.timm}"


# Arguments of training alone, and those that shapes of tensors tell.
OF_TRAINING = re.compile(r".*drop.*|num_classes|in_chans|pretrained.*|checkpoint.*|scriptable|exportable|init_values")
DEFAULTS = ("token", "avg", "map", "")  # poolings that timm writes down unasked; any other of these has other tensors


def unlike(spec: TimmNetwork, folder: Path) -> str | None:
    """Return what the folder's config.json says of its network that the recipe does not, or None.

    Tensors of another activation or pooling often have the same names and shapes.
    """
    if spec.timm == "auto":
        return None
    try:
        config = _config_of(folder)
    except NetworkError:
        return None
    architecture, args = config["architecture"], config.get("model_args")
    said = {"architecture": architecture} if architecture.partition(".")[0] != spec.timm.partition(".")[0] else {}
    for key, value in args.items() if isinstance(args, dict) else ():
        if OF_TRAINING.fullmatch(key):
            continue
        default = DEFAULTS if key == "global_pool" else ()
        if _differ(spec.args[key], value) if key in spec.args else value not in default:
            said[key] = value
    listed = ", ".join(f"{key} {json.dumps(value)}" for key, value in said.items())
    return f"{folder / 'config.json'} says {listed}, which the recipe's {spec.timm} is not built with" if said else None


SETTINGS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")  # of pictures


def other_inputs(spec: TimmNetwork, folder: Path) -> OtherInputs:
    """Return the settings of pictures that config.json states, and that the recipe's network has otherwise."""
    if spec.timm == "auto":
        return {}
    try:
        config = _config_of(folder)
    except NetworkError:
        return {}
    said = config.get("pretrained_cfg", config)  # older ones have it all on one level
    sized = spec.test_size or "img_size" in spec.args
    keys = SETTINGS if sized else (*SETTINGS, "input_size")
    if not isinstance(said, dict) or not said.keys() & {*keys}:
        return {}
    own = import_extra("timm", extra="timm").get_pretrained_cfg(spec.timm, allow_unregistered=True)
    return differing(said, own.to_dict(), keys) if own is not None else {}


def _differ(one: Any, two: Any) -> bool:
    """Whether two values of an argument differ. One number is the side of a square."""
    sides = [[value, value] if isinstance(value, int) else value for value in (one, two)]
    return json.dumps(sides[0], default=str) != json.dumps(sides[1])


LIBRARY = Library(
    build,
    FOLDERS,
    label_names,
    transform=_transform,
    reads_folder=lambda spec: spec.timm == "auto",
    unlike=unlike,
    other_inputs=other_inputs,
)
