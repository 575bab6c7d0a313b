"""App bundles: what lies in them, and that their Python and JavaScript give the expected answers."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess

import keras
import numpy as np
import pytest
from app_documents import write_modules
from PIL import Image

from keras_effnet.datasets.decoding import read
from keras_effnet.errors import UserError
from keras_effnet.export import write_app_bundle, write_bundle
from keras_effnet.export.app_bundle.sample_image import choose, png
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.pipeline.geometry import evaluation_image
from keras_effnet.preprocessing import ImageSpec

ANDROID = "android/app/src/main"


@pytest.fixture(scope="module")
def folder(app_export):
    return app_export.folder / "bundle"


@pytest.fixture(scope="module")
def spec(app_export):
    return ImageSpec.load(app_export.folder / "image_spec.json")


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "model.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def script(folder):
    """The bundle's `classify.py` as a module."""
    found = importlib.util.spec_from_file_location("classify", folder / "classify.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photo(tmp_path_factory, smooth_images):
    """A large photo that lies on its side, with an EXIF orientation."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    image = Image.fromarray(smooth_images(1, 301, seed=3)[0]).resize((401, 301))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    return path


def test_a_bundle_holds_everything_an_app_needs(app_export, folder, document):
    for name in ("digits_none.tflite", "digits_int8.tflite"):
        assert (folder / name).read_bytes() == (app_export.folder / name).read_bytes()
    assert (folder / "labels.txt").read_text().splitlines()[7:] == ["digit 7", "$eight", 'n"ine\\']
    assets = {path.name for path in (folder / ANDROID / "assets").iterdir()}
    assert assets == {"labels.txt", "test_image.png", document["recommended"]}
    assert {"README.md", "MODEL_CARD.md", "classify.py", "classify.js", "Classifier.swift", "android"} <= {
        path.name for path in folder.iterdir()
    }


def test_expected_answers_are_those_of_litert_for_the_test_image(folder, document, spec):
    pixels = evaluation_image(read(folder / "test_image.png"), spec).numpy()[None]
    labels = (folder / "labels.txt").read_text().splitlines()
    for file in document["files"]:
        scores = TFLiteModel(folder / file["file"]).predict(pixels)[0]
        best = np.argsort(-scores, kind="stable")[:5]
        assert [answer["index"] for answer in file["expected_top5"]] == best.tolist()
        assert [answer["label"] for answer in file["expected_top5"]] == [labels[index] for index in best]
        np.testing.assert_allclose([answer["score"] for answer in file["expected_top5"]], scores[best], atol=1e-5)
        assert scores.max() > 0.5


def test_the_python_script_gives_the_expected_answer_with_each_file(script, document, capsys):
    for file in document["files"]:
        assert script.main(["--file", file["file"]]) == 0
        assert "As expected." in capsys.readouterr().out
    assert document["recommended"] == script.DEFAULT


def test_the_python_script_fails_where_the_answer_differs(script, monkeypatch, capsys):
    monkeypatch.setattr(script.Classifier, "top5", lambda self, path: [(9 - i, "x", 0.1) for i in range(5)])
    assert script.main([]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_the_python_script_sees_the_pixels_of_the_evaluation(script, photo, monkeypatch, spec):
    for size, interpolation in ((32, "bicubic"), (32, "bilinear"), (200, "bicubic"), (200, "bilinear")):
        rule = {"crop": {"fraction": 0.875}, "interpolation": interpolation, "antialias_from_reduction": 4}
        monkeypatch.setitem(script.MODEL, "image", {"height": size, "width": size, "resize": rule})
        expected = evaluation_image(read(photo), ImageSpec(size, crop=0.875, interpolation=interpolation)).numpy()
        assert np.abs(script.load_image(photo) - expected).max() < 0.05  # of 255


def test_the_javascript_sees_the_pixels_of_the_evaluation(folder, photo, tmp_path, spec, document):
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    upright = read(photo)
    height, width = upright.shape[:2]
    side = round(0.875 * min(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    square = upright[top : top + side, left : left + side]
    np.dstack([square, np.full(square.shape[:2], 255, "uint8")]).tofile(tmp_path / "square")
    write_modules(tmp_path, {path.name: path.read_text() for path in folder.glob("*.js")})
    (tmp_path / "run.mjs").write_text(
        'import { readFileSync, writeFileSync } from "fs"; import { toInput } from "./classify.js";\n'
        'import { placement, resample } from "./resample.js";\n'
        f"const rule = {json.dumps(document['image'])};\n"
        f"const {{ window, extent }} = placement({{ width: {width}, height: {height} }}, rule);\n"
        f"if (window.left !== {left} || window.top !== {top} || window.width !== {side}) throw new Error();\n"
        f'const image = {{ data: readFileSync("square"), width: {side}, height: {side} }};\n'
        "const pixels = resample(image, extent, rule.resize);\n"
        'writeFileSync("pixels", pixels);\n'
        f'writeFileSync("bytes", toInput(pixels, {json.dumps(document["files"][1])}));\n'
    )
    subprocess.run([node, "run.mjs"], cwd=tmp_path, check=True)
    expected = evaluation_image(upright, spec).numpy()
    pixels = np.fromfile(tmp_path / "pixels", "float32").reshape(32, 32, 3)
    assert np.abs(pixels - expected).max() < 0.05
    np.testing.assert_array_equal(np.fromfile(tmp_path / "bytes", "uint8"), np.round(pixels).ravel())


def test_the_model_card_has_the_measured_figures_and_says_what_is_missing(app_export, folder):
    card = (folder / "MODEL_CARD.md").read_text()
    _, header, text = card.split("---\n", 2)
    assert "license: unknown" in header and "image-classification" in header
    for row in app_export.rows:
        agreement = f"{100 * row.report.top1_agreement:.3g}% of 269"
        line = next(line for line in text.splitlines() if row.export.path.name in line)
        assert agreement in line and f"{row.latency.median_ms:.2f} ms" in line
    assert "| LiteRT CPU | yes | yes | trial |" in text
    assert "To be written by the author" in text and "100 calibration images" in text


def test_a_bundle_of_files_alone_has_no_figures_but_a_given_test_image(app_export, photo, tmp_path):
    shutil.copy(app_export.folder / "digits_int8.tflite", tmp_path / "lone.tflite")
    folder = write_app_bundle(tmp_path, test_image=photo)
    assert folder == tmp_path / "bundle"
    found = json.loads((folder / "model.json").read_text())
    assert found["files"][0]["agreement"] is None and len(found["files"][0]["expected_top5"]) == 5
    with Image.open(folder / "test_image.png") as image:
        assert image.size == (301, 401) and not image.getexif()  # upright, no metadata
    (folder / "mine").write_text("")
    with pytest.raises(UserError, match="bundle exists; pass overwrite=True"):
        write_app_bundle(tmp_path)
    write_app_bundle(tmp_path, overwrite=True)
    assert not (folder / "mine").exists() and not (folder / "test_image.png").exists()
    assert "test_image.png" not in (folder / "README.md").read_text()


def test_a_folder_without_files_makes_no_bundle(tmp_path):
    with pytest.raises(UserError, match=r"contains no \.tflite files"):
        write_app_bundle(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_test_image_is_one_that_the_network_is_sure_of_and_right_about(digits):
    scores = np.full((64, 10), 0.05)
    labels = digits.test.sample(64).labels
    scores[np.arange(64), labels] = 0.5
    scores[5] = np.eye(10)[(labels[5] + 1) % 10]  # sure, and wrong
    scores[7, labels[7]] = 0.4
    scores[9] = 0.5 ** np.arange(1, 11)  # well apart, but which is first?
    scores[9] = np.roll(np.sort(scores[9])[::-1], labels[9])
    image = choose(lambda pixels: scores, digits.test, ImageSpec(8))
    assert (image == next(iter(digits.test.sample(64).select([9]).decoded()))).all()


def test_a_large_image_is_reduced_and_a_small_one_kept():
    for size, kept in (((900, 600), (341, 512)), ((40, 30), (30, 40))):
        with Image.open(io.BytesIO(png(np.zeros((*size, 3), "uint8"), 224))) as image:
            assert image.size == kept


@pytest.mark.parametrize(
    ("channels", "image", "message"),
    [(3, "missing.png", "missing.png"), (1, None, "A bundle is for RGB images, but the network takes 1 channels")],
)
def test_what_prevents_a_bundle_is_said_before_the_export(tmp_path, channels, image, message):
    pixels = keras.Input((8, 8, channels))
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(pixels))
    model, steps = keras.Model(pixels, scores), []
    with pytest.raises(UserError, match=message):
        write_bundle(
            model, tmp_path, ["none"], held_out=None, app_bundle=True, test_images=image, announce=steps.append
        )
    assert steps == [] and list(tmp_path.iterdir()) == []


def test_a_test_image_without_a_bundle_is_refused(cli, trained):
    done = cli("export", trained.run_dir, "--test-image", "none")
    assert done.status == 2 and "--test-image would have no effect" in done.err
