"""Pictures of every mode and kind as floats, and broken and hostile ones, refused with their path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from needle.data import read_image
from tests.data.test_files import peak_of
from tests.pictures import SIDE, colors, floats, write

# ---- modes -----------------------------------------------------------------------------------------------------------

GRAY = colors(1, channels=1)


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tif", "pgm", "webp", "jpg"])
def test_gray_pictures(tmp_path, kind):
    image = read_image(write(tmp_path / f"x.{kind}", GRAY, lossless=True, quality=100))
    assert image.dtype == np.float32
    expected = floats(GRAY)
    if kind in ("webp", "gif"):  # WebP knows no gray, and a palette counts as colored
        expected = np.repeat(expected, 3, 0)
    np.testing.assert_allclose(image, expected, atol=0.02 if kind == "jpg" else 0)


def test_gray_and_color_convert_to_each_other(tmp_path):
    gray, color = write(tmp_path / "g.png", GRAY), write(tmp_path / "c.png", colors())
    np.testing.assert_array_equal(read_image(gray, channels=3), np.repeat(floats(GRAY), 3, 0))
    expected = colors() @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(read_image(color, channels=1)[0] * 255, expected, atol=0.51)
    np.testing.assert_array_equal(read_image(gray, channels=1), floats(GRAY))


def test_palettes_are_looked_up(tmp_path):
    pixels = np.zeros((*SIDE, 3), np.uint8)
    pixels[1:3] = (200, 10, 30)
    for kind in ("png", "gif"):
        image = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE)
        path = tmp_path / f"x.{kind}"
        image.save(path, **({"transparency": 255} if kind == "png" else {}))  # of a color that no pixel has
        np.testing.assert_array_equal(read_image(path), floats(pixels))


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_lie_on_white(tmp_path, channels):
    pixels = np.concatenate([colors(2, channels=channels), np.full((*SIDE, 1), 255, np.uint8)], axis=2)
    pixels[0, :, -1] = 0
    pixels[1, :, -1] = 51
    opacity = pixels[..., -1:] / 255
    image = read_image(write(tmp_path / "x.png", pixels))
    expected = pixels[..., :-1] / 255 * opacity + (1 - opacity)
    np.testing.assert_allclose(image, expected.transpose(2, 0, 1), atol=1 / 255)
    assert (image[:, 0] == 1).all()


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_steps(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 65536, SIDE).astype(np.uint16)
    pixels[0, :2] = 0, 65535
    path = tmp_path / f"x.{kind}"
    if kind == "pgm":
        path.write_bytes(b"P5 4 5 65535\n" + pixels.astype(">u2").tobytes())
    else:
        Image.fromarray(pixels).save(path)
    image = read_image(path)
    np.testing.assert_allclose(image, pixels[None] / 65535, rtol=1e-6)
    assert (image.min(), image.max()) == (0, 1)
    assert read_image(path, size=3, channels=3).shape == (3, 3, 3)


def test_other_color_spaces(tmp_path):
    pixels = np.full((*SIDE, 3), (250, 128, 10), np.uint8)
    for mode, kind in (("CMYK", "tif"), ("YCbCr", "tif"), ("CMYK", "jpg"), ("1", "png")):
        path = write(tmp_path / f"{mode}.{kind}", pixels, mode)
        image = read_image(path)
        if mode == "1":
            assert set(image.ravel().tolist()) <= {0, 1}
        else:
            np.testing.assert_allclose(image, floats(pixels), atol=0.02)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    path = write(tmp_path / "x.png", colors(), exif=exif)
    np.testing.assert_array_equal(read_image(path), floats(np.rot90(colors(), -1)))


def test_odd_metadata_are_passed_over(tmp_path):
    path = write(tmp_path / "x.jpg", GRAY, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0", quality=100)
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):  # Pillow's
        np.testing.assert_allclose(read_image(path), floats(GRAY), atol=0.02)


def test_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.full((5, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.gif", channels=1) == np.float32(10 / 255)).all()


def test_contents_count_not_the_suffix(tmp_path):
    write(tmp_path / "x.png", colors())
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg"), floats(colors()))


def test_a_size_scales_and_cuts_both_sides(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 3:13] = (0, 100, 255)
    path = write(tmp_path / "x.png", pixels)
    np.testing.assert_array_equal(read_image(path, size=4), floats(pixels[:4, 4:8]))
    assert read_image(path, size=(4, 8)).shape == (3, 4, 8)
    assert read_image(path, size=20).shape == (3, 20, 20)
    noise = read_image(write(tmp_path / "n.png", colors(size=(9, 7))), size=(17, 5))
    assert 0 <= noise.min() < noise.max() <= 1


# ---- refused ---------------------------------------------------------------------------------------------------------


def png(width, height):
    """A picture that announces a size and has no rows."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    )


