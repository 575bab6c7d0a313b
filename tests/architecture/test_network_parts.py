"""Parts and feature levels against published tables, sub-models and keras.applications."""

import keras
import numpy as np
import pytest

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.architecture.network_parts import blocks, parts
from keras_effnet.architecture.specs import StageSpec, expand
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet, build
from keras_effnet.models.feature_maps import features

# (stride, channels) of the last block at each stride: the tables of the papers, read down to each downsampling.
LEVELS = {
    "b0": {"P1": (2, 16), "P2": (4, 24), "P3": (8, 40), "P4": (16, 112), "P5": (32, 320)},
    "lite0": {"P1": (2, 16), "P2": (4, 24), "P3": (8, 40), "P4": (16, 112), "P5": (32, 320)},
    "mobilenetv2": {"P1": (2, 16), "P2": (4, 24), "P3": (8, 32), "P4": (16, 96), "P5": (32, 320)},
    "resnet18": {"P2": (4, 64), "P3": (8, 128), "P4": (16, 256), "P5": (32, 512)},
    "resnet50": {"P2": (4, 256), "P3": (8, 512), "P4": (16, 1024), "P5": (32, 2048)},
    "wide_resnet28": {"P0": (1, 16), "P1": (2, 32), "P2": (4, 64)},
}
TINY = architecture_spec("b0", depth=0.2, width=0.25, image_size=32)


def tiny(**options):
    return EfficientNet(TINY, **{"classes": 10} | options)


