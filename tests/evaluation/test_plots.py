"""Plots of a run."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib import pyplot

from keras_effnet.evaluation import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures, in place of files."""
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    yield figures
    pyplot.close("all")


def _rows(losses):
    return [
        {"epoch": epoch, "loss": loss, "val_loss": loss, "accuracy": 0.5, "val_accuracy": 0.75}
        for epoch, loss in enumerate(losses, start=1)
    ]


@pytest.mark.parametrize(("losses", "scale"), [((1.4, 0.8, 0.7), "linear"), ((300.0, 2.0, 0.7), "log")])
def test_a_loss_is_on_a_log_scale_where_no_other_would_show_it(drawn, losses, scale):
    plots.curves(_rows(losses), "curves.png")
    loss, accuracy = drawn[0].axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == (scale, "linear")
    assert accuracy.yaxis.get_major_formatter()(0.75) == "75.0%"


def test_a_metric_that_is_not_defined_has_an_empty_chart_and_no_warning(drawn, recwarn):
    plots.curves([{"epoch": 1, "loss": 1.0, "val_loss": 1.0, "accuracy": math.nan}], "curves.png")
    assert [len(axis.lines) for axis in drawn[0].axes] == [2, 0] and not recwarn


def test_the_curves_of_one_epoch_are_points_over_its_number(drawn):
    plots.curves(_rows([1.0]), "curves.png")
    for axis in drawn[0].axes:
        assert all(line.get_marker() == "." for line in axis.lines)
        assert [tick for tick in axis.get_xticks() if axis.get_xlim()[0] < tick < axis.get_xlim()[1]] == [1]


@pytest.mark.parametrize("longest", ["teapot", "as golden retriever  88%", "40% American Staffordshire"])
def test_titles_do_not_run_into_each_other(drawn, longest):
    plots.image_grid(np.zeros((16, 8, 8, 3)), [f"goldfish\n{longest}"] * 16, "grid.png")
    drawn[0].draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in drawn[0].axes[:8]]
    assert boxes[0].x0 >= 0 and boxes[-1].x1 <= drawn[0].bbox.x1
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
