"""Open images safely and as a viewer shows them: limits hold before a pixel is decoded, every fault is one error."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from racro_pl.types import ImageRef, RacroError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
"""The only decoders that run. Pillow has some that start programs (EPS: Ghostscript) and many that few ever look at."""
MAX_FILE_PIXELS = 64_000_000
"""Largest width * height that is decoded; a larger file is refused by its header."""
MAX_FILE_BYTES = 100_000_000
"""Largest encoded file that is read."""
MAX_ASPECT_RATIO = 200.0
"""Longest side over shortest; the Qwen image processors refuse more."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (CIPA DC-008, tag 0x0112) to what turns the stored pixels upright."""
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262


# Pillow warns below our limit already. Once for the process: a filter per call would race between threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What it says of broken metadata names no file, and repeats bytes of it. Pixels that cannot be read are an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImageError(RacroError):
    """An image that cannot be used; the message says which and why."""


def _open_header(ref: ImageRef) -> Image.Image:
    if ref.path is not None:
        if not ref.is_there:
            raise ImageError(f"image file not found: {ref.path}")
        size = ref.path.stat().st_size
    else:
        size = len(ref.data or b"")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"image {ref}: {size} bytes, the limit is {MAX_FILE_BYTES}")
    try:
        image = Image.open(ref.path if ref.path is not None else io.BytesIO(ref.data or b""), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"image {ref}: too many pixels, the limit is {MAX_FILE_PIXELS}") from error
    # On hostile files decoders raise anything: SyntaxError, struct.error, OverflowError, MemoryError, IndexError, ...
    except Exception as error:
        raise ImageError(f"image {ref}: not a readable image of the kinds {', '.join(FORMATS)} ({error})") from error
    width, height = image.size
    if width * height > MAX_FILE_PIXELS:
        image.close()
        raise ImageError(f"image {ref}: {width}x{height} pixels, the limit is {MAX_FILE_PIXELS} in all")
    if min(width, height) == 0 or max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
        image.close()
        raise ImageError(
            f"image {ref}: {width}x{height}, sides may differ by a factor of {MAX_ASPECT_RATIO:.0f} at most"
        )
    return image


def image_size(ref: ImageRef) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from what stands before the pixels alone.

    Raises:
        ImageError: the file is missing, unreadable or beyond the limits above.
    """
    with _open_header(ref) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def open_image(ref: ImageRef) -> Image.Image:
    """Decode the first picture of a file to RGB, as a viewer shows it, without metadata.

    Upright (EXIF orientation), transparency on white, 16-bit greyscale scaled to 8 bits, float greyscale from 0...1.

    Raises:
        ImageError: as :func:`image_size`; the pixels are broken or cut off; greyscale whose white is unknown.
    """
    with _open_header(ref) as image:
        # Before decoding: Pillow rotates some kinds itself while it loads, and drops the tag.
        orientation = _orientation(image)
        try:
            image.load()
            rgb = _to_rgb(image)
            if orientation in _UPRIGHT:
                rgb = rgb.transpose(_UPRIGHT[orientation])
        except ImageError as error:
            raise ImageError(f"image {ref}: {error}") from None
        except Exception as error:  # as for the header
            raise ImageError(f"image {ref}: broken pixels ({type(error).__name__}: {error})") from error
    # EXIF, XMP and colour profiles would travel into whatever is saved from this: reports, requests to servers.
    rgb.info = {}
    return rgb


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file of a kind, with Pillow's options for it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_url(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    """A picture in a ``data:`` URL; arguments as for :func:`encoded`."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encoded(image, kind, **options)).decode()}"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, that is left to apply; 1 where there is none or it cannot be read.

    Of a PNG only what stands before the pixels counts, as its specification demands.
    """
    if image.format == "TIFF":
        return 1  # Pillow reports the upright size of these, and rotates them when it loads.
    try:
        # Not PngImageFile's own method: it decodes the pixels to look after them.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return found if found in _UPRIGHT else 1
    except Exception:  # EXIF that is broken has no orientation; viewers show such images as they are stored
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in (*_SIXTEEN_BIT, "I", "F"):
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Deep greyscale with its black and white where the file's kind puts them.

    Raises:
        ImageError: nothing says which value is white.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_TIFF_BITS, (16,))[0])
    white: float = 65535
    if image.mode == "F":
        white = 1
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ImageError(
                f"float greyscale with values from {low:.4g} to {high:.4g}, expected 0 (black) to 1 (white): "
                "save it as an 8-bit image"
            )
    elif image.mode == "I":
        low, high = int(values.min()), int(values.max())
        # Whole numbers in 32 bits are 16-bit greyscale with room to spare, or anything else.
        if bits != 32 or low < 0 or not 255 < high <= 65535:
            raise ImageError(
                f"{bits}-bit greyscale of signed or wide whole numbers, from {low} to {high}, of which nothing says "
                "what is white (read are 0 to 65535, with some above 255): save it as an 8-bit image"
            )
    elif bits < 16:
        white = 2**bits - 1
    scaled = np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # WhiteIsZero, which Pillow applies to 8 bits only
        scaled = 255 - scaled
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled = np.where(values == clear, np.uint8(255), scaled)
    return Image.fromarray(scaled)
