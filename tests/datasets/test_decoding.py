"""Decoding: every kind of image becomes 8-bit RGB as in Pillow, and other files are reported."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_effnet.datasets.decoding import _scans, decode, decode_window, read
from keras_effnet.datasets.many_files import find_bad_files
from keras_effnet.errors import UserError

ROWS, COLUMNS = np.mgrid[0:40, 0:48]
COLOURS = np.stack([COLUMNS * 5, ROWS * 6, 255 - COLUMNS * 5], axis=-1).astype("uint8")
IMAGE = Image.fromarray(COLOURS)
MIRRORED = IMAGE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
TRANSLUCENT = IMAGE.convert("RGBA")
TRANSLUCENT.putalpha(Image.fromarray((COLUMNS * 5).astype("uint8")))

# name: (image, options of save)
EXACT = {
    "rgb.png": (IMAGE, {}),
    "grayscale.png": (IMAGE.convert("L"), {}),
    "grayscale_alpha.png": (IMAGE.convert("LA"), {}),
    "one_bit.png": (IMAGE.convert("1"), {}),
    "palette.png": (IMAGE.convert("P"), {}),
    "rgba.png": (TRANSLUCENT, {}),
    "rgb.bmp": (IMAGE, {}),
    "grayscale.bmp": (IMAGE.convert("L"), {}),
    "palette.bmp": (IMAGE.convert("P"), {}),
    "rgba.bmp": (TRANSLUCENT, {}),
    "rgb.webp": (IMAGE, {"lossless": True}),
    "rgba.webp": (TRANSLUCENT, {"lossless": True, "exact": True}),
    "animated.webp": (IMAGE, {"lossless": True, "save_all": True, "append_images": [MIRRORED]}),
    "still.gif": (IMAGE.convert("P"), {}),
    "animated.gif": (IMAGE, {"save_all": True, "append_images": [MIRRORED]}),
}
LOSSY = {
    "rgb.jpg": (IMAGE, {"quality": 95}),
    "grayscale.jpg": (IMAGE.convert("L"), {"quality": 95}),
    "cmyk.jpg": (IMAGE.convert("CMYK"), {"quality": 95}),
    "progressive.jpg": (IMAGE, {"quality": 95, "progressive": True}),
}


def pillow(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", EXACT)
def test_lossless_images_decode_to_exactly_the_pixels_that_pillow_sees(tmp_path, name):
    image, options = EXACT[name]
    image.save(tmp_path / name, **options)
    pixels = read(tmp_path / name)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, pillow(tmp_path / name))


@pytest.mark.parametrize("name", LOSSY)
def test_jpegs_decode_to_what_pillow_sees_within_a_few_grey_levels(tmp_path, name):
    image, options = LOSSY[name]
    image.save(tmp_path / name, **options)
    pixels = read(tmp_path / name)
    assert pixels.dtype == np.uint8 and pixels.shape == (40, 48, 3)
    assert np.abs(pixels.astype(int) - pillow(tmp_path / name)).max() <= 6


def test_a_16_bit_png_becomes_8_bits_by_its_high_byte(tmp_path):
    values = (COLUMNS * 1300).astype("uint16")
    Image.fromarray(values).save(tmp_path / "deep.png")
    pixels = read(tmp_path / "deep.png")
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - (values / 257)[..., None]).max() <= 1


def test_the_suffix_does_not_decide_what_a_file_is(tmp_path):
    IMAGE.save(tmp_path / "png.jpg", format="PNG")
    np.testing.assert_array_equal(read(tmp_path / "png.jpg"), COLOURS)


@pytest.fixture
def bad_files(tmp_path) -> list[str]:
    """Images cut in half, and files that never were one."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "c.bmp", "d.webp", "e.gif"):
        source = IMAGE.convert("P") if name.endswith(".gif") else IMAGE
        source.save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "f_empty.jpg").write_bytes(b"")
    (folder / "g_start.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "h_text.jpg").write_text("a shopping list\n")
    return [str(path) for path in sorted(folder.iterdir())]


def test_every_truncated_empty_or_text_file_is_listed_with_a_reason(bad_files):
    found = find_bad_files(bad_files)
    assert [item.path for item in found] == bad_files
    assert all(item.reason and "\n" not in item.reason and len(item.reason) <= 120 for item in found)
    reasons = {item.path.rsplit("/", 1)[-1]: item.reason for item in found}
    assert "empty" in reasons["f_empty.jpg"]
    assert "Unknown image file format" in reasons["h_text.jpg"]


def test_good_files_are_not_listed(tmp_path, bad_files):
    IMAGE.save(tmp_path / "good.png")
    found = find_bad_files([str(tmp_path / "good.png"), bad_files[0]])
    assert [item.path for item in found] == [bad_files[0]]


def test_a_file_that_vanished_is_a_bad_file(tmp_path):
    (bad,) = find_bad_files([str(tmp_path / "gone.jpg")])
    assert "No such file" in bad.reason


def test_progress_sees_every_file(tmp_path, bad_files):
    seen = []

    def progress(items):
        for item in items:
            seen.append(item)
            yield item

    find_bad_files(bad_files, progress)
    assert len(seen) == len(bad_files)


def test_reading_what_is_no_image_says_so_in_one_line(bad_files):
    for path in bad_files:
        with pytest.raises(UserError, match="is not an image that can be decoded") as caught:
            read(path)
        assert path in str(caught.value) and "\n" not in str(caught.value)


def test_reading_what_is_not_there_says_so(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jpg does not exist"):
        read(tmp_path / "gone.jpg")


# --- windows


@pytest.mark.parametrize("name", ["rgb.png", "palette.bmp", "rgb.webp", "animated.gif"])
@pytest.mark.parametrize("box", [(0, 0, 40, 48), (3, 5, 20, 11), (39, 47, 1, 1)])
def test_a_window_of_a_lossless_image_is_that_part_of_it(tmp_path, name, box):
    image, options = EXACT[name]
    image.save(tmp_path / name, **options)
    shapes = []
    contents = (tmp_path / name).read_bytes()
    window = decode_window(tf.constant(contents), lambda shape: shapes.append(shape.numpy()) or tf.constant(box)).pixels
    top, left, height, width = box
    expected = pillow(tmp_path / name)[top : top + height, left : left + width]
    np.testing.assert_array_equal(window, expected)
    assert shapes[-1].tolist() == [40, 48]


@pytest.mark.parametrize("name", LOSSY)
def test_a_window_of_a_jpeg_is_that_part_of_it_within_a_few_grey_levels(tmp_path, name):
    image, options = LOSSY[name]
    image.save(tmp_path / name, **options)
    window = decode_window(
        (tmp_path / name).read_bytes(), lambda shape: tf.stack([7, 9, shape[0] - 7, shape[1] - 9])
    ).pixels
    assert np.abs(window.numpy().astype(int) - pillow(tmp_path / name)[7:, 9:]).max() <= 8


# --- headers that claim too much, and files that never end


def _png_of(width: int, height: int) -> bytes:
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"x")) + chunk(b"IEND", b"")


