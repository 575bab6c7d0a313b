"""Fine-tuned networks of every making: each tool for transfer learning and Grad-CAM on seven kinds of head and body."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_effnet import features, grad_cam, transfer
from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet

SIZE, CLASSES = 32, 3
SPEC = architecture_spec(EFFICIENTNET_B0, stages=EFFICIENTNET_B0.stages[:3], depth=0.2, width=0.25, image_size=SIZE)
KERNEL = np.random.default_rng(1).normal(size=(1280, CLASSES)).astype("float32")
SHAPE = (SIZE, SIZE, 3)
KINDS = ("dense", "activation", "sequential", "nested", "renamed", "reloaded")


@pytest.fixture(scope="module")
def base() -> keras.Model:
    keras.utils.set_random_seed(0)
    return EfficientNet(SPEC, include_top=False, pooling="avg", weights=None, input_shape=SHAPE, name="base")


@pytest.fixture(scope="module")
def applications() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(include_top=False, pooling="avg", weights=None, input_shape=SHAPE, alpha=0.35)


def dense(**options) -> layers.Dense:
    return layers.Dense(CLASSES, name="answers", **options)


def nested(body: keras.Model) -> keras.Model:
    image = keras.Input(SHAPE)
    return keras.Model(image, dense()(layers.Dropout(0.3, name="rest")(body(image))), name="nested")


def renamed(body: keras.Model) -> keras.Model:
    """Layers without a trace of their names."""
    names = (f"layer_{number}" for number in range(10**6))
    model = keras.models.clone_model(
        keras.Model(body.input, dense()(body.output)),
        clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"name": next(names)}),
    )
    for layer, original in zip(model.layers[1:-1], body.layers[1:], strict=True):
        layer.set_weights(original.get_weights())
    return model


@pytest.fixture(scope="module")
def models(base, applications, tmp_path_factory) -> dict[str, keras.Model]:
    kinds = {
        "dense": keras.Model(base.input, dense()(base.output)),
        "activation": keras.Model(base.input, layers.Activation("softmax", dtype="float32")(dense()(base.output))),
        "sequential": keras.Sequential([keras.Input(SHAPE), layers.RandomFlip(seed=0), base, dense()]),
        "nested": nested(base),
        "renamed": renamed(base),
        "applications": keras.Model(applications.input, dense()(applications.output)),
    }
    for model in kinds.values():
        last = next(layer for layer in reversed(model.layers) if isinstance(layer, layers.Dense))
        last.set_weights([KERNEL[: last.kernel.shape[0]], np.zeros(CLASSES)])
    path = tmp_path_factory.mktemp("kinds") / "nested.keras"
    kinds["nested"].save(path)
    return kinds | {"reloaded": keras.models.load_model(path)}


@pytest.fixture(params=[*KINDS, pytest.param("applications", marks=pytest.mark.slow)])
def model(request, models) -> keras.Model:
    yield models[request.param]
    models[request.param].trainable = True


@pytest.fixture(scope="module")
def image(smooth_images) -> np.ndarray:
    return smooth_images(1, SIZE)[0].astype("float32")


def body_of(model: keras.Model, base: keras.Model, applications: keras.Model) -> keras.Model:
    return applications if "out_relu" in {layer.name for layer in model.layers} else base


def test_the_heat_map_is_the_class_activation_map(model, base, applications, image):
    """Behind an average and a dense layer, Grad-CAM is the map of Zhou et al. (2016), computed without gradient."""
    body = body_of(model, base, applications)
    maps = np.asarray(keras.Model(body.input, body.layers[-2].output)(image[None], training=False))[0]
    for class_index in (0, 2):
        scores = np.maximum(maps @ KERNEL[: maps.shape[-1], class_index], 0)
        heat = grad_cam(model, image, class_index=class_index)
        np.testing.assert_allclose(heat.map, scores / (scores.max() or 1), atol=1e-3)
    logits = maps.mean(axis=(0, 1)) @ KERNEL[: maps.shape[-1]]
    np.testing.assert_allclose(heat.probabilities, np.asarray(keras.ops.softmax(logits)), atol=1e-3)


def test_features_have_the_strides_of_their_levels(model, image):
    found = features(model)
    levels = ["P1", "P2", "P3", "P4", "P5"] if "out_relu" in str([x.name for x in model.layers]) else ["P1", "P2", "P3"]
    assert list(found.output) == levels
    for level, tensor in found.output.items():
        assert tensor.shape[1] == SIZE // 2 ** int(level[1])


def test_a_frozen_backbone_leaves_the_head(model):
    total = len(model.trainable_weights)
    model.trainable = False  # as whole models are frozen by hand
    transfer.freeze(model)
    assert [tuple(weight.shape)[-1] for weight in model.trainable_weights] == [CLASSES, CLASSES]
    transfer.freeze(model, "P2")
    assert 2 < len(model.trainable_weights) < total
    transfer.freeze(model, None)
    assert len(model.trainable_weights) == total


def test_a_swapped_head_shares_the_rest(model):
    swapped = transfer.swap_head(model, 5)
    assert swapped.output_shape == (None, 5)
    old, new = ({id(weight) for weight in each.trainable_weights} for each in (model, swapped))
    assert len(old & new) == len(old) - 2 and len(new - old) == 2
    assert not any(isinstance(layer, keras.Model) for layer in swapped.layers)
    assert model.output_shape == (None, CLASSES)


def test_statistics_are_measured_without_augmentation(model, smooth_images):
    images = smooth_images(4, SIZE).astype("float32")
    transfer.freeze(model, None)
    before = model.get_weights()
    tf.config.run_functions_eagerly(True)
    try:
        transfer.reestimate_batch_norm(model, [images, images[::-1]])
        first = model.get_weights()
        transfer.reestimate_batch_norm(model, [images])
    finally:
        tf.config.run_functions_eagerly(False)
    for one, other in zip(first, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)  # a flip would change them
    model.set_weights(before)
    assert sum(not np.array_equal(one, other) for one, other in zip(before, first, strict=True)) > 10


def test_earlier_stages_get_lower_rates(model):
    transfer.freeze(model, None)
    factors = transfer.learning_rate_factors(model, 0.5)
    optimizer = transfer.layerwise_optimizer(model, 0.5, lambda factor: keras.optimizers.SGD(factor))
    weights, before = model.trainable_variables, model.get_weights()
    old = [np.asarray(weight) for weight in weights]
    optimizer.apply([np.ones(weight.shape, "float32") for weight in weights], weights)
    rates = [float(np.mean(one - np.asarray(weight))) for one, weight in zip(old, weights, strict=True)]
    model.set_weights(before)
    assert rates[0] == pytest.approx(min(factors.values()), rel=1e-2)  # the stem, or what has the stride of the input
    assert rates[-2:] == pytest.approx([1, 1])
    assert {round(np.log2(rate)) for rate in rates} == set(range(1 - len(factors), 1))


def test_a_hidden_dense_layer_is_kept_unless_the_head_is_to_go(base):
    hidden = layers.Dense(6, activation="relu", name="hidden")(base.output)
    model = keras.Model(base.input, dense()(layers.Dropout(0.4)(hidden)))
    kept = transfer.swap_head(model, 5)
    assert kept.get_layer("hidden") is model.get_layer("hidden") and kept.get_layer("top_dropout").rate == 0.4
    bare = transfer.swap_head(model, 5, replace="head")
    assert "hidden" not in {layer.name for layer in bare.layers} and bare.output_shape == (None, 5)
    with pytest.raises(UserError, match=r"Unknown replace 'heads'. Did you mean 'head'"):
        transfer.swap_head(model, 5, replace="heads")


def test_a_decoder_is_dropped_only_if_told():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, strides=4, padding="same", activation="relu")(image)
    model = keras.Model(image, layers.Conv2D(2, 1, name="paint")(layers.UpSampling2D(4)(x)), name="masks")
    with pytest.raises(UserError, match=r"would drop layers of masks with weights \(paint.*replace='head'"):
        transfer.swap_head(model, 5)
    assert transfer.swap_head(model, 5, replace="head").output_shape == (None, 5)


def two_outputs(base: keras.Model) -> keras.Model:
    yes = layers.Dense(1, activation="sigmoid", name="yes")(base.output)
    size = layers.Dense(1, name="size")(base.output)
    return keras.Model(base.input, {"yes": yes, "size": size, "which": dense(activation="softmax")(base.output)})


def test_grad_cam_explains_the_output_and_label_that_are_named(base, image):
    model = two_outputs(base)
    model.get_layer("answers").set_weights([KERNEL[: base.output_shape[-1]], np.zeros(CLASSES)])
    with pytest.raises(UserError, match=r"has the outputs .*: choose the one to explain by output="):
        grad_cam(model, image)
    with pytest.raises(UserError, match=r"Unknown output 'wich'. Did you mean 'which'"):
        grad_cam(model, image, output="wich")
    named = grad_cam(model, image, output="which", class_index="cat", labels=["ant", "bee", "cat"])
    single = keras.Model(base.input, model.output["which"])
    np.testing.assert_allclose(named.map, grad_cam(single, image, class_index=2).map, atol=1e-5)
    assert named.class_index == 2
    with pytest.raises(UserError, match="Unknown class 'cow'"):
        grad_cam(model, image, output="which", class_index="cow", labels=["ant", "bee", "cat"])
    with pytest.raises(UserError, match="is a name: pass the names of all classes as labels="):
        grad_cam(single, image, class_index="cat")
    value = float(np.asarray(model(image[None])["size"])[0, 0])
    size = grad_cam(model, image, output="size")
    assert size.class_index == 0 and size.probability == pytest.approx(value, abs=1e-4)


def test_grad_cam_explains_yes_and_no_of_a_single_sigmoid(base, image):
    model = keras.Model(base.input, layers.Dense(1, activation="sigmoid")(base.output))
    p = float(np.asarray(model(image[None]))[0, 0])
    yes, no = (grad_cam(model, image, class_index=index) for index in (1, 0))
    assert (yes.probability, no.probability) == pytest.approx((p, 1 - p), abs=1e-4)
    assert grad_cam(model, image).class_index == int(p >= 0.5)
    assert not ((yes.map > 0) & (no.map > 0)).any()  # evidence for one is evidence against the other
