"""EfficientNetV2 against keras.applications: the same function, signature and layer names."""

import inspect
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from weight_files import answer, images, save_legacy_weights, scrambled

import keras_effnet
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import expand
from keras_effnet.models import efficientnet_v2

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())["v2"]
THEIRS = [name for name in GOLDEN if name != "v2-xl"]  # keras.applications ends at L


def builder(name, module=keras_effnet):
    return getattr(module, f"EfficientNet{name.upper().replace('-', '')}")


def weighted_layers(model):
    return {layer.name: [tuple(each.shape) for each in layer.weights] for layer in model.layers if layer.weights}


def like_trained(model, pixels):
    """The model with weights that lose neither the image nor, in sums over many blocks, the last digits."""
    for layer in scrambled(model).layers:
        if isinstance(layer, keras.layers.Add):
            norm = model.get_layer(layer.name.replace("_add", "_project_bn"))
            norm.gamma.assign(norm.gamma * 0.1)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the statistics of one batch
    model(pixels, training=True)
    return model


def check_logits(name, size, tmp_path):
    """The logits of both libraries from one weights file, to 1e-5 of the largest."""
    options = {"classes": 10, "classifier_activation": None, "input_shape": (size, size, 3)}
    pixels = images(size=size)
    theirs = like_trained(builder(name, keras.applications)(weights=None, **options), pixels)
    ours = builder(name)(weights=save_legacy_weights(theirs, tmp_path / "theirs.h5"), **options)
    assert weighted_layers(ours) == weighted_layers(theirs)
    expected = answer(theirs, pixels)
    np.testing.assert_allclose(answer(ours, pixels), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_a_file_of_keras_applications_gives_the_logits_of_b0(tmp_path):
    check_logits("v2-b0", 64, tmp_path)


@pytest.mark.slow
def test_a_file_of_keras_applications_gives_the_logits_of_s(tmp_path):
    check_logits("v2-s", 64, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in THEIRS if name not in ("v2-b0", "v2-s")])
def test_a_file_of_keras_applications_gives_the_logits(name, tmp_path):
    check_logits(name, 96, tmp_path)


@pytest.mark.parametrize("name", THEIRS)
def test_signature_begins_with_that_of_keras_applications(name):
    theirs = inspect.signature(builder(name, keras.applications)).parameters
    ours = inspect.signature(builder(name)).parameters
    common = list(ours.values())[: len(theirs)]
    assert [(p.name, p.default) for p in common] == [(p.name, p.default) for p in theirs.values()]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(theirs) :])


@pytest.mark.parametrize("name", GOLDEN)
def test_builders_show_what_they_default_to(name):
    parameters = inspect.signature(builder(name)).parameters
    assert parameters["dropout_rate"].default == GOLDEN[name]["dropout"]
    assert (parameters["bn_momentum"].default, parameters["bn_epsilon"].default) == (0.9, 1e-3)
    assert str(GOLDEN[name]["resolution"]) in builder(name).__doc__
    assert builder(name).__name__ == f"EfficientNet{name.upper().replace('-', '')}"


def test_layer_names_are_those_of_keras_applications():
    names = {conv.name for block in expand(architecture_spec("v2-b0")).blocks for conv in block.weighted}
    assert {"block1a_project_conv", "block2b_expand_conv", "block4c_dwconv2", "block4c_se_reduce"} <= names
    assert not any(name.endswith("_dwconv") for name in names)


def test_include_preprocessing_is_the_ninth_argument():
    tiny = architecture_spec("v2-b0", depth=0.2, width=0.25)
    model = efficientnet_v2._published(tiny, False, None, None, (32, 32, 3), None, 1000, None, False, "mine")
    assert model.name == "mine"
    assert model.layers[1].name == "stem_conv"
