"""Writers of weights files, valid and hostile, byte by byte: both formats of torch, and safetensors.

Neither torch nor the package's readers are used, so what the tests expect comes from the formats alone.
"""

import json
import pickle
import struct
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import keras
import numpy as np

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.models.efficientnet import EfficientNet

STORAGES = {
    "<f4": "FloatStorage",
    "<f8": "DoubleStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "|i1": "CharStorage",
    "|u1": "ByteStorage",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def save_legacy_weights(model: keras.Model, path: Path) -> Path:
    """Save weights as Keras 2 did in `.h5`: the group of weights in the whole-model file that Keras 3 writes."""
    with TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.h5")
        with h5py.File(Path(folder) / "model.h5") as whole, h5py.File(path, "w") as file:
            weights = whole["model_weights"]
            file.attrs.update(weights.attrs)
            for name in weights:
                whole.copy(weights[name], file, name)
    return path


# --- networks small enough to build by the dozen

TINY = architecture_spec("b0", depth=0.2, width=0.25, image_size=32)
TINY_LITE = architecture_spec("lite0", depth=0.2, width=0.25, image_size=32)


def tiny(spec=TINY, **options):
    return EfficientNet(spec, **{"classes": 10} | options)


def scrambled(model, seed=0):
    """The model with values of its own in every variable, of the size that a trained network has."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(rng.uniform(0.7, 1.4, shape))
        elif len(shape) < 2:
            variable.assign(rng.normal(size=shape) * 0.1)
        else:
            inputs = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1])  # a depthwise kernel sees one channel
            variable.assign(rng.normal(size=shape) * (2 / inputs) ** 0.5)
    return model


def images(channels=3, size=32, highest=255):
    """Two noisy images, a dark one and a bright one, which a network must distinguish."""
    noise = np.random.default_rng(0).uniform(0, highest, (2, size, size, channels))
    return (noise * [[[[0.3]]], [[[1.0]]]]).astype("float32")


def answer(model, pixels):
    """Predictions for two images; a prediction that does not depend on them would prove nothing."""
    answers = np.asarray(model(pixels, training=False))
    assert np.abs(answers[0] - answers[1]).max() > 0.1
    return answers


def same_weights(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def lite_arrays(model, seed=0):
    """Random arrays for a Lite network, under the names and with the axes of the torch packages that publish it."""
    outer = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}
    outer["predictions"] = "_fc"
    inner = {"expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv", "bn": "_bn1"}
    inner |= {"project_conv": "_project_conv", "project_bn": "_bn2"}
    rng = np.random.default_rng(seed)
    arrays, blocks = {}, []
    for layer in model.layers:
        if not layer.weights:
            continue
        block, _, part = layer.name.partition("_")
        if block.startswith("block") and block not in blocks:
            blocks.append(block)
        prefix = f"_blocks.{blocks.index(block)}.{inner[part]}" if block in blocks else outer[layer.name]
        kind = type(layer).__name__
        if kind == "BatchNormalization":
            for each in ("weight", "bias", "running_mean", "running_var"):
                arrays[f"{prefix}.{each}"] = rng.uniform(0.5, 1.5, layer.gamma.shape).astype("<f4")
            arrays[f"{prefix}.num_batches_tracked"] = np.array(3, "<i8")
            continue
        axes = {"Dense": (1, 0), "Conv2D": (3, 2, 0, 1), "DepthwiseConv2D": (2, 3, 0, 1)}[kind]
        shape = [layer.kernel.shape[axis] for axis in axes]
        arrays[f"{prefix}.weight"] = rng.normal(size=shape).astype("<f4")
        if layer.use_bias:
            arrays[f"{prefix}.bias"] = rng.normal(size=shape[0]).astype("<f4")
    return arrays


# --- torch's two formats, opcode by opcode (pickle protocol 2)


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


EMPTY_ORDERED_DICT = name("collections", "OrderedDict") + b")R"


def storage(key, kind, size, *more):
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), integer(size), *more) + b"Q"


def rebuild(stored, offset, shape, strides):
    """The opcodes that make a view of a storage; offset, shape and strides come as opcodes too."""
    arguments = tuple_of(stored, offset, shape, strides, b"\x89", EMPTY_ORDERED_DICT)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def tensor(key, array, offset=0, shape=None, strides=None, size=None):
    """The opcodes that rebuild a view of the storage `key`."""
    shape = array.shape if shape is None else shape
    strides = [step // array.itemsize for step in array.strides] if strides is None else strides
    stored = storage(key, STORAGES[array.dtype.str], array.size if size is None else size)
    return rebuild(stored, integer(offset), tuple_of(*map(integer, shape)), tuple_of(*map(integer, strides)))


def dict_of(entries):
    """The opcodes of a plain dict with these opcodes as values."""
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def state_dict(entries):
    return b"\x80\x02" + EMPTY_ORDERED_DICT + dict_of(entries)[1:] + b"."


def write_zip(path, state, storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", state)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path, state, storages):
    header = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {"little_endian": True}))
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(header + state + pickle.dumps(list(storages), 2) + data)
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}


def opcodes_of(arrays):
    """Opcodes of one tensor an array, each with a storage of its own, and the storages."""
    storages = {str(i): np.array(array, order="C") for i, array in enumerate(arrays.values())}
    return {key: tensor(i, array) for (i, array), key in zip(storages.items(), arrays, strict=True)}, storages


def write_arrays(write, path, arrays):
    """A checkpoint of one storage per array."""
    entries, storages = opcodes_of(arrays)
    return write(path, state_dict(entries), storages)


# --- safetensors: length of the header, header, values


def write_safetensors(path, header, values=b"", length=None):
    """A file with any header: a dict, or bytes as they are."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded) if length is None else length) + encoded + values)
    return path


def write_safe_arrays(path, arrays):
    header, end = {}, 0
    for key, array in arrays.items():
        header[key] = {"dtype": "F32", "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    return write_safetensors(path, header, b"".join(array.tobytes() for array in arrays.values()))
