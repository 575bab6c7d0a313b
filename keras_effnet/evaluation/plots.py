"""Charts of training, evaluation and search, drawn to image files without a display. Matplotlib and NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np

from keras_effnet.evaluation.canvas import new_figure, percent_ticks, save

_SMALL = 12  # number of classes up to which counts fit the cells of a confusion matrix
_LETTERS = 19  # characters of 8 points that fit above an image of a grid


def curves(
    rows: Sequence[Mapping[str, float]],
    path: str | Path,
    metric: str = "accuracy",
    title: str = "",
    *,
    percent: bool = True,
) -> None:
    """Plot loss and a metric of training and validation by epoch.

    Args:
        rows: One mapping per epoch, with the keys `epoch`, `loss`, `val_loss`, `val_METRIC` and optionally `METRIC`,
            `val_ema_loss`, `val_ema_METRIC`; what was not measured is nan or absent.
        path: Image file to write.
        metric: String, name of the metric.
        title: String, the metric in words; its name by default.
        percent: Bool, whether the metric is shown in percent.
    """
    figure, axes = new_figure(1, 2, figsize=(9, 3.4))
    marker = "." if len(rows) <= 30 else None  # a line through a single epoch would be invisible
    for axis, key in zip(axes, ("loss", metric), strict=True):
        for column, label in ((key, "train"), (f"val_{key}", "validation")):
            known = [(row["epoch"], row[column]) for row in rows if not math.isnan(row.get(column, math.nan))]
            if known:  # not every metric is measured in training, or in every epoch
                axis.plot(*zip(*known, strict=True), marker=marker, label=label)
        averaged = [(row["epoch"], row[f"val_ema_{key}"]) for row in rows if f"val_ema_{key}" in row]
        if averaged:
            axis.plot(*zip(*averaged, strict=True), marker=marker, label="validation, averaged weights")
        axis.set(xlabel="epoch", ylabel="loss" if key == "loss" else title or metric)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
        if axis.lines:  # none of a metric that is not defined for the data
            axis.legend()
    losses = [value for row in rows for key, value in row.items() if key.endswith("loss") and value > 0]
    if losses and max(losses) > 10 * min(losses):  # the first epochs from scratch may dwarf all others
        axes[0].set_yscale("log")
    if percent:
        axes[1].yaxis.set_major_formatter(percent_ticks())
    save(figure, path)


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], path: str | Path) -> None:
    """Plot a confusion matrix, normalised by row.

    Args:
        matrix: Int array of shape `(classes, classes)`, rows true, columns predicted.
        class_names: Sequence of strings.
        path: Image file to write.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    count = len(class_names)
    side = min(12.0, 3.5 + 0.35 * count)
    figure, axis = new_figure(figsize=(side, side))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true")
    if count <= 40:
        axis.set_xticks(range(count), class_names, rotation=90)
        axis.set_yticks(range(count), class_names)
    if count <= _SMALL:
        for row, column in np.argwhere(matrix > 0):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, int(matrix[row, column]), ha="center", va="center", color=shade, fontsize=8)
    save(figure, path)


