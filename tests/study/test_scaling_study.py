"""Studies: nothing trained twice, nothing lost to a kill, failures reported, a fixed protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from engines import in_this_process
from small_network import TINY

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.yaml_files import write_spec
from keras_effnet.complexity.counting import count
from keras_effnet.config.recipes import STUDY
from keras_effnet.errors import UserError
from keras_effnet.study import costs, executors, scaling_study
from keras_effnet.study import trial as trial_module
from keras_effnet.study.adaptive import pace
from keras_effnet.study.measurement.held_out import read_answers
from keras_effnet.study.networks import Member, family
from keras_effnet.study.plan import PROTOCOL, Plan, begin, prepare
from keras_effnet.study.protocol import Budget, Protocol
from keras_effnet.study.results import RESULTS_JSONL
from keras_effnet.study.scheduler import run_trials
from keras_effnet.study.trial import LOG, TrainingRun, _finite, train_trial
from keras_effnet.system import jsonl
from keras_effnet.system.files import WriteError
from keras_effnet.training.checkpoints import LAST


@pytest.fixture(scope="session")
def tiny() -> str:
    """The file of a network whose training takes a second."""
    return TINY


def two_members(tiny: str) -> list[Member]:
    small = Member("small", "compound", 0.0, tiny, base_size=32)
    return [small, replace(small, name="large", phi=1.0, width=2.0)]


# --- a whole study

OPTIONS = {"optimizer": "sgd"}  # tracing its update takes a third of the time of AdamW's


@pytest.fixture(scope="module")
def studied(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studied")
    told: list[tuple[str, float, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling_study, "engine", in_this_process)
        for module in (trial_module, costs):
            patch.setattr(module, "limit_threads", lambda threads: None)  # TensorFlow has already begun
        result = scaling_study.run(
            "digits",
            two_members(tiny),
            folder,
            budget=Budget("epochs", 2),
            options=OPTIONS,
            seeds=2,
            threads=1,
            progress=lambda *told_now: told.append(told_now),
        )
    return result, told


@pytest.mark.slow
def test_a_study_in_processes_of_its_own_has_the_same_results(studied, tiny, tmp_path):
    result, _ = studied
    small = two_members(tiny)[:1]
    arguments = {"budget": Budget("epochs", 2), "options": OPTIONS, "seeds": 2, "threads": 1}
    other = scaling_study.run("digits", small, tmp_path, workers=2, **arguments)
    assert other.failures == {}
    expected, got = (
        {(row["member"], row["seed"]): row for row in rows_of(each, "training")} for each in (result, other)
    )
    assert set(got) == {key for key in expected if key[0] == "small"} and len(got) == 2
    for key, row in got.items():
        assert row["curve"][0]["loss"] == pytest.approx(expected[key]["curve"][0]["loss"], rel=1e-3)


@pytest.mark.slow
def test_a_budget_of_seconds_is_filled_by_the_pace_of_real_trainings(tiny, tmp_path, monkeypatch):
    for module in (trial_module, costs, pace):
        monkeypatch.setattr(module, "limit_threads", lambda threads: None)
    monkeypatch.setattr(scaling_study, "engine", in_this_process)
    arguments = {"budget": Budget("seconds", 8), "options": OPTIONS, "seeds": 1, "threads": 1}
    result = scaling_study.run("digits", two_members(tiny)[:1], tmp_path, **arguments)
    (timed,), (row,) = rows_of(result, "pace"), rows_of(result, "training")
    assert timed["first_seconds"] > 0 and timed["epoch_seconds"] > 0 and timed["workers"] == 1
    assert row["epochs"] == max(1, int((8 - timed["first_seconds"]) / timed["epoch_seconds"]))
    assert row["predicted_seconds"] == pytest.approx(
        timed["first_seconds"] + row["epochs"] * timed["epoch_seconds"], abs=0.02
    )
    assert 1 / 4 < row["train_seconds"] / row["predicted_seconds"] < 4  # however busy the machine is


def rows_of(result, kind):
    return [row for row in result.rows if row["kind"] == kind]


def test_every_network_is_trained_with_every_seed_once(studied):
    result, _ = studied
    trained = Counter((row["member"], row["seed"]) for row in rows_of(result, "training"))
    assert trained == {(member, seed): 1 for member in ("small", "large") for seed in (0, 1)}
    assert [row["member"] for row in rows_of(result, "cost")] == ["small", "large"]
    assert len(rows_of(result, "roofline")) == 1  # both are of one build
    assert result.failures == {}


def test_rows_are_those_of_the_file(studied):
    result, _ = studied
    assert [json.loads(line) for line in (result.folder / RESULTS_JSONL).read_text().splitlines()] == result.rows


def test_a_row_is_the_end_of_its_curve(studied):
    result, _ = studied
    for row in rows_of(result, "training"):
        assert [epoch["epoch"] for epoch in row["curve"]] == [1, 2] and row["epochs"] == 2
        assert row["accuracy"] == pytest.approx(row["curve"][-1]["val_accuracy"], abs=1e-5)
        assert row["train_seconds"] == pytest.approx(sum(epoch["seconds"] for epoch in row["curve"]), abs=0.02)
        assert row["peak_memory_mb"] > 100  # TensorFlow alone takes more
        assert row["test_images"] == 269 and row["test_accuracy"] * 269 == pytest.approx(
            round(row["test_accuracy"] * 269), abs=0.01
        )


def test_each_training_keeps_its_answers_for_the_held_out_images(studied, digits):
    result, _ = studied
    answers = read_answers(result.folder, result.rows)
    for row in rows_of(result, "training"):
        found = answers[row["member"]][row["seed"]]
        assert found.accuracy == pytest.approx(row["test_accuracy"], abs=1e-5) and found.split == "test"
        assert list(found.truth) == digits.test.labels.tolist() and 0 < min(found.percent) <= max(found.percent) <= 100


def test_costs_are_those_of_the_network(studied, tiny):
    result, _ = studied
    for row, member in zip(rows_of(result, "cost"), two_members(tiny), strict=True):
        counted = count(Protocol({}).config(member).spec, classes=10)
        assert (row["macs"], row["params"], row["activations"]) == (counted.macs, counted.params, counted.activations)
        assert row["tflite_bytes"] > 4 * counted.params
        assert row["train_images_per_second"] == pytest.approx(1e3 * row["batch_size"] / row["step_ms"], rel=1e-3)
        assert row["cpu"] and row["step_iqr_ms"] >= 0 and row["image_size"] == 32


def test_seeds_differ_and_optimizers_are_not_kept(studied):
    result, _ = studied
    assert len({row["curve"][0]["loss"] for row in rows_of(result, "training")}) == 4
    assert not list(result.folder.glob(f"trials/*/*/{LAST}"))
    assert len(list(result.folder.glob("trials/*/*/results.csv"))) == 4


def test_progress_comes_to_its_end(studied):
    _, told = studied
    _, done, total = told[-1]
    assert done == total == 8


def test_a_finished_study_trains_nothing_when_it_is_run_again(studied, tiny, monkeypatch):
    result, _ = studied

    @contextmanager
    def no_engine(*_):
        def submit(*args):
            raise AssertionError(f"{args} was not to run")

        yield submit

    monkeypatch.setattr(scaling_study, "engine", no_engine)
    arguments = {"budget": Budget("epochs", 2), "options": OPTIONS, "seeds": 1, "threads": 1}
    again = scaling_study.run("digits", two_members(tiny), result.folder, **arguments)
    assert again.rows == result.rows
    assert Plan.read(result.folder).seeds == 2  # seeds are added, never taken away


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": Budget("epochs", 3)}, "started with budget"),
        ({"options": {"learning_rate": 1.0}}, "started with options"),
        ({"data": "digits-cluttered"}, "started with data"),
    ],
)
def test_another_protocol_is_refused(studied, tiny, changes, message):
    result, _ = studied
    arguments = {"data": "digits", "budget": Budget("epochs", 2), "options": OPTIONS, "threads": 1} | changes
    with pytest.raises(UserError, match=f"{message}.*another --name"):
        scaling_study.run(members=two_members(tiny), folder=result.folder, **arguments)


def test_another_network_of_the_same_name_is_refused(studied, tiny):
    result, _ = studied
    other = [replace(two_members(tiny)[0], depth=2.0)]
    with pytest.raises(UserError, match="small names a different network"):
        scaling_study.run("digits", other, result.folder, budget=Budget("epochs", 2), options=OPTIONS, threads=1)


# --- the order of trials, by an engine that trains nothing


def trial(member="small", seed=0, epochs=4, folder="", until=None) -> TrainingRun:
    return TrainingRun(Protocol({}), Member(member, "family", 0.0, "b0"), seed, epochs, str(folder), until)


def engine_of(train):
    """An engine that computes at once, in this process."""
    calls = []

    def submit(function, item):
        calls.append((item.member.name, item.seed, item.target))
        future = Future()
        try:
            future.set_result(train(item))
        except Exception as error:
            future.set_exception(error)
        return future

    return submit, calls


def row_of(item: TrainingRun, accuracy=0.5) -> dict:
    return {
        "kind": "training",
        "member": item.member.name,
        "seed": item.seed,
        "epochs": item.target,
        "accuracy": accuracy,
    }


def nothing(*_):
    pass


def test_what_the_ledger_has_is_not_run(tmp_path):
    jsonl.append(tmp_path / RESULTS_JSONL, row_of(trial("b")))
    submit, calls = engine_of(row_of)
    assert run_trials(tmp_path, [trial("a"), trial("b"), trial("b", seed=1)], submit, nothing) == {}
    assert calls == [("a", 0, 4), ("b", 1, 4)]
    assert len(jsonl.read(tmp_path / RESULTS_JSONL)) == 3


def test_a_failure_is_told_and_the_others_go_on(tmp_path):
    def train(item):
        if item.seed == 1:
            raise UserError("The loss became NaN.")
        return row_of(item)

    submit, calls = engine_of(train)
    failures = run_trials(tmp_path, [trial(seed=seed) for seed in range(3)], submit, nothing)
    assert failures == {"small seed 1": "The loss became NaN."}
    assert len(calls) == 3
    assert [row["kind"] for row in jsonl.read(tmp_path / RESULTS_JSONL)] == ["training", "failure", "training"]
    # Another run tries what failed, and that alone.
    submit, calls = engine_of(row_of)
    assert run_trials(tmp_path, [trial(seed=seed) for seed in range(3)], submit, nothing) == {}
    assert calls == [("small", 1, 4)]


def test_a_full_disk_ends_the_study_with_the_option_that_resumes_it(tmp_path, digits):
    """The other trainings write to the same disk, and the command of a trial's own run folder would not resume it."""

    def train(item):
        raise WriteError("epoch 1 to x", "No space left on device", "Resume: keras-effnet train ...")

    submit, _ = engine_of(train)
    plan = Plan(Protocol({"source": "digits"}), (Member("small", "family", 0.0, "b0"),), 2)
    with pytest.raises(UserError) as caught, begin(tmp_path, plan, digits):
        run_trials(tmp_path, [trial(), trial(seed=1)], submit, nothing)
    assert str(caught.value) == (
        "Cannot write epoch 1 to x: No space left on device. Finished results are kept: free some space, or make the "
        f"folder writable, then --resume {tmp_path}."
    )
    assert jsonl.read(tmp_path / RESULTS_JSONL) == []