def cut(path):
    content = path.read_bytes()
    return content[: len(content) // 2]


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "gif", "tif", "ppm", "webp"])
def test_a_picture_that_is_cut_off_is_named(tmp_path, kind):
    path = write(tmp_path / f"cut.{kind}", colors(size=(40, 40)))
    path.write_bytes(cut(path))
    with pytest.raises(ValueError, match=rf"^read_image: a picture must .*, but {re.escape(str(path))} is "):
        read_image(path, size=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a picture must be one of PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, but {} is not"),
        (b"hello", "a picture must be one of PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, but {} is not"),
        (b"%!PS-Adobe-3.0 EPSF", "a picture must be one of PNG, JPEG, BMP, GIF, WEBP, TIFF, PPM, but {} is not"),
        (png(4, 5), "a picture must be whole, but {} is broken: "),
        (png(10_000, 10_000), f"a picture must have at most {Image.MAX_IMAGE_PIXELS} pixels, but {{}} has more"),
        (png(2**31 - 1, 2**31 - 1), f"a picture must have at most {Image.MAX_IMAGE_PIXELS} pixels, but {{}} has more"),
    ],
    ids=["empty", "text", "EPS", "no rows", "large", "bomb"],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    path = tmp_path / "wrong.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^read_image: {re.escape(message.format(path))}"):
        read_image(path)


def test_a_chunk_that_announces_much_takes_little_memory(tmp_path):
    """Pillow asks the file for what the text announces."""
    whole = write(tmp_path / "x.png", colors()).read_bytes()
    for kind in (b"IDAT", b"tEXt", b"iTXt"):
        (tmp_path / "x.png").write_bytes(whole[:33] + (2**31 - 1).to_bytes(4, "big") + kind + whole[33:])
        assert peak_of(r"^read_image: a picture must .* but \S+/x.png is", read_image, tmp_path / "x.png") < 2**21


def test_a_large_picture_is_refused_where_warnings_are_none(tmp_path):
    (tmp_path / "x.png").write_bytes(png(10_000, 10_000))
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ValueError, match=rf"^read_image: a picture must have at most {Image.MAX_IMAGE_PIXELS} pixels"),
    ):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    image = Image.new(mode, (4, 5))
    image.save(tmp_path / "x.tif")
    message = f"a picture must be gray or RGB, or a form of these, but {tmp_path}/x.tif has mode {mode}"
    with pytest.raises(ValueError, match=f"^read_image: {re.escape(message)}$"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size must be at least 1, but got 0"),
        ({"size": (3, -1)}, ValueError, "size must be at least 1, but got -1"),
        ({"size": 2.5}, TypeError, "size must be an integer, but got 2.5"),
        ({"channels": 2}, ValueError, "channels must be one of None, 1, 3, but got 2"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=f"^read_image: {re.escape(message)}$"):
        read_image("none", **options)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^read_image: path must .* can be read, but none: No such file"):
        read_image("none")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match=r"^read_image: path must be a regular file, but \S+/pipe.png is a FIFO$"):
        read_image(tmp_path / "pipe.png")

    def fail(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match=r"^read_image: path must .* can be read, but .*: Input/output error$"):
        read_image(write(tmp_path / "x.png", GRAY))


def test_without_pillow_the_error_says_what_to_install():
    code = "import sys; sys.modules['PIL'] = None; import needle.data; needle.data.read_image('x.png')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    message = "ImportError: read_image: pictures need Pillow, by pip install 'needle-dl[data]', but: "
    assert done.stderr.splitlines()[-1].startswith(message)
