"""Readers of YAML, JSON and CSV files as targets of fuzzing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_effnet.architecture.yaml_files import read_spec
from keras_effnet.config.run_record import RunRecord
from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.csv_lists import read_manifest
from keras_effnet.datasets.tfrecord.packed import read_index
from keras_effnet.preprocessing import ImageSpec
from keras_effnet.search.arguments import kept_arguments
from keras_effnet.study.networks import scaled
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Protocol
from keras_effnet.study.recommendation import CostLimit, recommend
from keras_effnet.study.report.records import report_data
from keras_effnet.study.results import read_complete_results, read_results
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.summary import summarize
from keras_effnet.system.documents import read_lines, read_text
from keras_effnet.training.checkpoints import read_rows


def _placed(path: Path, name: str) -> Path:
    """Copy a file under a name into a folder of its own, which the next call removes."""
    folder = Path(tempfile.gettempdir()) / f"fuzz-{path.parent.name}-documents"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Path(shutil.copy(path, folder / name))


def _read_by_any(path: Path, readers: Sequence[Callable[[Path], object]]) -> None:
    """Accept a file if one of the readers does; each other may only refuse it."""
    reasons: list[ValueError] = []
    for read in readers:
        try:
            read(path)
        except ValueError as error:
            _expect_user_error(error)
            reasons.append(error)
    if len(reasons) == len(readers):
        raise reasons[0]


def yaml_readers(path: Path) -> None:
    """All readers of YAML files."""
    _read_by_any(path, (_args, _config, _network, _plan, _search))


def json_readers(path: Path) -> None:
    """All readers of JSON files, and of JSON Lines."""
    _read_by_any(path, (ImageSpec.load, _index, _rows))


def csv_readers(path: Path) -> None:
    """The results of a run, a list of images, and class names."""
    _read_by_any(path, (_results, _manifest, read_lines))


def _expect_user_error(error: ValueError) -> None:
    message = str(error)
    assert type(error).__name__ == "UserError" and message and "\n" not in message, f"{type(error)}: {message}"
    assert "unexpected" not in message and len(message) < 2000, message


def _args(path: Path) -> None:
    config = RunRecord.read(path).config
    if config is not None:
        _ = config.spec, config.image_spec


def _config(path: Path) -> None:
    _ = TrainConfig(**TrainConfig.read_yaml(read_text(path))).stages


def _network(path: Path) -> None:
    from keras_effnet.complexity.counting import count

    count(read_spec(path))


def _plan(path: Path) -> None:
    Plan.read(_placed(path, "protocol.yaml").parent)


def _search(path: Path) -> None:
    folder = _placed(path, "search.yaml").parent
    study_plan().save(folder)
    kept_arguments(folder)


def study_plan() -> Plan:
    """A plan of two networks."""
    return Plan(Protocol({"source": "digits"}), tuple(scaled("lite0", [-1, 0])), 2)


def _index(path: Path) -> None:
    if read_index(_placed(path, "index.json").parent) is None:
        _refuse()


def _refuse() -> None:
    from keras_effnet.errors import UserError

    raise UserError("not a packed folder")


def _rows(path: Path) -> None:
    folder = _placed(path, "results.jsonl").parent
    read_results(folder)
    rows = read_complete_results(folder)
    summaries = summarize(rows)
    answer(summaries)
    report_data(rows)
    recommend(summaries, study_plan().members, CostLimit("macs", 1e8))


def _results(path: Path) -> None:
    read_rows(_placed(path, "results.csv").parent)


def _manifest(path: Path) -> None:
    placed = _placed(path, "manifest.csv")
    for name in ("a.png", "b.png", "c d.png"):
        (placed.parent / name).touch()
    read_manifest(placed, 10, False, iter)
