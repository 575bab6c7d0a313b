"""Transfer learning: freezing, new heads, layer-wise learning rates, batch normalization recalibration."""

import keras
import numpy as np
import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.models.feature_maps import features
from keras_effnet.transfer import (
    freeze,
    layerwise_optimizer,
    learning_rate_factors,
    reestimate_batch_norm,
    swap_head,
)

SIZE = 32
LABELS = np.arange(8) % 3


def network(name="b0", classes=3, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=SIZE)
    return EfficientNet(spec, weights=None, classes=classes, **options)


@pytest.fixture(scope="module")
def images(smooth_images):
    return smooth_images(8, SIZE).astype("float32")


def parameters(model) -> dict[str, list[np.ndarray]]:
    """Layer name -> its weights, for layers that have any."""
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def changed(before, model) -> set[str]:
    """Names of the layers of which any weight is not bit for bit what it was."""
    after = parameters(model)
    return {
        name
        for name, weights in before.items()
        if not all(np.array_equal(old, new) for old, new in zip(weights, after[name], strict=True))
    }


def fitted(model, images):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, LABELS, batch_size=4, epochs=1, verbose=0)
    return model


# ------------------------------------------------------------------ freeze


@pytest.mark.parametrize(
    ("through", "frozen"),
    [
        (None, ()),
        ("stem", ("stem_",)),
        ("block1", ("stem_", "block1")),
        ("block2a", ("stem_", "block1", "block2")),
        ("block7", ("stem_", "block")),
        ("backbone", ("stem_", "block", "top_conv", "top_bn")),
    ],
)
def test_freezing_ends_behind_the_part_that_is_named(through, frozen):
    model = network()
    freeze(model, through)
    for layer in model.layers:
        if layer.weights:
            assert layer.trainable == (not layer.name.startswith(frozen)), layer.name


def test_a_stage_is_frozen_whole_and_a_block_alone():
    spec = architecture_spec("b0", width=0.25, image_size=SIZE)
    model = EfficientNet(spec, weights=None, classes=3)  # stage 5 has the blocks a, b, c
    freeze(model, "block5b")
    assert not model.get_layer("block5b_project_conv").trainable
    assert model.get_layer("block5c_project_conv").trainable
    freeze(model, "block5")
    assert not model.get_layer("block5c_project_conv").trainable
    assert model.get_layer("block6a_project_conv").trainable


def test_training_leaves_what_is_frozen_bit_for_bit_its_moving_statistics_too(images):
    model = network()
    freeze(model, "block5")
    before = parameters(model)
    moved = changed(before, fitted(model, images))
    assert moved == {name for name in before if name.startswith(("block6", "block7", "top_", "predictions"))}


def test_a_frozen_batch_normalization_normalises_by_its_moving_statistics_in_training(images):
    model = network()
    freeze(model, "stem")
    stem = keras.Model(model.input, model.get_layer("stem_bn").output)
    np.testing.assert_array_equal(stem(images, training=True), stem(images, training=False))
    freeze(model, None)
    assert np.abs(np.subtract(stem(images, training=True), stem(images, training=False))).max() > 0.1


def test_naming_less_thaws_the_rest():
    model = network()
    every = len(model.trainable_weights)
    freeze(model)
    assert [weight.path for weight in model.trainable_weights] == ["predictions/kernel", "predictions/bias"]
    freeze(model, "stem")
    assert len(model.trainable_weights) == every - 3  # kernel, gamma, beta
    freeze(model, None)
    assert len(model.trainable_weights) == every


def test_batch_normalization_behind_the_frozen_part_can_rest_too(images):
    model = network()
    freeze(model, "block5", batch_norm=True)
    before = parameters(model)
    moved = changed(before, fitted(model, images))
    assert "top_conv" in moved and "block7a_project_conv" in moved
    assert not any(name.endswith("_bn") for name in moved)


@pytest.mark.parametrize(("name", "close"), [("blok5", "block5"), ("backbones", "backbone")])
def test_a_mistyped_part_gets_the_closest_one(name, close):
    with pytest.raises(UserError, match=f"Unknown part to freeze '{name}'. Did you mean '{close}'"):
        freeze(network(), name)


