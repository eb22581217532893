"""Whole runs of simsiam-variants: what it keeps survives a stop to the bit, older checkpoints go on."""

from __future__ import annotations

from pathlib import Path

import torch
from support.small_runs import assert_same_run, complete, launch, newest, rows, stop_at

from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.evaluation.diagnostics.projector import read_projector

SMALL = [
    "--method.name=simsiam-variants",
    "--simsiam_variants.dim=32",
    "--simsiam_variants.projector_layers=2",
]
OPTIONS = [
    *SMALL,
    "--simsiam_variants.target.memory=0.8",
    "--simsiam_variants.target.fraction=0.5",
    "--simsiam_variants.target.gradient=0.1",
    "--simsiam_variants.target.spread=[0.5, 0.9]",
    "--simsiam_variants.target.gates=agreement",
    "--simsiam_variants.projector_gates=4",
    "--simsiam_variants.projector_rank=4",
    "--simsiam_variants.projector_pca=start",
    "--simsiam_variants.bottleneck.deviation=0.3",
    "--simsiam_variants.bottleneck.weight=0.001",
    "--simsiam_variants.clusters.fraction=0.5",
    "--simsiam_variants.clusters.count=4",
    "--simsiam_variants.terms.labels=0.1",
    "--simsiam_variants.terms.rotation=0.1",
    "--simsiam_variants.terms.jigsaw=0.1",
    "--simsiam_variants.terms.colour=0.1",
    "--simsiam_variants.distance.weights={cosine: 1, js: 1}",
    "--simsiam_variants.distance.learned=true",
    "--simsiam_variants.predictor_shape=experts",
    "--optim.lr=0.1",
    "--optim.name=radam",
    "--optim.lookahead=3",
    "--optim.schedule=plateau",
    "--optim.plateau_factor=0.5",
    "--optim.plateau_patience=1",
    "--optim.plateau_margin=10",
]
NUMBERS = (
    "labels", "rotation", "jigsaw", "colour", "information", "deviation", "target_gradient", "target_gates",
    "cluster_agreement", "expert_usage",
)  # fmt: skip


def test_what_a_run_remembers_goes_on_to_the_bit(tmp_path: Path) -> None:
    complete(tmp_path / "whole", *OPTIONS)
    assert launch(tmp_path / "parts", *OPTIONS, fault=stop_at(7)).wait() == 143
    complete(tmp_path / "parts", *OPTIONS, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = newest(tmp_path / "whole")["model"]
    assert bool(state["memory.seen"].all())
    assert (state["clusters.cluster"] >= 0).any()
    written = [row for row in rows(tmp_path / "whole") if "loss" in row][-1]
    # No epoch is lower by 10, so each but the first halves the rate for those after it.
    assert [row["lr"] for row in rows(tmp_path / "whole") if "lr" in row][::5] == [
        0.1 / 32,
        0.1 / 32,
        0.05 / 32,
    ]
    assert newest(tmp_path / "whole")["progress"]["plateau"]["share"] == 0.25
    assert "slow_weight" in newest(tmp_path / "whole")["optimizer"]["state"][0]
    assert {name for name in written if name.startswith("simsiam/")} == {
        f"simsiam/{name}" for name in NUMBERS
    }

    for branch in ("backbone", "target"):
        backbone, read = load_backbone(tmp_path / "whole" / "checkpoint.pth", branch=branch)
        prefix = "" if branch == "backbone" else "target_"
        assert torch.equal(backbone.state_dict()["conv1.weight"], state[f"{prefix}backbone.conv1.weight"])
        projector = read_projector(read)
        assert projector is not None
        assert torch.equal(projector[0].weight, state[f"{prefix}projector.0.weight"])


def test_a_checkpoint_from_before_the_options_goes_on(tmp_path: Path) -> None:
    complete(tmp_path / "whole")
    folder = tmp_path / "run"
    assert launch(folder, fault=stop_at(5)).wait() == 143
    state = newest(folder)
    options = state["config"]["simsiam"]
    options["predictor_rate"] = options.pop("predictor_lr")
    options["predictor_rate_scale"] = options.pop("predictor_lr_scale")
    options |= {"predictor": "trained", "batch_norm": "default", "similarity": "cosine"}
    Checkpoints(folder).save(state, state["progress"]["step"])
    complete(folder, "--resume")
    assert_same_run(tmp_path / "whole", folder)
    assert read_projector(load_backbone(folder / "checkpoint.pth")[1]) is not None


def test_a_run_with_more_than_two_views_from_before_the_variants_goes_on(tmp_path: Path) -> None:
    options = [*SMALL, "--views.recipe=swav", "--views.size=32"]
    complete(tmp_path / "whole", *options)
    folder = tmp_path / "run"
    assert launch(folder, *options, fault=stop_at(5)).wait() == 143
    state = newest(folder)
    state["method"] = state["config"]["method"]["name"] = "simsiam"
    state["config"]["simsiam"] = state["config"].pop("simsiam_variants")
    Checkpoints(folder).save(state, state["progress"]["step"])
    complete(folder, *options, "--resume")
    assert_same_run(tmp_path / "whole", folder)
