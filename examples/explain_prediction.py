"""Locate each of four digits in one image by Grad-CAM.

python examples/explain_prediction.py  # half a minute on two cores; writes explanation.png
"""

import argparse

import keras
import numpy as np

from keras_effnet import EfficientNet, architecture_spec, datasets
from keras_effnet.evaluation import explainer, plots


def in_corners(digits: np.ndarray) -> np.ndarray:
    """Tile groups of four digits, `(N, 4, 8, 8, 3)`, into images of shape `(N, 32, 32, 3)`."""
    rows = digits.reshape(-1, 2, 2, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16, 3)
    return rows.repeat(2, axis=1).repeat(2, axis=2)


def train(data: datasets.ImageDataset, epochs: int) -> keras.Model:
    """Train a wide ResNet on images with one digit, in a random corner."""
    keras.utils.set_random_seed(0)
    model = EfficientNet(architecture_spec("wide_resnet28", depth=0.25, bn_momentum=0.9), classes=10)
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    count = len(data.train)
    scenes = np.zeros((count, 4, 8, 8, 3), "uint8")
    scenes[np.arange(count), np.random.default_rng(0).integers(0, 4, count)] = data.train.images
    model.fit(in_corners(scenes), data.train.labels, epochs=epochs, verbose=2)
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    data = datasets.load("digits")
    explain = explainer(train(data, parser.parse_args().epochs))

    found = asked = 0
    for first in range(10):
        classes = [(first + step) % 10 for step in range(4)]
        digits = [data.test.images[data.test.labels == digit][first] for digit in classes]
        (scene,) = in_corners(np.stack(digits))
        for corner, digit in enumerate(classes):
            heat = explain(scene, digit)
            by_corner = heat.map.reshape(2, 4, 2, 4).sum(axis=(1, 3)).ravel()  # the map is 8x8
            found, asked = found + int(by_corner.argmax() == corner), asked + 1
    print(f"{found} of {asked} digits located in the right corner; {asked // 4} expected by chance")

    answer = [(str(digit), float(share)) for digit, share in enumerate(heat.probabilities)]
    plots.explanation(scene, heat.map, answer, heat.class_index, "explanation.png")


if __name__ == "__main__":
    main()
