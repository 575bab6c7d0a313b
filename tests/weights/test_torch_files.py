"""Torch checkpoints and safetensors read without torch, bit for bit; damage is reported.

Files that mean harm are in `test_hostile_weights`.
"""

import pickle
import struct
import zipfile

import numpy as np
import pytest
from weight_files import (
    EMPTY_ORDERED_DICT,
    WRITERS,
    dict_of,
    integer,
    name,
    opcodes_of,
    rebuild,
    state_dict,
    storage,
    tensor,
    text,
    tuple_of,
    write_arrays,
    write_legacy,
    write_safetensors,
    write_zip,
)

from keras_effnet.errors import UserError
from keras_effnet.weights.torch_files import read_state_dict

both_formats = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


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
        assert loaded[key].shape == array.shape
        assert loaded[key].read().dtype == array.dtype
        np.testing.assert_array_equal(loaded[key], array)


@both_formats
def test_views_share_a_storage(write, tmp_path):
    values = np.arange(12, dtype="<f4")
    entries = {
        "tail": tensor("0", values, offset=8, shape=(4,), strides=(1,)),
        "transposed": tensor("0", values, shape=(4, 3), strides=(1, 4)),
        "repeated": tensor("0", values, offset=5, shape=(3,), strides=(0,)),
        "empty": tensor("0", values, shape=(0, 3), strides=(3, 1)),
    }
    loaded = read_state_dict(write(tmp_path / "x.pth", state_dict(entries), {"0": values}))
    np.testing.assert_array_equal(loaded["tail"], [8, 9, 10, 11])
    np.testing.assert_array_equal(loaded["transposed"], values.reshape(3, 4).T)
    np.testing.assert_array_equal(loaded["repeated"], [5, 5, 5])
    assert loaded["empty"].read().shape == (0, 3)


@both_formats
def test_parameters_are_tensors(write, tmp_path):
    values = np.arange(3, dtype="<f4")
    parameter = name("torch._utils", "_rebuild_parameter")
    entry = parameter + tuple_of(tensor("0", values), b"\x88", EMPTY_ORDERED_DICT) + b"R"
    loaded = read_state_dict(write(tmp_path / "x.pth", state_dict({"w": entry}), {"0": values}))
    np.testing.assert_array_equal(loaded["w"], values)


@both_formats
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_among_a_training_scripts_other_things_are_found(write, key, tmp_path):
    """The other things have storages too, which lie before, between and behind those of the weights."""
    state = {"weight": np.arange(6, dtype="<f4"), "bias": np.arange(3, dtype="<f8")}
    others = {"moment": np.ones(5, "<f8"), "step": np.array(7, "<i8")}
    entries, storages = opcodes_of({"moment": others["moment"], **state, "step": others["step"]})
    whole = {
        "epoch": integer(90),
        "best": b"G" + struct.pack(">d", 77.1),
        "optimizer": dict_of({key: entries[key] for key in others}),
        key: EMPTY_ORDERED_DICT + dict_of({key: entries[key] for key in state})[1:],
        "arguments": b"](" + text("--lr") + b"N\x88e",
    }
    loaded = read_state_dict(write(tmp_path / "x.pth", b"\x80\x02" + dict_of(whole) + b".", storages))
    assert list(loaded) == list(state)
    for key, array in state.items():
        np.testing.assert_array_equal(loaded[key], array)


@both_formats
def test_a_state_dicts_metadata_is_passed_over(write, tmp_path):
    values = np.arange(3, dtype="<f4")
    metadata = dict_of({"_metadata": EMPTY_ORDERED_DICT + dict_of({"": dict_of({"version": integer(1)})})[1:]})
    state = state_dict({"w": tensor("0", values)})[:-1] + metadata + b"b."
    loaded = read_state_dict(write(tmp_path / "x.pth", state, {"0": values}))
    assert list(loaded) == ["w"]


