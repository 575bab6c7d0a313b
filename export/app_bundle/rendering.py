"""Text files of an app bundle, from templates and a `ModelDocument`. Pure Python.

The templates hold no shape, type or number of a model: all are inserted from the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from keras_effnet.export.app_bundle.answers import shown as shown_by
from keras_effnet.export.app_bundle.document import ModelDocument, ModelFile
from keras_effnet.export.tflite_file.clients import MEDIAPIPE, REFUSES
from keras_effnet.export.tflite_file.clients.verdict_table import client_headers, client_rows
from keras_effnet.system.documents import json_text
from keras_effnet.system.html_pages import markdown_text
from keras_effnet.tasks import TASKS

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = Path(__file__).parents[1] / "web/assets"  # modules that the page and a bundle's JavaScript share
_SOURCES = "android/app/src/main/kotlin/com/example/classifier"
ASSETS = "android/app/src/main/assets"

# Path in the bundle -> template, or module of the page.
TARGETS = {
    "README.md": "README.md.j2",
    "MODEL_CARD.md": "MODEL_CARD.md.j2",
    "classify.py": "classify.py.j2",
    "classify.js": "classify.js.j2",
    "resample.js": "resample.js",
    "Classifier.swift": "Classifier.swift.j2",
    "android/README.md": "android.README.md.j2",
    "android/.gitignore": "gitignore.j2",
    "android/settings.gradle.kts": "settings.gradle.kts.j2",
    "android/build.gradle.kts": "root.gradle.kts.j2",
    "android/gradle.properties": "gradle.properties.j2",
    "android/gradle/libs.versions.toml": "libs.versions.toml.j2",
    "android/gradle/wrapper/gradle-wrapper.properties": "gradle-wrapper.properties.j2",
    "android/app/build.gradle.kts": "app.gradle.kts.j2",
    "android/app/src/main/AndroidManifest.xml": "AndroidManifest.xml.j2",
    "android/app/src/main/res/values/strings.xml": "strings.xml.j2",
    "android/app/src/main/res/layout/activity_main.xml": "activity_main.xml.j2",
    **{
        f"{_SOURCES}/{name}.kt": f"{name}.kt.j2"
        for name in ("MainActivity", "Classifiers", "Images", "ModelSpec", "Preprocessing")
    },
}
# Those of a kind of answers alone.
TARGETS_OF = {"boxes": {"boxes.js": "boxes.js", f"{_SOURCES}/Boxes.kt": "Boxes.kt.j2"}}


@dataclass(frozen=True)
class AndroidVersions:
    """Versions of the Android project, which belong together; all were found in public builds in November 2026.

    Args:
        agp, gradle: The Android Gradle plugin and the oldest Gradle that it needs (its release notes).
        kotlin: Compiler. It must read the metadata of LiteRT's classes, which Kotlin 2.3 wrote.
        compile_sdk: Int, the newest API level of the plugin.
        min_sdk: Int: `ImageDecoder`, which turns photos upright, came with 28.
    """

    agp: str = "9.2.1"
    gradle: str = "9.4.1"
    kotlin: str = "2.3.21"
    compile_sdk: int = 36
    min_sdk: int = 28
    activity: str = "1.13.0"
    camerax: str = "1.6.2"
    litert: str = "2.3.0"
    mediapipe: str = "1.0.0"


def application_suffix(name: str) -> str:
    """Last part of the application id: letters and digits of a name, beginning with a letter."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return letters if letters[:1].isalpha() else f"model{letters}"


