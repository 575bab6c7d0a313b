"""Segmentation networks: sizes, heads, backbones of other making, and that a file of one opens in plain Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import keras_effnet
from keras_effnet import complexity
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.decoders import DECODERS, segmentation_model
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.tasks import task_of

SIZE = 64
FINEST = {"unet": 2, "fpn": 4, "deeplab-lite": 8}
SPEC = architecture_spec("lite0", depth=0.2, width=0.25, image_size=SIZE)


def plain_backbone(shape=(SIZE, SIZE, 3), dtype=None) -> keras.Model:
    """Five convolutions without names of this package."""
    x = image = keras.Input(shape)
    for filters in (4, 6, 8, 10, 12):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu", dtype=dtype)(x)
    return keras.Model(image, x, name="plain")


def sizes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.output.shape[1:3] for layer in model.layers}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("shape", [(64, 96, 3), (75, 33, 3), (350, 525, 3)])
def test_masks_have_the_size_of_the_image_odd_sides_too(decoder, shape):
    model = segmentation_model(plain_backbone(shape), 3, decoder)
    assert model.output_shape == (None, *shape[:2], 3)
    finest = tuple(-(-side // FINEST[decoder]) for side in shape[:2])
    assert sizes(model)["logits"] == finest  # no map of a level is lost, and none is enlarged for nothing


@pytest.mark.parametrize("decoder", DECODERS)
def test_open_sides_stay_open(decoder):
    model = segmentation_model(plain_backbone((None, None, 3)), 2, decoder)
    assert model.output_shape == (None, None, None, 2)
    masks = np.asarray(model(np.zeros((1, 64, 96, 3), "float32")))
    assert masks.shape == (1, 64, 96, 2)
    np.testing.assert_allclose(masks.sum(axis=-1), 1, rtol=1e-5)


def test_a_crop_removes_the_far_side_so_that_maps_stay_aligned():
    model = segmentation_model(plain_backbone((75, 33, 3)), 2)
    x, enlarged = np.zeros((1, 3, 2, 12), "float32"), model.get_layer("decoder_p4_upsample")
    x[0, :, :, 0] = [[1, 2], [3, 4], [5, 6]]
    cropped = np.asarray(model.get_layer("decoder_p4_upsample_crop")(enlarged(x)))[0, :, :, 0]
    np.testing.assert_array_equal(cropped, [[1, 1, 2], [1, 1, 2], [3, 3, 4], [3, 3, 4], [5, 5, 6]])


def test_the_activation_follows_the_number_of_classes_unless_it_is_named():
    heads = [(1, "auto", "sigmoid"), (3, "auto", "softmax"), (3, "sigmoid", "sigmoid")]
    for classes, given, expected in heads:
        model = segmentation_model(plain_backbone(), classes, "deeplab-lite", activation=given)
        assert model.layers[-1].activation.__name__ == expected
        assert task_of(model).name == "segmentation"
    logits = segmentation_model(plain_backbone(), 3, "deeplab-lite", activation=None)
    assert logits.layers[-1].name == "masks" and task_of(logits).name == "segmentation"


def test_a_name_or_spec_is_built_and_a_classifier_left_out(tmp_path):
    names = {layer.name for layer in segmentation_model(SPEC, 2, "deeplab-lite").layers}
    assert {"stem_conv", "block7a_project_bn", "decoder_skip_conv"} < names and "top_conv" not in names
    classifier = EfficientNet(SPEC, weights=None, classes=7)
    model = segmentation_model(classifier, 2, "deeplab-lite")
    assert not {"top_conv", "avg_pool"} & {layer.name for layer in model.layers}
    assert model.output_shape == (None, SIZE, SIZE, 2)
    assert model.get_layer("stem_conv") is classifier.get_layer("stem_conv")
    model.save(tmp_path / "masks.keras")
    image = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3)).astype("float32")
    again = keras.models.load_model(tmp_path / "masks.keras")
    np.testing.assert_array_equal(again(image), model(image))


def test_costs_are_counted_and_fall_from_unet_to_deeplab():
    counts = [complexity.count(segmentation_model(plain_backbone(), 2, decoder)) for decoder in FINEST]
    assert [one.macs for one in counts] == sorted((one.macs for one in counts), reverse=True)
    logits = {cost.name: cost for cost in counts[0].blocks}["logits"]
    assert logits.macs == (16 * 2 + 2) * 32 * 32


def test_mixed_precision_ends_in_float32_with_loss_scaling():
    model = segmentation_model(plain_backbone(dtype="mixed_float16"), 2)
    assert model.dtype_policy.name == "mixed_float16" and model.output.dtype == "float32"
    assert model.get_layer("decoder_p4a_conv").compute_dtype == "float16"
    assert np.isfinite(model(np.ones((1, SIZE, SIZE, 3), "float32"))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("b0", 2, "unett"), "Unknown decoder 'unett'. Did you mean 'unet'"),
        (("b0", 0), "classes must be at least 1"),
        ((keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)]), 2), "has no feature maps"),
        (("b00", 2), "Unknown"),
        ((3, 2), "model must be a Keras model"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        segmentation_model(*arguments)


def test_a_backbone_that_augments_inside_is_refused_in_one_line():
    image = keras.Input((64, 64, 3))
    base = EfficientNet("lite0", include_top=False, weights=None, input_shape=(64, 64, 3))
    moving = keras.Model(image, base(layers.RandomFlip(name="mirror")(image)))
    colours = keras.Model(image, base(layers.RandomBrightness(0.1)(image)))
    with pytest.raises(UserError, match=r"augments inside: its layer mirror \(RandomFlip\) moves the pixels") as caught:
        segmentation_model(moving, 2)
    assert "\n" not in str(caught.value)
    assert segmentation_model(colours, 2).output_shape == (None, 64, 64, 2)


def test_options_that_contradict_are_refused():
    with pytest.raises(UserError, match="A softmax over one class is always 1"):
        segmentation_model(plain_backbone(), 1, activation="softmax")
    with pytest.raises(UserError, match="belong to a backbone given by name"):
        segmentation_model(plain_backbone(), 2, input_shape=(32, 32, 3))
    with pytest.raises(UserError, match=r"dropout_rate must lie in \[0, 1\)"):
        segmentation_model(plain_backbone(), 2, dropout_rate=1)


def test_it_is_public():
    assert keras_effnet.segmentation_model is keras_effnet.models.segmentation_model is segmentation_model
