"""`args.yaml` of a run folder: the data and the options of a training. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import yaml

from keras_effnet.architecture.yaml_files import SUFFIXES
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError, one_of
from keras_effnet.system.documents import read_yaml
from keras_effnet.system.files import write_text
from keras_effnet.system.portable_paths import located_values, portable_values
from keras_effnet.system.typed_values import build, conform

ARGS = "args.yaml"
TEST_SPLIT = 0.1  # share of the training images that reports in a study, if the data have no test images


class DataArguments(TypedDict, total=False):
    """Arguments of `datasets.load`, as far as they are recorded; none for data made in Python."""

    source: str
    task: str
    val_split: float
    test_split: float
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
    last_seen: dict[str, str] = field(default_factory=dict)


def is_path(name: str, value: Any) -> bool:
    """Whether an argument of `datasets.load` or an option of training is the path of a file or folder."""
    if not isinstance(value, str):
        return False
    if name in ("source", "data_dir"):  # `datasets.load` records paths as absolute ones
        return Path(value).is_absolute()
    if name in ("model", "baseline", "backbone"):
        return value.endswith(SUFFIXES)
    return name == "weights" and value != "imagenet" and Path(value).is_file()


@dataclass(frozen=True)
class RunRecord:
    """Data and options of a training.

    Args:
        data: `DataArguments`.
        config: `TrainConfig`, or None where the file holds only the data.
    """

    data: DataArguments
    config: TrainConfig | None = None

    def save(self, folder: Path, *, staged: Path | None = None) -> None:
        """Write `args.yaml`, with paths relative to the run folder.

        Args:
            folder: Path of the run folder.
            staged: Path of the folder to write to, if the file is moved to the run folder later.
        """
        if self.config is None:
            raise ValueError("A run has options.")
        (data, config), last_seen = portable_values((self.data, asdict(self.config)), folder, is_path)
        values = {"data": data, "config": config} | ({"last_seen": last_seen} if last_seen else {})
        write_text((staged or folder) / ARGS, yaml.safe_dump(values, sort_keys=False))

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read an `args.yaml`; its relative paths start from its folder.

        Raises:
            UserError: The file is damaged or of another kind, or an option is unknown or invalid; names the field.
        """
        values = read_yaml(path)
        try:
            document = build(_Document, values)
            data, config = (
                located_values(each, path.parent, document.last_seen) for each in (document.data, document.config or {})
            )
            return cls(data_arguments(data), None if document.config is None else TrainConfig.from_dict(config))
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
