"""Training by task: a network of one block for each, from the data to the run folder."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image
from small_network import TINY

from keras_effnet import datasets
from keras_effnet.config.run_record import RunRecord
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.evaluation.by_task.values import collect_values, evaluate_values
from keras_effnet.models.losses.weighted import MeanR2, StandardizedError, WeightedBinaryCrossentropy
from keras_effnet.tasks import TASKS, task_of
from keras_effnet.training.by_task.networks import Units, build_model, constant_values
from keras_effnet.training.by_task.objectives import balanced_weights, objective
from keras_effnet.training.checkpoints import RunFolder, read_rows
from keras_effnet.training.run import train_dataset

CONFIG = TrainConfig(
    model=TINY, image_size=32, batch_size=8, epochs=2, learning_rate=0.01, warmup_epochs=0, cache="none", flip=False
)
COUNT = 40


def squares() -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright square at the left or right, in red or green; and the masks of the squares."""
    rng = np.random.default_rng(0)
    images, masks = np.zeros((COUNT, 32, 32, 3), "uint8"), np.zeros((COUNT, 32, 32), "uint8")
    for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
        left, top = 16 * (place % 2) + rng.integers(0, 4), rng.integers(0, 20)
        image[top : top + 12, left : left + 12, place // 2 % 2] = rng.integers(150, 255)
        mask[top : top + 12, left : left + 12] = 1
    return images, masks


def labels_of(task: str) -> np.ndarray:
    images, masks = squares()
    right, green = np.arange(COUNT) % 2, np.arange(COUNT) // 2 % 2
    masks[:, 0] = 255
    return {
        "binary": green,
        "multilabel": np.stack([right, green], axis=1),
        "regression": 1000 + np.stack([images.max(axis=(1, 2, 3)), 0.01 * right], axis=1).astype("float64"),
        "segmentation": masks,
    }[task]


NAMES = {"binary": ["red", "green"], "multilabel": ["right", "green"], "regression": ["light", "side"]}
FIGURES = {
    "binary": "confusion.png",
    "multilabel": "precision_recall.png",
    "regression": "scatter.png",
    "segmentation": "masks.png",
}


def data(task: str) -> datasets.ImageDataset:
    return datasets.from_arrays(squares()[0], labels_of(task), NAMES.get(task), task=task)


@pytest.fixture(scope="module", params=["binary", "multilabel", "regression", "segmentation"])
def run(request, tmp_path_factory):
    """Task, dataset and result of a training."""
    dataset = data(request.param)
    return request.param, dataset, train_dataset(dataset, CONFIG, tmp_path_factory.mktemp(request.param) / "run")


@pytest.mark.slow
def test_a_run_has_the_metrics_the_figure_and_the_record_of_its_task(run):
    task, dataset, result = run
    learning = TASKS[task].learning
    rows = read_rows(result.run_dir, learning.watched)
    assert [row["epoch"] for row in rows] == [1, 2]
    for metric in ("loss", *learning.metrics):
        assert {metric, f"val_{metric}"} <= rows[0].keys()
    for figure in (FIGURES[task], "augmented.png", "curves.png"):
        with Image.open(result.run_dir / figure) as image:
            image.verify()
    assert RunRecord.read(result.run_dir / "args.yaml").config == CONFIG
    assert (result.run_dir / "labels.txt").read_text().split() == [*dataset.class_names]
    assert result.evaluation.samples == len(dataset.val) and np.isfinite(result.score)


@pytest.mark.slow
def test_the_saved_network_is_of_stock_layers_and_tells_its_task(run):
    task, dataset, result = run
    model = keras.models.load_model(result.run_dir / "weights/best.keras", compile=False)
    assert task_of(model).name == task
    outputs = model(dataset.val.pixels.astype("float32"))
    shape = {"binary": (1,), "multilabel": (2,), "regression": (2,), "segmentation": (32, 32, 2)}
    assert tuple(outputs.shape) == (8, *shape[task]) and outputs.dtype == "float32"


def test_the_network_predicts_values_in_their_units():
    values = labels_of("regression")
    units = Units.of(values)
    model = build_model(CONFIG, 2, task="regression", units=units)
    predicted = np.asarray(model(squares()[0].astype("float32")))
    # Before any training within a few deviations of the mean, whatever the units are.
    assert np.abs(predicted - values.mean(axis=0)).max(axis=0) == pytest.approx(0, abs=4 * values.std(axis=0).max())
    assert np.abs(predicted[:, 1] - values[:, 1].mean()).max() < 4 * values[:, 1].std()
    assert Units.of(np.full((3, 1), 7.0)) == Units((7.0,), (1.0,))


def test_values_that_are_the_same_on_all_images_are_named():
    values = np.array([[1.0, 2.0, 3.0], [1.0, 4.0, 3.0]])
    found = constant_values(values, ["a", "b", "c"])
    assert found == "The same value on all training images, so that nothing can be learned of it: a, c."
    assert constant_values(values[:, 1:2], ["b"]) is None


@pytest.mark.slow
def test_resumed_regression_ends_with_the_same_weights(tmp_path):
    dataset = data("regression")
    config = replace(CONFIG, epochs=2)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    whole = train_dataset(dataset, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_dataset(dataset, config, tmp_path / "cut", callbacks=[Stop()])
    resumed = train_dataset(dataset, config, tmp_path / "cut", resume=True)
    for expected, got in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


# ------------------------------------------------------------------ pure functions


def test_the_best_checkpoint_is_that_of_the_watched_metric_even_if_it_is_negative(tmp_path):
    watched = TASKS["regression"].learning.watched
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="zeros")(inputs))
    model.compile("sgd", "mse")
    run = RunFolder(tmp_path, 0, None, watched)
    run.set_model(model)
    for epoch, score in enumerate((float("nan"), -80.0, -3.0, -9.0)):
        model.layers[-1].bias.assign([float(epoch)])
        run.on_epoch_begin(epoch)
        run.on_epoch_end(epoch, {"val_r2": score})
    best = keras.models.load_model(tmp_path / "weights/best.keras", compile=False)
    assert float(best.layers[-1].bias.numpy()[0]) == 2
    assert RunFolder(tmp_path, 4, None, watched).best == -3.0
    with pytest.raises(UserError, match="val_accuracy is missing"):
        read_rows(tmp_path)


