"""effdet's names for the tensors of a detector, and strictness about them.

`test_effdet_peer` compares outputs where effdet is installed; here a few names were read off its checkpoints.
"""

import json
import struct

import numpy as np
import pytest
from small_detector import small_detector

from keras_effnet import EfficientDet, EfficientNet
from keras_effnet.errors import UserError
from keras_effnet.weights.effdet_names import detector_prefixes
from keras_effnet.weights.loading import load_weights
from keras_effnet.weights.torch_layers import _prefixes
from keras_effnet.weights.torch_names import TIMM

NAMES = {
    "p6_conv": "fpn.resample.3.conv.conv",
    "p6_bn": "fpn.resample.3.conv.bn",
    "cell1_p6_td_dwconv": "fpn.cell.0.fnode.0.after_combine.conv.conv_dw",
    "cell1_p3_td_from_p3_conv": "fpn.cell.0.fnode.3.combine.resample.0.conv.conv",
    "cell1_p4_bu_from_p4_bn": "fpn.cell.0.fnode.4.combine.resample.1.conv.bn",
    "cell2_p7_bu_conv": "fpn.cell.1.fnode.7.after_combine.conv.conv_pw",
    "cell2_p5_bu_weight3": "fpn.cell.1.fnode.5.combine.edge_weights#2",
    "class_head1_conv": "class_net.conv_rep.0.conv_pw",
    "box_head1_p7_bn": "box_net.bn_rep.0.4.bn",
    "class_predict_dwconv": "class_net.predict.conv_dw",
}
NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.fixture(scope="module")
def model():
    return EfficientDet(small_detector("det-d0", cells=2))


def state_of(model):
    """The model's weights under effdet's names, by the rules of torch's layers."""
    state: dict[str, np.ndarray] = {}
    backbone = {name: f"backbone.{prefix}" for name, prefix in _prefixes(model, TIMM).items()}
    for name, prefix in (backbone | detector_prefixes(model)).items():
        layer = model.get_layer(name)
        values = layer.get_weights()
        kind = type(layer).__name__
        if kind == "BatchNormalization":
            state |= {f"{prefix}.{part}": value for part, value in zip(NORM, values, strict=True)}
        elif kind == "Dense":
            key, _, place = prefix.partition("#")
            vector = state.setdefault(key, np.zeros(3 if "_bu" in name and "p7" not in name else 2, "float32"))
            vector[int(place)] = values[0].item()
        else:
            axes = (2, 3, 0, 1) if kind == "DepthwiseConv2D" else (3, 2, 0, 1)
            state[f"{prefix}.weight"] = np.ascontiguousarray(values[0].transpose(axes))
            if len(values) > 1:
                state[f"{prefix}.bias"] = values[1]
    return state


def write(path, state):
    header, end = {}, 0
    for name, array in state.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(array.tobytes() for array in state.values()))
    return path


def test_names_are_effdets(model):
    prefixes = detector_prefixes(model)
    assert {name: prefixes[name] for name in NAMES} == NAMES
    assert len(set(prefixes.values())) == len(prefixes)
    weighted = {layer.name for layer in model.layers if layer.weights}
    assert {name for name in weighted - set(prefixes) if not name.startswith(("stem_", "block"))} == set()


@pytest.mark.parametrize("wrapper", ["", "model.", "module."])
def test_a_checkpoint_is_loaded_completely(model, wrapper, tmp_path):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    state = {f"{wrapper}{name}": array for name, array in state_of(model).items()}
    path = write(tmp_path / "tf_efficientdet_d0.safetensors", state)
    wanted = model.get_weights()
    model.set_weights([np.zeros_like(array) for array in wanted])
    load_weights(model, path)
    for found, expected in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("fpn.cell.0.fnode.0.combine.edge_weights"), "lacks cell1_p6_td_weight1"),
        (lambda state: state.pop("backbone.conv_stem.weight"), "lacks stem_conv"),
        (lambda state: state.update({"backbone.extra": np.ones(1, "float32")}), "no backbone.extra"),
        (
            lambda state: state.update({"fpn.cell.9.fnode.0.conv.bias": np.ones(2, "float32")}),
            "no fpn.cell.9",
        ),
    ],
    ids=["no fusion", "no stem", "extra backbone", "extra cell"],
)
def test_what_does_not_fit_is_named_and_changes_nothing(model, change, message, tmp_path):
    state = state_of(model)
    change(state)
    before = model.get_weights()
    with pytest.raises(UserError, match=message):
        load_weights(model, write(tmp_path / "tf_efficientdet_d0.safetensors", state))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_detector_is_no_classifiers_file(model, tmp_path):
    path = write(tmp_path / "tf_efficientdet_d0.safetensors", state_of(model))
    network = EfficientNet(small_detector("det-d0").backbone, input_shape=(32, 32, 3))
    with pytest.raises(UserError, match="is a detector of effdet"):
        load_weights(network, path)
