"""A run whose gradient view is taken between steps: it is the run that is not watched, with rows more."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import paths
from support.small_runs import TINY, complete, differences, launch, launch_ranks, newest, rows, stop_at

import siamtransfer.programs.pretrain as training
from siamtransfer.evaluation.gradient_view.decomposition import GUIDE, PREFIX
from siamtransfer.methods import Method
from siamtransfer.pretraining import state
from siamtransfer.utils.errors import UserError

SCRIPT = paths.SCRIPTS / "plot_run.py"
NAMES = [PREFIX + name for name in GUIDE]


def without_gradients(folder: Path) -> list[dict[str, Any]]:
    return [row for row in rows(folder) if PREFIX + "ratio" not in row]


@pytest.mark.parametrize(("name", "stopped"), [("moco", True), ("unigrad", False)])
def test_a_watched_run_is_the_run_that_is_not(name: str, stopped: bool, tmp_path: Path) -> None:
    small = ["--optim.lr=0.1", "--moco.dim=16", "--moco.queue=24", "--unigrad.dim=16", "--unigrad.hidden=24"]
    options = [f"--method.name={name}", *small, "--optim.grad_accum_steps=2"]
    complete(tmp_path / "plain", *options)
    options.append("--monitor.gradients_every=2")
    if stopped:
        run = launch(tmp_path / "watched", *options, fault=stop_at(7))
        assert run.wait() == 143, run.said
        options.append("--resume")
    complete(tmp_path / "watched", *options)
    states = newest(tmp_path / "plain"), newest(tmp_path / "watched")
    assert differences(*states, free=("config.run.dir", "config.monitor.gradients_every")) == []
    assert without_gradients(tmp_path / "watched") == rows(tmp_path / "plain")
    taken = [row for row in rows(tmp_path / "watched") if PREFIX + "ratio" in row]
    assert [row["step"] for row in taken] == [2, 4, 6, 8, 10, 12, 14]
    assert all(set(row) == {"step", *NAMES} and row[PREFIX + "disagreement"] < 1e-8 for row in taken)


def test_two_ranks_watch_what_one_process_watches(tmp_path: Path) -> None:
    small = [
        "--moco_v3.dim=16",
        "--moco_v3.hidden=24",
        "--optim.lr=0.1",
        "--optim.epochs=1",
        "--data.count=24",
    ]
    options = ["--method.name=moco-v3", *small]
    watched = [*options, "--monitor.gradients_every=1"]
    complete(tmp_path / "one", *watched)
    for folder, chosen in (("plain", options), ("watched", watched)):
        ranks = launch_ranks(tmp_path / folder, *chosen)
        assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    states = newest(tmp_path / "plain"), newest(tmp_path / "watched")
    assert differences(*states, free=("config.run.dir", "config.monitor.gradients_every")) == []
    first = [
        next(row for row in rows(tmp_path / run) if PREFIX + "ratio" in row) for run in ("one", "watched")
    ]
    assert first[0].keys() == first[1].keys()
    for name in set(NAMES) - {PREFIX + "disagreement"}:
        assert first[1][name] == pytest.approx(first[0][name], rel=1e-3), name


def test_a_watched_runs_gradients_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(tmp_path / "run", "--monitor.gradients_every=5")
    sizes = []
    for keep in (True, False):
        if not keep:
            lines = [json.dumps(row) for row in without_gradients(tmp_path / "run")]
            (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            (tmp_path / "run" / "metrics.jsonl.crc32").unlink()
        monkeypatch.setattr("sys.argv", ["plot_run.py", str(tmp_path / "run"), str(tmp_path / "p.png")])
        runpy.run_path(str(SCRIPT))["main"]()
        sizes.append(Image.open(tmp_path / "p.png").size)
    assert sizes[0] == (sizes[1][0], 2 * sizes[1][1])


def test_a_run_that_cannot_be_watched_is_told_before_the_first_step(tmp_path: Path) -> None:
    argv = [*TINY, f"--run.dir={tmp_path / 'run'}", "--monitor.gradients_every=1"]
    with pytest.raises(UserError, match=r"simsiam\.stop_gradient"):
        training.main([*argv, "--simsiam.stop_gradient=false"])
    with pytest.raises(UserError, match=r"monitor\.gradients_every is -1"):
        training.main([*argv, "--monitor.gradients_every=-1"])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_view_that_fails_stops_no_run(tmp_path: Path) -> None:
    """A predictor of zeros has no direction; its loss is 0 and its gradient too."""
    heads = ["--method.name=simsiam-variants", "--simsiam_variants.batch_norm=none"]
    heads += ["--simsiam_variants.predictor=fixed", "--optim.epochs=1"]
    run = complete(tmp_path / "run", *heads, "--monitor.gradients_every=5", fault=silence_predictors)
    assert "no gradient view after step 5: the gradient in closed form" in run.said
    assert without_gradients(tmp_path / "run") == rows(tmp_path / "run")


def silence_predictors() -> None:
    """A fault: every predictor that is built answers zero."""
    original = state.build_method

    def build_method(config: Any, *networks: Any) -> Method:
        method = original(config, *networks)
        for parameter in method.get_submodule("predictor").parameters():
            parameter.detach().zero_()
        return method

    state.build_method = build_method
