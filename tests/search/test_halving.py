"""Grid search of the scaling constants: counted costs, the constraint, successive halving, ties."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from small_network import TINY

from keras_effnet import EfficientNet
from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.scaling import CompoundScaling
from keras_effnet.architecture.specs import expand
from keras_effnet.architecture.yaml_files import read_spec
from keras_effnet.cli.drawing import can_draw
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError
from keras_effnet.search import halving as search
from keras_effnet.search.arguments import ARGUMENTS, GridArguments, kept_arguments, save_arguments
from keras_effnet.search.grid import candidates, networks
from keras_effnet.search.report import search_report
from keras_effnet.study.networks import Member
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Protocol
from keras_effnet.study.results import RESULTS_JSONL
from keras_effnet.study.statistics.looks import growing
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl

PAPER = CompoundScaling(1.2, 1.1, 1.15)


# --- the grid


def test_the_papers_constants_are_a_candidate_with_the_macs_of_the_built_network():
    (paper,) = [each for each in candidates("b0") if each.scaling == PAPER]
    assert paper.formula == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    built = EfficientNet(architecture_spec("b0", depth=1.2, width=1.1, resolution=1.15), weights=None)
    assert paper.macs == count(built).macs  # counted layer by layer, not from the spec
    assert paper.params == sum(int(weight.shape.num_elements()) for weight in built.trainable_weights)
    assert paper.ratio == paper.macs / 385_825_092  # B0's published count


@pytest.mark.parametrize("baseline", ["b0", "lite0", "resnet18", "mobilenetv2"])
@pytest.mark.parametrize("by", ["formula", "macs"])
def test_the_constraint_holds(baseline, by):
    found = candidates(baseline, by=by, step=0.1)
    assert found
    base = count(architecture_spec(baseline)).macs
    for each in found:
        if each.scaling == PAPER:
            continue  # the reference, whatever it costs
        ratio = each.formula if by == "formula" else count(each.spec).macs / base
        assert 1.9 <= round(ratio, 9) <= 2.1
        assert min(vars(each.scaling).values()) >= 1


@pytest.mark.parametrize("tolerance", [0.05, 0.2])
def test_the_grid_is_complete(tolerance):
    """Counted by three plain loops over hundredths."""
    low, high = 2 * (1 - tolerance), 2 * (1 + tolerance)
    expected = {
        (a / 100, b / 100, g / 100)
        for a in range(100, 300, 10)
        for b in range(100, 200, 10)
        for g in range(100, 200, 10)
        if low <= round(a / 100 * (b / 100) ** 2 * (g / 100) ** 2, 9) <= high
    }
    found = [tuple(vars(each.scaling).values()) for each in candidates("b0", step=0.1, tolerance=tolerance)]
    expected.add((1.2, 1.1, 1.15))  # the paper's are not on this grid
    assert set(found) == expected and len(found) == len(expected) and found == sorted(found)


@pytest.mark.parametrize(("size", "stride"), [(48, 2), (32, 1)])
def test_small_images_have_candidates_along_each_axis_and_the_papers(size, stride):
    """At 32 pixels none had gamma > 1, and the paper's constants were missing at most sizes."""
    found = candidates(architecture_spec("lite0", stem_stride=stride), by="macs", step=0.1, image_size=size)
    scalings = [each.scaling for each in found]
    assert PAPER in scalings
    for axis in ("alpha", "beta", "gamma"):
        assert len({getattr(each, axis) for each in scalings}) > 2, axis


def test_a_target_far_from_the_papers_has_no_such_reference():
    assert PAPER not in [each.scaling for each in candidates("b0", target=1.5, step=0.1)]


def test_constants_that_round_to_one_network_are_told():
    groups = networks(candidates("b0", image_size=48))
    assert len(groups) < sum(map(len, groups))
    for group in groups:
        assert len({expand(each.spec) for each in group}) == 1
    assert len({expand(group[0].spec) for group in groups}) == len(groups)


def test_a_custom_network_is_scaled_too():
    slim = architecture_spec("b0", width=0.25, image_size=64)
    (found, *_) = candidates(slim, step=0.2)
    assert found.spec.stages == slim.stages and found.macs == count(found.spec).macs


@pytest.mark.parametrize("by", ["formula", "macs"])
def test_a_grid_that_cannot_meet_the_constraint_says_so(by):
    with pytest.raises(UserError, match=rf"No constants on a grid of step 0.7 .* of 2 by {by}. The nearest are \("):
        candidates("b0", step=0.7, tolerance=0.001, by=by)


@pytest.mark.parametrize("wrong", [{"target": 1.0}, {"step": 0.0}, {"tolerance": 1.5}, {"target": float("nan")}])
def test_senseless_grids_are_refused(wrong):
    with pytest.raises(UserError, match="target must be above 1"):
        candidates("b0", **wrong)


