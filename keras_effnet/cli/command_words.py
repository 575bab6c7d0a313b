"""Words of the `train` command that repeats a training of a study or search. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from keras_effnet.config.recipes import STUDY
from keras_effnet.config.train_config import TrainConfig

_DATA_DEFAULTS = {"task": None, "val_split": 0.2, "test_split": 0.0, "max_bad_files": 10}
_DATA_DEFAULTS |= {"skip_empty_classes": False, "data_dir": None}


def training_words(data: Mapping[str, Any], config: TrainConfig) -> tuple[list[Any], str]:
    """Words of a `train` command with the data and every option of a training, and a note on what they cannot say.

    Args:
        data: Mapping, arguments of `datasets.load`.
        config: `TrainConfig` of the training.

    Returns:
        Tuple of the words and the note, which is empty unless an option of the recipe is switched off: an option of
        the command line that is not given cannot be told from one that is None.
    """
    words: list[Any] = ["keras-effnet", "train", data["source"], "--recipe", "study"]
    for name, default in _DATA_DEFAULTS.items():
        if data.get(name, default) != default:
            words += _option(name, data[name])
    if fold := data.get("fold"):
        words += ["--fold", "/".join(map(str, fold))]
    recipe, chosen = asdict(STUDY.config), asdict(config)
    changed = {name: value for name, value in chosen.items() if value != recipe[name]}
    if changed.keys() & {"batch_size", "accumulate"}:  # the recipe would scale its learning rate
        changed["learning_rate"] = config.learning_rate
    unsaid = [name for name, value in changed.items() if value is None]
    for name, value in changed.items():
        words += [] if value is None else _option(name, value)
    return words, f"and a --config file with {', '.join(f'{name}: null' for name in unsaid)}" if unsaid else ""


def _option(name: str, value: Any) -> list[Any]:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    return [f"--{dashed}", f"{value:.10g}" if isinstance(value, float) else value]
