"""Export bundles: files, labels, and a report with a recommendation."""

from __future__ import annotations

import errno
import gzip
import html
import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from exports import PRECISIONS
from PIL import Image

from keras_effnet.errors import UserError
from keras_effnet.export import bundle as bundle_module
from keras_effnet.export import write_bundle
from keras_effnet.export.measure.latency import LatencyReport
from keras_effnet.export.report import cells, columns
from keras_effnet.export.tflite_file.inspection import operators
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.system.machine import cpu_name


@pytest.fixture(scope="module")
def bundle(trained, digits, tmp_path_factory):
    return write_bundle(
        trained.model,
        tmp_path_factory.mktemp("bundle"),
        held_out=digits.test,
        calibration=digits.train,
        name="digits",
        input_type="uint8",
        labels=digits.class_names,
        image_spec=ImageSpec(32, 127.0, 128.0),
    )


def test_a_bundle_holds_every_file_that_it_promises(bundle):
    assert {path.name for path in bundle.folder.iterdir()} == {
        *(f"digits_{precision}.tflite" for precision in PRECISIONS),
        *(f"digits_{precision}.json" for precision in PRECISIONS),
        "labels.txt",
        "image_spec.json",
        "report.md",
        "report.html",
        "report.json",
        "converter.log",
        "precisions.png",
        "layers.png",
    }
    for name in ("precisions.png", "layers.png"):
        with Image.open(bundle.folder / name) as image:
            image.verify()
    assert ImageSpec.load(bundle.folder / "image_spec.json") == ImageSpec(32, 127.0, 128.0)
    assert bundle.refused == ()


def test_the_table_of_the_report_says_what_the_files_are(bundle):
    lines = (bundle.folder / "report.md").read_text().splitlines()
    header = next(index for index, line in enumerate(lines) if line.startswith("| precision"))
    headers = [cell.strip() for cell in lines[header].strip("|").split("|")]
    below = lines[header + 2 : header + 2 + len(PRECISIONS)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in below]
    table = [dict(zip(headers, row, strict=True)) for row in rows]
    assert [row["precision"] for row in table] == list(PRECISIONS)
    for row in table:
        content = (bundle.folder / f"digits_{row['precision']}.tflite").read_bytes()
        assert row["size"] == f"{len(content) / 1e6:.2f} MB"
        assert row["gzip"] == f"{len(gzip.compress(content)) / 1e6:.2f} MB"
        assert row["ops"] == str(sum(operators(content).values()))
        assert float(row["top-1"].rstrip("%")) > 90 and float(row["agreement"].split("%")[0]) >= 97
        assert "% of 269 [9" in row["agreement"]
        assert float(row["top-5"].rstrip("%")) > 97
        assert float(row["SQNR"].removesuffix(" dB")) > 10 and float(row["latency"].removesuffix(" ms")) > 0
        assert float(row["memory"].removesuffix(" MB")) > 0
    runtimes = [line for line in lines if line.startswith("| LiteRT CPU |")]
    assert runtimes == ["| LiteRT CPU | yes | yes | yes | yes | yes | trial |"]


