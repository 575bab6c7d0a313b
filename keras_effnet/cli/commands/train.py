"""`keras-effnet train`: train a network from the options of `TrainConfig`."""

from __future__ import annotations

import re
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import config_options, refuse_unused, task_option, tolerant
from keras_effnet.cli.parameter_types import Choice, Name, Whole
from keras_effnet.config.detectors import names_detector
from keras_effnet.config.recipes import DETECTOR_RECIPES, RECIPES, recipe_config
from keras_effnet.config.run_record import ARGS, RunRecord
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.config.unused_options import unmet
from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_text
from keras_effnet.system.files import why_no_file
from keras_effnet.training.distribution import check_strategy, is_chief

AUTO = "auto"
_SOURCE = (
    "task",
    "val_split",
    "test_split",
    "fold",
    "data_dir",
    "max_bad_files",
    "skip_empty_classes",
)  # arguments of `datasets.load`
_HELP = (
    "Train on DATA: class folders, a CSV list (one label, several, numbers), images with masks, packed shards, "
    "`tfds:name`, `digits` or `digits-cluttered`."
)


class _BatchSize(click.ParamType):
    """A whole number, or `auto`."""

    name = "integer or auto"

    def convert(self, value, param, ctx):
        if value == AUTO:
            return value
        if not value.lstrip("+-").isdecimal():
            self.fail(f"{value!r} is neither a whole number nor {AUTO}.", param, ctx)
        return Whole().convert(value, param, ctx)


def _recipes_help() -> str:
    named = "; ".join(f"{name} ({recipe.summary})" for name, recipe in RECIPES.items())
    detectors = "; ".join(f"{name} ({recipe.summary})" for name, recipe in DETECTOR_RECIPES.items())
    return f"Named set of options; options given as well take precedence. {named}. Of detectors: {detectors}."


