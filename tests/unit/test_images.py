"""Opening images: limits hold before a pixel is decoded, and every fault is one clear error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

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


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "YCbCr", "RGBA", "LA"])
def test_every_mode_comes_out_as_rgb(mode):
    image = Image.new(mode, (8, 8)) if mode == "I;16" else noise(8, 8).convert(mode)
    # Not every Pillow reads the YCbCr TIFF that it writes.
    assert open_image(ImageRef(data=encoded(image, "JPEG" if mode == "YCbCr" else "TIFF"))).mode == "RGB"


# ------------------------------------------------------------------ orientation


def halves() -> Image.Image:
    """Red on the left, white on the right; 60 wide, 40 high."""
    image = Image.new("RGB", (60, 40), "white")
    image.paste("red", (0, 0, 30, 40))
    image.paste("blue", (0, 0, 10, 10))
    return image


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(halves(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_come_out_upright_and_their_size_is_the_upright_one(kind, orientation):
    data = turned(orientation, kind)
    viewer = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    seen = open_image(ImageRef(data=data))
    assert np.array_equal(np.asarray(seen), np.asarray(viewer))
    assert seen.size == image_size(ImageRef(data=data)) == ((60, 40) if orientation < 5 else (40, 60))
    if orientation > 1:
        assert np.abs(np.asarray(seen.resize((60, 40)), int) - np.asarray(halves())).max() > 200


def test_orientation_in_xmp_counts_too():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(halves(), "JPEG", xmp=xmp)
    assert image_size(ImageRef(data=data)) == open_image(ImageRef(data=data)).size == (40, 60)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_has_no_orientation(exif):
    ref = ImageRef(data=encoded(halves(), "JPEG", exif=exif))
    assert image_size(ref) == open_image(ref).size == (60, 40)


def test_no_metadata_leaves_with_the_pixels():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "SENTINEL-EXIF"
    exif[ExifTags.Base.Orientation] = 6
    for kind, options in (
        ("JPEG", {"comment": b"SENTINEL-COMMENT", "icc_profile": b"SENTINEL-ICC"}),
        ("PNG", {"icc_profile": b"SENTINEL-ICC"}),
        ("WEBP", {"icc_profile": b"SENTINEL-ICC", "xmp": b"SENTINEL-XMP"}),
        ("TIFF", {"icc_profile": b"SENTINEL-ICC", "description": "SENTINEL-TAG"}),
    ):
        data = encoded(halves(), kind, exif=exif, **options)
        assert b"SENTINEL" in data
        for saved in ("PNG", "JPEG", "WEBP", "TIFF"):
            assert b"SENTINEL" not in encoded(open_image(ImageRef(data=data)), saved)


# ------------------------------------------------------------------ deep greyscale

RAMP = np.linspace(0, 1, 2400).reshape(40, 60)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
    ],
)
def test_deep_greyscale_keeps_black_grey_and_white(values, kind):
    seen = np.asarray(open_image(ImageRef(data=encoded(Image.fromarray(values), kind))))
    assert np.abs(seen[..., 0] - 255 * RAMP).max() <= 1
    assert (seen[..., 0] == seen[..., 2]).all()


def test_sixteen_bits_of_other_byte_order_or_with_white_at_zero():
    values = (RAMP * 65535).astype(np.uint16)
    big = Image.frombytes("I;16B", (60, 40), values.astype(">u2").tobytes())
    assert np.abs(np.asarray(open_image(ImageRef(data=encoded(big, "TIFF"))))[..., 0] - 255 * RAMP).max() <= 1
    inverse = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.abs(np.asarray(open_image(ImageRef(data=inverse)))[..., 0] - 255 * (1 - RAMP)).max() <= 1


def test_a_clear_value_of_sixteen_bit_greyscale_shows_white():
    values = np.array([[0, 1000], [40000, 65535]], np.uint16)
    seen = open_image(ImageRef(data=encoded(Image.fromarray(values), "PNG", transparency=1000)))
    assert np.asarray(seen)[..., 0].tolist() == [[0, 255], [156, 255]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 255.0]], np.float32), r"float greyscale with values from 0 to 255, expected 0 \(black\) to 1"),
        (np.array([[-0.5, 1.0]], np.float32), "float greyscale with values from -0.5 to 1,"),
        (np.array([[np.nan, 1.0]], np.float32), "float greyscale with values from nan"),
        (np.array([[0, 70_000]], np.int32), "32-bit greyscale of signed or wide whole numbers, from 0 to 70000"),
        (np.array([[-1, 300]], np.int32), "32-bit greyscale .* from -1 to 300"),
        # 8 or 16 bits? Nothing says so.
        (np.array([[0, 200]], np.int32), "32-bit greyscale .* from 0 to 200"),
    ],
)
def test_greyscale_whose_white_is_unknown_is_refused_by_name(values, message):
    with pytest.raises(ImageError, match=message):
        open_image(ImageRef(data=encoded(Image.fromarray(values), "TIFF")))
