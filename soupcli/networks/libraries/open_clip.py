"""`model: {open_clip: ViT-B-32}`: a CLIP network as zero-shot classifier over class names and templates.

`{open_clip: auto}` takes the open_clip_config.json beside the weights. The classifier is the text tower's mean
embedding of all templates for each class, as in Radford et al. 2021 (arXiv:2103.00020), section 3.1.4; it is built once
for each set of weights. With `head: 1000` it is a classifier itself (see image_head.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import NetworkError
from soupcli.files.json_text import parse_json
from soupcli.files.small_file import read_small
from soupcli.late import torch
from soupcli.networks.guard import data_only
from soupcli.networks.library import MAX_CONFIG, Library, OtherInputs, differing, read_config
from soupcli.networks.network import Batch, Forward, ImageTransform, Network, like_weights, mean_and_std
from soupcli.networks.pictures import RESAMPLING, PictureSettings
from soupcli.networks.without_weights import make_without_weights
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.recipe.networks import OpenClipNetwork

TEXT_TRANSFORMER = r"^model\.transformer\."


def build(spec: OpenClipNetwork, folder: Path, trust_code: bool = False) -> Network:
    """Build `open_clip.create_model` without weights, with its own preprocessing and tokenizer."""
    open_clip = import_extra("open_clip", extra="open-clip")
    name = spec.open_clip
    if name == "auto":
        name = f"local-dir:{_with_config(folder)}"
    elif name.replace("/", "-") not in open_clip.list_models():
        raise NetworkError(
            f"model.open_clip: has no {name!r}{suggestion(name, open_clip.list_models())}",
            hint="open_clip.list_models() names those of this version",
        )
    # Nothing is fetched: no weights of the whole, none of either tower.
    without = {"pretrained": None, "load_weights": False, "pretrained_image": False, "pretrained_text": False}
    try:
        with _without_warnings(), data_only(trust_code=trust_code):
            module = make_without_weights(lambda: _module(open_clip.create_model(name, **without, **spec.args), spec))
            tokenizer = open_clip.get_tokenizer(name, **_tokenizer_arguments(open_clip, name, trust_code=trust_code))
        pictures = _pictures(module if spec.head is None else module.model)
    except Exception as cause:
        first_line = next(filter(None, str(cause).splitlines()), type(cause).__name__)
        raise NetworkError(f"open_clip {name!r}: {first_line}", hint="see args: of model: in the recipe") from cause
    if spec.head is not None:
        return Network(module, pictures, ignored_names=(TEXT_TRANSFORMER,))
    return Network(module, pictures, zero_shot=partial(_zero_shot, open_clip, tokenizer), towers=("visual",))


def _tokenizer_arguments(open_clip: Any, name: str, *, trust_code: bool) -> dict[str, Any]:
    """Return arguments that forbid tokenizers of transformers to run code; other tokenizers take no such argument."""
    text = (open_clip.get_model_config(name) or {}).get("text_cfg") or {}
    return {"trust_remote_code": trust_code} if text.get("hf_tokenizer_name") else {}


def _module(clip: Any, spec: OpenClipNetwork) -> Any:
    """Return the network. With a head on pictures it needs no text transformer, and the authors' files have none."""
    if spec.head is None:
        return clip
    from soupcli.networks.libraries.image_head import ImageHead

    features = clip.visual.output_dim
    del clip.transformer
    return ImageHead(clip, lambda model, pictures: model.encode_image(pictures), features=features, classes=spec.head)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide open_clip's warning that weights are random, because they are filled in next."""
    log = import_extra("open_clip.factory", extra="open-clip").logging
    before = log.root.manager.disable
    log.disable(log.WARNING)
    try:
        yield
    finally:
        log.disable(before)


