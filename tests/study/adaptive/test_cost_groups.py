"""Costs of many networks: few in memory at a time, times comparable across groups, progress, recorded at once."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from engines import three_steps

from keras_effnet.errors import UserError
from keras_effnet.study.adaptive.cost_groups import GROUP, as_beside, groups, measured_costs
from keras_effnet.study.costs import ROUNDS, measure_costs
from keras_effnet.study.executors import processes
from keras_effnet.study.networks import Member
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Protocol
from keras_effnet.study.results import RESULTS_JSONL
from keras_effnet.system import jsonl

PEAKS = {"gflops": 100.0, "gbytes_per_s": 10.0}


def members(count: int) -> tuple[Member, ...]:
    return tuple(Member(f"net{number}", "compound", float(number), "b0") for number in range(count))


def plan(count: int) -> Plan:
    return Plan(Protocol({}), members(count), 1)


def machine(load=(1.0, 2.0, 3.0, 4.0), killed_at=None):
    """A machine on which network n takes n + 1 ms, times the load of the group; and the groups it measured."""
    measured: list[list[str]] = []

    def row(member, slower):
        ms = slower * (member.phi + 1)
        times = {f"{clock}_{kind}": ms for clock in ("step", "predict", "tflite") for kind in ("ms", "iqr_ms")}
        times |= {f"{clock}_images_per_second": 1000 / ms for clock in ("train", "predict")}
        return {"kind": "cost", "member": member.name, "cpu": "cpu", "cores": 2, "threads": 0, **times}

    def submit(function, protocol, subject, classes, told=None):
        future: Future = Future()
        if function is not measure_costs:
            future.set_result({"kind": "roofline", "member": subject.name, "peaks": PEAKS, "kinds": []})
            return future
        if len(measured) == killed_at:
            future.set_exception(BrokenProcessPool())
            return future
        measured.append([member.name for member in subject])
        for number in range(len(subject) + ROUNDS):
            told(f"step {number}", number)
        future.set_result([row(member, load[len(measured) - 1]) for member in subject])
        return future

    return submit, measured


def test_memory_does_not_grow_with_the_number_of_networks(tmp_path):
    submit, measured = machine()
    measured_costs(tmp_path, plan(9), 10, submit, lambda *told: None)
    assert measured == [
        ["net0", "net1", "net2", "net3"],
        ["net0", "net4", "net5", "net6"],
        ["net0", "net7", "net8"],
    ]
    assert max(map(len, measured)) == GROUP


def test_times_of_all_groups_are_those_beside_the_first(tmp_path):
    submit, _ = machine()
    costs = measured_costs(tmp_path, plan(9), 10, submit, lambda *told: None)
    for clock in ("step", "predict", "tflite"):
        assert [costs[f"net{n}"][f"{clock}_ms"] for n in range(9)] == [n + 1 for n in range(9)]
    assert costs["net8"]["train_images_per_second"] == pytest.approx(1000 / 9, abs=0.01)
    assert [costs[name].get("slowdown", {}).get("step") for name in ("net3", "net4", "net8")] == [None, 2, 3]
    rows = [row for row in jsonl.read(tmp_path / RESULTS_JSONL) if row["kind"] == "cost"]
    assert [row["member"] for row in rows] == [f"net{n}" for n in range(9)]  # the reference once
    assert {row["member"]: row for row in rows} == costs


def test_networks_added_later_are_timed_beside_the_reference(tmp_path):
    submit, _ = machine()
    first = measured_costs(tmp_path, plan(2), 10, submit, lambda *told: None)
    submit, measured = machine(load=(5.0,))
    costs = measured_costs(tmp_path, plan(3), 10, submit, lambda *told: None)
    assert measured == [["net0", "net2"]] and costs["net0"] == first["net0"] and costs["net2"]["step_ms"] == 3


def test_a_killed_measurement_keeps_the_groups_before(tmp_path):
    submit, _ = machine(killed_at=1)
    with pytest.raises(UserError, match=r"measuring net0, net4, net5, net6 was killed.*--resume"):
        measured_costs(tmp_path, plan(7), 10, submit, lambda *told: None)
    submit, measured = machine(load=(2.0,))
    costs = measured_costs(tmp_path, plan(7), 10, submit, lambda *told: None)
    assert measured == [["net0", "net4", "net5", "net6"]] and costs["net6"]["step_ms"] == 7


def test_progress_is_told_for_each_network_and_round(tmp_path):
    told: list[tuple[str, float, float]] = []
    submit, _ = machine()
    measured_costs(tmp_path, plan(5), 10, submit, lambda *each: told.append(each))
    assert [done for _, done, _ in told] == list(range(4 + ROUNDS + 2 + ROUNDS + 1))
    assert {total for _, _, total in told} == {4 + ROUNDS + 2 + ROUNDS + 1}
    measured_costs(tmp_path, plan(5), 10, submit, pytest.fail)  # nothing is left to measure


def test_times_of_another_processor_are_left_alone():
    submit, _ = machine()
    reference, row = submit(measure_costs, None, members(2), 10, lambda *told: None).result()
    before = {**reference, "step_ms": 10.0}
    assert as_beside(before, reference, row)["step_ms"] == 20.0
    assert as_beside({**before, "cpu": "another"}, reference, row) == row
    assert groups(members(1), {}) == [[members(1)[0]]] and groups(members(1), {"net0": {}}) == []


def test_a_process_tells_how_far_it_is():
    told: list[tuple[str, int]] = []
    with processes() as submit:
        assert submit(three_steps, "tracing", told=lambda *each: told.append(each)).result() == "returned"
    assert told == [("tracing", 0), ("tracing", 1), ("tracing", 2)]
