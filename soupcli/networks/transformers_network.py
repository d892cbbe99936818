"""`model: {transformers: auto}`: the class and configuration of the checkpoint's own config.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from soupcli.errors import NetworkError
from soupcli.extras import need
from soupcli.network import Network, Pictures
from soupcli.recipe import TransformersNetwork
from soupcli.recipe_yaml import suggestion


def build(spec: TransformersNetwork, folder: Path, make: Callable[..., nn.Module]) -> Network:
    """The network of `folder`'s config.json with its tokenizer and image processor, where there are any."""
    transformers = need("transformers", extra="transformers")
    if not (folder / "config.json").is_file():
        raise NetworkError(f"{folder}: has no config.json", hint="model.save_pretrained(...) writes it")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **spec.args)
    except (ValueError, OSError, KeyError) as cause:
        raise NetworkError(f"{folder}/config.json: {str(cause).splitlines()[0]}") from cause
    architecture = _architecture(transformers, spec.transformers, config, folder)
    module = make(lambda: _from_config(architecture, config))
    ignored = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    names = tuple(config.id2label[i] for i in sorted(config.id2label)) if config.id2label else None
    return Network(module, _pictures(transformers, folder), _tokenizer(transformers, folder), names, tuple(ignored))


def _from_config(architecture: Any, config: Any) -> nn.Module:
    make = getattr(architecture, "_from_config", None) or architecture.from_config
    module: nn.Module = make(config)
    return module


def _architecture(transformers: Any, name: str, config: Any, folder: Path) -> Any:
    if name == "auto":
        named = config.architectures or []
        if not named:
            raise NetworkError(
                f"{folder}/config.json: names no architecture",
                hint="model: {transformers: AutoModelForSequenceClassification}, or another class",
            )
        name = named[0]
    if not hasattr(transformers, name):
        raise NetworkError(
            f"model.transformers: transformers {transformers.__version__} has no {name!r}"
            f"{suggestion(name, (word for word in dir(transformers) if word[:1].isupper()))}"
        )
    return getattr(transformers, name)


def _tokenizer(transformers: Any, folder: Path) -> Any:
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab.*")):
        return None
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _pictures(transformers: Any, folder: Path) -> Pictures | None:
    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        return None
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    def decode(picture: Any) -> Tensor:
        made = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="pt")
        pixels: Tensor = made["pixel_values"][0]
        return pixels

    def normalise(pictures: Tensor) -> Tensor:
        settings = (processor.do_rescale, processor.rescale_factor, processor.do_normalize)
        made: Tensor = processor.rescale_and_normalize(pictures, *settings, processor.image_mean, processor.image_std)
        return made

    return Pictures(decode, normalise, f"transformers:{processor.to_json_string()}")
