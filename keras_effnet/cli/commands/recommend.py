"""`keras-effnet recommend`: choose a network for a budget from the results of a study. No TensorFlow."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.command_words import training_words
from keras_effnet.cli.options import refuse_unused
from keras_effnet.cli.parameter_types import WORKERS
from keras_effnet.errors import UserError

# Option -> field of `Summary`.
_BUDGETS = {"ms": "tflite_ms", "macs": "macs", "mb": "tflite_bytes", "params": "params"}


@click.command("recommend")
@click.option("--data", "study", type=click.Path(path_type=Path), required=True, help="Folder of a study.")
@click.option("--budget-ms", "ms", type=float, help="Latency of the float32 .tflite file, one thread, this machine.")
@click.option("--budget-macs", "macs", type=float, help="Multiply-adds per image, e.g. 3e7.")
@click.option("--budget-mb", "mb", type=float, help="Size of the float32 .tflite file; int8 is about a quarter.")
@click.option("--budget-params", "params", type=float, help="Trainable parameters.")
@click.option("--train", "train", is_flag=True, help="Train it by the study's protocol: predicted against got.")
@click.option(
    "--workers", type=WORKERS, help="Concurrent trainings, with --train. [default: the study's, if timed, or 1]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(study, train, workers, as_json, **amounts) -> None:
    """Recommend the phi that fits a budget and predict its accuracy from the results of a study.

    With --train, train the network with the study's seeds and every option of its protocol, and report predicted
    against got.
    """
    if not train:
        refuse_unused(["workers"], "nothing is trained without --train.")
    from keras_effnet.study.plan import Plan, image_counts
    from keras_effnet.study.protocol import Pace
    from keras_effnet.study.recommendation import LIMITS, CostLimit, planned_epochs, recommend
    from keras_effnet.study.results import read_complete_results
    from keras_effnet.study.summary import summarize

    given = {name: amount for name, amount in amounts.items() if amount is not None}
    if len(given) != 1:
        raise UserError("Give one budget: --budget-ms, --budget-macs, --budget-mb or --budget-params.")
    ((name, amount),) = given.items()
    kind = _BUDGETS[name]
    limit = CostLimit(kind, amount * LIMITS[kind].size)
    plan, rows = Plan.read(study), read_complete_results(study)
    classes = next((row["classes"] for row in rows if "classes" in row), 1000)
    summaries = summarize(rows)
    found = recommend(summaries, plan.members, limit, classes=classes, options=plan.protocol.options)
    timed = {row["member"]: row for row in rows if row["kind"] == "pace"}
    paces = {member: Pace.of(row) for member, row in timed.items()}
    counts = image_counts(study)
    epochs = planned_epochs(found, plan.protocol, summaries, classes=classes, images=counts, paces=paces)
    # A budget of seconds is the study's only with as many trainings at a time as it had.
    workers = workers or max((row["workers"] for row in timed.values()), default=1)
    nearest = min(summaries, key=lambda each: abs(math.log(each.macs / found.macs)))
    tuned = nearest.learning_rate or plan.protocol.options["learning_rate"]
    config = plan.protocol.at_rate(tuned).config(found.member, epochs=epochs)
    words, note = training_words(plan.protocol.data, config)
    check = _trained(study, plan, found, limit, workers) if train else None
    if as_json:
        checked = {"check": check.to_dict()} if check else {}
        return console.emit_json(
            asdict(found) | {"extrapolated": found.extrapolated, "train": list(map(str, words))} | checked
        )
    counted = name in ("macs", "params")
    click.echo(
        f"phi {found.phi:g}: depth x{found.depth:.3f}, width x{found.width:.3f}, {found.image_size} pixels; "
        f"{found.macs:,} MACs, {found.params:,} parameters (counted)."
    )
    click.echo(
        f"Uses {limit.shown(found.cost)} of {limit.shown(limit.amount)}"
        + ("." if counted else ", predicted from the study.")
    )
    reach = f"{found.band[0]:.1%} to {found.band[1]:.1%} over as many seeds, with 95% confidence if the power law holds"
    if found.band == (0.0, 1.0):
        reach = "no interval, because two networks cannot show how networks scatter around a law"
    click.echo(
        f"{'Extrapolated' if found.extrapolated else 'Interpolated'}: accuracy {found.accuracy:.1%}; {reach}. Measured "
        f"range: phi {found.measured[0]:g} to {found.measured[1]:g}."
    )
    if found.limited:
        click.echo("The budget allows a larger network, but that is too far outside the range of the study.")
    for sentence in check.sentences() if check else []:
        click.echo(sentence)
    console.finish(str(_folder(study, found) if check else study), words, note)
    return None


def _folder(study: Path, found) -> Path:
    """Folder of the trainings of a recommended network; a network is known by its phi."""
    return study / "recommended" / found.member.name


def _trained(study: Path, plan, found, limit, workers: int):
    """Train a recommended network as the study would, in a folder of its own, and compare it with its prediction."""
    console.prepare_tensorflow()
    from keras_effnet.datasets.findings.data_identity import DATA
    from keras_effnet.study import run
    from keras_effnet.study.statistics.prediction_check import PredictionCheck
    from keras_effnet.study.summary import summarize
    from keras_effnet.system.documents import read_text
    from keras_effnet.system.files import make_folder, write_text

    folder = _folder(study, found)
    make_folder(folder)
    if (study / DATA).is_file():  # on the data of the study, and no other
        write_text(folder / DATA, read_text(study / DATA))
    with console.study_progress() as progress:
        # Nothing is announced: the size of the network follows from the budget, so no advice on sizes applies.
        arguments = {"seeds": plan.seeds, "workers": workers, "progress": progress}
        result = run(members=[found.member], folder=folder, **arguments, **plan.protocol.arguments)
    if result.failures:
        first, why = next(iter(result.failures.items()))
        raise UserError(
            f"{len(result.failures)} trainings failed, the first of them {first}: {why} Run it again to retry."
        )
    return PredictionCheck(found, summarize(result.rows)[0], limit)