@pytest.mark.parametrize("large", [{"step": 1e-4}, {"step": 1e-300}, {"target": 1e300}, {"target": float("inf")}])
@pytest.mark.parametrize("by", ["formula", "macs"])
def test_grids_that_would_take_hours_are_refused(large, by):
    with pytest.raises(UserError, match="has too many points: raise the step"):
        candidates("b0", by=by, **large)


# --- the halving


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((1, 9, 3), [1, 3, 9]), ((1, 10, 3), [1, 3, 9, 10]), ((2, 4, 2), [2, 4]), ((3, 3, 3), [3]), ((2, 3, 3), [2, 3])],
)
def test_rungs(arguments, expected):
    assert growing(*arguments) == expected


def quality(member) -> float:
    """Simulated accuracy: it grows with resolution."""
    return 0.5 + 0.5 * (member.resolution - 1)


@pytest.fixture
def trained(monkeypatch):
    """Executor whose trainings approach `quality` with the epochs; yields what was trained."""
    pytest.importorskip("optuna", reason="the search needs Optuna")
    calls = []

    def submit(function, trial):
        calls.append((trial.member.name, trial.seed, trial.target))
        accuracy = quality(trial.member) * (1 - 0.5 / trial.target) + 0.001 * (trial.seed % 2)
        row = {"kind": "training", "member": trial.member.name, "seed": trial.seed, "epochs": trial.target}
        future = Future()
        future.set_result(row | {"accuracy": accuracy})
        return future

    @contextmanager
    def engine(*_):
        yield submit

    monkeypatch.setattr(search, "engine", engine)
    monkeypatch.setattr("keras_effnet.cli.commands.search.can_draw", lambda: False)  # takes a second
    return calls


def test_the_best_constants_are_found_with_fewer_epochs_than_all_would_take(trained, tmp_path):
    found = networks(candidates("b0", step=0.1, image_size=64))
    result = search.grid_search("digits", tmp_path, by="formula", image_size=64, finalists=2)
    assert result.best.gamma == max(group[0].scaling.gamma for group in found)
    epochs = Counter(target for _, seed, target in trained if seed == 0)
    assert epochs[1] == len(found) and 1 <= epochs[9] <= epochs[3] < epochs[1]
    finalists = result.ranking[: min(2, epochs[9])]
    assert all(each.epochs == 9 and len(each.accuracies) == 3 for each in finalists)
    assert {(seed, target) for _, seed, target in trained if seed} == {(1, 9), (2, 9)}
    for each in result.ranking:
        assert each.same[0] == each.candidate.scaling


def test_a_search_goes_on_where_it_was(trained, tmp_path):
    first = search.grid_search("digits", tmp_path, by="formula", image_size=64)
    done = list(trained)
    assert len(set(done)) == len(done)
    again = search.grid_search("digits", tmp_path, by="formula", image_size=64)
    assert trained == done and again.ranking == first.ranking


