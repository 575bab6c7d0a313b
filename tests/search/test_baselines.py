"""A search for a baseline: results kept and repeated, finalists as files, the answer on test images."""

from __future__ import annotations

import json
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from engines import in_this_process
from small_network import TINY

from keras_effnet.architecture.yaml_files import read_spec
from keras_effnet.complexity.counting import count
from keras_effnet.search import baselines as searching
from keras_effnet.search.arguments import kept_arguments
from keras_effnet.search.report import search_report
from keras_effnet.study import trial
from keras_effnet.study.costs import measure_latencies

pytest.importorskip("optuna", reason="the search needs Optuna")
ARGUMENTS = {"candidates": 6, "generation": 3, "epochs": 4, "seeds": 2, "finalists": 1, "image_size": 32}


def no_training(run):
    """The row of a training of which only the number of wide kernels matters."""
    spec = read_spec(run.member.model)
    accuracy = 0.5 + sum(stage.kernel for stage in spec.stages) / 100 + run.seed / 1000
    row = {"kind": "training", "member": run.member.name, "seed": run.seed, "epochs": run.target}
    row |= {"accuracy": accuracy, "val_images": 270}
    return row | ({"test_accuracy": accuracy - 0.01, "test_images": 269} if run.target == run.epochs else {})


@pytest.fixture
def calls(monkeypatch):
    """Trainings and measurements that were asked for; none is done."""
    asked: list[tuple] = []

    @contextmanager
    def engine(*_):
        def submit(function, *arguments):
            future = Future()
            if function is measure_latencies:
                asked.extend(("latency", member.name) for member in arguments[1])
                # The machine is half as fast for each generation.
                slower = 2 ** sum(call[0] == "generation" for call in asked)
                asked.append(("generation",))
                future.set_result([slower * (2.0 + place / 8) for place, _ in enumerate(arguments[1])])
            else:
                asked.append((arguments[0].member.name, arguments[0].seed, arguments[0].target))
                future.set_result(no_training(arguments[0]))
            return future

        yield submit

    monkeypatch.setattr(searching, "engine", engine)
    return asked


def test_finalists_are_files_and_the_answer_is_of_test_images(tmp_path, calls):
    result = searching.baseline_search("digits", tmp_path, **ARGUMENTS)
    assert read_spec(tmp_path / "found/1.yaml") == result.ranking[0].spec
    assert result.reference.accuracies == pytest.approx([0.5 + 27 / 100, 0.5 + 27 / 100 + 0.001])  # B0's kernels
    assert result.budget.amount == result.reference.cost == count(result.reference.spec, classes=10).macs
    assert result.answer.startswith("On test images, at x") and "the best network found" in result.answer
    assert len(result.tried) == 6


def test_the_report_shows_the_stage_tables_of_all_candidates(tmp_path, calls):
    result = searching.baseline_search("digits", tmp_path, **ARGUMENTS)
    report = search_report(result)
    names = [each["member"] for each in report.data["networks"]]
    assert len(names) == 6 and "baseline" in names and names == sorted(names, key=costs_of(report).get)
    kernels = {(e["member"], e["axis"]): e["shown"] for e in report.data["parallel"] if e["view"] == "kernel"}
    best = result.ranking[0].spec
    assert [kernels[best.name, f"stage {number}"] for number in range(1, 8)] == [f"{s.kernel}" for s in best.stages]
    assert {e["view"] for e in report.data["parallel"]} == {"kernel", "expand ratio", "filters", "repeats", "block"}
    final = next(each for each in report.data["networks"] if each["member"] == best.name)
    assert final["seeds"] == 2 and final["tested"] == pytest.approx(final["accuracy"] - 0.01)


def costs_of(report):
    return {each["member"]: each["cost"] for each in report.data["networks"]}


def test_an_interrupted_search_repeats_nothing(tmp_path, calls):
    first = searching.baseline_search("digits", tmp_path / "whole", **ARGUMENTS, cost="tflite_ms")
    done = len(calls)
    timed = [call[1] for call in calls if call[0] == "latency"]
    reference = first.reference.spec.name
    assert len(set(timed)) == 6 and timed.count(reference) == 2  # in both generations, which it makes comparable
    assert {each.cost for each in first.tried} == {2.0, 2.125, 2.25, 2.375}
    again = searching.baseline_search(folder=tmp_path / "whole", **kept_arguments(tmp_path / "whole"))
    assert len(calls) == done and again.ranking == first.ranking
    lines = (tmp_path / "whole/results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "whole/results.jsonl").write_text("".join(lines[:-3]))
    searching.baseline_search(folder=tmp_path / "whole", **kept_arguments(tmp_path / "whole"))
    assert len(calls) == done + 3


def test_the_command_refuses_options_of_the_other_search(cli):
    shown = cli("search", "digits", "--what", "baseline", "--target", "2")
    assert shown.status == 2 and "--target would have no effect: they belong to the search of constants" in shown.err
    shown = cli("search", "digits", "--budget-ms", "2")
    assert shown.status == 2 and "--budget-ms would have no effect" in shown.err
    shown = cli("search", "digits", "--what", "baseline", "--budget-ms", "2", "--budget-macs", "1e6")
    assert shown.status == 2 and "Give one budget" in shown.err


@pytest.mark.slow
def test_a_search_of_baselines_on_digits(tmp_path, cli, monkeypatch):
    """Two candidates, one of them the baseline, really trained; without processes, each of which loads TensorFlow."""
    monkeypatch.setattr(searching, "engine", in_this_process)
    monkeypatch.setattr(trial, "limit_threads", lambda threads: None)  # TensorFlow has already begun
    words = ("--what", "baseline", "--baseline", TINY, "--image-size", "32", "--candidates", "2", "--generation", "2")
    short = ("--epochs", "1", "--seeds", "1", "--finalists", "1", "--set", "optimizer=sgd", "--json")
    shown = cli("search", "digits", *words, *short, "--out", tmp_path, "--name", "it")
    assert shown.status == 0, shown.err
    found = json.loads(shown.out)
    assert len(found["tried"]) == 2 and found["answer"].startswith("On test images")
    assert read_spec(tmp_path / "search/it/found/1.yaml").name == found["finalists"][1]["name"]
