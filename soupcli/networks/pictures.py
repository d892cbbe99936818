"""Turns pictures into a network's input, by plain settings or by a function of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import NetworkError
from soupcli.late import torch
from soupcli.networks.network import ImageTransform, mean_and_std
from soupcli.user_code.function import content_of, describe_error, load_function
from soupcli.wording import with_article

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.recipe.sets import ImagesSet

Size = int | Sequence[int]  # of the shorter side; or height and width
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # PIL.Image.Resampling


@dataclass(frozen=True)
class PictureSettings:
    """Resize, crop the centre, divide by 255, subtract the mean and divide by the standard deviation."""

    size: int | tuple[int, ...] | None = None
    crop: int | tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"

    def __str__(self) -> str:
        shown = {"size": self.size, "crop": self.crop, "mean": self.mean, "std": self.std}
        parts = [f"{key} {_shown(value)}" for key, value in shown.items() if value is not None]
        return ", ".join([*parts, self.interpolation])


def of_set(spec: ImagesSet, own: ImageTransform | None, name: str) -> ImageTransform | None:
    """Return the transform of a set's pictures: the network's own, changed by the set's keys.

    Raises NetworkError if the keys define only a part and nothing defines the rest.
    """
    if spec.transform is not None:
        return of_function(spec.transform)
    given = {key: _fixed(getattr(spec, key)) for key in ("size", "crop", "mean", "std", "interpolation")}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return own
    base = own.settings if own is not None else None
    if base is None and not {"mean", "std"} <= given.keys():
        raise NetworkError(
            f"{name}: {', '.join(given)} say a part of the transform, and nothing says mean: and std:",
            hint="mean: [0, 0, 0] and std: [1, 1, 1] leave pixels between 0 and 1",
        )
    settings = replace(base or PictureSettings(), **given)
    if "size" in given and "crop" not in given:
        settings = replace(settings, crop=given["size"])
    rest = f", the rest {own.source}" if base is not None and own is not None and len(given) < 5 else ""
    return of_settings(settings, f"{', '.join(given)} of the recipe{rest}", own.mode if own is not None else "RGB")


def of_settings(settings: PictureSettings, source: str, mode: str = "RGB") -> ImageTransform:
    """Return a transform that resizes and crops as torchvision does, through Pillow."""
    mean, std = settings.mean or (0.0,) * len(mode), settings.std or (1.0,) * len(mode)
    image = import_extra("PIL.Image", extra="images")
    resampling = image.Resampling(RESAMPLING[settings.interpolation])

    def decode(picture: Any) -> Tensor:
        made = _resized(picture, settings.size, resampling)
        return _pixels(_cut(made, settings.crop))

    return ImageTransform(decode, mean_and_std(mean, std), f"settings:{settings}", mode, source, settings)


def of_function(reference: str) -> ImageTransform:
    """Return the transform of a user's function, whose result goes into the network unchanged."""
    transform = load_function(reference)

    def decode(picture: Any) -> Tensor:
        try:
            made = transform(picture)
        except Exception as cause:
            raise RuntimeError(describe_error(cause, reference)) from cause
        if not isinstance(made, torch.Tensor):
            raise TypeError(f"{reference} returned {with_article(made)}, a torch.Tensor is needed")
        return made

    return ImageTransform(decode, _as_it_is, f"python:{content_of(reference)}", source=f"the function {reference}")


def _as_it_is(pictures: Tensor) -> Tensor:
    return pictures


def _resized(picture: Any, size: Size | None, resampling: Any) -> Any:
    """As torchvision.transforms.functional.resize."""
    if size is None:
        return picture
    width, height = picture.size
    if not isinstance(size, int):
        return picture.resize((size[1], size[0]), resampling)
    if min(width, height) == size:
        return picture
    short, long = min(width, height), max(width, height)
    longer = int(size * long / short)
    return picture.resize((size, longer) if width <= height else (longer, size), resampling)


def _cut(picture: Any, crop: Size | None) -> Any:
    """As torchvision.transforms.functional.center_crop, which fills what is missing with black."""
    if crop is None:
        return picture
    height, width = (crop, crop) if isinstance(crop, int) else crop
    left, top = _margin(picture.width, width), _margin(picture.height, height)
    return picture.crop((left, top, left + width, top + height))


def _margin(whole: int, kept: int) -> int:
    """Pixels before the centre; fewer than none are filled up."""
    return round((whole - kept) / 2.0) if whole >= kept else -((kept - whole) // 2)


def _pixels(picture: Any) -> Tensor:
    """uint8 [C, H, W]."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def _fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) and isinstance(value[0], int) else str(value)
