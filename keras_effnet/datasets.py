"""Where pictures come from: a folder of class folders, or the embedded handwritten digits.

Imports `images` and `errors`. What becomes of the pictures is `pipeline`'s business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError, unknown
from keras_effnet.images import EXTENSIONS, BadFile, find_bad_files, list_pictures
from keras_effnet.splits import ImageDataset, Split, stratified_split

logger = logging.getLogger(__name__)

EMBEDDED = ("digits", "digits-cluttered")
_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def _digits(seed: int) -> ImageDataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels: 70% train, 15% val, 15% test."""
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = np.round(source.images * (255 / 16)).astype("uint8")
    images = np.repeat(pixels[..., None], 3, axis=-1)
    labels = source.target.astype("int32")
    whole = Split(images, labels, mirror=False)
    splits = [whole.select(indices) for indices in stratified_split(labels, (0.7, 0.15, 0.15), seed)]
    return ImageDataset("digits", tuple("0123456789"), *splits)


def _paste(canvas: np.ndarray, patch: np.ndarray, x: float, y: float, side: float) -> None:
    """Draws a patch, resized, where it is brighter than what is there; positions are shares of the canvas."""
    from PIL import Image

    size = canvas.shape[0]
    pixels = max(2, round(side * size))
    drawn = np.asarray(Image.fromarray(patch).resize((pixels, pixels), Image.Resampling.BILINEAR))
    left, top = round(x * (size - pixels)), round(y * (size - pixels))
    window = canvas[top : top + pixels, left : left + pixels]
    np.maximum(window, drawn, out=window)


def clutter(digits: Split, count: int, size: int, seed: int) -> Split:
    """Scenes of one whole digit at a random place and scale among fragments of others.

    The scene is drawn in shares of the canvas, so a seed gives the same scenes at any `size`, and a larger canvas
    shows more of them: resolution matters here, as it does in photographs.

    Args:
        digits: `Split` of the plain digits to draw from.
        count: Int, scenes.
        size: Int, side of the canvas in pixels.
        seed: Int.
    """
    rng = np.random.default_rng(seed)
    glyphs = digits.images[..., 0]
    chosen = rng.integers(len(glyphs), size=count)
    canvases = np.zeros((count, size, size), "uint8")
    for canvas, index in zip(canvases, chosen, strict=True):
        for _ in range(8):
            row, column = rng.integers(0, 5, size=2)
            fragment = glyphs[rng.integers(len(glyphs))][row : row + 4, column : column + 4]
            _paste(canvas, fragment, *rng.random(2), side=rng.uniform(0.08, 0.16))
        _paste(canvas, glyphs[index], *rng.random(2), side=rng.uniform(0.25, 0.5))
    return Split(np.repeat(canvases[..., None], 3, axis=-1), digits.labels[chosen], mirror=False)


def _cluttered_digits(seed: int, size: int) -> ImageDataset:
    plain = _digits(seed)
    counts = {"train": 5000, "val": 1000, "test": 1000}
    scenes = {
        # No handwriting of one split appears in another: the scenes come from split digits.
        split: clutter(getattr(plain, split), count, size, seed + number)
        for number, (split, count) in enumerate(counts.items(), start=1)
    }
    return replace(plain, name="digits-cluttered", **scenes)


