"""Cost counted from specs, from built models, and by TensorFlow's own profiler."""

import json
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import ArchitectureSpec, StageSpec
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "efficientnet.json").read_text())
ALL = GOLDEN["models"] | GOLDEN["v2"] | GOLDEN["baselines"]

TINY = {
    "tiny b0": architecture_spec("b0", depth=0.2, width=0.25, image_size=64),
    "tiny lite": architecture_spec("lite0", depth=0.2, width=0.25, image_size=36),
    "tiny resnet": architecture_spec("resnet18", depth=0.5, width=0.125, image_size=40),
    "tiny bottleneck": architecture_spec("resnet50", depth=0.5, width=0.125, image_size=50),
    "tiny wide bottleneck": architecture_spec("wide_resnet50", depth=0.2, width=0.25, image_size=32),
    "tiny preact": architecture_spec("wide_resnet28", depth=0.5, width=2, image_size=34),
    "tiny preact with head": architecture_spec("wide_resnet28", depth=0.25, head=32, padding="symmetric"),
    "tiny v2": architecture_spec("v2-b0", depth=0.2, width=0.25, image_size=50),
    "tiny b0, symmetric": architecture_spec("b0", depth=0.2, width=0.25, image_size=50, padding="symmetric"),
}


def having(figure):
    return [name for name in ALL if figure in ALL[name]]


def built(spec, **options):
    from keras_effnet.models.efficientnet import build

    return build(spec, **options)


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_the_published_ones(name):
    assert count(architecture_spec(name)).params == ALL[name]["params"]


@pytest.mark.parametrize("name", having("total_params"))
def test_total_parameters_include_the_statistics_of_batch_normalization(name):
    assert count(architecture_spec(name)).total_params == ALL[name]["total_params"]


@pytest.mark.parametrize("name", having("macs"))
def test_macs_are_exact(name):
    assert count(architecture_spec(name)).macs == ALL[name]["macs"]


@pytest.mark.parametrize("name", having("activations"))
def test_activations_are_exact(name):
    assert count(architecture_spec(name)).activations == ALL[name]["activations"]


@pytest.mark.parametrize("name", GOLDEN["published_wide_resnets"])
def test_wide_resnets_have_the_millions_of_parameters_that_their_paper_says(name):
    depth, width = map(int, name.split("-"))
    # 6 n + 4 layers; 28 have n = 4 at depth 1.
    spec = architecture_spec("wide_resnet28", depth=(depth - 4) / 24, width=width)
    assert round(count(spec, classes=10).params / 1e6, 1) == GOLDEN["published_wide_resnets"][name]


def test_wrn_28_10_counted_by_hand():
    cost = count(architecture_spec("wide_resnet28", width=10), classes=10)
    stem = 27 * 16
    convs = 0
    norms = 640  # the last, before the pooling
    for before, after in ((16, 160), (160, 320), (320, 640)):
        convs += 9 * before * after + 7 * 9 * after * after + before * after  # 8 convolutions and a projection
        norms += before + 7 * after  # one before each of the 8
    assert cost.params == stem + convs + 2 * norms + 640 * 10 + 10 == 36_479_194
    assert cost.total_params == cost.params + 2 * norms


@pytest.mark.parametrize("name", having("paper_gmacs"))
def test_macs_are_the_papers_flops(name):
    # Within 5%: the paper rounds to two digits and counts at a slightly different input for some networks.
    assert count(architecture_spec(name)).macs / 1e9 == pytest.approx(ALL[name]["paper_gmacs"], rel=0.05)


@pytest.mark.parametrize("name", having("torchvision_gmacs"))
def test_macs_round_to_torchvisions_count(name):
    published = ALL[name]["torchvision_gmacs"]
    digits = len(str(published).split(".")[1])
    assert round(count(architecture_spec(name)).macs / 1e9, digits) == published


def test_a_network_small_enough_to_count_by_hand():
    stages = (StageSpec(3, 2, 2, 16, 1, se_ratio=0.25),)
    spec = ArchitectureSpec(name="hand", stages=stages, stem=8, head=0, image_size=32)
    cost = count(spec, classes=10)
    stem = 3 * 3 * 3 * 8  # at 16 x 16
    expand = 8 * 16  # at 16 x 16
    depthwise = 3 * 3 * 16  # at 8 x 8
    squeeze = (16 * 2 + 2) + (2 * 16 + 16)  # 0.25 x 8 channels in, on one position, with bias
    project = 16 * 16  # at 8 x 8
    dense = 16 * 10 + 10
    assert cost.macs == 256 * (stem + expand) + 64 * (depthwise + project) + squeeze + dense
    normalized = 8 + 16 + 16 + 16
    assert cost.params == stem + expand + depthwise + squeeze + project + dense + 2 * normalized
    assert cost.total_params == cost.params + 2 * normalized
    assert cost.activations == 256 * (8 + 16) + 64 * (16 + 16) + 2 + 16 + 10


