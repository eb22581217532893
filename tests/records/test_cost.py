"""The line about the cost of a record."""

from __future__ import annotations

import pytest

from siamtransfer.metering.cost import Cost
from siamtransfer.metering.energy import NVML, Energy
from siamtransfer.metering.meter import metered
from siamtransfer.records.cost import cost_line
from siamtransfer.records.record import record

FULL = Cost(3725.0, 60000, 50.0, 0, 3 * 2**30, 8, 900 * 2**20, "NVIDIA H200", 2**31, (Energy(35e3, NVML, 1),))


def test_the_line_has_what_is_known() -> None:
    assert cost_line(FULL.as_dict()) == (
        "1:02:05 h · 60,000 images at 1,200 images/s · peak memory 3 GiB · 900 MiB in a worker · "
        "NVIDIA H200, peak 2 GiB · 35 kJ (NVML: 1 whole GPU)"
    )


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (Cost(4.23), "4.2 s · cpu"),
        (Cost(65.0, 0.0, 0.0, 2300), "1:05 min · features of 2,300 images from the cache · cpu"),
        (Cost(9.0, processes=8, device="NVIDIA H200"), "9.0 s · 8 processes on NVIDIA H200"),
        (Cost(9.0, peak_memory_bytes=1003 * 2**20), "9.0 s · peak memory 0.979 GiB · cpu"),
        (Cost(9.0, since_step=12), "9.0 s · cpu · from step 12 on; the cost before is not known"),
    ],
)
def test_the_line_leaves_out_what_is_not_known(cost: Cost, line: str) -> None:
    assert cost_line(cost.as_dict()) == line


def test_a_record_has_the_cost_of_the_meter_around_it_and_else_none() -> None:
    assert "cost" not in record("t", {}, {})["provenance"]
    with metered() as meter:
        meter.count(6, 2.0)
        written = record("t", {}, {})["provenance"]["cost"]
        stated = record("t", {}, {}, cost={"seconds": 1.0})["provenance"]["cost"]
    assert (written["images"], written["images_per_second"]) == (6, 3)
    assert stated == {"seconds": 1.0}
