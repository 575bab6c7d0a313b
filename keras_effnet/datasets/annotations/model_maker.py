"""The CSV of TFLite Model Maker and AutoML: set, path, label, and corners in shares of the image."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from keras_effnet.datasets.annotations.boxed_images import BoxDataset, RawBox, RawImage, finished, number
from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_text

_SPLITS = {"TRAIN": "train", "TRAINING": "train", "VALIDATION": "val", "VALIDATE": "val", "TEST": "test"}
_EDGES = (3, 4, 7, 8)  # columns of x0, y0, x1, y1; the other corners are empty or repeat them


def is_model_maker(path: Path) -> bool:
    """Whether a CSV file is one of Model Maker: it has no header, and its first row begins with a split."""
    with path.open(encoding="utf-8", errors="replace") as file:
        row = next(csv.reader(file), [])
    return len(row) >= 3 and row[0].strip().upper() in _SPLITS


def read_model_maker(path: str | Path, images: str | Path | None = None) -> dict[str, BoxDataset]:
    """Read boxes from a CSV file of Model Maker: `TRAIN,salad.jpg,Tomato,0.1,0.2,,,0.3,0.4,,`.

    Args:
        path: The CSV file, without a header.
        images: Folder to which paths are relative; that of the CSV file by default.

    Returns:
        A dict from `"train"`, `"val"` and `"test"`, as far as the file has them, to a `BoxDataset`; all have the same
        classes, sorted. A row without label and corners is an image without boxes.

    Raises:
        UserError: An image is missing or a row damaged; the message names the line.
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    splits: dict[str, dict[str, RawImage]] = {}
    labels = set()
    for line, row in enumerate(csv.reader(io.StringIO(read_text(path))), start=1):
        if not any(row):
            continue
        if any("\n" in cell for cell in row):
            raise UserError(f"{path} has a quoted line break before line {line + 1}: a quote is not closed.")
        where = f"{path}, line {line},"
        if len(row) < 3 or row[0].strip().upper() not in _SPLITS:
            raise UserError(f"{where} does not begin with TRAIN, VALIDATION or TEST, a path and a label.")
        split, name, label = splits.setdefault(_SPLITS[row[0].strip().upper()], {}), row[1].strip(), row[2].strip()
        raw = split.setdefault(name, RawImage(folder / name))
        if not label and not any(row[3:]):
            continue
        if not label or len(row) <= _EDGES[-1]:
            raise UserError(f"{where} lacks a label or corners: set,path,label,x0,y0,,,x1,y1,,")
        x0, y0, x1, y1 = (number(row[column].strip(), where) for column in _EDGES)
        raw.boxes.append(RawBox(where, label, (x0, y0, x1, y1), relative=True))
        labels.add(label)
    if not splits:
        raise UserError(f"{path} names no image.")
    return {split: finished(found.values(), sorted(labels), path) for split, found in splits.items()}
