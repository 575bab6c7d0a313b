"""`search.yaml`: the arguments with which a search is resumed. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from keras_effnet.config.run_record import is_path
from keras_effnet.errors import UserError
from keras_effnet.study.plan import Plan
from keras_effnet.system.documents import read_yaml
from keras_effnet.system.files import write_text
from keras_effnet.system.portable_paths import located_values, portable_values
from keras_effnet.system.typed_values import build

ARGUMENTS = "search.yaml"
BASELINE_ARGUMENTS = "baseline_search.yaml"


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """Arguments of both searches."""

    baseline: str
    image_size: int
    epochs: int
    first: int
    reduction: int
    finalists: int
    seeds: int
    last_seen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Arguments(_Shared):
    """Fields of `search.yaml`, arguments of `grid_search`."""

    target: float
    step: float
    tolerance: float
    by: str


@dataclass(frozen=True, kw_only=True)
class _BaselineArguments(_Shared):
    """Fields of `baseline_search.yaml`, arguments of `baseline_search`."""

    cost: str
    budget: float | None
    sampler: str
    candidates: int
    generation: int


def save_arguments(folder: Path, values: Mapping[str, Any]) -> None:
    """Write `search.yaml`, with the path of a baseline relative to the folder."""
    _save(folder / ARGUMENTS, values)


def save_baseline_arguments(folder: Path, values: Mapping[str, Any]) -> None:
    """Write `baseline_search.yaml`, with the path of a baseline relative to the folder."""
    _save(folder / BASELINE_ARGUMENTS, values)


def _save(path: Path, values: Mapping[str, Any]) -> None:
    (arguments,), last_seen = portable_values([values], path.parent, is_path)
    arguments |= {"last_seen": last_seen} if last_seen else {}
    write_text(path, yaml.safe_dump(arguments, sort_keys=False))


def searches_baseline(folder: Path) -> bool:
    """Whether a folder is that of a search for a baseline."""
    return (folder / BASELINE_ARGUMENTS).is_file()


def kept_arguments(folder: Path) -> dict[str, Any]:
    """Arguments with which `grid_search`, or `baseline_search`, resumes an earlier search.

    Raises:
        UserError: The folder is not that of a search, or is damaged.
    """
    kind: type[Any]
    kind, name = (_BaselineArguments, BASELINE_ARGUMENTS) if searches_baseline(folder) else (_Arguments, ARGUMENTS)
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a search: it has no {ARGUMENTS}.")
    shared = {
        name: value for name, value in Plan.read(folder).protocol.arguments.items() if name not in ("budget", "rates")
    }
    values = read_yaml(path)
    try:
        own = asdict(build(kind, values))
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}. Restore it, or start a new search.") from None
    last_seen = own.pop("last_seen")
    return {**shared, **located_values(own, folder, last_seen)}
