"""`model: {timm: vit_base_patch16_224, args: {num_classes: 1000}}`, or `{timm: auto}` for a folder that timm saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from soupcli.errors import NetworkError
from soupcli.extras import need
from soupcli.network import Network, Pictures, mean_and_std
from soupcli.recipe import TimmNetwork
from soupcli.recipe_yaml import suggestion


def build(spec: TimmNetwork, folder: Path, make: Callable[..., nn.Module]) -> Network:
    """`timm.create_model` without weights, with the evaluation transform of its own data config."""
    timm = need("timm", extra="timm")
    name, args = (spec.timm, dict(spec.args)) if spec.timm != "auto" else _of_folder(folder, spec.args)
    if not timm.is_model(name.split(".")[0]):
        raise NetworkError(f"model.timm: timm {timm.__version__} has no {name!r}{suggestion(name, timm.list_models())}")
    try:
        module = make(lambda: timm.create_model(name, pretrained=False, **args))
    except Exception as cause:
        raise NetworkError(f"timm.create_model({name!r}): {cause}", hint="see model.args in the recipe") from cause
    image_size = {"img_size": args["img_size"]} if isinstance(args.get("img_size"), int) else {}
    return Network(module, _pictures(timm.data.resolve_data_config(image_size, model=module)))


def _of_folder(folder: Path, args: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments from the config.json that timm writes beside its weights."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        name: str = config["architecture"]
    except (OSError, ValueError, KeyError) as cause:
        raise NetworkError(f"{folder}/config.json: no `architecture` in it", hint="model: {timm: NAME}") from cause
    found = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
    found |= config.get("model_args", {})
    if config.get("pretrained_cfg"):
        shown = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "num_classes")
        found["pretrained_cfg_overlay"] = {k: v for k, v in config["pretrained_cfg"].items() if k in shown}
    return name, found | args


def _pictures(config: dict[str, Any]) -> Pictures:
    data = need("timm", extra="timm").data
    decode = data.create_transform(**config, is_training=False, normalize=False)
    mode = "L" if config["input_size"][0] == 1 else "RGB"
    return Pictures(decode, mean_and_std(config["mean"], config["std"]), f"timm:{sorted(config.items())}", mode)