def test_a_trial_may_be_followed_by_more_of_it(tmp_path):
    submit, calls = engine_of(row_of)

    def follow(item, row):
        return replace(item, until=item.target * 2) if item.target < 4 else None

    run_trials(tmp_path, [trial(until=1)], submit, nothing, follow)
    assert calls == [("small", 0, 1), ("small", 0, 2), ("small", 0, 4)]
    submit, calls = engine_of(row_of)
    run_trials(tmp_path, [trial(until=1)], submit, nothing, follow)
    assert calls == []  # the ledger answers for each step


def test_the_optimizer_of_a_paused_trial_is_kept(tmp_path):
    for until, kept in ((2, True), (4, False)):
        last = tmp_path / LAST
        last.parent.mkdir(exist_ok=True)
        last.touch()
        submit, _ = engine_of(row_of)
        run_trials(tmp_path, [trial(folder=tmp_path, until=until)], submit, nothing)
        assert last.exists() == kept


def test_figures_that_are_no_numbers_are_left_out():
    """A validation loss may overflow in an early epoch of a training that ends well."""
    assert [_finite(value) for value in (0.123456, float("nan"), float("inf"))] == [0.12346, None, None]


def test_a_trial_that_fails_leaves_a_traceback_for_who_looks(tmp_path, tiny):
    protocol = Protocol({"source": "digits"}, options={"optimizer": "sgd", "learning_rate": 1e30, "clip_norm": None})
    member = two_members(tiny)[0]
    with executors.engine() as submit, pytest.raises(UserError, match="NaN or infinite"):
        submit(train_trial, TrainingRun(protocol, member, 0, 2, str(tmp_path))).result()
    assert "Traceback" in (tmp_path / LOG).read_text()


