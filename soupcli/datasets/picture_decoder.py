"""Decodes pictures with a network's transform, in threads, and refuses what is no picture or too large.

decoder = Decoder(network.pictures, border=0)
decoded(files, decoder, cache_rows, None, silent)      # uint8 [N, C, H, W]
"""

from __future__ import annotations

import io
import os
import warnings
from typing import TYPE_CHECKING, Any

from soupcli.environment import import_extra
from soupcli.errors import ValidationError
from soupcli.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from soupcli.datasets.image_folders import PictureFile
    from soupcli.datasets.input_cache import Put
    from soupcli.networks.network import ImageTransform
    from soupcli.progress import Progress

# Of pictures, whatever a file's name is: Pillow knows formats that start other programs (EPS). JPEG opens MPO too.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
LARGE = 8_000_000  # pixels
MOST_STEPS, SMALL_STEP = 50_000, 128  # reads of one file, and bytes: encoders write pixels in parts of 4 kB or more
MOST_PIXELS_A_BYTE = 400  # of a large picture; photographs have fewer than 30


def decoded(
    files: Sequence[PictureFile],
    decoder: Decoder,
    rows: Callable[[Sequence[int], torch.dtype, Callable[[Put], None]], Tensor],
    workers: int | None,
    progress: Progress,
) -> Tensor:
    """Decode every picture by `workers` threads (None: one for each core), in their order.

    `rows` makes the tensor of all, uint8 [N, C, H, W] or what the transform returns, from shape, dtype and a fill
    function. Raises ValidationError for a file that is no picture, and for pictures of two sizes.
    """
    first = decoder.decode(files[0])

    def decode(index: int) -> Tensor:
        pixels = decoder.decode(files[index])
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise ValidationError(
                f"{files[index]}: becomes {pixels.dtype} {list(pixels.shape)}, "
                f"{files[0]} {first.dtype} {list(first.shape)}",
                hint="the transform must make all pictures of one size and dtype",
            )
        return pixels

    def fill(put: Put) -> None:
        threads = max(1, workers if workers is not None else os.cpu_count() or 1)
        done = in_threads(lambda: lambda index: put(index, decode(index)), range(len(files)), threads=threads)
        for count, _ in enumerate(done, 1):
            progress("decoding pictures", count, len(files))

    return rows((len(files), *first.shape), first.dtype, fill)


def _check_size(size: tuple[int, int], file: PictureFile, nbytes: int) -> None:
    """Raises ValidationError for a small file that claims to be a large picture, before memory is allocated."""
    pixels = size[0] * size[1]
    if pixels > LARGE and pixels > MOST_PIXELS_A_BYTE * nbytes:
        raise ValidationError(
            f"{file}: {nbytes} bytes that say they are {size[0]} x {size[1]} pixels", hint="remove or replace it"
        )


class _Encoded(io.BytesIO):
    """The bytes of a picture, which Pillow may not read in very many small steps.

    It looks at chunks, segments, comments and padding one by one in Python: a million of them, of a few bytes each,
    would take seconds.
    """

    def __init__(self, file: PictureFile, encoded: bytes) -> None:
        super().__init__(encoded)
        self._file, self._steps = file, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes. Raises ValidationError past MOST_STEPS if these were small."""
        self._steps += 1
        if self._steps > MOST_STEPS and self._steps * SMALL_STEP > self.tell():
            raise ValidationError(
                f"{self._file}: its first {self.tell()} bytes are more than {MOST_STEPS} parts of a few bytes each",
                hint="remove or replace it: no program writes such a picture",
            )
        return super().read(size)


class Decoder:
    """Decodes pictures with the network's transform."""

    def __init__(self, pictures: ImageTransform, border: int) -> None:
        self._image_module: Any = import_extra("PIL.Image", extra="images")
        self._unidentified: Any = import_extra("PIL", extra="images").UnidentifiedImageError
        # Which Pillow names when it opens them; the sizes below are those that it lets pass.
        warnings.simplefilter("error", self._image_module.DecompressionBombWarning)
        import_extra("PIL.TiffImagePlugin", extra="images").logger.disabled = True  # it prints what the error says
        self._pictures = pictures
        self._border = border

    def decode(self, file: PictureFile) -> Tensor:
        """Decode one picture. Raises ValidationError if it is not a picture, or if the transform fails on it."""
        try:
            picture = self._unpacked(file)
        except ValidationError:
            raise
        except Exception as cause:  # whatever the decoder of the format stumbles over
            why = f"none of {', '.join(FORMATS)}" if isinstance(cause, self._unidentified) else cause
            raise ValidationError(f"{file}: not a readable picture: {why}", hint="remove or replace it") from cause
        try:
            return self._pictures.decode(picture)
        except Exception as cause:
            raise ValidationError(f"{file}: the network's transform fails: {type(cause).__name__}: {cause}") from cause

    def _unpacked(self, file: PictureFile) -> Any:
        """Return the picture in the network's mode: once in memory, unless it has another mode in the file."""
        encoded = file.read()
        with self._image_module.open(_Encoded(file, encoded), formats=FORMATS) as opened:
            _check_size(opened.size, file, len(encoded))
            opened.load()
            picture = opened if opened.mode == self._pictures.mode else opened.convert(self._pictures.mode)
        return self._cropped(picture, file)

    def _cropped(self, picture: Any, file: PictureFile) -> Any:
        if not self._border:
            return picture
        (width, height), left = picture.size, self._border
        if min(width, height) <= 2 * left:
            raise ValidationError(f"{file}: is {width} x {height}, border: {left} leaves nothing of it")
        return picture.crop((left, left, width - left, height - left))


def size_of(file: PictureFile) -> tuple[int, int] | None:
    """Return a picture's own height and width, from its header, or None if it is none."""
    image: Any = import_extra("PIL.Image", extra="images")
    try:
        with image.open(_Encoded(file, file.read()), formats=FORMATS) as picture:
            return picture.height, picture.width
    except Exception:  # noqa: BLE001 - whatever the decoder of the format stumbles over
        return None
