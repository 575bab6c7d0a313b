"""Which files are images: by extension, and by content where the extension does not tell. Pure Python."""

from __future__ import annotations

import importlib.util
from functools import cache

from keras_effnet.datasets.image_formats.signatures import (
    EXTENSIONS_OF_FORMATS,
    HEAD_BYTES,
    HEIF,
    READ_EXTENSIONS,
    READ_FORMATS,
    UNREAD_EXTENSIONS,
    image_format,
)
from keras_effnet.datasets.listing.tree import extension, file_name, is_hidden

IMAGE = "image"  # that is read
HEIF_IMAGE = f"{HEIF} image"
_FORMAT_OF_EXTENSION = {name: kind for kind, names in EXTENSIONS_OF_FORMATS.items() for name in names}
# Extensions of files that are never opened: a dataset may hold an annotation for every image
_NO_IMAGES = """
    txt csv tsv json jsonl xml yaml yml toml ini cfg conf md rst tex log html htm css js py ipynb sh c cpp h java
    exe dll so lnk url pdf doc docx odt xls xlsx ods ppt pptx rtf epub kml geojson shp dbf prj xmp aae thm srt vtt
    npy npz mat h5 hdf5 keras tflite onnx pb pt pth ckpt safetensors pkl pickle joblib parquet feather arrow avro
    tfrecord tfrecords tfrec lmdb mdb db sqlite sqlite3 zip tar gz tgz bz2 xz zst 7z rar jar iso dmg md5 sha1 sha256
    mp4 m4v mov avi mkv webm mpg mpeg wmv flv 3gp mts mp3 m4a wav flac ogg aac
"""
_OTHER_EXTENSIONS = frozenset(f".{name}" for name in _NO_IMAGES.split())
_TEMPORARY = frozenset({".bak", ".old", ".orig", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download"})
_RESOURCE_FORK = "._"  # prefix of files that macOS writes beside every file on foreign file systems; never images


def kind_of(path: str) -> str | None:
    """Tell whether a file is an image, without decoding it.

    Files with the extension of a format that is read are images, whatever they contain: the decoder reports the others.
    All files that may be images in spite of their extension are opened.

    Args:
        path: Path of a regular file.

    Returns:
        `IMAGE`; a noun such as `"PSD image"` for a file that may be an image but is not read; None for other files.
    """
    ending = extension(path)
    if is_hidden(path):
        named_like_image = ending in READ_EXTENSIONS | UNREAD_EXTENSIONS
        return "hidden image" if named_like_image and not file_name(path).startswith(_RESOURCE_FORK) else None
    if ending in _read_extensions():
        return IMAGE
    if ending in _OTHER_EXTENSIONS:
        return None
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - twice as fast
            found = image_format(file.read(HEAD_BYTES))
    except OSError:
        return "unreadable file"
    if found and (ending in _TEMPORARY or path.endswith("~")):
        return "temporary or backup image"
    found = found or _FORMAT_OF_EXTENSION.get(ending)
    return None if found is None else IMAGE if found in _read_formats() else f"{found} image"


def is_named_like_image(path: str) -> bool:
    """Whether the extension is that of an image format, read or not."""
    return extension(path) in _FORMAT_OF_EXTENSION


@cache
def _read_formats() -> frozenset[str]:
    return READ_FORMATS if importlib.util.find_spec("pillow_heif") else READ_FORMATS - {HEIF}


@cache
def _read_extensions() -> frozenset[str]:
    return frozenset(name for name in READ_EXTENSIONS if _FORMAT_OF_EXTENSION[name] in _read_formats())