# --- plans


def test_a_protocol_holds_all_that_it_fixes(studied):
    """Not the name of a recipe, which another version of the package may change."""
    result, _ = studied
    options = yaml.safe_load((result.folder / PROTOCOL).read_text())["options"]
    assert options == {name: value for name, value in STUDY.values.items() if name != "epochs"} | OPTIONS


def test_images_are_found_from_any_folder_and_not_checked_again(image_folder, tiny):
    folder = image_folder({"cat": 4, "dog": 4})
    plan, dataset = prepare(os.path.relpath(folder), two_members(tiny), 1)
    assert plan.protocol.data["source"] == str(folder.resolve())
    assert plan.protocol.data["check"] is False and not dataset.skipped


def test_a_network_file_is_found_from_any_folder(tiny):
    (member,) = family([os.path.relpath(tiny)])
    assert member.model == str(Path(tiny).resolve()) and member.name == "tiny"


def test_two_network_files_of_one_name_are_refused(tmp_path, tiny, cli):
    (tmp_path / "other").mkdir()
    write_spec(replace(architecture_spec(TINY), stem=16), tmp_path / "other" / "tiny.yaml")
    shown = cli("study", "digits", "--models", f"{tiny},{tmp_path}/other/tiny.yaml")
    assert shown.status == 2 and "Two networks of the study have the name 'tiny'" in shown.err


