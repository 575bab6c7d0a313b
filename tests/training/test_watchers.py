"""Callbacks that watch a run."""

from types import SimpleNamespace

import keras
import pytest

from keras_effnet.errors import UserError
from keras_effnet.training.watchers import FiniteWatch


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_finite_number_stops_the_run_at_that_step(loss):
    watch = FiniteWatch(None)
    watch.set_model(SimpleNamespace(optimizer=keras.optimizers.SGD(0.5)))
    watch.on_epoch_begin(2)
    watch.on_train_batch_end(0, {"loss": 1e30})
    with pytest.raises(UserError, match=r"at step 2 of epoch 3, at a learning rate of 0\.5"):
        watch.on_train_batch_end(1, {"loss": loss})
