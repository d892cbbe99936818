"""`model: {open_clip: ViT-B-32}`: a CLIP network as zero-shot classifier over class names and templates.

The classifier is the text tower's mean embedding of all templates for each class, as in Radford et al. 2021
(arXiv:2103.00020), section 3.1.4; it is built once for each set of weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from soupcli.errors import NetworkError
from soupcli.extras import need
from soupcli.network import Batch, Forward, Network, Pictures, mean_and_std
from soupcli.recipe import OpenClipNetwork
from soupcli.recipe_yaml import suggestion


def build(spec: OpenClipNetwork, folder: Path, make: Callable[..., nn.Module]) -> Network:
    """`open_clip.create_model` without weights, with its own preprocessing and tokenizer."""
    open_clip = need("open_clip", extra="open-clip")
    name = spec.open_clip
    if name == "auto":
        name = _register_folder(open_clip, folder)
    elif name not in open_clip.list_models():
        raise NetworkError(f"model.open_clip: has no {name!r}{suggestion(name, open_clip.list_models())}")
    try:
        module = make(lambda: open_clip.create_model(name, pretrained=None, load_weights=False, **spec.args))
    except (RuntimeError, TypeError, ValueError) as cause:
        raise NetworkError(f"open_clip {name!r}: {cause}", hint="see model.args in the recipe") from cause
    tokenizer = open_clip.get_tokenizer(name)
    return Network(module, _pictures(open_clip, module), zero_shot=partial(_zero_shot, tokenizer))


def _register_folder(open_clip: Any, folder: Path) -> str:
    """Makes the architecture of the folder's open_clip_config.json known to open_clip, under a name of its own."""
    try:
        config = json.loads((folder / "open_clip_config.json").read_text("utf-8"))["model_cfg"]
    except (OSError, ValueError, KeyError) as cause:
        raise NetworkError(
            f"{folder}: its open_clip_config.json has no `model_cfg`", hint="model: {open_clip: NAME}"
        ) from cause
    name = f"soup-{folder.name}"
    open_clip.factory._MODEL_CONFIGS[name] = config
    return name


def _pictures(open_clip: Any, module: Any) -> Pictures:
    """open_clip's evaluation transform without ToTensor and Normalize, which follow on the device."""
    config = module.visual.preprocess_cfg
    transform = open_clip.image_transform(
        module.visual.image_size,
        is_train=False,
        mean=config["mean"],
        std=config["std"],
        interpolation=config.get("interpolation"),
        resize_mode=config.get("resize_mode"),
        fill_color=config.get("fill_color", 0),
    )
    to_tensor = need("torchvision.transforms.functional", extra="open-clip").pil_to_tensor
    geometry = transform.transforms[:-2]

    def decode(picture: Any) -> Tensor:
        for step in geometry:
            picture = step(picture)
        pixels: Tensor = to_tensor(picture)
        return pixels

    return Pictures(decode, mean_and_std(config["mean"], config["std"]), f"open_clip:{transform}")


def _zero_shot(tokenizer: Any, module: Any, classnames: Sequence[str], templates: Sequence[str]) -> Forward:
    """Logits of pictures against the class names: temperature times the cosine similarity."""
    device = next(module.parameters()).device
    columns = []
    for classname in classnames:
        tokens = tokenizer([template.format(classname) for template in templates]).to(device)
        embedding_d = module.encode_text(tokens, normalize=True).mean(dim=0)
        columns.append(embedding_d / embedding_d.norm())
    classifier_dk = torch.stack(columns, dim=1)

    def forward(inputs: Batch) -> Tensor:
        features_nd = module.encode_image(inputs, normalize=True)
        logits: Tensor = module.logit_scale.exp() * features_nd @ classifier_dk
        return logits

    return forward
