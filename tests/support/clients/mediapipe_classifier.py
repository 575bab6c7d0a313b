"""MediaPipe's ImageClassifier as a client; see `client_contract`."""

from __future__ import annotations

import mediapipe
import numpy as np
from client_contract import serve
from mediapipe.tasks.python import BaseOptions, vision


def open_file(path: str):
    """Classify RGB images; MediaPipe resizes them and applies the normalization of the metadata."""
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=path))
    classifier = vision.ImageClassifier.create_from_options(options)

    def classify(image):
        frame = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        categories = classifier.classify(frame).classifications[0].categories
        scores = np.zeros(len(categories), "float32")
        scores[[one.index for one in categories]] = [one.score for one in categories]
        return scores

    return classify, {}


if __name__ == "__main__":
    serve(open_file)