def test_the_html_report_is_one_file_with_all_that_the_others_say(bundle):
    page = (bundle.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "://" not in page and "src=" in page
    assert bundle.recommendation in html.unescape(page)
    for row in bundle.rows:
        assert row.export.path.name in page and row.export.sha256 in page


def test_layers_are_profiled_from_the_input_to_the_output(bundle):
    (int8,) = [row for row in bundle.rows if row.quantization == "int8"]
    names = [error.layer for error in int8.layers]
    assert names[0].startswith("stem") and names[-1] == "predictions"
    (exact,) = [row for row in bundle.rows if row.quantization == "none"]
    assert min(error.sqnr_db for error in exact.layers) > 100 > max(error.sqnr_db for error in int8.layers)


def test_the_report_names_the_processor_and_the_models_own_accuracy(bundle):
    text = (bundle.folder / "report.md").read_text()
    assert cpu_name() in text
    assert f"The Keras model on the same 269 images: {bundle.rows[0].report.accuracy_keras:.1%}" in text
    for row in bundle.rows:
        assert row.export.sha256 in text


def test_the_report_is_also_json(bundle):
    report = json.loads((bundle.folder / "report.json").read_text(), parse_constant=pytest.fail)
    assert [row["quantization"] for row in report["rows"]] == list(PRECISIONS)
    assert report["rows"][3]["export"]["report"]["top1_agreement"] >= 0.97
    assert report["rows"][3]["latency"]["cpu"] == cpu_name()
    assert report["recommendation"] == bundle.recommendation


def test_the_recommendation_names_one_of_the_files_with_its_figures(bundle):
    assert bundle.recommendation.startswith("Ship digits_")
    name = bundle.recommendation.split()[1].rstrip(":")
    row = next(row for row in bundle.rows if row.export.path.name == name)
    fastest = min(row.latency.median_ms for row in bundle.rows)
    assert row.latency.median_ms <= 1.1 * fastest
    assert f"{row.export.size_bytes / 1e6:.2f} MB" in bundle.recommendation


def test_of_files_equally_fast_the_smallest_is_recommended(trained, digits, tmp_path, monkeypatch):
    times = {"none": 1.05, "float16": 1.0, "dynamic": 2.0}
    monkeypatch.setattr(
        bundle_module,
        "benchmark_in_turn",
        lambda paths: [LatencyReport(times[path.stem.rsplit("_", 1)[1]], 0.0, 1, 1, "test") for path in paths],
    )
    result = write_bundle(trained.model, tmp_path, ["none", "float16", "dynamic"], held_out=digits.test)
    assert result.recommendation.startswith("Ship model_float16.tflite")  # dynamic is smaller and too slow


def test_a_precision_that_is_refused_does_not_stop_the_others(fragile_model, smooth_images, tmp_path):
    images = smooth_images(60, 8)
    result = write_bundle(fragile_model(), tmp_path, ["none", "int8"], held_out=images, calibration=images)
    assert [row.quantization for row in result.refused] == ["int8"]
    assert (tmp_path / "model_none.tflite").is_file() and not (tmp_path / "model_int8.tflite").exists()
    text = (tmp_path / "report.md").read_text()
    assert "| int8 | refused |" in text and "signal is first lost in" in text
    assert 'class="refused"' in (tmp_path / "report.html").read_text()
    assert result.refused[0].report.top1_agreement < 0.9  # what was measured stays
    assert "int8 refused: The int8 file disagrees with the model" in text
    assert result.recommendation.startswith("Ship model_none.tflite")
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_where_nothing_agrees_nothing_is_recommended(fragile_model, smooth_images, tmp_path):
    images = smooth_images(60, 8)
    result = write_bundle(
        fragile_model(), tmp_path, ["int8"], held_out=images, calibration=images, app_bundle=True, test_images=images
    )
    assert "Do not ship any" in result.recommendation
    assert not list(tmp_path.glob("*.tflite")) and not (tmp_path / "bundle").exists()
    assert (tmp_path / "report.md").is_file()


def test_files_that_exist_are_refused_before_any_other_is_written(toy_model, smooth_images, tmp_path):
    (tmp_path / "model_float16.tflite").write_bytes(b"precious")
    with pytest.raises(UserError, match="exists; pass overwrite=True"):
        write_bundle(toy_model(size=32), tmp_path, ["none", "float16"], held_out=smooth_images(20, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["model_float16.tflite"]
    assert (tmp_path / "model_float16.tflite").read_bytes() == b"precious"


def test_int8_without_calibration_is_refused_before_any_file_is_written(toy_model, smooth_images, tmp_path):
    with pytest.raises(UserError, match="int8 needs images to calibrate on"):
        write_bundle(toy_model(size=32), tmp_path, held_out=smooth_images(20, 32))
    assert not list(tmp_path.iterdir())


def test_images_without_labels_give_no_accuracy(toy_model, smooth_images, tmp_path):
    result = write_bundle(toy_model(size=32), tmp_path, ["none"], held_out=smooth_images(20, 32))
    assert cells(result.rows[0], ["top-1", "top-5"]) == ("-", "-")
    assert "| none |" in (tmp_path / "report.md").read_text()


def test_every_step_is_announced(toy_model, smooth_images, tmp_path):
    steps = []
    write_bundle(
        toy_model(size=32), tmp_path, ["none", "dynamic"], held_out=smooth_images(20, 32), announce=steps.append
    )
    assert [step for step in steps if step.startswith("Exporting")] == ["Exporting none", "Exporting dynamic"]
    assert "Running the dynamic file (dynamic)" in steps


def test_a_row_shows_figures_rounded_for_people(bundle):
    row = replace(
        bundle.rows[0],
        export=replace(bundle.rows[0].export, size_bytes=1_234_567, compressed_bytes=1_000_001),
        report=replace(bundle.rows[0].report, accuracy_tflite=0.98765, score=1.0, sqnr_db=np.float64(51.26)),
        latency=LatencyReport(0.4567, 0.1, 50, 1, "test"),
        memory_mb=7.6,
    )
    agreement = "100% of 269 [98.6, 100]"
    shown = cells(row, columns([row], short=True))
    assert shown == ("none", "1.23 MB", "1.00 MB", "98.8%", agreement, "51.3 dB", "0.46 ms", "8 MB")


@pytest.mark.parametrize("option", [{"input_type": "uint8"}, {"method": "minmax"}, {"float_blocks": ["stem"]}])
def test_an_option_that_none_of_the_precisions_has_a_use_for_is_refused(toy_model, smooth_images, tmp_path, option):
    with pytest.raises(UserError, match="applies to none of the requested precisions"):
        write_bundle(toy_model(size=32), tmp_path, ["none"], held_out=smooth_images(20, 32), **option)
    assert not list(tmp_path.iterdir())


def test_notes_stand_in_the_report(toy_model, smooth_images, tmp_path):
    write_bundle(toy_model(size=32), tmp_path, ["none"], held_out=smooth_images(20, 32), notes=["Pruned <before>."])
    assert r"Pruned \<before\>." in (tmp_path / "report.md").read_text()
    assert "Pruned &lt;before&gt;." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("last", ["precisions.png", "report.html", "report.json", "model_none.tflite"])
def test_a_disk_that_fills_up_under_the_report_is_said_in_one_line(
    toy_model, smooth_images, tmp_path, monkeypatch, last
):
    replace_file = Path.replace

    def full(self, target):
        if target.name == last:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", full)
    (tmp_path / "report.html").write_text("earlier")
    with pytest.raises(UserError, match=rf"^Cannot write to {tmp_path}: No space left on device\. Free some space"):
        write_bundle(toy_model(size=32), tmp_path, ["none"], held_out=smooth_images(20, 32))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "earlier"


def test_a_detector_sees_whole_images_unless_told_how(tmp_path, monkeypatch):
    pixels = keras.Input((8, 8, 3))
    boxes, scores = keras.layers.Reshape((48, 4))(pixels), keras.layers.Reshape((48, 4), name="scores")(pixels)
    model, seen = keras.Model(pixels, {"boxes": boxes, "scores": scores}), []

    def images_at(model, calibration, held_out, image_spec, *others):
        seen.append(image_spec.fit)
        raise UserError("enough")

    monkeypatch.setattr(bundle_module, "prepare_inputs", images_at)
    for given in (None, ImageSpec(8), ImageSpec(8, fit="letterbox")):
        with pytest.raises(UserError, match="enough"):
            write_bundle(model, tmp_path, ["none"], held_out=None, image_spec=given)
    assert seen == ["stretch", "stretch", "letterbox"]
