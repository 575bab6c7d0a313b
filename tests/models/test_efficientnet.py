"""Networks: the same function as keras.applications, and every option of the builders."""

import inspect
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from weight_files import save_legacy_weights

import keras_effnet
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import expand
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.preprocessing import ImageSpec, preprocess_input
from keras_effnet.transfer import reestimate_batch_norm

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())["models"]
BUILDERS = {name: getattr(keras_effnet, f"EfficientNet{name.capitalize()}") for name in GOLDEN}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# 7 blocks, 32 pixels: seconds where B0 takes minutes.
TINY = architecture_spec("b0", depth=0.2, width=0.25, image_size=32)


def tiny(**options):
    return EfficientNet(TINY, **{"classes": 10} | options)


@cache
def network(name):
    return BUILDERS[name](weights=None)


def set_normalisation(model):
    for layer in model.layers:
        # Its name counts up with each model of the process, so it is found by type.
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights([np.array(MEAN), np.array(STD) ** 2, np.array(0)])
            layer.finalize_state()
    return model


def randomize(model, seed=0):
    """Gains and statistics as after training: with ones and zeros, a swapped pair would go unnoticed.

    Branches that are added to a shortcut get a smaller gain. Else each of B7's 48 sums adds to the rounding
    errors of float32 too.
    """
    rng = np.random.default_rng(seed)
    added = {layer.name.removesuffix("_add") for layer in model.layers if isinstance(layer, keras.layers.Add)}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            gamma, variance = rng.uniform(0.5, 1.5, (2, *shape))
            beta, mean = rng.normal(0, 0.1, (2, *shape))
            if layer.name.removesuffix("_project_bn") in added:
                gamma *= 0.1
            layer.set_weights([gamma, beta, mean, variance])
    return model


def weighted_layers(model):
    return {
        layer.name: [tuple(weight.shape) for weight in layer.weights]
        for layer in model.layers
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    }


def copy_weights(source, target):
    for name in weighted_layers(source):
        target.get_layer(name).set_weights(source.get_layer(name).get_weights())


