"""Images that the networks of a study disagree on, from their stored answers. NumPy and Pillow.

TensorFlow is loaded only to read the images, and only if there are stored answers.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.imagenet import readable
from keras_effnet.study.measurement.held_out import Answers
from keras_effnet.system.documents import read_lines

ByNetwork = Mapping[str, Mapping[int, Answers]]
SHOWN = 24  # images
_SIDE = 112  # pixels of the longer side of a thumbnail
_QUALITY = 85


@dataclass(frozen=True)
class Said:
    """Answers of one network for one image.

    Args:
        member: String, the network.
        right: Bool, whether most of its trainings are right.
        text: String, each answer with the number of trainings that gave it.
        percent: Int, mean probability of the answers.
    """

    member: str
    right: bool
    text: str
    percent: int


@dataclass(frozen=True)
class Disputed:
    """An image that networks disagree on.

    Args:
        index: Int, its place in the split.
        truth: String, its class.
        said: Tuple of `Said`, one for each network.
        image: String, a `data:` URL of its thumbnail; empty where it cannot be read.
    """

    index: int
    truth: str
    said: tuple[Said, ...]
    image: str = ""


@dataclass(frozen=True)
class Disagreements:
    """Images that networks disagree on.

    Args:
        sentences: Tuple of strings: how many there are, how they are chosen, and why images are not shown.
        images: Tuple of `Disputed`.
    """

    sentences: tuple[str, ...]
    images: tuple[Disputed, ...]


def _first(answers: ByNetwork) -> Answers:
    return next(iter(next(iter(answers.values())).values()))


def shares_right(answers: ByNetwork) -> np.ndarray:
    """Share of the trainings of each network that are right on each image, an array of shape `(networks, images)`."""
    return np.array([np.mean([each.right for each in runs.values()], axis=0) for runs in answers.values()])


def most_disputed(answers: ByNetwork, count: int = SHOWN) -> list[int]:
    """Indices of the images on which some networks are right in all trainings and others in none, or nearly so.

    The variance of `shares_right` over networks orders them, which luck of a seed raises less than a difference between
    networks; among equals, those on which the answers are surest come first.

    Args:
        answers: Mapping, network to seed to `Answers`.
        count: Int, images at most.
    """
    variance = shares_right(answers).var(axis=0)
    sure = np.mean([each.percent for runs in answers.values() for each in runs.values()], axis=0)
    order = np.lexsort((np.arange(len(sure)), -sure, -variance.round(9)))
    return [int(index) for index in order[:count] if variance[index] > 0]


def wins(answers: ByNetwork) -> list[dict[str, Any]]:
    """How often one network is right where another is wrong, for each ordered pair of networks.

    Returns:
        List of records: `member`, `other`, and `share`, of the images, averaged over the seeds that both have. Pairs
        without a common seed are left out.
    """
    records = []
    for member, other in permutations(answers, 2):
        common = answers[member].keys() & answers[other].keys()
        if common:
            won = [np.greater(answers[member][seed].right, answers[other][seed].right).mean() for seed in common]
            records.append({"member": member, "other": other, "share": float(np.mean(won))})
    return records


def find_disagreements(
    answers: ByNetwork, names: Sequence[str] = (), thumbnails: Mapping[int, str] | None = None, note: str = ""
) -> Disagreements | None:
    """Find the images that networks disagree on most.

    Args:
        answers: Mapping, network to seed to `Answers`, see `held_out.read_answers`.
        names: Names of the classes; numbers stand for those that are not known.
        thumbnails: Mapping, index of each image to a `data:` URL.
        note: String, a further sentence.

    Returns:
        `Disagreements`; None for fewer than two networks.
    """
    if len(answers) < 2:
        return None
    first, right = _first(answers), shares_right(answers)
    total, chosen = len(first.truth), most_disputed(answers)
    everyone, nobody = int((right == 1).all(axis=0).sum()), int((right == 0).all(axis=0).sum())
    counted = (
        f"Of {total:,} {first.split} images, every training of {len(answers)} networks is right on {everyone:,} and "
        f"none on {nobody:,}."
    )
    shown = (
        f"Below are the {len(chosen)} of the others on which the networks differ most, each with the answers of its "
        "trainings; among equals, the surest answers come first."
    )
    drawn = thumbnails or {}
    images = tuple(
        Disputed(index, _name(names, first.truth[index]), _said(answers, names, index), drawn.get(index, ""))
        for index in chosen
    )
    return Disagreements((counted, *([shown] if chosen else []), *([note] if note else [])), images)


def _said(answers: ByNetwork, names: Sequence[str], index: int) -> tuple[Said, ...]:
    said = []
    for member, runs in answers.items():
        counts = Counter(each.predicted[index] for each in runs.values()).most_common()
        several = len(runs) > 1
        text = ", ".join(f"{_name(names, answer)}{f' ({count})' if several else ''}" for answer, count in counts)
        right = 2 * sum(each.right[index] for each in runs.values()) > len(runs)
        said.append(Said(member, right, text, round(fmean(each.percent[index] for each in runs.values()))))
    return tuple(said)


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def read_thumbnails(folder: Path, indices: Sequence[int]) -> dict[int, str]:
    """Read held-out images of a study or search as thumbnails.

    Args:
        folder: Path of the study.
        indices: Places of the images in the split.

    Returns:
        Dict, index to a `data:` URL of a JPEG.

    Raises:
        UserError: The data are gone, or are not those of the study any more.
    """
    from keras_effnet.study.plan import Plan
    from keras_effnet.study.trial import check_data, load_data
    from keras_effnet.system.output import captured_output

    plan, ordered = Plan.read(folder), np.sort(np.asarray(indices))
    largest = max(plan.members, key=lambda member: member.image_size)
    with captured_output():
        dataset = load_data(plan.protocol, largest)
        check_data(dataset, folder)
        pixels = list(dataset.held_out.select(ordered).decoded())
    return {int(index): thumbnail(each) for index, each in zip(ordered, pixels, strict=True)}


def thumbnail(pixels: np.ndarray) -> str:
    """A small JPEG of an image as a `data:` URL.

    Args:
        pixels: `uint8` array of shape `(height, width, 3)`.
    """
    from PIL import Image

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE))
    image.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def disagreements_of(folder: Path, answers: ByNetwork) -> Disagreements | None:
    """`find_disagreements` with the class names and the images of a study's folder, as far as they are still there."""
    if len(answers) < 2:
        return None
    labels = next(folder.glob("trials/*/*/labels.txt"), None)  # all trainings have the same classes
    names = readable(read_lines(labels)) if labels else ()
    try:
        return find_disagreements(answers, names, read_thumbnails(folder, most_disputed(answers)))
    except UserError as error:
        return find_disagreements(answers, names, note=f"The images are not shown: {error}")
