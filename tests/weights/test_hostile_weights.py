"""Hostile and damaged weights files: a one-line error, no code run, bounded memory, an unchanged model.

Each file is made here, byte by byte, so that none lies about in the repository.
"""

import os
import pickle
import resource
import shutil
import struct
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from weight_files import (
    EMPTY_ORDERED_DICT,
    LEGACY_MAGIC,
    TINY_LITE,
    WRITERS,
    integer,
    lite_arrays,
    name,
    opcodes_of,
    rebuild,
    same_weights,
    save_legacy_weights,
    scrambled,
    state_dict,
    storage,
    tensor,
    text,
    tiny,
    tuple_of,
    write_arrays,
    write_safe_arrays,
    write_safetensors,
    write_zip,
)

from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.weights.loading import load_weights

LIMIT = 100 << 20  # bytes: the network has 2 MB of weights, a bomb unpacks to a thousand times that
GOOD = ("x.pth", "x.safetensors", "x.h5", "x.weights.h5", "x.keras")


@pytest.fixture(scope="module")
def model():
    return scrambled(tiny(TINY_LITE))


@pytest.fixture(scope="module")
def arrays(model):
    return lite_arrays(model)


@pytest.fixture(scope="module")
def good(model, arrays, tmp_path_factory):
    """A folder with a sound file of each format, with values of their own."""
    folder = tmp_path_factory.mktemp("good")
    source = scrambled(tiny(TINY_LITE), seed=7)
    source.save(folder / "x.keras")
    source.save_weights(folder / "x.weights.h5")
    save_legacy_weights(source, folder / "x.h5")
    write_arrays(write_zip, folder / "x.pth", arrays)
    floating = {key: array for key, array in arrays.items() if array.dtype == "<f4"}
    write_safe_arrays(folder / "x.safetensors", floating)
    return folder


@pytest.fixture
def victim(tmp_path):
    """A file that is not there, and would be if code from a file ran."""
    return tmp_path / "victim"


@pytest.fixture
def refusal(model, victim):
    """Function from a file to the line that says why it was refused; nothing else has happened."""

    def load(path):
        before, resident = model.get_weights(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        try:
            with pytest.raises(UserError) as error:
                load_weights(model, path)
            assert tracemalloc.get_traced_memory()[1] < LIMIT
        finally:
            tracemalloc.stop()
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) << 10 < LIMIT  # HDF5's own memory too
        assert same_weights(before, model.get_weights())
        assert not victim.exists()
        message = str(error.value)
        assert message.isprintable() and len(message) < 600
        assert path.name in message
        return message

    return load


