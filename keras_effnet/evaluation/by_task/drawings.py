"""Charts of decisions, values and masks. Matplotlib and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np

from keras_effnet.datasets.labels.mask_colours import overlay, palette
from keras_effnet.evaluation.by_task.decisions import Decision
from keras_effnet.evaluation.by_task.values import ValueErrors, Values
from keras_effnet.evaluation.canvas import new_figure, percent_ticks, save

_CURVES = 10  # lines that can be told apart
_NAMED = 60  # bars with a name
_SCATTERS = 8
_LEGEND = 24


def _brief(name: str) -> str:
    return shorten(str(name), 24, placeholder="...")


def precision_recall(
    truth: np.ndarray, scores: np.ndarray, labels: Sequence[Decision], names: Sequence[str], path: str | Path
) -> None:
    """Plot the precision-recall curve of each label, with a point at its best threshold.

    Of more than ten labels those with the lowest average precision are drawn; labels without an image are not.

    Args:
        truth: Bool array of shape `(N, labels)`.
        scores: Float array of shape `(N, labels)`, probabilities.
        labels: `Decision` of each label.
        names: Names of the labels.
        path: Image file to write.
    """
    from sklearn.metrics import precision_recall_curve

    figure, axis = new_figure(figsize=(6.4, 4.6))
    known = [place for place, label in enumerate(labels) if label.positives]
    for place in sorted(known, key=lambda place: labels[place].ap)[:_CURVES]:
        precision, recall, thresholds = precision_recall_curve(truth[:, place], scores[:, place])
        label = f"{_brief(names[place])}  AP {labels[place].ap:.3f}"
        (line,) = axis.plot(recall, precision, drawstyle="steps-post", label=label)
        best = np.searchsorted(thresholds, labels[place].best_threshold)
        axis.plot(recall[best], precision[best], marker="o", color=line.get_color())
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set_title("points: threshold with the highest F1 on these images", fontsize=10)
    axis.grid(alpha=0.3)
    if known:
        figure.legend(fontsize=8, loc="outside right upper")
    save(figure, path)


def bars(series: Mapping[str, Sequence[float]], names: Sequence[str], path: str | Path) -> None:
    """Draw metrics of each class or label side by side, lowest first; a metric that is NaN has no bar.

    Args:
        series: Mapping of metric to its value in [0, 1] for each name; the first metric gives the order.
        names: Names of the classes or labels; of more than 60, those with the lowest values are drawn.
        path: Image file to write.
    """
    first = np.array(next(iter(series.values())), "float64")
    order = np.argsort(first, kind="stable")[:_NAMED]
    figure, axis = new_figure(figsize=(6.4, 1.4 + 0.28 * len(order)))
    height = 0.8 / len(series)
    places = np.arange(len(order))
    for row, (metric, values) in enumerate(series.items()):
        axis.barh(places + row * height, np.array(values, "float64")[order], height, label=metric)
    axis.set_yticks(places + 0.4 - height / 2, [_brief(names[place]) for place in order], fontsize=8)
    axis.set_xlim(0, 1)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(percent_ticks())
    axis.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=len(series))
    if len(names) > len(order):
        axis.set_title(f"the lowest {len(order)} of {len(names)}", fontsize=10)
    save(figure, path)


def histograms(values: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[int]]]], path: str | Path) -> None:
    """Draw the histogram of each value, splits over each other; up to eight values.

    Args:
        values: Mapping of the value's name to the edges of the bins and the images in each, by split.
        path: Image file to write.
    """
    shown = list(values.items())[:_SCATTERS]
    figure, axes = new_figure(len(shown), 1, figsize=(6.4, 2.6 * len(shown)), squeeze=False)
    for (axis,), (name, (edges, counts)) in zip(axes, shown, strict=True):
        for split, heights in counts.items():
            axis.stairs(heights, edges, fill=True, alpha=0.5, label=split)
        axis.set(xlabel=_brief(name), ylabel="images")
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)
    save(figure, path)


def scatter(found: Values, errors: Sequence[ValueErrors], names: Sequence[str], path: str | Path) -> None:
    """Plot predicted against true values, with a histogram of the errors beside each; up to eight values.

    Args:
        found: `Values`.
        errors: `ValueErrors` of each value.
        names: Names of the values.
        path: Image file to write.
    """
    count = min(len(errors), _SCATTERS)
    figure, axes = new_figure(count, 2, figsize=(8, 3.6 * count), squeeze=False, width_ratios=(1.2, 1))
    for place in range(count):
        truth, predicted = found.truth[:, place], found.predicted[:, place]
        plot, histogram = axes[place]
        ends = min(truth.min(), predicted.min()), max(truth.max(), predicted.max())
        plot.plot(ends, ends, color="0.5", linestyle="--", linewidth=1)
        plot.scatter(truth, predicted, s=10, alpha=0.5, linewidths=0)
        plot.set(xlabel="true", ylabel="predicted")
        each = errors[place]
        plot.set_title(f"{_brief(names[place])}: MAE {each.mae:.3g}, R² {each.r2:.3f}", fontsize=10)
        plot.grid(alpha=0.3)
        histogram.hist(predicted - truth, bins="auto" if np.ptp(predicted - truth) > 0 else 1)
        histogram.axvline(0, color="0.5", linestyle="--", linewidth=1)
        histogram.set(xlabel="error (predicted less true)", ylabel="images")
        histogram.yaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def mask_rows(
    images: np.ndarray,
    truths: np.ndarray,
    predicted: np.ndarray,
    titles: Sequence[str],
    names: Sequence[str],
    path: str | Path,
) -> None:
    """Draw rows of image, true mask and predicted mask, masks over the image, with a legend of the classes.

    Args:
        images: Array of shape `(N, height, width, 3)`, values 0..255.
        truths: Int array of shape `(N, height, width)`; ignored pixels, 255, are white.
        predicted: Int array of the same shape.
        titles: N strings.
        names: Names of the classes.
        path: Image file to write.
    """
    from matplotlib.patches import Patch

    colours = palette(len(names))
    figure, axes = new_figure(len(images), 3, figsize=(6.6, 2.2 * len(images) + 0.6), squeeze=False)
    for row, image, truth, mask, title in zip(axes, images, truths, predicted, titles, strict=True):
        pixels = np.clip(image, 0, 255).astype("uint8")
        shown = pixels, overlay(pixels, truth, colours), overlay(pixels, mask, colours)
        for axis, drawn, text in zip(row, shown, (title, "true", "predicted"), strict=True):
            axis.imshow(drawn)
            axis.set_title(text, fontsize=8)
            axis.axis("off")
    used = [place for place in np.union1d(truths, predicted).tolist() if 0 < place < len(names)][:_LEGEND]
    patches = [Patch(color=colours[place] / 255, label=_brief(names[place])) for place in used]
    if patches:
        figure.legend(handles=patches, fontsize=8, loc="outside lower center", ncols=4)
    save(figure, path)
