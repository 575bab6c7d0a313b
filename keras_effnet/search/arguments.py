"""`search.yaml`: the arguments with which a search is resumed. Pure Python."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.config.run_record import is_path
from keras_effnet.errors import UserError
from keras_effnet.study.plan import Plan
from keras_effnet.system.documents import read_yaml
from keras_effnet.system.files import write_text
from keras_effnet.system.portable_paths import located_values, portable_values
from keras_effnet.system.typed_values import build, conform

ARGUMENTS = "search.yaml"
BASELINE_ARGUMENTS = "baseline_search.yaml"


@dataclass(frozen=True, kw_only=True)
class HalvingArguments:
    """Arguments of searches that rank candidates by successive halving.

    Args:
        baseline: String, a network's name or YAML file.
        image_size: Int, input size of the baseline in pixels.
        epochs: Int, length of the longest training and of the learning rate schedule of all.
        first: Int, epochs before the first comparison.
        reduction: Int, at least 2: one candidate in so many continues after each comparison, so many times longer.
        finalists: Int, number of candidates that are trained with all seeds.
        seeds: Int, trainings of each finalist.

    Raises:
        UserError: A number is out of range.
    """

    baseline: str = "b0"
    image_size: int = 48
    epochs: int = 9
    first: int = 1
    reduction: int = 3
    finalists: int = 3
    seeds: int = 3

    def __post_init__(self):
        if not 1 <= self.first <= self.epochs or self.reduction < 2 or min(self.finalists, self.seeds) < 1:
            raise UserError("A search needs 1 <= first <= epochs, a reduction of 2 or more, one finalist and one seed.")


@dataclass(frozen=True, kw_only=True)
class GridArguments(HalvingArguments):
    """Fields of `search.yaml`: the grid of constants and its constraint, and their ranking."""

    target: float = 2.0
    step: float = 0.1
    tolerance: float = 0.05
    by: str = "macs"


@dataclass(frozen=True, kw_only=True)
class BaselineArguments(HalvingArguments):
    """Fields of `baseline_search.yaml`: the cost and the candidates of a search for a baseline, and their ranking."""

    finalists: int = 2
    cost: str = "macs"
    budget: float | None = None
    sampler: str = "tpe"
    candidates: int = 24
    generation: int = 8


_FILES: dict[type[HalvingArguments], str] = {GridArguments: ARGUMENTS, BaselineArguments: BASELINE_ARGUMENTS}


def save_arguments(folder: Path, arguments: HalvingArguments) -> None:
    """Write `search.yaml` or `baseline_search.yaml`, with the path of a baseline relative to the folder."""
    kind, name = next((kind, name) for kind, name in _FILES.items() if isinstance(arguments, kind))
    values = {each.name: getattr(arguments, each.name) for each in fields(kind)}
    (portable,), last_seen = portable_values([values], folder, is_path)
    portable |= {"last_seen": last_seen} if last_seen else {}
    write_text(folder / name, yaml.safe_dump(portable, sort_keys=False))


def searches_baseline(folder: Path) -> bool:
    """Whether a folder is that of a search for a baseline."""
    return (folder / BASELINE_ARGUMENTS).is_file()


def kept_arguments(folder: Path) -> dict[str, Any]:
    """Arguments with which `grid_search`, or `baseline_search`, resumes an earlier search.

    Raises:
        UserError: The folder is not that of a search, or is damaged.
    """
    kind: type[HalvingArguments] = BaselineArguments if searches_baseline(folder) else GridArguments
    path = folder / _FILES[kind]
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a search: it has no {ARGUMENTS}.")
    shared = {
        name: value for name, value in Plan.read(folder).protocol.arguments.items() if name not in ("budget", "rates")
    }
    values = read_yaml(path)
    try:
        values = {"last_seen": {}} | conform(values, dict[str, Any], "")
        last_seen = conform(values.pop("last_seen"), dict[str, str], "last_seen")
        own = asdict(build(kind, values, complete=True))
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}. Restore it, or start a new search.") from None
    return {**shared, **located_values(own, folder, last_seen)}