def _with_config(folder: Path) -> Path:
    file = folder / "open_clip_config.json"
    try:
        parse_json(read_small(file, most=MAX_CONFIG))["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
        raise NetworkError(
            f"{file}: describes no network: {cause}", hint="name the network: model: {open_clip: NAME}"
        ) from cause
    return folder


def _pictures(module: Any) -> ImageTransform:
    """Return open_clip's evaluation transform. Its last two steps, ToTensor and Normalize, run on the device."""
    own = import_extra("open_clip.transform", extra="open-clip")
    config = own.PreprocessCfg(**module.visual.preprocess_cfg)
    transform = own.image_transform_v2(config, is_train=False)
    to_tensor = import_extra("torchvision.transforms.functional", extra="open-clip").pil_to_tensor

    def decode(picture: Any) -> Tensor:
        for step in transform.transforms[:-2]:
            picture = step(picture)
        pixels: Tensor = to_tensor(picture)
        return pixels

    size = config.size if isinstance(config.size, int) else tuple(config.size)
    interpolation = config.interpolation if config.interpolation in RESAMPLING else "bicubic"
    settings = PictureSettings(size, size, tuple(config.mean), tuple(config.std), interpolation)
    normalise, description = mean_and_std(config.mean, config.std), f"open_clip:{config}"
    return ImageTransform(decode, normalise, description, config.mode, "open_clip's preprocess_cfg", settings)


def _zero_shot(
    open_clip: Any, tokenizer: Any, module: Any, classnames: Sequence[str], templates: Sequence[str]
) -> Forward:
    """Return logits of pictures for the class names: temperature times the cosine similarity."""
    device = next(module.parameters()).device
    classifier_dk = open_clip.build_zero_shot_classifier(
        module, tokenizer, list(classnames), list(templates), device=device
    )

    def forward(inputs: Batch) -> Tensor:
        assert isinstance(inputs, torch.Tensor)
        features_nd = module.encode_image(like_weights(module, inputs), normalize=True)
        logits: Tensor = module.logit_scale.exp() * features_nd @ classifier_dk
        return logits

    return forward


# Class folders are numbered by torchvision: open_clip_train.data reads them through ImageFolder.
def _transform(spec: OpenClipNetwork, _folder: Path) -> str | None:
    return "open_clip_config.json" if spec.open_clip == "auto" else f"open_clip's preprocess_cfg of {spec.open_clip}"


# Settings of training alone, and where weights come from.
OF_TRAINING = re.compile(r".*drop.*|.*pretrained.*|.*init.*")
OF_OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}  # of every network that is made by its name, without weights (open_clip/transform.py: PreprocessCfg)


def unlike(spec: OpenClipNetwork, folder: Path) -> str | None:
    """Return what the folder's open_clip_config.json says of its network that the recipe does not, or None.

    Tensors of another activation have the same names and shapes: ViT-B-32 and ViT-B-32-quickgelu.
    """
    found, config = util.find_spec("open_clip"), _config_of(folder)
    if spec.open_clip == "auto" or config is None or found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / f"model_configs/{spec.open_clip.replace('/', '-')}.json"
    if not file.is_file():
        return None
    own, said = dict(_flat(read_config(file))), dict(_flat(config.get("model_cfg")))
    own |= {key: spec.args[flag] for flag, key in FORCED.items() if spec.args.get(flag)}
    keys = [key for key in {**said, **own} if (said.get(key) or None) != (own.get(key) or None)]
    listed = ", ".join(f"{key} {json.dumps(said.get(key))}" for key in keys if not OF_TRAINING.fullmatch(key))
    if not listed:
        return None
    return f"{folder / CONFIG} says {listed}, which the recipe's {spec.open_clip} is not built with"


CONFIG = "open_clip_config.json"
FORCED = {
    "force_quick_gelu": "quick_gelu",
    "force_image_size": "vision_cfg.image_size",
    "force_context_length": "text_cfg.context_length",
}


def _config_of(folder: Path) -> dict[str, Any] | None:
    """Return the configuration that open_clip writes beside its weights, or None without one."""
    try:
        return read_config(folder / CONFIG)
    except NetworkError:
        return None


def _flat(config: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def other_inputs(spec: OpenClipNetwork, folder: Path) -> OtherInputs:
    """Return the settings of pictures that open_clip_config.json states, and that the recipe's network has not."""
    config = _config_of(folder) if spec.open_clip != "auto" else None
    said = config.get("preprocess_cfg") if config is not None else None
    return differing(said, OF_OPENAI, [*OF_OPENAI]) if isinstance(said, dict) else {}


LIBRARY = Library(
    build,
    transform=_transform,
    reads_folder=lambda spec: spec.open_clip == "auto",
    unlike=unlike,
    other_inputs=other_inputs,
)
