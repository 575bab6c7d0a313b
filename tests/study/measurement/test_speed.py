"""Timing of training steps and predictions: tracing is excluded, asynchronous devices are waited for."""

from __future__ import annotations

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.study.measurement import speed
from keras_effnet.study.measurement.speed import prediction, training_step
from keras_effnet.system import timing
from keras_effnet.system.timing import Timing

SLEEP_MS = 30
IMAGES, LABELS = np.zeros((2, 8, 8, 3), "float32"), np.array([0, 1])


class Observed(keras.layers.Layer):
    """Passes images on. Says when it is traced, and takes so long whenever it is run."""

    def __init__(self, events: list[str], seconds: float = 0.0):
        super().__init__()
        self._note, self._seconds = events.append, seconds  # Keras would copy the list

    def _pause(self, x):
        time.sleep(self._seconds)
        self._note("run")
        return x

    def call(self, x):
        self._note("traced")
        paused = tf.numpy_function(self._pause, [x], tf.float32)
        return tf.ensure_shape(paused, x.shape)


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def observed_model(events):
    """Function that builds and compiles a classifier whose images pass through an `Observed`."""

    def build(seconds: float = 0.0, **options) -> keras.Model:
        image = keras.Input((8, 8, 3))
        x = Observed(events, seconds)(image)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(x))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False, **options)
        events.clear()
        return model

    return build


TIMED = {
    "training step": lambda model, **options: training_step(model, IMAGES, LABELS, **options),
    "prediction": lambda model, **options: prediction(model, IMAGES, **options),
}


@pytest.mark.parametrize("what", TIMED)
def test_a_layer_known_to_be_slow_is_seen(observed_model, what):
    """A bound from below alone: no busy machine can make a sleep shorter."""
    assert TIMED[what](observed_model(SLEEP_MS / 1e3), runs=5).median_ms >= SLEEP_MS


@pytest.mark.parametrize("what", TIMED)
def test_each_timed_run_runs_the_whole_network_once(observed_model, events, what):
    timed = TIMED[what](observed_model(), runs=7, warmup=2)
    assert timed.runs == 7
    assert events.count("run") == 1 + 2 + 7  # the first traces


@pytest.mark.parametrize("what", TIMED)
def test_nothing_is_traced_once_the_clock_runs(observed_model, events, what, monkeypatch):
    def tick():
        events.append("tick")
        return time.perf_counter()

    monkeypatch.setattr(timing, "time", type("Clock", (), {"perf_counter": staticmethod(tick)}))
    model = observed_model()
    TIMED[what](model, runs=6)
    assert "traced" in events
    assert "traced" not in events[events.index("tick") :]


@pytest.mark.parametrize("what", TIMED)
def test_a_timed_model_is_not_traced_again_for_the_next_timing(observed_model, events, what):
    model = observed_model()
    TIMED[what](model, runs=5)
    events.clear()
    TIMED[what](model, runs=5)
    assert "traced" not in events


def test_a_step_is_the_one_that_fit_runs(toy_model):
    """The same steps on the same batch leave the same weights."""
    images, labels = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32"), np.array([0, 1, 2, 0])
    models = [toy_model(), toy_model()]
    for model in models:
        model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    timed, fitted = models
    training_step(timed, images, labels, runs=5, warmup=1)
    fitted.fit(tf.data.Dataset.from_tensors((images, labels)).repeat(7), epochs=1, shuffle=False, verbose=0)
    assert int(timed.optimizer.iterations) == int(fitted.optimizer.iterations) == 7
    for ours, theirs in zip(timed.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_several_steps_an_execution_share_its_time(observed_model, events, monkeypatch):
    class Timer:
        def __init__(self, execute, **options):
            execute()

        def burst(self):
            return False

        def timing(self):
            return Timing(60.0, 9.0, 5)

    monkeypatch.setattr(speed, "Timer", Timer)
    timed = training_step(observed_model(steps_per_execution=3), IMAGES, LABELS)
    assert timed == Timing(20.0, 3.0, 5)
    assert events.count("run") == 3 * 2


def test_predictions_change_nothing(toy_model):
    model = toy_model()
    before = model.get_weights()
    prediction(model, IMAGES, runs=5)  # not compiled either
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_every_timed_step_ends_with_all_devices_waited_for(observed_model, events, monkeypatch):
    monkeypatch.setattr(speed, "synchronize", lambda value: events.append("waited"))
    training_step(observed_model(), IMAGES, LABELS, runs=5, warmup=1)
    assert [event for event in events if event != "traced"] == ["run", "waited"] * 7  # the first traces


def test_networks_are_timed_in_turn(observed_model, events):
    """So that other load affects all of them alike; it met one of them alone."""
    clocks = {name: speed.prediction_clock(observed_model(), IMAGES, runs=10, warmup=1) for name in "ab"}
    events.clear()
    for name, clock in clocks.items():
        clock.timer._function = lambda name=name: events.append(name)
    speed.run_in_turn(clocks.values())
    assert events == ["a"] * 5 + ["b"] * 5 + ["a"] * 5 + ["b"] * 5
    assert all(clock.timing().runs == 10 and clock.trace_seconds > 0 for clock in clocks.values())


@pytest.fixture
def asynchronous():
    """Calls return before they are computed, as they do on a GPU."""
    tf.config.experimental.set_synchronous_execution(False)
    yield
    tf.config.experimental.set_synchronous_execution(True)


def test_synchronize_waits_for_what_goes_on_after_its_call_returned(asynchronous):
    go, done = threading.Event(), []

    def slow(x):
        done.append(go.wait(20))
        return x

    call = tf.function(lambda x: tf.numpy_function(slow, [x], tf.float32))
    call(tf.zeros(1))
    assert done == []
    threading.Timer(0.05, go.set).start()
    speed.synchronize()
    assert done == [True]


def test_a_model_that_is_not_compiled_is_refused(toy_model):
    with pytest.raises(UserError, match=r"toy has no loss and optimizer; call compile\(\)"):
        training_step(toy_model(), IMAGES, LABELS)
