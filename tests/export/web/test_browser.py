"""The page as a person uses it, in Chromium: equal to LiteRT in Python; no network, no mouse."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from chromium import served
from PIL import Image

from keras_effnet.export import export_tflite
from keras_effnet.export.app_bundle.document import Answer
from keras_effnet.export.app_bundle.model_json import of_files
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.export.web.page import page_of, write_page
from keras_effnet.inference.image_files import image
from keras_effnet.preprocessing import ImageSpec

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=document.title='taken'>"
NAMES = (HOSTILE, "tulip", "rose", "d\u00e9j\u00e0 vu", "\u82b1", "daisy", "sunflower")
SPEC = ImageSpec(32, 0.0, 1.0, crop=0.9)
FILES = {"none": "float32", "dynamic": "float32", "int8": "uint8"}
TOP_FIVE = "#classes li"


def photo(seed: int, width: int, height: int, orientation: int = 1, kind: str = "JPEG") -> bytes:
    """An image of soft blobs with fine noise, which resizing must filter, stored turned."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3)).astype("uint8")).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse, "float32") + rng.normal(0, 25, (height, width, 1))
    stored = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    stored.save(stream, kind, exif=exif, **({"quality": 90} if kind == "JPEG" else {}))
    return stream.getvalue()


IMAGES = {
    "turned.jpg": photo(1, 300, 180, orientation=6),  # filtered: reduced to less than a quarter
    "small.png": photo(2, 90, 71, kind="PNG"),
    "large.png": photo(3, 500, 333, kind="PNG"),
    "enlarged.webp": photo(4, 20, 24, kind="WebP"),
}


@pytest.fixture(scope="module")
def bundle(toy_model, smooth_images, tmp_path_factory) -> Path:
    """A network at three precisions, with a test image and what LiteRT answers in Python."""
    folder = tmp_path_factory.mktemp("bundle")
    for name, content in IMAGES.items():
        (folder / name).write_bytes(content)
    network = toy_model(len(NAMES), SPEC.size)
    kernel, bias = network.layers[-1].get_weights()
    rng = np.random.default_rng(0)
    network.layers[-1].set_weights([rng.normal(0, 6, kernel.shape), bias])  # images differ in their classes
    paths = []
    for precision, input_type in FILES.items():
        paths.append(folder / f"flowers_{precision}.tflite")
        images = smooth_images(40, SPEC.size).astype("float32")
        export_tflite(
            network,
            paths[-1],
            precision,
            input_type=input_type,
            calibration=images if precision == "int8" else None,
            verification=images,
        )
    SPEC.save(folder / "image_spec.json")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    document = of_files(paths, name="Flowers <1>")
    files = tuple(replace(each, expected_top5=expected(folder, each.file, "large.png")) for each in document.files)
    document = replace(document, files=files, recommended="flowers_none.tflite", test_image="large.png")
    (folder / "model.json").write_text(json.dumps(asdict(document)))
    return folder


def scores(folder: Path, file: str, name: str) -> np.ndarray:
    return TFLiteModel(folder / file).predict(image(folder / name, SPEC))[0]


def expected(folder: Path, file: str, name: str) -> tuple[Answer, ...]:
    found = scores(folder, file, name)
    order = np.argsort(-found, kind="stable")[:5]
    return tuple(Answer(int(index), NAMES[index], float(found[index])) for index in order)


@pytest.fixture(scope="module")
def site(bundle):
    """The page of the bundle, served."""
    with served(bundle) as server:
        yield server


def shown(tab) -> list[tuple[str, str]]:
    """Name and score of each class that the page shows, when it is done."""
    tab.locator("#latency", has_text="median of").wait_for()
    return [tuple(row.locator("span.label, span.score").all_inner_texts()) for row in tab.locator(TOP_FIVE).all()]


def assert_shown(tab, bundle: Path, name: str, file: str = "flowers_none.tflite") -> None:
    """The page shows what LiteRT in Python answers for an image."""
    answers = expected(bundle, file, name)
    found = shown(tab)
    assert [label for label, _ in found] == [each.label for each in answers], name
    tolerance = 0.06 if name.endswith(".png") else 3  # browsers decode JPEG and WebP in their own way
    assert [float(text.removesuffix("%")) for _, text in found] == pytest.approx(
        [100 * each.score for each in answers], abs=tolerance
    ), name


def test_a_chosen_image_gets_the_classes_of_litert_in_python(opened, bundle):
    tab = opened()
    assert tab.title() == "Flowers <1>: image classifier"
    assert tab.locator("#file option").all_inner_texts()[0].startswith("flowers_none.tflite (float32, ")
    for name in IMAGES:
        tab.locator("#choose").set_input_files(bundle / name)
        tab.wait_for_function("() => document.querySelector('#status').textContent.endsWith('%.')")
        assert_shown(tab, bundle, name)
    assert tab.title() == "Flowers <1>: image classifier"  # names are text
    size = tab.evaluate("[document.querySelector('#seen').width, document.querySelector('#seen').height]")
    assert size == [SPEC.size, SPEC.size]


