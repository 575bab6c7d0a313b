"""`model.json`: the same facts from the rows of an export and from its folder; null where nothing is known."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from keras_effnet.errors import UserError
from keras_effnet.export import inspect
from keras_effnet.export.app_bundle.model_json import class_names, of_files, of_rows
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.preprocessing import ImageSpec


@pytest.fixture(scope="module")
def bundle(app_export):
    return app_export


@pytest.fixture(scope="module")
def document(bundle):
    paths = [row.export.path for row in bundle.rows]
    return json.loads(of_files(paths, name="digits").to_json(), parse_constant=pytest.fail)


def test_the_folder_of_an_export_tells_the_same_as_its_rows(bundle, document):
    rows = of_rows(
        bundle.rows, ImageSpec.load(bundle.folder / "image_spec.json"), name="digits", recommended=bundle.recommended
    )
    assert json.loads(rows.to_json()) == document


def test_it_says_how_an_image_becomes_the_input(document):
    assert document["image"] == {
        "height": 32,
        "width": 32,
        "color": "RGB",
        "range": [0.0, 255.0],
        "exif_orientation": "applied first",
        "resize": {
            "crop": {"fraction": 0.875, "position": "center"},
            "interpolation": "bicubic",
            "antialias_from_reduction": 4,
            "fit": "crop",
            "padding": None,
        },
    }


def test_it_describes_each_file_as_litert_sees_it(bundle, document):
    assert [file["file"] for file in document["files"]] == ["digits_none.tflite", "digits_int8.tflite"]
    assert [file["precision"] for file in document["files"]] == ["float32", "int8"]
    for file in document["files"]:
        path = bundle.folder / file["file"]
        litert, content = TFLiteModel(path), path.read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        for port, seen in ((file["inputs"][0], litert.input), (file["outputs"][0], litert.output)):
            assert (port["shape"], port["dtype"]) == (seen["shape"].tolist(), seen["dtype"].__name__)
            assert (port["scale"] or 0, port["zero_point"] or 0) == pytest.approx(seen["quantization"])
        assert file["min_runtime_version"] and {client["client"] for client in file["clients"]}
        assert file["signature"] == "serving_default"
    none, int8 = document["files"]
    assert none["normalization"] == {"mean": [0.0], "std": [1.0]} and none["inputs"][0]["scale"] is None
    assert int8["inputs"][0] == int8["inputs"][0] | {"dtype": "uint8", "zero_point": 127, "scale": 1 / 128}


def test_it_holds_the_measured_figures(bundle, document):
    for file, row in zip(document["files"], bundle.rows, strict=True):
        report = row.report
        assert file["agreement"] == {
            "fraction": report.top1_agreement,
            "samples": 269,
            "interval": list(report.agreement_interval),
            "evidence": "held-out",
            "figures": {},
        }
        assert file["accuracy"]["top1"] == report.accuracy_tflite and file["accuracy"]["top5"] == report.top5_tflite
        assert (file["latency_ms"], file["latency_cpu"]) == (row.latency.median_ms, row.latency.cpu)
        assert file["calibration_images"] == (100 if file["precision"] == "int8" else None)
    assert document["recommended"] == bundle.recommended == bundle.recommendation.split()[1].rstrip(":")
    assert document["created_with"]["keras_effnet"] and document["created_with"]["litert"]


@pytest.mark.parametrize("beside", ["nothing", "the record of another file", "damaged records"])
def test_a_file_alone_has_facts_but_no_figures(bundle, tmp_path, beside):
    lone = shutil.copy(bundle.folder / "digits_int8.tflite", tmp_path / "lone.tflite")
    if beside == "the record of another file":
        shutil.copy(bundle.folder / "digits_none.json", tmp_path / "lone.json")
    elif beside == "damaged records":
        (tmp_path / "lone.json").write_text("{")
        row = {"export": {"sha256": hashlib.sha256((tmp_path / "lone.tflite").read_bytes()).hexdigest()}}
        damaged = {"rows": [1, row | {"report": {"samples": "many"}, "latency": 3}], "recommended": 3}
        (tmp_path / "report.json").write_text(json.dumps(damaged))
    found = of_files([lone])
    assert found.name == inspect(lone).metadata.name and found.classes == 10
    assert (found.image.resize.crop.fraction, found.image.resize.interpolation) == (1.0, "bilinear")
    (file,) = found.files
    assert file.precision == "int8" and file.outputs[0].shape == (1, 10)
    assert (file.agreement, file.accuracy, file.latency_ms, file.expected_top5) == (None,) * 4
    assert (found.recommended, found.test_image, found.created_with["keras"]) == (None, None, None)


def test_class_names_are_those_in_the_file(bundle, tmp_path):
    path = shutil.copy(bundle.folder / "digits_none.tflite", tmp_path)
    (tmp_path / "labels.txt").write_text("other\n" * 10)
    assert class_names(path)[3] == "digit 3"


def test_no_files_are_refused():
    with pytest.raises(UserError, match=r"no \.tflite files"):
        of_files([])