def test_the_memo_serves_names_that_come_again(tmp_path):
    """torch.save writes each string and each class once: BINPUT on the first, BINGET afterwards."""
    values = np.arange(4, dtype="<f4")
    kept = text("storage") + b"q\x01" + name("torch", "FloatStorage") + b"q\x02"
    again = b"h\x01h\x02"
    shape, strides = b"K\x02\x85", b"K\x01\x85"
    entries = {
        str(i): rebuild(b"(" + start + text(str(i)) + text("cpu") + b"K\x02tQ", b"K\x00", shape, strides)
        for i, start in enumerate((kept, again))
    }
    path = write_zip(tmp_path / "x.pth", state_dict(entries), {"0": values[:2], "1": values[2:]})
    loaded = read_state_dict(path)
    np.testing.assert_array_equal(loaded["0"], [0, 1])
    np.testing.assert_array_equal(loaded["1"], [2, 3])


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    exact = np.array([1.0, -2.5, 0.15625, 3e38], "<f4").view("<u4") >> 16  # all but the last fit in 8 bits of fraction
    halves = exact.astype("<u2")
    entry = rebuild(storage("0", "BFloat16Storage", 4), integer(0), tuple_of(integer(4)), tuple_of(integer(1)))
    loaded = read_state_dict(write_zip(tmp_path / "x.pth", state_dict({"w": entry}), {"0": halves}))
    np.testing.assert_array_equal(loaded["w"].read()[:3], [1.0, -2.5, 0.15625])
    np.testing.assert_allclose(loaded["w"].read()[3], 3e38, rtol=2**-7)


def test_results_do_not_alias_the_file(tmp_path):
    loaded = read_state_dict(write_arrays(write_zip, tmp_path / "x.pth", {"w": np.ones(3, "<f4")}))
    values = loaded["w"].read()
    values[0] = 5  # a view of the file's bytes would be read-only
    assert values.tolist() == [5, 1, 1]
    assert loaded["w"].read().tolist() == [1, 1, 1]


@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_reads_the_same(protocol, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    state = {"w": torch.randn(3, 4).T, "n": torch.tensor(3), "p": torch.nn.Parameter(torch.randn(2))}
    wrapped = {"epoch": 3, "model": state, "optimizer": {"state": {0: {"m": torch.randn(7).double()}}}}
    for modern in (True, False):
        torch.save(wrapped, tmp_path / "x.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=modern)
        loaded = read_state_dict(tmp_path / "x.pth")
        assert list(loaded) == list(state)
        for key, value in state.items():
            np.testing.assert_array_equal(loaded[key], value.detach().numpy())


# --- damaged files


@both_formats
def test_a_truncated_file_is_a_user_error_wherever_it_ends(write, tmp_path):
    arrays = {"w": np.arange(40, dtype="<f4"), "b": np.arange(3, dtype="<f8")}
    whole = write_arrays(write, tmp_path / "x.pth", arrays).read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "x.pth").write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"x\.pth cannot be read as a torch checkpoint: [^\n]*\.$"):
            read_state_dict(tmp_path / "x.pth")


def test_random_bytes_are_a_user_error(tmp_path):
    for seed in range(50):
        (tmp_path / "x.pth").write_bytes(np.random.default_rng(seed).bytes(400))
        with pytest.raises(UserError):
            read_state_dict(tmp_path / "x.pth")


@both_formats
def test_changed_bytes_never_end_in_another_error(write, tmp_path):
    """Some of them do no harm; the values, for instance, may be anything in the legacy format."""
    rng = np.random.default_rng(0)
    whole = write_arrays(write, tmp_path / "x.pth", {"w": np.arange(4, dtype="<f4")}).read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        (tmp_path / "x.pth").write_bytes(damaged)
        try:
            loaded = read_state_dict(tmp_path / "x.pth")
            assert all(tensor.read().nbytes <= len(whole) for tensor in loaded.values())
        except UserError:
            refused += 1
    assert refused > 20


def zip_without_data(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def zip_without_a_storage(path):
    write_zip(path, state_dict({"w": tensor("0", np.zeros(3, "<f4"))}), {})


def legacy_without_a_storage(path):
    write_legacy(path, state_dict({"w": tensor("0", np.zeros(3, "<f4"))}), {})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), r"it is empty\.$"),
        (zip_without_data, r"it lacks data\.pkl\.$"),
        (zip_without_a_storage, r"it lacks archive/data/0\.$"),
        (legacy_without_a_storage, r"storage 0 does not have the claimed size\.$"),
        (lambda path: path.write_bytes(pickle.dumps([1, 2, 3])), r"its first bytes are not torch's\.$"),
        (
            lambda path: write_zip(path, b"\x80\x02](K\x01K\x02e.", {}),
            r"it holds another object where a dict should be",
        ),
        (lambda path: path.write_text("<html>Not found</html>"), r"it is damaged \(at position 0, opcode b'<' unknown"),
    ],
    ids=["empty", "a zip of something", "no storage", "no storage, legacy", "a list", "a list in a zip", "a web page"],
)
def test_what_is_no_checkpoint_says_why(write, message, tmp_path):
    write(tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        read_state_dict(tmp_path / "x.pth")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "absent.pth")