# ------------------------------------------------------------------ another head


def features_of(model, images) -> np.ndarray:
    return np.asarray(keras.Model(model.input, model.get_layer("avg_pool").output)(images))


def test_a_swapped_head_leaves_the_features_and_the_graph_flat(images):
    old = network(classes=3)
    new = swap_head(old, 5)
    np.testing.assert_array_equal(features_of(new, images), features_of(old, images))
    assert [layer.name for layer in new.layers] == [layer.name for layer in old.layers]
    assert not any(isinstance(layer, keras.Model) for layer in new.layers)
    assert new.output_shape == (None, 5) and old.output_shape == (None, 3)
    assert new.get_layer("top_dropout").rate == old.get_layer("top_dropout").rate == 0.2
    np.testing.assert_allclose(np.asarray(new(images)).sum(axis=1), 1, rtol=1e-5)


def test_a_network_with_a_swapped_head_opens_in_plain_keras_and_takes_another_head(images, tmp_path):
    model = swap_head(network(), 5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)
    other = swap_head(again, 2, dropout_rate=0.0, classifier_activation=None)
    np.testing.assert_allclose(features_of(other, images), features_of(model, images), atol=1e-6)
    assert other.output_shape == (None, 2)
    assert other.get_layer("predictions").activation is keras.activations.linear
    assert "top_dropout" not in {layer.name for layer in other.layers}


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_a_headless_network_gets_a_head_and_keeps_its_own_pooling(images, pooling):
    backbone = network(include_top=False, input_shape=(SIZE, SIZE, 3), pooling=pooling)
    model = swap_head(backbone, 4, dropout_rate=0.1)
    names = [layer.name for layer in model.layers]
    assert names[-3:] == [f"{pooling or 'avg'}_pool", "top_dropout", "predictions"]
    maps = np.asarray(backbone(images))
    pooled = keras.Model(model.input, model.layers[-3].output)(images)
    np.testing.assert_allclose(pooled, maps if pooling else maps.mean(axis=(1, 2)), atol=1e-5)


def test_a_swapped_head_keeps_mixed_precision_and_its_loss_scaling(tmp_path):
    network(dtype="mixed_float16").save(tmp_path / "model.keras")
    model = swap_head(keras.models.load_model(tmp_path / "model.keras"), 4)
    assert model.dtype_policy.name == "mixed_float16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    model.compile("adam", "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


def test_a_head_has_at_least_one_class():
    with pytest.raises(UserError, match="classes must be at least 1, got 0"):
        swap_head(network(), 0)


def test_a_model_without_a_convolution_is_refused():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)], name="toy")
    for use in (freeze, lambda model: swap_head(model, 2), lambda model: learning_rate_factors(model, 0.5)):
        with pytest.raises(UserError, match="toy has no feature maps: no convolution between its input and its head"):
            use(model)


# ------------------------------------------------------------------ slower early layers


def test_rates_fall_by_one_factor_a_stage_from_the_classifier_to_the_stem():
    factors = learning_rate_factors(network(), 1 / 2.6)  # ULMFiT's
    stages = ["stem", *(f"block{number}" for number in range(1, 8)), "top", "classifier"]
    assert list(factors) == stages
    for depth, stage in enumerate(reversed(stages)):
        assert factors[stage] == pytest.approx(2.6**-depth)


def test_without_decay_all_stages_learn_alike():
    assert set(learning_rate_factors(network(), 1.0).values()) == {1.0}


@pytest.mark.parametrize("decay", [0, -0.5, 1.1])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match=r"must lie in \(0, 1\], got"):
        learning_rate_factors(network(), decay)


def step(optimizer, model) -> None:
    """One step along a gradient of ones."""
    variables = model.trainable_variables
    optimizer.apply([np.ones(variable.shape, "float32") for variable in variables], variables)