def test_pixels_and_scores_equal_those_of_the_package(opened, bundle):
    tab = opened()
    program = """async ([rule, file, images]) => {
        const [{bitmapOf, networkInput}, {Classifier}] = await Promise.all([
            import('./resample.js'), import('./classifier.js')]);
        const model = await (await fetch('model.json')).json();
        const entry = model.files.find((each) => each.file === file);
        const content = new Uint8Array(await (await fetch(file)).arrayBuffer());
        const classifier = await Classifier.open(entry, content, 'wasm');
        const results = [];
        for (const text of images) {
            const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
            const {pixels} = networkInput(await bitmapOf(new Blob([bytes])), {...model.image, ...rule});
            results.push([Array.from(pixels), Array.from((await classifier.run(pixels)).outputs[0])]);
        }
        classifier.close();
        return results;
    }"""
    contents = [base64.b64encode(content).decode() for content in IMAGES.values()]
    for file in ("flowers_none.tflite", "flowers_int8.tflite"):
        interpreter = TFLiteModel(bundle / file)
        for (pixels, found), name in zip(tab.evaluate(program, [{}, file, contents]), IMAGES, strict=True):
            seen = np.asarray(pixels, "float32").reshape(1, SPEC.size, SPEC.size, 3)
            lossless = name.endswith(".png")  # browsers decode JPEG and WebP in their own way
            assert np.abs(seen - image(bundle / name, SPEC)).max() < (1e-3 if lossless else 4), name
            assert np.abs(np.asarray(found) - interpreter.predict(seen)[0]).max() < 1e-5, (file, name)
    # Bicubic interpolation, which published evaluations use.
    rule = {"resize": {"crop": {"fraction": 1}, "interpolation": "bicubic", "antialias_from_reduction": 4}}
    spec = ImageSpec(32, 0.0, 1.0, interpolation="bicubic")
    found = tab.evaluate(program, [rule, "flowers_none.tflite", contents])
    for (pixels, _), name in zip(found, IMAGES, strict=True):
        if name.endswith(".png"):
            assert np.abs(np.asarray(pixels) - image(bundle / name, spec)[0].ravel()).max() < 0.3, name


def test_a_dropped_and_a_pasted_image_are_classified(opened, bundle):
    tab = opened()
    for name, kind in (("turned.jpg", "drop"), ("small.png", "paste")):
        tab.evaluate(
            """([bytes, name, kind]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([Uint8Array.from(bytes)], name, {type: 'image/' + name.slice(-3)}));
                const data = kind === 'drop' ? {dataTransfer: transfer} : {clipboardData: transfer};
                const Kind = kind === 'drop' ? DragEvent : ClipboardEvent;
                const event = new Kind(kind, {bubbles: true, cancelable: true, ...data});
                document.querySelector('#drop').dispatchEvent(event);
            }""",
            [list(IMAGES[name]), name, kind],
        )
        first = expected(bundle, "flowers_none.tflite", name)[0]
        tab.locator("#status", has_text=f"{first.label}, ").wait_for()
        assert_shown(tab, bundle, name)


def test_every_file_gives_the_expected_answer(opened):
    tab = opened()
    for precision in FILES:
        tab.get_by_label("Model file", exact=True).select_option(f"flowers_{precision}.tflite")
        tab.locator("#status", has_text=re.compile(rf"flowers_{precision}\.tflite is ready|%\.$")).wait_for()
        tab.get_by_role("button", name="Compare with the expected answer").click()
        tab.locator("#agreement").wait_for()
        said = tab.locator("#agreement").inner_text()
        assert said.startswith("Equal to the expected answer within 0.0001: largest difference of a score"), precision
        assert "ms for each image, median of" in tab.locator("#latency").inner_text()


def test_a_wrong_expectation_is_shown_as_such(opened, site, monkeypatch):
    document = json.loads(site.files["/model.json"])
    document["files"][0]["expected_top5"].reverse()
    monkeypatch.setitem(site.files, "/model.json", json.dumps(document).encode())
    tab = opened()
    tab.get_by_role("button", name="Compare with the expected answer").click()
    tab.locator("#agreement.differs", has_text="Differs from the expected answer").wait_for()


def test_it_works_with_the_network_gone(opened, site):
    tab = opened()
    tab.context.set_offline(True)
    tab.locator("#choose").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": IMAGES["turned.jpg"]})
    assert len(shown(tab)) == 5


