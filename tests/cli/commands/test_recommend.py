"""`recommend` and `search`: the next command repeats the protocol, and budgets are told in their own unit."""

from __future__ import annotations

import json
import shlex
import sys

import pytest
from study_rows import cost, training

from keras_effnet.cli.commands import train
from keras_effnet.complexity.counting import count
from keras_effnet.datasets.findings.data_identity import DATA as DATA_IDENTITY
from keras_effnet.study.networks import Member, scaled
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Budget, Protocol, macs_per_epoch
from keras_effnet.study.results import RESULTS_JSONL
from keras_effnet.study.scaling_study import StudyResult
from keras_effnet.system import jsonl
from keras_effnet.system.files import write_text

DATA = {"source": "digits-cluttered", "val_split": 0.3, "max_bad_files": 3, "check": False}


@pytest.fixture
def studied(tmp_path):
    """Function that makes the folder of a study from its options and budget, with results that follow made-up laws."""

    def make(options=None, budget=None, **identity):
        folder = tmp_path / "my study"
        folder.mkdir()
        members = tuple(scaled("b0", [-2, -1, 0], image_size=64))
        plan = Plan(Protocol(DATA, budget or Budget("epochs", 8), options or {}, 1), members, 1)
        plan.save(folder)
        for member in members:
            macs = count(plan.protocol.config(member).spec, classes=10).macs
            times = {"step_ms": macs / 1e5, "predict_ms": macs / 4e5, "tflite_ms": macs / 1e7}
            times |= {f"{name.removesuffix('_ms')}_iqr_ms": 1.0 for name in times}
            rates = {"train_images_per_second": 1.0, "predict_images_per_second": 1.0, "activations": 1}
            counts = {"macs": macs, "params": macs // 10, "tflite_bytes": macs // 2, "classes": 10}
            shape = {"axis": member.axis, "phi": member.phi, "model": "b0", "image_size": member.image_size}
            row = {"kind": "cost", "member": member.name, **shape, **times, **rates, **counts}
            jsonl.append(folder / RESULTS_JSONL, row)
            curve = [{"epoch": 1, "seconds": 1.0, "val_accuracy": 0.5}]
            run = {"kind": "training", "member": member.name, "seed": 0, "accuracy": 1 - macs**-0.1, "epochs": 8}
            run |= {"train_seconds": 1.0, "peak_memory_mb": 1.0, "curve": curve}
            jsonl.append(folder / RESULTS_JSONL, run)
        if identity:
            write_text(folder / DATA_IDENTITY, json.dumps(identity | dict.fromkeys(("labels", "names", "sizes"), "")))
        return folder, plan

    return make


def trained_by(line: str):
    """Data and config of a printed `train` command."""
    program, command, *words = shlex.split(line)
    assert (program, command) == ("keras-effnet", "train")
    params = train.command.make_context("train", words).params
    config = {name: value for name, value in params.items() if name in train.TrainConfig.__dataclass_fields__}
    given = {name: value for name, value in config.items() if value is not None}
    return params, train._config(params["recipe"], given)


OPTIONS = {
    "stem_stride": 1,
    "batch_size": 16,
    "learning_rate": 0.00123,
    "flip": False,
    "optimizer": "sgd",
    "deterministic": True,
    "mixup": 0.2,
}


@pytest.mark.parametrize("options", [{}, OPTIONS, {"batch_size": 16}])
def test_the_recommended_command_trains_by_the_protocol_of_the_study(cli, studied, options):
    """`stem_stride` was missing: 76 million MACs were announced, the command built 22 million."""
    folder, plan = studied(options)
    shown = cli("recommend", "--budget-macs", 6e7, "--data", folder)
    found = json.loads(cli("recommend", "--budget-macs", 6e7, "--data", folder, "--json").out)
    line = shown.out.splitlines()[-1].removeprefix("Next:   ")
    params, config = trained_by(line)
    member = Member("it", "compound", 0.0, "b0", found["depth"], found["width"], base_size=found["image_size"])
    assert config == plan.protocol.config(member, epochs=8)
    assert count(config.spec, classes=10).macs == found["macs"] <= 6e7
    assert (params["data"], params["val_split"], params["max_bad_files"]) == ("digits-cluttered", 0.3, 3)
    assert shlex.split(line) == found["train"]


@pytest.mark.parametrize("kind", ["macs", "seconds"])
def test_other_budgets_become_the_epochs_they_give_this_network(cli, studied, kind):
    images = 640
    amount = {"macs": 1e12, "seconds": 50.0}[kind]
    folder, _ = studied(budget=Budget(kind, amount), classes={"a": {"train": images, "val": 64}})
    found = json.loads(cli("recommend", "--budget-macs", 2e7, "--data", folder, "--json").out)
    _, config = trained_by(" ".join(found["train"]))
    member = Member("it", "compound", 0.0, "b0", found["depth"], found["width"], base_size=found["image_size"])
    macs = macs_per_epoch(config, member, images, 10)
    seconds = (10 * found["macs"] / 1e5 + found["macs"] / 4e5) / 1e3
    assert config.epochs == int(amount / {"macs": macs, "seconds": seconds}[kind]) > 1


def test_a_measured_pace_gives_the_epochs_and_the_number_of_trainings_at_a_time(cli, studied, monkeypatch):
    """Alone, the network would get more epochs in the same time than those of the study had."""
    folder, _ = studied(budget=Budget("seconds", 50.0), classes={"a": {"train": 640, "val": 64}})
    for row in jsonl.read(folder / RESULTS_JSONL):
        if row["kind"] == "cost":
            pace = {"first_seconds": 8.0, "epoch_seconds": row["macs"] / 4e6, "workers": 3}
            jsonl.append(folder / RESULTS_JSONL, {"kind": "pace", "member": row["member"], **pace})
    found = json.loads(cli("recommend", "--budget-macs", 2e7, "--data", folder, "--json").out)
    _, config = trained_by(" ".join(found["train"]))
    assert config.epochs == int((50 - 8) / (found["macs"] / 4e6))
    asked = []
    monkeypatch.setattr("keras_effnet.study.run", lambda **arguments: asked.append(arguments["workers"]))
    for words in ((), ("--workers", 2)):
        cli("recommend", "--budget-macs", 2e7, "--data", folder, "--train", *words)
    assert asked == [3, 2]


def test_an_option_that_is_switched_off_is_noted(cli, studied):
    folder, _ = studied({"clip_norm": None})
    line = cli("recommend", "--budget-macs", 6e7, "--data", folder).out.splitlines()[-1]
    assert line.endswith("# and a --config file with clip_norm: null")


@pytest.mark.parametrize(
    ("option", "amount", "message"),
    [
        ("--budget-mb", 0.1, "The budget of 0.1 MB is too small: the smallest network"),
        ("--budget-mb", -2, "must be above 0 and finite, got -2 MB"),
        ("--budget-macs", 12_345, "The budget of 12,345 MACs is too small"),
        ("--budget-ms", 0.001, "The budget of 0.001 ms is too small"),
    ],
)
def test_a_budget_is_refused_in_the_unit_it_was_given_in(cli, studied, option, amount, message):
    folder, _ = studied()
    shown = cli("recommend", option, amount, "--data", folder)
    assert shown.status == 2 and message in shown.err
    if option == "--budget-mb" and amount > 0:
        assert "MB.\n" in shown.err and "e+0" not in shown.err


def test_the_list_of_candidates_leads_to_a_search_of_the_same_candidates(cli):
    options = ("--target", "1.5", "--step", "0.2", "--tolerance", "0.2", "--image-size", "96", "--set", "mixup=0.1")
    shown = cli("search", "--baseline", "lite0", "--dry-run", *options)
    line = shown.out.splitlines()[-1].removeprefix("Next:   ")
    expected = f"keras-effnet search DATA --baseline lite0 {shlex.join(options)}"
    assert sorted(line.split()) == sorted(expected.split())


def test_a_recommendation_is_checked_by_training_it_as_the_study_would(cli, studied, monkeypatch):
    """Predicted against got; the training itself is replaced by its rows."""
    folder, plan = studied({"stem_stride": 1}, classes={"a": {"train": 640, "val": 64}})
    asked: list[dict] = []

    def run(members, folder, progress, **arguments):
        asked.append({"members": members, "folder": folder} | arguments)
        macs = count(plan.protocol.config(members[0]).spec, classes=10).macs
        row = cost(members[0].name, macs, 1.0) | {"params": macs // 10}
        return StudyResult(folder, [row, training(members[0].name, 0, 0.9)], {})

    monkeypatch.setattr("keras_effnet.study.run", run)
    shown = cli("recommend", "--budget-macs", 6e7, "--data", folder, "--train", "--workers", 2)
    assert shown.status == 0, shown.err
    (call,) = asked
    assert {name: call[name] for name in plan.protocol.arguments} == plan.protocol.arguments
    assert (call["seeds"], call["workers"]) == (plan.seeds, 2)
    assert (call["folder"] / DATA_IDENTITY).read_text() == (folder / DATA_IDENTITY).read_text()
    assert "got 90.0% over 1 seed on validation images: outside the interval." in shown.out
    assert "(x1.00); the budget of 60,000,000 MACs is kept." in shown.out
    answered = json.loads(cli("recommend", "--budget-macs", 6e7, "--data", folder, "--train", "--json").out)
    assert answered["check"]["accuracy_got"] == 0.9 and answered["check"]["cost_got"] == answered["macs"]
    assert answered["check"]["within"] is False
    refused = cli("recommend", "--budget-macs", 6e7, "--data", folder, "--workers", 2)
    assert refused.status == 2 and "nothing is trained without --train" in refused.err


def test_recommending_loads_no_framework(cli, studied):
    import subprocess

    folder, _ = studied()
    program = "import sys; from keras_effnet.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    program += "print('tensorflow' in sys.modules or 'keras' in sys.modules)"
    words = ("recommend", "--budget-macs", "6e7", "--data", folder)
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
