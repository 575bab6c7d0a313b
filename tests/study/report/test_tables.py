"""A study as CSV: every training, epoch and rate is a line, and the figures are those of the results."""

from __future__ import annotations

import csv
import io

import pytest
from study_rows import ROWS

from keras_effnet.study.report.tables import csv_tables

TUNING = {"kind": "tuning", "member": "small", "learning_rate": 3e-3, "epochs": 1}
TUNING |= {"tried": [{"learning_rate": 1e-3, "accuracy": 0.4}, {"learning_rate": 3e-3, "accuracy": 0.45}]}


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_all_data_is_in_the_tables():
    tables = {name: read(text) for name, text in csv_tables([*ROWS, TUNING]).items()}
    assert set(tables) == {"networks.csv", "trainings.csv", "epochs.csv", "learning_rates.csv"}  # no roofline
    assert [(row["member"], float(row["accuracy"])) for row in tables["networks.csv"]] == [
        ("small", pytest.approx(0.51)),
        ("large", pytest.approx(0.62)),
    ]
    assert [float(row["accuracy"]) for row in tables["trainings.csv"]] == [0.52, 0.5, 0.6, 0.64]
    assert len(tables["epochs.csv"]) == 16 and tables["epochs.csv"][0]["val_accuracy"] == "0.2"
    assert tables["learning_rates.csv"][1] == {"member": "small", "learning_rate": "0.003", "accuracy": "0.45"}