def test_a_broken_off_search_repeats_nothing(trained, tmp_path):
    whole = search.grid_search("digits", tmp_path / "whole", by="formula", image_size=64)
    expected = list(trained)
    rows = jsonl.read(tmp_path / "whole" / RESULTS_JSONL)
    (tmp_path / "half").mkdir()
    for row in rows[: len(rows) // 2]:
        jsonl.append(tmp_path / "half" / RESULTS_JSONL, row)
    trained.clear()
    resumed = search.grid_search("digits", tmp_path / "half", by="formula", image_size=64)
    assert trained == expected[len(rows) // 2 :] and resumed.ranking == whole.ranking


def test_the_family_of_the_best_constants_is_written(trained, tmp_path):
    result = search.grid_search("digits", tmp_path, by="formula", image_size=64)
    specs = [read_spec(tmp_path / "family" / f"phi{phi}.yaml") for phi in range(8)]
    assert (specs[0].depth, specs[0].width, specs[0].image_size) == (1, 1, 224)
    assert specs[3].depth == pytest.approx(result.best.alpha**3)
    assert [count(spec).macs for spec in specs] == sorted(count(spec).macs for spec in specs)


def test_seeds_tell_what_is_a_tie():
    candidate = candidates("b0", step=0.2)[0]

    def ranked(*accuracies, epochs=9):
        return search.Ranked(candidate, (candidate.scaling,), epochs, accuracies, images=1000)

    result = search.SearchResult(None, [ranked(0.6, 0.62), ranked(0.59, 0.61), ranked(0.1, 0.12), ranked(0.9)], {})
    assert result.tied == [result.ranking[1]]
    one_seed = search.SearchResult(None, [ranked(0.6), ranked(0.3), ranked(0.5, epochs=3)], {})
    assert one_seed.tied == [one_seed.ranking[1]]  # one seed cannot know; what was stopped early is behind


def test_a_lead_of_a_few_standard_errors_over_two_seeds_is_a_tie():
    """More than twice the standard error was a finding: it is one in six comparisons of equal networks with 2 seeds."""
    candidate = candidates("b0", step=0.2)[0]
    pairs = [(0.61, 0.58), (0.60, 0.58)]
    accuracies = list(zip(*pairs, strict=True))
    two = [search.Ranked(candidate, (candidate.scaling,), 9, each, images=10_000) for each in accuracies]
    assert search.SearchResult(None, two, {}).tied == two[1:]
    many = [replace(each, accuracies=each.accuracies * 6) for each in two]
    assert search.SearchResult(None, many, {}).tied == []


def test_the_answer_is_of_test_images_and_has_the_papers_constants_as_the_reference():
    other, paper = (next(each for each in candidates("b0", step=0.2) if (each.scaling == PAPER) == of) for of in (0, 1))
    best = search.Ranked(other, (other.scaling,), 9, (0.7, 0.71, 0.7), (0.6, 0.61, 0.6), 1000)
    reference = search.Ranked(paper, (PAPER,), 9, (0.6, 0.61, 0.6), (0.59, 0.61, 0.6), 1000)
    first, against, intervals = search.SearchResult(None, [best, reference], {}).answer
    assert (
        first == f"Best: {best.name}, 70.3% on the validation images that chose it, 60.3% on test images, by which "
        "nothing was chosen."
    )
    assert (
        against.startswith("Against the constants of the paper, cannot tell whether (1, ") and "+0.3 points" in against
    )
    assert "95% intervals over 3 paired seeds" in intervals


def test_the_report_has_a_line_for_every_candidate(trained, tmp_path):
    result = search.grid_search("digits", tmp_path, step=0.2, by="formula", image_size=64)
    report = search_report(result)
    by_name = {each.member: each for each in result.ranking}
    assert {each["member"] for each in report.data["networks"]} == set(by_name)
    axes = [*dict.fromkeys(each["axis"] for each in report.data["parallel"])]
    assert axes == ["alpha", "beta", "gamma", "pixels", "MACs x", "accuracy"]
    lines = {(each["member"], each["axis"]): each for each in report.data["parallel"]}
    assert len(lines) == len(by_name) * len(axes)
    for name, each in by_name.items():
        assert lines[name, "gamma"]["shown"] == f"{each.candidate.scaling.gamma:.3g}"
        assert lines[name, "accuracy"]["whole"] == (each.epochs == 9)
    heights = sorted(lines.values(), key=lambda each: each["accuracy"])
    assert [each["at"] for each in heights if each["axis"] == "accuracy"][:: len(by_name) - 1] == [0, 1]
    assert report.answer == result.answer and "candidates.csv" in report.downloads


def test_the_papers_constants_are_trained_with_all_seeds(trained, tmp_path):
    result = search.grid_search("digits", tmp_path, by="formula", image_size=64, finalists=1)
    (paper,) = [each for each in result.ranking if PAPER in each.same]
    assert paper.epochs == 9 and len(paper.accuracies) == 3


@pytest.mark.parametrize("wrong", [{"first": 0}, {"first": 10}, {"reduction": 1}, {"finalists": 0}, {"seeds": 0}])
def test_senseless_searches_are_refused(trained, tmp_path, wrong):
    with pytest.raises(UserError, match="A search needs"):
        search.grid_search("digits", tmp_path, **wrong)


def test_the_ranking_goes_by_epochs_then_seeds_then_accuracy():
    groups = {search.member(group[0], "b0", 64): group for group in networks(candidates("b0", step=0.2))[:4]}
    names = [member.name for member in groups]
    figures = [(3, (0.9,)), (9, (0.5,)), (9, (0.3, 0.4)), (9, (0.4, 0.5))]
    rows = [
        {"kind": "training", "member": name, "seed": seed, "epochs": epochs, "accuracy": accuracy}
        for name, (epochs, accuracies) in zip(names, figures, strict=True)
        for seed, accuracy in enumerate(accuracies)
    ]
    rows.append({"kind": "training", "member": names[1], "seed": 0, "epochs": 3, "accuracy": 0.99})
    assert [each.accuracies for each in search.rank(rows, groups)] == [(0.4, 0.5), (0.3, 0.4), (0.5,), (0.9,)]


def test_finalists_are_the_best_of_those_that_came_to_the_end(tmp_path):
    pytest.importorskip("optuna", reason="the search needs Optuna")
    halving = search._Halving([2], 3)
    for number, accuracy in enumerate((0.4, 0.7, 0.2, 0.6)):
        trial = TrainingRun(Protocol({}), Member(f"m{number}", "compound", 1.0, "b0"), 0, 2, str(tmp_path), 2)
        assert halving.follow(trial, {"accuracy": accuracy}) is None
    assert [member.name for member in halving.best(2)] == ["m1", "m3"]
    assert len(halving._study.trials) == 4  # asked once for each


# --- the command


def test_the_dry_run_lists_the_papers_constants(cli):
    listed = json.loads(cli("search", "--baseline", "b0", "--dry-run", "--json").out)
    (paper,) = [each for each in listed if (each["alpha"], each["beta"], each["gamma"]) == (1.2, 1.1, 1.15)]
    assert paper["macs"] == count(architecture_spec("b0", depth=1.2, width=1.1, resolution=1.15)).macs
    table = cli("search", "--baseline", "b0", "--dry-run").out
    assert any("(1.2, 1.1, 1.15)" in line and f"{paper['macs']:,}" in line for line in table.splitlines())


def test_the_command_ranks_and_draws(trained, cli, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_effnet.cli.commands.search.can_draw", can_draw)
    output = cli("search", "digits", "--step", "0.2", "--by", "formula", "--out", tmp_path).out
    assert "Best: (" in output and "Next:" in output
    folder = tmp_path / "search" / "digits"
    assert (folder / "search.png").stat().st_size > 5_000
    if can_draw():
        assert "report.html" in output and "All candidates" in (folder / "report.html").read_text()
        assert (folder / "parallel.png").stat().st_size > 5_000
    done = list(trained)
    answered = json.loads(cli("search", "--resume", folder, "--json").out)  # the folder knows its options
    assert answered["ranking"][0]["gamma"] == max(each["gamma"] for each in answered["ranking"])
    assert trained == done


def test_a_search_that_is_gone_on_with_keeps_its_options(trained, cli, tmp_path):
    assert cli("search", "digits", "--step", "0.2", "--by", "formula", "--out", tmp_path).status == 0
    folder = tmp_path / "search" / "digits"
    for changed in (["--epochs", "3"], ["--set", "batch_size=8"], ["digits"]):
        shown = cli("search", "--resume", folder, *changed)
        assert shown.status == 2 and "keeps its data and options" in shown.err
    (folder / ARGUMENTS).write_text("[")
    assert "search.yaml is damaged" in cli("search", "--resume", folder).err
    (folder / ARGUMENTS).unlink()
    assert "is not the folder of a search" in cli("search", "--resume", folder).err


def test_a_search_moved_with_its_baseline_finds_it(tmp_path):
    (tmp_path / "work").mkdir()
    shutil.copy(TINY, tmp_path / "work" / "tiny.yaml")
    folder = tmp_path / "work" / "search"
    baseline = str(tmp_path / "work" / "tiny.yaml")
    values = {"target": 2.0, "step": 0.1, "tolerance": 0.05, "by": "macs", "image_size": 32, "epochs": 2, "first": 1}
    values |= {"baseline": baseline, "reduction": 2, "finalists": 1, "seeds": 1}
    Plan(Protocol({"source": "digits"}), (Member("tiny", "compound", 1.0, baseline),), 1).save(make(folder))
    save_arguments(folder, GridArguments(**values))
    (tmp_path / "work").rename(tmp_path / "moved")
    assert kept_arguments(tmp_path / "moved" / "search")["baseline"] == str(tmp_path / "moved" / "tiny.yaml")
    assert Plan.read(tmp_path / "moved" / "search").members[0].model == str(tmp_path / "moved" / "tiny.yaml")


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_search_is_not_resumed_on_changed_data(trained, cli, image_folder, tmp_path):
    images, folder = image_folder({"cat": 6, "dog": 6}), tmp_path / "search" / "images"
    assert cli("search", images, "--step", "0.2", "--by", "formula", "--out", tmp_path).status == 0
    done = list(trained)
    (images / "cat/005.png").unlink()
    shown = cli("search", "--resume", folder)
    assert shown.status == 2 and shown.err == (
        f"error: The data of images have changed since {folder} was started (class 'cat' had 4 train, 1 val, 1 "
        "test, now 3 train, 1 val, 1 test), so its results would mix both. Restore them, or start anew with another "
        "--name.\n"
    )
    assert trained == done


@pytest.mark.parametrize("command", [("search",), ("study", "--phi", "0")])
def test_data_that_is_not_there_leaves_no_folder(trained, cli, tmp_path, command):
    shown = cli(*command, "./nowhere", "--out", tmp_path / "runs")
    assert shown.status == 2 and "Folder nowhere does not exist" in shown.err
    assert not list((tmp_path / "runs").glob("*/*")) and trained == []


def test_data_must_be_named(cli):
    outcome = cli("search")
    assert outcome.status == 2 and "Name the data" in outcome.err
