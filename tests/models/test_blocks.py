"""Blocks against the same arithmetic in numpy."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.block_specs import ConvSpec
from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec, expand
from keras_effnet.models.blocks import (
    LayerOptions,
    classifier,
    conv_bn_act,
    convolution,
    fused_mbconv,
    mbconv,
    preact_block,
    residual,
    resnet_block,
)
from keras_effnet.models.blocks import squeeze_excite as squeeze_excite_block

SPEC = ArchitectureSpec(
    name="blocks",
    stages=(
        StageSpec(3, 1, 4, 8, 1, se_ratio=0.25),  # keeps size and channels
        StageSpec(3, 2, 4, 8, 1, se_ratio=0.25),  # keeps channels, halves size
        StageSpec(3, 1, 4, 16, 1, se_ratio=0.25),  # keeps size, doubles channels
    ),
    stem=8,
    head=0,
    image_size=32,
)
OPTIONS = LayerOptions(SPEC)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def random_weights(model):
    """Weights that hide nothing: no batch normalization is an identity."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [np.random.uniform(0.5, 1.5, shape), *np.random.normal(0, 0.5, (2, *shape)), np.ones(shape)]
            )
        elif layer.weights:
            layer.set_weights([np.random.normal(0, 0.5, w.shape) for w in layer.weights])
    return model


def channels_into(block):
    return next(part.in_channels for part in block.weighted if isinstance(part, ConvSpec))


def block_model(block, function, size=8, options=OPTIONS):
    inputs = keras.Input((size, size, channels_into(block)))
    return random_weights(keras.Model(inputs, function(inputs, block, options)))


def window_sums(padding, size):
    """A 3x3 kernel of ones with stride 2 over a image of ones counts the pixels under each window."""
    options = LayerOptions(replace(SPEC, padding=padding))
    inputs = keras.Input((size, size, 1))
    model = keras.Model(inputs, convolution(inputs, ConvSpec("count", "conv", 3, 2, 1, 1, size), options))
    model.set_weights([np.ones((3, 3, 1, 1))])
    return model.predict(np.ones((1, size, size, 1)), verbose=0)[0, :, :, 0]


def test_same_padding_pads_the_far_side_of_a_strided_window():
    np.testing.assert_array_equal(window_sums("same", 4), [[9, 6], [6, 4]])


def test_symmetric_padding_pads_both_sides_as_torch_does():
    np.testing.assert_array_equal(window_sums("symmetric", 4), [[4, 6], [6, 9]])


def test_both_paddings_agree_on_odd_sizes():
    np.testing.assert_array_equal(window_sums("same", 5), window_sums("symmetric", 5))


def test_convolution_has_bias_normalization_and_activation_where_the_spec_says():
    inputs = keras.Input((4, 4, 3))
    spec = ConvSpec("a", "conv", 1, 1, 3, 5, 4)
    with_norm = keras.Model(inputs, conv_bn_act(inputs, spec, OPTIONS))
    with_bias = keras.Model(inputs, conv_bn_act(inputs, replace(spec, norm=False, bias=True), OPTIONS))
    bare = keras.Model(inputs, conv_bn_act(inputs, replace(spec, norm=False, act=False), OPTIONS))
    assert [model.get_layer("a_conv").use_bias for model in (with_norm, with_bias, bare)] == [False, True, False]
    assert [layer.name for layer in with_norm.layers[1:]] == ["a_conv", "a_bn", "a_activation"]
    assert [layer.name for layer in with_bias.layers[1:]] == ["a_conv", "a_activation"]
    assert [layer.name for layer in bare.layers[1:]] == ["a_conv"]


def squeeze_excite_model(channels, squeezed):
    reduce = ConvSpec("x_se", "reduce", 1, 1, channels, squeezed, 1, norm=False, bias=True)
    expand_ = ConvSpec("x_se", "expand", 1, 1, squeezed, channels, 1, norm=False, act=False, bias=True)
    inputs = keras.Input((5, 5, channels))
    return random_weights(keras.Model(inputs, squeeze_excite_block(inputs, reduce, expand_, OPTIONS)))


def test_squeeze_excite_gates_each_channel_by_the_whole_image():
    model = squeeze_excite_model(6, 2)
    x = np.random.normal(1, 1, (3, 5, 5, 6)).astype("float32")
    kernel_1, bias_1 = (w.numpy() for w in model.get_layer("x_se_reduce").weights)
    kernel_2, bias_2 = (w.numpy() for w in model.get_layer("x_se_expand").weights)
    squeezed = x.mean(axis=(1, 2)) @ kernel_1[0, 0] + bias_1
    gate = sigmoid(squeezed * sigmoid(squeezed) @ kernel_2[0, 0] + bias_2)  # swish between, sigmoid at the end
    out = model.predict(x, verbose=0)
    np.testing.assert_allclose(out, x * gate[:, None, None, :], atol=1e-5)
    assert np.ptp(gate, axis=1).min() > 1e-3  # channels differ ...
    assert np.ptp(gate, axis=0).max() > 1e-3  # ... and so do images


