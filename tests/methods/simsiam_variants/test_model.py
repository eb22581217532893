"""simsiam-variants: its defaults are SimSiam, two ranks are one, options that mean nothing are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.golden_methods import ALONE, assert_same_outcome
from support.small_runs import on_ranks
from support.small_simsiam import VIEWS, small_variant, trained
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import StepInfo
from siamtransfer.methods.simsiam_variants.clusters import ClusterConfig
from siamtransfer.methods.simsiam_variants.extra_losses import TermsConfig
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.similarities import DistanceConfig
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.utils.errors import UserError

# Defaults.


def test_the_papers_options_add_nothing_to_a_checkpoint():
    method = small_variant()
    assert {name.split(".")[0] for name in method.state_dict()} == {"backbone", "projector", "predictor"}
    assert not method.uses_index
    assert method(VIEWS).numbers == {}


def test_two_views_give_the_papers_loss_to_the_bit():
    method = small_variant()
    ours = method(VIEWS).loss
    z1, z2 = (method.projector(method.backbone(x)) for x in VIEWS)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    assert ours == method.distance(p1, z2) / 2 + method.distance(p2, z1) / 2


# Two ranks.

EVERYTHING: dict[str, Any] = {
    "targets": {
        "target": TargetConfig(fraction=0.5, momentum=0.5, memory=0.8, gradient=0.2, gates="agreement"),
        "clusters": ClusterConfig(fraction=0.5, count=3),
        "projector_rank": 4,
        "projector_pca": "refit",
    },
    "terms": {
        "terms": TermsConfig(labels=1, labelled_fraction=0.5, rotation=1, jigsaw=1, colour=1, contrast=1),
        "distance": DistanceConfig(weights={"cosine": 1, "sliced-wasserstein": 1}, learned=True),
        "predictor_shape": "experts",
    },
    "spread": {"target": TargetConfig(gradient=0.5, spread=[0.0, 0.5])},
}


def trained_on_ranks(runtime: Runtime, name: str) -> Any:
    loss, kept, state = trained(small_variant(**EVERYTHING[name]), runtime, 4)
    return loss, kept, state


@pytest.mark.parametrize("name", ["targets", "terms"])
def test_two_ranks_are_one(name: str):
    alone = trained(small_variant(**EVERYTHING[name]), ALONE, 4)
    if name == "targets":
        assert (alone[2]["clusters.cluster"] >= 0).any()
    for outcome in on_ranks(trained_on_ranks, name):
        assert_same_outcome(outcome, alone, name)


def test_two_ranks_see_one_spread():
    alone = trained(small_variant(**EVERYTHING["spread"]), ALONE, 4)
    for _, _, state in on_ranks(trained_on_ranks, "spread"):
        assert state["target.spread"].item() == pytest.approx(alone[2]["target.spread"].item(), rel=1e-5)


# Options that mean nothing.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": TargetConfig(gradient=1.5)}, r"target\.gradient is 1\.5, but must be from 0 to 1"),
        (
            {"target": TargetConfig(spread=[0.9, 0.5])},
            r"target\.spread is \[0\.9, 0\.5\], but must be two rising",
        ),
        ({"target": TargetConfig(spread=[0.5, 0.9])}, r"target\.spread says when .*raise that, or leave"),
        ({"target": TargetConfig(every=0)}, r"target\.every is 0, but must be at least 1"),
        ({"target": TargetConfig(start_epoch=3, stop_epoch=3)}, r"target\.stop_epoch is 3, .* at least 4"),
        ({"distance": DistanceConfig(learned=True)}, r"distance\.learned trains the weights of .*name simil"),
        ({"distance": DistanceConfig(weights={"js": -1})}, r"distance\.weights\.js is -1, .* above 0"),
        ({"clusters": ClusterConfig(fraction=0.1, count=1)}, r"clusters\.count is 1, but must be at least 2"),
        (
            {"terms": TermsConfig(contrast_band=[0.5])},
            r"terms\.contrast_band is \[0\.5\], but must be two rising",
        ),
        ({"terms": TermsConfig(labelled_fraction=0)}, r"terms\.labelled_fraction is 0, but must be above 0"),
        ({"predictor_experts": 1}, r"predictor_experts is 1, but must be at least 2"),
        ({"clusters": ClusterConfig(every=2)}, r"clusters\.every 2 changes nothing .*fraction is 0: raise"),
        ({"target": TargetConfig(momentum=0.9)}, r"target\.momentum is of a second network, .* is 0: raise"),
        ({"terms": TermsConfig(contrast_margin=0.5)}, r"terms\.contrast_margin changes .*contrast is 0"),
        ({"terms": TermsConfig(labels_reach_backbone=False)}, r"terms\.labels_reach_backbone .*labels is 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\." + sentence):
        SimSiamVariantsConfig(**options).check(8)


# Micro-batches.


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_know_their_images(parts: int) -> None:
    method = small_variant(predictor="none", target=TargetConfig(memory=0.5))
    seen: list[Tensor] = []
    forward = method.memory.forward
    method.memory.forward = lambda t, index: (seen.append(index), forward(t, index))[1]  # type: ignore[method-assign]
    optimizer = build_optimizer(OptimConfig(), method.groups())
    index = torch.randperm(8)
    updater = Updater(method, optimizer, ALONE.scaler(), ALONE)
    train_step(updater, VIEWS, StepContext(0, 0.1, index), StepInfo(0, 1, 1), grad_accum_steps=parts)
    assert [len(part) for part in seen] == [8 // parts] * parts
    assert torch.equal(torch.cat(seen), index)
