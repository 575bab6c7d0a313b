"""Networks with NaN, infinite or absurd numbers are refused before anything is converted."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.export import (
    cluster,
    export_onnx,
    export_savedmodel,
    export_tflite,
    prune,
    quantization_aware_training,
    verify,
    write_bundle,
)
from keras_effnet.export.conversion.float_graph import FloatGraph


@pytest.fixture
def images(smooth_images) -> np.ndarray:
    return smooth_images(24, 8).astype("float32")


@pytest.fixture
def spoiled(toy_model):
    """Function that builds a network with one weight of a layer, by default of the first, replaced."""

    def build(value: float, layer: int = 2) -> keras.Model:
        model = toy_model()
        kernel, bias = model.layers[layer].get_weights()
        kernel.flat[0] = value
        model.layers[layer].set_weights([kernel, bias])
        return model

    return build


@pytest.fixture
def overflowing() -> keras.Model:
    """Finite weights, but the activations of `second` exceed float32."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 1, name="first", kernel_initializer=keras.initializers.Constant(1e20))(x)
    x = keras.layers.Conv2D(4, 1, name="second", kernel_initializer=keras.initializers.Constant(1e20))(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, name="head")(x))


EXPORTS = {
    "none": lambda model, images, path: export_tflite(model, path / "m.tflite", verification=images),
    "int8": lambda model, images, path: export_tflite(model, path / "m.tflite", "int8", calibration=images),
    "bundle": lambda model, images, path: write_bundle(model, path / "b", held_out=images, calibration=images),
    "savedmodel": lambda model, images, path: export_savedmodel(model, path / "saved", verification=images),
    "onnx": lambda model, images, path: export_onnx(model, path / "m.onnx", verification=images),
    "prune": lambda model, images, path: prune(model, images),
    "cluster": lambda model, images, path: cluster(model, images),
    "qat": lambda model, images, path: quantization_aware_training(model, images),
}


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
@pytest.mark.parametrize(
    ("value", "defect"), [(np.nan, "NaN"), (-np.inf, "infinite values"), (3e38, r"values of 3e\+38, beyond 1e\+30")]
)
def test_weights_that_are_no_numbers_are_refused_by_every_export(spoiled, images, tmp_path, export, value, defect):
    model = spoiled(value)
    with pytest.raises(UserError, match=f"^The kernel of layer {model.layers[2].name} contains {defect}"):
        export(model, images, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_activations_that_overflow_are_refused_with_the_layer(overflowing, images, tmp_path, export):
    with pytest.raises(UserError, match=r"(the first layer whose output contains them is|The output of layer) second"):
        export(overflowing, images, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_ranges_of_the_calibration_images_are_checked_as_well(overflowing, images):
    with pytest.raises(UserError, match="The output of layer second contains infinite values on the calibration"):
        FloatGraph(overflowing, images).minmax  # noqa: B018


def test_images_that_are_no_numbers_are_not_blamed_on_the_network(toy_model, images, tmp_path):
    images[3] = np.nan
    with pytest.raises(UserError, match="1 of 24 images contain NaN or infinite values"):
        export_tflite(toy_model(), tmp_path / "m.tflite", verification=images)


def test_the_command_line_refuses_a_diverged_network_in_one_line(cli, spoiled, tmp_path):
    spoiled(np.nan).save(tmp_path / "diverged.keras")
    shown = cli("export", "diverged.keras", "--quantize", "none", "--out", "files")
    assert shown.status == 2 and shown.err.count("\n") == 1
    assert "The kernel of layer conv2d" in shown.err and "contains NaN" in shown.err


def test_a_network_that_gives_every_image_one_class_is_said_to_prove_little(spoiled, images, tmp_path, caplog):
    model = spoiled(100.0, layer=-1)
    with caplog.at_level("WARNING", "keras_effnet"):
        write_bundle(model, tmp_path, ["none"], held_out=images)
    message = f"The model predicts class {model.predict(images, verbose=0).argmax(1)[0]} for all 24 images"
    assert message in caplog.text and message in (tmp_path / "report.md").read_text()


def test_verify_names_the_layer_too(overflowing, toy_model, images, tmp_path):
    path = export_tflite(toy_model(), tmp_path / "m.tflite", verification=images).path
    with pytest.raises(UserError, match="whose output contains them is second"):
        verify(path, overflowing, images)