def test_errors_are_told_in_plain_words_and_leave_the_page_usable(opened, bundle, site, monkeypatch):
    tab = opened()
    tab.locator("#choose").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
    alert = tab.get_by_role("alert")
    alert.get_by_text("a.jpg cannot be decoded by this browser. JPEG, PNG and WebP always can.").wait_for()
    tab.locator("#choose").set_input_files(bundle / "small.png")
    assert_shown(tab, bundle, "small.png")
    assert not alert.is_visible()
    # A processor that is not there cannot be chosen, and the page says why.
    assert tab.locator("#accelerator option[value=webgpu]").is_disabled()
    assert "GPU (WebGPU): This browser finds no graphics processor" in tab.locator("#accelerator-note").inner_text()

    document = json.loads(site.files["/model.json"])
    document["files"][2]["inputs"][0]["dtype"] = "int8"
    monkeypatch.setitem(site.files, "/model.json", json.dumps(document).encode())
    tab = opened()
    tab.get_by_label("Model file", exact=True).select_option("flowers_int8.tflite")
    tab.get_by_role("alert").get_by_text(
        "flowers_int8.tflite does not run in a browser: its input is int8, and LiteRT.js takes images of float32 or "
        "uint8 only. Choose another file: flowers_none.tflite, flowers_dynamic.tflite."
    ).wait_for()


def test_webgpu_gives_the_same_class(launch, bundle, site):
    """On a software adapter, which a headless browser has in place of a graphics processor."""
    found = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    tab = found.new_page()
    tab.goto(site.url)
    tab.get_by_text("is ready").wait_for()
    if tab.locator("#accelerator option[value=webgpu]").is_disabled():
        pytest.skip(tab.locator("#accelerator-note").inner_text())
    tab.get_by_label("Processor", exact=True).select_option("webgpu")
    tab.locator("#choose").set_input_files(bundle / "large.png")
    assert [name for name, _ in shown(tab)] == [
        each.label for each in expected(bundle, "flowers_none.tflite", "large.png")
    ]
    assert tab.locator("#latency").inner_text().endswith("on GPU (WebGPU).")
    tab.get_by_label("Processor", exact=True).select_option("wasm")
    tab.locator("#latency", has_text="on CPU (WebAssembly).").wait_for()
    assert_shown(tab, bundle, "large.png")


def test_the_camera_is_classified_and_stopped(opened):
    tab = opened()
    tab.get_by_role("button", name="Use the camera").click()
    tab.get_by_role("button", name="Classify this frame").click()
    assert len(shown(tab)) == 5
    tab.get_by_role("button", name="Stop the camera").click()
    tab.locator("#viewfinder").wait_for(state="hidden")
    assert tab.evaluate("document.querySelector('#video').srcObject") is None


def test_the_keyboard_reaches_everything_in_order(opened, bundle):
    tab = opened()
    reached = []
    for _ in range(9):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached[:7] == ["Skip to the result", "file", "accelerator", "choose", "camera", "test", "About the files"]
    tab.locator("#test").focus()
    tab.keyboard.press("Enter")
    assert len(shown(tab)) == 5
    with tab.expect_file_chooser() as chooser:
        tab.locator("#choose").focus()
        tab.keyboard.press("Enter")
    chooser.value.set_files(bundle / "small.png")
    assert_shown(tab, bundle, "small.png")


def test_screen_readers_find_names_and_roles(opened):
    tab = opened()
    tab.get_by_role("button", name="Compare with the expected answer").click()
    assert len(shown(tab)) == 5
    for role, name in [
        ("heading", "Flowers <1>"),
        ("combobox", "Model file"),
        ("combobox", "Processor"),
        ("button", "Choose an image"),
        ("img", "The part of the image that the network sees"),
    ]:
        assert tab.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert tab.get_by_role("status").inner_text().endswith("%.")
    assert tab.get_by_role("listitem").count() == 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(opened, node_modules, scheme):
    """Contrast, names, roles, landmarks, structure: the rules of WCAG 2.2 that can be checked automatically."""
    tab = opened(color_scheme=scheme)
    tab.get_by_role("button", name="Compare with the expected answer").click()
    shown(tab)
    tab.locator("#agreement").wait_for()
    tab.get_by_text("About the files").click()
    tab.evaluate((node_modules / "axe-core/axe.min.js").read_text())  # past the page's policy, as an extension
    found = tab.evaluate("axe.run()")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_the_page_is_drawn_and_no_wider_than_the_window(opened, tmp_path, scheme, width):
    tab = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.get_by_role("button", name="Compare with the expected answer").click()
    shown(tab)
    tab.locator("#agreement").wait_for()
    tab.get_by_text("About the files").click()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    middle = np.median(pixels)
    assert middle > 200 if scheme == "light" else middle < 60
    assert pixels.std() > 5


def test_a_saved_page_works_on_a_server_that_knows_nothing_of_it(opened, bundle, tmp_path):
    """Without the headers of our server there are no threads; the rest is the same, in a folder of the site."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    write_page(page_of(bundle), tmp_path / "site/demo")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "site")) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        tab = opened(f"http://127.0.0.1:{server.server_address[1]}/demo/")
        tab.locator("#choose").set_input_files(bundle / "large.png")
        assert_shown(tab, bundle, "large.png")
        server.shutdown()
