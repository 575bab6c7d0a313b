"""Whether the packages that draw reports are installed. No TensorFlow."""

from __future__ import annotations

from importlib.util import find_spec

from keras_effnet.cli import console
from keras_effnet.errors import UserError


def can_draw(wandb: str | None = None) -> bool:
    """Whether the report of a study or search can be drawn; checked at the start, because training takes long.

    Args:
        wandb: String or None, project of Weights & Biases to which the report is logged.

    Raises:
        UserError: The report is to be logged, and a package is missing.
    """
    from keras_effnet.study.report.charts import require_packages

    if wandb and find_spec("wandb") is None:
        raise UserError("Weights & Biases is not installed: pip install 'keras-effnet[wandb]'.")
    try:
        require_packages()
    except UserError as missing:
        if wandb:
            raise
        console.say(f"{missing} Results are saved and a table is printed instead of a report.")
        return False
    return True
