"""Answers of a trained network for each held-out image, stored beside its training. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.system.documents import json_text, read_json
from keras_effnet.system.files import write_text
from keras_effnet.system.typed_values import build

ANSWERS = "answers.json"


@dataclass(frozen=True)
class Answers:
    """Answers of one training for the held-out images of a study, in the order of the split.

    Args:
        split: String, `"test"` or `"validation"`.
        truth: Tuple of ints, the true class of each image.
        predicted: Tuple of ints, the most probable class of each image.
        percent: Tuple of ints in [0, 100], its probability.

    Raises:
        UserError: The tuples differ in length, or are empty.
    """

    split: str
    truth: tuple[int, ...]
    predicted: tuple[int, ...]
    percent: tuple[int, ...]

    def __post_init__(self):
        if not len(self.truth) == len(self.predicted) == len(self.percent) > 0:
            raise UserError("truth, predicted and percent must have one entry for each image")

    @property
    def right(self) -> list[bool]:
        """Whether each answer is right."""
        return [truth == answer for truth, answer in zip(self.truth, self.predicted, strict=True)]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.truth)

    def save(self, folder: Path) -> None:
        """Write `answers.json` to the folder of a training, about 9 bytes for each image."""
        write_text(folder / ANSWERS, json_text(asdict(self), indent=None) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Answers | None:
        """Read `answers.json` from the folder of a training; None if it has none.

        Raises:
            UserError: The file is damaged.
        """
        path = folder / ANSWERS
        if not path.is_file():
            return None
        try:
            return build(cls, read_json(path))
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}. Remove it: the report can do without.") from None


def trial_folder(study: Path, member: str, seed: int) -> Path:
    """Folder of one training of a study or search."""
    return study / "trials" / member / f"seed{seed}"


def read_answers(study: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Answers]]:
    """Answers of all trainings of a study or search for the same images.

    Args:
        study: Path of its folder.
        rows: Rows of its `results.jsonl`.

    Returns:
        Dict, name of each network to a dict of seed to `Answers`, in the order of the rows. Trainings of earlier
        versions, which stored none, are left out, and so are those that answer for other images than the first.

    Raises:
        UserError: A file is damaged.
    """
    found: dict[str, dict[int, Answers]] = {}
    first: Answers | None = None
    for row in rows:
        if row["kind"] != "training" or not (read := Answers.read(trial_folder(study, row["member"], row["seed"]))):
            continue
        first = first or read
        if (read.split, read.truth) == (first.split, first.truth):
            found.setdefault(row["member"], {})[row["seed"]] = read
    return found