def _class_folders(folder: Path) -> dict[str, list[str]]:
    """Class name -> picture files, for every class folder that is not hidden."""
    return {
        entry.name: list_pictures(entry)
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _to_split(classes: dict[str, list[str]], names: Sequence[str], bad: set[str]) -> Split:
    pairs = [(path, names.index(name)) for name, paths in classes.items() for path in paths if path not in bad]
    paths, labels = zip(*pairs, strict=True) if pairs else ((), ())
    return Split(tuple(paths), np.asarray(labels, "int32"))


def _check_classes(folder: Path, classes: dict[str, list[str]]) -> None:
    if not classes:
        loose = "holds pictures but no class folders" if list_pictures(folder) else "is empty"
        raise UserError(f"{folder} {loose}. Put pictures in one folder per class: {folder.name}/cat/1.jpg.")
    empty = [name for name, paths in classes.items() if not paths]
    if empty:
        raise UserError(
            f"{folder} has class folders without pictures: {', '.join(empty[:5])}. "
            f"Remove them or add pictures ({', '.join(EXTENSIONS)})."
        )
    if len(classes) < 2:
        raise UserError(f"{folder} has one class only ({next(iter(classes))}); a classifier needs at least two.")


def _leave_out_bad(paths: list[str], limit: int, progress) -> tuple[BadFile, ...]:
    bad = tuple(find_bad_files(paths, progress))
    listing = "; ".join(f"{item.path} ({item.reason})" for item in bad[:5]) + ("; ..." if len(bad) > 5 else "")
    if len(bad) > limit:
        raise UserError(
            f"{len(bad)} of {len(paths)} pictures cannot be decoded, more than the {limit} allowed "
            f"(max_bad_files, --max-bad-files): {listing}"
        )
    if bad:
        logger.warning("Skipped %d of %d pictures that cannot be decoded: %s", len(bad), len(paths), listing)
    return bad


def _folder(folder: Path, val_split: float, seed: int, max_bad_files: int, check: bool, progress) -> ImageDataset:
    parts = {
        split: next((folder / name for name in names if (folder / name).is_dir()), None)
        for split, names in _SPLIT_FOLDERS.items()
    }
    presplit = parts["train"] is not None
    if presplit:
        layouts = {split: _class_folders(path) for split, path in parts.items() if path}
        if "val" not in layouts and "test" not in layouts:
            layouts = {"train": layouts["train"]}
    else:
        layouts = {"train": _class_folders(folder)}
    names = tuple(layouts["train"])
    for split, classes in layouts.items():
        _check_classes(parts[split] if presplit else folder, classes)
        if differing := sorted(set(classes) ^ set(names)):
            raise UserError(
                f"{folder}: train and {split} have different classes; in one only: {', '.join(differing[:5])}."
            )

    every = [path for classes in layouts.values() for paths in classes.values() for path in paths]
    skipped = _leave_out_bad(every, max_bad_files, progress) if check else ()
    bad = {item.path for item in skipped}
    splits = {split: _to_split(classes, names, bad) for split, classes in layouts.items()}
    if "val" not in splits:
        whole = splits["train"]
        train, val = stratified_split(whole.labels, (1 - val_split, val_split), seed)
        splits |= {"train": whole.select(train), "val": whole.select(val)}
    for split, part in splits.items():
        missing = sorted(set(range(len(names))) - set(part.labels.tolist()))
        if split != "test" and missing:
            raise UserError(f"{folder}: no usable picture of class {names[missing[0]]!r} for {split}; add some.")
    return ImageDataset(folder.resolve().name, names, **splits, skipped=skipped)


def load(
    source: str | os.PathLike,
    *,
    val_split: float = 0.2,
    seed: int = 0,
    image_size: int = 64,
    max_bad_files: int = 10,
    check: bool = True,
    progress: Callable[[Iterable], Iterable] = iter,
) -> ImageDataset:
    """Loads labelled pictures.

    Args:
        source: `"digits"`, `"digits-cluttered"`, or a folder: either `train/` and `val/` (and `test/`) with one folder
            per class in each, or class folders directly, from which a stratified share is held out.
        val_split: Float in (0, 1), share held out where the folder has no `val/`.
        seed: Int, of the split and of the cluttered scenes.
        image_size: Int, canvas of `"digits-cluttered"` in pixels.
        max_bad_files: Int, how many files may be undecodable before this is an error. They are skipped and listed in
            `skipped`, with a warning.
        check: Bool, whether to decode every file of a folder once beforehand.
        progress: Wraps the iteration over files, for a progress bar.

    Returns:
        An `ImageDataset`.

    Raises:
        UserError: The source does not exist, has fewer than two classes, or too many bad files.

    Example:

    >>> data = keras_effnet.datasets.load("digits")
    >>> len(data.train), len(data.val), len(data.test)
    (1258, 270, 269)
    """
    if not 0 < val_split < 1:
        raise UserError(f"val_split must lie between 0 and 1, got {val_split}.")
    origin = {"source": str(source), "seed": seed}
    if source == "digits":
        return replace(_digits(seed), origin=origin)
    if source == "digits-cluttered":
        return replace(_cluttered_digits(seed, image_size), origin=origin | {"image_size": image_size})
    folder = Path(source)
    if folder.is_dir():
        origin |= {"source": str(folder.resolve()), "val_split": val_split, "max_bad_files": max_bad_files}
        dataset = _folder(folder, val_split, seed, max_bad_files, check, progress)
        return replace(dataset, origin=origin)
    if folder.is_file():
        raise UserError(f"{folder} is a file; data is a folder of class folders or one of {', '.join(EMBEDDED)}.")
    if os.sep in str(source) or str(source).startswith("."):
        raise UserError(f"Folder {folder} does not exist.")
    raise UserError(unknown("dataset", str(source), EMBEDDED) + " There is no folder of that name either.")