# Given as an argument: `python -OO` drops docstrings.
@click.command("train", help=_HELP)
@click.argument("data", required=False)
@click.option("--name", type=Name(), help="Name of the run folder; the name of the data by default.")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--recipe", type=Choice([*RECIPES]), help=_recipes_help())
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of options.")
@click.option("--resume", type=click.Path(path_type=Path), help="Resume this run folder from its last checkpoint.")
@task_option
@click.option("--val-split", type=float, default=0.2, show_default=True, help="Validation share if DATA has no val/.")
@click.option("--test-split", type=float, default=0.0, show_default=True, help="Test share if DATA has no test/.")
@click.option("--fold", help="K/N, cross-validation: hold out fold K of N.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of TensorFlow Datasets' files.")
@tolerant
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard into the run folder.")
@click.option("--wandb", metavar="PROJECT", help="Log to Weights & Biases; WANDB_MODE=offline without a network.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_options(TrainConfig, batch_size=_BatchSize())
def command(data, name, out, recipe, config_file, resume, tensorboard, wandb, as_json, **options) -> None:
    """Run `keras-effnet train`, whose help is `_HELP`."""
    if resume is not None:
        reason = "a resumed run keeps its data, folder and options; single options of training may be given."
        refuse_unused([*_SOURCE, "name", "out", "config_file"], reason)
    elif options["fold"] is not None:
        refuse_unused(["val_split"], "--fold decides which images are held out.")
    source = {key: options.pop(key) for key in _SOURCE}
    given = {key: value for key, value in options.items() if value is not None}
    automatic = given.get("batch_size") == AUTO
    if automatic:
        del given["batch_size"]
    if resume is not None:
        origin, config = _read_run(resume, data)
        if is_chief():
            console.hold(resume)
        if automatic or given.get("batch_size", config.batch_size) != config.batch_size:
            raise UserError(
                f"A resumed run keeps its batch size, {config.batch_size}: checkpoints count steps of that size."
            )
        if recipe is not None:
            raise UserError("A resumed run keeps its recipe; change single options instead.")
        config = TrainConfig.from_dict(asdict(config) | given)
    else:
        if data is None:
            raise UserError("Name the data: `keras-effnet train FOLDER` or `keras-effnet train digits`.")
        given = _read_config(config_file) | given
        config = _config(recipe, given)
        if names_detector(config.model) and source["task"] is None:
            source["task"] = "detection"
        origin = {"source": data, "seed": config.seed, **_origin(**source)}

    for condition in unmet(config):
        refuse_unused(condition.options, condition.reason)
    size = config.spec.image_size  # reports an unknown network before TensorFlow starts
    if config.detector is not None and config.weights is None:
        console.say("Random weights: a detector learns slowly from them; --recipe finetune begins with ImageNet's.")
    check_strategy(config.strategy, gradient_accumulation=config.accumulate)
    console.prepare_tensorflow()
    from keras_effnet import datasets
    from keras_effnet.datasets.labels.kinds import KINDS
    from keras_effnet.system.run_folders import kept_if_used, new_run
    from keras_effnet.training import tracking
    from keras_effnet.training.by_task.objectives import objective
    from keras_effnet.training.checkpoints import LAST
    from keras_effnet.training.input_pipelines import prepare_cache
    from keras_effnet.training.memory.batch_size import automatic_batch_size, predicted_memory
    from keras_effnet.training.memory.free_memory import available_bytes
    from keras_effnet.training.run import train_dataset

    with console.hushed():
        dataset = datasets.load(**{"image_size": size} | origin, progress=console.track("Checking images"))
    classes = len(dataset.class_names)
    if automatic:
        with console.status("Searching for the largest batch size that fits"):
            batch_size, reason = automatic_batch_size(config, classes, len(dataset.train), dataset.task)
        console.say(reason)
        config = _config(recipe, given | {"batch_size": batch_size})
    learning = objective(dataset.task).learning
    unused = ["decoder"] * (dataset.task != "segmentation") + ["label_smoothing"] * (not learning.smoothed)
    refuse_unused(unused, f"the task of {dataset.name} is {dataset.task}.")
    if dataset.task != "classification":
        kind = KINDS[dataset.task]
        console.say(f"Task: {dataset.task}, {classes} {kind.noun if classes == 1 else kind.plural}.")
    free, where = available_bytes()
    predicted = predicted_memory(config, config.batch_size, classes)
    decoder = " without the decoder" if dataset.task == "segmentation" else ""
    console.say(f"Memory: predicted {predicted}{decoder} of {free / 1e9:.1f} GB free {where}.")
    if predicted.total > free:
        console.say("Training will probably run out of memory; --batch-size auto finds a size that fits.")
    with console.hushed():
        prepare_cache(dataset, config, console.say, console.track)  # with a progress bar; training finds the copy
    folder = resume or (new_run("train", name or dataset.name, out) if is_chief() else Path(out))
    loggers = [tracking.tensorboard(folder)] if tensorboard and is_chief() else []
    record = tracking.WandbLogger(wandb, folder, asdict(config)) if wandb and is_chief() else None
    loggers += [record] if record else []
    with (
        kept_if_used(folder, LAST if resume is None else None),
        console.resumable("train", folder, LAST),
        console.training_progress(config.epochs, learning.watched) as bars,
        closing(record) if record else nullcontext(),
    ):
        shown = [bars] if is_chief() else []
        result = train_dataset(
            dataset, config, folder, resume=resume is not None, callbacks=[*shown, *loggers], announce=console.say
        )
    if result is None:
        return None  # the first of several processes reports
    watched, evaluation = learning.watched, result.evaluation
    if as_json:
        summary = {"run": folder, "epochs": result.epochs, watched.column: result.score}
        if dataset.task != "classification":
            summary["task"] = dataset.task
        named = {part: [item.path for item in getattr(dataset, part)] for part in ("skipped", "left_out")}
        return console.emit_json(summary | named)
    score = learning.sentence.format(score=watched.shown(result.score), samples=evaluation.samples)
    click.echo(f"{config.model}, {result.epochs} epoch{'s' * (result.epochs != 1)}: {score} (best.keras).")
    console.finish(str(folder), ("keras-effnet", "export", folder))


def _config(recipe: str | None, given: dict) -> TrainConfig:
    """Build the config; only a recipe scales its learning rate with the batch size."""
    return TrainConfig.from_dict(given) if recipe is None else recipe_config(recipe, **given)


def _origin(
    task: str | None,
    val_split: float,
    test_split: float,
    fold: str | None,
    data_dir: Path | None,
    max_bad_files: int,
    skip_empty_classes: bool,
) -> dict[str, Any]:
    """Arguments of `datasets.load` other than the source, as a run folder records them."""
    origin: dict[str, Any] = {"val_split": val_split, "max_bad_files": max_bad_files}
    if test_split:
        origin["test_split"] = test_split
    if task is not None:
        origin["task"] = task
    if skip_empty_classes:
        origin["skip_empty_classes"] = True
    if data_dir is not None:
        origin["data_dir"] = str(data_dir)
    if fold is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", fold)
        if not match:
            raise UserError(f"--fold must be K/N, such as 1/5 for the first of five folds; got {fold!r}.")
        origin["fold"] = [int(number) for number in match.groups()]
    return origin


def _read_config(path: Path | None) -> dict:
    if path is None:
        return {}
    if not path.is_file():
        raise UserError(f"Config file {path} {why_no_file(path)}.")
    try:
        return TrainConfig.read_yaml(read_text(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_run(folder: Path, data: str | None) -> tuple[dict, TrainConfig]:
    args = folder / ARGS
    if not args.is_file():
        raise UserError(f"{folder} is not a training run: it has no {ARGS}.")
    record = RunRecord.read(args)
    if record.config is None:
        raise UserError(f"{args} is damaged: config is missing. Start a new training.")
    origin = dict(record.data)
    if data is not None:
        origin["source"] = data
    if "source" not in origin:
        raise UserError(f"{args} does not record the data; name it: keras-effnet train DATA --resume {folder}.")
    return origin, record.config
