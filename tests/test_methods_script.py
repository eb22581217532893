"""scripts/methods.py: one budget for all methods; the table shows what was measured, with intervals."""

from __future__ import annotations

from pathlib import Path

import methods
import pytest

from siamtransfer.config import PretrainConfig, as_dict, flatten, parse
from siamtransfer.errors import UserError
from siamtransfer.methods import METHODS

BUDGET = (
    "backbone.name", "backbone.width", "backbone.zero_init_residual", "data.name", "data.size", "data.count",
    "optim.batch", "run.seed", "views.size",
)  # fmt: skip
SMALL = [
    "data.count=40", "data.workers=0", "optim.batch=20", "backbone.width=8", "optim.epochs=2",
    "monitor.knn_every=2", "monitor.health_every=2", "log.every=1",
]  # fmt: skip


def settings(name: str) -> dict[str, object]:
    config = parse(PretrainConfig, description="", argv=["--config", str(methods.config_of(name))])[0]
    config.check()
    assert config.method.name == name
    return flatten(as_dict(config))


def test_every_method_has_a_configuration_of_the_same_budget() -> None:
    budgets = {name: [settings(name)[key] for key in BUDGET] for name in METHODS}
    assert all(budget == budgets["simsiam"] for budget in budgets.values()), budgets
    for name in METHODS:
        assert settings(name)["optim.epochs"] == methods.EPOCHS or name == "simsiam"


@pytest.mark.slow
def test_methods_are_run_scored_and_set_in_a_table(tmp_path: Path) -> None:
    options = [f"--option={option}" for option in SMALL]
    argv = ["simclr", "swav", "--runs", str(tmp_path), "--table", str(tmp_path / "table.md"), *options]
    first = methods.main(argv)["metrics"]
    assert {key.split("/")[0] for key in first} == {"simclr", "swav"}
    files = {name: (tmp_path / name / "checkpoint.pth").resolve() for name in ("simclr", "swav")}
    assert methods.main(argv)["metrics"] == first
    assert {name: (tmp_path / name / "checkpoint.pth").resolve() for name in files} == files

    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]
    }
    assert rows.keys() == {
        "simclr, 2 epochs", "swav, 2 epochs", "raw pixels", "the untrained backbone",
    }  # fmt: skip
    assert rows["swav, 2 epochs"][:2] == ["6", "sgd 0.5"]
    for name in ("simclr", "swav"):
        row = rows[f"{name}, 2 epochs"]
        assert row[2].startswith(f"{first[f'{name}/{methods.KNN}']:.1f} (")
        assert row[3].startswith(f"{first[f'{name}/linear/top1']:.1f} (")
        assert 0 < float(row[4]) < 1.2
    assert rows["raw pixels"][2] == f"{first['swav/baseline/pixels/' + methods.KNN]:.1f}"


def test_unknown_methods_are_told() -> None:
    with pytest.raises(UserError, match=r"simsam is no method; there are simsiam, simclr"):
        methods.main(["simsam"])
