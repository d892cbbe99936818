"""`model: {torchvision: resnet50, args: {num_classes: 10}}`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import NetworkError
from soupcli.networks.guard import data_only
from soupcli.networks.library import Library
from soupcli.networks.network import ImageTransform, Network, mean_and_std
from soupcli.networks.pictures import PictureSettings
from soupcli.networks.without_weights import make_without_weights
from soupcli.wording import suggestion

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.recipe.networks import TorchvisionNetwork


def build(spec: TorchvisionNetwork, _folder: Path, _trust_code: bool = False) -> Network:
    """Build `torchvision.models.get_model` without weights; classifiers get the transform of their default weights.

    Networks of other tasks take pictures as the user's own function makes them.
    """
    models = import_extra("torchvision.models", extra="torchvision")
    name, known = spec.torchvision, models.list_models()
    if name.lower() not in known:
        raise NetworkError(
            f"model.torchvision: has no network {name!r}{suggestion(name, known)}",
            hint="torchvision.models.list_models() names them; python: builds a network of your own",
        )
    classifies = name.lower() in models.list_models(module=models)  # detection and others are in sub-modules
    args = spec.args if classifies else {"weights_backbone": None, **spec.args}  # whose default is fetched
    try:
        with data_only():
            module = make_without_weights(lambda: models.get_model(name, weights=None, **args))
    except Exception as cause:
        raise NetworkError(f"torchvision {name!r}: {cause}", hint="see args: of model: in the recipe") from cause
    if not classifies:
        return Network(module)
    return Network(module, _pictures(models.get_model_weights(name).DEFAULT.transforms()))


def _pictures(preset: Any) -> ImageTransform:
    """Return the classification preset without its last two steps, which run on the device."""
    functional = import_extra("torchvision.transforms.functional", extra="torchvision")

    def decode(picture: Any) -> Tensor:
        resized = functional.resize(
            picture, preset.resize_size, interpolation=preset.interpolation, antialias=preset.antialias
        )
        pixels: Tensor = functional.pil_to_tensor(functional.center_crop(resized, preset.crop_size))
        return pixels

    settings = PictureSettings(
        size=tuple(preset.resize_size) if len(preset.resize_size) > 1 else preset.resize_size[0],
        crop=tuple(preset.crop_size) if len(preset.crop_size) > 1 else preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    description, source = f"torchvision:{preset}", "the transform of torchvision's default weights"
    return ImageTransform(decode, mean_and_std(preset.mean, preset.std), description, source=source, settings=settings)


def _transform(spec: TorchvisionNetwork, _folder: Path) -> str | None:
    return f"torchvision's default weights of {spec.torchvision}"


LIBRARY = Library(build, transform=_transform)
