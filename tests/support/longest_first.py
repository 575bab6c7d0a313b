"""Order of the test files: with `pytest -n 2`, a long file that begins last leaves the other process idle."""

from __future__ import annotations

from pathlib import Path

import pytest

# By processor time in the default and the slow suite. The first file makes the shared `trained` and `exported`; the
# second process needs neither meanwhile.
LONGEST = (
    "cli/test_app.py",
    "export/finetune/test_sparsity.py",
    "datasets/test_fuzz.py",
    "export/finetune/test_qat.py",
    "export/finetune/test_parent.py",
    "models/test_saving.py",
    "models/test_efficientnet.py",
    "export/test_published.py",
    "test_examples.py",
    "study/test_scaling_study.py",
    "evaluation/test_explain.py",
    "export/test_export_cli.py",
    "training/test_killed.py",
    "training/test_distribution.py",
    "models/test_backends.py",
    "cli/commands/test_eval.py",
    "export/test_savedmodel_onnx.py",
    "export/test_bundle.py",
    "models/test_contract.py",
    "training/test_run.py",
    "training/test_progressive.py",
    "inference/test_artifacts.py",
    "pipeline/test_batches.py",
    "study/report/test_write.py",
    "export/int8/test_correction.py",
    "export/int8/test_float_islands.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST` first; the others stay in their order."""
    tests = Path(__file__).parents[1]
    places = {tests / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
