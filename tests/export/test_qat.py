"""Training for int8: the file is int8 throughout, as good as the network, with the ranges of the training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_effnet import EfficientNet, architecture_spec, artifacts, datasets
from keras_effnet.export.calibration import load_pictures
from keras_effnet.export.folding import fold_batch_norms
from keras_effnet.export.interpreter import TFLiteModel
from keras_effnet.export.qat import QatResult, method, output_tensors, quantization_aware_training
from keras_effnet.export.quantization import RECIPES
from keras_effnet.export.twin import FineTuning
from keras_effnet.export.verification import compare
from keras_effnet.preprocessing import ImageSpec

FLOAT = schema.TensorType.FLOAT32


@pytest.fixture(scope="module")
def thinned(trained) -> keras.Model:
    """The digits network without the smallest weights of its last convolution, which it hardly misses."""
    model = keras.models.clone_model(trained.model)
    model.set_weights(trained.model.get_weights())
    layer = model.get_layer("top_conv")
    (kernel,) = layer.get_weights()
    layer.set_weights([np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.2), 0, kernel)])
    return model


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(thinned, digits, lines) -> QatResult:
    return quantization_aware_training(
        thinned, digits.train, FineTuning(epochs=2, learning_rate=1e-5), samples=120, announce=lines.append
    )


@pytest.fixture(scope="module")
def content(result) -> bytes:
    return result.tflite("uint8")


def graph_of(content: bytes):
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return model, model.subgraphs[0]


def test_each_epoch_is_announced(result, lines):
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("loss 0." in line for line in lines)


def test_only_the_softmax_and_its_input_are_float(content):
    model, graph = graph_of(content)
    softmax = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode == 25]
    declared = {int(index) for op in softmax for index in (*op.inputs, *op.outputs)}
    floats = {index for index, tensor in enumerate(graph.tensors) if tensor.type == FLOAT}
    assert floats == declared and len(floats) == 2


def test_the_file_takes_raw_bytes(content):
    file = TFLiteModel(content)
    assert file.input["dtype"] == np.uint8
    assert file.input["quantization"] == pytest.approx((1.0, 0), abs=1e-6)


def test_the_file_answers_as_the_network_does(thinned, content, digits):
    pictures = load_pictures(digits.test, ImageSpec.of_model(thinned), len(digits.test))
    report = compare(thinned.predict(pictures, verbose=0), TFLiteModel(content).predict(pictures), digits.test.labels)
    assert report.accuracy_keras >= 0.9
    assert report.top1_agreement >= 0.97
    assert report.accuracy_tflite >= report.accuracy_keras - 0.015


def test_the_file_has_the_ranges_that_the_weights_were_trained_under(result, content):
    _, graph = graph_of(content)
    steps = {
        round(float(s), 7)
        for tensor in graph.tensors
        if tensor.quantization.scale is not None
        for s in tensor.quantization.scale[:1]
    }
    assert len(result.ranges) >= 20
    for name, (low, high) in result.ranges.items():
        expected = (max(high, 0) - min(low, 0)) / 255
        assert min(abs(step - expected) for step in steps) < 1e-3 * expected, name


def test_zeros_of_a_pruned_network_stay(thinned, result):
    before = thinned.get_layer("top_conv").get_weights()[0] == 0
    after = result.model.get_layer("top_conv").get_weights()[0]
    assert before.mean() == pytest.approx(0.2, abs=0.01)
    assert (after[before] == 0).all() and (after[~before] != 0).all()


def test_weights_were_trained_and_the_callers_model_was_not(thinned, result, trained):
    for layer in ("stem_conv", "block1a_dwconv", "predictions"):
        start = fold_batch_norms(thinned).get_layer(layer).get_weights()
        for old, new in zip(start, result.model.get_layer(layer).get_weights(), strict=True):
            assert 0 < np.abs(new - old).max() < 1e-2
    np.testing.assert_array_equal(
        thinned.get_layer("stem_conv").get_weights()[0], trained.model.get_layer("stem_conv").get_weights()[0]
    )


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["b0", "lite0", "resnet18"])
def test_a_layers_tensor_is_found_by_its_name(name, smooth_pictures):
    keras.utils.set_random_seed(0)
    spec = architecture_spec(name, depth=0.2, width=0.25, image_size=64)
    model = fold_batch_norms(EfficientNet(spec, weights=None, classes=5, input_shape=(64, 64, 3)))
    content = RECIPES["none"].methods["float32"](model, None, "float32")
    found = output_tensors(content, {layer.name for layer in model.layers})
    assert len(found) >= len(model.layers) / 2
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    picture = smooth_pictures(1, 64).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    names = [name for name in found if name != "predictions"]  # there the tensor holds the logits
    outputs = keras.Model(model.inputs, [model.get_layer(name).output for name in names]).predict(picture, verbose=0)
    for layer, expected in zip(names, outputs, strict=True):
        got = interpreter.get_tensor(found[layer]).reshape(expected.shape)
        np.testing.assert_allclose(got, expected, atol=1e-4 * max(1, np.abs(expected).max()), err_msg=layer)


# ------------------------------------------------------------------ real pictures


@pytest.mark.slow
@pytest.mark.pictures
def test_lite0_is_no_worse_trained_than_calibrated(pictures_root):
    artifact = artifacts.load("lite0")
    pictures = load_pictures(pictures_root / "imagenet-sample-300", artifact.image_spec, 300)
    training, held_out = pictures[:100], pictures[100:]
    answers = artifact.predict(held_out)
    calibrated, trained = (
        compare(answers, TFLiteModel(convert(artifact.model, training, "uint8")).predict(held_out))
        for convert in (RECIPES["int8"].methods["minmax"], method())
    )
    assert trained.sqnr_db >= calibrated.sqnr_db + 1
    assert trained.top1_agreement >= calibrated.top1_agreement - 0.005  # one picture of the 200


@pytest.mark.slow
@pytest.mark.pictures
def test_swish_and_squeeze_excite_keep_their_accuracy(pictures_root, tmp_path):
    from keras_effnet.config import TrainConfig
    from keras_effnet.training import train_dataset

    dataset = datasets.load(str(pictures_root / "tiny-imagenet-10"), image_size=64)
    config = TrainConfig(model="b0", depth=0.5, width=0.5, image_size=64, epochs=10, crop_scale=0.5)
    network = train_dataset(dataset, config, Path(tmp_path) / "run").model
    result = quantization_aware_training(network, dataset.train, image_spec=config.image_spec)
    held_out = load_pictures(dataset.val, config.image_spec, len(dataset.val))
    report = compare(
        network.predict(held_out, verbose=0), TFLiteModel(result.tflite("uint8")).predict(held_out), dataset.val.labels
    )
    assert report.samples == 500
    assert report.accuracy_tflite >= report.accuracy_keras - 0.01
