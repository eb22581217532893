"""scripts/methods.py: one budget for all methods; the table shows what was measured, with intervals."""

from __future__ import annotations

import functools
from pathlib import Path

import methods
import pytest
from support.stages import stage_here

from siamtransfer.cli import Command
from siamtransfer.config import PretrainConfig
from siamtransfer.methods import METHODS
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten

pytestmark = pytest.mark.usefixtures("few_test_scenes")

BUDGET = (
    "backbone.name", "backbone.width", "backbone.zero_init_residual", "data.name", "data.size", "data.count",
    "optim.batch_size", "run.seed", "views.size",
)  # fmt: skip
SMALL = [
    "data.count=40", "data.workers=0", "optim.batch_size=20", "backbone.width=8", "optim.epochs=2",
    "monitor.knn_every=2", "monitor.health_every=2", "log.every=1",
]  # fmt: skip


@functools.cache
def settings(name: str) -> dict[str, object]:
    command = Command("test", PretrainConfig, lambda config: None, "A test.", (), None)
    config = command.parse(["--config", str(methods.config_of(name))])
    config.check()
    assert config.method.name == name
    return flatten(config.as_dict())


def test_every_method_has_a_configuration_of_the_same_budget() -> None:
    assert {*METHODS} - {*methods.MEASURED} == {"simsiam-variants"}
    budgets = {name: [settings(name)[key] for key in BUDGET] for name in methods.MEASURED}
    assert all(budget == budgets["simsiam"] for budget in budgets.values()), budgets
    for name in methods.MEASURED:
        assert settings(name)["optim.epochs"] == methods.EPOCHS or name == "simsiam"


@pytest.mark.slow
def test_methods_are_run_scored_and_set_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "stage", stage_here)
    options = [f"--option={option}" for option in SMALL]
    argv = ["swav", "--runs", str(tmp_path), "--table", str(tmp_path / "table.md"), *options]
    first = methods.main(argv)["metrics"]
    assert {key.split("/")[0] for key in first} == {"swav"}
    checkpoint = (tmp_path / "swav" / "checkpoint.pth").resolve()
    assert methods.main(argv)["metrics"] == first
    assert (tmp_path / "swav" / "checkpoint.pth").resolve() == checkpoint

    lines = (tmp_path / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    rows = {name: row for name, *row in cells}
    assert rows.keys() == {"swav, 2 epochs", "raw pixels", "the untrained backbone"}
    row = rows["swav, 2 epochs"]
    assert row[:2] == ["6", "sgd 0.5"]
    assert row[2].startswith(f"{first[f'swav/{methods.KNN}']:.1f} (")
    assert row[3].startswith(f"{first['swav/linear/top1']:.1f} (")
    assert 0 < float(row[4]) < 1.2
    assert rows["raw pixels"][2] == f"{first['swav/baseline/pixels/' + methods.KNN]:.1f}"


def test_unknown_methods_are_told() -> None:
    with pytest.raises(UserError, match=r"simsam is no method; there are simsiam, simclr"):
        methods.main(["simsam"])
