"""Recipes at equal CPU time: accuracy from scratch on a small set of real images, as table and plot.

python tests/benchmarks/recipes.py FOLDER [--minutes 8] [--out runs/recipes]

A B0 of 0.3 of its depth and half its width is trained at 64 pixels by each recipe, in a process of its own. What a step
and a validation cost is measured first; the number of epochs is what then fits into the CPU time given. Finished
recipes are not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import keras

from keras_effnet import datasets
from keras_effnet.config.recipes import recipe_config
from keras_effnet.system.files import write_text
from keras_effnet.system.machine import cpu_name
from keras_effnet.training.checkpoints import best_accuracy, read_rows
from keras_effnet.training.run import train_dataset

# Small, so that minutes are many epochs: a sixth of the multiply-adds of B0.
COMMON = {"model": "b0", "depth": 0.3, "width": 0.5, "image_size": 64, "batch_size": 64}
WAYS = {
    "short": ("short", {}),
    "short, progressive 32, 48, 64": ("short", {"progressive": "32,48,64"}),
    "modern": ("modern", {}),
    "paper": ("paper", {}),
}
PROBED = 20  # steps by which the cost of a way is estimated


class Cost(keras.callbacks.Callback):
    """CPU seconds: of each step, of each validation, and in all at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.validations, self.epochs = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        if batch > 2:  # the first ones compile
            self.steps.append(time.process_time() - self.began)

    def on_test_begin(self, logs=None):
        self.tested = time.process_time()

    def on_test_end(self, logs=None):
        self.validations.append(time.process_time() - self.tested)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(time.process_time())


def affordable_epochs(dataset, config, seconds: float, folder: Path) -> int:
    """How many epochs of a config fit into so much CPU time, by a few steps of each of its stages."""
    few = replace(dataset, train=dataset.train.sample(PROBED * config.batch_size))
    cost, stages = Cost(), len(config.stages)
    began = time.process_time()
    train_dataset(few, replace(config, epochs=2 * stages), folder, callbacks=[cost])
    spent = time.process_time() - began
    step = sum(median(part) for part in _chunks(cost.steps, stages)) / stages
    evaluations = min(cost.validations) * (2 if config.ema else 1)
    overhead = spent - sum(cost.steps) - sum(cost.validations)  # building, compiling, saving
    epoch = step * (len(dataset.train) // config.batch_size) + evaluations
    return max(stages, int((seconds - overhead) / epoch))


def _chunks(values: list[float], count: int) -> list[list[float]]:
    size = len(values) // count
    return [values[number * size : (number + 1) * size] for number in range(count)]


def train_one(name: str, folder: str, minutes: float, out: Path) -> None:
    recipe, changes = WAYS[name]
    dataset = datasets.load(folder)
    run = out / name.replace(", ", "-").replace(" ", "-")
    config = recipe_config(recipe, **COMMON, **changes)
    epochs = affordable_epochs(dataset, config, 60 * minutes, run / "probe")
    warmup = min(config.warmup_epochs, epochs / 10)
    began, cost = time.process_time(), Cost()
    result = train_dataset(dataset, replace(config, epochs=epochs, warmup_epochs=warmup), run, callbacks=[cost])
    rows = read_rows(run)
    record = {
        "epochs": epochs,
        "cpu_minutes": (time.process_time() - began) / 60,
        "best": max(map(best_accuracy, rows)),
        "kept": result.evaluation.accuracy,
        "weights": max(row["val_accuracy"] for row in rows),
        "average": max((row["val_ema_accuracy"] for row in rows if "val_ema_accuracy" in row), default=None),
        "curve": [((at - began) / 60, best_accuracy(row)) for at, row in zip(cost.epochs, rows, strict=True)],
    }
    write_text(out / f"{run.name}.json", json.dumps(record, indent=2))


def draw(records: dict[str, dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, record in records.items():
        minutes, accuracies = zip(*record["curve"], strict=True)
        axis.plot(
            minutes, [100 * value for value in accuracies], marker=".", label=f"{name} ({record['epochs']} epochs)"
        )
    axis.set(xlabel="CPU minutes", ylabel="validation accuracy (%), weights or their average")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--one", choices=WAYS, help="Train this one alone, in this process.")
    args = parser.parse_args()
    if args.one:
        return train_one(args.one, args.folder, args.minutes, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    records = {}
    print(f"{cpu_name()}; B0 x 0.3 deep, 0.5 wide, 64 pixels, {args.minutes:g} CPU minutes each")
    print(f"{'recipe':32}{'epochs':>8}{'CPU min':>9}{'weights':>9}{'average':>9}{'kept':>8}")
    for name in WAYS:
        path = args.out / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if not path.is_file():
            options = ["--minutes", str(args.minutes), "--out", str(args.out), "--one", name]
            subprocess.run([sys.executable, __file__, args.folder, *options], check=True)
        records[name] = record = json.loads(path.read_text())
        average = f"{record['average']:.1%}" if record["average"] else "-"
        print(
            f"{name:32}{record['epochs']:8}{record['cpu_minutes']:9.1f}{record['weights']:9.1%}{average:>9}"
            f"{record['kept']:8.1%}",
            flush=True,
        )
    draw(records, args.out / "recipes.png")


if __name__ == "__main__":
    from recording import recorded

    with recorded():
        main()
