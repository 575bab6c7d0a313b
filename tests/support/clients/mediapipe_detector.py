"""MediaPipe's ObjectDetector, run by an interpreter that has it: `mediapipe_detector.py FILE IMAGES...`.

Prints JSON: for each image a list of (name of the class, score, y0, x0, y1, x1), in pixels of the image.
"""

from __future__ import annotations

import json
import sys

import mediapipe
from mediapipe.tasks.python import BaseOptions, vision


def found(path: str, images: list[str]) -> list[list[tuple]]:
    """Detections in each image."""
    options = vision.ObjectDetectorOptions(BaseOptions(model_asset_path=path), max_results=100, score_threshold=0.01)
    answers = []
    with vision.ObjectDetector.create_from_options(options) as detector:
        for image in images:
            here = []
            for each in detector.detect(mediapipe.Image.create_from_file(image)).detections:
                best, box = each.categories[0], each.bounding_box
                x, y = box.origin_x, box.origin_y
                here.append((best.category_name, best.score, y, x, y + box.height, x + box.width))
            answers.append(here)
    return answers


if __name__ == "__main__":
    file, *paths = sys.argv[1:]
    print(json.dumps(found(file, paths)))
