"""Writing an app bundle: the files of an export, and all that an app needs around them. TensorFlow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from keras_effnet.errors import UserError, check_path
from keras_effnet.export.app_bundle.answers import BEST, shown
from keras_effnet.export.app_bundle.boxes import anchor_file, anchors_in, box_answers
from keras_effnet.export.app_bundle.document import LABELS, MODEL_JSON, ModelDocument, ModelFile
from keras_effnet.export.app_bundle.model_json import class_names, files_of, of_files
from keras_effnet.export.app_bundle.rendering import ASSETS, render_all
from keras_effnet.export.app_bundle.sample_image import network_images, png, read_sample
from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.export.tflite_file.clients import ACCEPTS, CPU
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.files import atomic_group, link_or_copy

BUNDLE, TEST_IMAGE = "bundle", "test_image.png"
_INPUTS = ("float32", "uint8")


def write_app_bundle(
    source: str | Path,
    folder: str | Path | None = None,
    *,
    test_image: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a folder that an app can be built from: the files, `labels.txt`, `model.json`, a model card, example code.

    Args:
        source: Folder of an export, with its `.tflite` files and records, or one `.tflite` file.
        folder: Path of the bundle, by default `bundle` beside the files.
        test_image: Path of an image, which travels in the bundle as a PNG without metadata, with the answers of each
            file. By default there is none; `write_bundle(..., app_bundle=True)` chooses one.
        overwrite: Bool, whether an existing bundle may be replaced, with all changes that were made in it.

    Returns:
        Path of the bundle.

    Raises:
        UserError: There are no files, one is no network for RGB images that bundles are for, or the bundle exists.

    Example:

    >>> keras_effnet.export.write_app_bundle("runs/export/flowers", test_image="tulip.jpg")
    PosixPath('runs/export/flowers/bundle')
    """
    check_path("source", source)
    source = Path(source)
    paths = files_of(source) if source.is_dir() else [source]
    if not paths:
        raise UserError(f"{source} contains no .tflite files; export some first.")
    parent = paths[0].parent
    folder = Path(folder) if folder else parent / BUNDLE
    check_absent(folder, overwrite)
    document = of_files(paths)
    spec = image_spec_of(document)
    image = None if test_image is None else png(read_sample(test_image), spec.size)
    with atomic_group(folder.parent) as staged:
        fill(staged / folder.name, document, parent, image)
    return folder


def check_absent(folder: Path, overwrite: bool) -> None:
    """Refuse to replace a bundle without permission.

    Raises:
        UserError: The folder exists.
    """
    if folder.exists() and not overwrite:
        raise UserError(
            f"{folder} exists; pass overwrite=True (--overwrite) to replace it, with all changes made in it."
        )


def image_spec_of(document: ModelDocument) -> ImageSpec:
    """The `ImageSpec` that a document describes."""
    rule = document.image.resize
    crop = rule.crop.fraction if rule.crop else 1.0
    return ImageSpec(
        document.image.width, rule.padding or 0.0, 1.0, crop, interpolation=rule.interpolation, fit=rule.fit
    )


def fill(folder: Path, document: ModelDocument, files: Path, image: bytes | None) -> None:
    """Write a bundle to a new folder.

    Args:
        folder: Path.
        document: `ModelDocument` without a test image.
        files: Folder of the `.tflite` files.
        image: Bytes of the test image, or None.

    Raises:
        UserError: A file is not a classifier of RGB images, or cannot be run.
    """
    for file in document.files:
        _check_supported(file)
        if document.task == "segmentation" and file.outputs[0].shape[-1] < 2:
            raise UserError(
                f"A bundle needs masks with a channel for each class, and {file.file} has one for both classes: train "
                "a network with two."
            )
    if image is not None:
        document = _with_answers(document, files, image)
    shown = shown_file(document)
    names = class_names(files / shown.file)
    (folder / ASSETS).mkdir(parents=True)
    for place in (folder, folder / ASSETS):
        (place / LABELS).write_bytes("".join(f"{name}\n" for name in names).encode())
        if image is not None:
            (place / TEST_IMAGE).write_bytes(image)
        if document.boxes:
            (place / document.boxes.anchors).write_bytes(anchor_file(files / shown.file))
    for file in document.files:
        link_or_copy(files / file.file, folder / file.file)
    link_or_copy(files / shown.file, folder / ASSETS / shown.file)
    (folder / MODEL_JSON).write_text(document.to_json(), encoding="utf-8")
    for path, text in render_all(document, shown):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode(errors="backslashreplace"))


def shown_file(document: ModelDocument) -> ModelFile:
    """The file that the app and the examples use: the recommended one, else the smallest that CPUs run well."""
    recommended = [file for file in document.files if file.file == document.recommended]
    well = [f for f in document.files if any(v.client == CPU and v.expected == ACCEPTS for v in f.clients)]
    return (recommended or sorted(well or document.files, key=lambda file: file.bytes))[0]


def _check_supported(file: ModelFile) -> None:
    source, results = file.inputs[0], sorted({port.dtype for port in file.outputs})
    if source.shape[3] != 3 or source.dtype not in _INPUTS or results != ["float32"]:
        raise UserError(
            f"A bundle needs files that map RGB images (float32 or uint8) to float32 scores; {file.file} maps "
            f"{source.dtype} {list(source.shape)} to {', '.join(results)}. Export without the bundle."
        )


def _with_answers(document: ModelDocument, folder: Path, image: bytes) -> ModelDocument:
    """Add the test image and what each file answers for it."""
    pixels, scale = network_images(image, image_spec_of(document))
    rule, answered = shown(document.task, document.name), []
    for file in document.files:
        path = folder / file.file
        output, names = IsolatedModel(path).predict(pixels)[0], class_names(path)
        if document.boxes:
            answers = box_answers(output, document, anchors_in(inspect(path)), scale, names)[:BEST]
        else:
            answers = rule.answers(output, names)
        answered.append(replace(file, expected_top5=answers))
    return replace(document, files=tuple(answered), test_image=TEST_IMAGE)