def _claiming(kind: str, width: int, height: int) -> bytes:
    """A small image whose header says that it is of another size."""
    buffer = io.BytesIO()
    if kind == "png":
        return _png_of(width, height)
    IMAGE.save(buffer, kind.split()[0], progressive=kind == "jpeg progressive")
    data = bytearray(buffer.getvalue())
    if kind.startswith("jpeg"):
        place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        data[place : place + 4] = struct.pack(">HH", height, width)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "webp":  # an extended file with its canvas before the image
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + data[12:]
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    return bytes(data)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "png", "gif", "bmp", "webp"])
def test_a_header_that_claims_billions_of_pixels_is_refused_at_once(tmp_path, kind):
    (tmp_path / "bomb").write_bytes(_claiming(kind, 60_000, 60_000))
    began = time.process_time()
    assert len(find_bad_files([str(tmp_path / "bomb")])) == 1
    assert time.process_time() - began < 5
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        decode(_claiming(kind, 60_000, 60_000))


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive"])
def test_a_small_jpeg_that_claims_144_million_pixels_is_refused_and_not_grey(tmp_path, kind):
    (tmp_path / "bomb.jpg").write_bytes(_claiming(kind, 12_000, 12_000))
    (bad,) = find_bad_files([str(tmp_path / "bomb.jpg")])
    assert "more pixels than it can hold" in bad.reason
    with pytest.raises(tf.errors.InvalidArgumentError, match="more pixels"):
        decode_window((tmp_path / "bomb.jpg").read_bytes(), lambda shape: tf.constant([0, 0, 1, 1]))