# --- safetensors


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_come_back_bit_by_bit(tmp_path):
    single, half = np.arange(6, dtype="<f4").reshape(2, 3) / 7, np.array([0.5, -1.25], "<f2")
    upper = (np.array([1.0, -2.5], "<f4").view("<u4") >> 16).astype("<u2")
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("F32", [2, 3], 0, 24),
        "a": entry("F16", [2], 24, 28),
        "brain": entry("BF16", [2, 1], 28, 32),
        "count": entry("I64", [], 32, 40),
        "none": entry("F32", [0, 4], 40, 40),
    }
    values = single.tobytes() + half.tobytes() + upper.tobytes() + np.int64(7).tobytes()
    loaded = read_state_dict(write_safetensors(tmp_path / "x.safetensors", header, values))
    assert list(loaded) == ["b", "a", "brain", "count", "none"]
    np.testing.assert_array_equal(loaded["b"], single)
    np.testing.assert_array_equal(loaded["a"], half)
    np.testing.assert_array_equal(loaded["brain"], [[1.0], [-2.5]])
    assert loaded["count"].read() == 7
    assert loaded["none"].read().shape == (0, 4)


def test_safetensors_may_lie_in_another_order_than_they_are_listed(tmp_path):
    header = {"b": entry("F32", [1], 4, 8), "a": entry("F32", [1], 0, 4)}
    loaded = read_state_dict(write_safetensors(tmp_path / "x.safetensors", header, np.array([1, 2], "<f4").tobytes()))
    assert (loaded["a"].read(), loaded["b"].read()) == (1, 2)


TWO = np.zeros(2, "<f4").tobytes()
WRONG = {
    "begins beyond the end": ({"w": entry("F32", [2], 4, 12)}, "overlap, leave gaps or reach beyond"),
    "begins before the values": ({"w": entry("F32", [2], -8, 0)}, "overlap, leave gaps or reach beyond"),
    "overlapping": ({"v": entry("F32", [2], 0, 8), "w": entry("F32", [1], 4, 8)}, "overlap"),
    "the same bytes twice": ({"v": entry("F32", [2], 0, 8), "w": entry("F32", [2], 0, 8)}, "overlap"),
    "a gap": ({"w": entry("F32", [1], 4, 8)}, "leave gaps"),
    "more values than tensors": ({"w": entry("F32", [1], 0, 4)}, "leave gaps"),
    "end before begin": ({"w": entry("F32", [2], 8, 0)}, "the shape of w does not match its bytes"),
    "larger shape": ({"w": entry("F32", [3], 0, 8)}, "the shape of w does not match its bytes"),
    "huge shape": ({"w": entry("F32", [10**6, 10**6], 0, 8)}, "the shape of w does not match its bytes"),
    "negative shape": ({"w": entry("F32", [-1, -2], 0, 8)}, "the shape of w does not match its bytes"),
    "unknown dtype": ({"w": entry("F8_E4M3", [8], 0, 8)}, "its values have dtype F8_E4M3; known: F64, F32,"),
    "dtype of numpy": ({"w": entry("O", [1], 0, 8)}, "its values have dtype O; known:"),
    "shape of fractions": ({"w": entry("F32", [2.0], 0, 8)}, "it is damaged"),
    "no offsets": ({"w": {"dtype": "F32", "shape": [2]}}, "it is damaged"),
    "a list": ([1, 2], "it is damaged"),
    "no JSON": (b"{'w': 1}", "it is damaged"),
    "nested without end": (b"[" * 100_000, "it is damaged"),
    "the same name twice": (
        b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
        b'"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        "leave gaps",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_safetensors_header_is_refused(case, tmp_path):
    header, message = WRONG[case]
    with pytest.raises(UserError, match=rf"x\.safetensors cannot be read as a torch checkpoint: [^\n]*{message}"):
        read_state_dict(write_safetensors(tmp_path / "x.safetensors", header, TWO))


@pytest.mark.parametrize("length", [1 << 20, 1 << 63, (1 << 64) - 1])
def test_a_header_longer_than_the_file_is_refused(length, tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {"w": entry("F32", [2], 0, 8)}, TWO, length)
    with pytest.raises(UserError, match="it ends within its header"):
        read_state_dict(path)


def test_truncated_safetensors_are_refused_wherever_they_end(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {"w": entry("F32", [2], 0, 8)}, TWO)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"x\.safetensors"):
            read_state_dict(path)
