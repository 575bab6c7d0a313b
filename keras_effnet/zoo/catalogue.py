"""Catalogue of the networks in `files/`: their cards, and loading with a hash check. TensorFlow only to load one.

`cards.yaml` describes the networks; each has a folder in `files/` with the model file and what belongs beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from keras_effnet.errors import UserError, unknown
from keras_effnet.system.documents import parse_yaml, read_text

if TYPE_CHECKING:
    from keras_effnet.inference.artifacts import Artifact

FOLDER = Path(__file__).resolve().parent
FILES, CARDS = FOLDER / "files", FOLDER / "cards.yaml"


@dataclass(frozen=True)
class ModelCard:
    """What a network of the zoo is, how it was made, and what it is not for.

    Args:
        name: String, name for `load`.
        file: String, name of the model file in the network's folder.
        sha256: String, hex digest of that file.
        task: String, one of `tasks.TASKS`.
        network: String, architecture and input.
        data: String, data that it was trained and measured on.
        commands: Tuple of strings, the commands that made the file.
        metrics: Mapping from a metric and the data it was measured on to its value, as text.
        limits: String, what it must not be used for.
        licence: String, terms of weights and data.
    """

    name: str
    file: str
    sha256: str
    task: str
    network: str
    data: str
    commands: tuple[str, ...]
    metrics: Mapping[str, str]
    limits: str
    licence: str

    def to_markdown(self) -> str:
        """The card as a section of Markdown."""
        rows = [("task", self.task), ("network", self.network), ("data", self.data), *self.metrics.items()]
        rows += [("not for", self.limits), ("licence", self.licence), ("sha256", f"`{self.sha256}`")]
        table = "\n".join(f"| {key} | {value} |" for key, value in rows)
        made = "\n".join(self.commands)
        return f"## {self.name}\n\n| file | `{self.file}` |\n|---|---|\n{table}\n\n```bash\n{made}\n```\n"


@cache
def _cards() -> Mapping[str, ModelCard]:
    described = parse_yaml(read_text(CARDS))
    return {
        name: ModelCard(name=name, **{**values, "commands": tuple(values["commands"])})
        for name, values in described.items()
    }


def names() -> list[str]:
    """List the networks of the zoo.

    Returns:
        A list of names for `card` and `load`.

    Example:

    >>> keras_effnet.zoo.names()
    """
    return list(_cards())


def card(name: str) -> ModelCard:
    """Return the model card of a network.

    Args:
        name: String, one of `names()`.

    Raises:
        UserError: There is no such network.

    Example:

    >>> print(keras_effnet.zoo.card("digits-lite0-int8").to_markdown())
    """
    if name not in _cards():
        raise UserError(unknown("network of the zoo", name, _cards()))
    return _cards()[name]


def model_path(name: str) -> Path:
    """Return the path of a network's file, after a check of its sha256.

    Args:
        name: String, one of `names()`.

    Returns:
        Path of a `.keras` or `.tflite` file, with `image_spec.json` beside it.

    Raises:
        UserError: There is no such network, or its file is missing or damaged.
    """
    described = card(name)
    path = FILES / name / described.file
    if not path.is_file():
        raise UserError(f"{path} is missing: install keras-effnet again.")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != described.sha256:
        raise UserError(f"{path} has sha256 {found}, its card says {described.sha256}: install keras-effnet again.")
    return path


def load(name: str) -> Artifact:
    """Load a network of the zoo.

    Args:
        name: String, one of `names()`.

    Returns:
        An `inference.Artifact`: `predict` takes images `(N, size, size, 3)` with values in 0..255; `class_names`,
        `image_spec` and, of a `.keras` file, `model`.

    Raises:
        UserError: As `model_path`.

    Example:

    >>> digits = keras_effnet.zoo.load("digits-lite0-int8")
    >>> digits.class_names[digits.predict(images).argmax(axis=-1)[0]]
    """
    from keras_effnet.inference import artifacts

    return artifacts.load(model_path(name))
