"""Every exported file describes itself: metadata, class names, a signature, and the oldest runtime that runs it."""

from __future__ import annotations

import hashlib

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from exports import PRECISIONS

import keras_effnet
from keras_effnet.errors import UserError
from keras_effnet.export import About, export_tflite, inspect
from keras_effnet.export.conversion.float_graph import convert
from keras_effnet.export.description import describe, read_class_names
from keras_effnet.export.outputs import CLASSIFIER
from keras_effnet.export.tflite_file.clients import ACCEPTS, MEDIAPIPE
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.imagenet import imagenet_classes, readable

WNIDS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture(scope="module")
def toy(toy_model):
    return toy_model(size=8)


@pytest.fixture(scope="module")
def plain_file(toy) -> bytes:
    return convert(toy)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_file_describes_itself(exported, precision):
    found = inspect(exported[precision].path)
    about = found.metadata
    assert about.name.startswith("efficientnet-lite0")
    assert (about.color_space, about.pixel_range) == ("RGB", (0.0, 255.0))
    assert about.description == "Image classifier of 10 classes for images of 32x32 pixels."
    assert about.version == f"keras_effnet {keras_effnet.__version__}"
    assert about.labels == tuple("0123456789") and about.score_threshold == 0.0
    assert {verdict.client: verdict.expected for verdict in found.clients}[MEDIAPIPE] == ACCEPTS


@pytest.mark.parametrize("precision", PRECISIONS)
def test_normalization_is_what_maps_bytes_to_the_file_s_input(exported, precision):
    """The network normalizes pixels itself, except where the scale of an input of bytes does it."""
    about = inspect(exported[precision].path).metadata
    if precision == "int8":
        assert about.mean == (127.0,) and about.std == pytest.approx((128.0,), rel=1e-6)
    else:
        assert (about.mean, about.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    ("precision", "oldest"),
    [("none", "1.6.0"), ("float16", "1.15.0"), ("dynamic", "2.17.0"), ("weight_only", "2.7.0"), ("int8", "1.14.0")],
)
def test_the_oldest_runtime_follows_from_the_operators(exported, precision, oldest):
    assert inspect(exported[precision].path).min_runtime_version == oldest


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_file_has_a_signature_to_run_it_by(exported, smooth_images, precision):
    path = exported[precision].path
    image = smooth_images(1, 32)
    file = TFLiteModel(path)
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    scores = runner(image=file.quantized_input(image[0])[None])["scores"]
    np.testing.assert_array_equal(scores, file.predict(image))


def test_the_same_export_gives_the_same_bytes(toy, tmp_path):
    about = About(author="me", class_names=("a", "b", "c"))
    digests = {export_tflite(toy, tmp_path / f"{n}.tflite", about=about).sha256 for n in range(2)}
    assert digests == {hashlib.sha256((tmp_path / "0.tflite").read_bytes()).hexdigest()}


def test_what_is_known_of_a_network_is_written(plain_file):
    about = About("flowers", "Three flowers.", "7", "A. Gardener", "MIT", ("rose", "tulip", "lily"))
    found = inspect(describe(plain_file, about, CLASSIFIER)).metadata
    assert (found.name, found.description, found.version) == ("flowers", "Three flowers.", "7")
    assert (found.author, found.license, found.labels) == ("A. Gardener", "MIT", about.class_names)


def test_a_file_can_be_described_again(plain_file):
    once = describe(plain_file, About("one", class_names=("a", "b", "c")), CLASSIFIER)
    again = inspect(describe(once, About("two"), CLASSIFIER))
    assert (again.metadata.name, again.metadata.labels) == ("two", ())
    assert len(again.signatures) == 1


def test_logits_have_no_score_threshold(toy):
    """They may be negative; a threshold of 0 would drop classes."""
    dense = toy.layers[-1]
    logits = keras.Model(toy.input, keras.layers.Dense(3)(dense.input), name="logits")
    found = inspect(describe(convert(logits), About("logits"), CLASSIFIER)).metadata
    assert found.score_threshold is None and "highest" in found.output_description


def test_wordnet_ids_become_names_and_other_labels_stay():
    about = About().completed("toy", 3, ("n01440764", "my_cat", "n03126707"))
    assert (about.name, about.class_names) == ("toy", ("tench", "my_cat", "crane (n03126707)"))
    assert About("own", class_names=("x",)).completed("toy", 1, ["n01440764"]).class_names == ("x",)


def test_class_names_are_counted_before_the_conversion(toy, tmp_path):
    with pytest.raises(UserError, match="2 class names for a model of 3 classes"):
        export_tflite(toy, tmp_path / "x.tflite", about=About(class_names=("a", "b")))


# --- files of class names


def test_one_name_a_line(tmp_path):
    (tmp_path / "names.txt").write_text("red fish\ngold fish\nshark\n")
    assert read_class_names(tmp_path / "names.txt", None, 3) == ("red fish", "gold fish", "shark")


def test_names_by_label_in_any_order_with_a_header(tmp_path):
    (tmp_path / "names.csv").write_text('wnid,name\nn01484850,shark\nn01440764,"tench, Tinca"\nn01443537,goldfish\n')
    assert read_class_names(tmp_path / "names.csv", WNIDS, 3) == ("tench, Tinca", "goldfish", "shark")


def test_names_by_wordnet_id_for_a_published_network(tmp_path):
    (tmp_path / "names.csv").write_text("".join(f"{wnid},{name} in German\n" for wnid, name in imagenet_classes()))
    names = read_class_names(tmp_path / "names.csv", readable(wnid for wnid, _ in imagenet_classes()), 1000)
    assert names[:2] == ("tench in German", "goldfish in German")


@pytest.mark.parametrize(
    ("name", "text", "labels", "message"),
    [
        ("n.txt", "a\nb\n", None, "has 2 names, but the model has 3 classes: one name a line"),
        ("n.txt", "a\n\nb\n", None, "has an empty name for class 1"),
        ("n.csv", "n01440764,tench\n", WNIDS, "has no name for class 'n01443537' and 1 more; its lines must be"),
        ("n.csv", "n01440764,tench\n", None, "the model's labels are unknown: give one name a line"),
        ("n.csv", "a,x\nb,\nc,y\n", ("a", "b", "c"), "has an empty name for class 1"),
        ("n.txt", "a\0b\n", None, "is not a text file"),
        ("n.csv", 'a,"x\nb,y\nc,z\n', ("a", "b", "c"), "is not a CSV file: unexpected end of data"),
        ("n.csv", f"a,{'x' * 200_000}\n", ("a", "b", "c"), "is not a CSV file: field larger than field limit"),
    ],
)
def test_a_wrong_file_of_names_is_refused_in_one_line(tmp_path, name, text, labels, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_class_names(tmp_path / name, labels, 3)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.csv"):
        read_class_names(tmp_path / "gone.csv", labels, 3)
