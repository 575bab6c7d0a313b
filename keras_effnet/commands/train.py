"""`keras-effnet train`: its options are the fields of `TrainConfig`, its help their documentation."""

from __future__ import annotations

import re
import typing
from dataclasses import asdict, fields
from pathlib import Path

import click
import yaml

from keras_effnet import console
from keras_effnet.config import TrainConfig
from keras_effnet.errors import UserError


def _field_help() -> dict[str, str]:
    """Field name -> its sentence in the Args section of `TrainConfig`'s docstring."""
    args = TrainConfig.__doc__.split("Args:")[1]
    entries = re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", args, flags=re.MULTILINE)
    # What follows the type is the help; the type itself stands in the option's usage.
    kind = re.compile(r"^(Float|Int|Bool|String)( in [\[(][^\])]*[\])])?( or None)?[,.] ")
    texts = {name: kind.sub("", " ".join(text.split())).replace("`", "") for name, text in entries}
    return {name: text[0].upper() + text[1:] for name, text in texts.items()}


def _config_options(function):
    """One option for each field of `TrainConfig`; None means "not given", so that a config file can speak."""
    types, texts = typing.get_type_hints(TrainConfig), _field_help()
    for field in reversed(fields(TrainConfig)):
        kind = next(kind for kind in (typing.get_args(types[field.name]) or (types[field.name],)) if kind is not None)
        name = field.name.replace("_", "-")
        declaration = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        text = texts[field.name] + (f" [default: {field.default}]" if field.default is not None else "")
        function = click.option(declaration, field.name, type=kind, default=None, help=text)(function)
    return function


@click.command("train")
@click.argument("data", required=False)
@click.option("--name", help="Name of the run folder; by default that of the data.")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file of options.")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder from its last checkpoint.")
@click.option("--val-split", type=float, default=0.2, show_default=True, help="Share held out if DATA has no val/.")
@click.option("--max-bad-files", type=int, default=10, show_default=True, help="Undecodable files that are tolerated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_config_options
def command(data, name, out, config_file, resume, val_split, max_bad_files, as_json, **options) -> None:
    """Train on DATA: a folder of class folders (or of train/ and val/), `digits` or `digits-cluttered`."""
    given = {key: value for key, value in options.items() if value is not None}
    if resume is not None:
        origin, config = _read_run(resume, data)
        if given.get("batch_size", config.batch_size) != config.batch_size:
            raise UserError(f"A resumed run keeps its batch size, {config.batch_size}: its steps are counted in it.")
        config = TrainConfig.from_dict(asdict(config) | given)
    else:
        if data is None:
            raise UserError("Name the data: `keras-effnet train FOLDER`, or `keras-effnet train digits`.")
        config = TrainConfig.from_dict(_read_config(config_file) | given)
        origin = {"source": data, "seed": config.seed, "val_split": val_split, "max_bad_files": max_bad_files}

    size = config.spec.image_size  # an unknown name is found before TensorFlow is started
    console.prepare_tensorflow()
    from keras_effnet import datasets
    from keras_effnet.runs import new_run
    from keras_effnet.training import train_dataset

    dataset = datasets.load(**{"image_size": size} | origin, progress=console.track("Checking pictures"))
    folder = resume or new_run("train", name or dataset.name, out)
    with console.training_progress(config.epochs) as bars:
        result = train_dataset(dataset, config, folder, resume=resume is not None, callbacks=[bars])
    evaluation = result.evaluation
    if as_json:
        summary = {"run": folder, "epochs": result.epochs, "val_accuracy": evaluation.accuracy}
        return console.emit_json(summary | {"skipped": [item.path for item in dataset.skipped]})
    accuracy = f"{evaluation.accuracy:.1%} of {evaluation.samples} validation pictures right (best epoch)"
    click.echo(f"{config.model}, {result.epochs} epochs: {accuracy}.")
    console.finish(str(folder), f"keras-effnet export {folder} --quantize none,float16,dynamic,int8")


def _read_config(path: Path | None) -> dict:
    if path is None:
        return {}
    if not path.is_file():
        raise UserError(f"Config file {path} does not exist.")
    return asdict(TrainConfig.from_yaml(path.read_text()))


def _read_run(folder: Path, data: str | None) -> tuple[dict, TrainConfig]:
    args = folder / "args.yaml"
    if not args.is_file():
        raise UserError(f"{folder} is no training run: it has no args.yaml.")
    try:
        saved = yaml.safe_load(args.read_text())
        origin, config = dict(saved["data"]), saved["config"]
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise UserError(f"{args} is damaged: it wants `data` and `config`. Start the training anew.") from None
    if data is not None:
        origin["source"] = data
    if "source" not in origin:
        raise UserError(f"{args} does not say where its data came from; name it: train DATA --resume {folder}.")
    return origin, TrainConfig.from_dict(config)
