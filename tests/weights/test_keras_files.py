"""Weights files of Keras in each of its formats, of these networks and of `keras.applications`."""

import h5py
import keras
import numpy as np
import pytest
from weight_files import answer, images, same_weights, save_legacy_weights, scrambled, tiny

from keras_effnet.architecture.specs import IMAGENET_MEAN, IMAGENET_STD
from keras_effnet.errors import UserError
from keras_effnet.models.efficientnet import EfficientNetB0
from keras_effnet.weights.keras_files import read_layers
from keras_effnet.weights.loading import load_weights


def legacy_model(model, path):
    """A whole-model file as Keras 2 wrote it, optimizer included."""
    model.save(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = b"2.15.0"
        file.require_group("optimizer_weights")["iterations:0"] = 7


FORMATS = {
    "x.weights.h5": lambda model, path: model.save_weights(path),
    "x.keras": lambda model, path: model.save(path),
    "weights.h5": save_legacy_weights,
    "model.h5": legacy_model,
}
each_format = pytest.mark.parametrize("file", FORMATS)


def write(model, path):
    FORMATS[path.name](model, path)
    return path


@pytest.fixture(scope="module")
def source():
    return scrambled(tiny())


@pytest.fixture(scope="module")
def network():
    return tiny()


@pytest.fixture(scope="module")
def headless():
    return tiny(include_top=False, pooling="avg", input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def other():
    return tiny(classes=3)


@pytest.fixture
def target(network):
    """A network of zeros: what is not loaded shows."""
    return zeroed(network)


def zeroed(model):
    model.set_weights([np.zeros_like(array) for array in model.get_weights()])
    return model


# --- our own networks


@each_format
def test_every_weight_comes_back(file, source, target, tmp_path):
    load_weights(target, write(source, tmp_path / file))
    assert same_weights(target.get_weights(), source.get_weights())


@each_format
def test_shapes_are_known_before_any_value_is_read(file, source, tmp_path):
    layers = read_layers(write(source, tmp_path / file))
    assert {name: [tensor.shape for tensor in tensors] for name, tensors in layers.items()} == {
        layer.name: [tuple(variable.shape) for variable in layer.weights] for layer in source.layers if layer.weights
    }


@each_format
def test_a_file_with_classifier_serves_a_network_without(file, source, headless, tmp_path):
    load_weights(zeroed(headless), write(source, tmp_path / file))
    assert same_weights(headless.get_weights(), source.get_weights()[:-2])


@each_format
def test_a_trained_models_file_gives_its_weights_alone(file, source, target, tmp_path):
    """The optimizer's moments have the shapes of weights, and lie in the same file."""
    source.compile("adam", "sparse_categorical_crossentropy")
    source.optimizer.build(source.trainable_variables)
    load_weights(target, write(source, tmp_path / file))
    assert same_weights(target.get_weights(), source.get_weights())


@each_format
def test_a_file_can_be_written_again_once_it_was_read(file, source, target, other, tmp_path):
    """Windows refuses that while it is open, HDF5 everywhere; an error that somebody keeps must not hold it open."""
    path = write(source, tmp_path / file)
    load_weights(target, path)
    with pytest.raises(UserError) as kept:
        load_weights(other, path)
    load_weights(other, write(other, path))
    assert "its predictions has" in str(kept.value)


def test_a_model_within_a_model_gives_its_layers(source, headless, target, tmp_path):
    """Fine-tuning by the book wraps the network; its file holds the network all the same."""
    headless.set_weights(source.get_weights()[:-2])
    image = keras.Input((32, 32, 3))
    wrapped = keras.Model(image, keras.layers.Dense(10, name="predictions")(headless(image)))
    wrapped.layers[-1].set_weights(source.get_weights()[-2:])
    load_weights(target, write(wrapped, tmp_path / "x.keras"))
    assert same_weights(target.get_weights(), source.get_weights())


def test_names_go_before_order(source, target, tmp_path):
    """The old format was read by position; a file whose layers stand in another order has the same weights."""
    with h5py.File(write(source, tmp_path / "weights.h5"), "a") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][::-1]
    load_weights(target, tmp_path / "weights.h5")
    assert same_weights(target.get_weights(), source.get_weights())


def test_long_lists_of_names_come_in_pieces(source, target, tmp_path):
    """An HDF5 attribute ends at 64 KB, so Keras continues in `layer_names1`; B7 with long names needs that."""
    with h5py.File(write(source, tmp_path / "weights.h5"), "a") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        for number, part in enumerate(np.array_split(names, 3)):
            file.attrs[f"layer_names{number}"] = part
    load_weights(target, tmp_path / "weights.h5")
    assert same_weights(target.get_weights(), source.get_weights())


# --- another network: neither more nor less is taken in silence


def swapped(file):
    """Two layers of different shapes under each other's name."""
    file.move("stem_conv", "aside")
    file.move("top_conv", "stem_conv")
    file.move("aside", "top_conv")


def lacking(file):
    file.attrs["layer_names"] = [name for name in file.attrs["layer_names"] if name != "block3a_bn"]


def too_many(file):
    file.attrs["layer_names"] = [*file.attrs["layer_names"], "extra"]
    file.create_group("extra").create_dataset("kernel", data=np.ones(3, "<f4"))
    file["extra"].attrs["weight_names"] = ["kernel"]


def shorter(file):
    file["top_bn"].attrs["weight_names"] = file["top_bn"].attrs["weight_names"][:3]


@pytest.mark.parametrize(
    ("change", "report"),
    [
        (swapped, "its stem_conv has (1, 1, 80, 320) instead of (3, 3, 3, 8), top_conv has (3, 3, 3, 8) instead of"),
        (lacking, "it lacks block3a_bn."),
        (too_many, "the network has no extra."),
        (shorter, "its top_bn has 3 tensors instead of 4."),
    ],
)
def test_a_legacy_file_that_does_not_fit_is_told_layer_by_layer(change, report, source, target, tmp_path):
    before = target.get_weights()
    with h5py.File(write(source, tmp_path / "weights.h5"), "a") as file:
        change(file)
    with pytest.raises(UserError) as error:
        load_weights(target, tmp_path / "weights.h5")
    assert report in str(error.value)
    assert same_weights(target.get_weights(), before)


# --- keras.applications


B0 = {"weights": None, "classes": 10, "classifier_activation": None, "input_shape": (64, 64, 3)}


@pytest.fixture(scope="module")
def peer():
    """Its B0 with weights of their own; its Normalization is given the variance that our constants stand for."""
    model = scrambled(keras.applications.EfficientNetB0(**B0))
    (normalization,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Normalization)]
    mean, std = (np.array(values) / 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalization.set_weights([mean, std**2, np.array(0)])
    normalization.finalize_state()
    # Through so many layers random weights lose the image, unless each is normalised by what it really sees.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    brightness = np.linspace(0.2, 1, 16).reshape(-1, 1, 1, 1)
    model(np.random.default_rng(0).uniform(0, 255, (16, 64, 64, 3)) * brightness, training=True)
    return model


@pytest.fixture(scope="module")
def ours():
    return EfficientNetB0(**B0)


@each_format
def test_keras_applications_files_give_its_answers(file, peer, ours, tmp_path):
    load_weights(zeroed(ours), write(peer, tmp_path / file))
    for layer in ours.layers:
        assert same_weights(layer.get_weights(), peer.get_layer(layer.name).get_weights() if layer.weights else [])
    # Both normalise pixels in their own way, and random weights make much of the last bit.
    expected = answer(peer, images(size=64))
    np.testing.assert_allclose(answer(ours, images(size=64)), expected, atol=1e-4 * np.abs(expected).max())