def _run_length_bmp(width: int, data: bytes) -> bytes:
    palette = bytes(1024)
    info = struct.pack("<IiiHHIIiiII", 40, width, 40, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + info + palette + data


def test_a_run_length_bmp_that_claims_too_much_takes_no_minutes(tmp_path):
    (tmp_path / "slow.bmp").write_bytes(_run_length_bmp(4_000_000, b"\1\0\0\0" * 40 + b"\0\1"))
    began = time.process_time()
    (bad,) = find_bad_files([str(tmp_path / "slow.bmp")])
    assert "more pixels than it can hold" in bad.reason and time.process_time() - began < 5


def test_the_emptiest_bmp_that_there_can_be_is_not_refused(tmp_path):
    (tmp_path / "flat.bmp").write_bytes(_run_length_bmp(2550, (b"\xff\0" * 10 + b"\0\0") * 40 + b"\0\1"))
    assert read(tmp_path / "flat.bmp").shape == (40, 2550, 3)


def test_the_emptiest_jpeg_that_there_can_be_is_not_refused(tmp_path):
    Image.new("L", (3000, 3000), 128).save(tmp_path / "flat.jpg", optimize=True, progressive=True)
    assert find_bad_files([str(tmp_path / "flat.jpg")]) == []


def test_scans_are_counted_up_to_the_end_of_the_image():
    buffer = io.BytesIO()
    IMAGE.save(buffer, "jpeg", progressive=True)
    assert _scans(buffer.getvalue() + b"\xff\xda" * 50) == (10, 48, 40)  # libjpeg's own script for colour
    buffer = io.BytesIO()
    IMAGE.save(buffer, "jpeg", restart_marker_rows=1)
    assert _scans(buffer.getvalue()) == (1, 48, 40)


def test_a_jpeg_of_endless_scans_is_refused_unless_it_is_small(tmp_path):
    buffer = io.BytesIO()
    IMAGE.resize((2000, 2000)).save(buffer, "jpeg", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "endless.jpg").write_bytes(data[:-2] + last * 800 + data[-2:])
    (bad,) = find_bad_files([str(tmp_path / "endless.jpg")])
    assert bad.reason == "JPEG of 2000 x 2000 pixels in 810 scans"


def test_of_a_gif_the_first_frame_alone_is_decoded(tmp_path):
    Image.new("P", (1500, 1500)).save(tmp_path / "one.gif")
    data = (tmp_path / "one.gif").read_bytes()
    frame = data[data.index(b",\0\0\0\0") : -1]
    (tmp_path / "long.gif").write_bytes(data[:-1] + frame * 1000 + b";")
    with Image.open(tmp_path / "long.gif") as image:
        assert image.n_frames == 1001
    began = time.process_time()
    assert read(tmp_path / "long.gif").shape == (1500, 1500, 3)  # all frames would take 2 GB and half a minute
    assert time.process_time() - began < 5


def test_folders_and_pipes_are_bad_files_and_are_not_waited_for(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find_bad_files([str(tmp_path / "folder.jpg"), str(tmp_path / "pipe.jpg")])
    assert [bad.reason for bad in found] == ["Not a regular file"] * 2


def test_what_only_another_plugin_of_pillow_would_open_is_refused(tmp_path):
    # PostScript, for instance, Pillow would run.
    IMAGE.save(tmp_path / "pcx.jpg", "PCX")
    with Image.open(tmp_path / "pcx.jpg") as image:
        assert image.format == "PCX"
    (bad,) = find_bad_files([str(tmp_path / "pcx.jpg")])
    assert bad.reason == "PCX images are not supported"


def test_very_many_bad_files_are_listed_in_their_order_and_block_nothing(tmp_path):
    # Errors that several threads of Python raise at once lock TensorFlow up; this is to stay true.
    paths = []
    for number in range(3000):
        path = tmp_path / f"{number}.jpg"
        bitmap = b"BM" + bytes(12) + b"\x28" + bytes(20)
        path.write_bytes(bitmap if number % 3 == 0 else b"\xff\xd8\xff broken" if number % 3 == 1 else b"text")
        paths.append(str(path))
    IMAGE.save(tmp_path / "1000.jpg", "PNG")
    found = find_bad_files(paths)
    assert [bad.path for bad in found] == [path for path in paths if not path.endswith("/1000.jpg")]
    assert [bad.reason.split(" image")[0].split(",")[0] for bad in found[:3]] == [
        "Damaged or unsupported BMP file: Truncated File Read",
        "Invalid JPEG data",
        "Unknown",
    ]
    assert len({bad.reason for bad in found}) == 3
