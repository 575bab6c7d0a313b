"""Tensors of a converted file and the layers that they belong to."""

import pytest

from keras_effnet.export.tflite_file.tensors import layer_of

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
