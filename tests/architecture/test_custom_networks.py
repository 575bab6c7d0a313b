"""Custom networks: built as their spec says, counted exactly, and trainable."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec, expand
from keras_effnet.complexity.counting import count
from keras_effnet.models.efficientnet import build

TINY = architecture_spec("b0", stages=EFFICIENTNET_B0.stages[:3], depth=0.2, width=0.25, image_size=32)


def without_se(spec):
    return replace(spec, stages=tuple(replace(stage, se_ratio=0.0) for stage in spec.stages))


MIXED = ArchitectureSpec(
    name="mixed",
    stem=8,
    stages=(
        StageSpec(3, 1, 1, 8, 2, block="preact"),
        StageSpec(5, 2, 4, 16, 1, se_ratio=0.5),
        StageSpec(3, 2, 1, 24, 1, block="basic"),
        StageSpec(3, 1, 1, 32, 2, block="bottleneck", inner=0.5),
    ),
    head=0,
    image_size=32,
)

CUSTOM = {
    "hard_swish": replace(TINY, activation="hard_swish"),
    "relu6": replace(TINY, activation="relu6"),
    "gelu": replace(TINY, activation="gelu"),
    "relu": replace(TINY, activation="relu"),
    "no squeeze-and-excite": without_se(TINY),
    "stem stride 1": replace(TINY, stem_stride=1),
    "batch normalization": replace(TINY, bn_momentum=0.9, bn_epsilon=1e-5),
    "symmetric padding": replace(TINY, padding="symmetric"),
    "mobilenetv2": architecture_spec("mobilenetv2", depth=0.3, width=0.25, image_size=32),
    "resnet34": architecture_spec("resnet34", depth=0.3, width=0.125, image_size=32),
    "resnet50": architecture_spec("resnet50", depth=0.2, width=0.125, image_size=32),
    "wide_resnet50": architecture_spec("wide_resnet50", depth=0.2, width=0.125, image_size=32),
    "wide_resnet28": architecture_spec("wide_resnet28", depth=0.5),
    "mixed blocks": MIXED,
}


@pytest.mark.parametrize("name", CUSTOM)
def test_a_custom_network_is_built_counted_and_trained(name):
    spec = CUSTOM[name]
    keras.utils.set_random_seed(0)
    model = build(spec, classes=3)
    ours, keras_own = count(spec, classes=3), count(model)
    assert (ours.params, ours.total_params) == (keras_own.params, model.count_params())
    assert (ours.macs, ours.activations) == (keras_own.macs, keras_own.activations)

    before = {weight.path: weight.numpy() for weight in model.weights}
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    loss = model.train_on_batch(images, np.array([0, 1, 2, 0]))
    assert np.isfinite(loss)
    still = [weight.path for weight in model.weights if np.array_equal(weight.numpy(), before[weight.path])]
    assert not [path for path in still if "seed" not in path]  # a gradient reaches every layer


def test_a_changed_activation_is_in_every_place_but_the_gates():
    model = build(CUSTOM["hard_swish"], classes=3)
    used = [layer.activation for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    gates = sum(block.se_expand is not None for block in expand(TINY).blocks)
    assert used.count(keras.activations.sigmoid) == gates == 3
    assert set(used) == {keras.activations.sigmoid, keras.activations.hard_swish}


def test_a_wide_resnet_ends_in_normalization_activation_pooling_and_classifier():
    names = [layer.name for layer in build(CUSTOM["wide_resnet28"], classes=3).layers]
    assert names[1:3] == ["rescaling", "stem_conv"]
    assert "stem_bn" not in names
    assert names[-5:] == ["block3b_add", "top_bn", "top_activation", "avg_pool", "predictions"]
