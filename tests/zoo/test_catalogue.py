"""The networks of the zoo are what their cards say."""

from __future__ import annotations

import numpy as np
import pytest

from keras_effnet import zoo
from keras_effnet.errors import UserError
from keras_effnet.export import inspect
from keras_effnet.zoo import catalogue

LIMIT = 2_000_000  # bytes of a file


@pytest.mark.parametrize("name", zoo.names())
def test_every_card_has_its_file_and_no_file_is_large(name):
    path = zoo.model_path(name)
    assert path.stat().st_size <= LIMIT
    assert (path.parent / "image_spec.json").is_file()
    text = zoo.card(name).to_markdown()
    assert all(command in text for command in zoo.card(name).commands)


def test_no_folder_is_without_a_card():
    assert sorted(path.name for path in catalogue.FILES.iterdir()) == sorted(zoo.names())


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.card(name).file.endswith(".tflite")])
def test_a_file_for_phones_has_class_names_inside(name):
    labels = inspect(zoo.model_path(name)).metadata.labels
    assert len(labels) > 1 and not any(label.startswith("n0") for label in labels)


def test_digits_are_recognised():
    from sklearn.datasets import load_digits

    network = zoo.load("digits-lite0-int8")
    pixels = load_digits().images[:20]
    images = np.repeat(np.kron(pixels * 255 / 16, np.ones((1, 4, 4)))[..., None], 3, axis=-1).astype("float32")
    found = [network.class_names[label] for label in network.predict(images).argmax(axis=-1)]
    assert np.mean([int(each) == digit for each, digit in zip(found, load_digits().target[:20], strict=True)]) >= 0.8


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'digits-lite0-int8'"):
        zoo.load("digits-lite-int8")


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    described = zoo.card("digits-lite0-int8")
    folder = tmp_path / described.name
    folder.mkdir()
    content = bytearray(zoo.model_path(described.name).read_bytes())
    content[1000] ^= 1
    (folder / described.file).write_bytes(content)
    monkeypatch.setattr(catalogue, "FILES", tmp_path)
    with pytest.raises(UserError, match=r"its card says .* install keras-effnet again"):
        zoo.load(described.name)
    (folder / described.file).unlink()
    with pytest.raises(UserError, match="is missing"):
        zoo.load(described.name)
