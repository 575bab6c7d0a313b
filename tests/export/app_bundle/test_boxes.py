"""Bundles of detectors: Python, JavaScript and Kotlin find the boxes that `detection.detections` finds."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from app_documents import app_document, write_modules
from PIL import Image
from small_detector import small_detector
from tiny_files import tiny_file

from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.suppression import detections
from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.boxes import box_answers, box_rule
from keras_effnet.export.app_bundle.document import Agreement, BoxRule, ModelDocument, Resize
from keras_effnet.export.app_bundle.model_json import of_files
from keras_effnet.export.app_bundle.rendering import render_all
from keras_effnet.export.app_bundle.writing import image_spec_of
from keras_effnet.export.tflite_file.inspection import inspect
from keras_effnet.export.tflite_file.metadata.detector_options import centered_anchors
from keras_effnet.inference.detecting import original_scale
from keras_effnet.pipeline.geometry import evaluation_image

STAND_INS = Path(__file__).parents[2] / "support/android_stand_ins.txt"
SIDE, NAMES = 64, ["cat", "dog", "$bird"]
SPEC = small_detector(image_size=SIDE)
ANCHORS = anchor_boxes(SPEC)
RULE = BoxRule("anchors.bin", len(ANCHORS), 0.3, 0.5, 40, 300)
FITS = {"stretch": None, "letterbox": (123.0, 117.0, 104.0)}
SIZES = ((90, 61), (40, 200), (700, 290))  # width and height: enlarged, reduced, antialiased


class Bundle(NamedTuple):
    """The text files of a bundle, its document, and outputs of its network with the boxes in them."""

    folder: Path
    texts: dict[str, str]
    document: ModelDocument
    codes: np.ndarray
    scores: np.ndarray
    found: list[tuple[int, float, tuple[float, ...]]]


@pytest.fixture(params=FITS)
def bundle(request, tmp_path) -> Bundle:
    resize = Resize(None, "bilinear", fit=request.param, padding=FITS[request.param])
    shapes = [(1, len(ANCHORS), 4), (1, len(ANCHORS), len(NAMES))]
    document = app_document(shapes, SIDE, resize, task="detection", boxes=RULE)
    texts = dict(render_all(document, document.files[0]))
    rng = np.random.default_rng(0)
    codes = rng.normal(0, 0.3, shapes[0][1:]).astype("float32")
    codes[5, 2:] = 50  # beyond every image
    scores = rng.beta(1, 4, shapes[1][1:]).astype("float32")  # far more above the threshold than are kept
    scores[100:136, 1] = rng.uniform(0.8, 0.99, 36)  # of neighbours, which overlap
    expected = detections(
        codes, scores, ANCHORS, (SIDE, SIDE), score_threshold=0.3, max_detections=40, max_candidates=300
    )
    boxes = [(x0, y0, x1, y1) for y0, x0, y1, x1 in expected.boxes.tolist()]
    (tmp_path / "model.json").write_text(document.to_json())
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (tmp_path / "anchors.bin").write_bytes((centered_anchors(SPEC, (SIDE, SIDE)) * SIDE).astype("<f4").tobytes())
    found = list(zip(expected.labels.tolist(), expected.scores.tolist(), boxes, strict=True))
    assert len(found) == 40
    return Bundle(tmp_path, texts, document, codes, scores, found)


def assert_found(got: list[tuple[int, float, list[float]]], bundle: Bundle, scale: np.ndarray) -> None:
    """Boxes are those of the package, in pixels of an image with this scale, vertical and horizontal."""
    assert [index for index, _, _ in got] == [index for index, _, _ in bundle.found]
    np.testing.assert_allclose([score for _, score, _ in got], [score for _, score, _ in bundle.found], atol=1e-6)
    boxes = np.array([box for *_, box in bundle.found]) / scale[[1, 0, 1, 0]]
    np.testing.assert_allclose([box for *_, box in got], boxes, atol=1e-3)


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype("uint8")


def script_of(bundle: Bundle):
    (bundle.folder / "classify.py").write_text(bundle.texts["classify.py"])
    spec = importlib.util.spec_from_file_location("classify", bundle.folder / "classify.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_python_sees_the_pixels_of_the_evaluation_and_finds_the_boxes(bundle, monkeypatch):
    script = script_of(bundle)
    monkeypatch.setattr(script.Classifier, "__init__", lambda self: None)
    monkeypatch.setattr(script.Classifier, "outputs", lambda self, pixels: [bundle.codes, bundle.scores])
    image_spec = image_spec_of(bundle.document)
    for width, height in SIZES:
        pixels = noise(width, height)
        Image.fromarray(pixels).save(bundle.folder / "image.png")
        seen, scale = script.load_image(bundle.folder / "image.png")
        assert np.abs(seen - evaluation_image(pixels, image_spec).numpy()).max() < 0.05
        np.testing.assert_allclose(scale, original_scale(image_spec, (height, width)), rtol=1e-6)
        found = script.Classifier().boxes(bundle.folder / "image.png")
        assert [label for _, label, _, _ in found] == [NAMES[index] for index, _, _ in bundle.found]
        assert_found([(index, score, box) for index, _, score, box in found], bundle, scale)


def test_the_answers_of_a_bundle_are_those_boxes_and_a_lost_one_is_noticed(bundle, monkeypatch, capsys):
    row, scale = np.concatenate([bundle.codes.ravel(), bundle.scores.ravel()]), np.array([0.5, 2.0])
    anchors = centered_anchors(SPEC, (SIDE, SIDE)) * SIDE
    answers = box_answers(row, bundle.document, anchors, scale, NAMES)
    assert_found([(answer.index, answer.score, answer.box) for answer in answers], bundle, scale)

    script = script_of(bundle)
    file = {
        "expected_top5": [{"index": a.index, "label": a.label, "score": a.score, "box": a.box} for a in answers[:5]]
    }
    monkeypatch.setitem(script.MODEL, "test_image", "any.png")
    found = [(answer.index, answer.label, answer.score, answer.box) for answer in answers]
    classifier = type("Found", (), {"file": file, "boxes": lambda self, path: found})()
    assert script.check(classifier) == 0 and "As expected." in capsys.readouterr().out
    del found[1]
    assert script.check(classifier) == 1 and "DIFFERENT" in capsys.readouterr().out


def test_javascript_sees_the_pixels_of_the_evaluation_and_finds_the_boxes(bundle):
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    folder = bundle.folder
    write_modules(folder, bundle.texts)
    bundle.codes.tofile(folder / "codes")
    bundle.scores.tofile(folder / "scores")
    for number, (width, height) in enumerate(SIZES):
        np.dstack([noise(width, height), np.full((height, width), 255, "uint8")]).tofile(folder / f"image{number}")
    (folder / "run.mjs").write_text(
        """
        import { readFileSync, writeFileSync } from "fs";
        import { answersOf } from "./classify.js";
        import { decode } from "./decode.js";
        import { padded, placement, resample } from "./resample.js";
        const model = JSON.parse(readFileSync("model.json"));
        const floats = (name) => new Float32Array(Uint8Array.from(readFileSync(name)).buffer);
        const [codes, scores, anchors] = ["codes", "scores", "anchors.bin"].map(floats);
        const labels = readFileSync("labels.txt", "utf-8").trim().split("\\n");
        const results = SIZES.map(([width, height], number) => {
          const { extent, scale } = placement({ width, height }, model.image);
          const image = { data: readFileSync(`image${number}`), width, height };
          const pixels = padded(resample(image, extent, model.image.resize), extent, model.image);
          writeFileSync(`pixels${number}`, pixels);
          const code = answersOf(codes, scores, anchors, scale, labels, model);
          const page = decode([codes, scores], labels, model, { anchors, scale });
          const few = decode([codes, scores], labels, model, { anchors, scale, threshold: 0.85 });
          return { code, page, few: few.boxes.length, scale };
        });
        console.log(JSON.stringify(results));
        """.replace("SIZES", json.dumps(SIZES))
    )
    done = subprocess.run([node, "run.mjs"], cwd=folder, check=True, capture_output=True, text=True)
    image_spec = image_spec_of(bundle.document)
    for number, (result, (width, height)) in enumerate(zip(json.loads(done.stdout), SIZES, strict=True)):
        pixels = np.fromfile(folder / f"pixels{number}", "float32").reshape(SIDE, SIDE, 3)
        assert np.abs(pixels - evaluation_image(noise(width, height), image_spec).numpy()).max() < 0.05
        scale = original_scale(image_spec, (height, width))
        np.testing.assert_allclose([result["scale"]["y"], result["scale"]["x"]], scale, rtol=1e-6)
        for boxes in (result["code"], result["page"]["boxes"]):
            assert_found([(each["index"], each["score"], each["box"]) for each in boxes], bundle, scale)
        assert [each["label"] for each in result["code"]] == [NAMES[index] for index, _, _ in bundle.found]
        assert 0 < result["few"] == sum(score > 0.85 for _, score, _ in bundle.found) < 40
        numbers = [index for index, _, _ in bundle.found]
        rows = {each["label"]: each["text"] for each in result["page"]["answers"]}
        assert {name: int(text.split()[0]) for name, text in rows.items()} == {
            NAMES[index]: numbers.count(index) for index in set(numbers)
        }


def test_code_for_phones_decodes_boxes_by_the_numbers_of_the_file(bundle):
    texts = {path.rpartition("/")[2]: text for path, text in bundle.texts.items()}
    for name in ("Classifier.swift", "Boxes.kt", "Classifiers.kt", "Images.kt", "ModelSpec.kt", "Preprocessing.kt"):
        assert texts[name].count("{") == texts[name].count("}"), name
    assert 'ANCHORS = "anchors.bin"' in texts["ModelSpec.kt"] and "SCORE_THRESHOLD = 0.3f" in texts["ModelSpec.kt"]
    assert "scoreThreshold: Float = 0.3\n" in texts["Classifier.swift"]
    padded = bundle.document.image.resize.fit == "letterbox"
    assert ("123.0f" in texts["ModelSpec.kt"]) == ("123.0" in texts["Classifier.swift"]) == padded
    assert "mediapipe" not in "".join(bundle.texts.values()).lower().replace("| mediapipe", "")
    assert ("aspect ratio is not kept" in bundle.texts["README.md"]) == (not padded)


def test_the_model_card_of_a_detector_has_its_average_precision():
    shapes = [(1, 5, 4), (1, 5, 2)]
    document = app_document(shapes, SIDE, Resize(None, "bilinear", fit="stretch"), task="detection", boxes=RULE)
    found = Agreement(0.98, 72, (0.97, 0.99), "held-out", {"AP": 0.516, "AP of Keras": 0.52})
    files = (replace(document.files[0], agreement=found), replace(document.files[0], file="other.tflite"))
    card = dict(render_all(replace(document, files=files), files[0]))["MODEL_CARD.md"]
    header, *rows = [line for line in card.splitlines() if line.startswith(("| file", "| `"))]
    assert [cell.strip() for cell in header.split("|")[4:6]] == ["AP", "AP of Keras"] and "top-1" not in card
    assert [cell.strip() for cell in rows[0].split("|")[4:7]] == ["51.6%", "52.0%", "98% of 72 [97%, 99%]"]
    assert [cell.strip() for cell in rows[1].split("|")[4:7]] == ["-", "-", "-"]
    assert {len(line.split("|")) for line in (header, *rows)} == {len(header.split("|"))}


def test_a_file_without_anchors_and_one_that_ends_in_detections_are_refused(tmp_path):
    tensors = {"image": ("float32", (1, 8, 8, 3)), "boxes": ("float32", (1, 5, 4)), "scores": ("float32", (1, 5, 2))}
    steps = [("RESHAPE", "image", "boxes"), ("RESHAPE", "image", "scores")]
    (tmp_path / "raw.tflite").write_bytes(tiny_file(tensors, steps, "image", "boxes scores"))
    with pytest.raises(UserError, match=r"^raw has 5 boxes, but 0 anchors in its metadata: export it again"):
        box_rule("raw", inspect(tmp_path / "raw.tflite"))
    steps = [("TFLite_Detection_PostProcess", "image", "boxes scores")]
    (tmp_path / "net_nms.tflite").write_bytes(tiny_file(tensors, steps, "image", "boxes scores"))
    with pytest.raises(UserError, match=r"net_nms\.tflite ends in detections, for clients alone: give the file"):
        of_files([tmp_path / "net_nms.tflite"])


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["letterbox"], indirect=True)
def test_kotlin_compiles_sees_the_pixels_and_finds_the_boxes(bundle):
    """With the compiler of npm's `kotlin-compiler`, against stand-ins for Android's classes."""
    home = os.environ.get("KOTLIN_COMPILER")
    if not home:
        pytest.skip("KOTLIN_COMPILER names no folder of the npm package kotlin-compiler")
    folder = bundle.folder
    stand_ins = STAND_INS.read_text() + KOTLIN_BOXES
    for number, text in enumerate(re.split(r"(?m)^(?=package )", stand_ins)[1:]):
        (folder / f"StandIns{number}.kt").write_text(text)
    for path, text in bundle.texts.items():
        if path.endswith(".kt"):
            (folder / Path(path).name).write_text(text)
    jars = ":".join(map(str, Path(home, "lib").glob("*.jar")))
    kotlinc = ["java", "-cp", jars, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-Werror", "-kotlin-home", home]
    command = [*kotlinc, "-d", folder / "out", *folder.glob("*.kt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    bundle.codes.astype(">f4").tofile(folder / "codes")
    bundle.scores.astype(">f4").tofile(folder / "scores")
    image_spec = image_spec_of(bundle.document)
    for width, height in SIZES:
        pixels = noise(width, height)
        np.dstack([np.full((height, width), 255, "uint8"), pixels]).tofile(folder / "argb")
        run = ["java", "-cp", f"{folder / 'out'}:{jars}", "com.example.boxes.Run", str(width), str(height)]
        done = subprocess.run(run, cwd=folder, check=True, capture_output=True, text=True)
        seen = np.fromfile(folder / "result", ">f4").reshape(SIDE, SIDE, 3)
        assert np.abs(seen - evaluation_image(pixels, image_spec).numpy()).max() < 0.05
        rows = [line.split() for line in done.stdout.splitlines()]
        found = [(int(index), float(score), list(map(float, box))) for index, score, *box in rows]
        assert_found(found, bundle, original_scale(image_spec, (height, width)))


KOTLIN_BOXES = """
package com.example.boxes
import com.example.classifier.BoxDecoder
import com.example.classifier.Preprocessing
import java.io.File
import java.nio.ByteBuffer
object Run { // WIDTH HEIGHT: resizes big-endian ARGB pixels, decodes big-endian outputs
    private fun floats(name: String): FloatArray {
        val content = ByteBuffer.wrap(File(name).readBytes()).asFloatBuffer()
        return FloatArray(content.capacity()).also { content.get(it) }
    }

    @JvmStatic
    fun main(arguments: Array<String>) {
        val (width, height) = arguments.map { it.toInt() }
        val pixels = ByteBuffer.wrap(File("argb").readBytes()).asIntBuffer()
        val resized = Preprocessing.resize(width, height) { row, into ->
            pixels.position(row * width)
            pixels.get(into)
        }
        val bytes = ByteBuffer.allocate(resized.size * 4)
        bytes.asFloatBuffer().put(resized)
        File("result").writeBytes(bytes.array())
        val (across, down) = Preprocessing.scales(width, height)
        for (found in BoxDecoder(File("anchors.bin").readBytes()).decode(floats("codes"), floats("scores"))) {
            val box = found.box.divided(across, down)
            println("${found.index} ${found.score} ${box.left} ${box.top} ${box.right} ${box.bottom}")
        }
    }
}
"""
