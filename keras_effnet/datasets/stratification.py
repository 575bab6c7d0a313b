"""Stratified splits, folds and shuffles, and class weights, from integer labels. NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_effnet.errors import UserError


def stratified_split(labels: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Split indices at random with the same class proportions in every part.

    Args:
        labels: Int array of shape `(N,)`.
        fractions: Floats that sum to 1, the share of each part.
        seed: Int.

    Returns:
        List of sorted int arrays, one per part; together they are a permutation of `range(N)`.

    Example:

    >>> [len(part) for part in stratified_split(np.array([0, 1] * 10), (0.8, 0.2), seed=0)]
    [16, 4]

    Raises:
        UserError: There is nothing to split.
    """
    if not len(labels):
        raise UserError("The data has no image that can be decoded.")
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in fractions]
    # One sort for all classes: a search for each would take images x classes steps.
    counts = np.unique(labels, return_counts=True)[1]
    for indices in np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1]):
        members = rng.permutation(indices)
        cuts = np.round(np.cumsum(fractions)[:-1] * len(members)).astype(int)
        for part, chunk in zip(parts, np.split(members, cuts), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) for part in parts]


def k_folds(labels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Divide indices at random into stratified folds whose sizes differ by at most one.

    Args:
        labels: Int array of shape `(N,)`.
        count: Int, number of folds.
        seed: Int.

    Returns:
        List of sorted int arrays, one per fold; together they are a permutation of `range(N)`.

    Example:

    >>> [len(fold) for fold in k_folds(np.array([0, 1] * 10), 5, seed=0)]
    [4, 4, 4, 4, 4]
    """
    rng = np.random.default_rng(seed)
    # Round-robin over the images sorted by class: each class continues at the fold where the previous one ended.
    by_class = np.concatenate([rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    return [np.sort(by_class[number::count]) for number in range(count)]


def stratified_shuffle(labels: np.ndarray, seed: int) -> np.ndarray:
    """Shuffle with an even distribution of every class, so that all shards have similar class proportions.

    Args:
        labels: Int array of shape `(N,)`.
        seed: Int.

    Returns:
        A permutation of `range(N)`.
    """
    rng = np.random.default_rng(seed)
    times = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        times[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(times, kind="stable")


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Balanced class weights, inversely proportional to class frequency.

    Args:
        labels: Int array of shape `(N,)`.
        classes: Int, number of classes.

    Returns:
        A `float64` array of shape `(classes,)`. The weights average 1 over the images, so the learning rate keeps its
        scale; a class without images has weight 0. `model.fit(class_weight=...)` takes `dict(enumerate(...))`.

    Example:

    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.667, 2.0]
    """
    totals = np.bincount(labels, minlength=classes)
    present = totals > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(totals, 1)), 0.0)
