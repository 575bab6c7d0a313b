"""KerasTuner chooses phi and the learning rate: the compound coefficient is a real number, so it can be searched.

Needs `pip install keras-tuner`.

python examples/keras_tuner_phi.py                        # six trials, a few minutes on two cores
python examples/keras_tuner_phi.py --trials 1 --epochs 1  # a quick look
"""

import argparse
import tempfile

import keras
import keras_tuner

from keras_effnet import EfficientNet, architecture_spec, datasets
from keras_effnet.complexity import count
from keras_effnet.pipeline import image_pipeline
from keras_effnet.preprocessing import ImageSpec

BASELINE = architecture_spec("lite0", depth=0.1, width=0.35, stem_stride=1, bn_momentum=0.9)


def network(trial: keras_tuner.HyperParameters) -> keras.Model:
    """A network at one phi; all take images of one size, so that they share the data."""
    spec = architecture_spec(BASELINE, phi=trial.Float("phi", -2.0, 2.0, step=0.5))
    model = EfficientNet(spec, weights=None, classes=10, input_shape=(32, 32, 3))
    rate = trial.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    model.compile(keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    data = datasets.load("digits")
    image_spec = ImageSpec(size=32, mean=BASELINE.pixel_mean, std=BASELINE.pixel_std)
    batches = image_pipeline(data.train, image_spec, 32, training=True)
    held_out = image_pipeline(data.val, image_spec, 32)
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            network, objective="val_accuracy", max_trials=options.trials, seed=0, directory=folder, project_name="phi"
        )
        tuner.search(batches, validation_data=held_out, epochs=options.epochs, verbose=0)
        for trial in tuner.oracle.get_best_trials(3):
            phi = trial.hyperparameters.get("phi")
            macs = count(architecture_spec(BASELINE, phi=phi, image_size=32)).macs
            print(f"phi {phi:+.1f}: {macs / 1e6:.1f} M MACs, validation accuracy {trial.score:.1%}")


if __name__ == "__main__":
    main()
