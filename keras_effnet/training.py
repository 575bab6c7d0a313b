"""Training on `model.fit`: one frozen config, a run folder, checkpoints that a killed run goes on from.

Imports `config`, `models`, `transfer`, `datasets`, `pipeline`, `evaluation`, `plots`, `callbacks`, `runs`, `errors`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf
import yaml

from keras_effnet import plots, transfer
from keras_effnet.callbacks import BEST, LAST, ChanceWatch, RunFolder, read_rows, save_model, uncompiled
from keras_effnet.config import PRECISIONS, TrainConfig
from keras_effnet.datasets import ImageDataset
from keras_effnet.errors import UserError, first_line, one_of
from keras_effnet.evaluation import Evaluation, evaluate
from keras_effnet.models import EfficientNet
from keras_effnet.pipeline import Augmentation, image_pipeline
from keras_effnet.preprocessing import ImageSpec, check_range
from keras_effnet.runs import write_environment, write_text
from keras_effnet.saving import load_state, policy_of

_BEYOND = "A label lies beyond the classes of the model"


def resolve_precision(precision: str) -> str:
    """The dtype policy that a precision means on this machine: `"auto"` looks at the devices."""
    one_of("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if tf.config.list_physical_devices("TPU"):
        return "mixed_bfloat16"
    return "mixed_float16" if tf.config.list_physical_devices("GPU") else "float32"


def build_model(config: TrainConfig, classes: int) -> keras.Model:
    """The network of a config, under its precision, with its first parts frozen if it says so."""
    keras.utils.set_random_seed(config.seed)
    spec = config.spec
    model = EfficientNet(
        spec,
        weights=config.weights,
        classes=classes,
        input_shape=(spec.image_size, spec.image_size, 3),
        dtype=resolve_precision(config.precision),
    )
    if config.freeze is not None:
        transfer.freeze(model, config.freeze)
    return model


def _adamw(config: TrainConfig, steps: int, factor: float = 1.0) -> keras.optimizers.Optimizer:
    peak, warmup = config.learning_rate * factor, int(config.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        peak * 1e-3,
        decay_steps=max(1, config.epochs * steps - warmup),
        warmup_target=peak,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=config.clip_norm)
    # Decaying a batch normalization's gain or a bias only fights the data.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _optimizer(model: keras.Model, config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    if config.layer_decay == 1:  # what any model can have, with stages or without
        optimizer = _adamw(config, steps)
    else:
        optimizer = transfer.layerwise_optimizer(model, config.layer_decay, partial(_adamw, config, steps))
    # `compile` would wrap it too, but keep that from the file: last.keras would reload without loss scaling.
    return keras.optimizers.LossScaleOptimizer(optimizer) if policy_of(model).name == "mixed_float16" else optimizer


def _one_hot(data: tf.data.Dataset, classes: int) -> tf.data.Dataset:
    """Integer labels to one-hot, which label smoothing needs."""

    def convert(images, labels):
        inside = tf.reduce_all((labels >= 0) & (labels < classes))
        with tf.control_dependencies([tf.debugging.Assert(inside, [_BEYOND])]):
            return images, tf.one_hot(labels, classes)

    return data.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def train(
    model: keras.Model,
    train: tf.data.Dataset,
    val: tf.data.Dataset,
    config: TrainConfig,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
) -> keras.callbacks.History:
    """Trains a model: AdamW with weight decay, warm-up and cosine, smoothed labels, in the model's own precision.

    Args:
        model: Classifier that ends in probabilities.
        train, val: `tf.data.Dataset`s of `(images, integer labels)` in batches, of known length.
        config: `TrainConfig`. Of its fields, those that build the model or the data are not read here.
        run_dir: Folder for `results.csv`, `curves.png` and `weights/{best,last}.keras`; nothing is kept without one.
        resume: Bool, whether to go on from `weights/last.keras` in `run_dir`, optimizer and schedule included.
        callbacks: Further Keras callbacks.
        verbose: As in `model.fit`.

    Returns:
        Keras' `History`, of the epochs run now.

    Raises:
        UserError: Nothing to resume, a dataset of unknown length, or a loss that became NaN.

    Example:

    >>> history = keras_effnet.training.train(model, batches, val_batches, TrainConfig(epochs=5))

    Source: AdamW, Loshchilov & Hutter (ICLR 2019).
    """
    steps = int(train.cardinality())
    if steps <= 0:
        raise UserError("The training data has no known length; apply .take(n) or assert_cardinality first.")
    classes = model.output_shape[-1]
    images = next(iter(val))[0].numpy()  # not of `train`: the first batch of a shuffle costs reading all of it
    check_range(images, ImageSpec.of_model(model, size=images.shape[1]).input_range)
    model.compile(
        _optimizer(model, config, steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    folder = Path(run_dir) if run_dir is not None else None
    first_epoch = _restore(model, folder, steps) if resume else 0
    run = [RunFolder(folder, first_epoch)] if folder else []
    try:
        history = model.fit(
            _one_hot(train, classes),
            validation_data=_one_hot(val, classes),
            initial_epoch=first_epoch,
            epochs=config.epochs,
            callbacks=[keras.callbacks.TerminateOnNaN(), ChanceWatch(classes), *run, *callbacks],
            shuffle=False,  # the pipeline does
            verbose=verbose,
        )
    except tf.errors.InvalidArgumentError as error:
        if _BEYOND not in str(error):
            raise
        raise UserError(f"{_BEYOND}, which has {classes}. Build it with as many as the data has.") from None
    if not all(map(math.isfinite, history.history.get("loss", []))):
        kept = f" The last good checkpoint is {folder / LAST}." if run and run[0].rows else ""
        raise UserError(f"The loss became NaN; lower the learning rate (now {config.learning_rate:g}).{kept}")
    if run and run[0].rows:
        plots.curves(run[0].rows, folder / "curves.png")
    return history


def _restore(model: keras.Model, folder: Path | None, steps: int) -> int:
    """Loads weights and optimizer of the last checkpoint; returns how many epochs it has behind it."""
    if folder is None or not (folder / LAST).is_file():
        raise UserError(f"Nothing to resume: {folder} has no {LAST}. Leave out --resume to start anew.")
    model.optimizer.build(model.trainable_variables)  # unbuilt, it would silently start from zero
    try:
        load_state(model, folder / LAST)
    except Exception as error:  # a damaged zip, h5 or another network each fail in their own way
        raise UserError(f"{folder / LAST} does not fit this network: {first_line(error)}") from error
    # Checkpoints are made at the end of an epoch; loss scaling leaves out of the count the steps that it skipped.
    return -(-int(model.optimizer.iterations) // steps)


@dataclass(frozen=True, eq=False)
class TrainResult:
    """A finished training.

    Args:
        run_dir: Path of the run folder.
        model: The network with its best weights.
        evaluation: `Evaluation` of the best weights on the dataset's `val`.
        epochs: Int, epochs behind the last checkpoint.
    """

    run_dir: Path
    model: keras.Model
    evaluation: Evaluation
    epochs: int


def train_dataset(
    dataset: ImageDataset,
    config: TrainConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult:
    """Builds the network and the pipelines of a config, trains, and leaves a complete run folder.

    The batch normalization statistics of the best weights are measured anew, see `transfer.reestimate_batch_norm`.
    Beside what `train` writes, the folder gets `args.yaml`, `env.json`, `labels.txt`, `image_spec.json` and
    `confusion.png`, so that `eval`, `predict` and `export` need nothing but the folder.

    Args:
        dataset: `ImageDataset`.
        config: `TrainConfig`.
        run_dir: Folder, made if it does not exist.
        resume: Bool, whether to go on from its last checkpoint.
        callbacks: Further Keras callbacks.

    Returns:
        A `TrainResult`.
    """
    folder, spec = Path(run_dir), config.image_spec
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(config.seed)

    def write_description(logs=None):
        args = {"data": dataset.origin, "config": asdict(config)}
        write_text(folder / "args.yaml", yaml.safe_dump(args, sort_keys=False))
        write_text(folder / "labels.txt", "".join(f"{name}\n" for name in dataset.class_names))
        spec.save(folder / "image_spec.json")
        write_environment(folder)

    # Once training begins: a resume that is refused leaves the run as it was.
    describe = keras.callbacks.LambdaCallback(on_train_begin=write_description)
    flip = dataset.train.mirror if config.flip is None else config.flip
    augmentation = Augmentation(crop_scale=(config.crop_scale, 1.0), flip=flip)
    batches = image_pipeline(
        dataset, spec, config.batch_size, training=True, augmentation=augmentation, seed=config.seed
    )
    val = image_pipeline(dataset, spec, config.batch_size)

    model = build_model(config, len(dataset.class_names))
    train(model, batches, val, config, run_dir=folder, resume=resume, callbacks=[describe, *callbacks])
    model = uncompiled(model)
    load_state(model, folder / BEST)
    transfer.reestimate_batch_norm(model, batches)
    save_model(model, folder / BEST)
    result = evaluate(model.predict(val, verbose=0), dataset.val.labels)
    plots.confusion_matrix(result.confusion, dataset.class_names, folder / "confusion.png")
    epochs = read_rows(folder)[-1]["epoch"]
    return TrainResult(folder, model, result, epochs)
