"""Average precision of MediaPipe's ObjectDetector beside this package's, with the same `.tflite` detectors and images.

    MEDIAPIPE_PYTHON=PYTHON python tests/benchmarks/mediapipe_detection.py DATA FILE.tflite ...

`PYTHON` is an interpreter that has MediaPipe. Each FILE needs its `detector.json`; `FILE_nms.tflite` of `export
--postprocess` is read too where it exists. Test split of DATA, images stretched to the input, detections with scores
from 0.01, at most 100 an image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_effnet import datasets
from keras_effnet.detection import AveragePrecision, Detections, average_precision
from keras_effnet.evaluation.by_task.boxes import Scenes, collect_scenes
from keras_effnet.inference import artifacts
from keras_effnet.inference.detecting import anchors_of, input_size
from keras_effnet.pipeline.batches import image_pipeline

CLIENT = Path(__file__).parents[1] / "support/clients/mediapipe_detector.py"


def of_this_package(artifact: artifacts.Artifact, split: datasets.Split) -> Scenes:
    """True boxes, and detections of this package, in every image."""
    batches = image_pipeline(split, artifact.image_spec, 8, training=False)
    outputs = ((artifact.predict(images.numpy()), labels) for images, labels in batches)
    return collect_scenes(outputs, anchors_of(artifact), input_size(artifact))


def of_mediapipe(file: Path, images: Sequence[str], names: Sequence[str]) -> list[Detections]:
    """Detections of MediaPipe in every image."""
    command = [os.environ.get("MEDIAPIPE_PYTHON", sys.executable), str(CLIENT), str(file), *images]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = []
    for rows in json.loads(done.stdout.splitlines()[-1]):
        labels, scores, boxes = [row[0] for row in rows], [row[1] for row in rows], [row[2:] for row in rows]
        numbers = np.array([names.index(label) for label in labels], "int32")
        found.append(Detections(np.array(boxes, "float32").reshape(-1, 4), np.array(scores, "float32"), numbers))
    return found


def row(name: str, ap: AveragePrecision) -> str:
    """A line of the table."""
    return f"  {name:<34}AP {100 * ap.ap:5.1f}  AP50 {100 * ap.ap50:5.1f}"


def main(data: str, files: Sequence[str]) -> None:
    """Print the figures of every file."""
    dataset = datasets.load(data)
    names, split = list(dataset.class_names), dataset.test or dataset.val
    for file in map(Path, files):
        artifact = artifacts.load(file)
        ours = of_this_package(artifact, split)
        print(file.name)
        print(row("keras_effnet", average_precision(ours.truth, ours.found, len(names))))
        for path in (file, file.with_stem(f"{file.stem}_nms")):
            if path.exists():
                found = of_mediapipe(path, [str(image) for image in split.images], names)
                print(row(f"MediaPipe, {path.name}", average_precision(ours.truth, found, len(names))))


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        if len(sys.argv) < 3:
            sys.exit(__doc__)
        main(sys.argv[1], sys.argv[2:])
