"""Tasks: told by a network's output and loss."""

from __future__ import annotations

import keras
import pytest
from keras import layers

import keras_effnet
from keras_effnet.errors import UserError
from keras_effnet.tasks import TASK_NAMES, TASKS, Watched, task_of, task_of_output


def network(*head: keras.layers.Layer, loss: str | keras.losses.Loss | None = None) -> keras.Model:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), *head])
    if loss is not None:
        model.compile(loss=loss)
    return model


def pooled(*head: keras.layers.Layer, loss=None) -> keras.Model:
    return network(layers.GlobalAveragePooling2D(), *head, loss=loss)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: pooled(layers.Dense(3, activation="softmax")), "classification"),
        (lambda: pooled(layers.Dense(3), layers.Activation("softmax", dtype="float32")), "classification"),
        (lambda: pooled(layers.Dense(3), layers.Softmax(), layers.Dropout(0.1)), "classification"),
        (lambda: pooled(layers.Dense(3)), "classification"),
        (lambda: pooled(layers.Dense(3), loss="sparse_categorical_crossentropy"), "classification"),
        (lambda: pooled(layers.Dense(1, activation="sigmoid")), "binary"),
        (lambda: pooled(layers.Dense(1), loss=keras.losses.BinaryCrossentropy(from_logits=True)), "binary"),
        (lambda: pooled(layers.Dense(3, activation="sigmoid")), "multilabel"),
        (lambda: pooled(layers.Dense(3), loss="binary_crossentropy"), "multilabel"),
        (lambda: pooled(layers.Dense(1)), "regression"),
        (lambda: pooled(layers.Dense(3), loss="mse"), "regression"),
        (lambda: pooled(layers.Dense(3), loss=keras.losses.Huber()), "regression"),
        (lambda: pooled(layers.Dense(3, activation="tanh")), "regression"),
        (lambda: pooled(), "embedding"),
        (lambda: pooled(layers.Dense(8), layers.UnitNormalization()), "embedding"),
        (lambda: network(layers.BatchNormalization(), layers.Activation("swish")), "embedding"),
        (lambda: network(layers.Conv2D(3, 1, activation="softmax")), "segmentation"),
        (lambda: network(layers.Conv2D(1, 1), layers.Activation("sigmoid")), "segmentation"),
        (lambda: network(layers.Conv2D(3, 1), layers.UpSampling2D(2)), "segmentation"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), pooled(layers.Dense(1, activation="sigmoid"))]), "binary"),
        (
            lambda: keras_effnet.EfficientNetLite0(
                weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
            ),
            "embedding",
        ),
    ],
)
def test_a_task_is_told_by_the_head_and_the_loss(model, name):
    assert task_of(model()).name == name


def test_a_named_task_takes_the_place_of_the_one_found():
    assert task_of(pooled(layers.Dense(8)), "embedding") is TASKS["embedding"]
    with pytest.raises(UserError, match=r"Unknown task 'embeding'.*Did you mean 'embedding'"):
        task_of(pooled(layers.Dense(8)), "embeding")


@pytest.mark.parametrize(
    ("head", "name", "message"),
    [
        (
            [layers.GlobalAveragePooling2D(), layers.Dense(3)],
            "segmentation",
            r"The output \(None, 3\) does not fit the task segmentation",
        ),
        (
            [layers.GlobalAveragePooling2D(), layers.Dense(3)],
            "binary",
            r"The output \(None, 3\) does not fit the task binary",
        ),
        ([layers.Conv2D(3, 1)], "classification", "does not fit the task classification"),
        ([layers.GlobalAveragePooling2D(), layers.Dense(1, activation="softmax")], None, "is always 1: use a sigmoid"),
    ],
)
def test_an_output_that_does_not_fit_the_task_is_refused(head, name, message):
    with pytest.raises(UserError, match=message):
        task_of(network(*head), name)


def detector(**outputs):
    images = keras.Input((8, 8, 3))
    rows = layers.Reshape((64, 3))(images)
    return keras.Model(images, {name: layers.Dense(size)(rows) for name, size in outputs.items()})


@pytest.mark.parametrize("scores", ["scores", "logits"])
def test_a_detector_is_told_by_the_names_of_its_outputs(scores):
    assert task_of(detector(boxes=4, **{scores: 2})).name == "detection"


def test_a_detector_has_no_other_task_and_no_other_network_is_one():
    with pytest.raises(UserError, match="do not fit the task classification: a detector has two, named boxes and"):
        task_of(detector(boxes=4, scores=2), "classification")
    with pytest.raises(UserError, match="do not fit the task detection"):
        task_of(pooled(layers.Dense(3)), "detection")


def test_every_task_has_an_output_of_its_own_that_tells_it():
    assert tuple(TASKS) == TASK_NAMES
    assert [task_of_output(task.output) for task in TASKS.values()] == list(TASK_NAMES)
    assert task_of_output("StatefulPartitionedCall:0") == "classification"


# ------------------------------------------------------------------ learning


def test_the_watched_metric_of_a_learnable_task_is_among_its_metrics():
    learnable = {name: task.learning for name, task in TASKS.items() if task.learning}
    assert set(learnable) == set(TASK_NAMES) - {"embedding"}
    assert all(learning.watched.metric in learning.metrics for learning in learnable.values())


def test_the_watched_metric_is_compared_in_its_direction_and_with_the_average():
    accuracy, error = Watched("accuracy", "accuracy"), Watched("mae", "MAE", "min", percent=False)
    assert accuracy.score({"val_accuracy": 0.4}) > accuracy.score({"val_accuracy": 0.3})
    assert error.score({"val_mae": 2.0}) > error.score({"val_mae": 3.0})
    assert error.score({"val_mae": 3.0, "val_ema_mae": 1.0}) > error.score({"val_mae": 2.0})
    assert error.average_is_better({"val_mae": 3.0, "val_ema_mae": 1.0})
    assert not error.average_is_better({"val_mae": 1.0, "val_ema_mae": 3.0})
    assert not error.average_is_better({"val_mae": 1.0})
    assert accuracy.score({"val_accuracy": float("nan")}) < accuracy.score({"val_accuracy": -100.0})
