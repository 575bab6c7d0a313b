"""Small sound images of every format and kind. NumPy and Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image

WIDTH, HEIGHT = 48, 40


def soft_pixels(seed: int) -> np.ndarray:
    """Soft colours and some noise, so that every coder has something to write."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype("uint8"))
    soft = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(soft + rng.integers(-9, 10, soft.shape), 0, 255).astype("uint8")


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _interlaced_png(pixels: np.ndarray) -> bytes:
    """Adam7, which Pillow reads and does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = (row for top, left, down, right in passes for row in pixels[top::down, left::right])
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def _rle_bmp(indices: np.ndarray) -> bytes:
    """Run-length coded BMP of 256 colours, which Pillow reads and does not write."""
    palette = bytes(value for colour in range(256) for value in (colour, 255 - colour, colour // 2, 0))
    rows = (b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in indices[::-1])
    data = b"".join(rows) + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def image_files() -> dict[str, bytes]:
    """Kind, of which the first word is the format, -> a sound file of it."""
    pixels = soft_pixels(0)
    image, other = Image.fromarray(pixels), Image.fromarray(soft_pixels(1))
    translucent = image.convert("RGBA")
    translucent.putalpha(other.convert("L"))
    deep = Image.fromarray(pixels[..., 0].astype("uint16") * 257)
    turned = {"exif": _orientation(6)}
    animation = {"save_all": True, "append_images": [other, image.rotate(90)]}
    return {
        "jpeg": _saved(image, "JPEG"),
        "jpeg fine": _saved(image, "JPEG", quality=95, subsampling=0),
        "jpeg 422": _saved(image, "JPEG", subsampling=1),
        "jpeg progressive": _saved(image, "JPEG", progressive=True),
        "jpeg grey": _saved(image.convert("L"), "JPEG"),
        "jpeg cmyk": _saved(image.convert("CMYK"), "JPEG"),
        "jpeg restarts": _saved(image, "JPEG", restart_marker_rows=1),
        "png": _saved(image, "PNG"),
        "png interlaced": _interlaced_png(pixels),
        "png 16 bit": _saved(deep, "PNG"),
        "png palette": _saved(image.convert("P", palette=Image.Palette.ADAPTIVE, colors=32), "PNG"),
        "png alpha": _saved(translucent, "PNG"),
        "gif": _saved(image.convert("P"), "GIF"),
        "gif animated": _saved(image, "GIF", **animation),
        "bmp": _saved(image, "BMP"),
        "bmp palette": _saved(image.convert("P"), "BMP"),
        "bmp rle": _rle_bmp(pixels[..., 0]),
        "webp": _saved(image, "WEBP"),
        "webp alpha": _saved(translucent, "WEBP", lossless=True),
        "webp animated": _saved(image, "WEBP", **animation),
        "jpeg turned": _saved(image, "JPEG", **turned),
        "png turned": _saved(image, "PNG", **turned),
        "webp turned": _saved(image, "WEBP", **turned),
        "tiff": _saved(image, "TIFF"),
        "tiff turned": _saved(image, "TIFF", compression="tiff_lzw", **turned),
        "tiff strips": _saved(image, "TIFF", compression="packbits", tiffinfo={278: 10}),
        "tiff jpeg": _saved(image, "TIFF", compression="jpeg"),
        "tiff fax": _saved(image.convert("1"), "TIFF", compression="group4"),
        "tiff 16 bit": _saved(deep, "TIFF", compression="packbits"),
        "tiff pages": _saved(image.convert("CMYK"), "TIFF", big_tiff=True, **animation),
        "avif": _saved(image, "AVIF"),
        "avif alpha": _saved(translucent, "AVIF", **turned),
        "jpeg2000": _saved(image, "JPEG2000"),
        "jpeg2000 codestream": _saved(deep, "JPEG2000", no_jp2=True),
        "jpeg2000 tiles": _saved(image, "JPEG2000", irreversible=True, tile_size=(16, 16)),
        "ppm": _saved(image, "PPM"),
        "ppm grey": _saved(deep, "PPM"),
        "ppm plain": b"P2 48 40 # plain\n255\n" + b" ".join(b"%d" % value for value in pixels[..., 0].ravel()),
        **_heif_files(image, translucent, turned["exif"]),
    }


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif.tobytes()


def _heif_files(image: Image.Image, translucent: Image.Image, exif: bytes) -> dict[str, bytes]:
    try:
        import pillow_heif
    except ImportError:
        return {}
    buffers = io.BytesIO(), io.BytesIO()
    pillow_heif.encode("RGB", image.size, image.tobytes(), buffers[0], quality=80)
    pillow_heif.encode("RGBA", image.size, translucent.tobytes(), buffers[1], quality=80, exif=exif)
    return {"heif": buffers[0].getvalue(), "heif turned": buffers[1].getvalue()}
