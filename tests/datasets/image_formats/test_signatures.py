"""Formats recognised by content."""

import io
import struct

import pytest
from PIL import Image

from keras_effnet.datasets.image_formats import signatures
from keras_effnet.datasets.image_formats.signatures import (
    HEAD_BYTES,
    READ_EXTENSIONS,
    READ_FORMATS,
    UNREAD_EXTENSIONS,
    image_format,
)


def _saved(form: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (20, 16)).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, form) for form in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "AVIF", "ICO", "DDS", "PCX", "SGI", "ICNS")),
        *(("WEBP", "WebP"), ("JPEG2000", "JPEG 2000"), ("PPM", "PNM"), ("EPS", "EPS")),
    ],
)
def test_files_that_pillow_writes_are_recognised(form, name):
    assert image_format(_saved(form)) == name


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_bitmaps_and_greymaps_are_netpbm(mode):
    assert image_format(_saved("PPM", mode)) == "PNM"


def test_codestreams_and_both_byte_orders_are_recognised():
    assert image_format(_saved("JPEG2000", no_jp2=True)) == "JPEG 2000"
    assert image_format(_saved("TIFF", big_tiff=True)) == "TIFF"
    assert image_format(b"MM\0*\0\0\0\x08") == "TIFF"
    assert image_format(b"P3\n# made by hand\n#again\n2 2\n255\n") == "PNM"
    assert image_format(_saved("DIB")) is None  # a BMP without its file header


def _ftyp(brand: bytes, *compatible: bytes) -> bytes:
    return struct.pack(">I", 16 + 4 * len(compatible)) + b"ftyp" + brand + bytes(4) + b"".join(compatible) + bytes(40)


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        ((b"heic", b"mif1", b"heic"), "HEIF"),
        ((b"mif1", b"heic"), "HEIF"),
        ((b"hevc", b"msf1"), "HEIF"),
        ((b"avif", b"mif1", b"miaf"), "AVIF"),
        ((b"mif1", b"miaf", b"avif"), "AVIF"),
        ((b"crx ", b"isom"), "camera raw"),
        ((b"isom", b"mp41"), None),
        ((b"qt  ",), None),
    ],
)
def test_brands_distinguish_heif_avif_raw_and_video(brands, name):
    assert image_format(_ftyp(*brands)) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"8BPS\0\x01", "PSD"),
        (b"\xff\x0a\xf8\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"II*\0\x10\0\0\0CR\x02\0", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw"),
        (b"v/1\x01\x02\0\0\0", "OpenEXR"),
        (b"PF\n20 16\n-1.0\n", "PFM"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- by hand -->\n<svg>', "SVG"),
        (bytes(128) + b"DICM", "DICOM"),
    ],
)
def test_images_that_are_not_read_are_named(head, name):
    assert image_format(head) == name
    assert name not in READ_FORMATS


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"\xff", b"BM", b"P6", b"GIF", b"<?xml version='1.0'?><html>", b"<!DOCTYPE html><svg>"),
        *(b"BMW 320i, red, 1998\n", b"P1 is the first patient.\n", b"Plain text.\n", b"PK\x03\x04", b"%PDF-1.7\n"),
        *(bytes(HEAD_BYTES), b"RIFF\0\0\0\0WAVEfmt ", b"SIMPLE words", b"II. Results\n", b"MM\n"),
    ],
)
def test_text_and_other_files_are_no_images(head):
    assert image_format(head) is None


def test_only_the_head_is_searched():
    assert image_format(b"<?xml" + b" " * HEAD_BYTES + b"<svg>") is None


def test_every_format_that_is_read_has_a_signature():
    assert {name for name, _ in signatures._SIGNATURES} > READ_FORMATS


def test_a_format_has_the_same_name_in_both_tables():
    assert {name for name, _ in signatures._SIGNATURES} < set(signatures.EXTENSIONS_OF_FORMATS)


def test_extensions_are_lower_case_and_either_read_or_not():
    assert not READ_EXTENSIONS & UNREAD_EXTENSIONS
    assert all(name == name.lower() and name.startswith(".") for name in READ_EXTENSIONS | UNREAD_EXTENSIONS)
    assert {".jpg", ".tif", ".heic", ".avif", ".jp2", ".ppm"} <= READ_EXTENSIONS
    assert {".psd", ".jxl", ".svg", ".dng", ".exr", ".ico", ".tga"} <= UNREAD_EXTENSIONS
