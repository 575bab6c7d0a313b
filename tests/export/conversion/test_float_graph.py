"""Conversion to the float file that every precision starts from: batch 1, fixed size, without the kernels."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet, architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.export import export_savedmodel, export_tflite, verify, write_bundle
from keras_effnet.export.conversion import float_graph as conversion
from keras_effnet.export.conversion.float_graph import convert, weight_count
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.conversion.structure import float32_copy
from keras_effnet.export.recipes import PRECISIONS, Settings
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.system.output import captured_output

SMALL = {"weights": None, "classes": 5, "input_shape": (32, 32, 3)}


def converted(model) -> bytes:
    with captured_output():
        return convert(model)


def conversions(model, monkeypatch) -> int:
    """How many times the converter runs for a model."""
    calls = []
    original = conversion._converted
    monkeypatch.setattr(conversion, "_converted", lambda *args: calls.append(1) or original(*args))
    converted(model)
    return len(calls)


def test_the_file_takes_one_float_image_and_equals_the_model(toy_model, smooth_images):
    model = toy_model()
    file = TFLiteModel(converted(model))
    assert file.input_shape == (1, 8, 8, 3) and file.input["dtype"] == np.float32
    images = smooth_images(3, 8).astype("float32")
    np.testing.assert_allclose(file.predict(images), model.predict(images, verbose=0), atol=1e-6)


def test_the_converter_runs_once_and_never_sees_the_kernels(monkeypatch):
    seen = []
    original = conversion._converted

    def spy(model, constants):
        seen.append(sum(constant.size for constant in constants if isinstance(constant, np.ndarray)))
        return original(model, constants)

    monkeypatch.setattr(conversion, "_converted", spy)
    model = EfficientNet("lite0", **SMALL)
    converted(model)
    (size,) = seen
    assert size < 0.02 * model.count_params()  # biases alone


def test_the_folded_copy_of_the_model_is_freed(toy_model, monkeypatch):
    folded = []
    original = conversion.fold_batch_norms

    def spy(model):
        copy = original(model)
        folded.append(weakref.ref(copy))
        return copy

    monkeypatch.setattr(conversion, "fold_batch_norms", spy)
    gc.disable()  # no chance collection
    try:
        converted(toy_model())
        assert [copy() for copy in folded] == [None]
    finally:
        gc.enable()


def test_a_kernel_that_the_converter_changes_is_converted_itself(toy_model, smooth_images, monkeypatch):
    # A Rescaling without an offset is folded into the convolution behind it.
    assert conversions(toy_model(), monkeypatch) == 2


def normalized_in_two_branches(image):
    return keras.layers.Rescaling(1 / 255)(image) + keras.layers.Rescaling(1 / 127.5, -1)(image)


@pytest.mark.parametrize(
    "connect",
    [
        keras.layers.Rescaling(1 / 255, 0.5),  # no range that holds 0
        keras.layers.Rescaling(-1 / 255, 1),  # no positive scale
        normalized_in_two_branches,
        lambda image: keras.layers.Rescaling(1 / 255)(image) + image,
    ],
)
def test_bytes_keep_a_normalisation_that_a_scale_cannot_express(connect):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(connect(image)))
    source = ExportSource(model, np.zeros((2, 8, 8, 3), "float32"))
    assert source.graph("uint8") is source.graph("float32")


def test_a_normalisation_given_as_lists_is_expressed_too():
    image = keras.Input((8, 8, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling([1 / 127.5], [-1.0])(image))
    graph = ExportSource(keras.Model(image, pooled), np.zeros((2, 8, 8, 1), "float32")).graph("uint8")
    assert (graph.scale, graph.offset) == pytest.approx((1 / 127.5, -1))


def test_a_kernel_that_two_calls_share_is_converted_itself(smooth_images):
    # The converter folds the normalization into the kernel of the first call, not of the second.
    keras.utils.set_random_seed(0)
    image, again = keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3, padding="same")
    norm = keras.layers.BatchNormalization(gamma_initializer="random_normal")
    x = again(keras.layers.ReLU()(norm(again(image))))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    images = smooth_images(3, 8).astype("float32")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(TFLiteModel(converted(model)).predict(images), expected, rtol=1e-4, atol=1e-4)


def test_a_sequential_model_converts_too(smooth_images):
    keras.utils.set_random_seed(0)
    convolution = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    pooled = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *convolution, *pooled])
    images = smooth_images(4, 8).astype("float32")
    np.testing.assert_allclose(
        TFLiteModel(converted(float32_copy(model))).predict(images),
        model.predict(images, verbose=0),
        rtol=1e-4,
        atol=1e-4,
    )


def test_bytes_get_the_normalisation_in_their_scale_where_all_channels_share_it():
    pixels = np.linspace(0, 255, 2 * 32 * 32 * 3).reshape(2, 32, 32, 3)
    shared, own = (ExportSource(EfficientNet(name, **SMALL), pixels) for name in ("lite0", "b0"))
    graph = shared.graph("uint8")
    assert "rescaling" not in [layer.name for layer in graph.model.layers]
    assert (graph.scale, graph.offset) == pytest.approx((1 / 128, -127 / 128))
    mapped = np.stack(list(graph.images))
    assert mapped.min() == pytest.approx(-127 / 128) and mapped.max() == pytest.approx(1)
    assert shared.graph("float32").model is shared.model
    assert own.graph("uint8") is own.graph("float32")  # means and deviations differ from channel to channel
    assert np.max(list(own.graph("uint8").images)) == 255


def test_precisions_share_one_conversion(monkeypatch, smooth_images):
    calls = []
    original = conversion._converted
    monkeypatch.setattr(conversion, "_converted", lambda *args: calls.append(1) or original(*args))
    source = ExportSource(EfficientNet("lite0", **SMALL), smooth_images(20, 32).astype("float32"))
    settings = Settings()
    with captured_output():
        for precision in ("none", "float16", "dynamic", "int8", "int16x8"):
            next(PRECISIONS[precision].candidates(source, settings))
    assert len(calls) == 1


def test_a_float32_model_is_taken_as_it_is(toy_model):
    model = toy_model()
    assert float32_copy(model) is model


def test_a_mixed_precision_model_is_rebuilt_in_float32_with_its_weights():
    model = EfficientNet("lite0", dtype="mixed_float16", **SMALL)
    copy = float32_copy(model)
    assert all(layer.compute_dtype == "float32" for layer in copy.layers)
    assert [layer.name for layer in copy.layers[1:]] == [layer.name for layer in model.layers[1:]]
    for expected, got in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_an_input_of_another_float_becomes_float32(tmp_path, dtype, smooth_images):
    """That of `keras.config.set_floatx`; the file contained CAST and was refused without a cure."""
    image = keras.Input((8, 8, 3), dtype=dtype, name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", dtype=dtype)(image)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten(dtype=dtype)(x)))
    copy = float32_copy(model)
    assert (copy.inputs[0].dtype, copy.inputs[0].name) == ("float32", "image")
    report = export_tflite(model, tmp_path / "model.tflite", verification=smooth_images(20, 8)).report
    assert report.sqnr_db > 30


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("lite0", "mixed_float16"),
        pytest.param("lite0", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("b0", "mixed_float16", marks=pytest.mark.slow),
        pytest.param("b0", "mixed_bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_mixed_precision_model_exports_to_the_file_of_its_float32_twin(tmp_path, name, policy):
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=32)
    plain, mixed = EfficientNet(spec, **SMALL), EfficientNet(spec, dtype=policy, **SMALL)
    mixed.set_weights(plain.get_weights())
    results = [export_tflite(model, tmp_path / f"{n}.tflite", "none") for n, model in enumerate((plain, mixed))]
    assert results[0].sha256 == results[1].sha256
    assert results[1].report.top1_agreement == 1.0


def test_weights_are_counted_as_kernels():
    model = EfficientNet("lite0", **SMALL)
    kernels = sum(np.prod(w.shape) for w in model.weights if w.name in ("kernel", "depthwise_kernel"))
    assert weight_count(model) == pytest.approx(kernels, rel=1e-12)


def test_a_model_of_unknown_size_is_refused_with_the_cure(tmp_path):
    model = EfficientNet("lite0", weights=None, classes=5, input_shape=(None, None, 3))
    with pytest.raises(UserError, match=r"has no fixed size; build it with input_shape=\(H, W, 3\)"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_model_of_several_inputs_is_refused(tmp_path):
    images = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    pooled = [keras.layers.GlobalAveragePooling2D()(image) for image in images]
    model = keras.Model(images, keras.layers.Concatenate()(pooled))
    with pytest.raises(UserError, match="takes one input, an image; the model has 2"):
        export_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_model_that_takes_bytes_is_refused_once_with_the_cure(cli):
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, keras.layers.Dense(2, activation="softmax")(x)).save("bytes.keras")
    shown = cli("export", "bytes.keras", "--quantize", "none,int8", "--out", "files")
    assert shown.status == 2 and shown.out == ""
    assert shown.err.count("has dtype uint8; build it with keras.Input((8, 8, 3))") == 1


def test_a_model_that_returns_a_dict_exports_like_its_tensor(toy_model, smooth_images, tmp_path):
    model, images = toy_model(size=8), smooth_images(24, 8).astype("float32")
    named = keras.Model(model.input, {"probabilities": model.output}, name="toy")
    result = export_tflite(named, tmp_path / "named.tflite", "int8", calibration=images)
    assert result.sha256 == export_tflite(model, tmp_path / "plain.tflite", "int8", calibration=images).sha256
    assert verify(result.path, named, images).top1_agreement == result.report.top1_agreement
    assert export_savedmodel(named, tmp_path / "saved").report.top1_agreement == 1.0


@pytest.fixture
def averaging() -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(16)(image)
    for channels in (4, 4):
        x = keras.layers.Conv2D(channels, 1, activation="relu", kernel_initializer="ones")(x)
    return keras.Model(image, keras.layers.Flatten()(x))


@pytest.fixture
def dark_but_one() -> np.ndarray:
    """Images whose averages are small, but for one: in int8 they would all be zero."""
    pixels = np.random.default_rng(0).uniform(0, 1, (20, 32, 32, 3)).astype("float32")
    pixels[7] = 200
    return pixels


def test_an_image_on_which_activations_explode_is_left_out_of_calibration(averaging, dark_but_one):
    with captured_output():
        source = ExportSource(averaging, dark_but_one)
        graph = source.calibrated("float32")
    assert "1 of 20 images (places, from 0: 7). Activations on them are up to " in source.remark
    np.testing.assert_array_equal(graph.calibration, np.delete(dark_but_one, 7, axis=0))
    assert graph.content is source.graph("float32").content  # converted once
    output = max(graph.extremes)
    assert graph.extremes[output][1] < 0.1 * source.graph("float32").extremes[output][1]
    dark_but_one[7] = 0.5
    with captured_output():
        plain = ExportSource(averaging, dark_but_one)
        assert plain.calibrated("float32") is plain.graph("float32") and plain.remark == ""


def test_an_export_says_which_images_it_left_out(averaging, dark_but_one, smooth_images, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("keras_effnet.export.tflite.check_images", lambda pixels: None)  # noise is not refused here
    images = {"calibration": dark_but_one, "verification": smooth_images(4, 32).astype("float32")}
    options = {"allow_degraded": True, "task": "regression", "method": "minmax"}
    export_tflite(averaging, tmp_path / "net.tflite", "int8", **images, **options)
    assert "1 of 20 images (places, from 0: 7)" in caplog.text
    write_bundle(
        averaging, tmp_path / "bundle", ["int8"], held_out=images["verification"], calibration=dark_but_one, **options
    )
    assert caplog.text.count("(places, from 0: 7)") == 2
    assert "(places, from 0: 7)" in (tmp_path / "bundle/report.md").read_text()
