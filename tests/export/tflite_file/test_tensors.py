"""Tensors of a converted file and the layers that they belong to."""

import keras
import pytest

from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import layer_of, output_tensors

LAYERS = {"stem_conv", "stem_bn", "stem_activation", "block1a_se_squeeze"}
FUSED = b"net_1/stem_activation_1/Relu6;net_1/stem_bn_1/add_1;net_1/stem_conv_1/convolution"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        (FUSED, "stem_activation"),  # of several fused operations, the first is the one whose output it is
        ("net/stem_conv/convolution", "stem_conv"),
        ("net/stem_bn_12/add_1", "stem_bn"),  # a scope that was entered before is numbered
        ("net/block1a_se_squeeze/Mean", "block1a_se_squeeze"),
        ("serving_default_image:0", None),
        ("net/another_conv/convolution;net/stem_conv/convolution", None),
    ],
)
def test_a_tensor_belongs_to_the_layer_whose_output_it_is(name, layer):
    assert layer_of(name, LAYERS) == layer


def test_layers_with_the_names_that_keras_gives_are_told_apart():
    """Keras opens each layer's scope twice, so that the operations of `act` lie in `act_1`, the name of another."""
    x = image = keras.Input((8, 8, 3))
    for number, end in enumerate(("", "_1", "_2"), start=1):
        x = keras.layers.Conv2D(number, 1, name=f"conv{end}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{end}")(x)
        x = keras.layers.Activation("swish", name=f"act{end}")(x)
    content = convert(keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)))
    shapes = [tensor.shape[-1] for tensor in parse(content).subgraphs[0].tensors]
    found = output_tensors(content, {f"{kind}{end}" for kind in ("conv", "act") for end in ("", "_1", "_2")})
    assert {name: shapes[index] for name, index in found.items()} == {
        f"{kind}{end}": number for number, end in enumerate(("", "_1", "_2"), start=1) for kind in ("conv", "act")
    }
