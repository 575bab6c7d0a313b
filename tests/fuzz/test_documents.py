"""Damaged YAML, JSON and CSV files: every reader accepts them or names the fault in one line, and runs no code."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict

import document_targets
import pytest
from fuzzing import TEXT, fuzz, mutants

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.yaml_files import write_spec
from keras_effnet.config.run_record import RunRecord
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.errors import UserError
from keras_effnet.preprocessing import ImageSpec

SLICE, FULL = 60, 500


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Intact files of each format."""
    folder = tmp_path_factory.mktemp("documents")
    RunRecord({"source": "digits", "seed": 0, "fold": [1, 5]}, TrainConfig(model="lite0", phi=-1.5)).save(folder)
    document_targets.study_plan().save(folder)
    write_spec(architecture_spec("lite0"), folder / "network.yaml")
    ImageSpec(48, (1.0, 2.0, 3.0), 128.0).save(folder / "image_spec.json")
    search = {
        "baseline": "lite0",
        **{"target": 2.0, "step": 0.1, "tolerance": 0.05, "by": "macs", "image_size": 48},
        **{"epochs": 9, "first": 1, "reduction": 3, "finalists": 3, "seeds": 3},
    }
    index = {
        **{"format": "keras-effnet pack", "version": 1, "name": "pets", "class_names": ["cat", "dog"], "mirror": True},
        "skipped": [{"path": "a.jpg", "reason": "truncated"}],
        "splits": {"train": [{"file": "train-00000.tfrecord", "count": 3, "bytes": 1000}]},
    }
    rows = [row for member in document_targets.study_plan().members for row in _rows_of(asdict(member))]
    epochs = "epoch,loss,val_accuracy,seconds\n1,2.3,0.11,4.5\n2,1.9,0.25,4.4\n"
    images = 'path,label,split\na.png,cat,train\nb.png,dog,val\n"c d.png",cat,\n'
    return {
        "yaml": {path.name: path.read_bytes() for path in folder.glob("*.yaml")}
        | {"search.yaml": json.dumps(search).encode()},
        "json": {
            "image_spec.json": (folder / "image_spec.json").read_bytes(),
            "index.json": json.dumps(index, indent=2).encode(),
            "results.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows).encode(),
        },
        "csv": {"results.csv": epochs.encode(), "manifest.csv": images.encode(), "labels.txt": b"cat\ndog\n"},
    }


def _rows_of(member: dict) -> list[dict]:
    milliseconds = dict.fromkeys(("step_ms", "step_iqr_ms", "predict_ms", "predict_iqr_ms"), 12.5)
    tflite = {"tflite_bytes": 10**6, "tflite_ms": 1.5, "tflite_iqr_ms": 0.1}
    macs = {"params": 10**5, "macs": 10**7 * (2 + int(member["phi"])), "activations": 10**6}
    speeds = {"train_images_per_second": 100.0, "predict_images_per_second": 300.0}
    shape = {name: member[name] for name in ("axis", "phi", "model")} | {"image_size": 48, "classes": 10}
    name = member["name"]
    cost = {"kind": "cost", "member": name, **shape, **macs, **milliseconds, **tflite, **speeds}
    curve = [{"epoch": 1, "loss": 2.0, "accuracy": 0.2, "val_loss": None, "val_accuracy": 0.4, "seconds": 2.0}]
    trained = {"accuracy": 0.4 + member["phi"] / 10, "epochs": 1, "train_seconds": 2.0, "peak_memory_mb": None}
    trained |= {"input_bound": 0.1, "energy_joules": None, "curve": curve}
    kinds = [{"kind": "depthwise", "macs": 5, "intensity": 2.0, "gflops": 9.0, "seconds_share": 1, "bound_gflops": 9}]
    roofline = {"kind": "roofline", "member": name, "peaks": {"gflops": 90.0, "gbytes_per_s": 9.0}, "kinds": kinds}
    failure = {"kind": "failure", "member": name, "seed": 7, "error": "NaN"}
    trainings = [{"kind": "training", "member": name, "seed": seed, **trained} for seed in (0, 1)]
    return [cost, *trainings, roofline, failure]


TARGETS = {
    "yaml": document_targets.yaml_readers,
    "json": document_targets.json_readers,
    "csv": document_targets.csv_readers,
}


def test_intact_files_are_accepted(files, tmp_path):
    for form, originals in files.items():
        for name, content in originals.items():
            (tmp_path / name).write_bytes(content)
            TARGETS[form](tmp_path / name)


@pytest.mark.parametrize("form", TARGETS)
def test_damaged_documents_are_refused_in_one_line(files, tmp_path, form):
    for mutant in mutants(files[form], SLICE, TEXT):
        path = tmp_path / f"mutant.{form}"
        path.write_bytes(mutant.content)
        with contextlib.suppress(UserError):  # all else fails the test
            TARGETS[form](path)


@pytest.mark.soak
@pytest.mark.parametrize("form", TARGETS)
def test_many_damaged_documents_are_refused_in_one_line(files, tmp_path, form):
    tally = fuzz(TARGETS[form], mutants(files[form], FULL, TEXT, seed=1), tmp_path, suffix=f".{form}")
    print(tally.row(f"{form.upper()} (settings, records, lists)", "tests/fuzz/test_documents.py"))
    assert not tally.failures, str(tally)


def test_a_document_runs_no_code(tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "hostile.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{marker}']")
    with pytest.raises(ValueError, match="not valid YAML"):
        document_targets.yaml_readers(path)
    assert not marker.exists()
