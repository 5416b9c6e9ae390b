"""Folders of pictures as datasets: layouts, modes, sizes, and what is refused, with its name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

import image_folder
from image_folder import read_folder, read_image
from needle.data import DataLoader, ImageDataset

SIDE = (5, 4)


def colors(seed=0, size=SIDE, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def write(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.squeeze())
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def floats(pixels):
    """Pixels (H, W, C) as a needle image (C, H, W)."""
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


@pytest.fixture
def folder(tmp_path):
    """Two classes of two pictures; `colors` of their numbers, in the order in which they must come."""
    names = ["ape/1.png", "ape/2.bmp", "bee/0.PNG", "bee/x.ppm"]
    for number, name in reversed([*enumerate(names)]):
        write(tmp_path / "set" / name, colors(number))
    return tmp_path / "set"


# ---- layouts ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(folder):
    (folder / "ape" / "notes.txt").write_text("no picture")
    (folder / "ape" / ".hidden.png").write_text("no picture")
    (folder / ".git").mkdir()
    (folder / "overview.png").write_text("not in a class")
    sets = read_folder(folder)
    assert sets.classes == ("ape", "bee")
    assert sets.val is sets.test is None
    assert type(sets.train) is ImageDataset
    images, labels = sets.train[:]
    np.testing.assert_array_equal(images, np.stack([floats(colors(number)) for number in range(4)]), strict=True)
    np.testing.assert_array_equal(labels, np.array([0, 0, 1, 1]), strict=True)
    ((batch, _),) = DataLoader(sets.train, 4)
    assert batch.shape == (4, 3, *SIDE)


@pytest.mark.parametrize("names", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_a_divided_folder(tmp_path, names):
    for number, name in enumerate(names):
        for label in ("b", "a", "10"):
            write(tmp_path / name / label / "x.png", colors(number))
    sets = read_folder(tmp_path)
    assert sets.classes == ("10", "a", "b")
    for number, name in enumerate(names):
        images, labels = getattr(sets, name)[:]
        np.testing.assert_array_equal(images, np.stack([floats(colors(number))] * 3))
        assert labels.tolist() == [0, 1, 2]
    assert [name for name in ("train", "val", "test") if getattr(sets, name) is not None] == list(names)


def test_a_class_may_be_named_train(tmp_path):
    for name in ("bus", "train"):
        write(tmp_path / name / "x.png", colors())
    assert read_folder(tmp_path).classes == ("bus", "train")


def test_links_are_followed(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("ape", "bee"):
        (tmp_path / "linked" / name).symlink_to(folder / name)
    assert len(read_folder(tmp_path / "linked").train) == 4


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


def test_one_colored_picture_makes_all_colored(tmp_path):
    for name in ("train", "test"):
        for label in "ab":
            write(tmp_path / name / label / "x.png", GRAY)
    assert read_folder(tmp_path).train[0][0].shape == (1, *SIDE)
    write(tmp_path / "test" / "b" / "x.png", colors())
    sets = read_folder(tmp_path)
    np.testing.assert_array_equal(sets.train[0][0], np.repeat(floats(GRAY), 3, 0))
    np.testing.assert_array_equal(sets.test[1][0], floats(colors()))
    assert read_folder(tmp_path, channels=1).test[1][0].shape == (1, *SIDE)


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
    path = write(tmp_path / "x.jpg", GRAY, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0", quality=100)  # Pillow warns: cut off
    np.testing.assert_allclose(read_image(path), floats(GRAY), atol=0.02)


def test_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.full((5, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.gif", channels=1) == np.float32(10 / 255)).all()


def test_contents_count_not_the_suffix(tmp_path):
    write(tmp_path / "x.png", colors())
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg"), floats(colors()))


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_a_size_scales_and_cuts_both_sides(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 3:13] = (0, 100, 255)
    path = write(tmp_path / "x.png", pixels)
    np.testing.assert_array_equal(read_image(path, size=4), floats(pixels[:4, 4:8]))
    assert read_image(path, size=(4, 8)).shape == (3, 4, 8)
    assert read_image(path, size=20).shape == (3, 20, 20)
    noise = read_image(write(tmp_path / "n.png", colors(size=(9, 7))), size=(17, 5))
    assert 0 <= noise.min() < noise.max() <= 1


def test_pictures_of_many_sizes(folder):
    write(folder / "bee" / "wide.png", colors(9, size=(6, 20)))
    assert read_folder(folder, size=(3, 2)).train[:][0].shape == (5, 3, 3, 2)
    with pytest.raises(
        ValueError, match=r"one size, .*, but \S*ape/1.png is 5x4 and \S*wide.png 6x20 \(height x width"
    ):
        read_folder(folder)


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
@pytest.mark.filterwarnings("error")
def test_a_picture_that_is_cut_off_is_named(folder, kind):
    path = write(folder / "bee" / f"cut.{kind}", colors(size=(40, 40)))
    path.write_bytes(cut(path))
    with pytest.raises(ValueError, match=rf"^image_folder: a picture must .*, but {re.escape(str(path))} is "):
        read_folder(folder, size=5)


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
def test_what_is_no_picture_is_named(folder, content, message):
    path = folder / "ape" / "wrong.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^image_folder: {re.escape(message.format(path))}"):
        read_folder(folder)


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    image = Image.new(mode, (4, 5))
    image.save(tmp_path / "x.tif")
    message = f"a picture must be gray or RGB, or a form of these, but {tmp_path}/x.tif has mode {mode}"
    with pytest.raises(ValueError, match=f"^image_folder: {re.escape(message)}$"):
        read_image(tmp_path / "x.tif")


def make(folder, *paths):
    for path in paths:
        write(folder / path, GRAY)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "a set must have at least two classes, a folder of pictures each, but {} has none"),
        (["x.png", "y.png"], "a set must have at least two classes, a folder of pictures each, but {} has none"),
        (["a/x.png"], "a set must have at least two classes, a folder of pictures each, but {} has one, a"),
        (["train/a/x.png"], "a set must have at least two classes, a folder of pictures each, but {}/train has one, a"),
        (
            ["a/x.png", "b/x.txt"],
            f"a class must have at least one picture ({' '.join(image_folder.SUFFIXES)}), but {{}}/b has none",
        ),
        (["a/x.png", "b/c/x.png"], "the folder of a class must hold pictures only, but {}/b/c is a folder"),
        (
            ["train/a/x.png", "train/b/x.png", "test/b/x.png", "test/d/x.png"],
            "sets must have the same classes, but {0}/train and {0}/test differ in a, d",
        ),
        (
            ["train/a/x.png", "train/b/x.png", "val/b/x.png"],
            "sets must have the same classes, but {0}/train and {0}/val differ in a",
        ),
    ],
)
def test_wrong_folders_are_named(tmp_path, paths, message):
    for path in paths:
        if path.endswith("png"):
            make(tmp_path, path)
        else:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("text")
    with pytest.raises(ValueError, match=f"^image_folder: {re.escape(message.format(tmp_path))}$"):
        read_folder(tmp_path)


def test_folders_and_files_that_cannot_be_read(folder, tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"^image_folder: folder must be one that can be read, but \S+/none: No"
    ):
        read_folder(tmp_path / "none")
    with pytest.raises(NotADirectoryError, match=r"^image_folder: folder must be one that can be read, but .*: Not a"):
        read_folder(folder / "ape" / "1.png")
    os.mkfifo(folder / "bee" / "pipe.png")
    with pytest.raises(OSError, match=r"^image_folder: a picture must be a file, but \S+/pipe.png is none$"):
        read_folder(folder)

    def fail(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read_folder(folder)


def test_memory_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "LARGEST", 4 * 4 * 3 * 20 - 1)
    with pytest.raises(
        ValueError, match=r"must take at most 0 MiB, but \S+/set holds 4 pictures of 3x5x4 and takes 0; a"
    ):
        read_folder(folder)
    assert len(read_folder(folder, channels=1).train) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0, channels=None"),
        ({"size": (3, -1)}, "size=(3, -1), channels=None"),
        ({"channels": 2}, "size=None, channels=2"),
    ],
)
def test_options_are_checked(folder, options, message):
    message = "image_folder: size must be at least 1 and channels 1 or 3, but got " + message
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_folder(folder, **options)


def test_without_pillow_one_line_says_what_to_install():
    code = "import sys; sys.modules['PIL'] = None; sys.path.append('apps'); import image_folder"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("image_folder: Pillow must be installed, by pip install -e '.[apps]', but: ")
    assert done.stderr.count("\n") == 1