@pytest.mark.parametrize(("index", "adds"), [(0, True), (1, False), (2, False)])
def test_mbconv_adds_its_input_only_where_shapes_match(index, adds):
    block = expand(SPEC).blocks[index]
    model = block_model(block, mbconv)
    assert any(isinstance(layer, keras.layers.Add) for layer in model.layers) is adds


def test_mbconv_with_a_silent_branch_is_the_identity():
    block = expand(SPEC).blocks[0]
    model = block_model(block, mbconv)
    norm = model.get_layer("block1a_project_bn")
    norm.set_weights([np.zeros_like(w) if i < 2 else w for i, w in enumerate(norm.get_weights())])
    x = np.random.normal(0, 1, (2, 8, 8, 8)).astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)


def test_mbconv_projects_linearly():
    """No activation after the last convolution: outputs are as often negative as its normalization says."""
    block = expand(SPEC).blocks[2]
    model = block_model(block, mbconv)
    names = [layer.name for layer in model.layers]
    assert names[-1] == "block3a_project_bn"
    assert "block3a_project_activation" not in names
    assert (model.predict(np.random.normal(0, 1, (4, 8, 8, 8)), verbose=0) < 0).any()


def test_mbconv_layers_come_in_keras_applications_order():
    block = expand(architecture_spec("b0")).blocks[2]  # block2b: all parts, and the shortcut
    model = block_model(block, mbconv)
    weighted = [layer.name.removeprefix("block2b_") for layer in model.layers if layer.weights]
    assert weighted == [
        "expand_conv",
        "expand_bn",
        "dwconv",
        "bn",
        "se_reduce",
        "se_expand",
        "project_conv",
        "project_bn",
    ]
    assert [layer.name for layer in model.layers[-2:]] == ["block2b_drop", "block2b_add"]


V2 = architecture_spec("v2-b0", width=0.5, image_size=32)


def test_fused_mbconv_expands_with_the_spatial_kernel_and_projects_linearly():
    first, second = expand(V2).blocks[1:3]
    model = block_model(second, fused_mbconv, options=LayerOptions(V2))
    assert [layer.name for layer in model.layers[1:]] == [
        *("block2b_expand_conv", "block2b_expand_bn", "block2b_expand_activation"),
        *("block2b_project_conv", "block2b_project_bn", "block2b_drop", "block2b_add"),
    ]
    assert model.get_layer("block2b_expand_conv").kernel.shape == (3, 3, 16, 64)
    x = np.random.normal(0, 1, (2, 8, 8, 16)).astype("float32")
    branch = keras.Model(model.inputs, model.get_layer("block2b_project_bn").output)
    np.testing.assert_allclose(np.asarray(model(x)), np.asarray(branch(x)) + x, atol=1e-5)
    assert block_model(first, fused_mbconv, options=LayerOptions(V2)).output_shape == (None, 4, 4, 16)


def test_fused_mbconv_without_expansion_is_one_activated_convolution():
    block = expand(replace(V2, stages=(replace(V2.stages[0], repeats=2),))).blocks[1]
    model = block_model(block, fused_mbconv, options=LayerOptions(V2))
    assert [layer.name for layer in model.layers[1:]] == [
        *("block1b_project_conv", "block1b_project_bn", "block1b_project_activation", "block1b_drop", "block1b_add")
    ]
    assert model.get_layer("block1b_project_conv").kernel.shape == (3, 3, 8, 8)


def test_basic_block_activates_after_the_sum():
    spec = architecture_spec("resnet18", width=0.125, image_size=32)
    block = expand(spec).blocks[0]
    assert block.shortcut is None
    model = block_model(block, resnet_block, options=LayerOptions(spec))
    x = np.random.normal(0, 1, (2, 8, 8, 8)).astype("float32")
    branch = keras.Model(model.inputs, model.get_layer("block1a_2_bn").output).predict(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), np.maximum(branch + x, 0), atol=1e-6)


def test_basic_block_projects_its_shortcut_where_the_shape_changes():
    spec = architecture_spec("resnet18", width=0.125, image_size=32)
    block = expand(spec).blocks[2]
    model = block_model(block, resnet_block, options=LayerOptions(spec))
    assert model.get_layer("block2a_shortcut_conv").kernel.shape == (1, 1, 8, 16)
    assert "block2a_shortcut_activation" not in [layer.name for layer in model.layers]
    assert model.output_shape == (None, 4, 4, 16)


