"""Mapping of torch names: hand-picked pairs for each library, nothing left over and nothing missing.

The names and shapes of whole networks come from the libraries themselves (`golden/make_torch.py`). Which geometry goes
with which library is tested beside the libraries, in `test_torch_peers`.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from weight_files import TINY_LITE, lite_arrays, same_weights, tiny, write_safe_arrays

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.weights.loading import load_weights

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "torch_layouts.json").read_text())["layouts"]

#       our layer               torchvision                     timm                        efficientnet_pytorch
PLACES = """
        stem_conv               features.0.0                    conv_stem                   _conv_stem
        stem_bn                 features.0.1                    bn1                         _bn0
        block1a_dwconv          features.1.0.block.0.0          blocks.0.0.conv_dw          _blocks.0._depthwise_conv
        block1a_bn              features.1.0.block.0.1          blocks.0.0.bn1              _blocks.0._bn1
        block1a_se_reduce       features.1.0.block.1.fc1        blocks.0.0.se.conv_reduce   _blocks.0._se_reduce
        block1a_project_conv    features.1.0.block.2.0          blocks.0.0.conv_pw          _blocks.0._project_conv
        block1a_project_bn      features.1.0.block.2.1          blocks.0.0.bn2              _blocks.0._bn2
        block2b_expand_conv     features.2.1.block.0.0          blocks.1.1.conv_pw          _blocks.2._expand_conv
        block2b_expand_bn       features.2.1.block.0.1          blocks.1.1.bn1              _blocks.2._bn0
        block3a_dwconv          features.3.0.block.1.0          blocks.2.0.conv_dw          _blocks.3._depthwise_conv
        block4c_bn              features.4.2.block.1.1          blocks.3.2.bn2              _blocks.7._bn1
        block5b_se_expand       features.5.1.block.2.fc2        blocks.4.1.se.conv_expand   _blocks.9._se_expand
        block6d_project_conv    features.6.3.block.3.0          blocks.5.3.conv_pwl         _blocks.14._project_conv
        block7a_project_bn      features.7.0.block.3.1          blocks.6.0.bn3              _blocks.15._bn2
        top_conv                features.8.0                    conv_head                   _conv_head
        top_bn                  features.8.1                    bn2                         _bn1
        predictions             classifier.1                    classifier                  _fc