def test_a_plan_outlives_its_file(tmp_path, tiny):
    plan = Plan(Protocol({"source": "digits"}, Budget("macs", 1e9), {"batch_size": 8}), tuple(two_members(tiny)), 2)
    plan.save(tmp_path)
    assert Plan.read(tmp_path) == plan


def test_a_study_is_not_resumed_on_changed_data(cli, image_folder, tmp_path):
    images, folder = image_folder({"cat": 6, "dog": 6}), tmp_path / "study"
    with begin(folder, *prepare(str(images), family(["lite0"]), 1)):
        pass
    (images / "cat/005.png").unlink()
    shown = cli("study", "--resume", folder)
    assert shown.status == 2 and shown.err == (
        f"error: The data of images have changed since {folder} was started (class 'cat' had 4 train, 1 val, 1 "
        "test, now 3 train, 1 val, 1 test), so its results would mix both. Restore them, or start anew with another "
        "--name.\n"
    )
    assert not (folder / RESULTS_JSONL).exists()


def test_a_training_of_a_study_whose_data_changed_meanwhile_is_refused(image_folder, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_module, "limit_threads", lambda threads: None)
    images, folder = image_folder({"cat": 6, "dog": 6}), tmp_path / "study"
    plan, dataset = prepare(str(images), two_members(tiny), 1)
    with begin(folder, plan, dataset):
        pass
    (images / "cat/005.png").unlink()
    run = TrainingRun(plan.protocol, plan.members[0], 0, 1, str(folder / "trials/small/seed0"), study=str(folder))
    with pytest.raises(UserError, match=rf"have changed since {folder} was started \(class 'cat' had"):
        train_trial(run)


def test_networks_and_seeds_are_added(tmp_path, tiny, digits):
    small, large = two_members(tiny)
    protocol = Protocol({"source": "digits"})
    with begin(tmp_path, Plan(protocol, (small,), 3), digits):
        pass
    with begin(tmp_path, Plan(protocol, (large,), 1), digits) as joined:
        assert joined == Plan(protocol, (small, large), 3)


