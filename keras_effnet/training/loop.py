"""Training loop: `model.fit` with the optimizer, schedule, resizing stages and checkpoints of a config. TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_effnet import transfer
from keras_effnet.architecture.network_parts import computing_layers
from keras_effnet.architecture.pyramid import expand_detector
from keras_effnet.config.resizing import ResizeStage
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, check_model, first_line, instance_of
from keras_effnet.evaluation import plots
from keras_effnet.models.batch_norm import fused_batch_norm
from keras_effnet.models.saving import load_state
from keras_effnet.pipeline.batches import LABEL_OUT_OF_RANGE
from keras_effnet.preprocessing import ImageSpec, check_range
from keras_effnet.tasks import TaskName, task_of
from keras_effnet.tasks.recognition import is_detector
from keras_effnet.training.by_task.objectives import objective
from keras_effnet.training.checkpoints import LAST, RunFolder, writing_to
from keras_effnet.training.cpu_kernels.gradients import fused_gradients
from keras_effnet.training.cpu_kernels.updates import fused_updates
from keras_effnet.training.distribution import (
    check_batch_size,
    check_strategy,
    is_chief,
    local_part,
    synchronized_batch_norm,
)
from keras_effnet.training.ema import AveragedWeights
from keras_effnet.training.optimizers import build_optimizer, epochs_done
from keras_effnet.training.precision_watch import DetectorValidation, PrecisionWatch
from keras_effnet.training.tracking import LossScale, Throughput
from keras_effnet.training.watchers import ChanceWatch, EpochSeeds, FiniteWatch


def train(
    model: keras.Model,
    train_data: tf.data.Dataset | Callable[[ResizeStage], tf.data.Dataset],
    val_data: tf.data.Dataset,
    config: TrainConfig,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    task: TaskName | None = None,
    class_weights: np.ndarray | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = 0,
) -> keras.callbacks.History:
    """Train a model with the optimizer, schedule, label smoothing and moving average of a config.

    The precision is that of the model's dtype policy.

    Args:
        model: Network with the head of the task, such as a classifier that ends in probabilities. Under a strategy of
            several devices, build it in the same `distribution.scope`.
        train_data: `tf.data.Dataset` of `(images, labels)` in batches, one epoch of known length. Labels are integers
            or probabilities of shape `(batch, classes)`; for other tasks see `image_pipeline`. Progressive resizing
            needs a function from a `ResizeStage` to the batches of all its epochs instead.
        val_data: `tf.data.Dataset` of `(images, labels)` in batches, labels as from `image_pipeline`.
        config: `TrainConfig`. Options that describe the model or the data are not used here.
        run_dir: Folder for `results.csv`, `curves.png` and `weights/{best,last}.keras`; without one nothing is saved.
        resume: Bool, whether to resume from `weights/last.keras` in `run_dir`, including optimizer and schedule.
        task: String, what the network is for; by default told by its output, see `tasks.task_of`.
        class_weights: Array of shape `(classes,)`, the weight of each class in the loss; equal by default. For labels
            of shape `(2, L)`: the weights of absent and of present ones.
        callbacks: Further Keras callbacks. With several stages, `on_train_begin` and `on_train_end` run once per stage.
        verbose: As in `model.fit`.

    Returns:
        Keras' `History` of the epochs run by this call.

    Raises:
        UserError: Nothing to resume, a folder that another process uses, a dataset of unknown length, a full disk, or
            a loss that became NaN; the message names the step, the learning rate and the last good checkpoint.

    Example:

    >>> history = keras_effnet.training.train(model, batches, val_batches, TrainConfig(epochs=5))

    Source: AdamW, Loshchilov & Hutter (ICLR 2019).
    """
    check_model(model)
    instance_of("config", config, TrainConfig)
    for name, data in (("train_data", train_data), ("val_data", val_data)):
        if not (callable(data) or hasattr(data, "cardinality")):
            raise UserError(f"{name} must be a tf.data.Dataset of batches, as pipeline.image_pipeline makes them.")
    check_strategy(config.strategy, gradient_accumulation=config.accumulate)
    check_batch_size(config.batch_size, config.strategy)
    if config.ema and config.strategy == "data-parallel":
        raise UserError("ema does not work with strategy data-parallel: use only one of them.")
    whole = ResizeStage(0, config.epochs, image_size=0)  # the image size is that of the data
    batches, stages = (train_data, config.stages) if callable(train_data) else (lambda stage: train_data, (whole,))
    steps = _steps_per_epoch(batches(stages[0]), stages[0] if callable(train_data) else None)
    if config.accumulate > steps:
        raise UserError(f"accumulate is {config.accumulate} batches, but an epoch has only {steps}.")
    name = task or task_of(model).name
    aim, classes = objective(name), output_size(model)
    watched = aim.learning.watched
    images = next(iter(val_data))[0].numpy()  # validation data: a shuffled dataset fills its buffer first
    check_range(images, ImageSpec.of_model(model, size=images.shape[1]).input_range)
    folder = Path(run_dir) if run_dir is not None else None
    if resume:
        _check_resumable(folder)

    def shared(data, weights=None):
        return local_part(aim.prepared(data, classes, weights), config.strategy)

    measure = _detector_validation(model, val_data, config) if name == "detection" else None
    val, throughput = None if measure else shared(val_data), Throughput(config.batch_size)
    first = replace(stages[-1], first=0, last=1)
    precision = PrecisionWatch(measure, config.ap_every, config.epochs) if measure else None
    due = {"due": precision.due} if precision else {}
    averaged = AveragedWeights(val, batches(first), watched.metric, measure, **due) if config.ema else None
    history = keras.callbacks.History()
    history.history, history.epoch = {}, []
    compile_model(model, config, steps, name, class_weights)
    with ExitStack() as stack:
        stack.enter_context(writing_to(folder))
        stack.enter_context(synchronized_batch_norm(model, config.strategy))
        for kernels in (fused_batch_norm, fused_gradients, fused_updates):
            stack.enter_context(kernels(model))
        first_epoch = _restore(model, folder, steps) if resume and folder else 0
        run = RunFolder(folder, first_epoch, averaged, watched) if folder and is_chief() else None
        watchers = [FiniteWatch(folder, watched), EpochSeeds(config.seed), throughput, LossScale()]
        watchers += [each for each in (precision, averaged, run) if each is not None]
        for stage in _thawing(_remaining(stages, first_epoch), config.frozen_epochs):
            _set_dropout(model, config, stage.strength)
            _set_frozen(model, config, stage)
            # An early stage may know only images of another size than validation uses.
            watches = aim.learning.guessable and stage.last == config.epochs
            chance = [ChanceWatch(max(classes, 2))] if watches else []
            with _labels_within(classes):
                fitted = model.fit(
                    throughput.watch(shared(batches(stage), class_weights)),
                    validation_data=val,
                    initial_epoch=stage.first,
                    epochs=stage.last,
                    steps_per_epoch=steps if callable(train_data) else None,
                    callbacks=[*chance, *watchers, *callbacks],
                    shuffle=False,  # the pipeline shuffles
                    verbose=verbose,
                )
            _append(history, fitted)
            if model.stop_training:  # a callback stopped training: skip the later stages too
                break
    if run and run.rows:
        plots.curves(run.rows, run.folder / "curves.png", watched.metric, watched.title, percent=watched.percent)
    return history


def output_size(model: keras.Model) -> int:
    """Classes, labels or values of a network; classes of a detector."""
    if not is_detector(model):
        return model.output_shape[-1]
    return model.output["logits" if "logits" in model.output else "scores"].shape[-1]


def _detector_validation(model: keras.Model, val: tf.data.Dataset, config: TrainConfig) -> DetectorValidation:
    detector = config.detector
    if detector is None or "logits" not in model.output:
        raise UserError(
            "A detector trains with the config that describes it, such as TrainConfig(model='det-lite0'), and with "
            "logits: build it by training.build_model(config, classes, task='detection')."
        )
    anchors, size = model.output["boxes"].shape[1], model.input_shape[1:3]
    spec = replace(detector, classes=output_size(model), image_size=size[0])
    if expand_detector(spec).anchors != anchors:
        raise UserError(
            f"The detector of the config has {expand_detector(spec).anchors:,} anchors, the model {anchors:,}."
        )
    return DetectorValidation(val, spec, size)


def compile_model(
    model: keras.Model,
    config: TrainConfig,
    steps: int,
    task: TaskName = "classification",
    class_weights: np.ndarray | None = None,
) -> None:
    """Compile a network with the optimizer of a config, and the loss and metrics of a task.

    Args:
        model: Network with the head of the task.
        config: `TrainConfig`.
        steps: Int, batches per epoch, from which the schedule computes its steps.
        task: String, what the network is for.
        class_weights: Weights that the loss holds, those of labels; see `objectives.balanced_weights`.
    """
    aim = objective(task)
    model.compile(
        build_optimizer(model, config, steps),
        aim.loss(model, config, class_weights),
        metrics=aim.metrics(model),
        jit_compile=jit_compile(model),
    )
    # Optimizer slots created while the first step is traced cause a second trace, as expensive as a small training.
    model.optimizer.build(model.trainable_variables)


def jit_compile(model: keras.Model) -> Literal["auto", False]:
    """Keras' choice, or False: TensorFlow's XLA has no gradient of resizing to the nearest pixel, as in detectors."""
    nearest = any(getattr(layer, "interpolation", None) == "nearest" for layer in computing_layers(model))
    return False if nearest and keras.backend.backend() == "tensorflow" else "auto"


@contextmanager
def _labels_within(classes: int) -> Iterator[None]:
    """Turn the pipeline's error about a label out of range into a `UserError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if LABEL_OUT_OF_RANGE not in str(error):
            raise
        raise UserError(
            f"{LABEL_OUT_OF_RANGE}, which has {classes}. Build it with the number of classes of the data."
        ) from None


