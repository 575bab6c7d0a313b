"""Pruning and clustering: the zeros and clusters are in the weights, in the files, and in their compressed size."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_effnet.errors import UserError
from keras_effnet.export import export_tflite
from keras_effnet.export.calibration import load_pictures
from keras_effnet.export.sparsity import Thinned, cluster, compressed_size, kernels, prune
from keras_effnet.export.twin import FineTuning
from keras_effnet.preprocessing import ImageSpec

WHOLE = ("stem_conv", "dwconv")  # the first convolution and depthwise ones


@pytest.fixture(scope="module")
def pruned(trained, digits) -> Thinned:
    return prune(trained.model, digits.train, 0.75, FineTuning(epochs=6, learning_rate=1e-3), samples=400)


@pytest.fixture(scope="module")
def clustered(trained, digits) -> Thinned:
    return cluster(trained.model, digits.train, 16, FineTuning(epochs=1, learning_rate=1e-4), samples=100)


def thinned_out(result: Thinned):
    return [kernel for kernel in result.kernels if not kernel.name.endswith(WHOLE)]


def accuracy(model, digits) -> float:
    pictures = load_pictures(digits.test, ImageSpec.of_model(model), len(digits.test))
    return float(np.mean(model.predict(pictures, verbose=0).argmax(axis=1) == digits.test.labels))


def pointwise_kernels(content: bytes) -> list[np.ndarray]:
    """Kernels of 1x1 convolutions and of the dense layer as the file holds them, output channels first."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph, found = model.subgraphs[0], []
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in (3, 9):  # CONV_2D, FULLY_CONNECTED
            tensor = graph.tensors[operator.inputs[1]]
            kind = {schema.TensorType.INT8: "int8", schema.TensorType.FLOAT32: "float32"}[tensor.type]
            kernel = model.buffers[tensor.buffer].data.view(kind).reshape(tensor.shape)
            if kernel.ndim == 2 or kernel.shape[1:3] == (1, 1):
                found.append(kernel.reshape(len(kernel), -1))
    assert len(found) >= 10
    return found


def exported(model, precision, digits, path) -> bytes:
    export_tflite(model, path, precision, calibration=digits.train, samples=40, allow_degraded=True)
    return path.read_bytes()


def test_three_quarters_of_each_kernel_are_zero_and_the_tender_ones_are_whole(pruned):
    assert len(thinned_out(pruned)) == 15 and len(pruned.kernels) == 23
    for kernel in pruned.kernels:
        assert kernel.zeros == pytest.approx(0 if kernel.name.endswith(WHOLE) else 0.75, abs=0.01), kernel.name
    assert pruned.zeros == pytest.approx(0.70, abs=0.01)


def test_a_pruned_network_still_knows_its_digits(pruned, digits):
    assert accuracy(pruned.model, digits) >= 0.7  # without training: chance


def test_the_callers_model_is_left_whole(pruned, trained):
    assert max(kernel.zeros for kernel in kernels(trained.model)) < 0.01
    assert [kernel.name for kernel in pruned.kernels] == [kernel.name for kernel in kernels(trained.model)]


@pytest.mark.parametrize("precision", ["none", "int8"])
def test_the_zeros_are_in_the_file_and_gzip_finds_them(pruned, trained, digits, tmp_path, precision):
    content = exported(pruned.model, precision, digits, tmp_path / "pruned.tflite")
    for kernel in pointwise_kernels(content):
        assert np.mean(kernel == 0) >= 0.74
    dense = exported(trained.model, precision, digits, tmp_path / "dense.tflite")
    assert len(content) == pytest.approx(len(dense), rel=0.01)
    assert compressed_size(content) < 0.6 * compressed_size(dense)


def test_each_kernel_has_no_more_values_than_clusters(clustered):
    assert len(thinned_out(clustered)) == 15
    for kernel in clustered.kernels:
        assert (kernel.values <= 16) != kernel.name.endswith(WHOLE), kernel.name


def test_a_clustered_network_answers_as_before(clustered, trained, digits):
    assert accuracy(clustered.model, digits) >= accuracy(trained.model, digits) - 0.03


def test_the_clusters_are_in_the_float_file_and_gzip_finds_them(clustered, trained, digits, tmp_path):
    content = exported(clustered.model, "none", digits, tmp_path / "clustered.tflite")
    for kernel in pointwise_kernels(content):
        assert len(np.unique(kernel)) <= 16
    plain = exported(trained.model, "none", digits, tmp_path / "plain.tflite")
    assert compressed_size(content) < 0.6 * compressed_size(plain)


def test_in_int8_each_channel_keeps_its_clusters(clustered, digits, tmp_path):
    for kernel in pointwise_kernels(exported(clustered.model, "int8", digits, tmp_path / "clustered.tflite")):
        assert max(len(np.unique(channel)) for channel in kernel) <= 16


def test_compressed_size_is_that_of_gzip():
    assert compressed_size(bytes(100_000)) < 200
    noise = np.random.default_rng(0).bytes(100_000)
    assert 100_000 <= compressed_size(noise) < 100_200


@pytest.mark.parametrize("sparsity", [0.0, 1.0, 75])
def test_a_sparsity_that_cannot_be_is_refused(toy_model, sparsity):
    with pytest.raises(UserError, match=f"sparsity must lie between 0 and 1, got {sparsity}"):
        prune(toy_model(), "nowhere", sparsity)


def test_one_cluster_is_refused(toy_model):
    with pytest.raises(UserError, match="clusters must be at least 2, got 1"):
        cluster(toy_model(), "nowhere", 1)
