"""`keras_effnet.efficientnet` and `efficientnet_v2` in place of the modules of keras.applications.

The cases of keras.applications' own tests: shapes without classifier, pooling, channels, classes, input tensors.
"""

import importlib

import keras
import numpy as np
import pytest

import keras_effnet

MODULES = {
    ("efficientnet", "B0"): 1280,
    ("efficientnet", "B3"): 1536,
    ("efficientnet", "B7"): 2560,
    ("efficientnet_v2", "V2B0"): 1280,
    ("efficientnet_v2", "V2B3"): 1536,
    ("efficientnet_v2", "V2S"): 1280,
}
slow, soak = pytest.mark.slow, pytest.mark.soak
LARGE = ("B3", "B7", "V2B3", "V2S")
every_network = pytest.mark.parametrize(
    ("module", "name"), [pytest.param(*key, marks=soak if key[1] in LARGE else slow) for key in MODULES]
)
both = pytest.mark.parametrize("module", ["efficientnet", "efficientnet_v2"])


def ours(module):
    return importlib.import_module(f"keras_effnet.{module}")


def theirs(module):
    return getattr(keras.applications, module)


def build(module, network, **options):
    return getattr(ours(module), f"EfficientNet{network}")(weights=None, **options)


@both
def test_every_public_name_of_theirs_is_ours(module):
    public = {name for name in dir(theirs(module)) if not name.startswith("_")}
    assert public and public <= set(ours(module).__all__)


@both
def test_a_module_is_imported_in_both_ways(module):
    from keras_effnet import efficientnet, efficientnet_v2

    assert ours(module) in (efficientnet, efficientnet_v2)


@both
def test_preprocess_input_returns_the_pixels(module):
    pixels = np.arange(12.0).reshape(1, 2, 2, 3)
    for arguments in ({}, {"data_format": None}, {"data_format": "channels_last"}):
        np.testing.assert_array_equal(ours(module).preprocess_input(pixels, **arguments), pixels)
        np.testing.assert_array_equal(theirs(module).preprocess_input(pixels, **arguments), pixels)


@both
def test_decode_predictions_gives_wnid_name_and_score(module):
    scores = np.zeros((1, 1000), "float32")
    scores[0, 281] = 0.75
    ((best, *_),) = ours(module).decode_predictions(scores, top=3)
    assert best == ("n02123045", "tabby", 0.75)


@every_network
def test_without_classifier_any_size_ends_in_a_feature_map(module, name):
    assert build(module, name, include_top=False).output_shape == (None, None, None, MODULES[module, name])


@every_network
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_ends_in_a_vector(module, name, pooling):
    model = build(module, name, include_top=False, pooling=pooling)
    assert model.output_shape == (None, MODULES[module, name])


@every_network
@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(module, name, channels):
    model = build(module, name, include_top=False, input_shape=(None, None, channels))
    assert model.output_shape == (None, None, None, MODULES[module, name])


@pytest.mark.parametrize(
    ("module", "name"), [("efficientnet", "B0"), pytest.param("efficientnet_v2", "V2B0", marks=slow)]
)
def test_classes_input_tensor_activation_and_name(module, name):
    inputs = keras.Input((32, 32, 3))
    model = build(module, name, input_tensor=inputs, classes=2, classifier_activation=None, name="mine")
    assert model.output_shape == (None, 2)
    assert model.inputs[0] is inputs
    assert model.name == "mine"
    assert model.layers[-1].activation is keras.activations.linear
    assert model.input_shape[-1] == 3


@both
def test_what_theirs_refuses_is_a_value_error(module):
    name = {"efficientnet": "B0", "efficientnet_v2": "V2B0"}[module]
    for builder in (getattr(each(module), f"EfficientNet{name}") for each in (ours, theirs)):
        for options in ({"weights": "bogus"}, {"weights": None, "input_shape": (16, 16, 3)}):
            with pytest.raises(ValueError):
                builder(**options)


def test_an_argument_that_does_not_exist_is_refused_by_the_name_that_was_called():
    for builder in (keras.applications.EfficientNetB0, ours("efficientnet").EfficientNetB0):
        with pytest.raises(TypeError, match=r"^EfficientNetB0\(\) got an unexpected keyword argument 'dropout'"):
            builder(weights=None, dropout=0.3)
    with pytest.raises(TypeError, match=r"'dropout'\. Did you mean 'dropout_rate'"):
        ours("efficientnet").EfficientNetB0(weights=None, dropout=0.3)
    with pytest.raises(TypeError, match=r"^EfficientDetD0\(\) too many positional arguments"):
        keras_effnet.EfficientDetD0(*range(30))


@pytest.mark.parametrize(
    ("module", "arguments", "name"),
    [
        ("efficientnet", ("False",), "include_top"),
        ("efficientnet_v2", (True, None, None, None, None, 7, "softmax", "mine"), "include_preprocessing"),
    ],
)
def test_text_for_a_switch_is_refused(module, arguments, name):
    builder = getattr(ours(module), {"efficientnet": "EfficientNetB0", "efficientnet_v2": "EfficientNetV2B0"}[module])
    with pytest.raises(ValueError, match=f"{name} must be True or False, got"):
        builder(*arguments)