def test_bottleneck_squeezes_then_widens_and_activates_after_the_sum():
    spec = architecture_spec("resnet50", width=0.125, image_size=32)
    first, second = expand(spec).blocks[3], expand(spec).blocks[4]  # block2a, block2b
    options = LayerOptions(spec)
    model = block_model(first, resnet_block, options=options)
    kernels = {layer.name: tuple(layer.kernel.shape) for layer in model.layers if "conv" in layer.name}
    assert kernels == {
        "block2a_1_conv": (1, 1, 32, 16),
        "block2a_2_conv": (3, 3, 16, 16),
        "block2a_3_conv": (1, 1, 16, 64),
        "block2a_shortcut_conv": (1, 1, 32, 64),
    }
    assert model.output_shape == (None, 4, 4, 64)
    assert "block2a_3_activation" not in [layer.name for layer in model.layers]

    model = block_model(second, resnet_block, options=options)
    x = np.random.normal(0, 1, (2, 8, 8, 64)).astype("float32")
    branch = keras.Model(model.inputs, model.get_layer("block2b_3_bn").output).predict(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), np.maximum(branch + x, 0), rtol=1e-5, atol=1e-5)


WIDE = architecture_spec("wide_resnet28", depth=0.25)


def normalized(x, layer):
    gamma, beta, mean, variance = (np.asarray(weight) for weight in layer.weights)
    return np.maximum(gamma * (x - mean) / np.sqrt(variance + WIDE.bn_epsilon) + beta, 0)


def test_preact_block_adds_a_branch_of_the_normalized_input_to_the_raw_input():
    model = block_model(expand(WIDE).blocks[0], preact_block, options=LayerOptions(WIDE))
    assert [layer.name for layer in model.layers[1:]] == [
        "block1a_pre_bn",
        "block1a_pre_activation",
        "block1a_1_conv",
        "block1a_1_bn",
        "block1a_1_activation",
        "block1a_2_conv",
        "block1a_add",
    ]
    x = np.random.normal(0, 1, (2, 8, 8, 16)).astype("float32")
    pre = keras.Model(model.inputs, model.get_layer("block1a_pre_activation").output).predict(x, verbose=0)
    np.testing.assert_allclose(pre, normalized(x, model.get_layer("block1a_pre_bn")), atol=1e-5)
    branch = keras.Model(model.inputs, model.get_layer("block1a_2_conv").output).predict(x, verbose=0)
    out = model.predict(x, verbose=0)
    np.testing.assert_allclose(out, branch + x, atol=1e-5)
    assert (out < 0).any()  # no activation at the end


def test_preact_block_projects_the_normalized_input_where_the_shape_changes():
    model = block_model(expand(WIDE).blocks[1], preact_block, options=LayerOptions(WIDE))
    x = np.random.normal(0, 1, (2, 8, 8, 16)).astype("float32")
    projected = keras.Model(model.inputs, model.get_layer("block2a_shortcut_conv").output).predict(x, verbose=0)
    kernel = np.asarray(model.get_layer("block2a_shortcut_conv").kernel)[0, 0]
    expected = normalized(x, model.get_layer("block2a_pre_bn"))[:, ::2, ::2] @ kernel
    np.testing.assert_allclose(projected, expected, rtol=1e-4, atol=1e-4)
    assert "block2a_shortcut_bn" not in [layer.name for layer in model.layers]


def residual_model(drop_rate):
    branch, shortcut = keras.Input((3, 3, 2)), keras.Input((3, 3, 2))
    return keras.Model([branch, shortcut], residual(branch, shortcut, "x", drop_rate, OPTIONS))


def test_stochastic_depth_drops_whole_images_and_scales_the_rest():
    branch, shortcut = np.ones((400, 3, 3, 2), "float32"), np.full((400, 3, 3, 2), 10, "float32")
    keras.utils.set_random_seed(0)
    out = np.asarray(residual_model(0.5)([branch, shortcut], training=True)).reshape(400, -1)
    assert (out.min(axis=1) == out.max(axis=1)).all()  # one fate for all of an image
    assert set(np.unique(out)) == {10, 12}  # the shortcut alone, or the branch twice as strong
    assert 0.4 < (out[:, 0] == 10).mean() < 0.6


def test_stochastic_depth_rests_at_inference():
    x = np.ones((8, 3, 3, 2), "float32")
    np.testing.assert_array_equal(residual_model(0.9)([x, x], training=False), 2 * x)


def test_no_dropout_layer_at_rate_zero():
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in residual_model(0.0).layers)


def test_classifier_is_float32_under_mixed_precision():
    inputs = keras.Input((4,), dtype="float16")
    options = LayerOptions(SPEC, "mixed_float16")
    model = keras.Model(inputs, classifier(inputs, 3, "softmax", 0.5, options.dtype))
    assert model.output.dtype == "float32"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert model.get_layer("top_dropout").compute_dtype == "float16"
