"""Fused optimizer updates: the values of Keras' own, in files that know nothing of them."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.system import private_api
from keras_effnet.training.cpu_kernels.updates import fused_updates

RATE = keras.optimizers.schedules.CosineDecay(1e-4, 10, warmup_target=0.05, warmup_steps=2)
KERNELS = {"ResourceApplyAdam", "ResourceApplyKerasMomentum", "ResourceApplyRMSProp"}


def decayed(kind, **options):
    optimizer = kind(RATE, weight_decay=0.1, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def adamw(**options):
    return decayed(keras.optimizers.AdamW, **options)


def sgd(momentum=0.9, **options):
    return decayed(keras.optimizers.SGD, momentum=momentum, **options)


def rmsprop(**options):
    return decayed(keras.optimizers.RMSprop, rho=0.9, momentum=0.9, epsilon=1e-3, **options)


COVERED = {
    "adamw": adamw,
    "adam": lambda: keras.optimizers.Adam(0.05),
    "sgd": sgd,
    "nesterov": lambda: sgd(nesterov=True),
    "rmsprop": rmsprop,
    "clipped": lambda: adamw(clipnorm=0.5),
    "averaged": lambda: adamw(use_ema=True, ema_momentum=0.9),
    "accumulated": lambda: adamw(gradient_accumulation_steps=2),
    "loss scaling": lambda: keras.optimizers.LossScaleOptimizer(adamw(), dynamic_growth_steps=2),
    "by layer": lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(sgd(), {"hidden/.*": adamw()})),
}
OTHER = {
    "lamb": lambda: decayed(keras.optimizers.Lamb),
    "amsgrad": lambda: adamw(amsgrad=True),
    "centered": lambda: rmsprop(centered=True),
    "without momentum": lambda: sgd(momentum=0.0),
}


def compiled(optimizer):
    image = keras.Input((5,))
    model = keras.Model(image, keras.layers.Dense(2, name="top")(keras.layers.Dense(4, name="hidden")(image)))
    for number, variable in enumerate(model.variables):
        variable.assign(np.random.default_rng(number).normal(size=variable.shape))
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    return model


def trained(model, around):
    """Values of all variables after a few updates, and the kinds of operations of the update."""
    kinds = set()

    @tf.function(autograph=False)
    def update(*gradients):
        model.optimizer.apply(list(gradients), model.trainable_variables)

    rng = np.random.default_rng(9)
    with around:
        for _ in range(5):
            update(*(tf.constant(rng.normal(size=each.shape), tf.float32) for each in model.trainable_variables))
        example = [tf.zeros(each.shape) for each in model.trainable_variables]
        graph = update.get_concrete_function(*example).graph.as_graph_def()
    kinds = {node.op for nodes in (graph.node, *(part.node_def for part in graph.library.function)) for node in nodes}
    return [np.asarray(each) for each in (*model.variables, *model.optimizer.variables)], kinds


def fused(make):
    model = compiled(make())
    return trained(model, fused_updates(model))


def by_keras(make):
    return trained(compiled(make()), nullcontext())


def assert_alike(got, expected):
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", COVERED.values(), ids=COVERED)
def test_values_are_those_of_keras(make):
    expected, plain = by_keras(make)
    got, kinds = fused(make)
    assert not plain & KERNELS and kinds & KERNELS
    assert_alike(got, expected)


@pytest.mark.parametrize("make", OTHER.values(), ids=OTHER)
def test_other_optimizers_update_as_keras_does(make):
    expected, _ = by_keras(make)
    got, kinds = fused(make)
    assert not kinds & KERNELS
    assert_alike(got, expected)


def test_a_subclass_updates_as_it_says():
    class Still(keras.optimizers.AdamW):
        def update_step(self, gradient, variable, learning_rate):
            pass

    got, kinds = fused(lambda: Still(0.1, weight_decay=0.0))
    assert not kinds & KERNELS
    assert_alike(got[:4], [np.asarray(each) for each in compiled(adamw()).variables])


def test_nothing_outlives_the_block():
    model = compiled(adamw())
    before = dict(vars(model.optimizer))
    with pytest.raises(KeyError), fused_updates(model):
        assert "update_step" in vars(model.optimizer)
        raise KeyError
    assert vars(model.optimizer).keys() == before.keys()
    _, kinds = trained(model, nullcontext())
    assert not kinds & KERNELS


def test_files_saved_inside_the_block_hold_the_stock_optimizer(tmp_path):
    model = compiled(adamw())
    with fused_updates(model):
        model.save(tmp_path / "inside.keras")
    opened = keras.models.load_model(tmp_path / "inside.keras").optimizer
    assert type(opened) is keras.optimizers.AdamW and opened.weight_decay == pytest.approx(0.1)


def test_without_the_private_names_keras_updates(monkeypatch):
    monkeypatch.setattr(private_api, "_DECAY", "a_name_of_another_release")
    expected, _ = by_keras(adamw)
    got, kinds = fused(adamw)
    assert not kinds & KERNELS
    assert_alike(got, expected)


def test_an_eager_step_updates_as_keras_does():
    models = [compiled(adamw()) for _ in range(2)]
    for model, block in zip(models, (nullcontext(), fused_updates(models[1])), strict=True):
        with block:
            for _ in range(2):
                model.optimizer.apply([tf.ones(each.shape) for each in model.trainable_variables])
    assert_alike(*([np.asarray(each) for each in model.variables] for model in models))


def test_a_strategy_updates_as_keras_does():
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = compiled(adamw())
        with fused_updates(model):
            assert "update_step" not in vars(model.optimizer)
