"""Data with boxes, told by its files, as splits.

| source | format |
|---|---|
| `.json` file; a folder with JSON files in `annotations/`, or `_annotations.coco.json` in that of each split | COCO |
| `data.yaml`, or its folder | YOLO |
| folder with `Annotations/` and `JPEGImages/` | Pascal VOC |
| `.csv` without a header whose rows begin with TRAIN, VALIDATION or TEST | Model Maker |

NumPy; TensorFlow decodes the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from keras_effnet.datasets.annotations.boxed_images import BoxDataset
from keras_effnet.datasets.annotations.coco import read_coco
from keras_effnet.datasets.annotations.model_maker import is_model_maker, read_model_maker
from keras_effnet.datasets.annotations.scenes import digit_scenes
from keras_effnet.datasets.annotations.voc import read_voc
from keras_effnet.datasets.annotations.yolo import read_yolo, yolo_splits
from keras_effnet.datasets.folders import Progress, check_bad_file_limit
from keras_effnet.datasets.labels.boxes import Boxes, ImageBoxes
from keras_effnet.datasets.listing.tree import displayed
from keras_effnet.datasets.many_files import find_bad_files
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import SPLIT_NAMES, Split
from keras_effnet.errors import UserError

_ROBOFLOW = "_annotations.coco.json"
_YOLO = ("data.yaml", "data.yml", "dataset.yaml")
_VOC = ("Annotations", "JPEGImages")
_NAMES = [(split, name) for split, names in SPLIT_NAMES.items() for name in names]
_SCENES = {"train": 3000, "val": 500, "test": 500}

_Splits = Mapping[str, BoxDataset]
_Reader = Callable[[], _Splits]


def find_boxes(source: Path) -> _Reader | None:
    """Find the annotations of a file or folder: a function that reads them; None if it is of another kind.

    Args:
        source: Path of a file or folder that exists.
    """
    if source.is_dir():
        return _in_folder(source)
    kind = source.suffix.lower()
    if kind == ".json":
        return lambda: {"train": read_coco(source, _coco_images(source))}
    if kind in (".yaml", ".yml"):
        return lambda: _yolo(source)
    if kind == ".csv" and is_model_maker(source):
        return lambda: read_model_maker(source)
    return None


def read_boxes(name: str, read: _Reader, max_bad_files: int, check: bool, progress: Progress) -> SourceData:
    """Read data with boxes. Images without boxes are kept; those that cannot be decoded are skipped.

    Args:
        name: String, name of the data.
        read: Function that `find_boxes` returned.
        max_bad_files: Int, number of images allowed that cannot be decoded.
        check: Bool, whether to decode every image once.
        progress: Wraps the iteration over images, for a progress bar.

    Raises:
        UserError: An annotation is damaged or an image missing, there is no box at all, or too many images cannot be
            decoded.
    """
    found = read()
    names = _all_names(found)
    paths = [str(image.path) for part in found.values() for image in part.images]
    bad = tuple(find_bad_files(paths, progress)) if check else ()
    check_bad_file_limit(bad, len(paths), max_bad_files, "cannot be decoded")
    skipped = {file.path for file in bad}
    splits = {split: _split(part, names, skipped) for split, part in found.items()}
    if not any(len(each.labels.boxes) for each in splits.values()):
        raise UserError(f"{name} has no box in any of its {len(paths)} images.")
    if "train" not in splits and "test" not in splits:
        raise UserError(f"{name} has images to validate on, but none to train on.")
    problems = tuple(problem for part in found.values() for problem in part.problems)
    return SourceData(name, names, splits, bad, task="detection", problems=problems)


def scenes(seed: int, size: int) -> SourceData:
    """Generate 3,000 training, 500 validation and 500 test scenes of digits, `size` pixels wide, with their boxes."""
    splits = {}
    for split, count in _SCENES.items():
        images, boxes, classes = digit_scenes(count, size, split=split, seed=seed)
        labelled = (ImageBoxes(*pair, np.zeros(len(pair[0]), bool)) for pair in zip(boxes, classes, strict=True))
        splits[split] = Split(images, Boxes.of_images(labelled, [(size, size)] * count), mirror=False)
    return SourceData("digits-scenes", tuple("0123456789"), splits, task="detection")


# ------------------------------------------------------------------ where annotations lie


def _in_folder(folder: Path) -> _Reader | None:
    if yaml := next((folder / name for name in _YOLO if (folder / name).is_file()), None):
        return lambda: _yolo(yaml)
    roboflow = {split: folder / name for split, name in _NAMES if (folder / name / _ROBOFLOW).is_file()}
    if roboflow:
        return lambda: {split: read_coco(place / _ROBOFLOW, place) for split, place in roboflow.items()}
    if files := _coco_files(folder):
        return lambda: {split: read_coco(file, _coco_images(file)) for split, file in files.items()}
    annotations, images = (folder / name for name in _VOC)
    if images.is_dir() and annotations.is_dir() and next(annotations.glob("*.xml"), None):
        return lambda: _voc(folder, annotations, images)
    return None


def _coco_files(folder: Path) -> dict[str, Path]:
    """COCO files of a folder by split; one whose name tells none is for training."""
    files = sorted((folder / "annotations").glob("*.json"))
    boxes = [file for file in files if file.name.startswith("instances")] or files
    found: dict[str, Path] = {}
    for file in boxes:
        split = next((split for split, name in _NAMES if name in file.stem), "train")
        if split in found:
            raise UserError(
                f"{found[split]} and {file} are both annotations for {split}: give one of them as the data, or move it."
            )
        found[split] = file
    return found


def _coco_images(file: Path) -> Path:
    """Folder of the images of a COCO file: that of its split beside it, `images`, or its own."""
    above = file.parent.parent if file.parent.name == "annotations" else file.parent
    named = file.stem.removeprefix("instances_")
    places = (above / named, above / "images" / named, above / "images")
    return next((place for place in places if place.is_dir()), file.parent if above == file.parent else above)


def _yolo(path: Path) -> _Splits:
    return {split: read_yolo(path, split) for split in yolo_splits(path)}


def _voc(folder: Path, annotations: Path, images: Path) -> _Splits:
    sets = folder / "ImageSets" / "Main"
    found = {split: sets / f"{name}.txt" for split, name in _NAMES if (sets / f"{name}.txt").is_file()}
    if not found:
        return {"train": read_voc(annotations, images)}
    return {split: read_voc(annotations, images, image_set=file) for split, file in found.items()}


# ------------------------------------------------------------------ splits


def _all_names(found: _Splits) -> tuple[str, ...]:
    """Names of the classes of all splits: in their order if it is the same, otherwise sorted."""
    named = {part.class_names for part in found.values()}
    return named.pop() if len(named) == 1 else tuple(sorted({name for names in named for name in names}))


def _split(part: BoxDataset, names: tuple[str, ...], skipped: set[str]) -> Split:
    places = np.array([names.index(name) for name in part.class_names], "int32")
    images = [image for image in part.images if str(image.path) not in skipped]
    labelled = (
        ImageBoxes(image.boxes, places[image.labels] if len(image.labels) else image.labels, image.crowd)
        for image in images
    )
    return Split(
        tuple(str(image.path) for image in images), Boxes.of_images(labelled, [image.size for image in images])
    )


def name_of(source: Path) -> str:
    """Name of data with boxes: that of the folder, or of the file."""
    return displayed(source.resolve().name if source.is_dir() else source.stem)
