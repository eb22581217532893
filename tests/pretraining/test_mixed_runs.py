"""Runs with mixed views: they go on to the bit, on two ranks see what one sees, and refuse parted pairs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_runs import TINY, all_finite, assert_same_run, complete, launch, newest, rows, stop_at
from support.thorough import more

import siamtransfer.programs.pretrain as program
from siamtransfer.config import PretrainConfig
from siamtransfer.config.saved import refuse_differences
from siamtransfer.optim.config import OptimConfig
from siamtransfer.pretraining.images import refuse_odd_micro_batches
from siamtransfer.utils.errors import UserError
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.dataset import Failure, ViewSet, training_views
from siamtransfer.views.mix_spec import Mix
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import StepSampler

UNIGRAD = ("--method.name=unigrad", "--unigrad.dim=16", "--unigrad.hidden=24", "--optim.lr=0.1")
CROPS = ("--views.recipe=scenes-multicrop", "--views.size=16")
MIX = ("--views.mix=cutmix", "--views.mix_p=0.75")


@pytest.mark.parametrize(
    "options",
    [
        (*UNIGRAD, *CROPS, *MIX, "--optim.grad_accum_steps=2"),
        more((*MIX, "--optim.lr=0.1")),
        more(("--method.name=simclr", "--simclr.dim=16", "--views.mix=mixup", "--optim.lr=0.1")),
    ],
)
def test_a_run_with_mixed_views_goes_on_to_the_bit(options: tuple[str, ...], tmp_path: Path) -> None:
    complete(tmp_path / "whole", *options, "--optim.epochs=2")
    assert launch(tmp_path / "parts", *options, "--optim.epochs=2", fault=stop_at(5)).wait() == 143
    complete(tmp_path / "parts", *options, "--optim.epochs=2", "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = newest(tmp_path / "whole")
    assert all_finite(state)
    assert state["config"]["views"]["mix"] in ("cutmix", "mixup")
    losses = [row["loss"] for row in rows(tmp_path / "whole") if "loss" in row]
    assert len(set(losses)) == 10


def test_a_run_without_mixing_is_another_one_and_an_old_one_has_none() -> None:
    plain = PretrainConfig()
    mixed = PretrainConfig(views=ViewsConfig(mix="cutmix", mix_p=0.5))
    with pytest.raises(UserError, match=r"views.mix 'cutmix' -> None; views.mix_p 0.5 -> None"):
        refuse_differences(mixed.as_dict(), plain.as_dict())
    old = plain.as_dict()
    for key in ("mix", "mix_alpha", "mix_p"):
        del old["views"][key]
    refuse_differences(old, plain.as_dict())


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_see_the_rows_of_one_rank(world_size: int) -> None:
    """Mixed views and shares of all ranks, one below the other, are those of one rank."""
    scenes = dataclasses.replace(recipe("scenes"), mix=Mix("cutmix"))

    def rows_of(rank: int, ranks: int) -> list[torch.Tensor]:
        keys = next(iter(StepSampler(40, 16, 1, seed=1, rank=rank, world_size=ranks)))
        views = ViewSet(read, scenes, 7, 40)
        return training_views(views.__getitems__(keys), scenes)

    def read(index: int) -> tuple[np.ndarray, list[Failure]]:
        noise = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(index))
        return noise.byte().numpy(), []

    whole = rows_of(0, 1)
    parts = zip(*(rows_of(rank, world_size) for rank in range(world_size)), strict=True)
    for expected, found in zip(whole, parts, strict=True):
        assert torch.equal(torch.cat(found), expected)
    assert (whole[-1] < 1).any()


def test_an_odd_number_of_images_in_a_micro_batch_is_refused(tmp_path: Path) -> None:
    argv = [*TINY, f"--run.dir={tmp_path / 'run'}", *MIX, "--optim.batch_size=6"]
    with pytest.raises(UserError, match=r"optim.batch_size 6 is 3 on each of 1 rank.* each of 2 micro-batch"):
        program.main([*argv, "--optim.grad_accum_steps=2"])
    assert not (tmp_path / "run" / "checkpoint.pth").exists()
    for batch, ranks, parts in (
        (6, 1, 1),
        (12, 3, 2),
        (7, 2, 1),
    ):  # what does not divide is refused elsewhere
        refuse_odd_micro_batches(OptimConfig(batch_size=batch, grad_accum_steps=parts), ranks)
    with pytest.raises(UserError, match=r"is 3 on each of 2 rank"):
        refuse_odd_micro_batches(OptimConfig(batch_size=6), 2)
