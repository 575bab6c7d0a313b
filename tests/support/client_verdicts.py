"""Expected verdict of each client on the files of an EfficientNet, by precision and input type.

Those of clients that were tried are compared with what happens, in `tests/export/test_real_clients.py`.
"""

from __future__ import annotations

from keras_effnet.export.tflite_file import clients
from keras_effnet.export.tflite_file.clients import ACCEPTS, IN_PART, REFUSES

FILES = (
    ("none", "float32"),
    ("float16", "float32"),
    ("dynamic", "float32"),
    ("weight_only", "float32"),
    ("int8", "float32"),
    ("int8", "uint8"),
    ("int16x8", "float32"),
    ("mixed", "float32"),
    ("mixed", "uint8"),
)
_WORDS = {"yes": ACCEPTS, "part": IN_PART, "no": REFUSES}
#                        none  float16 dynamic weights int8  uint8 int16x8 mixed uint8
_TABLE = {
    clients.CPU:          "yes   yes     yes     yes     yes   yes   part    yes   yes",
    clients.GPU:          "yes   yes     yes     no      yes   yes   no      no    no",
    clients.MEDIAPIPE:    "yes   yes     yes     yes     yes   yes   yes     yes   yes",
    clients.MICRO:        "yes   no      no      no      yes   yes   yes     no    no",
    clients.WASM:         "yes   yes     yes     yes     yes   yes   yes     yes   yes",
    clients.WEBGPU:       "yes   yes     yes     part    yes   yes   no      part  part",
    clients.TFJS:         "yes   yes     no      no      yes   yes   yes     no    no",
    clients.GPU_DELEGATE: "yes   yes     part    part    yes   yes   no      part  part",
    clients.CORE_ML:      "yes   yes     no      no      no    no    no      no    no",
    clients.NNAPI:        "yes   yes     part    part    yes   yes   no      part  part",
    clients.EDGE_TPU:     "no    no      no      no      part  part  no      part  part",
}  # fmt: skip
VERDICTS = {
    client: dict(zip(FILES, (_WORDS[word] for word in row.split()), strict=True)) for client, row in _TABLE.items()
}
