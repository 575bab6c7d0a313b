"""Names of the tasks that labelled data can be for. Pure Python."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

DataTask: TypeAlias = Literal["classification", "binary", "multilabel", "regression", "segmentation", "detection"]
DATA_TASKS: tuple[DataTask, ...] = get_args(DataTask)
