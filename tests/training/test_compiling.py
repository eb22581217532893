"""A run with torch.compile: the numbers and names of one without, no graph break, no compilation anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import TINY, newest, rows, steps_kept
from torch import nn
from torch._dynamo.utils import counters

from siamtransfer.programs.pretrain import main

pytestmark = pytest.mark.usefixtures("few_test_scenes")

OPTIONS = [*TINY, "--method.name=byol", "--byol.dim=16", "--byol.hidden=16", "--monitor.knn_every=1"]
OPTIONS += ["--monitor.knn_k=5", "--optim.lr=0.05"]


def test_a_compiled_run_is_the_run_across_knn_checks_and_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks have a graph each, in training mode; the kNN checks between have none."""
    assert main([*OPTIONS, f"--run.dir={tmp_path / 'plain'}"]) is not None

    def in_one_piece(module: nn.Module, **options: Any) -> None:
        module._compiled_call_impl = torch.compile(
            module._call_impl, backend="eager", fullgraph=True, **options
        )

    monkeypatch.setattr(nn.Module, "compile", in_one_piece)
    torch._dynamo.reset()
    counters.clear()
    compiled = [*OPTIONS, f"--run.dir={tmp_path / 'compiled'}", "--hardware.compile"]
    assert main(compiled) is not None
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    plain, ours = newest(tmp_path / "plain"), newest(tmp_path / "compiled")
    assert list(ours["model"]) == list(plain["model"])
    torch.testing.assert_close(ours["model"], plain["model"], rtol=1e-6, atol=1e-7)
    assert rows(tmp_path / "compiled") == [pytest.approx(row, rel=1e-6) for row in rows(tmp_path / "plain")]
    newest_file = max((tmp_path / "compiled" / "checkpoints").glob("step-*.pth"))
    newest_file.unlink()
    assert steps_kept(tmp_path / "compiled") == [12]
    assert main([*compiled, "--resume"]) is not None  # three steps more
    torch.testing.assert_close(newest(tmp_path / "compiled")["model"], ours["model"], rtol=0, atol=0)