def render_all(document: ModelDocument, shown: ModelFile) -> Iterator[tuple[str, str]]:
    """Yield the path in the bundle and the text of every file that has a template.

    Args:
        document: `ModelDocument`.
        shown: The file that the app and the examples use.
    """
    environment, rule = _environment(), shown_by(document.task, document.name)
    verdicts = {f"`{file.file}`": file.clients for file in document.files}
    values = {
        "document": document,
        "rule": rule,
        "mediapipe": rule.kind == "classes",  # the app offers its ImageClassifier
        "name": document.name,
        "image": document.image,
        "crop": document.image.resize.crop,
        "file": shown,
        "stem": Path(shown.file).stem,
        "default": shown.file,
        "assets": [
            shown.file,
            document.labels,
            *([document.boxes.anchors] if document.boxes else []),
            *([document.test_image] if document.test_image else []),
        ],
        "slug": application_suffix(document.name),
        "versions": AndroidVersions(),
        "header": _card_header(document),
        "made_with": ", ".join(f"{name} {version}" for name, version in document.created_with.items() if version)
        or "-",
        "figures": _figures(document),
        "remarks": _remarks(document),
        "limits": _limits(document),
        "runtimes": {"headers": client_headers(verdicts), "rows": client_rows(verdicts)},
    }
    for path, source in (TARGETS | TARGETS_OF.get(rule.kind, {})).items():
        if source.endswith(".j2"):
            yield path, environment.get_template(source).render(values)
        else:
            yield path, (_PAGE / source).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(  # of source code and Markdown: every inserted text has a filter of its own
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment


# ------------------------------------------------------------------ filters


def _literal(text: str | None) -> str:
    """A string literal of JSON, JavaScript, Python and Swift."""
    return json_text(text, indent=None)


def _kotlin(text: str | None) -> str:
    """A string literal of Kotlin."""
    return _literal(text).replace("$", r"\$").replace(r"\f", r"\u000c")


def _kfloat(number: float) -> str:
    return f"{number!r}f"


def _list(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value!r}' for value in values)}]"


def _android(text: str) -> str:
    """Text of a string resource; `@` and `?` at the start would be references."""
    quoted = escape(" ".join(text.split())).replace("\\", r"\\").replace("'", r"\'").replace('"', r"\"")
    return f"\\{quoted}" if quoted[:1] in ("@", "?") else quoted


def _runs_on_mediapipe(file: ModelFile) -> bool:
    """Whether MediaPipe is expected to run a file."""
    return any(verdict.client == MEDIAPIPE and verdict.expected != REFUSES for verdict in file.clients)


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _agreement(file: ModelFile) -> str:
    if (found := file.agreement) is None:
        return "-"
    low, high = found.interval
    return f"{_percent(found.fraction)} of {found.samples} [{_percent(low)}, {_percent(high)}]"


def _top1(file: ModelFile) -> str:
    return f"{_percent(file.accuracy.top1)} of {file.accuracy.samples}" if file.accuracy else "-"


def _top5(file: ModelFile) -> str:
    return _percent(file.accuracy.top5) if file.accuracy and file.accuracy.top5 is not None else "-"


_FILTERS: dict[str, Callable[..., Any]] = {
    "markdown": markdown_text,
    "megabytes": lambda size: f"{size / 1e6:.2f} MB",
    "number": repr,
    "list": _list,
    "json": _literal,
    "comment": lambda text: " ".join(text.split()),
    "code": lambda text: f"`{text}`",
    "kotlin": _kotlin,
    "kfloat": _kfloat,
    "android": _android,
    "mean": lambda file: file.normalization.mean if file.normalization else (0.0,),
    "std": lambda file: file.normalization.std if file.normalization else (1.0,),
    "ports": lambda file: " and ".join(f"{_list(port.shape)} {port.dtype}" for port in file.outputs),
    "runs_on_mediapipe": _runs_on_mediapipe,
    "agreement": _agreement,
    "latency": lambda file: "-" if file.latency_ms is None else f"{file.latency_ms:.2f} ms",
}


# ------------------------------------------------------------------ model card


def _card_header(document: ModelDocument) -> str:
    """Metadata of the card as model hubs read it."""
    tag = shown_by(document.task, document.name).tag
    header = {
        "license": document.license.lower() or "unknown",
        "library_name": "litert",
        "pipeline_tag": tag,
        "tags": [tag, "tflite", "litert", "efficientnet", "on-device"],
    }
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _figures(document: ModelDocument) -> dict[str, list[str]]:
    """Columns of the table of files that are measures of the task: header -> text for each file."""
    if document.task == "classification":
        return {"top-1": [_top1(file) for file in document.files], "top-5": [_top5(file) for file in document.files]}
    known = [file.agreement.figures if file.agreement else {} for file in document.files]
    names = dict.fromkeys(name for figures in known for name in figures)
    shown = TASKS[document.task].shown
    return {name: [shown(figures[name]) if name in figures else "-" for figures in known] for name in names}


def _remarks(document: ModelDocument) -> list[str]:
    """What the figures of the table are: on which images, and on which machine."""
    remarks = []
    measured = next((file for file in document.files if file.accuracy), None)
    if measured and measured.accuracy:
        found = measured.accuracy
        remarks.append(f"The Keras model has {_percent(found.top1_keras)} right on the same {found.samples} images.")
    kinds = {file.agreement.evidence for file in document.files if file.agreement}
    if kinds:
        remarks.append("Brackets: 95% Wilson interval.")
    if "calibration" in kinds:
        remarks.append("Some files were compared on their own calibration images, which is optimistic.")
    if "synthetic" in kinds:
        remarks.append("Some files were compared on synthetic images, which check the arithmetic only.")
    if cpu := next((file.latency_cpu for file in document.files if file.latency_cpu), None):
        remarks.append(f"Latency: median of one image on one thread of {markdown_text(cpu)}; a phone has others.")
    if not document.recommended:
        remarks.append("The export recommends none of the files; its report says why.")
    return remarks


def _limits(document: ModelDocument) -> list[str]:
    limits = [
        "Figures hold for images like those that were compared; other cameras, light or crops may give others.",
        "The network knows its classes only: a high score does not show that the image contains the class.",
    ]
    ranges = sorted({file.calibration_images for file in document.files if file.calibration_images})
    if ranges:
        counts = " and ".join(map(str, ranges))
        limits.append(
            f"The ranges of integer activations come from {counts} calibration images; values beyond them are clipped."
        )
    return limits