@pytest.mark.parametrize("name", ["b0", "b7", "lite3", "resnet18"])
def test_blocks_sum_to_the_total(name):
    cost = count(architecture_spec(name))
    assert sum(block.macs for block in cost.blocks) == cost.macs
    assert sum(block.params for block in cost.blocks) == cost.params
    assert sum(block.activations for block in cost.blocks) == cost.activations
    assert sum(block.params + block.non_trainable for block in cost.blocks) == cost.total_params


def test_blocks_are_stem_blocks_head_and_classifier():
    names = [block.name for block in count(architecture_spec("b0")).blocks]
    assert (names[0], names[1], names[-2], names[-1]) == ("stem_conv", "block1a", "top_conv", "predictions")
    assert len(names) == 16 + 3


def test_flops_are_twice_the_macs():
    assert count(architecture_spec("b0")).flops == 2 * 385_825_092


def test_classes_change_the_classifier_alone():
    spec = architecture_spec("b0")
    ten, none = count(spec, classes=10), count(spec, include_top=False)
    assert count(spec).params - none.params == 1280 * 1000 + 1000
    assert ten.params - none.params == 1280 * 10 + 10
    assert ten.macs - none.macs == 1280 * 10 + 10


def test_image_size_changes_macs_and_not_parameters():
    spec = architecture_spec("resnet18")
    small, large = count(spec, image_size=128, include_top=False), count(spec, image_size=256, include_top=False)
    assert large.macs == 4 * small.macs
    assert large.params == small.params


@pytest.mark.parametrize("dims", [(2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1.5, 1.5), (3, 2, 0.5), (1, 0.5, 1)])
def test_macs_grow_with_depth_times_width_and_resolution_squared(dims):
    """The scaling law, on the blocks of ResNet-18, where nothing but the strided convolutions escapes it."""
    depth, width, resolution = dims
    base = count(architecture_spec("resnet18"), include_top=False).macs
    scaled = count(architecture_spec("resnet18", depth=depth, width=width, resolution=resolution), include_top=False)
    growth = scaled.macs / base
    law = depth * width**2 * resolution**2
    # The stem (6% of the cost) neither deepens nor widens on its input side; strided blocks do not multiply either.
    assert growth == pytest.approx(law, rel=0.16 if depth > 1 or width != 1 else 0.001)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_depth_adds_equal_blocks(depth):
    """Exact where rounding plays no part: each unit of depth adds two unstrided blocks to each stage."""
    macs = [count(architecture_spec("resnet18", depth=d)).macs for d in (1, 2, depth)]
    assert macs[2] - macs[0] == (depth - 1) * (macs[1] - macs[0])


@pytest.mark.parametrize("name", TINY)
def test_a_built_model_costs_what_its_spec_says(name):
    spec = TINY[name]
    from_spec, from_model = count(spec, classes=7), count(built(spec, classes=7))
    for figure in ("macs", "params", "activations", "total_params"):
        assert getattr(from_model, figure) == getattr(from_spec, figure), figure


def test_total_parameters_are_keras_own_count():
    model = built(TINY["tiny b0"], include_preprocessing=False)
    assert count(model).total_params == model.count_params()


def test_nested_models_are_counted_too():
    import keras

    inner = built(TINY["tiny lite"], include_top=False, input_shape=(36, 36, 3))
    outer = keras.Sequential([keras.Input((36, 36, 3)), inner, keras.layers.GlobalAveragePooling2D()])
    assert count(outer).macs == count(TINY["tiny lite"], include_top=False).macs


def test_a_nested_model_that_is_called_twice_counts_twice():
    import keras

    images = [keras.Input((8, 8, 3)) for _ in range(2)]
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
    pair = keras.Model(images, keras.layers.Concatenate()([inner(image) for image in images]))
    assert count(pair).macs == 2 * count(inner).macs == 2 * 36 * (27 + 1) * 4


def test_models_without_a_graph_are_refused():
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2, name="scores")

        def call(self, x):
            return self.dense(x)

    called, image = Own(), keras.Input((4,))
    called(np.zeros((1, 4)))
    for model in (called, keras.Model(image, called(image)), keras.Sequential([keras.layers.Dense(2, name="scores")])):
        with pytest.raises(UserError, match=r"Layer 'scores' is called outside of a graph"):
            count(model)


