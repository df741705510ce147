"""Open images safely: limits are checked on the header, before a pixel is decoded."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from racro_pl.types import ImageRef, RacroError

MAX_FILE_PIXELS = 64_000_000
"""Largest width * height that is decoded; a larger file is refused by its header."""
MAX_FILE_BYTES = 100_000_000
"""Largest encoded file that is read."""
MAX_ASPECT_RATIO = 200.0
"""Longest side over shortest; the Qwen image processors refuse more."""


# Pillow warns below our limit already. Once for the process: a filter per call would race between threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(RacroError):
    """An image that cannot be used; the message says which and why."""


def _open_header(ref: ImageRef) -> Image.Image:
    if ref.path is not None:
        if not Path(ref.path).is_file():
            raise ImageError(f"image file not found: {ref.path}")
        size = Path(ref.path).stat().st_size
    else:
        size = len(ref.data or b"")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"image {ref}: {size} bytes, the limit is {MAX_FILE_BYTES}")
    try:
        image = Image.open(ref.path if ref.path is not None else io.BytesIO(ref.data or b""))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image {ref}: too many pixels, the limit is {MAX_FILE_PIXELS}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"image {ref}: not a readable image ({error})") from error
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
    """Width and height in pixels, from the header alone.

    Raises:
        ImageError: the file is missing, unreadable or beyond the limits above.
    """
    with _open_header(ref) as image:
        return image.size


def open_image(ref: ImageRef) -> Image.Image:
    """Decode to RGB (transparency on white).

    Raises:
        ImageError: as :func:`image_size`, and when the pixels are broken or cut off.
    """
    with _open_header(ref) as image:
        try:
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                white = Image.new("RGBA", rgba.size, "white")
                return Image.alpha_composite(white, rgba).convert("RGB")
            return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageError(f"image {ref}: broken pixels ({error})") from error
