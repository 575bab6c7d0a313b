"""Layouts of folders that hold images and masks, as published datasets have them. Pure Python.

| layout | as in |
|---|---|
| `images/`, `masks/` | Kaggle |
| `train/images/`, `train/masks/`, `val/images/`, ... | |
| `images/train/`, `masks/train/`, ... | Cityscapes, ADE20K |
| `train/`, `trainannot/`, `val/`, `valannot/`, ... | CamVid |
| `JPEGImages/`, `SegmentationClass/` | Pascal VOC |

A mask is a PNG file with the stem of its image, or that stem with `_mask` or `_L` after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

from keras_effnet.datasets.listing.images import list_images, warn_of
from keras_effnet.datasets.listing.tree import LeftOut, displayed, file_name
from keras_effnet.datasets.segmentation.pairs import Layout, Pair
from keras_effnet.datasets.splits import SPLIT_NAMES

_IMAGES = ("images", "image", "imgs", "JPEGImages")
_MASKS = ("masks", "mask", "SegmentationClass", "annotations", "labels")
_VOC = "SegmentationClass"  # most images of Pascal VOC have no mask
_SUFFIXES = ("", "_mask", "_L")  # after the stem of an image
_ANNOTATED = "annot"  # after the name of a split


def find_layout(folder: Path) -> Layout | None:
    """Find the images and masks of a folder; None if it is of another kind.

    Args:
        folder: Path.
    """
    places = dict(_places(folder))
    splits, left_out = {}, []
    for split, (images, masks) in places.items():
        pairs, others = _pairs(images, masks)
        if not any(pair.mask for pair in pairs):
            return None
        splits[split] = pairs
        left_out += others
    if not splits:
        return None
    if "train" not in splits and "test" not in splits:
        return None
    warn_of(left_out, folder)
    return Layout(displayed(folder.resolve().name), folder, splits, tuple(left_out))


def _places(folder: Path) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """Yield the folders of images and of masks of each split."""
    whole = _both(folder)
    found = False
    for split, names in SPLIT_NAMES.items():
        for name in names:
            pair = _both(folder / name) or _same(folder / name, folder / f"{name}{_ANNOTATED}")
            pair = pair or (whole and _same(whole[0] / name, whole[1] / name))
            if pair:
                found = True
                yield split, pair
                break
    if whole and not found:
        yield "train", whole


def _both(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder."""
    images = next((folder / name for name in _IMAGES if (folder / name).is_dir()), None)
    masks = next((folder / name for name in _MASKS if (folder / name).is_dir()), None)
    return (images, masks) if images and masks else None


def _same(images: Path, masks: Path) -> tuple[Path, Path] | None:
    return (images, masks) if images.is_dir() and masks.is_dir() else None


def _pairs(images: Path, masks: Path) -> tuple[list[Pair], list[LeftOut]]:
    """Pair images with masks by their stems; images of Pascal VOC without one are left out."""
    known = {_stem(path, masks): path for path in list_images(masks).images if path.lower().endswith(".png")}
    listing = list_images(images)
    pairs, left_out = [], list(listing.left_out)
    for path in listing.images:
        stem = _stem(path, images)
        mask = next((known[stem + end] for end in _SUFFIXES if stem + end in known), None)
        if mask is None and masks.name == _VOC:
            left_out.append(LeftOut(path, "image without a mask"))
        else:
            pairs.append(Pair(path, mask))
    return pairs, left_out


def _stem(path: str, root: Path) -> str:
    """Path below a folder without its extension."""
    below = PurePath(path).relative_to(root)
    return str(below.with_name(file_name(path).rpartition(".")[0] or below.name))
