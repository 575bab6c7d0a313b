"""Training from a dataset to a complete run folder: network, pipelines, checkpoints, evaluation. TensorFlow."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import tensorflow as tf

from keras_effnet import transfer
from keras_effnet.config.resizing import ResizeStage
from keras_effnet.config.run_record import RunRecord, data_arguments
from keras_effnet.config.train_config import TRAINING_PRECISIONS, TrainConfig
from keras_effnet.datasets.findings.data_identity import check_identity, save_identity
from keras_effnet.datasets.labels.conversion import require_task
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.datasets.stratification import class_weights
from keras_effnet.errors import UserError, check_path, instance_of, one_of
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.metrics import Evaluation, evaluate
from keras_effnet.imagenet import readable
from keras_effnet.models.efficientnet import EfficientNet
from keras_effnet.models.saving import load_state
from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.pipeline.batches import image_pipeline
from keras_effnet.pipeline.caching import cached_split, choose_cache
from keras_effnet.system.files import WriteError, atomic_group, disk_full, write_text
from keras_effnet.system.run_folders import write_environment
from keras_effnet.training.checkpoints import BEST, read_rows, resumable, save_model, uncompiled, writing_to
from keras_effnet.training.contact_sheets import contact_sheet
from keras_effnet.training.distribution import check_strategy, is_chief, scope
from keras_effnet.training.loop import train

__all__ = [
    "TrainConfig",
    "TrainResult",
    "build_model",
    "fit_dataset",
    "precision_reason",
    "resolve_precision",
    "train",
    "train_dataset",
]

_SHOWN = 16  # images in augmented.png
_CACHE = "cache"  # a folder within the run's, while it trains
_ORPHAN = 30.0  # seconds that a training of a killed study may take to notice that it is an orphan


def resolve_precision(precision: str) -> str:
    """Resolve a precision to a dtype policy; `"auto"` depends on the devices of this machine.

    Args:
        precision: String, one of `TRAINING_PRECISIONS`.

    Returns:
        String, `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.

    Raises:
        UserError: An unknown precision.
    """
    one_of("precision", precision, TRAINING_PRECISIONS)
    if precision != "auto":
        return precision
    if tf.config.list_physical_devices("TPU"):
        return "mixed_bfloat16"
    return "mixed_float16" if tf.config.list_physical_devices("GPU") else "float32"


def precision_reason(precision: str) -> str:
    """Describe the dtype policy chosen on this machine and the reason for it."""
    policy = resolve_precision(precision)
    if precision != "auto":
        return f"{policy}, as requested"
    devices = {"mixed_bfloat16": "a TPU", "mixed_float16": "a GPU, with loss scaling"}
    return f"{policy}, because this machine has {devices.get(policy, 'neither GPU nor TPU')}"


def build_model(config: TrainConfig, classes: int, *, any_size: bool = False) -> keras.Model:
    """Build the network of a config in its precision, with the parts up to `config.freeze` frozen.

    Args:
        config: `TrainConfig`.
        classes: Int.
        any_size: Bool, whether the input accepts images of any size rather than the network's own.

    Returns:
        A Keras model that ends in probabilities.
    """
    keras.utils.set_random_seed(config.seed)
    spec = config.spec
    model = EfficientNet(
        spec,
        weights=config.weights,
        classes=classes,
        input_shape=(None, None, 3) if any_size else (spec.image_size, spec.image_size, 3),
        dtype=resolve_precision(config.precision),
    )
    if config.freeze is not None:
        transfer.freeze(model, config.freeze)
    return model


def _augmentation(dataset: ImageDataset, config: TrainConfig) -> Augmentation:
    return Augmentation(
        crop_scale=(config.crop_scale, 1.0),
        flip=dataset.train.mirror if config.flip is None else config.flip,
        policy=config.policy,
        layers=config.policy_layers,
        magnitude=config.magnitude,
        color_jitter=config.color_jitter,
        erasing=config.erasing,
        mixup=config.mixup,
        cutmix=config.cutmix,
    )


@dataclass(frozen=True, eq=False)
class TrainResult:
    """Result of a finished training.

    Args:
        run_dir: Path of the run folder.
        model: The network with its best weights.
        evaluation: `Evaluation` of the best weights on the dataset's `val` split.
        epochs: Int, epochs completed at the last checkpoint.
    """

    run_dir: Path
    model: keras.Model
    evaluation: Evaluation
    epochs: int


@dataclass(frozen=True, eq=False)
class Pipelines:
    """Training and validation batches.

    Args:
        train: Function from a `ResizeStage` to the batches of all its epochs.
        val: `tf.data.Dataset` of `(images, integer labels)` in batches.
    """

    train: Callable[[ResizeStage], tf.data.Dataset]
    val: tf.data.Dataset


def _pipelines(dataset: ImageDataset, config: TrainConfig, folder: Path, announce: Callable[[str], None]) -> Pipelines:
    spec, classes = config.image_spec, len(dataset.class_names)
    cache = choose_cache(dataset.train, config.cache, folder / _CACHE)
    announce(f"Cache: {cache.reason}.")
    images, augmentation = cached_split(dataset.train, cache), _augmentation(dataset, config)

    def batches(stage: ResizeStage) -> tf.data.Dataset:
        return image_pipeline(
            images,
            replace(spec, size=stage.image_size),
            config.batch_size,
            training=True,
            augmentation=augmentation.scaled(stage.strength),
            epochs=(stage.first, stage.last),
            classes=classes,
            service=config.data_service,
            seed=config.seed,
        )

    return Pipelines(batches, image_pipeline(dataset, spec, config.batch_size))


def _describe(dataset: ImageDataset, config: TrainConfig, folder: Path) -> None:
    """Write the metadata that `eval`, `predict`, `export` and a resumed run read."""
    if not is_chief():
        return
    with atomic_group(folder) as staged:
        RunRecord(data_arguments(dataset.origin), config).save(folder, staged=staged)
        write_text(staged / "labels.txt", "".join(f"{name}\n" for name in dataset.class_names))
        config.image_spec.save(staged / "image_spec.json")
        save_identity(dataset, staged)
        write_environment(staged)


@contextmanager
def _occupied(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Create and lock the run folder in the process that writes; remove the cached images, however the run ends."""
    with writing_to(folder, wait=wait):
        try:
            yield
        except Exception as error:
            if isinstance(error, WriteError) or disk_full(
                error
            ):  # TensorFlow reports a full disk of the cache by an error of its own
                raise resumable(error, folder) from None
            raise
        finally:
            if is_chief():
                shutil.rmtree(folder / _CACHE, ignore_errors=True)


def fit_dataset(dataset: ImageDataset, config: TrainConfig, run_dir: str | Path, **options) -> None:
    """Train without the final evaluation: write checkpoints, results and `args.yaml`. Arguments as `train_dataset`."""
    with _occupied(Path(run_dir), wait=_ORPHAN):
        _fit(dataset, config, Path(run_dir), **options)


def _fit(
    dataset: ImageDataset,
    config: TrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> Pipelines:
    """Build the network and the pipelines of a config, train, and return the pipelines for `_finish`."""
    if not len(dataset.train):
        raise UserError(f"{dataset.name} has no images to train on: all of them belong to its test split.")
    require_task(dataset.name, dataset.task, "classification", "Training knows one class per image.")
    if resume:
        check_identity(dataset, folder)
    classes = len(dataset.class_names)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    announce(f"Precision: {precision_reason(config.precision)}.")
    pipelines = _pipelines(dataset, config, folder, announce)
    weights = class_weights(dataset.train.labels, classes) if config.class_weight == "balanced" else None
    # Written when training begins, so that a refused resume leaves the run folder unchanged.
    describing = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: _describe(dataset, config, folder))
    check_strategy(config.strategy, gradient_accumulation=config.accumulate)
    with scope(config.strategy):
        train(
            build_model(config, classes, any_size=config.progressive is not None),
            pipelines.train,
            pipelines.val,
            config,
            run_dir=folder,
            resume=resume,
            class_weights=weights,
            callbacks=[describing, *callbacks],
        )
    return pipelines


def train_dataset(
    dataset: ImageDataset,
    config: TrainConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> TrainResult | None:
    """Train a network on a dataset and write a complete run folder.

    The network and its input pipelines are built from the config. After training, the batch normalization statistics of
    the best weights are re-estimated, see `transfer.reestimate_batch_norm`. In addition to the files of `train`, the
    folder gets `args.yaml`, `env.json`, `labels.txt`, `image_spec.json`, `augmented.png` and `confusion.png`, so that
    `eval`, `predict` and `export` need only the folder.

    Args:
        dataset: `ImageDataset`.
        config: `TrainConfig`.
        run_dir: Run folder, created if it does not exist.
        resume: Bool, whether to resume from the last checkpoint in `run_dir`.
        callbacks: Further Keras callbacks.
        announce: Function called with a line of text for each automatic choice, such as cache and precision.

    Returns:
        A `TrainResult`; None in all but the first of several processes that train together.

    Raises:
        UserError: The dataset has no training images, another process uses the folder, or training fails, see `train`.
    """
    instance_of("dataset", dataset, ImageDataset, "load it with datasets.load.")
    instance_of("config", config, TrainConfig)
    check_path("run_dir", run_dir)
    folder = Path(run_dir)
    with _occupied(folder):
        pipelines = _fit(dataset, config, folder, resume=resume, callbacks=callbacks, announce=announce)
        return _finish(dataset, config, folder, pipelines) if is_chief() else None


def _finish(dataset: ImageDataset, config: TrainConfig, folder: Path, pipelines: Pipelines) -> TrainResult:
    """Re-estimate the batch normalization statistics of the best weights, evaluate them and draw the plots."""
    model = uncompiled(build_model(replace(config, weights=None), len(dataset.class_names)))
    load_state(model, folder / BEST)
    batches = pipelines.train(ResizeStage(0, 1, config.image_spec.size))
    transfer.reestimate_batch_norm(model, batches)
    # Before anything is saved: a network that predicts NaN is refused here.
    result = evaluate(model.predict(pipelines.val, verbose=0), dataset.val.labels)
    save_model(model, folder / BEST)
    names = readable(dataset.class_names)
    images, labels = next(iter(batches.take(1)))
    contact_sheet(images[:_SHOWN], labels[:_SHOWN], folder / "augmented.png", class_names=names)
    plots.confusion_matrix(result.confusion, names, folder / "confusion.png")
    return TrainResult(folder, model, result, int(read_rows(folder)[-1]["epoch"]))