@pytest.mark.parametrize("file", GOOD)
def test_a_sound_file_of_each_format_loads(file, good):
    """Otherwise its refusals would prove nothing."""
    model = tiny(TINY_LITE)
    before = model.get_weights()
    load_weights(model, good / file)
    assert not any(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


# --- broken files


@pytest.mark.parametrize("file", GOOD)
def test_a_file_that_breaks_off_is_refused_wherever_it_ends(file, good, refusal, tmp_path):
    whole = (good / file).read_bytes()
    for share in (0, 1e-5, 1e-3, 0.02, 0.5, 0.9, 0.999):
        (tmp_path / file).write_bytes(whole[: int(len(whole) * share)])
        message = refusal(tmp_path / file)
        assert share or "it is empty" in message
    (tmp_path / file).write_bytes(whole[:-1])
    refusal(tmp_path / file)


@pytest.mark.parametrize("file", GOOD)
def test_a_web_page_under_the_files_name_is_refused(file, refusal, tmp_path):
    """What a download without a look at the status leaves."""
    (tmp_path / file).write_text("<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n" * 50)
    assert "cannot be read as" in refusal(tmp_path / file)


@pytest.mark.parametrize("file", GOOD)
@pytest.mark.parametrize("other", GOOD)
def test_a_file_under_another_formats_name_does_no_harm(file, other, model, good, refusal, tmp_path):
    if file == other or {file, other} == {"x.h5", "x.weights.h5"}:
        return
    shutil.copy(good / file, tmp_path / other)
    refusal(tmp_path / other)


# --- pickles


class Shell:
    """Runs a command where a pickle is trusted."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def as_value(opcodes):
    """A state dict with an object of these opcodes in it."""
    return state_dict({"w": opcodes})


def doubled(first, make, times=64):
    """Opcodes of an object of 2^64 elements: each level holds the one before twice, by reference."""
    opcodes = first
    for level in range(times):
        again = b"h" + bytes([level])
        opcodes += b"q" + bytes([level]) + make(again + again)
    return tuple_of(opcodes)


LIST_BOMB = doubled(b"]", lambda twice: b"](" + twice + b"e")
TUPLE_BOMB = doubled(b")", lambda twice: twice + b"\x86")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def pickles(victim):
    """What each would do -> pickle."""
    command, code = f"touch {victim}", text(f"open({str(victim)!r}, 'w')")
    system = pickle.dumps(Shell(command), 2)
    setting = text("__defaults__") + tuple_of(code)
    return {
        "os.system": system,
        "os.system as a value": as_value(system[2:-1]),
        "os.system in the newest protocol": pickle.dumps({"w": Shell(command)}, pickle.HIGHEST_PROTOCOL),
        "os.system as text": pickle.dumps(Shell(command), 0),
        "eval": b"\x80\x02" + name("builtins", "eval") + tuple_of(code) + b"R.",
        "eval by Python 2's name": b"\x80\x02" + name("__builtin__", "eval") + tuple_of(code) + b"R.",
        "eval by getattr": b"\x80\x02"
        + name("builtins", "getattr")
        + tuple_of(name("builtins", "__dict__"), text("eval"))
        + b"R"
        + tuple_of(code)
        + b"R.",
        "exec by instance": b"(" + code + b"ibuiltins\nexec\n.",
        "exec by object": b"(" + name("builtins", "exec") + code + b"o.",
        "a new object": b"\x80\x02" + name("subprocess", "Popen") + tuple_of(text(command)) + b"\x81.",
        "an extension": b"\x80\x02\x82\x01.",
        "numpy.load": b"\x80\x02" + name("numpy", "load") + tuple_of(text(str(victim))) + b"R.",
        "torch.load": b"\x80\x02" + name("torch", "load") + tuple_of(text(str(victim))) + b"R.",
        "an attribute of a known name": b"\x80\x04"
        + text("collections")
        + text("OrderedDict.fromkeys")
        + b"\x93"
        + tuple_of(b"]")
        + b"R.",
        "a name of two lines that clears the screen": b"\x80\x04" + text("a\nb\x1b[2J") + text("c\r" * 999) + b"\x93.",
        "a name that is a bomb": b"\x80\x04" + TUPLE_BOMB + text("x") + b"\x93.",
        "attributes of a function": b"\x80\x02" + REBUILD + b"N}" + setting + b"s\x86b.",
        "attributes of a class": b"\x80\x02" + name("torch", "FloatStorage") + b"}" + setting + b"sb.",
        "attributes of a tensor": as_value(
            tensor("0", np.zeros(1, "<f4")) + b"}" + text("__setstate__") + REBUILD + b"sb"
        ),
        "a function in place of a method": b"\x80\x02" + EMPTY_ORDERED_DICT + b"}" + text("items") + REBUILD + b"sb.",
        "a call of a string": as_value(text("eval") + tuple_of(code) + b"R"),
        "a tensor of a string": as_value(REBUILD + tuple_of(code) + b"R"),
        "a parameter of a string": as_value(name("torch._utils", "_rebuild_parameter") + tuple_of(code) + b"R"),
        "an ordered dict of something": as_value(name("collections", "OrderedDict") + tuple_of(LIST_BOMB) + b"R"),
        "lists within lists": as_value(LIST_BOMB),
        "lists within lists alone": b"\x80\x02" + LIST_BOMB + b".",
        "a list within itself": as_value(b"]q\x00h\x00a"),
        "a dict within itself": b"\x80\x02}q\x00" + text("state_dict") + b"h\x00s.",
        "tuples within tuples as a key": b"\x80\x02}" + TUPLE_BOMB + b"Ns.",
        "a dict of no names": b"\x80\x02}" + b")" + b"Ns.",
        "a persistent id that is a module": as_value(
            tuple_of(text("module"), text("a"), text("b"), text("c"), integer(1)) + b"Q"
        ),
        "a persistent id that is a string": as_value(text("storage") + b"Q"),
        "a persistent id that is text": as_value(b"Pstorage\n"),
        "a persistent id that is a bomb": as_value(tuple_of(LIST_BOMB, b"N", b"N", b"N", b"N") + b"Q"),
        "a storage whose key is a bomb": as_value(
            tuple_of(text("storage"), name("torch", "FloatStorage"), TUPLE_BOMB, text("cpu"), integer(1)) + b"Q"
        ),
        "a storage of Python objects": as_value(
            tuple_of(text("storage"), text("O"), text("0"), text("cpu"), integer(1)) + b"Q"
        ),
        "a storage that is part of another": as_value(
            storage("0", "FloatStorage", 4, tuple_of(text("0"), integer(2), integer(2)))
        ),
        "nothing on the stack": b"\x80\x02R.",
        "no end": b"\x80\x02" + EMPTY_ORDERED_DICT,
        "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xff" + b"a" * 100,
        "a number of a million digits": b"\x80\x02I" + b"9" * 10**6 + b"\n.",
    }


@pytest.mark.parametrize("attack", pickles(Path("victim")))
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_hostile_pickle_is_refused_and_runs_nothing(write, attack, victim, refusal, tmp_path):
    refusal(write(tmp_path / "x.pth", pickles(victim)[attack], {}))


def test_the_bombs_are_bombs():
    """Printing, comparing or hashing objects nested this deep would never end."""
    for bomb in (LIST_BOMB, TUPLE_BOMB):
        levels = pickle.loads(b"\x80\x02" + bomb + b".")
        assert len(levels) == 65
        assert levels[64][0] is levels[64][1] is levels[63]


@pytest.mark.parametrize("attack", ["os.system", "eval", "exec by instance", "exec by object"])
def test_the_hostile_pickles_do_harm_where_pickles_are_trusted(attack, victim):
    """Otherwise the test above would prove nothing."""
    pickle.loads(pickles(victim)[attack])
    assert victim.exists()


@pytest.mark.parametrize("place", range(5), ids=["magic", "protocol", "machine", "state", "keys"])
def test_each_pickle_of_a_legacy_file_is_read_with_the_same_care(place, victim, refusal, tmp_path):
    parts = [pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {}, {}, [])]
    parts[place] = pickle.dumps(Shell(f"touch {victim}"), 2)
    (tmp_path / "x.pth").write_bytes(b"".join(parts))
    assert "it asks for posix.system, which no state dict needs; refused" in refusal(tmp_path / "x.pth")


def test_a_whole_model_is_refused_with_the_cure(refusal, tmp_path):
    """What `torch.save(model)` writes begins with the model's class."""
    state = b"\x80\x02" + name("torchvision.models.efficientnet", "EfficientNet") + b")\x81}b."
    message = refusal(write_zip(tmp_path / "x.pth", state, {}))
    assert "it asks for torchvision.models.efficientnet.EfficientNet, which no state dict needs" in message
    assert message.endswith("refused, save the model's state_dict() alone.")


# --- tensors that are not what they say


def big(value):
    """The opcode of an integer of any size."""
    encoded = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + encoded


def view(offset=0, shape=(4,), strides=(1,), size=4, kind="FloatStorage"):
    """A tensor of the storage "0", of four numbers."""
    numbers = [big(offset), tuple_of(*map(big, shape)), tuple_of(*map(big, strides))]
    stored = tuple_of(text("storage"), name("torch", kind), text("0"), text("cpu"), big(size)) + b"Q"
    return rebuild(stored, *numbers)


VIEWS = {
    "too long": view(shape=(5,)),
    "beyond the end": view(offset=3, shape=(2,)),
    "before the beginning": view(offset=-1, shape=(1,)),
    "backwards": view(offset=3, strides=(-1,)),
    "wide apart": view(shape=(2, 2), strides=(4, 1)),
    "very wide apart": view(shape=(2,), strides=(1 << 62,)),
    "one number a million million times": view(shape=(10**6, 10**6), strides=(0, 0)),
    "nothing very often": view(offset=4, shape=(10**12,), strides=(0,)),
    "a negative shape": view(shape=(-2, -2), strides=(1, 1)),
    "shape and strides of two ranks": view(shape=(4,), strides=(1, 1)),
    "a larger storage than there is": view(size=400, shape=(400,)),
    "a smaller storage than there is": view(size=2, shape=(2,)),
    "a storage of negative size": view(size=-4),
    "a storage of 2^62 numbers": view(size=1 << 62),
    "wider numbers than there are": view(kind="DoubleStorage"),
    "a shape of fractions": rebuild(
        storage("0", "FloatStorage", 4), integer(0), tuple_of(b"G" + struct.pack(">d", 4)), tuple_of(integer(1))
    ),
    "a shape of strings": rebuild(storage("0", "FloatStorage", 4), integer(0), tuple_of(text("4")), tuple_of(text(""))),
    "a shape that is a bomb": rebuild(storage("0", "FloatStorage", 4), integer(0), LIST_BOMB, LIST_BOMB),
}


@pytest.mark.parametrize("case", VIEWS)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_tensor_that_claims_what_it_has_not_is_refused(write, case, refusal, tmp_path):
    """numpy's as_strided would read the memory beside it."""
    path = write(tmp_path / "x.pth", as_value(VIEWS[case]), {"0": np.arange(4, dtype="<f4")})
    assert "cannot be read as a torch checkpoint" in refusal(path)


def test_one_wrong_tensor_among_many_changes_nothing(arrays, refusal, tmp_path):
    entries, storages = opcodes_of(arrays)
    key = next(iter(entries))
    shape, number = arrays[key].shape, next(iter(storages))
    entries[key] = tensor(number, storages[number], shape=shape, strides=(1 << 20,) * len(shape))
    assert "reaches outside its storage" in refusal(write_zip(tmp_path / "x.pth", state_dict(entries), storages))


def test_numbers_that_are_no_weights_are_refused_before_the_first_is_assigned(arrays, refusal, tmp_path):
    for kind in ("<i8", "|u1"):
        last = {**arrays, "_fc.bias": np.ones(arrays["_fc.bias"].shape, kind)}
        message = refusal(write_arrays(write_zip, tmp_path / "x.pth", last))
        assert message == "x.pth does not hold floating-point numbers in predictions: is it quantized?"


# --- archives


FOUR_BYTES = as_value(tensor("0", np.zeros(4, "u1")))


def deflate_bomb(path, member):
    """A zip in which one member unpacks to a gigabyte of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = megabyte * 1024 + packer.flush()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, packed)
        if member != "archive/data.pkl":
            archive.writestr("archive/data.pkl", FOUR_BYTES)
        directory = archive.fp.tell()
    data = bytearray(path.read_bytes())
    for header, method, size in ((0, 8, 22), (directory, 10, 24)):  # zipfile stored it: say otherwise
        struct.pack_into("<H", data, header + method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", data, header + size, 1 << 30)
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        assert not any(stream.read(1 << 20))
    return path


@pytest.mark.parametrize(
    ("file", "member"),
    [("x.pth", "archive/data.pkl"), ("x.pth", "archive/data/0"), ("x.keras", "model.weights.h5")],
)
def test_a_zip_bomb_is_not_unpacked(file, member, refusal, tmp_path):
    assert f"{member} in it is compressed" in refusal(deflate_bomb(tmp_path / file, member))


def matryoshka(path, size=1 << 20, levels=200):
    """A checkpoint in which each storage's bytes are the next member, header and all: `levels` times its own size."""
    content, lengths, directory, ends = bytes(size), [], [], []
    for level in range(levels):
        member = f"archive/data/{level}".encode()
        sizes = struct.pack("<IIIHH", zlib.crc32(content), len(content), len(content), len(member), 0)
        lengths.append(len(content))
        content = b"PK\3\4" + struct.pack("<HHHHH", 20, 0, 0, 0, 0) + sizes + member + content
        directory.append((b"PK\1\2" + struct.pack("<HHHHHH", 20, 20, 0, 0, 0, 0) + sizes, member))
        ends.append(len(content))
    entries = {
        str(level): rebuild(
            storage(str(level), "ByteStorage", length), integer(0), tuple_of(integer(1)), tuple_of(integer(1))
        )
        for level, length in enumerate(lengths)
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", state_dict(entries))
    whole = path.read_bytes()
    start = whole.index(b"PK\1\2")
    central = whole[start : whole.index(b"PK\5\6")] + b"".join(
        head + struct.pack("<HHHII", 0, 0, 0, 0, start + len(content) - end) + member
        for (head, member), end in zip(directory, ends, strict=True)
    )
    tail = struct.pack("<HHHHIIH", 0, 0, levels + 1, levels + 1, len(central), start + len(content), 0)
    path.write_bytes(whole[:start] + content + central + b"PK\5\6" + tail)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == levels + 1
        member = archive.getinfo("archive/data/7")
    at = member.header_offset + 30 + len(member.filename)  # not `open`: newer Pythons refuse members that overlap
    assert path.read_bytes()[at : at + 4] == b"PK\3\4"
    return path


def test_members_that_share_their_bytes_are_refused(refusal, tmp_path):
    assert "its members are larger than the whole file; refused" in refusal(matryoshka(tmp_path / "x.pth"))


@pytest.mark.parametrize("file", ["x.pth", "x.keras"])
def test_a_member_that_claims_gigabytes_is_refused(file, good, refusal, tmp_path):
    data = bytearray((good / file).read_bytes())
    place = -1
    while (place := data.find(b"PK\1\2", place + 1)) >= 0:
        struct.pack_into("<II", data, place + 20, 0xFFFFFFF0, 0xFFFFFFF0)
    (tmp_path / file).write_bytes(data)
    assert "its members are larger than the whole file; refused" in refusal(tmp_path / file)


@pytest.mark.parametrize("file", ["x.pth", "x.keras"])
def test_names_that_lead_out_of_an_archive_lead_nowhere(file, good, model, victim, tmp_path):
    shutil.copy(good / file, tmp_path / file)
    with zipfile.ZipFile(tmp_path / file, "a") as archive:
        for outside in (str(victim), "../victim", "../../victim"):
            archive.writestr(outside, "here")
    load_weights(model, tmp_path / file)
    assert not victim.exists() and not (tmp_path.parent / "victim").exists()


def test_an_archive_without_weights_says_so(refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "it lacks model.weights.h5." in refusal(tmp_path / "x.keras")


# --- HDF5, which points to other files and claims sizes that it has not

KERNEL, LAYER = "stem_conv/stem_conv/kernel", "stem_conv"


def replaced(make):
    """A change of a legacy file that puts another dataset in the place of the stem's kernel."""

    def change(file, folder):
        group = file[LAYER]
        path = group.attrs["weight_names"][0]
        shape = group[path].shape
        del group[path]
        make(group, path, shape, folder)

    return change


def virtual(group, path, shape, folder):
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "kernel", shape)
    group.create_virtual_dataset(path, layout)


def huge_chunk(group, path, shape, folder):
    """Numbers in one chunk of half a gigabyte, of which all but a few lie beyond the shape."""
    group.create_dataset(path, shape, "f4", maxshape=(None,) * 4, chunks=(8, 256, 256, 256), compression="gzip")


def linked(link):
    def change(file, folder):
        del file[LAYER]
        file[LAYER] = link(folder)

    return change


def attribute(key, value, place="/"):
    def change(file, folder):
        del file[place].attrs[key]
        if value is not None:
            file[place].attrs[key] = value

    return change


def path_of(text):
    """A change of the path at which the stem's kernel is said to lie."""
    return attribute("weight_names", [text], LAYER)


LEGACY = {
    "no layer_names": (attribute("layer_names", None), "has no layer_names"),
    "layer_names is a number": (attribute("layer_names", 5), "layer_names of / is not a list of names"),
    "layer_names are numbers": (attribute("layer_names", [1.5, 2.5]), "layer_names of / is not a list of names"),
    "layer_names in a table": (attribute("layer_names", [[b"a"], [b"b"]]), "layer_names of / is not a list of names"),
    "layer_names is nothing": (attribute("layer_names", h5py.Empty("f4")), "layer_names of / is not a list of names"),
    "layer_names is one text": (attribute("layer_names", "stem_conv"), "layer_names of / is not a list of names"),
    "layer_names are not UTF-8": (attribute("layer_names", [b"\xff\xfe"]), "x.h5 cannot be read as Keras weights"),
    "no weight_names": (attribute("weight_names", None, LAYER), "/stem_conv has no weight_names"),
    "a group is missing": (lambda file, _: file.__delitem__(LAYER), "it lacks /stem_conv"),
    "a dataset is missing": (replaced(lambda *_: None), "it lacks /stem_conv/"),
    "a dataset for a group": (
        lambda file, _: (file.__delitem__(LAYER), file.create_dataset(LAYER, data=1.0)),
        "/stem_conv is no group",
    ),
    "a group for a dataset": (
        replaced(lambda group, path, *_: group.create_group(path)),
        "does not hold floating-point",
    ),
    "a path to nowhere": (path_of(""), "x.h5 cannot be read as Keras weights"),
    "a path to itself": (path_of("."), "x.h5 cannot be read as Keras weights"),
    "a path out of its group": (path_of("../stem_bn/stem_bn/gamma"), "it lacks /stem_conv/."),
    "a path with a zero byte": (path_of(np.bytes_(b"a\0b")), "x.h5 cannot be read as Keras weights"),
    "an external link": (linked(lambda f: h5py.ExternalLink(str(f / "other.h5"), "/")), "is a link"),
    "a soft link": (linked(lambda _: h5py.SoftLink("/stem_bn")), "/stem_conv is a link"),
    "external values": (
        replaced(
            lambda group, path, shape, folder: group.create_dataset(
                path, shape, "f4", external=[(str(folder / "other.bin"), 0, h5py.h5f.UNLIMITED)]
            )
        ),
        "stores its values in another file; refused",
    ),
    "virtual values": (replaced(virtual), "stores its values in another file; refused"),
    "a million million zeros": (
        replaced(lambda group, path, *_: group.create_dataset(path, (10**6, 10**6), "f4", fillvalue=1)),
        "its stem_conv has (1000000, 1000000) instead of (3, 3, 3, 32)",
    ),
    "an endless rank": (
        replaced(lambda group, path, *_: group.create_dataset(path, (1,) * 32, "f4")),
        "its stem_conv has (1, 1, 1, ",
    ),
    "compressed": (
        replaced(lambda group, path, shape, _: group.create_dataset(path, shape, "f4", compression="gzip")),
        "is chunked or compressed, unlike anything that Keras writes; refused",
    ),
    "a chunk of half a gigabyte": (replaced(huge_chunk), "is chunked or compressed"),
    "whole numbers": (
        replaced(lambda group, path, shape, _: group.create_dataset(path, shape, "i4")),
        "does not hold floating-point numbers",
    ),
    "texts": (
        replaced(lambda group, path, shape, _: group.create_dataset(path, shape, h5py.string_dtype())),
        "does not hold floating-point numbers",
    ),
    "references": (
        replaced(lambda group, path, shape, _: group.create_dataset(path, shape, h5py.ref_dtype)),
        "does not hold floating-point numbers",
    ),
    "records": (
        replaced(lambda group, path, shape, _: group.create_dataset(path, shape, [("a", "f4"), ("b", "f8")])),
        "does not hold floating-point numbers",
    ),
    "nothing": (
        replaced(lambda group, path, *_: group.create_dataset(path, data=h5py.Empty("f4"))),
        "does not hold floating-point numbers",
    ),
}


@pytest.mark.parametrize("case", LEGACY)
def test_a_hostile_legacy_file_is_refused(case, good, refusal, tmp_path):
    change, message = LEGACY[case]
    shutil.copy(good / "x.h5", tmp_path / "x.h5")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.create_dataset("kernel", data=np.ones((3, 3, 3, 32), "f4"))
    (tmp_path / "other.bin").write_bytes(np.ones((3, 3, 3, 32), "f4").tobytes())
    with h5py.File(tmp_path / "x.h5", "a") as file:
        change(file, tmp_path)
    assert message in refusal(tmp_path / "x.h5")


def of_the_stem(file):
    """The group of the stem's variables in a `.weights.h5`."""
    return next(group["vars"] for group in file["layers"].values() if group["vars"].attrs.get("name") == "stem_conv")


def within_itself(file):
    file["layers"].create_group("again")["layers"] = file["layers"]


def doubled_groups(file):
    """Two groups that hold two groups, which are the same two, and so on: 2^64 of them."""
    inner = file.create_group("end/layers")
    for level in range(64):
        outer = file.create_group(f"level{level}/layers")
        outer.create_group("a")["layers"] = inner
        outer.create_group("b")["layers"] = inner
        inner = outer
    file["layers/again/layers"] = inner


def renamed(new):
    def change(file):
        of_the_stem(file).attrs["name"] = new

    return change


TODAY = {
    "no names": (lambda file: of_the_stem(file).attrs.__delitem__("name"), "does not name its layer"),
    "the same name twice": (renamed("stem_bn"), "does not name its layer"),
    "a name of two lines": (renamed("a\nb\x1b[2J"), "it lacks stem_conv; the network has no a b?[2J."),
    "a name without end": (renamed("a" * 60_000), "it lacks stem_conv; the network has no aaa"),
    "a name that is an array": (renamed(np.zeros((9, 9))), "it lacks stem_conv; the network has no [["),
    "variables out of order": (lambda file: of_the_stem(file).move("0", "1"), "it lacks /layers/conv2d/vars/0"),
    "a group within itself": (within_itself, "it contains a group twice, as /layers/"),
    "groups that double": (doubled_groups, "it contains a group twice, as /layers/"),
    "no layers": (lambda file: file.__delitem__("layers"), "has no layer_names"),
    "empty layers": (lambda file: (file.__delitem__("layers"), file.create_group("layers")), "it lacks stem_conv, "),
}


@pytest.mark.parametrize("case", TODAY)
def test_a_hostile_file_of_today_is_refused_also_within_an_archive(case, good, refusal, tmp_path):
    change, message = TODAY[case]
    shutil.copy(good / "x.weights.h5", tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.weights.h5", "a") as file:
        change(file)
    assert message in refusal(tmp_path / "x.weights.h5")
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.write(tmp_path / "x.weights.h5", "model.weights.h5")
    assert message in refusal(tmp_path / "x.keras")


@pytest.mark.parametrize("place", ["layers", "model_weights", "stem_conv", "stem_conv/stem_conv"])
def test_a_link_to_another_file_is_not_even_looked_behind(place, good, refusal, tmp_path):
    """On some machines opening a path does harm. A named pipe detects it: a writer blocks until the pipe is opened."""
    os.mkfifo(tmp_path / "pipe")
    shutil.copy(good / "x.h5", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        if place in file:
            del file[place]
        file[place] = h5py.ExternalLink(str(tmp_path / "pipe"), "/")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"",), daemon=True)
    writer.start()
    assert "is a link; refused" in refusal(tmp_path / "x.h5")
    assert writer.is_alive()
    os.close(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK))
    writer.join(5)


# --- safetensors, whose headers are tested in `test_torch_checkpoint`


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({}, 1 << 62),
        ({"a\nb": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 0]}}, None),
        ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [1 << 40, (1 << 40) + 16]}}, None),
        ({"w": {"dtype": "a\nb" * 999, "shape": [4], "data_offsets": [0, 16]}}, None),
    ],
    ids=["a header of exabytes", "a tensor of terabytes", "values far away", "a dtype of two lines"],
)
def test_hostile_safetensors_are_refused(header, length, refusal, tmp_path):
    refusal(write_safetensors(tmp_path / "x.safetensors", header, bytes(16), length))


# --- where users meet them


def test_a_builder_refuses_as_the_loader_does(victim, tmp_path):
    path = write_zip(tmp_path / "x.pth", pickles(victim)["os.system"], {})
    with pytest.raises(UserError, match=r"x\.pth cannot be read as a torch checkpoint: it asks for posix\.system"):
        EfficientNet(TINY_LITE, weights=str(path))
    assert not victim.exists()


def test_the_command_line_refuses_in_one_line(victim, cli, tmp_path):
    path = write_zip(tmp_path / "x.pth", pickles(victim)["eval"], {})
    outcome = cli("train", "digits", "--model", "lite0", "--depth", 0.2, "--width", 0.25, "--weights", path)
    assert outcome.status == 2
    assert "builtins.eval" in outcome.err and "Traceback" not in outcome.err
    assert not victim.exists()
