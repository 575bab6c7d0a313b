"""`model.json` of one file, made up field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_effnet.export.app_bundle.document import Crop, ImageRule, ModelDocument, ModelFile, Port, Resize
from keras_effnet.export.web.page import ASSETS

_RUNTIME = 'import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";\n'


def app_document(
    shapes: Sequence[tuple[int, ...]], size: int = 2, resize: Resize | None = None, **fields: Any
) -> ModelDocument:
    """A document.

    Args:
        shapes: Shapes of the outputs, with the images' axis.
        size: Side of the input.
        resize: `Resize`, by default of the whole square.
        **fields: Of `ModelDocument`.
    """
    file = ModelFile(
        file="net.tflite",
        precision="float32",
        bytes=1,
        sha256="",
        inputs=(Port("image", (1, size, size, 3), "float32", None, None),),
        outputs=tuple(Port("output", shape, "float32", None, None) for shape in shapes),
        signature=None,
        normalization=None,
        agreement=None,
        accuracy=None,
        latency_ms=None,
        latency_cpu=None,
        min_runtime_version=None,
        calibration_images=None,
        clients=(),
    )
    rule = ImageRule(size, size, "RGB", (0.0, 255.0), resize or Resize(Crop(1.0), "bilinear"))
    return ModelDocument("net", "", "", "", {}, shapes[-1][-1], rule, (file,), **fields)


def write_modules(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the JavaScript of a bundle, and that of the page, for node, which has no LiteRT.js."""
    assert _RUNTIME in texts["classify.js"]
    modules = {path.name: path.read_text() for path in ASSETS.glob("*.js")}
    modules |= {path: text for path, text in texts.items() if path.endswith(".js")}
    for name, text in modules.items():
        (folder / name).write_text(text.replace(_RUNTIME, ""))
    (folder / "package.json").write_text('{"type": "module"}')