@pytest.mark.parametrize("text", ["[]", "data: {}", "members: [{}]\nseeds: 1", ": :", ""])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / PROTOCOL).write_text(text)
    with pytest.raises(UserError, match=r"protocol.yaml is damaged"):
        Plan.read(tmp_path)


def test_a_folder_that_is_no_study(tmp_path):
    with pytest.raises(UserError, match="is not the folder of a study"):
        Plan.read(tmp_path)


def test_an_empty_study_is_refused(tmp_path, tiny):
    with pytest.raises(UserError, match="at least one network"):
        scaling_study.run("digits", [], tmp_path)
    with pytest.raises(UserError, match="at least one seed"):
        scaling_study.run("digits", two_members(tiny), tmp_path, seeds=0)


def test_a_missing_ray_is_told_before_anything_is_measured(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'keras-effnet\[ray\]'"):
        scaling_study.run("nowhere", two_members(tiny), tmp_path, cluster="local")


def test_more_workers_than_any_machine_has_room_for_are_refused(tmp_path, tiny):
    with pytest.raises(UserError, match=r"workers must be in 1\.\.1024, got 100000"):
        scaling_study.run("nowhere", two_members(tiny), tmp_path, workers=100_000)


def test_a_pace_is_measured_with_no_more_trainings_at_once_than_there_are(tmp_path, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(scaling_study, "measured_costs", lambda *_: {})
    monkeypatch.setattr(scaling_study, "measured_paces", lambda *arguments: asked.append(arguments[5]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scaling_study.run("digits", two_members(tiny), tmp_path, seeds=3, workers=1000)
    assert asked == [6]


def test_two_networks_of_one_name_are_refused(tmp_path, tiny):
    with pytest.raises(UserError, match="Two networks of the study have the name 'small'"):
        scaling_study.run("digits", two_members(tiny)[:1] * 2, tmp_path)


# --- executors


def test_each_trial_has_a_process_of_its_own():
    with executors.engine(workers=2) as submit:
        pids = [future.result() for future in [submit(os.getpid) for _ in range(4)]]
    assert len(set(pids)) == 4 and os.getpid() not in pids


ORPHAN = """
import sys, time
from keras_effnet.study import executors

def work(path):
    import os
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    with executors.engine() as submit:
        submit(work, sys.argv[1]).result()
"""


def test_a_training_ends_with_the_study_that_began_it(tmp_path):
    """An orphan would write into the folder of a trial that the resumed study continues."""
    (tmp_path / "orphan.py").write_text(ORPHAN)
    note = tmp_path / "pid"
    with subprocess.Popen([sys.executable, tmp_path / "orphan.py", note]) as parent:
        pid = int(_until(lambda: note.exists() and note.read_text()))
        parent.kill()
    assert _until(lambda: not _alive(pid))


def test_a_script_without_a_main_guard_is_told_so_and_not_of_memory(tmp_path):
    """The new process imports the script, starts a process itself and fails."""
    script = "import os\nfrom keras_effnet.study import executors\n"
    script += "with executors.engine() as submit:\n    submit(os.getpid).result()\n"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=100)
    assert "UserError: A process of the study could not start" in done.stderr and "__main__" in done.stderr


def _until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_training_that_dies_is_named(tmp_path):
    with executors.engine() as submit, pytest.raises(UserError, match=r"training small seed 0 was killed.*--resume"):
        run_trials(tmp_path, [trial()], lambda function, item: submit(os._exit, 9), nothing)


def test_the_training_that_was_killed_is_named_and_not_the_first_in_line(tmp_path):
    def submit_one(function, item):
        return submit(os._exit, 9) if item.seed else submit(time.sleep, 60)

    started = time.monotonic()
    with pytest.raises(UserError, match="training small seed 1 was killed"), executors.engine(workers=2) as submit:
        run_trials(tmp_path, [trial(), trial(seed=1)], submit_one, nothing)
    assert time.monotonic() - started < 50  # the other one is not waited for


def test_errors_that_only_one_process_knows_arrive_as_text():
    class LocalError(Exception):
        pass

    assert str(executors._portable(LocalError("unknown elsewhere"))) == "LocalError: unknown elsewhere"
    error = UserError("The loss became NaN.")
    assert executors._portable(error) is error


def test_a_killed_study_leaves_no_semaphore_to_warn_of(tmp_path):
    """The message came from a process that outlives the study: wait until nobody can write any more."""
    (tmp_path / "orphan.py").write_text(ORPHAN)
    note = tmp_path / "pid"
    command = [sys.executable, tmp_path / "orphan.py", note]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        _until(lambda: note.exists() and note.read_text())
        parent.kill()
        assert "leaked" not in parent.stderr.read()


@pytest.mark.slow
def test_a_local_ray_cluster_of_two_runs_trials_in_fresh_processes():
    pytest.importorskip("ray", reason="Ray is not installed")
    with executors.engine(workers=2, cluster="local") as submit:
        futures = [submit(os.getpid) for _ in range(4)]
        assert len({future.result(timeout=120) for future in futures} | {os.getpid()}) == 5
        broken = submit(int, "no number")
        with pytest.raises(Exception, match="no number") as caught:
            broken.result(timeout=120)
        assert "no number" in executors.failure(caught.value) and "\n" not in executors.failure(caught.value)


@pytest.mark.soak  # a Ray cluster and a study in processes are slow tests; both together take minutes
def test_a_study_on_a_ray_cluster_has_the_rows_of_one_without(studied, tiny, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    result, _ = studied
    arguments = {"budget": Budget("epochs", 2), "options": OPTIONS, "seeds": 1, "threads": 1}
    other = scaling_study.run("digits", two_members(tiny), tmp_path, workers=2, cluster="local", **arguments)
    assert other.failures == {}
    expected = {row["member"]: row["macs"] for row in rows_of(result, "cost")}
    assert {row["member"]: row["macs"] for row in rows_of(other, "cost")} == expected
    assert {row["member"] for row in rows_of(other, "training")} == set(expected)


def test_a_study_is_resumed_after_the_clock_was_set_back(studied, tiny, tmp_path, monkeypatch):
    result, _ = studied
    folder, year, wall = tmp_path / "study", 365 * 86400, time.time
    shutil.copytree(result.folder, folder)
    lines = (folder / RESULTS_JSONL).read_text().splitlines(keepends=True)
    (folder / RESULTS_JSONL).write_text("".join(lines[:-1]))  # killed before the last row was written
    for path in folder.rglob("*"):
        os.utime(path, (wall() + year,) * 2)
    monkeypatch.setattr(time, "time", lambda: wall() - year)
    monkeypatch.setattr(scaling_study, "engine", in_this_process)
    monkeypatch.setattr(trial_module, "limit_threads", lambda threads: None)
    arguments = {"budget": Budget("epochs", 2), "options": OPTIONS, "seeds": 2, "threads": 1}
    rows = scaling_study.run("digits", two_members(tiny), folder, **arguments).rows
    assert rows[:-1] == result.rows[:-1]
    for name in ("member", "seed", "curve", "train_seconds"):
        assert rows[-1][name] == result.rows[-1][name]


def test_protocol_file_is_plain_yaml(studied):
    result, _ = studied
    values = yaml.safe_load((result.folder / PROTOCOL).read_text())
    assert values["budget"] == {"kind": "epochs", "amount": 2}
    assert [member["name"] for member in values["members"]] == ["small", "large"]


# --- the commands


def test_a_finished_study_is_shown_again(studied, cli):
    pytest.importorskip("altair", reason="the report needs Altair")
    result, _ = studied
    shown = cli("study", "--resume", result.folder)
    assert shown.status == 0, shown.err
    assert "small" in shown.out and "MACs grew" in shown.out and "report.html" in shown.out
    assert (result.folder / "report.html").stat().st_size < 5e6
    assert len((result.folder / "trainings.csv").read_text().splitlines()) == 1 + len(rows_of(result, "training"))
    answered = json.loads(cli("study", "--resume", result.folder, "--json", "--against", result.folder).out)
    assert "small, from " in answered["answer"][-2] and "training step x1.00" in answered["answer"][-2]
    assert answered["failures"] == {} and "MACs grew" in answered["answer"][0]


def test_a_budget_is_turned_into_a_network(studied, cli):
    result, _ = studied
    macs = next(row["macs"] for row in rows_of(result, "cost") if row["member"] == "large")
    found = json.loads(cli("recommend", "--budget-macs", macs, "--data", result.folder, "--json").out)
    assert found["macs"] <= macs and found["measured"] == [0, 1] and found["band"][0] <= found["accuracy"]
    text = cli("recommend", "--budget-mb", 1, "--data", result.folder).out
    assert "Extrapolated" in text and "no interval" in text and "phi 0 to 1." in text and "Next:" in text


@pytest.mark.slow
def test_a_recommended_network_is_trained_by_the_protocol_of_the_study(studied, cli, tmp_path, monkeypatch):
    result, _ = studied
    folder = tmp_path / "study"
    shutil.copytree(result.folder, folder)
    monkeypatch.setattr(scaling_study, "engine", in_this_process)
    for module in (trial_module, costs):
        monkeypatch.setattr(module, "limit_threads", lambda threads: None)
    macs = next(row["macs"] for row in rows_of(result, "cost") if row["member"] == "large")
    shown = cli("recommend", "--budget-macs", macs, "--data", folder, "--train", "--json")
    assert shown.status == 0, shown.err
    found = json.loads(shown.out)
    assert found["check"]["cost_got"] == found["macs"] and found["check"]["seeds"] == 2
    (trained,) = (folder / "recommended").iterdir()
    assert Plan.read(trained).protocol == Plan.read(folder).protocol
    rows = jsonl.read(trained / RESULTS_JSONL)
    assert {row["epochs"] for row in rows if row["kind"] == "training"} == {2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study", "--phi", "0"), "Name the data"),
        (("study", "digits"), "Name the networks"),
        (("study", "digits", "--models", "resnet19"), "Did you mean 'resnet1"),
        (("study", "digits", "--phi", "0", "--axis", "widht"), "Did you mean 'width'"),
        (("study", "digits", "--models", "b0", "--axis", "widht"), "Did you mean 'width'"),
        (("study", "digits", "--models", "b0", "--axis", "depth,width"), "--axis depth,width needs scaling steps"),
        (("study", "digits", "--phi", "0", "--epochs", "inf"), "and finite"),
        (("study", "digits", "--phi", "0", "--epochs", "1e30"), "epochs must be at most"),
        (("study", "digits", "--phi", "0", "--set", "bifpn_width=8"), "bifpn_width is an option of detectors, and b0"),
        (("study", "digits", "--phi", "0", "--target", "60"), "0<=x<=1"),
        (("study", "digits", "--phi", "0", "--set", "batch_size=["), "is not a valid value"),
        (("study", "digits", "--phi", "low"), "is not a list of numbers"),
        (("study", "digits", "--phi", "0", "--epochs", "1", "--macs", "1e9"), "Set one budget: --epochs or --macs"),
        (("study", "digits", "--phi", "0", "--set", "lerning_rate=1"), "Did you mean 'learning_rate'"),
        (("study", "digits", "--phi", "0", "--set", "learning_rate"), "OPTION=VALUE"),
        (("study", "digits", "--phi", "0", "--set", "depth=2"), "depth varies between the trainings of a study"),
        (("study", "digits", "--phi", "-9"), "fewer than 32"),
        (("study", "digits", "--resume", "nowhere"), "leave them out"),
        (("study", "--resume", "nowhere"), "is not the folder of a study"),
        (("study", "digits", "--phi", "0", "--against", "nowhere"), "is not the folder of a study"),
        (("study", "digits", "--phi", "0", "--max-seeds", "9"), "seeds are only added with --until-clear"),
        (("recommend", "--data", "nowhere"), "Give one budget"),
        (("recommend", "--data", "nowhere", "--budget-ms", "1"), "is not the folder of a study"),
        (("search", "--dry-run", "--step", "0.7"), "No constants on a grid"),
        (("search", "--dry-run", "--baseline", "none.yaml"), "Network file"),
    ],
)
def test_wrong_input_is_refused_in_a_line(cli, arguments, message):
    shown = cli(*arguments)
    assert shown.status == 2 and message in shown.err
    assert shown.err.count("\n") == 1 and "Traceback" not in shown.err
