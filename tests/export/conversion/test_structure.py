"""Networks of every structure become one functional graph that computes the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_effnet.complexity import count
from keras_effnet.errors import UserError
from keras_effnet.export import export_tflite
from keras_effnet.export.conversion.folding import fold_batch_norms
from keras_effnet.export.conversion.structure import plain


def backbone(name: str = "backbone") -> keras.Model:
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name=f"{name}_conv")(image)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return keras.Model(image, layers.ReLU(name=f"{name}_relu")(x), name=name)


def head() -> list[keras.layers.Layer]:
    return [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax", name="scores")]


def functional() -> keras.Model:
    image = keras.Input((16, 16, 3))
    x = backbone()(layers.Rescaling(1 / 255)(image))
    for layer in head():
        x = layer(x)
    return keras.Model(image, x, name="net")


def twice() -> keras.Model:
    """A network within a network within a network."""
    inner = keras.Sequential([keras.Input((16, 16, 3)), backbone("deep"), layers.MaxPooling2D(2)], name="inner")
    return keras.Sequential([keras.Input((16, 16, 3)), layers.RandomFlip(), inner, *head()], name="outer")


def chain() -> keras.Sequential:
    return keras.Sequential([keras.Input((16, 16, 3)), *backbone().layers[1:], *head()])


def called_before() -> keras.Model:
    """Layers of a network, called again on an input of their own."""
    x = image = keras.Input((16, 16, 3))
    for layer in chain().layers:
        x = layer(x)
    return keras.Model(image, x)


def loaded(tmp_path) -> keras.Model:
    chain().save(tmp_path / "chain.keras")
    return keras.models.load_model(tmp_path / "chain.keras")


@pytest.mark.parametrize("make", [lambda folder: called_before(), loaded])
def test_layers_that_other_graphs_called_first_fold_and_count_once(make, tmp_path, smooth_images):
    """A `Sequential` from a file calls each layer again for every layer behind it."""
    model, images = make(tmp_path), smooth_images(6, 16).astype("float32")
    folded = fold_batch_norms(plain(model))
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    np.testing.assert_allclose(folded.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-4)
    assert count(model).macs == count(plain(model)).macs == 14 * 14 * 27 * 4 + 4 * 3 + 3


@pytest.mark.parametrize(
    "make",
    [
        functional,
        twice,
        lambda: keras.Sequential([backbone(), *head()]),  # has no input but that of its first layer
        chain,
        called_before,
    ],
)
def test_the_graph_is_flat_and_computes_the_same(make, smooth_images):
    model, images = make(), smooth_images(6, 16).astype("float32")
    keras.utils.set_random_seed(1)
    for weight in model.weights:  # also statistics of batch normalization, whose first values hide a mistake
        if "seed" not in weight.path:
            weight.assign(np.random.default_rng(0).uniform(0.5, 1.5, weight.shape) * 0.1)
    found = plain(model)
    assert not any(isinstance(layer, keras.Model) for layer in found.layers)
    np.testing.assert_allclose(found.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5)
    assert plain(found) is found


def test_a_nested_network_keeps_its_own_graph(smooth_images):
    inner = backbone()
    model = keras.Sequential([inner, *head()])
    nodes = len(inner.layers[1]._inbound_nodes)
    plain(model)
    assert len(inner.layers[1]._inbound_nodes) == nodes


def test_layers_of_the_same_name_in_nested_networks_are_refused():
    image = keras.Input((16, 16, 3))
    pair = [layers.GlobalAveragePooling2D()(one(image)) for one in (backbone("a"), backbone("b"))]
    model = keras.Model(image, layers.Dense(3)(layers.Concatenate()(pair)))
    assert plain(model).count_params() == model.count_params()
    for one in (model.get_layer("a"), model.get_layer("b")):
        one.layers[1].name = "conv"
    with pytest.raises(UserError, match="have layers of the same name; give those of each nested model"):
        plain(model)


def test_a_network_without_an_input_is_told_how_to_get_one():
    with pytest.raises(UserError, match=r"has no input yet: begin it with keras.Input\(\(H, W, 3\)\)"):
        plain(keras.Sequential([layers.Conv2D(3, 3)]))


def test_a_subclassed_network_is_told_how_it_becomes_a_functional_one(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Conv2D(3, 3), *head()]

        def call(self, image):
            for layer in self.parts:
                image = layer(image)
            return image

    model, image = Own(), keras.Input((16, 16, 3))
    model(image)
    with pytest.raises(UserError, match=r"Own is a subclassed model, .*keras\.Model\(image, model\.call\(image\)\)"):
        plain(model)
    assert len(plain(keras.Model(image, model.call(image))).layers) == 1 + len(model.parts)


def test_a_layer_that_cannot_be_copied_is_named():
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Lambda(lambda x: x / 255, name="scale"), *head()])
    with pytest.raises(UserError, match="Layer 'scale' of class Lambda cannot be copied for the export"):
        fold_batch_norms(plain(model))


def test_a_network_for_images_of_any_size_gets_the_size_of_the_export(smooth_images, tmp_path):
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image))
    for layer in head():
        x = layer(x)
    model, images = keras.Model(image, x), smooth_images(24, 20)
    result = export_tflite(model, tmp_path / "any.tflite", verification=images, image_size=20)
    assert result.report.top1_agreement == 1.0
    with pytest.raises(UserError, match=r"has no fixed size; build it with input_shape=.* or pass image_size"):
        export_tflite(model, tmp_path / "other.tflite", verification=images)
    assert plain(functional(), 20).input_shape == (None, 16, 16, 3)  # a size of its own stays
