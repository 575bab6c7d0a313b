"""Time to build a network with weights, beside keras.applications, as a Markdown table.

    python tests/benchmarks/build.py [NAME ...]

Both read the same legacy `.h5`, in turn, each time in a process of its own after the imports and a first layer. Times
are medians of `ROUNDS`; CPU time counts all threads and is what the ratio is of. Memory is the peak above what the
process held before. The last column is the ratio for random weights, which both must draw.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from keras_effnet.system.machine import cpu_name

NAMES, ROUNDS = tuple(f"b{number}" for number in range(8)), 5
OURS, THEIRS = "keras_effnet", "keras.applications"


def builder(library: str, name: str) -> Callable:
    """The function that builds a network, with all that it needs imported and the backend awake."""
    import keras

    keras.layers.Conv2D(1, 1).build((1, 1, 1, 1))
    if library == THEIRS:
        return getattr(keras.applications, f"EfficientNet{name.upper()}")
    from keras_effnet.models import efficientnet

    return getattr(efficientnet, f"EfficientNet{name.upper()}")


def write_weights(name: str, path: str) -> None:
    """Save a random network of keras.applications as a legacy `.h5` file."""
    builder(THEIRS, name)(weights=None).save(path)


def measure(library: str, name: str, path: str) -> None:
    """Builds once and prints CPU seconds, wall seconds and MB. An empty path stands for random weights."""
    build = builder(library, name)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    build(weights=path or None)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps([cpu, wall, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024]))


def apart(job: Callable, *arguments: str) -> str:
    """What `job` prints in a process of its own."""
    done = subprocess.run([sys.executable, __file__, job.__name__, *arguments], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else sys.exit(done.stderr)


def compare(name: str, path: str) -> dict[str, list[float]]:
    """Library -> medians of CPU seconds, wall seconds and MB."""
    rounds = [[json.loads(apart(measure, library, name, path)) for library in (OURS, THEIRS)] for _ in range(ROUNDS)]
    by_library = zip(*rounds, strict=True)
    return {
        library: [median(column) for column in zip(*runs, strict=True)]
        for library, runs in zip((OURS, THEIRS), by_library, strict=True)
    }


def main(*names: str) -> None:
    print(f"{cpu_name()}, {os.cpu_count()} cores; {OURS} / {THEIRS}, medians of {ROUNDS}.\n")
    print("| network | CPU s | CPU ratio | wall s | peak MB | random weights: CPU ratio |")
    print("|---|---|---|---|---|---|")
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / f"{name}.h5")
            apart(write_weights, name, path)
            given, drawn = compare(name, path), compare(name, "")
        ours, theirs = given[OURS], given[THEIRS]
        ratio, drawn_ratio = ours[0] / theirs[0], drawn[OURS][0] / drawn[THEIRS][0]
        pairs = [
            f"{mine:.{digits}f} / {other:.{digits}f}"
            for mine, other, digits in zip(ours, theirs, (2, 2, 0), strict=True)
        ]
        print(f"| {name} | {pairs[0]} | {ratio:.2f} | {pairs[1]} | {pairs[2]} | {drawn_ratio:.2f} |", flush=True)


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        jobs = {job.__name__: job for job in (write_weights, measure)}
        job, *arguments = sys.argv[1:] or [""]
        if job in jobs:
            jobs[job](*arguments)
        else:
            main(*sys.argv[1:])