def images(size, count=2, channels=3, seed=0):
    """Noise around nine patches of colour: to a network, pure noise looks the same for every seed."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (count, 3, 3, channels)).repeat(-(-size // 3), axis=1).repeat(-(-size // 3), axis=2)
    noise = rng.integers(-60, 61, (count, size, size, channels))
    return np.clip(patches[:, :size, :size] + noise, 0, 255).astype("float32")


def run(model, x):
    """One call, without the graph that `predict` traces for each new model and shape."""
    return np.asarray(model(x, training=False))


def layers_of(model, kind):
    return [layer for layer in model.layers if type(layer) is kind]


# --- the same function as keras.applications, through its files


def reference(name, height, width):
    """A `keras.applications` network with weights like trained ones, and two images that it distinguishes.

    Its statistics come from images: with arbitrary ones, all images look alike from the tenth block on.
    """
    keras.utils.set_random_seed(0)
    builder = getattr(keras.applications, f"EfficientNet{name.upper()}")
    model = builder(weights=None, classifier_activation=None, input_shape=(height, width, 3))
    x = images(max(height, width), 8)[:, :height, :width]
    reestimate_batch_norm(set_normalisation(randomize(model)), [x])
    return model, x[:2]


def without_top(model):
    """What keras.applications builds with `include_top=False`."""
    return keras.Model(model.input, model.get_layer("top_activation").output)


def save_as_published(model, path):
    """The layout and names of the published files, which TensorFlow 2.2's Keras wrote.

    Where the normalisation's variance belongs they hold its standard deviation (tensorflow/tensorflow issue 49930).
    """
    with h5py.File(path, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = np.bytes_("tensorflow"), np.bytes_("2.4.0")
        file.attrs["layer_names"] = np.array([layer.name for layer in model.layers], "S")
        for layer in model.layers:
            group = file.create_group(layer.name)
            if isinstance(layer, keras.layers.Normalization):
                tensors = {"mean": np.array(MEAN), "variance": np.array(STD), "count": np.array(0)}
            else:
                tensors = {variable.name: variable.numpy() for variable in layer.weights}
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                tensors = {"depthwise_kernel": tensors["kernel"]}
            names = [f"{layer.name}/{name}:0" for name in tensors]
            group.attrs["weight_names"] = np.array(names, "S") if names else np.array([])
            for name, array in zip(names, tensors.values(), strict=True):
                group[name] = array
    return path


def assert_agree(got, expected):
    """Within 1e-5, relative to the largest value; the difference between two images is far larger."""
    tolerance = 1e-5 * max(1, np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 10_000 * tolerance
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("b0", 96),
        pytest.param("b1", 96, marks=pytest.mark.slow),
        *(pytest.param(f"b{number}", 96, marks=pytest.mark.soak) for number in range(2, 8)),
    ],
)
def test_a_file_of_keras_applications_gives_its_logits_and_features(name, size, tmp_path):
    theirs, x = reference(name, size, size)
    path = save_legacy_weights(theirs, tmp_path / "theirs.h5")
    ours = BUILDERS[name](weights=str(path), classifier_activation=None, input_shape=(size, size, 3))
    assert weighted_layers(ours) == weighted_layers(theirs)
    assert_agree(run(ours, x), run(theirs, x))
    headless = BUILDERS[name](weights=path, include_top=False, input_shape=(size, size, 3))
    assert_agree(run(headless, x), run(without_top(theirs), x))


def test_a_published_file_gives_the_same_whatever_it_says_of_pixels(tmp_path):
    """On sides of both kinds: keras.applications pads odd and even ones in two ways, and both are "same"."""
    theirs, x = reference("b0", 65, 96)
    path = save_as_published(theirs, tmp_path / "b0.h5")
    ours = keras_effnet.EfficientNetB0(weights=path, classifier_activation=None, input_shape=(65, 96, 3))
    assert_agree(run(ours, x), run(theirs, x))
    headless_path = save_as_published(without_top(theirs), tmp_path / "b0_notop.h5")
    headless = keras_effnet.EfficientNetB0(weights=headless_path, include_top=False, input_shape=(65, 96, 3))
    assert_agree(run(headless, x), run(without_top(theirs), x))


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("b")])
def test_signature_begins_with_that_of_keras_applications(name):
    theirs = inspect.signature(getattr(keras.applications, f"EfficientNet{name.upper()}")).parameters
    ours = inspect.signature(BUILDERS[name]).parameters
    common = list(ours.values())[: len(theirs)]
    assert [(p.name, p.default) for p in common] == [(p.name, p.default) for p in theirs.values()]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(theirs) :])


@pytest.mark.parametrize("name", GOLDEN)
def test_builders_show_what_they_default_to(name):
    spec, parameters = architecture_spec(name), inspect.signature(BUILDERS[name]).parameters
    assert parameters["dropout_rate"].default == GOLDEN[name]["dropout"]
    assert parameters["drop_connect_rate"].default == 0.2
    assert (parameters["bn_momentum"].default, parameters["bn_epsilon"].default) == (0.99, 1e-3)
    assert parameters["name"].default == spec.name
    assert str(GOLDEN[name]["resolution"]) in BUILDERS[name].__doc__


def test_a_saved_network_opens_without_this_package(tmp_path):
    model = randomize(tiny())
    model.save(tmp_path / "model.keras")
    x = images(32)
    np.save(tmp_path / "x.npy", x)
    program = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "keras_effnet":
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import keras
import numpy as np
model = keras.models.load_model("model.keras")
np.save("y.npy", model.predict(np.load("x.npy"), verbose=0))
assert "keras_effnet" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), run(model, x), atol=1e-6)


# --- options


def test_batch_normalization_options_reach_every_layer():
    norms = layers_of(tiny(bn_momentum=0.9, bn_epsilon=1e-5), keras.layers.BatchNormalization)
    assert len(norms) == 2 + 7 * 3 - 1  # stem, head, three a block, the first of which does not expand
    assert {layer.momentum for layer in norms} == {0.9}
    assert {layer.epsilon for layer in norms} == {1e-5}


def test_drop_rates_reach_the_layers():
    spec = architecture_spec("b0", depth=0.5, width=0.25, image_size=32)
    model = EfficientNet(spec, classes=10, drop_connect_rate=0.4, dropout_rate=0.35)
    rates = {layer.name: layer.rate for layer in layers_of(model, keras.layers.Dropout)}
    blocks = expand(spec).blocks
    expected = {
        f"{block.name}_drop": pytest.approx(0.4 * i / len(blocks))
        for i, block in enumerate(blocks)
        if i and block.residual
    }
    assert len(expected) >= 2
    assert rates == expected | {"top_dropout": 0.35}


def test_rates_of_zero_leave_no_dropout():
    assert not layers_of(tiny(drop_connect_rate=0, dropout_rate=0), keras.layers.Dropout)


def test_b7_layer_drop_rates_stay_below_0_2():
    # Over the layers of the network at B7's depth; its width and size play no part.
    model = EfficientNet(architecture_spec("b0", depth=3.1, width=0.25, image_size=32), classes=2)
    rates = [layer.rate for layer in layers_of(model, keras.layers.Dropout) if layer.name != "top_dropout"]
    assert max(rates) == pytest.approx(0.2 * 54 / 55)


def test_symmetric_padding_differs_where_sizes_are_even_and_only_there():
    same, symmetric = (randomize(tiny(padding=p, input_shape=(None, None, 3))) for p in ("same", "symmetric"))
    assert not layers_of(same, keras.layers.ZeroPadding2D)
    assert len(layers_of(symmetric, keras.layers.ZeroPadding2D)) == 5  # as many as strides
    symmetric.set_weights(same.get_weights())
    even, odd = images(64), images(65)  # 65, 33, 17, 9, 5: odd before every stride
    difference = np.abs(run(same, even) - run(symmetric, even)).max()
    assert difference > 1e-5
    np.testing.assert_allclose(run(same, odd), run(symmetric, odd), atol=1e-6)


def test_preprocessing_can_be_left_to_the_caller():
    inside, outside = randomize(tiny()), tiny(include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    assert "rescaling" not in [layer.name for layer in outside.layers]
    x = images(32)
    by_hand = preprocess_input(x, ImageSpec.of(TINY))
    np.testing.assert_allclose(run(outside, by_hand), run(inside, x), atol=1e-5)


def test_the_graph_does_not_depend_on_weights(tmp_path):
    model = tiny()
    model.save_weights(tmp_path / "tiny.weights.h5")
    loaded = tiny(weights=str(tmp_path / "tiny.weights.h5"))
    assert [layer.name for layer in loaded.layers][1:] == [layer.name for layer in model.layers][1:]
    x = images(32)
    np.testing.assert_array_equal(run(loaded, x), run(model, x))


def test_classifier_activation_none_gives_logits():
    soft, raw = randomize(tiny()), tiny(classifier_activation=None)
    raw.set_weights(soft.get_weights())
    x = images(32)
    logits = run(raw, x)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(soft, x), shares, atol=1e-6)


def test_pooling_summarises_the_feature_map():
    models = {p: tiny(include_top=False, pooling=p, input_shape=(64, 64, 3)) for p in (None, "avg", "max")}
    feature_map, mean, maximum = models[None], models["avg"], models["max"]
    mean.set_weights(feature_map.get_weights())
    maximum.set_weights(feature_map.get_weights())
    x = images(64)
    features = run(feature_map, x)
    assert features.shape == (2, 2, 2, expand(TINY).features)
    np.testing.assert_allclose(run(mean, x), features.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(run(maximum, x), features.max(axis=(1, 2)), atol=1e-5)


def test_a_network_without_sides_takes_any_size():
    anysize = randomize(tiny(input_shape=(None, None, 3)))
    for size in (32, 52):
        fixed = tiny(input_shape=(size, size, 3))
        fixed.set_weights(anysize.get_weights())
        x = images(size)
        np.testing.assert_allclose(run(anysize, x), run(fixed, x), atol=1e-6)


def test_without_the_top_any_size_is_the_default():
    assert tiny(include_top=False).input_shape == (None, None, None, 3)


def test_input_tensor_is_where_the_network_begins():
    inputs = keras.Input((40, 40, 3))
    model = tiny(input_tensor=inputs)
    assert model.inputs[0] is inputs
    assert model.input_shape == (None, 40, 40, 3)
    assert run(model, [images(40)]).shape == (2, 10)


def test_input_tensor_may_lie_in_the_middle_of_a_network():
    inputs = keras.Input((40, 40, 1))
    colour = keras.layers.Concatenate(name="colour")([inputs] * 3)
    model = randomize(tiny(input_tensor=colour))
    assert model.inputs[0] is inputs
    plain = tiny(input_shape=(40, 40, 3))
    copy_weights(model, plain)
    grey = images(40, channels=1)
    expected = run(plain, np.repeat(grey, 3, axis=3))
    np.testing.assert_allclose(run(model, [grey]), expected, atol=1e-6)


def test_one_channel_works_without_imagenets_three_means():
    for model in (
        tiny(input_shape=(32, 32, 1), include_preprocessing=False),
        EfficientNet(architecture_spec("lite0", depth=0.2, width=0.25), classes=10, input_shape=(32, 32, 1)),
    ):
        assert run(model, images(32, channels=1)).shape == (2, 10)


def test_names():
    assert tiny(name="mine").name == "mine"
    assert network("b2").name == "efficientnetb2"
    assert EfficientNet(phi=-6, include_top=False).name == "efficientnet-phi-6"


def test_phi_by_position_by_name_and_by_spec_are_one_network():
    by_position, by_name = EfficientNet(-6, classes=3), EfficientNet(phi=-6, classes=3)
    by_spec = EfficientNet(architecture_spec("b0", phi=-6), classes=3)
    assert weighted_layers(by_position) == weighted_layers(by_name) == weighted_layers(by_spec)
    side = 4 * round(224 / 1.15**6 / 4)
    assert by_name.input_shape == (None, side, side, 3)


def test_phi_zero_is_b0():
    assert weighted_layers(EfficientNet(phi=0)) == weighted_layers(network("b0"))


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (31, 64, 3)}, r"at least 32x32, got \(31, 64, 3\)"),
        ({"input_shape": (64, 64)}, r"must be \(height, width, channels\), got \(64, 64\)"),
        ({"input_shape": (64, 64, None)}, r"must be \(height, width, channels\)"),
        ({"include_top": False, "pooling": "mean"}, "Unknown pooling 'mean'.*Choose one of: avg, max"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"dropout_rate": 1.5}, r"dropout_rate must lie in \[0, 1\)"),
        ({"padding": "torch"}, "Unknown padding 'torch'"),
        ({"weights": "no/such/file.weights.h5"}, "no/such/file.weights.h5 does not exist"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny(**options)


def test_a_spec_or_a_phi_and_not_both():
    for arguments in ({}, {"spec_or_phi": TINY, "phi": 1.0}):
        with pytest.raises(UserError, match="exactly one of"):
            EfficientNet(**arguments)


def test_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"Unknown model 'b8'\. Did you mean 'b"):
        EfficientNet("b8")


def test_phi_that_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"phi must be a finite number, got nan\."):
        EfficientNet(phi=float("nan"))