def test_the_first_step_of_adam_moves_each_stage_by_its_own_learning_rate():
    # Adam's first step is the learning rate times the gradient's sign, whatever its size: a ruler for rates.
    model = network()
    before = parameters(model)
    step(layerwise_optimizer(model, 0.5, lambda factor: keras.optimizers.Adam(1e-2 * factor)), model)
    after = parameters(model)
    exponents = {"stem_conv": 9, "block1a_dwconv": 8, "block4a_se_reduce": 5, "block7a_bn": 2, "top_conv": 1}
    for name, exponent in (exponents | {"predictions": 0}).items():
        np.testing.assert_allclose(before[name][0] - after[name][0], 1e-2 * 0.5**exponent, atol=1e-6)


def test_weight_decay_falls_with_the_learning_rate():
    model = network()
    before = parameters(model)
    sgd = keras.optimizers.SGD  # along a gradient of ones by 0.1, and a tenth of that towards zero
    step(layerwise_optimizer(model, 0.5, lambda factor: sgd(0.1 * factor, weight_decay=0.1)), model)
    after = parameters(model)
    for name, factor in {"block7a_project_conv": 0.25, "top_conv": 0.5, "predictions": 1.0}.items():
        expected = before[name][0] * (1 - 0.01 * factor) - 0.1 * factor
        np.testing.assert_allclose(after[name][0], expected, atol=1e-6)


def test_a_frozen_stage_needs_no_optimizer():
    model = network()
    freeze(model, "block6")
    optimizer = layerwise_optimizer(model, 0.5, lambda factor: keras.optimizers.SGD(factor))
    assert [float(one.learning_rate) for one in optimizer.optimizers] == [0.25, 0.5, 1.0]  # block 7, top, classifier


def test_a_network_with_a_rate_for_each_stage_goes_on_in_plain_keras(tmp_path):
    model = network()
    freeze(model, "block5")
    model.compile(layerwise_optimizer(model, 0.5, lambda factor: keras.optimizers.AdamW(1e-3 * factor)), "mse")
    step(model.optimizer, model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 1
    rates = [float(one.learning_rate) for one in again.optimizer.optimizers]
    assert rates == pytest.approx([1.25e-4, 2.5e-4, 5e-4, 1e-3])
    for one in (model, again):
        step(one.optimizer, one)
    for expected, got in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


# ------------------------------------------------------------------ statistics measured anew


def small_model():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Dropout(0.5)(inputs)
    outputs = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(inputs, outputs)


def test_statistics_are_the_mean_over_batches_with_dropout_at_rest():
    model = small_model()
    rng = np.random.default_rng(0)
    batches = [rng.normal(batch, 1 + batch, (8, 6, 6, 3)).astype("float32") for batch in range(5)]
    reestimate_batch_norm(model, batches)
    _, _, mean, variance = model.layers[-1].get_weights()
    np.testing.assert_allclose(mean, np.mean([b.mean(axis=(0, 1, 2)) for b in batches], axis=0), rtol=1e-3)
    np.testing.assert_allclose(variance, np.mean([b.var(axis=(0, 1, 2)) for b in batches], axis=0), rtol=1e-3)


def test_labels_are_ignored_and_the_number_of_batches_is_bounded():
    model = small_model()
    endless = ((np.full((2, 6, 6, 3), 4.0, "float32"), np.zeros(2)) for _ in iter(int, 1))
    reestimate_batch_norm(model, endless, max_batches=3)
    np.testing.assert_allclose(model.layers[-1].get_weights()[2], 4.0, rtol=1e-3)


def test_a_model_is_as_before_after_an_error():
    model = small_model()
    before = model.get_weights()

    def broken():
        yield np.ones((2, 6, 6, 3), "float32")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        reestimate_batch_norm(model, broken())
    assert model.layers[-1].momentum == 0.9
    assert model.layers[1].rate == 0.5
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_without_batches_nothing_changes():
    model = small_model()
    before = model.get_weights()
    reestimate_batch_norm(model, [])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_frozen_statistics_are_not_measured_and_the_graph_stays_usable(images):
    model = network("lite0")
    freeze(model, "block5")
    before = parameters(model)
    reestimate_batch_norm(model, [images])
    moved = changed(before, model)
    assert moved == {name for name in before if name.endswith("_bn") and name.startswith(("block6", "block7", "top"))}
    assert features(model, ["P3"]).output["P3"].shape[1:3] == (4, 4)
