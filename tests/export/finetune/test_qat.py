"""Quantization-aware training: int8 throughout, as accurate as the network, with the trained ranges."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from small_network import PHOTOGRAPHS, digits_network, photographs, photographs_network

from keras_effnet import EfficientNet, architecture_spec, datasets
from keras_effnet.export.calibration import load_images
from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.conversion.source import ExportSource
from keras_effnet.export.finetune.parent import FineTuning
from keras_effnet.export.finetune.qat import QatResult, quantization_aware_training
from keras_effnet.export.recipes import PRECISIONS, Settings
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.tflite_file.tensors import output_tensors
from keras_effnet.export.verification import compare
from keras_effnet.inference import artifacts
from keras_effnet.preprocessing import ImageSpec

FLOAT = schema.TensorType.FLOAT32
CLUSTERS = 64


@pytest.fixture(scope="module")
def compressed() -> keras.Model:
    """The digits network with a fifth of zeros in its last convolution and 64 values in its classifier."""
    model = keras.models.clone_model(digits_network())
    model.set_weights(digits_network().get_weights())
    layer = model.get_layer("top_conv")
    (kernel,) = layer.get_weights()
    layer.set_weights([np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.2), 0, kernel)])
    layer = model.get_layer("predictions")
    kernel, bias = layer.get_weights()
    edges = np.quantile(kernel, np.linspace(0, 1, CLUSTERS + 1)[1:-1])
    members = np.digitize(kernel, edges)
    centres = np.array([kernel[members == index].mean() for index in range(CLUSTERS)])
    layer.set_weights([centres[members], bias])
    return model


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(compressed, digits, lines) -> QatResult:
    tuning = FineTuning(epochs=2, learning_rate=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")  # the network is too small to share out
        return quantization_aware_training(compressed, digits.train, tuning, samples=120, announce=lines.append)


@pytest.fixture(scope="module")
def content(result) -> bytes:
    return result.tflite("uint8")


def graph_of(content: bytes):
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return model, model.subgraphs[0]


@pytest.mark.slow
def test_each_epoch_is_announced(result, lines):
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("loss 0." in line for line in lines)


@pytest.mark.slow
def test_only_the_softmax_and_its_input_are_float(content):
    model, graph = graph_of(content)
    softmax = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode == 25]
    declared = {int(index) for op in softmax for index in (*op.inputs, *op.outputs)}
    floats = {index for index, tensor in enumerate(graph.tensors) if tensor.type == FLOAT}
    assert floats == declared and len(floats) == 2


@pytest.mark.slow
def test_the_file_takes_raw_bytes(content):
    file = TFLiteModel(content)
    assert file.input["dtype"] == np.uint8
    scale, zero_point = file.input["quantization"]  # they hold the normalisation, (x - 127) / 128
    assert (scale, zero_point) == (pytest.approx(1 / 128, rel=1e-5), 127)


@pytest.mark.slow
def test_the_file_answers_as_the_network_does(compressed, content, digits):
    images = load_images(digits.test, ImageSpec.of_model(compressed), len(digits.test))
    report = compare(
        keras.ops.convert_to_numpy(compressed(images)), TFLiteModel(content).predict(images), digits.test.labels
    )
    assert report.accuracy_keras >= 0.9
    assert report.top1_agreement >= 0.97
    assert report.accuracy_tflite >= report.accuracy_keras - 0.015


@pytest.mark.slow
def test_the_file_has_the_ranges_that_the_weights_were_trained_under(result, content):
    _, graph = graph_of(content)
    steps = {
        round(float(s), 7)
        for tensor in graph.tensors
        if tensor.quantization.scale is not None
        for s in tensor.quantization.scale[:1]
    }
    assert len(result.ranges) == 13  # of all layers whose output the file holds
    for name, (low, high) in result.ranges.items():
        expected = (max(high, 0) - min(low, 0)) / 255
        assert min(abs(step - expected) for step in steps) < 1e-3 * expected, name


@pytest.mark.slow
def test_zeros_of_a_pruned_network_stay(compressed, result):
    before = compressed.get_layer("top_conv").get_weights()[0] == 0
    after = result.model.get_layer("top_conv").get_weights()[0]
    assert before.mean() == pytest.approx(0.2, abs=0.01)
    assert (after[before] == 0).all() and (after[~before] != 0).all()


@pytest.mark.slow
def test_weights_of_a_clustered_network_that_shared_a_value_still_do(compressed, result):
    before, after = (model.get_layer("predictions").get_weights()[0] for model in (compressed, result.model))
    assert len(np.unique(before)) == len(np.unique(after)) == CLUSTERS
    for value in np.unique(before):
        assert len(np.unique(after[before == value])) == 1


@pytest.mark.slow
def test_weights_were_trained_and_the_callers_model_was_not(compressed, result):
    for layer in ("stem_conv", "block1a_dwconv", "predictions"):
        start = fold_batch_norms(compressed).get_layer(layer).get_weights()
        for old, new in zip(start, result.model.get_layer(layer).get_weights(), strict=True):
            assert 0 < np.abs(new - old).max() < 1e-2
    np.testing.assert_array_equal(
        compressed.get_layer("stem_conv").get_weights()[0], digits_network().get_layer("stem_conv").get_weights()[0]
    )


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["b0", "lite0", "resnet18"])
def test_a_layers_tensor_is_found_by_its_name(name, smooth_images):
    keras.utils.set_random_seed(0)
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=64)
    model = fold_batch_norms(EfficientNet(spec, weights=None, classes=5, input_shape=(64, 64, 3)))
    content = convert(model)
    found = output_tensors(content, {layer.name for layer in model.layers})
    assert len(found) >= len(model.layers) / 2
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    image = smooth_images(1, 64).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    names = [name for name in found if name != "predictions"]  # there the tensor holds the logits
    outputs = keras.Model(model.inputs, [model.get_layer(name).output for name in names])(image)
    for layer, expected in zip(names, outputs, strict=True):
        got = interpreter.get_tensor(found[layer]).reshape(expected.shape)
        np.testing.assert_allclose(got, expected, atol=1e-4 * max(1, np.abs(expected).max()), err_msg=layer)


# ------------------------------------------------------------------ real images


def labelled(folder: Path) -> datasets.Split:
    """The images that `labels.csv` names, in an order of no meaning."""
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    order = np.random.default_rng(0).permutation(len(rows))
    paths = tuple(str(folder / rows[index]["file"]) for index in order)
    return datasets.Split(paths, np.array([int(rows[index]["index"]) for index in order], "int32"))


@pytest.mark.soak
@pytest.mark.images
def test_lite0_is_no_worse_trained_than_calibrated(images_root):
    artifact, source = artifacts.load("lite0"), labelled(images_root / "imagenet-sample-300")
    parts = source.select(np.arange(100)), source.select(np.arange(100, 300))
    training, held_out = (load_images(part, artifact.image_spec, len(part)) for part in parts)
    answers = artifact.predict(held_out)
    float_source = ExportSource(artifact.model, training)
    # The first is what export_tflite(..., "int8") makes unless told otherwise.
    corrected, plain = islice(PRECISIONS["int8"].candidates(float_source, Settings("uint8")), 2)
    assert (corrected.method, plain.method) == ("corrected", "minmax")
    content = quantization_aware_training(artifact.model, training).tflite("uint8")
    by_default, uncorrected, trained = (
        compare(answers, TFLiteModel(file).predict(held_out), parts[1].labels)
        for file in (corrected.content, plain.content, content)
    )
    print(by_default, uncorrected, trained, sep="\n")
    assert trained.samples == 200
    assert trained.top1_agreement >= by_default.top1_agreement
    assert trained.accuracy_tflite >= by_default.accuracy_tflite
    assert trained.sqnr_db >= uncorrected.sqnr_db + 1


@pytest.mark.soak
@pytest.mark.images
def test_swish_and_squeeze_excite_keep_their_accuracy(images_root):
    network, dataset = photographs_network(images_root), photographs(images_root)
    result = quantization_aware_training(network, dataset.train, image_spec=PHOTOGRAPHS.image_spec)
    held_out = load_images(dataset.val, PHOTOGRAPHS.image_spec, len(dataset.val))
    report = compare(
        network.predict(held_out, verbose=0), TFLiteModel(result.tflite("uint8")).predict(held_out), dataset.val.labels
    )
    print(report)
    assert report.samples == 500
    assert report.accuracy_keras >= 0.5  # of ten classes: a network worth keeping
    assert report.accuracy_tflite >= report.accuracy_keras - 0.01
