"""Read datasets of TensorFlow Datasets, `tfds:name/config`, as encoded images.

TensorFlow. TensorFlow Datasets is an optional dependency, imported lazily.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.source_data import SourceData
from keras_effnet.datasets.splits import SPLIT_NAMES, Encoded, Split
from keras_effnet.errors import UserError, closest, first_line

PREFIX = "tfds:"
_BATCH = 1024


def _library():
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(
            'Sources named tfds: need TensorFlow Datasets, which is not installed: pip install "keras-effnet[tfds]".'
        ) from None
    return tensorflow_datasets


def _builder(name: str, data_dir: str | None):
    """Return a builder whose files exist, downloading them if necessary."""
    if not name.strip("/:"):
        raise UserError(
            f"{PREFIX} needs the name of a dataset, such as {PREFIX}imagenette/160px-v2; got {PREFIX}{name}."
        )
    tfds = _library()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # unknown dataset, configuration or version: each has its own exception type
        near = closest(name.split("/")[0].split(":")[0], tfds.list_builders())
        hint = f" Did you mean {PREFIX}{near}?" if near and near != name.split("/")[0] else ""
        raise UserError(f"{PREFIX}{name}: {first_line(error)[:200]}{hint}") from None
    try:
        builder.download_and_prepare()  # returns immediately if the files exist
    except Exception as error:  # no network, no space, or a licence that must be accepted manually
        raise UserError(
            f"{PREFIX}{name} cannot be prepared in {builder.data_dir}: {first_line(error)[:200]} "
            "Prepare it elsewhere and name the folder with data_dir."
        ) from None
    return builder


def _keys(name: str, builder) -> tuple[str, str]:
    """Names of the image feature and of the label feature."""
    tfds, features = _library(), builder.info.features
    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    match builder.info.supervised_keys:
        case (str(image), str(label)) if image in images and label in labels:
            return image, label
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{PREFIX}{name} is not a dataset of images with one class each; its features are {', '.join(features)}."
        )
    return images[0], labels[0]


def _read(builder, split: str, image: str) -> tf.data.Dataset:
    """Read a split in file order, without decoding the images."""
    tfds = _library()
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={image: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )


def _split(builder, name: str, image: str, label: str, progress: Progress) -> Split:
    batches = _read(builder, name, image).map(lambda example: example[label]).batch(_BATCH)
    labels = np.concatenate([np.zeros(0, int), *progress(batches.as_numpy_iterator())]).astype("int32")
    return Split(Encoded(lambda: _read(builder, name, image).map(lambda example: example[image]), len(labels)), labels)


def read_tfds(name: str, data_dir: str | None, progress: Progress) -> SourceData:
    """Read a dataset of TensorFlow Datasets, preparing it if necessary.

    Args:
        name: String, `"imagenette/160px-v2"`.
        data_dir: String, folder of TensorFlow Datasets' files; None for that library's own.
        progress: Wraps the iteration over batches of labels, for a progress bar.

    Raises:
        UserError: TensorFlow Datasets is not installed, or the dataset is unknown, cannot be prepared or has no
            labelled images.
    """
    builder = _builder(name, data_dir)
    image, label = _keys(name, builder)
    given = {
        split: next((known for known in names if known in builder.info.splits), None)
        for split, names in SPLIT_NAMES.items()
    }
    if given["train"] is None:
        raise UserError(f"{PREFIX}{name} has no split `train`; its splits are {', '.join(builder.info.splits)}.")
    splits = {split: _split(builder, known, image, label, progress) for split, known in given.items() if known}
    if "test" in splits and (splits["test"].labels < 0).any():
        del splits["test"]  # the unlabelled test set of a competition
    return SourceData(name.replace("/", "-").replace(":", "-"), tuple(builder.info.features[label].names), splits)
