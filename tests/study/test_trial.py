"""Threads of a training, as many as `--threads` says in all; and the command that follows from a study."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from busy_threads import shares

from keras_effnet.cli.commands.study import _next
from keras_effnet.cli.options import default_threads
from keras_effnet.study.executors import processes
from keras_effnet.study.trial import limit_threads


@pytest.mark.parametrize(("threads", "at_once", "within"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (16, 16, 8)])
def test_operations_and_their_threads_share_the_limit(monkeypatch, threads, at_once, within):
    import tensorflow as tf

    told = {}
    monkeypatch.setattr(
        tf.config.threading, "set_inter_op_parallelism_threads", lambda count: told.update(at_once=count)
    )
    monkeypatch.setattr(
        tf.config.threading, "set_intra_op_parallelism_threads", lambda count: told.update(within=count)
    )
    limit_threads(0)
    assert told == {}
    limit_threads(threads)
    assert told == {"at_once": at_once, "within": within}


@pytest.mark.slow
def test_one_thread_uses_one_core(monkeypatch):
    """Processor time by thread, which other load on the machine does not change."""
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    with processes() as submit:
        assert submit(shares, 1).result()[0] > 0.9
        if (os.cpu_count() or 1) > 1:
            assert submit(shares, 2).result()[1] > 0.2


@pytest.mark.parametrize(
    ("axes", "metric", "following"),
    [
        ((), "accuracy", ("study", "--resume")),
        (("family",), "accuracy", ("study", "--resume")),
        (("baseline", "compound"), "accuracy", ("recommend", "--budget-ms")),
        (("baseline", "compound"), "AP", ("train", "images")),
    ],
)
def test_the_next_command_is_one_that_works(axes, metric, following):
    summaries = [SimpleNamespace(axis=axis, metric=metric, model="det-d0") for axis in axes]
    assert _next(summaries, Path("runs/study/images"), "images")[:2] == following


def test_trainings_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [default_threads(workers) for workers in (1, 2, 3, 16)] == [8, 4, 2, 1]
