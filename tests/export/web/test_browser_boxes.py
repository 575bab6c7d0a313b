"""The page of a detector in Chromium: the boxes of `predict` on an image, on the camera, above a score."""

from __future__ import annotations

import importlib.util
import inspect
import json

import keras
import numpy as np
import pytest
from chromium import served
from PIL import Image, ImageFilter
from small_detector import small_detector

from keras_effnet.architecture.detector_files import save_detector
from keras_effnet.cli.app import main
from keras_effnet.detection.boxes import overlaps
from keras_effnet.detection.suppression import detections
from keras_effnet.evaluation.by_task.boxes import scaled
from keras_effnet.inference import artifacts
from keras_effnet.inference.detecting import detect, original_scale
from keras_effnet.inference.image_files import image
from keras_effnet.preprocessing import ImageSpec

pytestmark = pytest.mark.slow

SIDE, NAMES = 64, ["red cell", "blue cell"]
SPEC = small_detector(image_size=SIDE, levels=(3, 4), aspects=((1.0, 1.0),), octaves=1, anchor_scale=2.0, classes=2)
WIDTH, HEIGHT = 384, 256  # a pixel of the input is 6 pixels wide and 4 high
# Class, colour, and position in the input as (y0, x0, y1, x1), on anchors. The third is fainter.
CELLS = (
    (0, (235, 60, 70), (12, 12, 28, 28)),
    (1, (70, 80, 240), (36, 36, 52, 52)),
    (0, (190, 60, 70), (36, 4, 52, 20)),
)


def square_finder() -> keras.Model:
    """A detector with known weights: squares as large as an anchor, brighter than their surroundings, red or blue."""
    pixels = keras.Input((SIDE, SIDE, 3))
    scores, codes = [], []
    for stride in (8, 16):
        side, inner = 3 * stride, slice(stride // 2, stride // 2 + 2 * stride)
        window = np.full((side, side), -1 / (side**2 - 4 * stride**2))
        window[inner, inner] = 1 / (4 * stride**2)
        kernel = np.zeros((side, side, 3, 2))
        kernel[:, :, 0, 0] = kernel[:, :, 2, 1] = window * 20 / 255
        shift = np.zeros((side, side, 3, 4))
        shift[inner, inner, :, 2:] = 0.04 / (4 * stride**2) / 255  # boxes grow with the brightness
        for weights, bias, found in ((kernel, -11.0, scores), (shift, 0.02, codes)):
            layer = keras.layers.Conv2D(weights.shape[-1], side, strides=stride, padding="same")
            found.append(keras.layers.Reshape((-1, weights.shape[-1]))(layer(pixels)))
            layer.set_weights([weights, np.full(weights.shape[-1], bias)])
    joined = keras.layers.Concatenate(axis=1)
    boxes = keras.layers.Concatenate(axis=1, name="boxes")(codes)
    return keras.Model(
        pixels,
        {"boxes": boxes, "scores": keras.layers.Activation("sigmoid", name="scores")(joined(scores))},
        name="cells",
    )


def scene(seed: int) -> Image.Image:
    """Red and blue cells on a dark, uneven ground; in the same places with every seed."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(20, 60, (4, 6, 3)).astype("uint8"))
    pixels = np.asarray(ground.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).copy()
    for _, colour, (y0, x0, y1, x1) in CELLS:
        pixels[4 * y0 : 4 * y1, 6 * x0 : 6 * x1] = colour
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of an export with a bundle, a page, and a file that ends in detections, all from the command line."""
    folder = tmp_path_factory.mktemp("cells")
    square_finder().save(folder / "cells.keras")
    save_detector(SPEC, folder / "detector.json")
    ImageSpec(SIDE, 0.0, 1.0, fit="stretch").save(folder / "image_spec.json")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "images").mkdir()
    for seed in range(6):
        scene(seed).save(folder / f"images/{seed}.png")
    options = ["--quantize", "none", "--calibration", folder / "images", "--out", folder / "out"]
    main(["export", *map(str, [folder / "cells.keras", *options, "--bundle", "--web", "--postprocess"])])
    return folder


@pytest.fixture(scope="module")
def site(exported):
    with served(exported / "out/bundle") as server:
        yield server


def predicted(folder, path, threshold=0.3):
    """What `predict` finds: pairs of name and box, x0, y0, x1, y1 in pixels of the image, best first."""
    artifact = artifacts.load(folder / "out/cells_none.tflite")
    (found,) = detect(artifact, image(path, artifact.image_spec))
    found = scaled(found.above(threshold), original_scale(artifact.image_spec, (HEIGHT, WIDTH)))
    return [(NAMES[label], box) for label, box in zip(found.labels, found.boxes[:, [1, 0, 3, 2]].tolist(), strict=True)]