def test_errors_are_in_units_of_the_spread():
    truth, predicted = np.array([[100.0, 3.0], [200.0, 1.0]]), np.array([[110.0, 3.0], [200.0, 1.5]])
    loss = StandardizedError([10.0, 0.5])
    assert float(loss(truth, predicted)) == pytest.approx(0.5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(truth, predicted)) == pytest.approx(0.5)


def test_r2_of_an_epoch_is_that_of_the_evaluation():
    """A value that is the same in all images has none, and far from 0 the others keep their digits."""
    rng = np.random.default_rng(0)
    truth = np.stack([1e4 + rng.normal(size=96), np.full(96, 7.3), rng.normal(size=96)], axis=1).astype("float32")
    predicted = truth + rng.normal(0, 0.5, truth.shape).astype("float32")
    metric = MeanR2([1e4, 5.0, 0.0])
    for batch in np.split(np.arange(96), 12):
        metric.update_state(truth[batch], predicted[batch])
    expected = evaluate_values(collect_values([(predicted, truth)]))
    assert np.isnan(expected.values[1].r2)
    assert float(metric.result()) == pytest.approx(expected.r2, rel=1e-4)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    again.update_state(truth[:1], predicted[:1])
    assert np.isnan(float(again.result()))


def test_weighted_decisions_without_weights_are_the_cross_entropy_of_keras():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 2, (6, 3)).astype("float32"), rng.random((6, 3)).astype("float32")
    plain = keras.losses.BinaryCrossentropy(label_smoothing=0.1)(truth, predicted)
    ones = WeightedBinaryCrossentropy([1] * 3, [1] * 3, 0.1)
    assert float(ones(truth, predicted)) == pytest.approx(float(plain), rel=1e-5)
    triple = WeightedBinaryCrossentropy([1, 1, 1], [3, 3, 3])
    assert float(triple(np.ones((1, 3)), np.full((1, 3), 0.5))) == pytest.approx(3 * np.log(2), rel=1e-5)


def test_balanced_weights_let_rare_labels_and_pixels_count_as_much_as_frequent_ones():
    flags = np.zeros((100, 2))
    flags[:10, 0] = flags[:50, 1] = 1
    weights = balanced_weights(replace_train(data("multilabel"), flags))
    np.testing.assert_allclose(weights, [[100 / 180, 1], [5, 1]])
    masks = np.zeros((100, 32, 32), "uint8")
    masks[:, :8, :] = 1
    masks[:, 31] = 255
    weights = balanced_weights(replace_train(data("segmentation"), datasets.Masks(masks)))
    assert weights * [23, 8] == pytest.approx([15.5, 15.5])
    with pytest.raises(UserError, match="class_weight balanced is for classes and labels"):
        balanced_weights(data("regression"))


def replace_train(dataset, labels):
    images = np.zeros((len(labels), 32, 32, 3), "uint8")
    return replace(dataset, train=replace(dataset.train, images=images, labels=labels))


def test_ignored_pixels_have_no_weight_and_targets_fit_the_losses():
    weigh = objective("segmentation").weigh
    np.testing.assert_allclose(weigh(np.array([[0, 1, 255]]), np.array([0.5, 2.0], "float32")), [[0.5, 2, 0]])
    targets = objective("binary").targets
    np.testing.assert_allclose(targets(keras.ops.convert_to_tensor([0, 1]), 1), [[0], [1]])
    soft = keras.ops.convert_to_tensor([[0.3, 0.7]])
    np.testing.assert_allclose(targets(soft, 1), [[0.7]])
    weigh = objective("binary").weigh
    np.testing.assert_allclose(weigh(np.array([[0.0], [1.0]], "float32"), np.array([0.5, 4.0], "float32")), [0.5, 4])


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("regression", {"class_weight": "balanced"}, "class_weight balanced is for classes and labels.*regression"),
        ("segmentation", {"mixup": 0.2}, "mixup and cutmix mix one label per image.*segmentation"),
        ("segmentation", {"progressive": "32,48", "image_size": 48}, "must be multiples of 32, got 32,48"),
        ("segmentation", {"policy": "autoaugment"}, "policy autoaugment rotates and shears"),
    ],
)
def test_options_that_do_not_apply_to_a_task_are_refused_before_anything_is_written(tmp_path, task, options, message):
    with pytest.raises(UserError, match=message):
        train_dataset(data(task), replace(CONFIG, **options), tmp_path / "run")
    assert not list((tmp_path).rglob("*.keras"))