"""
LIBRARIES = {"torchvision": 1, "timm": 2, "efficientnet_pytorch": 3}  # column of the table above
GEOMETRY = {"torchvision": ("symmetric", 1e-5), "timm": ("symmetric", 1e-5), "efficientnet_pytorch": ("same", 1e-3)}
PARTS = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}  # of a batch normalization, in Keras' order


@functools.cache
def b0(padding, bn_epsilon):
    return EfficientNet("b0", padding=padding, bn_epsilon=bn_epsilon)


@pytest.fixture(scope="module", params=LIBRARIES)
def loaded(request, tmp_path_factory):
    """Library, the arrays of its B0 by name, and our B0 which had no numbers at all before it loaded them."""
    library = request.param
    rng = np.random.default_rng(0)
    shapes = next(rows for name, rows in RECORDED.items() if name.startswith(library) and name.endswith("b0"))
    state = {name: rng.uniform(0.5, 1.5, shape).astype("<f4") for name, shape in shapes.items()}
    model = b0(*GEOMETRY[library])
    model.set_weights([np.full(array.shape, np.nan) for array in model.get_weights()])
    load_weights(model, write_safe_arrays(tmp_path_factory.mktemp(library) / "efficientnet_b0.safetensors", state))
    return library, state, model


def test_each_layer_has_its_tensors_with_the_axes_of_keras(loaded):
    library, state, model = loaded
    for row in PLACES.strip().splitlines():
        layer, prefix = model.get_layer(row.split()[0]), row.split()[LIBRARIES[library]]
        if layer.name.endswith("_bn"):
            for part, place in PARTS.items():
                np.testing.assert_array_equal(layer.get_weights()[place], state[f"{prefix}.{part}"])
            continue
        kernel, weight = layer.get_weights()[0], state[f"{prefix}.weight"]
        if kernel.ndim == 2:
            np.testing.assert_array_equal(kernel[:, 3], weight[3])
        elif "dwconv" in layer.name:
            np.testing.assert_array_equal(kernel[0, 2, :, 0], weight[:, 0, 0, 2])
            np.testing.assert_array_equal(kernel[2, 1, 5, 0], weight[5, 0, 2, 1])
        else:
            np.testing.assert_array_equal(kernel[0, -1, 2], weight[:, 2, 0, -1])
        assert len(layer.get_weights()) == 1 + (f"{prefix}.bias" in state)
        if f"{prefix}.bias" in state:
            np.testing.assert_array_equal(layer.get_weights()[1], state[f"{prefix}.bias"])


def test_every_tensor_of_the_file_is_in_the_network_once(loaded):
    _, state, model = loaded
    theirs = np.sort(np.concatenate([array.ravel() for array in state.values()]))
    ours = np.sort(np.concatenate([array.ravel() for array in model.get_weights()]))
    np.testing.assert_array_equal(ours, theirs)  # and so there is no NaN left
    assert ours.size == 5_330_564  # docs: B0 with its BN statistics


# --- what wraps, what lacks, what is too much: on a small network


@pytest.fixture(scope="module")
def model():
    return tiny(TINY_LITE)


@pytest.fixture(scope="module")
def arrays(model):
    return {name: array for name, array in lite_arrays(model).items() if "num_batches" not in name}


def write(folder, arrays):
    return write_safe_arrays(folder / "x.safetensors", arrays)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_what_wraps_a_torch_network_is_taken_off_its_names(wrapper, model, arrays, tmp_path):
    load_weights(model, write(tmp_path, arrays))
    expected = model.get_weights()
    model.set_weights([np.zeros_like(array) for array in expected])
    load_weights(model, write(tmp_path, {f"{wrapper}{name}": array for name, array in arrays.items()}))
    assert same_weights(model.get_weights(), expected)


def test_one_wrapped_name_among_others_is_no_wrapper(model, arrays, tmp_path):
    """Taken off, it would silently replace the tensor of that name."""
    path = write(tmp_path, {**arrays, "module._fc.bias": arrays["_fc.bias"]})
    with pytest.raises(UserError, match=r"the network has no module\._fc\.bias\."):
        load_weights(model, path)


@pytest.mark.parametrize(
    ("change", "report"),
    [
        ({"_blocks.2._bn1.running_var": None}, "its block3a_bn has 3 tensors instead of 4."),
        ({"_blocks.1._expand_conv.weight": None}, "it lacks block2a_expand_conv."),
        ({"_blocks.9._bn1.bias": np.ones(3, "<f4")}, "the network has no _blocks.9._bn1.bias."),
        ({"_bn1.anything": np.ones(3, "<f4")}, "the network has no _bn1.anything."),
        ({"_conv_head.bias": np.ones(320, "<f4")}, "its top_conv has 2 tensors instead of 1."),
        ({"_fc.bias": np.ones(7, "<f4")}, "its predictions has (7,) instead of (10,)."),
        ({"_conv_head.weight": np.ones((4, 4), "<f4")}, "its top_conv has (4, 4) instead of (1, 1, 80, 1280)."),
    ],
    ids=["a statistic lacks", "a layer lacks", "a block too many", "a tensor too many", "a bias", "classes", "rank"],
)
def test_a_checkpoint_that_does_not_fit_is_told_tensor_by_tensor(change, report, model, arrays, tmp_path):
    before = model.get_weights()
    damaged = {name: array + 1 for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(UserError) as error:
        load_weights(model, write(tmp_path, damaged))
    assert report in str(error.value)
    assert same_weights(model.get_weights(), before)


def test_a_network_without_classifier_leaves_the_files_out(model, arrays, tmp_path):
    load_weights(model, write(tmp_path, arrays))
    headless = tiny(TINY_LITE, include_top=False)
    load_weights(headless, write(tmp_path, arrays))
    assert same_weights(headless.get_weights(), model.get_weights()[:-2])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"conv1.weight": np.ones(3, "<f4")}, "its first tensor is conv1.weight."),
        ({"a\nb\x1b[2J" + "c" * 500: np.ones(3, "<f4")}, "its first tensor is a b?[2Jccc"),
        ({}, "it has no tensors."),
    ],
    ids=["resnet", "a name that would clear the screen", "nothing"],
)
def test_a_file_in_no_known_layout_names_the_known_ones(arrays, message, model, tmp_path):
    with pytest.raises(UserError) as error:
        load_weights(model, write(tmp_path, arrays))
    assert "is not an EfficientNet in the layout of efficientnet_pytorch, torchvision, timm: " in str(error.value)
    assert message in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_a_network_of_another_kind_has_no_place_for_an_efficientnet(arrays, tmp_path):
    resnet = EfficientNet(architecture_spec("resnet18", depth=0.5, width=0.125, image_size=32), bn_epsilon=1e-3)
    with pytest.raises(UserError) as error:
        load_weights(resnet, write(tmp_path, arrays))
    print(error.value)
    assert "x.safetensors" in str(error.value)
