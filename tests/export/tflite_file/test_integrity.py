"""A damaged file is refused before it is used, with the fault; whole files of every precision pass."""

from __future__ import annotations

import re
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as generated
from tiny_files import tiny_file

from keras_effnet.errors import UserError
from keras_effnet.export import inspect
from keras_effnet.export.tflite_file.flatbuffer import MalformedError, Reader, schema
from keras_effnet.export.tflite_file.integrity import checked
from keras_effnet.export.tflite_file.layout import _UNIONS, TABLES
from keras_effnet.export.tflite_file.schema import bits_of, pack, parse

WHOLE = tiny_file(
    {
        "x": ("float32", (1, 8, 8, 3)),
        "w": ("int8", (4, 3)),
        "y": ("float32", (1, 8, 8, 4)),
        "z": ("float32", (1, 8, 8, 4)),
    },
    [("CONV_2D", "x w", "y"), ("RELU", "y", "z")],
    "x",
    "z",
    stored="w",
    metadata=b"anything",
)


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        checked(content, "x.tflite")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("x.tflite is ")
    return message


def test_whole_files_pass(exported):
    checked(WHOLE, "x")
    for result in exported.values():
        checked(result.path.read_bytes(), "x")


def test_bytes_after_the_flatbuffer_are_no_damage():
    """MediaPipe reads labels from a zip archive there."""
    checked(WHOLE + b"PK and so on", "x")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "it is a web page or XML"),
        (b"PK\x03\x04" + bytes(60), "it is a zip archive, like a .keras file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "it is an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer without its file"),
        (b"\x00\x01\x02", "it does not begin like one"),
    ],
)
def test_a_file_of_another_kind_is_said_to_be_one(content, what):
    assert refusal(content) == f"x.tflite is not a .tflite file: {what}."


def test_a_keras_file_under_the_wrong_name_is_a_zip_archive():
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    assert "a zip archive, like a .keras file" in refusal(archive.getvalue())


def test_every_truncation_is_refused():
    end = len(WHOLE)
    for size in range(8, end - 8, 4):
        assert "damaged" in refusal(WHOLE[:size])


def tensor(model, number=0):
    return model.subgraphs[0].tensors[number]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda m: setattr(tensor(m, 2), "buffer", 999), "tensor 2 refers to buffer 999 of 3"),
        (lambda m: setattr(tensor(m), "type", 99), "tensor 0 has type 99, which this runtime does not know"),
        (lambda m: setattr(tensor(m), "shape", [1, -8, 8, 3]), r"tensor 0 has the shape \[1, -8, 8, 3\]"),
        (lambda m: setattr(tensor(m), "shape", [2**30] * 4), "tensor 0 has the shape .* more than"),
        (lambda m: setattr(tensor(m), "shape", [1] * 50), "tensor 0 has 50 dimensions"),
        (lambda m: setattr(tensor(m), "shapeSignature", [-2, 8, 8, 3]), r"tensor 0 has the shape .*signature \[-2, 8"),
        (
            lambda m: setattr(tensor(m), "shapeSignature", [-1, 8, 3]),
            "tensor 0 has 4 dimensions, but 3 in its signature",
        ),
        (
            lambda m: setattr(tensor(m, 1), "shape", [5, 3]),
            r"tensor 1 is stored in 12 bytes, but int8 \[5, 3\] takes 15",
        ),
        (
            lambda m: setattr(tensor(m, 1).quantization, "zeroPoint", [1, 2, 3]),
            "tensor 1 has 1 scales, but 3 zero points",
        ),
        (lambda m: setattr(tensor(m, 1).quantization, "scale", [np.nan]), "tensor 1 has a scale of nan"),
        (lambda m: setattr(tensor(m, 1).quantization, "scale", [-1.0]), "tensor 1 has a scale of -1"),
        (
            lambda m: vars(tensor(m, 1).quantization).update(scale=[1.0] * 3, zeroPoint=[0] * 3),
            "tensor 1 has 3 scales along",
        ),
        (lambda m: setattr(m.subgraphs[0].operators[1], "opcodeIndex", 7), "operator 1 refers to operator code 7 of 2"),
        (
            lambda m: setattr(m.subgraphs[0].operators[1], "inputs", [44]),
            r"operator 1 \(RELU\) refers to tensor 44 of 4",
        ),
        (
            lambda m: setattr(m.subgraphs[0].operators[1], "outputs", [-2]),
            r"operator 1 \(RELU\) refers to tensor -2 of 4",
        ),
        (
            lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [3, 1]),
            r"operator 0 \(CONV_2D\) reads tensor 3 before it is computed",
        ),
        (
            lambda m: setattr(m.subgraphs[0].operators[0], "outputs", [1]),
            r"operator 0 \(CONV_2D\) overwrites the constant tensor 1",
        ),
        (lambda m: m.subgraphs[0].operators.pop(), "output 3 is never computed"),
        (lambda m: setattr(m.subgraphs[0], "inputs", [-1]), "an input is tensor -1 of 4"),
        (lambda m: setattr(m.subgraphs[0], "outputs", [4]), "an output is tensor 4 of 4"),
        (lambda m: setattr(m.operatorCodes[0], "builtinCode", 9999), "operator code 0 is 9999, which"),
        (
            lambda m: setattr(m.operatorCodes[0], "builtinCode", 32),
            "operator code 0 is a custom operator without a name",
        ),
        (lambda m: setattr(m.metadata[0], "buffer", 50), "metadata 0 refers to buffer 50 of 3"),
        (lambda m: vars(m.buffers[1]).update(offset=900, size=10**9), "buffer 1 ends at byte 1,000,000,900 of"),
        (lambda m: setattr(m, "subgraphs", []), "it contains no graph"),
        (lambda m: setattr(m, "version", 4), "its schema has version 4, not 3"),
        (lambda m: m.subgraphs.append(damaged_graph()), "in subgraph 1, an output is tensor 9 of 0"),
        (lambda m: setattr(m, "signatureDefs", [signature(3, 0)]), "signature 'run' refers to subgraph 3 of 1"),
        (lambda m: setattr(m, "signatureDefs", [signature(0, 6)]), "signature 'run' refers to tensor 6 of 4"),
    ],
)
def test_the_fault_is_named(damage, fault):
    model = parse(WHOLE)
    damage(model)
    assert re.search(f"is damaged: {fault}", refusal(pack(model))), refusal(pack(model))


