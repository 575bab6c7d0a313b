"""Names of the tasks that labelled data can be for, and when a task is in doubt. Pure Python."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

DataTask: TypeAlias = Literal["classification", "binary", "multilabel", "regression", "segmentation", "detection"]
DATA_TASKS: tuple[DataTask, ...] = get_args(DataTask)

_FEW = 0.02


def may_be_mistakes(count: int, total: int) -> bool:
    """Whether the values that decide a task are so few among all that they may be mistakes: 2%, or a single one."""
    return 0 < count < total and count <= max(1, _FEW * total)
