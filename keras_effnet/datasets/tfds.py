"""Images of TensorFlow Datasets, `tfds:name/config`, left as encoded bytes. Imports `folders`, `splits`, `errors`.

TensorFlow Datasets is an extra, imported when it is asked for.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.folders import Progress
from keras_effnet.datasets.splits import SPLIT_NAMES, Encoded, SourceData, Split
from keras_effnet.errors import UserError, closest, first_line

PREFIX = "tfds:"
_BATCH = 1024


def _library():
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(
            'tfds: names need TensorFlow Datasets, which is not installed: pip install "keras-effnet[tfds]".'
        ) from None
    return tensorflow_datasets


def _builder(name: str, data_dir: str | None):
    """A builder whose files are there: prepared earlier, or downloaded now."""
    tfds = _library()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # an unknown set, configuration or version, each with a type of its own
        near = closest(name.split("/")[0].split(":")[0], tfds.list_builders())
        hint = f" Did you mean {PREFIX}{near}?" if near and near != name.split("/")[0] else ""
        raise UserError(f"{PREFIX}{name}: {first_line(error)[:200]}{hint}") from None
    try:
        builder.download_and_prepare()  # returns at once where the files are there
    except Exception as error:  # no network, no space, a licence to be accepted by hand
        raise UserError(
            f"{PREFIX}{name} cannot be prepared in {builder.data_dir}: {first_line(error)[:200]} "
            "Prepare it elsewhere and name the folder with data_dir."
        ) from None
    return builder


def _keys(name: str, builder) -> tuple[str, str]:
    """The features that hold the image and its class."""
    tfds, features = _library(), builder.info.features
    images = [key for key, kind in features.items() if isinstance(kind, tfds.features.Image)]
    labels = [key for key, kind in features.items() if isinstance(kind, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys or ()
    if len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        return supervised
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{PREFIX}{name} is no set of images with one class each; its features are {', '.join(features)}."
        )
    return images[0], labels[0]


def _read(builder, split: str, image: str) -> tf.data.Dataset:
    """A part in the order of its files, images not decoded."""
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
    """A data set of TensorFlow Datasets: `imagenette/160px-v2`.

    Raises:
        UserError: The extra is not installed, the set is unknown, cannot be prepared, or holds no labelled images.
    """
    builder = _builder(name, data_dir)
    image, label = _keys(name, builder)
    given = {
        split: next((known for known in names if known in builder.info.splits), None)
        for split, names in SPLIT_NAMES.items()
    }
    if given["train"] is None:
        raise UserError(f"{PREFIX}{name} has no split `train`; it has {', '.join(builder.info.splits)}.")
    splits = {split: _split(builder, known, image, label, progress) for split, known in given.items() if known}
    if "test" in splits and (splits["test"].labels < 0).any():
        del splits["test"]  # a competition's test set: its labels are kept secret
    return SourceData(name.replace("/", "-").replace(":", "-"), tuple(builder.info.features[label].names), splits)
