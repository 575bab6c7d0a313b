"""The decoder: every kind of picture becomes 8-bit RGB as Pillow sees it, and what is no picture is named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from keras_effnet.errors import UserError
from keras_effnet.images import find_bad_files, list_pictures, read

ROWS, COLUMNS = np.mgrid[0:40, 0:48]
COLOURS = np.stack([COLUMNS * 5, ROWS * 6, 255 - COLUMNS * 5], axis=-1).astype("uint8")
PICTURE = Image.fromarray(COLOURS)
MIRRORED = PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
TRANSLUCENT = PICTURE.convert("RGBA")
TRANSLUCENT.putalpha(Image.fromarray((COLUMNS * 5).astype("uint8")))

# name: (picture, options of save)
EXACT = {
    "rgb.png": (PICTURE, {}),
    "grayscale.png": (PICTURE.convert("L"), {}),
    "grayscale_alpha.png": (PICTURE.convert("LA"), {}),
    "one_bit.png": (PICTURE.convert("1"), {}),
    "palette.png": (PICTURE.convert("P"), {}),
    "rgba.png": (TRANSLUCENT, {}),
    "rgb.bmp": (PICTURE, {}),
    "grayscale.bmp": (PICTURE.convert("L"), {}),
    "palette.bmp": (PICTURE.convert("P"), {}),
    "rgba.bmp": (TRANSLUCENT, {}),
    "rgb.webp": (PICTURE, {"lossless": True}),
    "rgba.webp": (TRANSLUCENT, {"lossless": True, "exact": True}),
    "animated.webp": (PICTURE, {"lossless": True, "save_all": True, "append_images": [MIRRORED]}),
    "still.gif": (PICTURE.convert("P"), {}),
    "animated.gif": (PICTURE, {"save_all": True, "append_images": [MIRRORED]}),
}
LOSSY = {
    "rgb.jpg": (PICTURE, {"quality": 95}),
    "grayscale.jpg": (PICTURE.convert("L"), {"quality": 95}),
    "cmyk.jpg": (PICTURE.convert("CMYK"), {"quality": 95}),
    "progressive.jpg": (PICTURE, {"quality": 95, "progressive": True}),
}


def pillow(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", EXACT)
def test_lossless_pictures_decode_to_exactly_the_pixels_that_pillow_sees(tmp_path, name):
    picture, options = EXACT[name]
    picture.save(tmp_path / name, **options)
    pixels = read(tmp_path / name)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, pillow(tmp_path / name))


@pytest.mark.parametrize("name", LOSSY)
def test_jpegs_decode_to_what_pillow_sees_within_a_few_grey_levels(tmp_path, name):
    picture, options = LOSSY[name]
    picture.save(tmp_path / name, **options)
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
    PICTURE.save(tmp_path / "png.jpg", format="PNG")
    np.testing.assert_array_equal(read(tmp_path / "png.jpg"), COLOURS)


@pytest.fixture
def bad_files(tmp_path) -> list[str]:
    """Pictures cut in half, and files that never were one."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "c.bmp", "d.webp", "e.gif"):
        source = PICTURE.convert("P") if name.endswith(".gif") else PICTURE
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
    PICTURE.save(tmp_path / "good.png")
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


def test_reading_what_is_no_picture_says_so_in_one_line(bad_files):
    for path in bad_files:
        with pytest.raises(UserError, match="is not a picture that can be decoded") as caught:
            read(path)
        assert path in str(caught.value) and "\n" not in str(caught.value)


def test_reading_what_is_not_there_says_so(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jpg does not exist"):
        read(tmp_path / "gone.jpg")


def test_pictures_are_listed_sorted_at_any_depth_and_other_files_are_not(tmp_path):
    for name in ("b.JPG", "a.png", "deep/er/c.jpeg", "notes.txt", "labels.csv", "d.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    names = [path.removeprefix(f"{tmp_path}/") for path in list_pictures(tmp_path)]
    assert names == ["a.png", "b.JPG", "deep/er/c.jpeg"]


@pytest.mark.parametrize("hidden", [".a.jpg", "._a.jpg", ".thumbnails/a.jpg", "cat/.ipynb_checkpoints/a.jpg"])
def test_hidden_files_and_what_lies_in_hidden_folders_are_left_out(tmp_path, hidden):
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).touch()
    (tmp_path / "seen.jpg").touch()
    assert list_pictures(tmp_path) == [str(tmp_path / "seen.jpg")]
