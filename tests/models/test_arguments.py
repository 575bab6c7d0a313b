"""Mistaken arguments of builders end in one line that names the value, before anything is built."""

import keras
import numpy as np
import pytest

import keras_effnet
from keras_effnet import EfficientNet, architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.transfer import swap_head

SPEC = architecture_spec("lite0", depth=0.2, width=0.25, image_size=32)


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_networks_are_not_built_with_channels_first(channels_first):
    for include_top in (True, False):
        with pytest.raises(UserError, match=r"Channels come last .*set_image_data_format\('channels_last'\)"):
            EfficientNet(SPEC, include_top=include_top)


def test_a_head_is_not_swapped_with_channels_first(monkeypatch):
    model = EfficientNet(SPEC, include_top=False)
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(UserError, match="Channels come last"):
        swap_head(model, 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 224, 224), r"Channels come last .*: pass input_shape=\(224, 224, 3\) instead of \(3, 224, 224\)"),
        ((1, 32, 48), r"pass input_shape=\(32, 48, 1\)"),
        ((3, None, None), r"pass input_shape=\(None, None, 3\)"),
        ((224, 224), r"must be \(height, width, channels\), got \(224, 224\)"),
        ((224, 224, None), r"must be \(height, width, channels\), got \(224, 224, None\)"),
        ((1, 32, 32, 3), r"must be \(height, width, channels\), got \(1, 32, 32, 3\)"),
        ("224", r"must be \(height, width, channels\), got '224'"),
        (224, r"must be \(height, width, channels\), got 224"),
        ((31, 64, 3), "must be at least 32x32"),
        ((-64, 64, 3), "must be at least 32x32"),
        ((64.0, 64, 3), "must be a whole number, got 64.0"),
        ((64, 64, "3"), "must be a whole number, got '3'"),
        ((64, 64, 0), "must be at least 1, got 0"),
    ],
)
def test_a_mistaken_input_shape_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        EfficientNet(SPEC, input_shape=shape)


@pytest.mark.parametrize("classes", ["10", 10.0, 2.5, None, True, [10], float("nan")])
def test_classes_are_a_whole_number(classes):
    with pytest.raises(UserError, match="classes must be a whole number, got"):
        EfficientNet(SPEC, classes=classes)
    if classes is None:  # counts the network's own number
        return
    with pytest.raises(UserError, match="classes must be a whole number, got"):
        keras_effnet.complexity.count(SPEC, classes=classes)


def test_classes_may_be_of_any_integer_type():
    assert EfficientNet(SPEC, classes=np.int64(10)).output_shape == (None, 10)


@pytest.mark.parametrize("weights", ["bogus", "noisy-student", 5, True, "."])
def test_weights_names_its_choices(weights):
    with pytest.raises(UserError, match="pass None for random weights, 'imagenet', or the path of a weights file"):
        EfficientNet(SPEC, weights=weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier_activation": "bogus"}, "classifier_activation 'bogus' is unknown to Keras"),
        ({"dtype": "bogus"}, "dtype 'bogus' is unknown to Keras"),
        ({"name": "a/b"}, "name must be a string without slashes, got 'a/b'"),
        ({"dropout_rate": "0.2"}, "dropout_rate must be a number, got '0.2'"),
        ({"bn_epsilon": float("nan")}, "bn_epsilon must be a number, got nan"),
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, "input_tensor must be a Keras tensor"),
        (
            {"input_tensor": keras.Input((32, None, 3)), "input_shape": (40, 40, 3)},
            r"input_tensor has the shape \(32, None, 3\), not the input_shape \(40, 40, 3\): leave out input_shape",
        ),
    ],
)
def test_other_arguments_name_the_value(options, message):
    with pytest.raises(UserError, match=message):
        EfficientNet(SPEC, **options)


@pytest.mark.parametrize("phi", ["2", [1], (1, 2)])
def test_phi_is_a_number(phi):
    with pytest.raises(UserError, match="a spec, a name or a number phi"):
        EfficientNet(phi=phi)


def test_a_network_beyond_any_memory_is_refused_before_it_is_expanded():
    with pytest.raises(UserError, match=r"image_size must be at most 4,096 pixels, got 982,016"):
        EfficientNet(phi=60)
    with pytest.raises(UserError, match="more than 10,000 blocks"):
        EfficientNet(architecture_spec("b0", depth=1000))
    with pytest.raises(UserError, match="more than 1,000,000 channels"):
        EfficientNet(architecture_spec("b0", width=1e9))


def test_a_network_for_images_that_are_not_square():
    model = EfficientNet(SPEC, input_shape=(32, 48, 3), classes=4)
    assert {name: tensor.shape[1:3] for name, tensor in keras_effnet.features(model).output.items()} == {
        "P1": (16, 24),
        "P2": (8, 12),
        "P3": (4, 6),
        "P4": (2, 3),
        "P5": (1, 2),
    }
    assert keras_effnet.grad_cam(model, np.full((32, 48, 3), 99.0)).map.shape == (1, 2)
    square = keras_effnet.complexity.count(EfficientNet(SPEC, input_shape=(32, 32, 3), classes=4))
    assert square.macs < keras_effnet.complexity.count(model).macs < 2 * square.macs
