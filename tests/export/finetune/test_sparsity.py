"""Pruning and clustering: the zeros and clusters are in the weights, in the files, and in their compressed size."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_network import PHOTOGRAPHS, digits_network, one_trainer, photographs, photographs_network

from keras_effnet.errors import UserError
from keras_effnet.export import export_tflite
from keras_effnet.export.calibration import load_images
from keras_effnet.export.candidate_trial import compressed_size
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.finetune.qat import quantization_aware_training
from keras_effnet.export.finetune.sparsity import CompressionResult, cluster, kernels, prune
from keras_effnet.export.int8.quantizers import quantize_int8
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.schema import constant, operator_name, parse
from keras_effnet.export.verification import compare
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.output import captured_output

WHOLE = ("stem_conv", "dwconv")  # the first convolution and depthwise ones


@pytest.fixture(scope="module")
def trainer():
    with one_trainer():
        yield


@pytest.fixture(scope="module")
def pruned(digits, trainer) -> CompressionResult:
    return prune(digits_network(), digits.train, 0.75, FineTuning(epochs=6, learning_rate=2e-3), samples=400)


@pytest.fixture(scope="module")
def holed() -> keras.Model:
    """The digits network with a third of zeros in its last convolution."""
    model = keras.models.clone_model(digits_network())
    model.set_weights(digits_network().get_weights())
    layer = model.get_layer("top_conv")
    (kernel,) = layer.get_weights()
    layer.set_weights([np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 1 / 3), 0, kernel)])
    return model


@pytest.fixture(scope="module")
def clustered(holed, digits, trainer) -> CompressionResult:
    return cluster(holed, digits.train, 16, FineTuning(epochs=3, learning_rate=1e-3), samples=200)


def compressed_kernels(result: CompressionResult):
    return [kernel for kernel in result.kernels if not kernel.name.endswith(WHOLE)]


def accuracy(model, digits) -> float:
    images = load_images(digits.test, ImageSpec.of_model(model), len(digits.test))
    return float(np.mean(model(images).numpy().argmax(axis=1) == digits.test.labels))


def pointwise_kernels(content: bytes) -> list[np.ndarray]:
    """Kernels of 1x1 convolutions and of the dense layer as the file holds them, output channels first."""
    model, found = parse(content), []
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            kernel = constant(model, int(operator.inputs[1]))
            if kernel.ndim == 2 or kernel.shape[1:3] == (1, 1):
                found.append(kernel.reshape(len(kernel), -1))
    assert len(found) >= 7
    return found


def exported(model, precision, digits, path) -> bytes:
    export_tflite(model, path, precision, calibration=digits.train, samples=40, allow_degraded=True)
    return path.read_bytes()


def test_three_quarters_of_each_kernel_are_zero_and_the_tender_ones_are_whole(pruned):
    assert len(compressed_kernels(pruned)) == 7 and len(pruned.kernels) == 11
    for kernel in pruned.kernels:
        assert kernel.zeros == pytest.approx(0 if kernel.name.endswith(WHOLE) else 0.75, abs=0.01), kernel.name
    share = sum(kernel.weights for kernel in compressed_kernels(pruned)) / sum(
        kernel.weights for kernel in pruned.kernels
    )
    assert pruned.zeros == pytest.approx(0.75 * share, abs=0.01) and pruned.zeros > 0.7


def test_a_pruned_network_still_knows_its_digits(pruned, digits):
    assert accuracy(pruned.model, digits) >= 0.7  # without training: chance


def test_the_callers_model_is_left_whole(pruned):
    assert max(kernel.zeros for kernel in kernels(digits_network())) < 0.01
    assert [kernel.name for kernel in pruned.kernels] == [kernel.name for kernel in kernels(digits_network())]


@pytest.mark.parametrize("precision", ["none", "int8"])
def test_the_zeros_are_in_the_file_and_gzip_finds_them(pruned, digits, tmp_path, precision):
    content = exported(pruned.model, precision, digits, tmp_path / "pruned.tflite")
    for kernel in pointwise_kernels(content):
        assert np.mean(kernel == 0) >= 0.74
    dense = exported(digits_network(), precision, digits, tmp_path / "dense.tflite")
    assert len(content) == pytest.approx(len(dense), rel=0.01)
    assert compressed_size(content) < 0.6 * compressed_size(dense)


@pytest.mark.slow
def test_each_kernel_has_no_more_values_than_clusters(clustered):
    assert len(compressed_kernels(clustered)) == 7
    for kernel in clustered.kernels:
        assert (kernel.values <= 16) != kernel.name.endswith(WHOLE), kernel.name


@pytest.mark.slow
def test_clusters_leave_the_zeros_of_a_pruned_kernel(clustered, holed):
    before, after = (model.get_layer("top_conv").kernel.numpy() == 0 for model in (holed, clustered.model))
    assert before.mean() == pytest.approx(1 / 3, abs=0.01)
    assert after[before].all() and after.mean() < 0.5


@pytest.mark.slow
def test_a_clustered_network_answers_as_before(clustered, holed, digits):
    assert accuracy(clustered.model, digits) >= accuracy(holed, digits) - 0.03


@pytest.mark.slow
def test_the_clusters_are_in_the_float_file_and_gzip_finds_them(clustered, digits, tmp_path):
    content = exported(clustered.model, "none", digits, tmp_path / "clustered.tflite")
    for kernel in pointwise_kernels(content):
        assert len(np.unique(kernel)) <= 16
    plain = exported(digits_network(), "none", digits, tmp_path / "plain.tflite")
    assert compressed_size(content) < 0.6 * compressed_size(plain)


@pytest.mark.slow
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


# ------------------------------------------------------------------ real images


@pytest.mark.soak
@pytest.mark.images
def test_three_quarters_of_a_network_are_pruned_in_int8_at_little_loss(images_root):
    dataset, spec = photographs(images_root), PHOTOGRAPHS.image_spec
    network = photographs_network(images_root)
    pruned = prune(network, dataset.train, 0.75, image_spec=spec).model
    held_out = load_images(dataset.val, spec, len(dataset.val))
    answers = network.predict(held_out, verbose=0)
    with captured_output():
        dense = quantize_int8(
            ExportSource(network, load_images(dataset.train, spec, 100)).graph("uint8").minmax, "uint8"
        )
    content = quantization_aware_training(pruned, dataset.train, samples=500, image_spec=spec).tflite("uint8")
    report = compare(answers, TFLiteModel(content).predict(held_out), dataset.val.labels)
    print(f"{compressed_size(content):,} bytes after gzip, {compressed_size(dense):,} when dense", report)
    assert all(np.mean(kernel == 0) >= 0.74 for kernel in pointwise_kernels(content))
    assert compressed_size(content) < 0.6 * compressed_size(dense)
    assert report.accuracy_tflite >= report.accuracy_keras - 0.05
