"""A training loop of your own, and the same export: the networks are plain Keras models.

python examples/custom_loop.py             # a minute or two on two cores
python examples/custom_loop.py --epochs 1  # a quick look
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_effnet import EfficientNet, architecture_spec, datasets, export, transfer
from keras_effnet.pipeline import image_pipeline
from keras_effnet.preprocessing import ImageSpec


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs

    data = datasets.load("digits")
    spec = architecture_spec("lite0", depth=0.1, width=0.35, stem_stride=1, bn_momentum=0.9)
    model = EfficientNet(spec, weights=None, classes=10, classifier_activation=None, input_shape=(32, 32, 3))
    image_spec = ImageSpec(size=32, mean=spec.pixel_mean, std=spec.pixel_std)
    batches = image_pipeline(data.train, image_spec, 32, training=True)
    held_out = image_pipeline(data.test, image_spec, 32)

    optimizer = keras.optimizers.AdamW(3e-3)
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for epoch in range(epochs):
        losses = [float(step(images, labels)) for images, labels, *_ in batches]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    transfer.reestimate_batch_norm(model, batches)
    accuracy = np.mean(model.predict(held_out, verbose=0).argmax(axis=1) == data.test.labels)
    print(f"{accuracy:.1%} of {len(data.test)} unseen digits")

    with tempfile.TemporaryDirectory() as folder:
        file = export.export_tflite(
            model,
            Path(folder) / "digits_int8.tflite",
            "int8",
            calibration=data.train,
            verification=data.test,
            task="classification",
            labels=data.class_names,
            image_spec=image_spec,
        )
        print(f"{file.size_bytes:,} bytes; the same class on {file.report.agreeing} of {file.report.samples} digits")


if __name__ == "__main__":
    main()
