"""`keras-effnet study`: train a family of networks under one protocol and compare cost with accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.cli import console
from keras_effnet.cli.drawing import can_draw
from keras_effnet.cli.options import (
    default_threads,
    read_settings,
    refuse_unused,
    reporting_split,
    tolerant,
    tolerated,
    was_given,
)
from keras_effnet.cli.parameter_types import (
    THREADS,
    WHOLE,
    WORKERS,
    Choice,
    ChoiceList,
    Name,
    Names,
    Number,
    Numbers,
    Whole,
)
from keras_effnet.config.detectors import names_detector
from keras_effnet.errors import UserError
from keras_effnet.study.networks import AXES, BASELINE, PROGRESSIVE, Member, family, progressive, scaled
from keras_effnet.study.protocol import BUDGETS, Budget, Protocol, rate_grid

_PAPER = CompoundScaling()
_SMALL = 48  # input size in pixels
_MOST_SEEDS = 20  # of a network, with --until-clear
_FIXED = ("budget", "options", "threads", "rates")  # parts of the protocol, which a resumed study keeps


@click.command("study")
@click.argument("data", required=False)
@click.option("--models", type=Names(), default=(), help="Networks to compare, by name: b0,b1,resnet18.")
@click.option("--baseline", default="b0", show_default=True, help="Network that --phi and --axis scale.")
@click.option("--phi", "phis", type=Numbers(), default=(), help="Scaling steps: -2,-1,0. 0 is the baseline.")
@click.option(
    "--axis",
    "axes",
    type=ChoiceList("axis", (*AXES, PROGRESSIVE)),
    default="compound",
    show_default=True,
    help=f"Dimensions that --phi scales: {', '.join(AXES)}; or {PROGRESSIVE}: fixed against increasing image size.",
)
@click.option("--alpha", type=float, default=_PAPER.alpha, show_default=True, help="Growth of depth, compound.")
@click.option("--beta", type=float, default=_PAPER.beta, show_default=True, help="Growth of width, compound.")
@click.option("--gamma", type=float, default=_PAPER.gamma, show_default=True, help="Growth of resolution, compound.")
@click.option(
    "--image-size", type=WHOLE, help="Input size instead of B0's 224 pixels. [default: 48, of detectors their own]"
)
@click.option("--seeds", type=Whole(1), help="Trainings per network. [default: 3]")
@click.option("--until-clear", is_flag=True, help="Add seeds to networks whose comparison is unclear.")
@click.option(
    "--max-seeds", type=Whole(1), help=f"Most seeds of a network, with --until-clear. [default: {_MOST_SEEDS}]"
)
@click.option("--max-hours", type=Number(0), help="Time after which --until-clear adds no more seeds.")
@click.option("--epochs", type=float, help=f"Budget per training in epochs. [default: {Budget().amount:g}]")
@click.option("--seconds", type=float, help="Budget per training in seconds, from the measured step time.")
@click.option("--macs", type=float, help="Budget per training in multiply-adds, e.g. 1e12.")
@click.option("--tune", type=Choice(["lr"]), help="lr: choose each network's learning rate by short trainings.")
@click.option(
    "--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Any option of `train`, for all trainings."
)
@click.option("--threads", type=THREADS, help="Threads per training. [default: the cores / workers]")
@click.option("--workers", type=WORKERS, default=1, show_default=True, help="Concurrent trainings.")
@click.option("--ray", "cluster", metavar="ADDRESS", help="Train on a Ray cluster: local, auto or host:port.")
@click.option("--target", type=Number(0, 1), help="Accuracy for the time-to-accuracy; by default 95% of the lowest.")
@reporting_split
@tolerant
@click.option("--name", type=Name(), help="Name of the study folder; by default the name of the data.")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of all runs.")
@click.option("--resume", type=click.Path(path_type=Path), help="Resume this study; networks and seeds may be added.")
@click.option("--against", type=click.Path(path_type=Path), help="Compare with this study, network by network.")
@click.option("--wandb", metavar="PROJECT", help="Log the report to Weights & Biases; offline with WANDB_MODE=offline.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data,
    resume,
    name,
    out,
    workers,
    cluster,
    target,
    against,
    wandb,
    as_json,
    test_split,
    max_bad_files,
    skip_empty_classes,
    **options,
) -> None:
    """Train networks on DATA under one protocol and compare their cost with their accuracy.

    A first look takes about ten minutes: `keras-effnet study digits-cluttered --phi -3,-2,-1 --seeds 2`.
    """
    stem_stride = read_settings(options["settings"]).get("stem_stride")
    members = _members(**{key: options.pop(key) for key in _NETWORKS}, stem_stride=stem_stride)
    given, defects = _given(options), tolerated(max_bad_files, skip_empty_classes)
    if resume is None:
        _check_new(data, members)
    elif data is not None or defects or was_given("test_split") or set(given) & set(_FIXED):
        raise UserError("A resumed study keeps its data, budget and options; leave them out.")
    elif resume.is_dir():
        console.hold(resume)
    if against is not None:  # before anything is trained
        _check_results(against)
    drawn = can_draw(wandb)
    console.prepare_tensorflow()
    from keras_effnet import study
    from keras_effnet.study.plan import PROTOCOL, Plan
    from keras_effnet.study.report import write
    from keras_effnet.study.report.tables import write_csv
    from keras_effnet.study.results import RESULTS_JSONL, kept_results
    from keras_effnet.study.statistics.answers import answer
    from keras_effnet.study.statistics.looks import looks_of
    from keras_effnet.study.summary import summarize
    from keras_effnet.system.documents import read_yaml
    from keras_effnet.system.run_folders import kept_if_used, new_run

    if resume is None:
        folder = new_run("study", name or Path(data).resolve().name, out)
        given = {"data": {"source": data, "test_split": test_split} | defects, "seeds": 3} | given
        given.setdefault("threads", default_threads(workers))
    else:
        plan = Plan.read(resume)
        folder, members = resume, members or list(plan.members)
        given = {"seeds": plan.seeds, **plan.protocol.arguments} | given
    with kept_if_used(folder), console.resumable("study", folder, PROTOCOL):
        with console.study_progress() as progress:
            where = {"workers": workers, "cluster": cluster, "target": target}
            result = study.run(
                members=members, folder=folder, progress=progress, announce=console.say, **where, **given
            )
        summaries, looks = summarize(result.rows, target), looks_of(read_yaml(folder / PROTOCOL))
        findings = answer(summaries, looks) + ([] if against is None else _compared(folder, against, target))
        drawn = drawn and bool(summaries)
        with kept_results(folder):
            write_csv(folder)
            if drawn:
                write.write_report(folder, target=target)
    if drawn and wandb:
        write.log_to_wandb(folder, wandb)
    if as_json:
        console.emit_json({"study": folder, "answer": findings, "failures": result.failures})
    else:
        _show(summaries, findings)
        files = f"{folder}/report.html" if drawn else f"{folder}/{RESULTS_JSONL}"
        console.finish(files, ("keras-effnet", *_next(summaries, folder, given["data"]["source"])))
    if result.failures:
        first, why = next(iter(result.failures.items()))
        raise UserError(
            f"{len(result.failures)} trainings failed, the first of them {first}: {why} The others are kept; "
            f"--resume {folder} retries the failed ones."
        )


_NETWORKS = ("models", "baseline", "phis", "axes", "alpha", "beta", "gamma", "image_size")


def _members(models, baseline, phis, axes, alpha, beta, gamma, image_size, stem_stride) -> list[Member]:
    """Return the requested networks without duplicates: a baseline that --models also names counts as the baseline."""
    dimensions = [axis for axis in axes if axis != PROGRESSIVE]
    if not phis and dimensions not in ([], ["compound"]):
        raise UserError(f"--axis {','.join(dimensions)} needs scaling steps, e.g. --phi -2,-1,0.")
    scaling = CompoundScaling(alpha, beta, gamma)
    image_size = image_size or (None if any(map(names_detector, [*models, baseline])) else _SMALL)
    found = scaled(baseline, phis, dimensions, image_size=image_size, scaling=scaling, stem_stride=stem_stride)
    shapes = [member.options for member in found]
    named = [member for member in family(models, image_size) if member.options not in shapes]
    return named + found + (progressive(baseline, image_size or _SMALL) if PROGRESSIVE in axes else [])


def _given(options) -> dict:
    """Return the arguments of `study.run` that the user set."""
    values: dict[str, Any] = {"budget": _budget(options), "options": read_settings(options["settings"]) or None}
    values |= {key: options[key] for key in ("threads", "seeds", "max_hours")} | {"max_seeds": _max_seeds(options)}
    if options["tune"]:
        values["rates"] = rate_grid(Protocol({}, options=values["options"] or {}).options["learning_rate"])
    return {key: value for key, value in values.items() if value is not None}


def _max_seeds(options) -> int | None:
    """Seeds up to which unclear comparisons grow; None without --until-clear."""
    if options["until_clear"]:
        return options["max_seeds"] or _MOST_SEEDS
    refuse_unused(["max_seeds", "max_hours"], "seeds are only added with --until-clear.")
    return None


def _budget(options) -> Budget | None:
    """The budget that the user set, or None."""
    given = {kind: options[kind] for kind in BUDGETS if options[kind] is not None}
    if len(given) > 1:
        raise UserError(f"Set one budget: {' or '.join(f'--{kind}' for kind in given)}.")
    return next((Budget(kind, float(amount)) for kind, amount in given.items()), None)


def _check_new(data, members) -> None:
    if data is None:
        raise UserError("Name the data: `keras-effnet study digits-cluttered --phi -3,-2,-1`.")
    if not members:
        raise UserError("Name the networks: --models b0,b1 or --phi -2,-1,0, or both.")


def _check_results(folder: Path) -> None:
    """Refuse a folder that is not that of a study, or whose results are damaged."""
    from keras_effnet.study.plan import Plan
    from keras_effnet.study.results import read_complete_results

    Plan.read(folder)
    read_complete_results(folder)


def _compared(folder: Path, against: Path, target: float | None) -> list[str]:
    """Sentences on the networks that another study has too."""
    from keras_effnet.study.plan import PROTOCOL
    from keras_effnet.study.results import read_complete_results
    from keras_effnet.study.statistics.two_studies import compare_studies
    from keras_effnet.study.summary import summarize
    from keras_effnet.system.documents import read_yaml

    before, after = (summarize(read_complete_results(each), target) for each in (against, folder))
    first, last = (read_yaml(each / PROTOCOL) for each in (against, folder))
    alike = against.resolve().name == folder.resolve().name
    names = (str(against), str(folder)) if alike else (against.resolve().name, folder.resolve().name)
    return compare_studies(names, (before, after), (first, last))


def _next(summaries, folder: Path, source: str) -> tuple[object, ...]:
    """The command that follows from a study: `recommend` needs two networks of compound scaling."""
    if not summaries:
        return ("study", "--resume", folder)
    if summaries[0].metric == "AP":
        return ("train", source, "--model", summaries[-1].model)
    if sum(each.axis in ("compound", BASELINE) for each in summaries) > 1:
        return ("recommend", "--budget-ms", 10, "--data", folder)
    return ("study", "--resume", folder, "--phi", "-2,-1,0")


def _show(summaries, sentences) -> None:
    metric = summaries[0].metric if summaries else "accuracy"
    headers = ("network", "px", "MMACs", "params", metric, "step", "training", "TFLite")
    rows = [
        (
            summary.member,
            f"{summary.image_size}",
            f"{summary.macs / 1e6:.1f}",
            f"{summary.params / 1e6:.2f} M",
            f"{summary.accuracy:.1%}" + (f" ±{100 * summary.spread:.1f}" if summary.spread is not None else ""),
            f"{summary.step_ms:.0f} ±{summary.step_iqr_ms:.0f} ms",
            f"{summary.train_seconds:.0f} s",
            f"{summary.tflite_ms:.2f} ±{summary.tflite_iqr_ms:.2f} ms",
        )
        for summary in summaries
    ]
    console.table(headers, rows)
    for sentence in sentences:
        click.echo(sentence)
