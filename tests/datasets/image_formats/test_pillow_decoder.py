"""TIFF, AVIF, JPEG 2000 and HEIF: pixels, orientation, depth, refusals and bounds."""

from __future__ import annotations

import io
import logging
import struct
import sys
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, features

from keras_effnet.datasets.image_formats.pillow_decoder import decode_with_pillow, describe

ROWS, COLUMNS = np.mgrid[0:40, 0:56]
COLOURS = np.stack([COLUMNS * 4, ROWS * 6, 255 - COLUMNS * 4], axis=-1).astype("uint8")
IMAGE = Image.fromarray(COLOURS)
DEEP = (ROWS * 1000 + COLUMNS * 400).astype("uint16")
TIFF_CODECS = (None, "packbits", "tiff_lzw", "tiff_adobe_deflate")


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def heic(image: Image.Image, quality: int = 95, **options) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    chroma = 444 if image.mode == "RGB" else 420
    pillow_heif.encode(image.mode, image.size, image.tobytes(), buffer, quality=quality, chroma=chroma, **options)
    return buffer.getvalue()


def tiff(width: int, height: int, data: bytes, *tags: tuple[int, int, int], strips: int = 1, bits: int = 8) -> bytes:
    """Grayscale TIFF whose strips all refer to the same data; `tags` are (tag, type, value) and replace others."""
    start = 8 + 2 + 12 * (9 + len(tags)) + 4
    offset, counts = (start + 8 * strips, len(data)) if strips == 1 else (start, start + 4 * strips)
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, bits), 259: (3, 1, 1), 262: (3, 1, 1)}
    entries |= {273: (4, strips, offset), 277: (3, 1, 1), 278: (4, 1, max(1, height // 4)), 279: (4, strips, counts)}
    entries |= {tag: (kind, 1, value) for tag, kind, value in tags}
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    directory = (struct.pack("<H", len(entries)) + table + bytes(4)).ljust(start - 8, b"\0")
    lists = struct.pack(f"<{strips}I", *[start + 8 * strips] * strips) + struct.pack(
        f"<{strips}I", *[len(data)] * strips
    )
    return struct.pack("<2sHI", b"II", 42, 8) + directory + lists + data


# --- pixels


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", TIFF_CODECS)
def test_a_tiff_of_any_mode_is_as_in_pillow(mode, compression):
    if (mode, compression) == ("PA", "packbits"):
        pytest.skip("Pillow does not write it")
    image = IMAGE.convert("RGBA").convert(mode)
    data = saved(image, "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_with_pillow(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"irreversible": False, "no_jp2": True}, {"tile_size": (16, 16)}])
def test_a_lossless_jpeg_2000_is_exact(options):
    np.testing.assert_array_equal(decode_with_pillow(saved(IMAGE, "JPEG2000", **options)), COLOURS)


def test_a_lossless_avif_is_exact_but_for_its_colour_space():
    data = saved(IMAGE, "AVIF", quality=100, subsampling="4:4:4")
    assert np.abs(decode_with_pillow(data).astype(int) - COLOURS).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_heic_is_within_a_few_levels(mode):
    image = IMAGE.convert(mode)
    pixels = decode_with_pillow(heic(image))
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 8


def test_of_a_tiff_the_first_page_is_read():
    data = saved(IMAGE, "TIFF", save_all=True, append_images=[IMAGE.rotate(180), IMAGE.convert("L")])
    np.testing.assert_array_equal(decode_with_pillow(data), COLOURS)


# --- 16 bits


@pytest.mark.parametrize("compression", TIFF_CODECS)
def test_a_16_bit_tiff_keeps_its_high_byte(compression):
    pixels = decode_with_pillow(saved(Image.fromarray(DEEP), "TIFF", compression=compression))
    np.testing.assert_array_equal(pixels, np.repeat((DEEP >> 8)[..., None], 3, axis=2))


def test_a_big_endian_16_bit_tiff_and_one_that_counts_from_white_are_right():
    big = Image.frombytes("I;16B", (56, 40), DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode_with_pillow(saved(big, "TIFF"))[..., 0], DEEP >> 8)
    strip = (3, 278, 40)
    for data, compression in ((DEEP.astype("<u2").tobytes(), 1), (zlib.compress(DEEP.astype("<u2").tobytes()), 8)):
        white = tiff(56, 40, data, (262, 3, 0), (259, 3, compression), (278, strip[0], strip[2]), bits=16)
        np.testing.assert_array_equal(decode_with_pillow(white)[..., 0], 255 - (DEEP >> 8))
    grey = DEEP.astype("uint8")
    white = tiff(56, 40, grey.tobytes(), (262, 3, 0), (278, 3, 40))
    np.testing.assert_array_equal(decode_with_pillow(white)[..., 0], 255 - grey)


def test_a_12_bit_tiff_keeps_its_8_high_bits():
    twelve = DEEP >> 4
    bits = "".join(f"{value:012b}" for value in twelve.ravel())
    data = int(bits, 2).to_bytes(len(bits) // 8)
    assert (decode_with_pillow(tiff(56, 40, data, (278, 3, 40), bits=12))[..., 0] == DEEP >> 8).all()


def test_a_16_bit_colour_tiff_keeps_its_high_byte():
    deep = np.stack([DEEP, DEEP[::-1], DEEP // 2], axis=-1)
    short = [(256, 56), (257, 40), (259, 1), (262, 2), (277, 3), (278, 40)]
    start = 8 + 2 + 12 * 9 + 4
    entries = [(tag, 3, 1, value) for tag, value in short]
    entries += [(258, 3, 3, start), (273, 4, 1, start + 6), (279, 4, 1, deep.size * 2)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    data = struct.pack("<2sHIH", b"II", 42, 8, 9) + table + bytes(4) + struct.pack("<3H", 16, 16, 16)
    np.testing.assert_array_equal(decode_with_pillow(data + deep.astype("<u2").tobytes()), deep >> 8)


def test_a_16_bit_jpeg_2000_and_heic_keep_their_high_byte():
    pixels = decode_with_pillow(saved(Image.fromarray(DEEP), "JPEG2000"))
    np.testing.assert_array_equal(pixels[..., 2], DEEP >> 8)
    assert np.abs(decode_with_pillow(heic(Image.fromarray(DEEP)))[..., 0] - (DEEP >> 8).astype(int)).max() < 8


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_samples_without_a_known_range_are_refused(kind):
    with pytest.raises(ValueError, match="convert to 8 or 16 bits"):
        decode_with_pillow(saved(Image.fromarray(DEEP.astype(kind)), "TIFF"))


# --- orientation: neither ignored nor applied twice


def oriented(form: str, value: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    if form == "HEIF":
        return heic(IMAGE, exif=exif.tobytes())
    options = {"AVIF": {"quality": 95, "subsampling": "4:4:4"}, "TIFF deflate": {"compression": "tiff_adobe_deflate"}}
    return saved(IMAGE, form.split()[0], exif=exif, **options.get(form, {}))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("form", ["TIFF", "TIFF deflate", "AVIF", "HEIF"])
def test_every_orientation_is_applied_once(form, value):
    tagged = IMAGE.copy()
    tagged.getexif()[ExifTags.Base.Orientation] = value
    expected = np.asarray(ImageOps.exif_transpose(tagged)).astype(int)
    pixels = decode_with_pillow(oriented(form, value)).astype(int)
    assert pixels.shape == expected.shape and np.abs(pixels - expected).max() <= (0 if "TIFF" in form else 8)


def test_a_deep_tiff_is_turned_too():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = decode_with_pillow(saved(Image.fromarray(DEEP), "TIFF", exif=exif))
    np.testing.assert_array_equal(pixels[..., 0], np.rot90(DEEP >> 8, -1))


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_a_tag_of_exif_that_contradicts_the_container_is_ignored(form):
    # Both formats turn by a property of the container; by their standards the tag informs about the past.
    data = oriented(form, 6)
    place = data.index(b"irot") + 4
    assert data[place] in (1, 3)
    with_other = data[:place] + b"\0" + data[place + 1 :]
    assert decode_with_pillow(data).shape == (56, 40, 3) and decode_with_pillow(with_other).shape == (40, 56, 3)


# --- what is refused


def test_without_pillow_heif_a_heic_says_what_to_install(monkeypatch):
    data = heic(IMAGE)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r'^HEIF images need pillow-heif: pip install "keras-effnet\[heif\]"$'):
        decode_with_pillow(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "File is empty"),
        (b"a shopping list", "Unknown image file format"),
        (b"8BPS\0\1", "PSD images are not supported"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL images are not supported"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw images are not supported"),
        (b"PF\n20 16\n-1.0\n", "PFM images are not supported"),
        (b"II*\0\x08\0\0\0\0\0", "Damaged or unsupported TIFF file"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "Damaged or unsupported HEIF file"),
    ],
)
def test_the_reason_names_the_format(data, message):
    if "HEIF" in message:
        pytest.importorskip("pillow_heif")
    with pytest.raises(ValueError, match=message):
        decode_with_pillow(data)


def test_the_thumbnail_of_a_camera_raw_file_is_not_taken_for_the_image():
    assert decode_with_pillow(tiff(8, 8, bytes(64), (278, 3, 8))).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="thumbnail"):
        decode_with_pillow(tiff(8, 8, bytes(64), (278, 3, 8), (254, 4, 1)))


@pytest.mark.parametrize("compression", [1, 8])
def test_strips_that_are_missing_are_not_black(compression):
    rows = bytes([200]) * 560
    data = rows if compression == 1 else zlib.compress(rows)
    assert decode_with_pillow(tiff(56, 40, data, (259, 3, compression), strips=4)).min() == 200
    for strips in (2, 3):
        with pytest.raises(ValueError, match="missing" if compression == 1 else "Damaged"):
            decode_with_pillow(tiff(56, 40, data, (259, 3, compression), strips=strips))


def test_tiles_that_are_missing_are_not_black():
    data = bytearray(saved(IMAGE, "JPEG2000", tile_size=(16, 16), no_jp2=True))
    assert decode_with_pillow(bytes(data)).shape == (40, 56, 3)
    last = data.rindex(b"\xff\x90\0\x0a")
    with pytest.raises(ValueError, match="11 of 12 tiles"):
        decode_with_pillow(bytes(data[:last] + b"\xff\xd9"))
    data[12:16] = struct.pack(">I", 400)  # rows
    with pytest.raises(ValueError, match="12 of 100 tiles"):
        decode_with_pillow(bytes(data))


@pytest.mark.parametrize("form", ["TIFF", "AVIF", "JPEG2000", "PPM", "HEIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(form, share):
    data = heic(IMAGE) if form == "HEIF" else saved(IMAGE, form)
    with pytest.raises(ValueError, match=r"Damaged|Truncated"):
        decode_with_pillow(data[: int(len(data) * share)])


# --- bounds


def _claiming(form: str, side: int) -> bytes:
    if form == "PPM":
        return b"P6 %d %d 255\n" % (side, side) + COLOURS.tobytes()
    if form.startswith("TIFF"):
        coded = zlib.compress(bytes(4000))
        return (
            tiff(side, side, coded, (259, 3, 8), (322, 4, side), (323, 4, side))
            if "tiles" in form
            else tiff(side, side, bytes(4000), (278, 4, side))
        )
    data = bytearray(heic(IMAGE) if form == "HEIF" else saved(IMAGE, form))
    if form == "JPEG2000":
        place, size = data.index(b"ihdr") + 4, data.index(b"\xff\x51") + 6
        data[size : size + 8] = data[size + 16 : size + 24] = struct.pack(">II", side, side)
    else:
        place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", side, side)
    return bytes(data)


@pytest.mark.parametrize("side", [12_000, 60_000, 2_000_000_000])
@pytest.mark.parametrize("form", ["TIFF", "TIFF tiles", "AVIF", "JPEG2000", "PPM", "HEIF"])
def test_a_small_file_that_claims_too_much_is_refused_at_once(form, side):
    data, began = _claiming(form, side), time.process_time()
    with pytest.raises(ValueError, match=r"more pixels|pixels, more|pixels\) exceeds|Truncated|tiles|Damaged"):
        decode_with_pillow(data)
    assert time.process_time() - began < 2


def test_a_tile_larger_than_its_image_is_bounded():
    for side in (30_000, 2_000_000_000):
        with pytest.raises(ValueError, match="more pixels than it can hold"):
            decode_with_pillow(tiff(56, 40, zlib.compress(bytes(4000)), (259, 3, 8), (322, 4, side), (323, 4, side)))


def test_a_flat_image_is_not_taken_for_a_bomb():
    for form in ("JPEG2000", "AVIF"):
        data = saved(Image.new("L", (700, 700), 90), form)
        assert 512 * len(data) < 700 * 700 and decode_with_pillow(data).shape == (700, 700, 3)
    blank = saved(Image.new("1", (3000, 3000), 1), "TIFF", compression="group4")
    assert len(blank) < 2000 and decode_with_pillow(blank).min() == 255


def test_directories_that_refer_to_themselves_end():
    loop = bytearray(tiff(8, 8, bytes(64), (278, 3, 8), (330, 4, 8), (34665, 4, 8)))
    count = struct.unpack_from("<H", loop, 8)[0]
    loop[10 + 12 * count : 14 + 12 * count] = struct.pack("<I", 8)  # the next page is this one
    assert decode_with_pillow(bytes(loop)).shape == (8, 8, 3)


def test_a_directory_whose_tags_share_megabytes_takes_no_minutes():
    entries = b"".join(struct.pack("<HHII", 40_000 + tag, 12, 500_000, 200_000) for tag in range(10_000))
    data = struct.pack("<2sHIH", b"II", 42, 8, 10_000) + entries + bytes(5_000_000)
    began = time.process_time()
    with pytest.raises(ValueError, match="TIFF"):
        decode_with_pillow(data)
    assert time.process_time() - began < 5


# --- no other words


def test_nothing_is_printed_about_damaged_files(capfd, caplog, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow warns of more, and refuses twice as many
    compressed = bytearray(saved(IMAGE, "TIFF", compression="tiff_adobe_deflate"))
    compressed[60:90] = bytes(30)
    samples = tiff(8, 8, bytes(64), (277, 3, 9), (278, 3, 8))
    truncated = saved(IMAGE, "TIFF", compression="tiff_lzw")[:-30]
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        for data in (bytes(compressed), samples, tiff(8, 8, bytes(64), (278, 3, 8))[:100], truncated):
            with pytest.raises(ValueError, match="TIFF"):
                decode_with_pillow(data)
        assert decode_with_pillow(saved(IMAGE, "BMP")).shape == (40, 56, 3)
    assert not warned and not caplog.records and capfd.readouterr() == ("", "")
    with pytest.warns(Image.DecompressionBombWarning):  # the caller's own use of Pillow keeps its warnings
        Image.open(io.BytesIO(saved(IMAGE, "BMP")))


def test_format_and_mode_are_read_from_the_header():
    assert describe(saved(IMAGE, "JPEG")) == "JPEG RGB"
    assert describe(saved(IMAGE.convert("CMYK"), "TIFF")) == "TIFF CMYK"
    assert describe(saved(IMAGE, "JPEG2000")) == "JPEG2000 RGB"
    assert describe(b"nothing") == "unknown to Pillow"
    assert describe(heic(IMAGE)) == "HEIF RGB"


def test_this_pillow_has_the_codecs_that_the_tests_need():
    assert all(map(features.check, ("avif", "jpg_2000", "libtiff", "webp")))
