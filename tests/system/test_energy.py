"""Energy counters, in a simulated sysfs tree."""

from __future__ import annotations

import time

import pytest

from keras_effnet.system import energy
from keras_effnet.system.energy import energy_meter
from keras_effnet.system.files import write_text

RANGE = 1_000_000_000


@pytest.fixture
def domain(tmp_path):
    """Function that makes a domain, and returns what sets its counter."""

    def make(folder: str, name: str = "package-0", start: int = 5_000_000, wraps_at: int = RANGE):
        path = tmp_path / folder
        path.mkdir()
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{wraps_at}\n")
        (path / "energy_uj").write_text(f"{start}\n")
        return lambda value: write_text(path / "energy_uj", f"{value}\n")  # whole at any moment, as the kernel's is

    return make


def test_joules_are_what_the_counter_gained(domain, tmp_path):
    count = domain("intel-rapl:0")
    with energy_meter(tmp_path) as meter:
        assert meter.joules is None
        count(12_500_000)
    assert meter.joules == pytest.approx(7.5)


def test_a_counter_that_wraps_around_goes_on(domain, tmp_path):
    count = domain("intel-rapl:0", start=RANGE - 2_000_000)
    with energy_meter(tmp_path) as meter:
        count(3_000_000)
    assert meter.joules == pytest.approx(5)


def test_a_long_block_is_read_in_between_so_that_no_wrap_around_is_missed(domain, tmp_path):
    count = domain("intel-rapl:0", start=0)
    packages = []
    original = energy._Package.sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy._Package, "sample", lambda package: packages.append(original(package)))
        with energy_meter(tmp_path, interval=0.01) as meter:
            for value in (600_000_000, 200_000_000, 800_000_000, 400_000_000):  # 600, 600, 600 and 600 joules
                count(value)
                seen, deadline = len(packages), time.monotonic() + 20
                while len(packages) < seen + 2 and time.monotonic() < deadline:
                    time.sleep(0.005)
    assert meter.joules == pytest.approx(2400)


def test_all_packages_count_and_nothing_twice(domain, tmp_path):
    first, second = domain("intel-rapl:0"), domain("intel-rapl:1", "package-1", start=RANGE - 1_000_000)
    others = [
        domain("intel-rapl:0:0", "core"),
        domain("intel-rapl:0:1", "dram"),
        domain("intel-rapl:2", "psys"),
        domain("intel-rapl-mmio:0"),  # the first package again, by another way
    ]
    (tmp_path / "intel-rapl").mkdir()
    with energy_meter(tmp_path) as meter:
        first(6_000_000)
        second(1_000_000)
        for count in others:
            count(900_000_000)
    assert meter.joules == pytest.approx(1 + 2)


@pytest.mark.parametrize("there", [True, False])
def test_a_platform_that_reports_nothing_gives_none(tmp_path, there):
    with energy_meter(tmp_path if there else tmp_path / "absent") as meter:
        pass
    assert meter.joules is None


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
def test_a_counter_that_cannot_be_read_gives_none_for_all(domain, tmp_path, file):
    domain("intel-rapl:0")
    domain("intel-rapl:1", "package-1")
    unreadable = tmp_path / "intel-rapl:1" / file
    unreadable.unlink()
    unreadable.mkdir()  # permissions would not stop a superuser
    with energy_meter(tmp_path) as meter:
        pass
    assert meter.joules is None


def test_a_counter_of_no_number_gives_none(domain, tmp_path):
    domain("intel-rapl:0")("disabled")
    with energy_meter(tmp_path) as meter:
        pass
    assert meter.joules is None


def test_a_counter_that_goes_away_gives_none(domain, tmp_path):
    domain("intel-rapl:0")
    with energy_meter(tmp_path) as meter:
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.joules is None


def test_a_block_that_fails_fails_as_it_would_and_was_measured(domain, tmp_path):
    count = domain("intel-rapl:0")
    with pytest.raises(KeyError), energy_meter(tmp_path) as meter:
        count(6_000_000)
        raise KeyError("of the block")
    assert meter.joules == pytest.approx(1)
