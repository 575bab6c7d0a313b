"""Sentences about accuracy, said of another metric. Pure Python."""

from __future__ import annotations

import re

# What is said of average precision instead, the longest first.
_AP = {
    "the most accurate": "the highest in AP",
    "more or less accurate": "higher or lower in AP",
    "more accurate": "higher in AP",
    "less accurate": "lower in AP",
    "as accurate": "equal in AP",
    "Accuracies are": "APs are",
    "accuracies": "APs",
    "Error rate": "1 - AP",
    "error rate": "1 - AP",
    "Accuracy": "AP",
    "accuracy": "AP",
}
_WORDS = {"accuracy": {}, "AP": _AP}


def worded(text: str, metric: str) -> str:
    """A text about accuracy as one about a metric, `"accuracy"` or `"AP"`.

    Example:

    >>> worded("By accuracy, det-d1 is more accurate", "AP")
    'By AP, det-d1 is higher in AP'
    """
    words = _WORDS[metric]
    return re.sub("|".join(words), lambda found: words[found[0]], text) if words else text
