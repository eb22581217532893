"""Pictures of a measurement are drawn once its record is there, and cost it nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from siamtransfer.evaluation.evaluator import run_evaluator
from siamtransfer.evaluation.invariance.config import InvarianceConfig
from siamtransfer.records.result import Picture, Result
from siamtransfer.utils.errors import ErrorAfterRecord, UserError


def test_a_picture_that_is_not_drawn_costs_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, events = tmp_path / "a.json", tmp_path / "events"
    drawn: list[dict[str, float]] = []

    def full() -> None:
        raise UserError("the disk is full")

    def draw() -> None:
        drawn.append(json.loads(record.read_text())["metrics"])

    pictures = (Picture("full.png", "nothing", full), Picture("good.png", "all", draw))
    config = InvarianceConfig(
        checkpoint="pixels", device="cpu", record=str(record), track=[f"tensorboard:{events}"]
    )
    with pytest.raises(ErrorAfterRecord) as caught:
        run_evaluator(lambda *_: Result("invariance", {"x": 1.0}, pictures=pictures), config)
    assert str(caught.value) == (
        f"full.png was not drawn (the disk is full); no number is lost: the record is in {record}"
    )
    assert caught.value.record["metrics"] == {"x": 1.0} and drawn == [{"x": 1.0}]
    assert "wrote good.png: all" in capsys.readouterr().err
    assert list(events.rglob("events.*"))
