"""Data-parallel training of a small EfficientNet in several processes: on one host, or one process per host.

python examples/train_several_hosts.py                                # one process
keras-effnet launch --processes 2 -- examples/train_several_hosts.py  # two on this host; needs `pip install jax`

On two hosts, the first with --process-id 0 and the other with 1:

keras-effnet launch --processes 2 --coordinator 10.0.0.1:8476 --process-id 0 -- examples/train_several_hosts.py

All processes read the same data in the same order; each computes its part of every batch, and process 0 writes files.
"""

import argparse

import keras
import numpy as np

from keras_effnet import EfficientNet, architecture_spec, datasets
from keras_effnet.pipeline import image_pipeline
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.training import distribution


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    epochs = parser.parse_args().epochs

    strategy = distribution.check_strategy("data-parallel" if keras.backend.backend() == "jax" else "none")
    spec = architecture_spec("lite0", depth=0.1, width=0.25, image_size=32, bn_momentum=0.9)
    with distribution.scope(strategy):
        distribution.check_batch_size(64, strategy)
        keras.utils.set_random_seed(0)  # the same initial weights and image order in every process
        digits = datasets.load("digits")
        train = image_pipeline(digits, ImageSpec.of(spec), 64, training=True)
        val = image_pipeline(digits, ImageSpec.of(spec), 64)

        model = EfficientNet(spec, classes=10)
        model.compile(keras.optimizers.AdamW(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(
            distribution.local_part(train, strategy),
            validation_data=distribution.local_part(val, strategy),
            epochs=epochs,
            shuffle=False,
            verbose=0,
        )
        if distribution.is_chief():
            with distribution.alone():  # saving creates variables, which otherwise needs all processes
                model.save("several_hosts.keras")
        total = sum(float(np.abs(weight).sum()) for weight in model.get_weights())
        loss = history.history["loss"][-1]
        print(f"{distribution.replicas(strategy)} devices: loss {loss:.4f}, absolute sum of all weights {total:.6f}")


if __name__ == "__main__":
    main()
