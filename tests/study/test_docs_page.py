"""docs/study.md agrees with its results, and its command is valid."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from keras_effnet.complexity.counting import count
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.study.summary import summarize
from keras_effnet.system import jsonl

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "study.md").read_text()
SOURCES = sorted(path.stem for path in (DOCS / "results").glob("*.jsonl"))


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("study_page", DOCS / "study_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_results_make_of_it(page):
    assert page.rendered(TEXT) == TEXT
    assert set(re.findall(r"<!-- \w+ ([\w-]+) -->", TEXT)) == set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_accuracies_on_the_page_are_those_of_the_rows(source):
    """By another way than the page's own: straight from the rows."""
    rows = [row for row in jsonl.read(DOCS / "results" / f"{source}.jsonl") if row["kind"] == "training"]
    reported = "test_accuracy" if "test_accuracy" in rows[0] else "accuracy"
    for member in {row["member"] for row in rows}:
        accuracies = [row[reported] for row in sorted(rows, key=lambda row: row["seed"]) if row["member"] == member]
        listed = ", ".join(f"{100 * accuracy:.1f}%" for accuracy in accuracies)
        mean = 100 * sum(accuracies) / len(accuracies)
        assert re.search(rf"^\| {re.escape(member)} \|.*\| {mean:.1f}% \({re.escape(listed)}\) \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("source", SOURCES)
def test_costs_of_the_results_are_those_of_the_networks(source):
    rows = [row for row in jsonl.read(DOCS / "results" / f"{source}.jsonl") if row["kind"] == "cost"]
    assert len(rows) >= len(summarize(rows))
    for row in rows:
        shape = {name: row[name] for name in ("model", "depth", "width", "image_size")}
        if row["model"].endswith(".yaml"):  # relative to the results, as in the folder of a study
            shape["model"] = str(DOCS / "results" / row["model"])
        assert row["macs"] == count(TrainConfig(**shape).spec, classes=10).macs


def test_a_page_with_another_figure_is_noticed(page):
    assert page.rendered(TEXT.replace("MACs grew x", "MACs grew x9")) == TEXT