def damaged_graph():
    graph = generated.SubGraphT()
    graph.outputs = [9]
    return graph


def signature(subgraph: int, index: int):
    made, entry = generated.SignatureDefT(), generated.TensorMapT()
    entry.name, entry.tensorIndex = b"x", index
    made.signatureKey, made.subgraphIndex, made.inputs = b"run", subgraph, [entry]
    return made


def test_a_large_file_is_checked_in_a_moment_and_its_constants_are_not_copied():
    model = parse(WHOLE)
    tensor(model, 1).shape, model.buffers[tensor(model, 1).buffer].data = [100_000_000], np.zeros(100_000_000, "uint8")
    content = pack(model)
    started = time.process_time()
    found = checked(content, "x")
    assert time.process_time() - started < 0.1
    assert not any(buffer.data.flags.owndata for buffer in found.buffers if len(buffer.data))


def test_a_table_that_unfolds_without_end_is_refused():
    """A hundred thousand subgraphs that are all the same graph: as many tables as their tensors together."""
    reader = Reader(shared_tables(2000), schema("Top: children:[Child] Child: children:[Leaf]"), lambda *_: "")
    with pytest.raises(MalformedError, match=r"children\[124\].*is one of more than 250,000 tables"):
        reader.root("Top")


def shared_tables(count: int) -> bytes:
    """A table with a vector of `count` references to one table, which has `count` references to one more."""

    def vector(at: int, target: int) -> bytes:
        return np.array([count, *(target - at - 4 * number for number in range(1, count + 1))], "<u4").tobytes()

    size = 4 + 4 * count
    top, first = 16, 24
    middle, second = first + size, first + size + 8
    leaf = second + size
    return b"".join(
        [
            np.array([top, 0], "<u4").tobytes(),
            np.array([6, 8, 4, 0], "<u2").tobytes(),
            np.array([top - 8, first - top - 4], "<i4").tobytes(),
            vector(first, middle),
            np.array([middle - 8, second - middle - 4], "<i4").tobytes(),
            vector(second, leaf),
            np.array([leaf - 8, 0], "<i4").tobytes(),
        ]
    )


# --- the description of the tables


def reference_slots(table: str) -> set[int]:
    """Slots of a table that hold offsets, from LiteRT's generated builder."""
    source = Path(generated.__file__).read_text()
    slots = re.findall(
        rf"^def {table}Add(\w+)\(builder, \w+\):\s+builder\.PrependUOffsetTRelativeSlot\((\d+),", source, re.MULTILINE
    )
    return {int(slot) for _, slot in slots}


def tables() -> list[str]:
    return re.findall(r"^def (\w+)Start\(builder\):", Path(generated.__file__).read_text(), re.MULTILINE)


def test_every_offset_of_the_schema_is_followed():
    read = {"Table": set()} | {
        name: {
            slot
            for slot, one in enumerate(fields)
            if one and (one.vector or one.kind[0].isupper() or one.kind in ("string", "union"))
        }
        for name, fields in TABLES.items()
    }
    assert len(tables()) > 150
    assert {name: reference_slots(name) for name in tables()} == {name: read.get(name, set()) for name in tables()}


def test_scalars_have_the_width_of_the_schema():
    widths = {"u8": "Uint8", "i8": "Int8", "bool": "Bool", "u32": "Uint32", "i32": "Int32", "u64": "Uint64"}
    source = Path(generated.__file__).read_text()
    for table, fields in TABLES.items():
        for slot, one in enumerate(fields):
            if one and not one.vector and one.kind in widths:
                assert re.search(
                    rf"^def {table}Add\w+\(builder, \w+\):\s+builder\.Prepend{widths[one.kind]}Slot\({slot},",
                    source,
                    re.MULTILINE,
                ), (table, one)


def test_unions_are_enumerations_of_the_schema():
    assert all(hasattr(generated, enum) for enum in _UNIONS.values())


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("float32", 32), ("float8_e4m3fn", 8), ("int4", 4), ("bool", 8), ("bfloat16", 16), ("string", 0)],
)
def test_bits_of_an_element(dtype, bits):
    assert bits_of(dtype) == bits


def test_inspection_names_the_file(tmp_path):
    (tmp_path / "half.tflite").write_bytes(WHOLE[: len(WHOLE) // 2])
    with pytest.raises(UserError, match=r"half\.tflite is damaged: .*outside of the file"):
        inspect(tmp_path / "half.tflite")
