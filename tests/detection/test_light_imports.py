"""What needs no network is imported without torch, and the program's choices are the library's."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from siamtransfer.detection.config import DetectionOptions
from siamtransfer.detection.metrics.score_predictions import ApKind


@pytest.mark.parametrize(
    "module",
    [
        "trials",
        "lr_search",
        "layered_config",
        "data.datasets",
        "data.configured",
        "metrics.score_predictions",
    ],
)
def test_no_torch(module: str) -> None:
    code = f"import sys, siamtransfer.detection.{module}\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_option_metric_has_every_kind_of_ap() -> None:
    metric = get_type_hints(DetectionOptions)["metric"]
    assert set(get_args(get_args(metric)[0])) == set(get_args(ApKind))