def image_grid(
    images: np.ndarray, titles: Sequence[str], path: str | Path, columns: int = 8, inches: float = 1.3
) -> None:
    """Draw a grid of images with a few lines of text above each.

    Args:
        images: Array of shape `(N, height, width, 3)`, values 0..255.
        titles: N strings.
        path: Image file to write.
        columns: Int, images per row.
        inches: Float, width of an image.
    """
    rows = -(-len(images) // columns)
    longest = max((len(line) for title in titles for line in title.splitlines()), default=0)
    size = min(8.0, max(5.0, 8.0 * _LETTERS / max(longest, 1)))  # otherwise long names would overlap
    figure, axes = new_figure(rows, columns, figsize=(inches * columns, (inches + 0.25) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(np.clip(image, 0, 255).astype("uint8"))
        axis.set_title(title, fontsize=size)
    save(figure, path)


def reliability(counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, title: str, path: str | Path) -> None:
    """Plot a reliability diagram: accuracy against confidence, above a histogram of the confidence.

    A calibrated network lies on the diagonal, an overconfident one below it.

    Args:
        counts: Int array of shape `(bins,)`, images in each bin of equal width over [0, 1].
        confidence: Float array of shape `(bins,)`, mean confidence; NaN in empty bins.
        accuracy: Float array of shape `(bins,)`, share of correct predictions; NaN in empty bins.
        title: String.
        path: Image file to write.
    """
    bins = len(counts)
    centres, used = (np.arange(bins) + 0.5) / bins, counts > 0
    figure, (upper, lower) = new_figure(2, 1, figsize=(4.2, 5.2), sharex=True, height_ratios=(3, 1))
    upper.bar(centres[used], accuracy[used], width=1 / bins, color="C0", alpha=0.45, edgecolor="white", label="correct")
    for sign, color, label in ((1, "C3", "overconfident"), (-1, "C2", "underconfident")):
        off = used & (sign * np.nan_to_num(confidence - accuracy) > 0)
        gaps = (confidence - accuracy)[off]
        upper.bar(centres[off], gaps, 1 / bins, accuracy[off], color=color, alpha=0.6, edgecolor="white", label=label)
    upper.plot((0, 1), (0, 1), color="0.3", linestyle="--", linewidth=1, label="well calibrated")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(title, fontsize=10)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    lower.bar(centres, counts, width=1 / bins, color="0.6", edgecolor="white")
    lower.set(xlabel="confidence", ylabel="images")
    lower.yaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def class_counts(counts: Mapping[str, Sequence[int]], class_names: Sequence[str], path: str | Path) -> None:
    """Plot the number of images of each class, largest first, with splits stacked.

    Args:
        counts: Mapping of split to the number of images of each class.
        class_names: Sequence of strings.
        path: Image file to write.
    """
    totals = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-totals, kind="stable")
    named = len(order) <= 60
    figure, axis = new_figure(figsize=(min(14.0, 3.5 + 0.22 * len(order)), 4.2))
    below = np.zeros(len(order))
    for split, numbers in counts.items():
        axis.bar(range(len(order)), np.asarray(numbers)[order], bottom=below, width=0.8 if named else 1.0, label=split)
        below += np.asarray(numbers)[order]
    axis.set(ylabel="images", xlabel="class" if named else f"{len(order)} classes, largest first")
    names = [shorten(str(class_names[index]), 24, placeholder="...") for index in order]
    axis.set_xticks(range(len(order)) if named else [], names if named else [], rotation=90, fontsize=8)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def explanation(
    image: np.ndarray, heat: np.ndarray, shares: Sequence[tuple[str, float]], explained: int, path: str | Path
) -> None:
    """Draw an image, the heat map of a class over it, and the predicted probabilities, side by side.

    Args:
        image: Array of shape `(height, width, 3)`, values 0..255.
        heat: Array of shape `(rows, columns)`, values in [0, 1].
        shares: Pairs of class name and probability.
        explained: Int, index into `shares` of the class that `heat` belongs to.
        path: Image file to write.
    """
    height, width = image.shape[:2]
    pixels = np.clip(image, 0, 255).astype("uint8")
    figure, (plain, heated, answer) = new_figure(1, 3, figsize=(9, max(2.9, 0.32 * len(shares))))
    plain.imshow(pixels)
    plain.set_title("network input", fontsize=10)
    heated.imshow(pixels.mean(axis=-1), cmap="gray", vmin=0, vmax=255)
    over = heated.imshow(
        heat,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=0.2 + 0.5 * heat,  # the image stays visible where the heat is low
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    heated.set_title(shorten(f"evidence for {shares[explained][0]}", 44, placeholder="..."), fontsize=10)
    figure.colorbar(over, ax=heated, fraction=0.05, ticks=(0, 1)).set_ticklabels(("none", "most"), fontsize=8)
    for axis in (plain, heated):
        axis.axis("off")

    colors = ["C1" if place == explained else "0.75" for place in range(len(shares))]
    places = range(len(shares))
    answer.barh(places, [share for _, share in shares], height=0.35, color=colors)
    for place, (name, share) in enumerate(shares):
        answer.text(0, place - 0.25, name, va="bottom", fontsize=9)
        answer.text(share + 0.01, place, f"{share:.1%}", va="center", fontsize=9)
    answer.set(xlim=(0, 1.15), ylim=(len(shares) - 0.5, -0.7))
    answer.axis("off")
    save(figure, path)


def search_map(points: Sequence[tuple[float, float, float, float, int]], path: str | Path) -> None:
    """Plot the candidates of a scaling search over beta and gamma.

    Colour shows accuracy, the printed number alpha, and the size the number of epochs trained.

    Args:
        points: For each candidate its alpha, beta, gamma, accuracy and epochs.
        path: Image file to write.
    """
    figure, axis = new_figure(figsize=(6.5, 5))
    alphas, betas, gammas, accuracies, epochs = (np.array(column) for column in zip(*points, strict=True))
    most = epochs.max()
    order = np.argsort(epochs, kind="stable")
    spots = axis.scatter(
        betas[order], gammas[order], c=accuracies[order], s=180 + 500 * epochs[order] / most, cmap="viridis"
    )
    for place in order:
        light = spots.norm(accuracies[place]) > 0.6  # viridis ends in yellow
        spot = {"ha": "center", "va": "center", "color": "black" if light else "white"}
        axis.annotate(f"{alphas[place]:g}", (betas[place], gammas[place]), **spot)
    axis.set(xlabel="beta (width)", ylabel="gamma (resolution)")
    axis.set_title("numbers: alpha (depth); larger spots were trained for more epochs", fontsize=10)
    axis.margins(0.15)
    axis.grid(alpha=0.3)
    figure.colorbar(spots, ax=axis, label="validation accuracy")
    save(figure, path)