def test_freezing_changes_what_is_trained_and_not_what_it_costs():
    model = built(TINY["tiny lite"], classes=7)
    before = count(model)
    model.trainable = False
    after = count(model)
    assert after.params == 0
    assert after.macs == before.macs
    assert after.total_params == before.total_params


def test_tensorflows_profiler_agrees():
    """An independent count: half the floating point operations of the graph's convolutions and matrix products."""
    import tensorflow as tf

    from keras_effnet.system.output import captured_output

    spec = TINY["tiny b0"]
    model = built(spec)
    size = spec.image_size
    traced = tf.function(lambda x: model(x, training=False))
    graph = traced.get_concrete_function(tf.TensorSpec((1, size, size, 3))).graph
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output().build()
    with captured_output():
        profile = profiler.profile(graph, run_meta=tf.compat.v1.RunMetadata(), cmd="op", options=options)

    flops = {}
    nodes = [profile]
    while nodes:
        node = nodes.pop()
        flops[node.name] = node.float_ops
        nodes.extend(node.children)
    multiplying = sum(flops.get(name, 0) for name in ("Conv2D", "DepthwiseConv2dNative", "MatMul"))
    assert flops["Conv2D"] > 0 and flops["DepthwiseConv2dNative"] > 0 and flops["MatMul"] > 0
    ours = count(model)
    biases = 1000 + sum(layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D" and layer.use_bias)
    assert multiplying / 2 == ours.macs - biases


def test_a_name_is_refused_with_the_cure():
    with pytest.raises(UserError, match=r"got str; turn a name into a spec with architecture_spec\(name\)"):
        count("b0")


def test_a_model_of_no_fixed_size_is_refused():
    model = built(TINY["tiny lite"], include_top=False, input_shape=(None, None, 3))
    with pytest.raises(UserError, match=r"Layer 'stem_conv' has no fixed size; build the model with an input_shape"):
        count(model)


# --- models of other making


@pytest.mark.parametrize(("name", "published"), [("ConvNeXtTiny", 4.47), ("Xception", 8.4)])
def test_networks_of_others_have_the_published_macs(name, published):
    """Dense on a feature map and separable convolutions: 0.32 and 0.65 billion were counted."""
    import keras

    with keras.StatelessScope():  # without values for the weights
        model = getattr(keras.applications, name)(weights=None)
        assert count(model).macs / 1e9 == pytest.approx(published, rel=0.01)


def layered(*layers, shape=(8, 6, 4)):
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


FOREIGN = ("dense on a map", "separable", "transposed", "groups", "depthwise", "elementwise", "normalization")


def foreign():
    """Layers on an image of 8 x 6 pixels and 4 channels, with the MACs of each worked out by hand."""
    from keras import layers

    return {
        "dense on a map": (layers.Dense(3), 48 * (4 * 3 + 3)),
        "separable": (layers.SeparableConv2D(5, 3, padding="same"), 48 * (9 * 4 + 4 * 5 + 5)),
        "transposed": (layers.Conv2DTranspose(5, 3, strides=2, padding="same"), 48 * 9 * 4 * 5 + 4 * 48 * 5),
        "groups": (layers.Conv2D(6, 3, groups=2, use_bias=False), 6 * 4 * 9 * 2 * 6),
        "depthwise": (layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 4 * (9 * 8 + 8)),
        "elementwise": (layers.PReLU(), 0),
        "normalization": (layers.LayerNormalization(axis=(1, 2, 3)), 0),
    }


@pytest.mark.parametrize("name", FOREIGN)
def test_layers_that_this_package_does_not_use_are_counted(name):
    layer, macs = foreign()[name]
    assert count(layered(layer)).macs == macs


def uncountable():
    import keras
    from keras.layers import LSTM, Dense, Dot, MultiHeadAttention, TimeDistributed

    image = keras.Input((4, 6))
    scores = keras.ops.matmul(image, keras.ops.transpose(image, (0, 2, 1)))
    return {
        "'lstm' (LSTM)": layered(LSTM(3, name="lstm"), shape=(5, 4)),
        "'mha' (MultiHeadAttention)": keras.Model(image, MultiHeadAttention(2, 3, name="mha")(image, image)),
        "'dot' (Dot)": keras.Model(image, Dot(2, name="dot")([image, image])),
        " (Matmul)": keras.Sequential([keras.Input((4, 6)), keras.Model(image, scores)]),
        "'each' (TimeDistributed)": layered(TimeDistributed(Dense(2), name="each"), shape=(5, 4)),
    }


def test_a_layer_whose_macs_are_unknown_is_named():
    for name, model in uncountable().items():
        with pytest.raises(UserError) as caught:
            count(model)
        assert f"{name} cannot be counted" in str(caught.value)
