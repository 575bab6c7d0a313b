"""Mixed precision: float blocks by name, or those that int8 hurts most."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_effnet import EfficientNet
from keras_effnet.errors import UserError
from keras_effnet.export import export_tflite
from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.int8 import fitted_files, float_islands
from keras_effnet.export.int8.float_islands import PartCost, check_parts, float_parts, growing_sets, spaced_sets
from keras_effnet.export.measure.cpu_time import _owners
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.export.tflite_file.schema import parse
from keras_effnet.export.tflite_file.tensors import layer_of


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return EfficientNet("lite0", weights=None, classes=5, input_shape=(32, 32, 3))


def float_layers(path, model) -> set[str]:
    """Layers whose operators write float tensors in a file."""
    graph = parse(path.read_bytes()).subgraphs[0]
    names = {layer.name for layer in model.layers}
    written = (graph.tensors[int(i)] for operator in graph.operators for i in operator.outputs)
    return {layer_of(tensor.name, names) for tensor in written if tensor.type == 0} - {None}


def test_parts_are_named_as_blocks_and_as_stages(network):
    parts = float_parts(network)
    assert {"stem", "block1a", "block2a", "block2b", "block2", "block7", "top", "classifier"} <= set(parts)
    assert parts["block2"] == parts["block2a"] | parts["block2b"]
    assert "block2a_dwconv" in parts["block2a"]


def test_in_a_network_of_others_every_layer_is_a_part(toy_model):
    model = toy_model()
    assert set(float_parts(model)) == {layer.name for layer in model.layers[1:]}


def test_a_part_has_no_tensors_of_a_layer_whose_name_lacks_its_number():
    """The operators of `conv` lie in the scope `conv_1`, which is a layer's name too."""
    x = image = keras.Input((8, 8, 3))
    for end in ("", "_1"):
        x = keras.layers.Activation("swish", name=f"act{end}")(keras.layers.Conv2D(2, 1, name=f"conv{end}")(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    content = convert(model)
    first, second = (set(float_islands.part_tensors(content, model, [f"conv{end}", f"act{end}"])) for end in ("", "_1"))
    assert len(first) == len(second) == 3 and not first & second
    owners = _owners(parse(content), {"conv_1": "conv_1"}, [layer.name for layer in model.layers])
    assert owners.count("conv_1") == 1


def test_convolutions_of_many_blocks_are_grouped_by_stage_and_role(network, toy_model):
    labels = float_islands._labels_by_stage(network)
    assert labels["block2a_project_conv"] == labels["block2b_project_conv"] == "block2 project_conv"
    assert labels["block3a_dwconv"] != labels["block2a_dwconv"] and "stem_conv" not in labels
    assert float_islands._labels_by_stage(toy_model()) == {}


def test_a_mistyped_block_gets_the_closest_one(network):
    with pytest.raises(UserError, match=r"Unknown block 'blok2a'\. Did you mean 'block2a'"):
        check_parts(network, ["stem", "blok2a"])


def test_named_blocks_compute_in_float_and_all_others_do_not(trained, digits, tmp_path):
    path = tmp_path / "mixed.tflite"
    result = export_tflite(
        trained.model,
        path,
        "mixed",
        calibration=digits.train,
        verification=digits.test,
        float_blocks=["stem", "block3"],
    )
    assert result.method == "float: stem, block3; corrected"
    layers = {name for name in float_layers(path, trained.model) if not name.startswith(("predictions", "rescaling"))}
    assert layers and all(name.startswith(("stem_", "block3")) for name in layers)
    assert any(name.startswith("block3") for name in layers)
    assert any(island.place == "middle" for island in inspect(path).islands)


PARTS = {  # in int8 0.5 of float32's time
    "stem": PartCost(noise=1e-2, int8_seconds=1, float_seconds=1),  # free
    "block1": PartCost(noise=5e-3, int8_seconds=1, float_seconds=2),
    "block2": PartCost(noise=4e-3, int8_seconds=1, float_seconds=1.5),
    "top": PartCost(noise=1e-6, int8_seconds=2, float_seconds=5.5),
}


def test_blocks_enter_by_noise_per_added_time_and_are_named_in_the_networks_order():
    assert growing_sets(PARTS) == [
        (),
        ("stem",),
        ("stem", "block2"),
        ("stem", "block1", "block2"),
        ("stem", "block1", "block2", "top"),
    ]


def test_a_part_that_is_no_slower_in_float_counts_as_a_little_slower():
    assert PartCost(noise=1e-2, int8_seconds=1, float_seconds=1).gain == pytest.approx(1e-2 / 0.1)
    assert PartCost(noise=1e-2, int8_seconds=2, float_seconds=1).gain == pytest.approx(1e-2 / 0.1)


def test_sets_of_hardly_different_time_are_not_all_tried():
    free = {f"free{index}": PartCost(1e-3, 1, 1.001) for index in range(8)}
    assert list(spaced_sets(PARTS)) == growing_sets(PARTS)[1:]
    assert [len(each) for each in spaced_sets(PARTS | free)] == [1, 11, 12]


@pytest.mark.parametrize(
    ("budget", "sizes"), [(0.4, [0]), (0.5, [0, 1]), (0.65, [0, 1, 2]), (0.7, [0, 1, 2, 3]), (2.0, [0, 2, 3, 4])]
)
def test_the_largest_sets_within_a_budget_are_made(monkeypatch, budget, sizes):
    times = [0.5, 0.5, 0.6, 0.7, 1.0]  # of files with 0, 1, ... float blocks
    monkeypatch.setattr(fitted_files, "fitted", lambda graph: (graph, b""))
    monkeypatch.setattr(fitted_files, "measure_parts", lambda *inputs: PARTS)
    monkeypatch.setattr(fitted_files, "_uncorrected", lambda graph, calibrated, input_type, names: names)
    monkeypatch.setattr(fitted_files, "quantize_fitted", lambda graph, calibrated, input_type, names: names)
    monkeypatch.setattr(fitted_files, "time_ratios", lambda contents: [1.0, times[len(contents[1])]])
    made = [names for names, _ in fitted_files.with_float_blocks(SimpleNamespace(content=b""), budget=budget)]
    assert [len(names) for names in made] == sizes


@pytest.fixture(scope="module")
def lopsided(trained) -> keras.Model:
    """The digits network with one channel of block2a so much larger than the others that eight bits drown them."""
    model = keras.models.clone_model(trained.model)
    model.set_weights(trained.model.get_weights())
    norm, depthwise = model.get_layer("block2a_expand_bn"), model.get_layer("block2a_dwconv")
    gamma, beta, *statistics = norm.get_weights()
    (kernel,) = depthwise.get_weights()
    smaller = np.full(len(gamma), 500.0)
    smaller[0] = 1.0
    norm.set_weights([gamma / smaller, beta / smaller, *statistics])
    depthwise.set_weights([kernel * smaller[:, None]])
    return model


def test_the_block_that_int8_destroys_is_found_and_kept_in_float(lopsided, digits, tmp_path):
    sources = {"calibration": digits.train, "verification": digits.test}
    plain = export_tflite(lopsided, tmp_path / "int8.tflite", "int8", method="minmax", allow_degraded=True, **sources)
    assert plain.report.top1_agreement < 0.9
    path = tmp_path / "mixed.tflite"
    result = export_tflite(lopsided, path, "mixed", min_agreement=0.97, **sources)
    assert result.report.top1_agreement >= 0.97
    assert result.method == "float: block2a; corrected"
    assert [island.place for island in inspect(path).islands] == ["middle", "output"]


def test_where_int8_serves_nothing_stays_in_float(trained, digits, tmp_path):
    path = tmp_path / "mixed.tflite"
    result = export_tflite(
        trained.model, path, "mixed", calibration=digits.train, verification=digits.test, input_type="uint8"
    )
    assert result.method == "float: nothing; corrected"
    assert not [island for island in inspect(path).islands if island.place == "middle"]
    assert result.report.top1_agreement >= 0.97
