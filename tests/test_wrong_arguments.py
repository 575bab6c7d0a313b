"""Wrong types that users plausibly pass to public functions: one line that says what is expected, never a TypeError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_effnet
from keras_effnet import datasets, export, inference, pipeline, training, transfer
from keras_effnet.inference import image_files
from keras_effnet.preprocessing import ImageSpec

X = np.zeros((4, 8, 8, 3), "float32")
SPEC = ImageSpec(8)

# Name -> a function of a small model that makes the mistake, and a fragment of the one line.
MISTAKES = {
    "a name for an image spec": (lambda model: keras_effnet.preprocess_input(X, "b0"), "of class ImageSpec, got 'b0'"),
    "a model for an image spec": (lambda model: keras_effnet.preprocess_input(X, model), "got Functional"),
    "a path for pixels": (lambda model: keras_effnet.preprocess_input("a.png", SPEC), "x must be an array"),
    "no pixels": (lambda model: keras_effnet.preprocess_input(None, SPEC), "x must be an array"),
    "a name for a size": (lambda model: ImageSpec("b0"), "size must be a whole number, got 'b0'"),
    "a pair for a size": (lambda model: ImageSpec((32, 48)), "size must be a whole number, got (32, 48)"),
    "a fraction for a size": (lambda model: ImageSpec(32.5), "size must be a whole number, got 32.5"),
    "no mean": (lambda model: ImageSpec(32, mean=None), "mean must be a number, got None"),
    "text for a crop": (lambda model: ImageSpec(32, crop="0.5"), "crop must be a number, got '0.5'"),
    "a name for a spec": (lambda model: ImageSpec.of("b0"), "of class ArchitectureSpec, got 'b0'"),
    "a path for a model": (lambda model: ImageSpec.of_model("m.keras"), "got 'm.keras'; load a file with load_model"),
    "a model for a path": (lambda model: keras_effnet.load_model(model), "path must be a path, got Functional"),
    "no path": (lambda model: keras_effnet.load_model(None), "path must be a path, got None"),
    "weights of a path": (lambda model: keras_effnet.load_weights("m.keras", "w.h5"), "model must be a Keras model"),
    "a model for weights": (lambda model: keras_effnet.load_weights(model, model), "path must be a path"),
    "features of a path": (lambda model: keras_effnet.features("m.keras"), "model must be a Keras model"),
    "a map of a path": (lambda model: keras_effnet.grad_cam("m.keras", X[0]), "model must be a Keras model"),
    "text for phi": (lambda model: keras_effnet.architecture_spec("b0", phi="2"), "phi must be a number, got '2'"),
    "text for depth": (lambda model: keras_effnet.architecture_spec("b0", depth="2"), "depth must be a number"),
    "text for alpha": (lambda model: keras_effnet.CompoundScaling("1.2"), "alpha must be a number, got '1.2'"),
    "a spec to explain": (
        lambda model: keras_effnet.explain(keras_effnet.architecture_spec("b4")),
        "Unknown published",
    ),
    "text for top": (lambda model: keras_effnet.decode_predictions(X[0, 0], "2", "abc"), "top must be a whole number"),
    "no source": (lambda model: datasets.load(None), "source must be a path, got None"),
    "arrays for a source": (lambda model: datasets.load(X), "source must be a path, got ndarray"),
    "text for a share": (lambda model: datasets.load("digits", val_split="0.2"), "val_split must be a number"),
    "a negative seed": (lambda model: datasets.load("digits", seed=-1), "seed must be at least 0"),
    "one number for a fold": (lambda model: datasets.load("digits", fold=1), "fold must be a pair (k, n)"),
    "nothing to check": (lambda model: datasets.check_data(None), "source must be a path, got None"),
    "a path for a trained model": (lambda model: training.train("m.keras", X, X, None), "model must be a Keras model"),
    "options for a config": (lambda model: training.train(model, X, X, {}), "config must be of class TrainConfig"),
    "arrays for batches": (lambda model: training.train(model, X, X, training.TrainConfig()), "tf.data.Dataset"),
    "a name for a dataset": (lambda model: training.train_dataset("digits", None, "x"), "of class ImageDataset"),
    "a path to export": (lambda model: export.export_tflite("m.keras", "m.tflite"), "model must be a Keras model"),
    "no path to export to": (lambda model: export.export_tflite(model, None), "path must be a path, got None"),
    "a model to calibrate on": (
        lambda model: export.export_tflite(model, "m.tflite", "int8", calibration=model),
        "Images must be a folder, an array",
    ),
    "one image to calibrate on": (
        lambda model: export.export_tflite(model, "m.tflite", "int8", calibration=X[0]),
        "got [(8, 3)]. Is that one image, or a dataset without .batch()?",
    ),
    "batches for a dataset": (
        lambda model: training.train_dataset(tf.data.Dataset.from_tensors((X, X)), training.TrainConfig(), "run"),
        "load it with datasets.load; batches of tf.data go to training.train",
    ),
    "a name for the spec of an export": (
        lambda model: export.export_tflite(model, "m.tflite", image_spec="b0", verification=X),
        "image_spec must be of class ImageSpec, got 'b0'",
    ),
    "a model and a file swapped": (lambda model: export.verify(model, "m.tflite", X), "must be a path, got Functional"),
    "a model to time": (lambda model: export.benchmark(model), "The .tflite file must be a path"),
    "text for threads": (lambda model: export.benchmark("m.tflite", "2"), "threads must be a whole number"),
    "too many threads": (lambda model: export.benchmark("m.tflite", 10**9), "threads must be at most 1024"),
    "a model to load": (lambda model: inference.load(model), "path must be a path, got Functional"),
    "a name for the spec of a file": (lambda model: image_files.image("a.png", "b0"), "of class ImageSpec, got 'b0'"),
    "a path for a body": (lambda model: transfer.swap_head("m.keras", 3), "model must be a Keras model"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_argument_is_named_in_one_line(toy_model, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    mistake, fragment = MISTAKES[name]
    with pytest.raises(keras_effnet.UserError) as caught:
        mistake(toy_model())
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "batch_size", "message"),
    [
        ("b0", 2, "input_spec must be of class ImageSpec, got 'b0'"),
        (32, 2, "input_spec must be of class ImageSpec, got 32"),
        (SPEC, 0, "batch_size must be at least 1"),
        (SPEC, "2", "batch_size must be a whole number"),
        (SPEC, None, "batch_size must be a whole number"),
    ],
)
def test_wrong_arguments_of_a_pipeline_are_named(digits, spec, batch_size, message):
    with pytest.raises(keras_effnet.UserError, match=message):
        pipeline.image_pipeline(digits.val, spec, batch_size, training=False)


def test_numbers_of_numpy_and_paths_of_any_type_are_taken(digits, tmp_path):
    spec = ImageSpec(np.int64(8), crop=np.float32(0.5))
    assert type(spec.size) is int
    spec.save(tmp_path / "spec.json")
    assert ImageSpec.load(str(tmp_path / "spec.json")) == ImageSpec.load(Path(tmp_path / "spec.json")) == spec
    assert keras_effnet.architecture_spec("b0", phi=np.float64(-1), image_size=np.int32(64)).image_size == 64
    images, _ = next(iter(pipeline.image_pipeline(digits.val, spec, np.int64(2), training=False)))
    assert images.shape == (2, 8, 8, 3)