def _steps_per_epoch(data: tf.data.Dataset, stage: ResizeStage | None) -> int:
    steps = int(data.cardinality())
    if steps <= 0:
        raise UserError("The training data has no known length; call .take(n) or assert_cardinality on it first.")
    return steps if stage is None else steps // (stage.last - stage.first)


def _remaining(stages: Sequence[ResizeStage], first_epoch: int) -> list[ResizeStage]:
    """Stages from an epoch on; the first may start in its middle."""
    return [replace(stage, first=max(first_epoch, stage.first)) for stage in stages if stage.last > first_epoch]


def _thawing(stages: Sequence[ResizeStage], frozen: int) -> list[ResizeStage]:
    """Stages divided where the frozen epochs end."""
    parts = []
    for stage in stages:
        middle = min(max(stage.first, frozen), stage.last)
        parts += [replace(stage, last=middle), replace(stage, first=middle)]
    return [part for part in parts if part.last > part.first]


def _set_frozen(model: keras.Model, config: TrainConfig, stage: ResizeStage) -> None:
    """Freeze the backbone in the first epochs, and thaw it after them; the next `fit` traces the step again."""
    if not config.frozen_epochs:
        return
    transfer.freeze(model, "backbone" if stage.last <= config.frozen_epochs else config.freeze)
    model.train_function = None


def _set_dropout(model: keras.Model, config: TrainConfig, strength: float) -> None:
    """Scale the dropout before the classifier; the next `fit` traces the step again with the new rate."""
    if config.progressive is None:
        return
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.noise_shape is None:  # the others are stochastic depth
            layer.rate = config.spec.dropout_rate * strength
    model.train_function = None


def _append(history: keras.callbacks.History, part: keras.callbacks.History) -> None:
    """Append the epochs of one `fit` to a history."""
    history.set_model(part.model)
    history.epoch.extend(part.epoch)
    for key, values in part.history.items():
        history.history.setdefault(key, []).extend(values)


def _check_resumable(folder: Path | None) -> None:
    if folder is None or not (folder / LAST).is_file():
        raise UserError(f"Nothing to resume: {folder} has no {LAST}. Leave out --resume to start from scratch.")


def _restore(model: keras.Model, folder: Path, steps: int) -> int:
    """Load weights and optimizer of the last checkpoint and return the number of epochs it has completed."""
    try:
        load_state(model, folder / LAST)
    except Exception as error:  # a damaged zip, a damaged h5 and another network raise different errors
        raise UserError(f"{folder / LAST} does not fit this network: {first_line(error)}") from error
    return epochs_done(model.optimizer, steps)
