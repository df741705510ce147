"""Opening images: limits hold before a pixel is decoded, and every fault is one clear error."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from racro_pl import images
from racro_pl.images import ImageError, image_size, open_image
from racro_pl.types import ImageRef


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_common_kinds_open_from_bytes_and_from_files(tmp_path, kind):
    data = encoded(noise(), kind)
    path = tmp_path / "image"
    path.write_bytes(data)
    for ref in (ImageRef(data=data), ImageRef(path=path)):
        assert image_size(ref) == (64, 48)
        assert open_image(ref).size == (64, 48)
        assert open_image(ref).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I", "F", "I;16", "YCbCr"])
def test_every_mode_comes_out_as_rgb(mode):
    image = Image.new(mode, (8, 8)) if mode == "I;16" else noise(8, 8).convert(mode)
    assert open_image(ImageRef(data=encoded(image, "TIFF"))).mode == "RGB"


def test_transparency_shows_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 255, 255))
    half = Image.new("LA", (1, 1), (0, 128))
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    opened = open_image(ImageRef(data=encoded(clear)))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]
    # Black at 128/255 over white: 255 * (1 - 128/255) = 127.
    assert open_image(ImageRef(data=encoded(half))).getpixel((0, 0)) == (127, 127, 127)
    opened = open_image(ImageRef(data=encoded(palette, transparency=0)))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


@pytest.mark.filterwarnings("error", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("look", [image_size, open_image])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable image"),
        (b"no image", "not a readable image"),
        (encoded(noise())[:20], "not a readable image"),
        # 3.6e9 pixels: Pillow's own guard says no.
        (header_only(60_000, 60_000), "too many pixels, the limit is 64000000"),
        # 8001 * 8000 = 64.008e6, below Pillow's limit and above ours; then one that Pillow only warns about.
        (header_only(8_001, 8_000), "8001x8000 pixels, the limit is 64000000 in all"),
        (header_only(10_000, 10_000), "10000x10000 pixels, the limit is 64000000 in all"),
        (header_only(201, 1), "201x1, sides may differ by a factor of 200"),
        (header_only(1, 201), "1x201, sides may differ by a factor of 200"),
    ],
)
def test_a_bad_header_is_refused_before_decoding(look, data, message):
    with pytest.raises(ImageError, match=message):
        look(ImageRef(data=data))


def test_limits_are_inclusive():
    assert image_size(ImageRef(data=header_only(8_000, 8_000))) == (8_000, 8_000)
    assert image_size(ImageRef(data=header_only(200, 1))) == (200, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pixels_cut_off_behind_a_good_header_show_when_decoding(kind):
    ref = ImageRef(data=encoded(noise(), kind)[:1500])
    assert image_size(ref) == (64, 48)
    with pytest.raises(ImageError, match=r"image <1500 bytes>: broken pixels"):
        open_image(ref)


def test_garbled_pixels_are_an_error_and_not_a_crash():
    whole = bytearray(encoded(noise()))
    whole[100:160] = bytes(60)
    with pytest.raises(ImageError, match="broken pixels"):
        open_image(ImageRef(data=bytes(whole)))


def test_files_that_are_not_there_or_no_files(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match="image file not found"):
            image_size(ImageRef(path=path))


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    path = tmp_path / "big.png"
    path.write_bytes(encoded(noise()))
    for ref in (ImageRef(path=path), ImageRef(data=path.read_bytes())):
        with pytest.raises(ImageError, match=r"bytes, the limit is 100"):
            open_image(ref)


def test_an_image_is_a_file_or_bytes_and_not_both(tmp_path):
    for arguments in ({}, {"path": tmp_path, "data": b""}):
        with pytest.raises(ValueError, match="either a path or data"):
            ImageRef(**arguments)


def test_many_threads_look_at_headers_without_disturbing_each_other():
    """Warning filters belong to the whole process: none may be left behind, and no warning may slip through."""
    before, interval = list(warnings.filters), sys.getswitchinterval()
    big = ImageRef(data=header_only(10_000, 10_000))

    def refused(_: int) -> bool:
        try:
            image_size(big)
        except ImageError:
            return True
        return False

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(refused, range(3000)))
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before
