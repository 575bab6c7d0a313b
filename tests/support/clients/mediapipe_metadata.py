"""MediaPipe as a client of `.tflite` files, run by an interpreter that has it: `mediapipe_metadata.py FILE IMAGES...`.

Prints JSON: the metadata as MediaPipe's own schema module reads it, and index and name of the best class of each image.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mediapipe
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema
from mediapipe.tasks.python import BaseOptions, vision


def described(path: str) -> dict:
    """Name, normalization and label files of a file, by MediaPipe's generated readers."""
    model = schema.ModelT.InitFromPackedBuf(Path(path).read_bytes(), 0)
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[entry.buffer].data)
    assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
    found = metadata.ModelMetadataT.InitFromPackedBuf(content, 0)
    (image,) = found.subgraphMetadata[0].inputTensorMetadata
    (scores,) = found.subgraphMetadata[0].outputTensorMetadata
    (normalization,), (threshold,), (labels,) = image.processUnits, scores.processUnits, scores.associatedFiles
    return {
        "name": found.name.decode(),
        "license": found.license.decode(),
        "parser": found.minParserVersion.decode(),
        "rgb": image.content.contentProperties.colorSpace == metadata.ColorSpaceType.RGB,
        "normalization": [*map(float, normalization.options.mean), *map(float, normalization.options.std)],
        "range": [*map(float, image.stats.min), *map(float, image.stats.max)],
        "threshold": threshold.options.globalScoreThreshold,
        "labels": [labels.name.decode(), labels.type == metadata.AssociatedFileType.TENSOR_AXIS_LABELS],
    }


def answers(path: str, images: list[str]) -> list[tuple[int, str]]:
    """Index and name of the best class of each image, resized as a whole."""
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=path), max_results=1)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        best = [classifier.classify(mediapipe.Image.create_from_file(image)) for image in images]
    return [
        (one.classifications[0].categories[0].index, one.classifications[0].categories[0].category_name) for one in best
    ]


if __name__ == "__main__":
    file, *images = sys.argv[1:]
    print(json.dumps({"described": described(file), "answers": answers(file, images)}))
