"""Contract of the client programs of this folder: `CLIENT IMAGES.npy FILE...`, run where the client is installed.

The images are uint8 (N, height, width, 3), already of the size that the files take. One JSON line is printed for each
file as soon as it was tried, so that a file that kills the process does not hide the files before it: its name, and
either `scores`, float (N, classes), or `error`; beside them whatever the client has to say. Python and numpy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Gives (the function from an image to its scores, further facts) for the path of a file.
Open = Callable[[str], tuple[Callable[[np.ndarray], np.ndarray], dict[str, object]]]


def as_input(image: np.ndarray, dtype: str) -> np.ndarray:
    """An image as a batch of the file's own type: files take pixels 0..255 as float32 or uint8."""
    if dtype not in ("float32", "uint8"):
        raise ValueError(f"takes {dtype}, not pixels")
    return np.ascontiguousarray(image[None]).astype(dtype)


def answers(open_file: Open, path: str, images: np.ndarray) -> dict[str, object]:
    """Scores of the images, and the median milliseconds of one of them."""
    classify, facts = open_file(path)
    scores, times = [], []
    for image in images:
        started = time.perf_counter()
        scores.append(np.asarray(classify(image), "float32").reshape(-1).tolist())
        times.append(1000 * (time.perf_counter() - started))
    return {"scores": scores, "ms": float(np.median(times)), **facts}


def serve(open_file: Open) -> None:
    """Try each file of the command line."""
    images = np.load(sys.argv[1])
    for path in sys.argv[2:]:
        try:
            found = answers(open_file, path, images)
        except Exception as error:  # whatever a client raises is its answer
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"file": Path(path).name, **found}), flush=True)
