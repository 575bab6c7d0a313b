"""LiteRT.js and MediaPipe in Chromium run the files of Lite0 with ImageNet weights on real images as Python does."""

from __future__ import annotations

import csv
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from chromium import chromium

from keras_effnet.errors import UserError
from keras_effnet.export.app_bundle.model_json import of_files
from keras_effnet.export.candidate_trial import try_precision
from keras_effnet.export.description import About
from keras_effnet.export.recipes import Settings
from keras_effnet.export.tflite import prepare_inputs
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.web.page import page_of
from keras_effnet.export.web.server import PageServer
from keras_effnet.imagenet import imagenet_classes, readable
from keras_effnet.inference import artifacts
from keras_effnet.inference.image_files import image

pytestmark = [pytest.mark.slow, pytest.mark.images]

SAMPLE = 40  # every seventh of the first 280 images
FILES = {"none": "float32", "float16": "float32", "dynamic": "float32", "weight_only": "float32", "int8": "uint8"}
# Largest difference of a probability. XNNPACK has other kernels for dynamic-range files on each kind of processor.
TOLERANCE = {"none": 1e-5, "float16": 1e-5, "weight_only": 1e-5, "int8": 1e-5, "dynamic": 0.05}

LITERT_PAGE = b"""<!doctype html><meta charset="utf-8"><title>LiteRT.js</title>
<script type="importmap">
{"imports": {"@litertjs/core": "./litert/core.js", "@litertjs/wasm-utils": "./litert/wasm-utils.js"}}
</script><body></body>"""
LITERT = """async ([name, count, size]) => {
    const {Classifier} = await import('./classifier.js');
    const document = await (await fetch('model.json')).json();
    const file = document.files.find((each) => each.file === name);
    const classifier = await Classifier.open(file, new Uint8Array(await (await fetch(name)).arrayBuffer()), 'wasm');
    const pixels = new Float32Array(await (await fetch('pixels.bin')).arrayBuffer());
    const results = [];
    for (let index = 0; index < count; index++) {
        const {outputs: [scores]} = await classifier.run(pixels.subarray(index * size, (index + 1) * size));
        results.push(Array.from(scores));
    }
    classifier.close();
    return results;
}"""
MEDIAPIPE = """async ([name, count]) => {
    const {FilesetResolver, ImageClassifier} = await import('./vision_bundle.mjs');
    const files = await FilesetResolver.forVisionTasks('./wasm');
    const options = {baseOptions: {modelAssetPath: name, delegate: 'CPU'}, maxResults: 1};
    const classifier = await ImageClassifier.createFromOptions(files, options);
    const results = [];
    for (let index = 0; index < count; index++) {
        const bitmap = await createImageBitmap(await (await fetch(`image${index}`)).blob());
        const [{categories: [best]}] = classifier.classify(bitmap).classifications;
        results.push([best.index, best.categoryName]);
    }
    classifier.close();
    return results;
}"""


class Lite0(NamedTuple):
    """Files, images `(N, size, size, 3)` with their paths and true classes."""

    paths: dict[str, Path]
    pixels: np.ndarray
    images: list[Path]
    truth: list[int]


@pytest.fixture(scope="module")
def lite0(images_root, tmp_path_factory) -> Lite0:
    try:
        artifact = artifacts.load("lite0")
    except UserError as error:
        pytest.skip(str(error))
    sample, folder = images_root / "imagenet-sample-300", tmp_path_factory.mktemp("lite0")
    with (sample / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]][: 7 * SAMPLE : 7]
    source, reference = prepare_inputs(artifact.model, str(sample), None, artifact.image_spec, 20, 0)
    about = About(license="Apache-2.0").completed("lite0", 1000, artifact.class_names)
    paths = {}
    for precision, input_type in FILES.items():
        # One int8 method of several: how good it is matters to other tests.
        settings = Settings(input_type=input_type, method="minmax" if precision == "int8" else None)
        trial = try_precision(source, reference, precision, settings, about=about)
        paths[precision] = folder / f"lite0_{precision}.tflite"
        paths[precision].write_bytes(trial.candidate.content)
    images = [sample / row["file"] for row in rows]
    pixels = np.concatenate([image(path, artifact.image_spec) for path in images])
    return Lite0(paths, pixels, images, [int(row["index"]) for row in rows])


@contextmanager
def tab_of(files: dict[str, Path | bytes]):
    """A tab with a page of these files."""
    with chromium("--disable-gpu") as browser, PageServer(files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        tab = browser.new_page()
        tab.goto(server.url)
        yield tab
        server.shutdown()


def test_litert_js_computes_what_litert_does(lite0):
    try:
        page = page_of(lite0.paths["none"].parent)
    except UserError as error:
        pytest.skip(str(error))
    pixels = lite0.pixels[::5].astype("float32")
    files = {**page.files, "index.html": LITERT_PAGE, "pixels.bin": pixels.tobytes()}
    assert {file.file for file in of_files(list(lite0.paths.values())).files} == set(page.models)
    with tab_of(files) as tab:
        for precision, path in lite0.paths.items():
            found = np.asarray(tab.evaluate(LITERT, [path.name, len(pixels), pixels[0].size]))
            expected = TFLiteModel(path).predict(pixels)
            assert np.abs(found - expected).max() < TOLERANCE[precision], precision
            agreeing = (found.argmax(1) == expected.argmax(1)).mean()
            assert agreeing == 1 or (precision == "dynamic" and agreeing >= 0.85), precision


def test_mediapipe_classifies_with_names(lite0, node_modules):
    vision = node_modules / "@mediapipe/tasks-vision"
    files: dict[str, Path | bytes] = {f"wasm/{path.name}": path for path in (vision / "wasm").iterdir()}
    files |= {
        "index.html": b"<!doctype html><title>MediaPipe</title>",
        "vision_bundle.mjs": vision / "vision_bundle.mjs",
    }
    files |= {path.name: path for path in lite0.paths.values()}
    files |= {f"image{number}": path for number, path in enumerate(lite0.images)}
    names = readable(wnid for wnid, _ in imagenet_classes())
    right = {}
    with tab_of(files) as tab:
        for precision, path in lite0.paths.items():
            found = tab.evaluate(MEDIAPIPE, [path.name, SAMPLE])
            assert all(name == names[index] for index, name in found)
            right[precision] = sum(index == truth for (index, _), truth in zip(found, lite0.truth, strict=True))
    print(json.dumps(right))
    assert min(right.values()) >= 30, right
