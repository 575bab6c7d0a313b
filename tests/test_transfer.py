"""Batch normalization statistics, measured anew."""

import keras
import numpy as np
import pytest

from keras_effnet.transfer import reestimate_batch_norm


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


def test_momentum_and_dropout_are_as_before_even_after_an_error():
    model = small_model()

    def broken():
        yield np.zeros((2, 6, 6, 3), "float32")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        reestimate_batch_norm(model, broken())
    assert model.layers[-1].momentum == 0.9
    assert model.layers[1].rate == 0.5
