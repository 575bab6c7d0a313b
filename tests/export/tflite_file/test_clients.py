"""Supported runtimes of a file: every rule reports its own cause and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from ai_edge_litert import schema_py_generated as schema
from client_verdicts import VERDICTS
from exports import PRECISIONS
from tiny_files import normalisation_metadata, tiny_file

from keras_effnet.export.tflite_file import clients
from keras_effnet.export.tflite_file.clients import (
    ACCEPTS,
    CORE_ML,
    CPU,
    EDGE_TPU,
    GPU,
    GPU_DELEGATE,
    IN_PART,
    MEDIAPIPE,
    MICRO,
    NNAPI,
    REFUSES,
    TFJS,
    WASM,
    WEBGPU,
    judge,
)
from keras_effnet.export.tflite_file.clients.conditions import unpacked_weights
from keras_effnet.export.tflite_file.graph import Graph, Operator, Tensor, read_graph
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.export.tflite_file.metadata.tables import RUNTIME_ENTRY

IMAGE, SCORES = (1, 8, 8, 3), (1, 5)


def expected(content: bytes) -> dict[str, tuple[str, str]]:
    """Client -> verdict and reasons in one line."""
    return {one.client: (one.expected, "; ".join(one.reasons)) for one in judge(read_graph(content))}


def classifier(
    dtype="float32", weights=None, output=None, image=IMAGE, scores=SCORES, kind="FULLY_CONNECTED", **options
):
    """A file of one layer."""
    tensors = {"image": (dtype, image), "w": (weights or dtype, (5, 192)), "scores": (output or dtype, scores)}
    return tiny_file(tensors, [(kind, "image w", "scores")], "image", "scores", stored="w", **options)


def test_every_client_is_judged_and_says_where_its_rules_come_from():
    assert set(expected(classifier())) == set(clients.CLIENTS)
    assert {rule.client for rule in clients.RULES} == set(clients.CLIENTS)
    assert all(rule.source for rule in clients.RULES) and all(client.source for client in clients.CLIENTS.values())
    trials = [client.tried for client in clients.CLIENTS.values() if client.tried]
    assert trials and all(re.search(r"\d+\.\w", trial) for trial in trials)  # the version that was tried


@pytest.mark.parametrize(
    ("content", "client", "cure"),
    [
        (classifier("int16", weights="int8"), GPU, "--quantize int8 or float16"),
        (classifier(weights="int8"), MICRO, "--quantize int8"),
        (classifier(), EDGE_TPU, "--quantize int8 --input-type uint8"),
        (classifier("uint8"), CORE_ML, "--quantize float16"),
        (classifier("int8"), MEDIAPIPE, "--quantize int8 --input-type uint8"),
    ],
)
def test_a_refusal_names_the_options_that_cure_it_and_its_source(content, client, cure):
    (verdict,) = (one for one in judge(read_graph(content)) if one.client == client)
    assert verdict.expected == REFUSES and verdict.cures[0] == cure
    assert verdict.tried == bool(clients.CLIENTS[client].tried)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_verdicts_on_exported_files(exported, precision):
    result = exported[precision]
    verdicts = {one.client: one.expected for one in inspect(result.path).clients}
    assert verdicts == {client: row[precision, result.input_type] for client, row in VERDICTS.items()}


@pytest.mark.parametrize("runtime", ["2.4.0", "2.17.0"])
def test_tfjs_refuses_operators_that_are_newer_than_itself(runtime):
    graph = read_graph(classifier())
    graph = replace(graph, metadata={RUNTIME_ENTRY: runtime.encode().ljust(16, b"\0")})
    (verdict,) = (one for one in judge(graph) if one.client == TFJS)
    assert verdict.expected == (REFUSES if runtime == "2.17.0" else ACCEPTS)


def test_a_float_file_is_for_all_but_integer_accelerators():
    verdicts = expected(classifier(metadata=normalisation_metadata()))
    assert {client for client, (verdict, _) in verdicts.items() if verdict == ACCEPTS} == set(clients.CLIENTS) - {
        EDGE_TPU
    }
    assert verdicts[EDGE_TPU] == (REFUSES, "float activations; only 8-bit integers are supported")


def test_a_uint8_file_in_integers_throughout_is_for_all_but_core_ml():
    verdicts = expected(classifier("uint8"))
    assert {client for client, (verdict, _) in verdicts.items() if verdict != ACCEPTS} == {CORE_ML}
    assert (
        verdicts[CORE_ML][1] == "integer activations; only operators in float are supported, the others stay on the CPU"
    )


@pytest.mark.parametrize("client", [WASM, WEBGPU, TFJS, MEDIAPIPE])
def test_signed_bytes_are_refused_as_input_and_as_output(client):
    verdict, reasons = expected(classifier("int8"))[client]
    assert verdict == REFUSES
    assert "input is int8" in reasons and "output is int8" in reasons


@pytest.mark.parametrize("metadata", [None, normalisation_metadata(kind=2)])
def test_mediapipe_wants_the_normalisation_of_a_float_input(metadata):
    assert expected(classifier(metadata=metadata))[MEDIAPIPE] == (
        REFUSES,
        "float32 input without NormalizationOptions in the metadata",
    )


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"image": (1, 8, 8, 1)}, "input [1, 8, 8, 1] is not one RGB image"),
        ({"image": (4, 8, 8, 3)}, "input [4, 8, 8, 3] is not one RGB image"),
        ({"scores": (5,)}, "output [5] is neither [1, N] nor [1, 1, 1, N]"),
    ],
)
def test_mediapipe_wants_one_rgb_image_and_scores(wrong, reason):
    verdict, reasons = expected(classifier("uint8", **wrong))[MEDIAPIPE]
    assert verdict == REFUSES and reason in reasons


def test_a_batch_that_is_not_fixed_is_refused_by_browsers_and_compilers():
    verdicts = expected(classifier("uint8", image=(-1, 8, 8, 3)))
    assert verdicts[WASM] == (REFUSES, "image [-1, 8, 8, 3] is not fixed, including the batch")
    assert verdicts[EDGE_TPU] == (REFUSES, "image [-1, 8, 8, 3] is not fixed when the file is compiled")
    assert verdicts[CPU] == verdicts[MEDIAPIPE] == (ACCEPTS, "")


def test_weights_in_integers_under_float_are_for_cpus():
    verdicts = expected(classifier(weights="int8"))
    found = {client: verdict for client, (verdict, _) in verdicts.items()}
    assert (found[CPU], found[GPU], found[GPU_DELEGATE], found[MICRO]) == (ACCEPTS, ACCEPTS, IN_PART, REFUSES)
    assert verdicts[CPU][1].startswith("int8 weights with float activations are slower than float32: XNNPACK")
    assert found[CORE_ML] == REFUSES and found[NNAPI] == IN_PART
    assert "FULLY_CONNECTED have int8 weights and float activations" in verdicts[MICRO][1]


def test_weights_that_are_unpacked_per_channel_are_for_cpus():
    verdicts = expected(_weight_only())
    accepting = {client for client, (verdict, _) in verdicts.items() if verdict == ACCEPTS}
    assert accepting == {CPU, WASM, MEDIAPIPE, TFJS}  # the last refuses the operator's version in a real file
    assert verdicts[MICRO] == (
        REFUSES,
        "int8 weights unpacked to float32: it uses the first channel's scale for all, so its scores are wrong",
    )
    assert verdicts[GPU][0] == verdicts[CORE_ML][0] == REFUSES and verdicts[WEBGPU][0] == IN_PART


def _weight_only() -> bytes:
    tensors = {"image": ("float32", IMAGE), "w8": ("int8", (5, 192)), "w": ("float32", (5, 192))}
    steps = [("DEQUANTIZE", "w8", "w"), ("FULLY_CONNECTED", "image w", "scores")]
    return tiny_file(
        tensors | {"scores": ("float32", SCORES)},
        steps,
        "image",
        "scores",
        stored="w8",
        metadata=normalisation_metadata(),
    )


def test_float16_weights_have_no_kernel_on_microcontrollers(exported):
    verdicts = expected(exported["float16"].path.read_bytes())
    assert verdicts[GPU] == verdicts[CPU] == (ACCEPTS, "")
    assert verdicts[MICRO] == (REFUSES, "float16 weights: its DEQUANTIZE supports integer inputs only")
    small = expected(exported["weight_only"].path.read_bytes())[MICRO]  # its smallest kernels
    assert small[0] == REFUSES and small[1].startswith(verdicts[MICRO][1])


def test_sixteen_bits_are_slow_on_cpus_and_refused_elsewhere():
    verdicts = expected(classifier("int16", weights="int8"))
    assert (verdicts[CPU][0], verdicts[GPU][0], verdicts[EDGE_TPU][0]) == (IN_PART, REFUSES, REFUSES)
    assert verdicts[EDGE_TPU][1] == "int16 activations; only 8-bit integers are supported"


def test_a_float_softmax_stays_on_the_cpu_of_an_accelerator(exported):
    assert expected(exported["int8"].path.read_bytes())[EDGE_TPU] == (
        IN_PART,
        "DEQUANTIZE, SOFTMAX compute in float: they and all operators after them stay on the CPU; "
        "QUANTIZE of the input may stay on the CPU",
    )


def test_an_operator_that_a_delegate_lacks_is_named():
    verdicts = expected(classifier("uint8", kind="GATHER_ND"))
    assert verdicts[GPU] == (IN_PART, "GATHER_ND stay on the CPU, with a copy in each direction")
    assert verdicts[EDGE_TPU] == (IN_PART, "GATHER_ND and all operators after them stay on the CPU")
    assert verdicts[MICRO][0] == ACCEPTS
    assert expected(classifier("uint8", kind="TILE"))[MICRO] == (REFUSES, "TILE have no kernel")


def test_operators_of_tensorflow_are_refused_everywhere():
    verdicts = expected(classifier("uint8", kind="FlexMatrixInverse"))
    assert {verdict for verdict, _ in verdicts.values()} == {REFUSES}
    assert "FlexMatrixInverse" in verdicts[CPU][1]


def test_reasons_name_a_few_operators_and_count_the_others():
    names = [f"Own{number}" for number in range(6)]
    tensors = {"image": ("uint8", IMAGE), "scores": ("uint8", SCORES)}
    content = tiny_file(tensors, [(name, "image", "scores") for name in names], "image", "scores")
    assert expected(content)[CPU][1].startswith("Own0, Own1, Own2, Own3 and 2 more are not builtin operators")


# --- the lists of operators, against what is published elsewhere

# tensorflow.org/lite/performance/gpu, the delegate's list for users
DOCUMENTED_GPU = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXP FULLY_CONNECTED LOGICAL_AND LOGISTIC LSTM MAX_POOL_2D
MAXIMUM MINIMUM MUL PAD PRELU RELU RELU6 RESHAPE RESIZE_BILINEAR SOFTMAX STRIDED_SLICE SUB TRANSPOSE_CONV
"""
# developer.axis.com, ARTPEC-7: a camera's list for the same accelerator
DOCUMENTED_NPU = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC LSTM
MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE
RESIZE_BILINEAR
"""


@pytest.mark.parametrize("supported", [clients.GPU_OPERATORS, clients.EDGE_TPU_OPERATORS, clients.MICRO_OPERATORS])
def test_the_lists_hold_names_of_the_schema(supported):
    assert supported <= set(vars(schema.BuiltinOperator))


def test_the_lists_hold_what_is_documented():
    assert set(DOCUMENTED_GPU.split()) <= clients.GPU_OPERATORS
    assert set(DOCUMENTED_NPU.split()) <= clients.EDGE_TPU_OPERATORS


def test_weights_of_the_logits_alone_are_unpacked_weights_too():
    shapes = {"image": "int8", "kernel": "int8", "unpacked": "float32", "features": "float32", "logits": "float32"}
    tensors = tuple(Tensor(name, dtype, (1, 4), (1, 4), stored=name == "kernel") for name, dtype in shapes.items())
    dequantized = Operator("DEQUANTIZE", (0,), (3,))
    dense = Operator("FULLY_CONNECTED", (3, 2), (4,))
    assert unpacked_weights(Graph(tensors, (Operator("DEQUANTIZE", (1,), (2,)), dequantized, dense), (0,), (4,)))
    assert not unpacked_weights(Graph(tensors, (dequantized,), (0,), (3,)))
