"""Decoding of the formats that TensorFlow does not read, or reads wrongly. Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from keras_effnet.datasets.image_formats import tiff
from keras_effnet.datasets.image_formats.jpeg2000 import check_tiles
from keras_effnet.datasets.image_formats.limits import IMPLAUSIBLE, MAX_PIXELS, RefusedImageError, check_pixel_count
from keras_effnet.datasets.image_formats.netpbm import decode_netpbm
from keras_effnet.datasets.image_formats.quiet_pillow import without_messages
from keras_effnet.datasets.image_formats.signatures import HEAD_BYTES, HEIF, READ_FORMATS, image_format

# Format -> its name in Pillow
_PLUGINS = {
    **{"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "BMP": "BMP", "WebP": "WEBP"},
    **{"TIFF": "TIFF", "AVIF": "AVIF", "JPEG 2000": "JPEG2000", "PNM": "PPM"},
}
# Format -> most pixels per byte, and pixels up to which this is not checked: an image of a single colour compresses to
# almost nothing in the newer formats. Two bytes of a run-length encoded BMP give up to 255 pixels.
_PLAUSIBLE = {"BMP": (128, 0), "JPEG 2000": (512, 1 << 24), "AVIF": (512, 1 << 24), HEIF: (512, 1 << 24)}
# EXIF orientation -> what turns the stored image upright
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_with_pillow(contents: bytes | np.ndarray) -> np.ndarray:
    """Decode the first frame of an image to RGB, upright; for `tf.numpy_function`.

    The format is that of the contents, whatever the file is called.

    Args:
        contents: Bytes, or an array of one such object.

    Returns:
        A `uint8` array of shape `(height, width, 3)`.

    Raises:
        ValueError: The image cannot be decoded.
    """
    # In eager execution `numpy_function` passes an array of one object.
    data: bytes = contents.item() if isinstance(contents, np.ndarray) else contents
    name = image_format(data[:HEAD_BYTES])
    # ValueError is the only type that TensorFlow converts to InvalidArgumentError in a pipeline.
    try:
        return _decode(data, name)
    except (RefusedImageError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
    except UnidentifiedImageError:
        raise ValueError(f"Damaged or unsupported {name} file") from None
    except Exception as error:  # Pillow's plugins raise errors of any type on damaged files
        raise ValueError(f"Damaged or unsupported {name} file: {str(error) or type(error).__name__}") from None


def describe(contents: bytes) -> str:
    """Format and colour mode of a file by its header, such as `"JPEG RGB"`."""
    name = image_format(contents[:HEAD_BYTES])
    try:
        with without_messages(), _open(contents, name) as image:
            return f"{image.format} {image.mode}"
    except Exception:  # a format that TensorFlow decodes and Pillow does not
        return "unknown to Pillow"


def _decode(data: bytes, name: str | None) -> np.ndarray:
    if name == "PNM":
        return decode_netpbm(data)
    if name == "JPEG 2000":
        check_tiles(data)
    check_pixel_count(*_webp_canvas(data))
    with without_messages(), _open(data, name) as image:
        check_pixel_count(*image.size)  # before its pixels are allocated
        per_byte, unchecked = _PLAUSIBLE.get(name or "", (0, MAX_PIXELS))
        if image.width * image.height > max(per_byte * len(data), unchecked):
            raise RefusedImageError(IMPLAUSIBLE)
        return _rgb(image)


def _open(data: bytes, name: str | None) -> Image.Image:
    """Open an image by the plugin of its format alone; reads only the header."""
    if name is None:
        raise RefusedImageError("Unknown image file format" if data else "File is empty")
    if name not in READ_FORMATS:
        raise RefusedImageError(f"{name} images are not supported")
    if name != HEIF:
        return Image.open(io.BytesIO(data), formats=(_PLUGINS[name],))
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise RefusedImageError('HEIF images need pillow-heif: pip install "keras-effnet[heif]"') from None
    return HeifImageFile(io.BytesIO(data))


def _rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an opened image, upright, in 8 bits."""
    bits, inverted = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tiff.check_tiff(image)
        bits, inverted = tiff.bits_per_sample(image), tiff.white_is_zero(image)
    upright = _turned_upright(image)
    if upright.mode in ("F", "I"):
        raise RefusedImageError("Floating-point, 32-bit or signed samples have no known range: convert to 8 or 16 bits")
    if upright.mode.startswith("I;16"):
        grey = (np.asarray(upright) >> (bits - 8)).astype("uint8")
        return np.repeat((255 - grey if inverted else grey)[..., None], 3, axis=2)
    return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))


def _turned_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Unlike `ImageOps.exif_transpose`, ignores damaged Exif data instead of failing.

    TIFF and HEIF are turned by their decoders already, and have no such data here.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        method = _TRANSPOSE.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:
        return image
    return image if method is None else image.transpose(method)


def _webp_canvas(contents: bytes) -> tuple[int, int]:
    """Canvas size of an extended WebP, which older Pillow versions allocate on opening; (1, 1) for other files."""
    if contents[8:16] != b"WEBPVP8X":
        return 1, 1
    width, height = (int.from_bytes(contents[start : start + 3], "little") + 1 for start in (24, 27))
    return width, height
