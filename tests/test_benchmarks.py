"""The arithmetic of the benchmark scripts, without running any of them."""

from __future__ import annotations

import json

import pytest
from benchmark_scripts import FOLDER, benchmark


def test_run_all_knows_every_script():
    names = {path.stem for path in FOLDER.glob("*.py")} - {"run_all", "recording"}
    run_all = benchmark("run_all")
    assert {*(script.name for script in run_all.SCRIPTS), *run_all.BY_HAND} == names


def test_a_script_records_what_it_prints(tmp_path, monkeypatch, capsys):
    recorded = benchmark("recording").recorded
    monkeypatch.setattr(
        "sys.argv", ["tests/benchmarks/one.py", "b0", f"--json={tmp_path / 'one.json'}", "--rounds", "2"]
    )
    with pytest.raises(SystemExit), recorded():
        print("| a |\n|---|\n| 1 |")
        raise SystemExit("too slow")
    (script,) = json.loads((tmp_path / "one.json").read_text())["scripts"]
    assert script["script"] == "one" and script["command"] == "python tests/benchmarks/one.py b0 --rounds 2"
    assert script["tables"] == [[{"a": "1"}]] and script["error"] == "too slow"
    assert "| 1 |" in capsys.readouterr().out


def test_tables_become_rows():
    text = "words\n\n| a | b c |\n|---|---|\n| 1 | x / y |\n| 2 |  |\n\n| d |\n|---|\n| 3 |\n"
    assert benchmark("recording").tables(text) == [[{"a": "1", "b c": "x / y"}, {"a": "2", "b c": ""}], [{"d": "3"}]]


@pytest.mark.parametrize(
    ("costs", "power"),
    [
        ([0.0, 0.1, 1.0, 10.0], 1),
        ([1.0, 1.1, 1.2, 1.3], 0),
        ([1.0, 1.0, 100.0, 10_000.0], 2),
        ([0.0, 0.001, 0.002, 0.01], 0),  # noise
    ],
)
def test_exponents(costs, power):
    found = benchmark("growth").exponent([10, 100, 1000, 10_000], costs, noise=0.05)
    assert found == pytest.approx(power, abs=0.01)


def test_a_cost_that_grows_too_fast_needs_a_reason():
    growth = benchmark("growth")
    costs = [growth.Cost(size, cpu_s=size**2 / 100, peak_mb=0.0) for size in (10, 100, 1000)]
    verdicts = [growth.row(growth.Growth("images", len, (), reason=why), costs)["verdict"] for why in ("", "because")]
    assert verdicts == ["WORSE THAN LINEAR", "because"]


def test_a_simulated_disk_has_the_images():
    benchmark("growth").listing(2500)()


def test_the_roofline_by_hand():
    """A product that is bound by memory, and one that is bound by arithmetic."""
    lowering = benchmark("lowering")
    half = lowering.Tensor((1000, 1000), "bf16")
    contracted = "contracting_dims = [1] x [0]"
    large = lowering.Operation("dot_general", (half, half), (half,), "", contracted)
    assert large.macs == 10**9
    chip = lowering.Chip("any", half=1000, float32=100, bandwidth=1)
    assert chip.seconds(large) == pytest.approx(max(2e9 / 1e15, 6e6 / 1e12))
    assert lowering.Chip("any", half=100, float32=100, bandwidth=1).seconds(large) == pytest.approx(2e9 / 1e14)
