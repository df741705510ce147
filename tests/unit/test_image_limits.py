"""Which files are decoded as images, and what becomes of those that are not whole."""

from __future__ import annotations

import ast
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from racro_pl import images
from racro_pl.images import ImageError, image_size, open_image
from racro_pl.types import ImageRef
from tests.unit.test_images import encoded, header_only, noise

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
0 0 20 20 rectfill showpage
"""


def icon(kind: str) -> bytes:
    return encoded(Image.new("RGB", (32, 32), "red"), kind)


@pytest.mark.parametrize("look", [image_size, open_image])
@pytest.mark.parametrize(
    "data",
    [EPS, *[icon(kind) for kind in ("EPS", "ICO", "ICNS", "PCX", "PPM", "TGA", "SGI", "DIB", "IM", "DDS", "JPEG2000")]],
)
def test_only_common_kinds_are_decoded_whatever_the_files_name(tmp_path, monkeypatch, look, data):
    def no_programs(*arguments, **options):
        raise AssertionError(f"an image started a program: {arguments}")

    monkeypatch.setattr(subprocess, "check_call", no_programs)
    monkeypatch.setattr(subprocess, "Popen", no_programs)
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for ref in (ImageRef(path=path), ImageRef(data=data)):
        with pytest.raises(ImageError, match="not a readable image of the kinds PNG, JPEG, GIF, WEBP, BMP, TIFF"):
            look(ref)


def test_every_opening_of_an_image_names_its_decoders():
    root = Path(images.__file__).resolve().parents[1]
    openings = [
        f"{path.relative_to(root)}:{node.lineno}"
        for folder in ("racro_pl", "scripts")
        for path in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
        and "formats" not in {keyword.arg for keyword in node.keywords}
    ]
    assert openings == []


FAULTS = [
    SyntaxError("broken PNG"), struct.error("unpack"), OSError("cut"), ValueError("odd"), OverflowError("large"),
    MemoryError(), IndexError("none"), KeyError(1), TypeError("kind"), ZeroDivisionError(), EOFError(),
    zlib.error("data"), AttributeError("none"), RuntimeError("codec"), Image.DecompressionBombError("many"),
    NotImplementedError(),
    UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), RecursionError(), AssertionError(),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_whatever_pillow_raises_is_an_image_error(monkeypatch, fault):
    def fail(*arguments, **options):
        raise fault

    data = encoded(noise())
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fail)
        for look in (image_size, open_image):
            with pytest.raises(ImageError):
                look(ImageRef(data=data))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ImageError, match="broken pixels"):
        open_image(ImageRef(data=data))


@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.data())
@settings(max_examples=150)
def test_changed_bytes_give_an_image_or_an_image_error(kind, draw):
    data = bytearray(encoded(noise(16, 12), kind))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(data[: draw.draw(st.integers(0, len(data)))]) if draw.draw(st.booleans()) else bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            size = image_size(ImageRef(data=data))
            assert open_image(ImageRef(data=data)).size == size
        except ImageError:
            pass


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
def test_pixels_cut_off_after_a_good_header_show_when_decoding(kind):
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
    for path in (tmp_path / "none.png", tmp_path, tmp_path / ("long" * 100)):
        with pytest.raises(ImageError, match="image file not found"):
            image_size(ImageRef(path=path))


def test_pillow_says_nothing_on_standard_error(tmp_path):
    """Of metadata that is cut off it warns, without the file's name; in a process of its own, where nothing listens."""
    noise().save(tmp_path / "a.jpg", "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0")
    noise().save(tmp_path / "a.tif", "TIFF")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:4] + (len(data) - 6).to_bytes(4, "little") + data[8:])
    code = (
        "import sys; from pathlib import Path; from racro_pl.images import ImageError, open_image\n"
        "from racro_pl.types import ImageRef\n"
        "for name in sys.argv[1:]:\n"
        "    try: open_image(ImageRef(path=Path(name)))\n"
        "    except ImageError as error: print(error)\n"
    )
    files = [str(tmp_path / name) for name in ("a.jpg", "a.tif")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert "a.tif" in done.stdout
    assert done.stderr == ""


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
