"""Networks with several outputs: exported under their names, each output proven by its own task."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_effnet import export
from keras_effnet.errors import UserError
from keras_effnet.export.outputs import Outputs
from keras_effnet.export.recipes import PRECISIONS
from keras_effnet.export.report import cells, columns
from keras_effnet.export.report_rows import ReportRow
from keras_effnet.export.tflite_file.interpreter import joined
from keras_effnet.export.verification import compare_outputs
from keras_effnet.inference import artifacts


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A kind of four, a size in grams, and masks of two classes; some channels of the images tell each of them."""
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3), name="photo")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu", name="stem")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    kind = keras.layers.Dense(4, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 3), name="kind")
    masks = keras.layers.Conv2D(2, 1, activation="softmax", name="masks")(x)
    weight = keras.layers.Dense(1, name="grams")(pooled)
    return keras.Model(image, {"kind": kind(pooled), "masks": masks, "weight": weight})


@pytest.fixture(scope="module")
def images(smooth_images) -> np.ndarray:
    return smooth_images(60, 16).astype("float32")


@pytest.fixture(scope="module")
def result(model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "several.tflite"
    return export.export_tflite(model, path, calibration=images[:20], verification=images[20:])


def test_each_output_has_its_task_its_name_and_its_report(result):
    assert {name: report.task for name, report in result.report.outputs.items()} == {
        "kind": "classification",
        "masks": "segmentation",
        "weight": "regression",
    }
    assert all(report.score > 0.999 and report.samples == 40 for report in result.report.outputs.values())
    assert "kind: the same class on 40 of 40" in result.report.agreement and "weight: R" in result.report.agreement


def test_clients_call_the_outputs_by_their_names(model, images, result):
    runner = Interpreter(str(result.path)).get_signature_runner("serving_default")
    found, expected = runner(image=images[:1]), model.predict(images[:1], verbose=0)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
    metadata = export.inspect(result.path).metadata
    assert metadata.output_name == "kind" and [name for name, _ in metadata.more_outputs] == ["masks", "weight"]


def test_a_file_is_verified_in_another_process_and_refused_for_another_model(model, images, result):
    report = export.verify(result.path, model, images)
    assert report.outputs.keys() == {"kind", "masks", "weight"} and report.score > 0.999
    other = keras.Model(model.inputs, model.outputs[0])
    with pytest.raises(UserError, match=r"gives outputs of \(4,\) and \(8, 8, 2\) and \(1,\), the model of \(4,\)"):
        export.verify(result.path, other, images)


def test_integers_serve_all_outputs_and_scores_stay_float(model, images, tmp_path):
    path = tmp_path / "int8.tflite"
    found = export.export_tflite(model, path, "int8", calibration=images[:20], method="minmax", allow_degraded=True)
    assert all(report.score > 0.8 for report in found.report.outputs.values())
    assert {tensor.dtype for tensor in export.inspect(path).outputs} == {"float32"}


def test_one_bad_output_is_enough_to_refuse_a_file(model, images):
    expected = joined(list(model.predict(images, verbose=0).values()))
    got = expected.copy()
    got[:, -1] = got[::-1, -1]  # the weights of other images
    report = compare_outputs(expected, got, Outputs.of(model))
    assert report.outputs["kind"].score == 1
    assert report.score == report.outputs["weight"].score < 0.5
    assert not PRECISIONS["int8"].accepts(report)


def test_the_table_has_a_column_for_each_output(result):
    rows = [ReportRow("none", result.report)]
    headers = columns(rows)
    assert [header for header in headers if ":" in header] == ["kind: agreement", "masks: mean IoU", "weight: R²"]
    assert dict(zip(headers, cells(rows[0], headers), strict=True))["kind: agreement"].startswith("100% of 40 [")


def test_tasks_are_told_by_losses_or_named(model):
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    heads = [keras.layers.Dense(3, name=name)(pooled) for name in ("kind", "sizes")]
    two = keras.Model(image, heads)
    assert [output.task.name for output in Outputs.of(two).each] == ["classification", "classification"]
    named = Outputs.of(two, {"sizes": "regression"})
    assert [output.task.name for output in named.each] == ["classification", "regression"]
    two.compile(loss=["categorical_crossentropy", "mse"])
    assert [output.task.name for output in Outputs.of(two).each] == ["classification", "regression"]
    with pytest.raises(UserError, match="Did you mean 'sizes'"):
        Outputs.of(two, {"size": "regression"})
    with pytest.raises(UserError, match="name the task of each as a dict of kind, sizes"):
        Outputs.of(two, "regression")


def test_the_command_line_exports_them_and_names_a_next_step_that_knows_them(cli, model, images, tmp_path):
    model.save(tmp_path / "several.keras")
    photos = tmp_path / "photos" / "any"
    photos.mkdir(parents=True)
    for number, image in enumerate(images[:40]):
        keras.utils.save_img(photos / f"{number}.png", image, scale=False)
    shown = cli("export", "several.keras", "--quantize", "none", "--calibration", "photos", "--out", "files")
    assert shown.status == 0, shown.err
    assert "weight: R²" in shown.out
    assert "keras-effnet benchmark" in shown.out.splitlines()[-1]
    shown = cli("export", "several.keras", "--calibration", "photos", "--bundle", "--out", "more")
    assert shown.status == 2 and "its task" not in shown.err and "several outputs" in shown.err


def test_what_takes_one_output_says_so(model, result, tmp_path):
    with pytest.raises(UserError, match="has 3 outputs; this takes files with one"):
        artifacts.load(result.path)
    model.save(tmp_path / "several.keras")
    with pytest.raises(UserError, match="is not an image classifier or the like"):
        artifacts.load(tmp_path / "several.keras")
    assert len(artifacts.load(tmp_path / "several.keras", several_outputs=True).model.outputs) == 3
    with pytest.raises(UserError, match="takes a model with one output; it has 3: kind, masks, weight"):
        export.export_savedmodel(model, tmp_path / "saved")