def shown(tab):
    """Pairs of name and box in the page's table."""
    rows = [row.locator("th, td").all_text_contents() for row in tab.locator("#boxes tr").all()]
    return [(name, list(map(float, box))) for name, _, *box in rows]


def drop(tab, path):
    program = """([bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], 'scene.png', {type: 'image/png'}));
        const event = new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: transfer});
        document.querySelector('#drop').dispatchEvent(event);
    }"""
    tab.evaluate(program, [list(path.read_bytes())])
    tab.locator("#latency", has_text="median of").wait_for()


def test_cells_in_a_dropped_image_are_found_where_predict_finds_them(opened, exported):
    tab = opened()
    assert tab.title() == "cells: object detector"
    drop(tab, exported / "images/3.png")
    found, expected = shown(tab), predicted(exported, exported / "images/3.png")
    assert [name for name, _ in found] == [name for name, _ in expected]
    boxes, wanted = (np.array([box for _, box in each]) for each in (found, expected))
    assert np.diag(overlaps(boxes, wanted)).min() > 0.99
    truth = np.array([[6 * x0, 4 * y0, 6 * x1, 4 * y1] for *_, (y0, x0, y1, x1) in CELLS])
    assert len(found) == len(truth) and overlaps(truth, boxes).max(axis=1).min() > 0.8
    assert tab.get_by_role("status").inner_text().startswith("red cell: 2 boxes, best 9")


def test_a_higher_score_leaves_fewer_boxes_and_draws_them_anew(opened, exported):
    tab = opened()
    drop(tab, exported / "images/3.png")
    before, drawn = len(shown(tab)), tab.evaluate("document.querySelector('#seen').toDataURL()")
    tab.get_by_label("Smallest score").fill("0.95")
    assert len(shown(tab)) == len(predicted(exported, exported / "images/3.png", 0.95)) < before
    assert tab.evaluate("document.querySelector('#seen').toDataURL()") != drawn
    assert "95%" in tab.locator("#of-boxes").inner_text()


def test_the_boxes_expected_of_the_test_image_are_found_and_others_noticed(opened, site, monkeypatch):
    tab = opened()
    tab.get_by_role("button", name="Compare with the expected answer").click()
    tab.locator(
        "#agreement", has_text="expected boxes: they overlap by 100.0% or more, scores differ by up to"
    ).wait_for()
    document = json.loads(site.files["/model.json"])
    document["files"][0]["expected_top5"][0]["box"] = [0, 0, 9, 9]
    monkeypatch.setitem(site.files, "/model.json", json.dumps(document).encode())
    tab = opened()
    tab.get_by_role("button", name="Compare with the expected answer").click()
    tab.locator("#agreement.differs", has_text="1 of").wait_for()


def test_boxes_are_drawn_on_the_camera_until_it_is_stopped(opened):
    tab = opened()
    tab.get_by_role("button", name="Use the camera").click()
    tab.locator("#latency", has_text="for this frame").wait_for()
    frames = [tab.evaluate("document.querySelector('#seen').toDataURL()")]
    tab.wait_for_function("(before) => document.querySelector('#seen').toDataURL() !== before", arg=frames[0])
    tab.get_by_role("button", name="Stop the camera").click()
    tab.locator("#viewfinder").wait_for(state="hidden")
    assert tab.evaluate("document.querySelector('#video').srcObject") is None
    assert not tab.get_by_role("alert").is_visible()


def test_axe_finds_no_fault_and_the_page_is_no_wider_than_a_phone(opened, exported, node_modules):
    tab = opened(viewport={"width": 390, "height": 900})
    drop(tab, exported / "images/3.png")
    tab.get_by_text("Boxes in pixels of the image").click()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.evaluate((node_modules / "axe-core/axe.min.js").read_text())  # past the page's policy, as an extension
    found = tab.evaluate("axe.run()")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_the_bundle_answers_its_test_image_as_expected_and_has_the_file_of_codes_alone(exported, capsys):
    files = {path.name for path in (exported / "out/bundle").glob("*.tflite")}
    assert files == {"cells_none.tflite"} < {path.name for path in (exported / "out").glob("*.tflite")}
    assert (exported / "out/web/anchors.bin").read_bytes() == (exported / "out/bundle/anchors.bin").read_bytes()
    document = json.loads((exported / "out/bundle/model.json").read_text())
    options = {name: each.default for name, each in inspect.signature(detections).parameters.items()}
    shared = ("overlap_threshold", "max_detections", "max_candidates")
    assert {name: document["boxes"][name] for name in shared} == {name: options[name] for name in shared}
    assert (document["task"], document["boxes"]["count"], document["image"]["resize"]["fit"]) == (
        "detection",
        80,
        "stretch",
    )
    spec = importlib.util.spec_from_file_location("classify", exported / "out/bundle/classify.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main([]) == 0 and "As expected." in capsys.readouterr().out
