"""`args.yaml` of a run folder: the data and the options of a training. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import yaml

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.documents import read_yaml
from keras_effnet.system.files import write_text
from keras_effnet.system.typed_values import build, conform

ARGS = "args.yaml"


class DataArguments(TypedDict, total=False):
    """Arguments of `datasets.load`, as far as they are recorded; none for data made in Python."""

    source: str
    val_split: float
    seed: int
    image_size: int
    max_bad_files: int
    skip_empty_classes: bool
    check: bool
    data_dir: str | None
    fold: list[int] | None


@dataclass(frozen=True)
class _Document:
    data: dict[str, Any]
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class RunRecord:
    """Data and options of a training.

    Args:
        data: `DataArguments`.
        config: `TrainConfig`, or None where the file holds only the data.
    """

    data: DataArguments
    config: TrainConfig | None = None

    def save(self, folder: Path) -> None:
        """Write `args.yaml`."""
        if self.config is None:
            raise ValueError("A run has options.")
        values = {"data": dict(self.data), "config": asdict(self.config)}
        write_text(folder / ARGS, yaml.safe_dump(values, sort_keys=False))

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read an `args.yaml`.

        Raises:
            UserError: The file is damaged or of another kind, or an option is unknown or invalid; names the field.
        """
        values = read_yaml(path)
        try:
            document = build(_Document, values)
            config = None if document.config is None else TrainConfig.from_dict(document.config)
            return cls(data_arguments(document.data), config)
        except UserError as error:
            raise UserError(f"{path} is damaged: {str(error).removesuffix('.')}. Correct or restore it.") from None


def data_arguments(values: Mapping[str, Any], name: str = "data") -> DataArguments:
    """Check recorded arguments of `datasets.load`.

    Raises:
        UserError: An argument is unknown or of another type.
    """
    for key in values:
        one_of("data argument", key, DataArguments.__annotations__)
    return conform(values, DataArguments, name)
