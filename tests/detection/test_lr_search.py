"""The learning rates that a search tries where none are given."""

from __future__ import annotations

import pytest
from support import paths

from siamtransfer.detection.layered_config import read_layered_config
from siamtransfer.detection.lr_search import SGD_RATES, default_rates
from siamtransfer.utils.errors import UserError

CONFIGS = paths.CONFIGS / "detection"


def test_rates_of_sgd_do_not_follow_the_configuration() -> None:
    layered = read_layered_config([CONFIGS / "coco-fpn-1x.yaml"], ["SOLVER.BASE_LR", "0.5"])
    assert default_rates(layered) == default_rates(layered, 0.125) == SGD_RATES


def test_rates_of_adamw_are_those_around_the_configured_one() -> None:
    layered = read_layered_config([CONFIGS / "coco-vitdet-100ep.yaml"], [])
    assert default_rates(layered) == (0.00005, 0.0001, 0.0002, 0.0004)
    assert default_rates(layered, 1 / 8) == (0.00000625, 0.0000125, 0.000025, 0.00005)


@pytest.mark.parametrize("rate", ["fast", "-1", "True"])
def test_without_a_rate_of_adamw_there_is_none_to_try(rate: str) -> None:
    layered = read_layered_config([], ["SOLVER.OPTIMIZER", "AdamW", "SOLVER.BASE_LR", rate])
    with pytest.raises(UserError, match=r"BASE_LR is .*: give --lrs"):
        default_rates(layered)
    del layered["SOLVER.BASE_LR"]
    with pytest.raises(UserError, match="BASE_LR is None: give --lrs"):
        default_rates(layered)
