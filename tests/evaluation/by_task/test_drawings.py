"""Charts by task: what is drawn, read back from matplotlib's objects or from the pixels of the file."""

import numpy as np
import pytest
from matplotlib import pyplot

from keras_effnet.datasets.labels.mask_colours import overlay, palette
from keras_effnet.evaluation import canvas
from keras_effnet.evaluation.by_task import drawings
from keras_effnet.evaluation.by_task.decisions import collect_decisions, evaluate_labels
from keras_effnet.evaluation.by_task.values import collect_values, evaluate_values

TRUTH = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
SCORES = np.array([[0.2, 0.9, 0.3], [0.9, 0.3, 0.1], [0.4, 0.2, 0.6], [0.3, 0.1, 0.5]])


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """Function that draws and returns the figure, which has been written to a file too."""
    kept = []
    monkeypatch.setattr(drawings, "save", lambda figure, path: kept.append(figure) or figure.savefig(path))

    def draw(function, *args):
        function(*args, tmp_path / "drawn.png")
        assert (tmp_path / "drawn.png").stat().st_size
        return kept[-1]

    yield draw
    for each in kept:
        pyplot.close(each)


def test_curves_are_of_labels_that_occur_with_a_point_at_the_best_threshold(figure):
    found = collect_decisions([(SCORES, TRUTH)])
    labels = evaluate_labels(found).labels
    (axis,) = figure(drawings.precision_recall, found.truth, found.scores, labels, ["a", "b", "never"]).axes
    curves, points = axis.lines[::2], axis.lines[1::2]
    assert [line.get_label().split()[0] for line in curves] == ["b", "a"]  # lowest average precision first
    assert [point.get_xydata().tolist() for point in points] == [[[1.0, 2 / 3]], [[1.0, 1.0]]]


def test_bars_begin_with_the_lowest_value_and_leave_out_nan(figure):
    series = {"AP": (0.9, float("nan"), 0.1), "F1": (0.8, 0.5, 0.2)}
    (axis,) = figure(drawings.bars, series, ["good", "absent", "bad"]).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["bad", "good", "absent"]
    assert [bar.get_width() for bar in axis.patches][:2] == [0.1, 0.9]


def test_values_are_drawn_against_the_truth(figure):
    found = collect_values([(np.array([[1.0, 5], [3, 5]]), np.array([[1.0, 5], [2, 5]]))])
    axes = figure(drawings.scatter, found, evaluate_values(found).values, ["ink", "constant"]).axes
    assert axes[0].collections[0].get_offsets().tolist() == [[1, 1], [2, 3]]
    assert axes[0].get_title().startswith("ink: MAE 0.5")


def test_masks_are_drawn_over_the_image_with_the_names_of_their_classes(figure):
    images, truth = np.full((1, 2, 2, 3), 100), np.array([[[0, 1], [2, 255]]])
    drawn = figure(drawings.mask_rows, images, truth, np.ones_like(truth), ["a.png"], ["none", "cat", "dog"])
    shown = [axis.images[0].get_array() for axis in drawn.axes]
    assert shown[1].tolist() == overlay(images[0], truth[0], palette(3)).tolist()
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["cat", "dog"]


def test_an_overlay_tints_classes_and_whitens_ignored_pixels():
    image = np.full((2, 2, 3), 100)
    assert overlay(image, np.array([[0, 1], [2, 255]]), palette(3)).tolist() == [
        [[100, 100, 100], [114, 50, 50]],
        [[50, 114, 50], [255, 255, 255]],
    ]


def test_figures_are_closed_after_they_are_written(tmp_path):
    drawings.bars({"AP": (0.5,)}, ["a"], tmp_path / "bars.png")
    assert canvas.save is drawings.save and not pyplot.get_fignums()