@pytest.fixture(scope="module")
def keras_b0():
    """B0 of keras.applications without its top, normalising pixels as ImageNet's statistics say."""
    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(96, 96, 3))
    (normalisation,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    std = np.array([0.229, 0.224, 0.225])
    normalisation.set_weights([np.array([0.485, 0.456, 0.406]), std**2, np.array(0)])
    normalisation.finalize_state()
    return model


def shapes(model):
    return {level: tuple(output.shape[1:]) for level, output in features(model).output.items()}


def images(size, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype("float32")


def submodel(model, layer):
    return keras.Model(model.input, model.get_layer(layer).output)


def equal(got, expected, tolerance=0):
    expected = np.asarray(expected)
    assert expected.std() > 0
    np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=tolerance * np.abs(expected).max())


# --- parts


@pytest.mark.parametrize(
    ("name", "count", "top"),
    [("b0", 16, True), ("mobilenetv2", 17, True), ("resnet18", 8, False), ("wide_resnet28", 12, True)],
)
def test_parts_are_in_order_and_hold_every_layer_that_computes(name, count, top):
    spec = architecture_spec(name, width=0.25)
    model = build(spec, classes=2)
    found = parts(model)
    names = [part.name for part in found]
    assert names == ["stem", *(block.name for block in expand(spec).blocks), *["top"] * top, "classifier"]
    assert [part.name for part in blocks(model)] == names[1 : 1 + count]
    assert [part.stride for part in found] == sorted(part.stride for part in found)
    held = [layer for part in found for layer in part.layers]
    assert len(held) == len(set(held))
    assert {layer.name for layer in model.layers if layer not in held} == {model.layers[0].name, "rescaling"}


def test_a_block_says_its_stage_its_place_and_its_layers():
    model = tiny()
    (stem, first, second, *_), classifier = parts(model), parts(model)[-1]
    assert (stem.name, stem.stride, stem.stage) == ("stem", 2, 0)
    assert (first.name, first.stride, first.stage, first.index) == ("block1a", 2, 1, 0)
    assert (second.name, second.stride, second.stage, second.index) == ("block2a", 4, 2, 0)
    assert [layer.name for layer in second.layers][0::15] == ["block2a_expand_conv"]
    assert second.layers[-1].name == "block2a_project_bn"
    assert second.output is model.get_layer("block2a_project_bn").output
    assert [layer.name for layer in classifier.layers] == ["avg_pool", "top_dropout", "predictions"]


def test_stages_deeper_than_the_alphabet_keep_their_order():
    stage = StageSpec(3, 1, 1, 8, 54)
    spec = architecture_spec(EFFICIENTNET_B0, stages=(stage,), stem=8, head=0, image_size=32)
    found = blocks(build(spec, classes=2))
    assert [block.index for block in found] == list(range(54))
    assert [found[index].name for index in (0, 25, 26, 51, 52)] == [
        f"block1{end}" for end in ("a", "z", "aa", "az", "ba")
    ]


def test_a_shortcut_does_not_count_its_stride_twice():
    model = build(architecture_spec("resnet18", width=0.125), classes=2)
    assert [block.stride for block in blocks(model)] == [4, 4, 8, 8, 16, 16, 32, 32]


def test_keras_applications_has_the_same_parts(keras_b0):
    ours = build(architecture_spec("b0"), include_top=False)
    assert [(p.name, p.stride) for p in parts(keras_b0)] == [(p.name, p.stride) for p in parts(ours)]


def test_a_foreign_model_is_refused_in_one_line(toy_model):
    for call in (parts, blocks):
        with pytest.raises(
            UserError, match=r"^toy is not a network of this package: it has no layers named stem_ and block1a_\.$"
        ):
            call(toy_model())


# --- feature levels


@pytest.mark.parametrize("name", LEVELS)
def test_levels_have_the_strides_and_channels_of_the_published_tables(name):
    model = build(architecture_spec(name), include_top=False, input_shape=(128, 96, 3))
    expected = {level: (128 // stride, 96 // stride, channels) for level, (stride, channels) in LEVELS[name].items()}
    assert shapes(model) == expected


def test_a_stem_without_stride_begins_at_the_full_resolution():
    spec = architecture_spec("b0", stem_stride=1, image_size=64)
    found = shapes(build(spec))
    assert {level: shape[0] for level, shape in found.items()} == {"P0": 64, "P1": 32, "P2": 16, "P3": 8, "P4": 4}


def test_odd_sides_are_rounded_up():
    assert shapes(tiny(input_shape=(75, 33, 3), include_top=False))["P3"][:2] == (10, 5)


def test_sides_that_are_open_stay_open_and_any_size_runs():
    model = features(tiny(include_top=False), ["P3", "P5"])
    assert model.output["P5"].shape[1:3] == (None, None)
    for size in (64, 96):
        out = model(images(size))
        assert {level: value.shape[1] for level, value in out.items()} == {"P3": size // 8, "P5": size // 32}


def test_levels_come_fine_to_coarse_or_as_asked_for():
    assert list(features(tiny()).output) == ["P1", "P2", "P3", "P4", "P5"]
    assert list(features(tiny(), ["P4", "P2"]).output) == ["P4", "P2"]


def test_a_level_that_is_not_there_is_refused_with_those_that_are():
    model = tiny()
    for level in ("P6", "p3", 3):
        with pytest.raises(UserError, match=rf"Unknown level '?{level}'?\..* Choose one of: P1, P2, P3, P4, P5\."):
            features(model, [level])


# The last layer of the last block at each stride, read off the printed summary of keras.applications' B0.
B0_OUTPUTS = {
    "P1": "block1a_project_bn",
    "P2": "block2b_add",
    "P3": "block3b_add",
    "P4": "block5c_add",
    "P5": "block7a_project_bn",
}


def test_maps_are_the_block_outputs_of_keras_applications(keras_b0):
    ours = build(architecture_spec("b0"), include_top=False, input_shape=(96, 96, 3))
    for layer in ours.layers:
        if layer.weights:
            layer.set_weights(keras_b0.get_layer(layer.name).get_weights())
    x = images(96)
    outputs = {level: keras_b0.get_layer(name).output for level, name in B0_OUTPUTS.items()}
    expected = keras.Model(keras_b0.input, outputs)(x)
    for source in (ours, keras_b0):  # by their names, theirs are networks like ours
        got = features(source)(x)
        assert got.keys() == expected.keys()
        for level, value in got.items():
            equal(value, expected[level], 1e-5)


@pytest.mark.slow
def test_maps_of_a_reloaded_and_fine_tuned_network_are_those_of_its_blocks(tmp_path):
    model = tiny(include_top=True)
    before = features(model)
    x = images(32, 8)
    old = np.asarray(before(x)["P4"])
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    model.fit(x, np.arange(8), batch_size=4, verbose=0)
    expected = submodel(model, "block5a_project_bn")(x)
    equal(before(x)["P4"], expected)  # made before, it shares the layers and so what they have learned
    assert np.abs(old - np.asarray(expected)).max() > 1e-3

    model.save(tmp_path / "tuned.keras")
    again = keras.models.load_model(tmp_path / "tuned.keras")
    assert [(p.name, p.stride) for p in parts(again)] == [(p.name, p.stride) for p in parts(model)]
    equal(features(again)(x)["P4"], expected, 1e-6)


def test_a_new_head_leaves_the_levels_as_they_are():
    body = tiny(include_top=False, pooling="avg", input_shape=(64, 64, 3))
    classes = keras.layers.Dense(4, name="my_head")(body.output)
    model = keras.Model(body.input, classes)
    assert shapes(model) == shapes(body)
    x = images(64)
    equal(features(model)(x)["P5"], submodel(body, "block7a_project_bn")(x))


def test_levels_share_the_networks_weights_and_leave_the_head_out():
    model = tiny()
    backbone = features(model)
    own = {id(weight) for weight in model.weights}
    assert {id(weight) for weight in backbone.weights} < own
    assert not {"top_conv", "predictions"} & {layer.name for layer in backbone.layers}
