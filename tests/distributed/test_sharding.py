"""FSDP2 on two gloo ranks against DistributedDataParallel: updates, checkpoints, resumption, refusals."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_methods import SMALL
from support.small_networks import small_vit
from support.small_runs import TINY, Run, differences, launch, launch_ranks, newest, on_ranks, rows

from siamtransfer.config import PretrainConfig
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.sharding import is_sharded, whole_state
from siamtransfer.methods import METHODS, StepInfo
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer
from siamtransfer.pretraining.memory_saving import refuse_combinations, sharded_units
from siamtransfer.programs.pretrain import main
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

CASES = [("dino", "adamw", 1), ("moco-v3", "lars", 2), ("directpred", "larc", 1)]
"""Clipping and a momentum encoder after the update; before it, with accumulation; a weight that the
method computes."""


def steps_of(runtime: Runtime, sharded: bool, name: str, optimizer: str, parts: int) -> Any:
    """Losses and the whole state of a method and its optimizer after three steps, of which the last is
    made by a second optimizer that was given the first one's state."""
    torch.manual_seed(0)
    method = METHODS[name](small_vit(drop_path=0.2), METHODS[name].Config(**SMALL[name]))
    model = runtime.distribute(method, units=sharded_units(method) if sharded else None)
    assert all(is_sharded(parameter) == sharded for parameter in method.parameters())
    config, losses = OptimConfig(name=optimizer, lr=0.05, batch_size=16), []  # type: ignore[arg-type]
    built = build_optimizer(config, method.groups())
    for step in range(3):
        if step == 2:
            saved = torch.utils._pytree.tree_map(whole, whole_state(built.state_dict()))
            built = build_optimizer(config, method.groups())
            load_optimizer(built, saved)
        generator = torch.Generator().manual_seed(2 * step + runtime.rank)
        views = list(torch.randn(2, 8, 3, 32, 32, generator=generator))
        torch.manual_seed(step)
        context, info = StepContext(step, 0.05, torch.arange(8)), StepInfo(step, 40, 10)
        updater = Updater(model, built, runtime.scaler(), runtime)
        losses.append(train_step(updater, views, context, info, grad_accum_steps=parts)[1].loss)
    return losses, whole_state(method.state_dict()), whole_state(built.state_dict()["state"])


def whole(value: Any) -> Any:
    """What rank 0 has, on every rank; as a file on a shared disk gives it."""
    if not isinstance(value, torch.Tensor):
        return value
    box = [value if value.device.type == "cpu" else None]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def every_case(runtime: Runtime) -> Any:
    return [[steps_of(runtime, sharded, *case) for sharded in (False, True)] for case in CASES]


def test_sharded_steps_are_those_of_distributed_data_parallel() -> None:
    main_rank, other = on_ranks(every_case)
    for (name, optimizer, _), (plain, sharded) in zip(CASES, main_rank, strict=True):
        # Adam divides by the root of tiny gradients, which are rounding errors for biases without effect.
        tolerance = 1e-4 if optimizer == "adamw" else 1e-6
        assert sharded[0] == pytest.approx(plain[0], rel=1e-6), name
        for found, expected in zip(sharded[1:], plain[1:], strict=True):
            torch.testing.assert_close(
                found, expected, rtol=1e-5, atol=tolerance, msg=functools.partial("{1}: {0}".format, name)
            )
    for _, sharded in other:
        assert sharded[1]["backbone.model.blocks.0.attn.qkv.weight"].is_meta


# Whole runs.

RUN = [
    "--optim.lr=0.05",
    "--optim.epochs=2",
    "--checkpoint.keep=5",
    "--monitor.knn_every=1",
    "--monitor.knn_k=5",
]
SHARDED = "--hardware.shard=fsdp2"


def from_step(step: int, of: Path, folder: Path) -> Path:
    """A copy of a run that was stopped at `step`."""
    shutil.copytree(of, folder)
    (folder / "checkpoint.pth").unlink()
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.split("-")[1]) > step:
            path.unlink()
    return folder


def wait(runs: list[Run]) -> None:
    assert [run.wait() for run in runs] == [0] * len(runs), [run.said for run in runs]


def assert_close_runs(one: Path, other: Path) -> None:
    ours, theirs = newest(one), newest(other)
    assert list(ours["model"]) == list(theirs["model"])
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["optimizer"]["state"], theirs["optimizer"]["state"], rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_sharded_unsharded_and_on_one_rank(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    wait(launch_ranks(plain, *RUN))
    sharded = from_step(4, plain, tmp_path / "sharded")
    wait(launch_ranks(sharded, *RUN, SHARDED, "--resume", "--hardware.activation_checkpointing"))
    assert_close_runs(sharded, plain)
    assert rows(sharded) == [pytest.approx(row, rel=1e-4) for row in rows(plain)]
    again, alone = (from_step(8, sharded, tmp_path / name) for name in ("again", "alone"))
    runs = [*launch_ranks(again, *RUN, SHARDED, "--resume"), launch(alone, *RUN, "--resume")]
    wait(runs)
    free = ("config.run.dir", "config.hardware.activation_checkpointing")
    assert differences(newest(again), newest(sharded), free=free) == []
    assert_close_runs(alone, plain)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"compile": True}, "leave --hardware.compile out"),
        ({"cuda_graph": True}, "leave --hardware.cuda_graph out"),
        ({"guard": "device"}, "take --hardware.guard step"),
        ({"sync_batch_norm": False}, "leave hardware.sync_batch_norm true"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], reason: str) -> None:
    config = PretrainConfig()
    config.hardware.shard = "fsdp2"
    two = Runtime(torch.device("cpu"), torch.float32, world_size=2)
    refuse_combinations(config, two)
    for key, value in changes.items():
        setattr(config.hardware, key, value)
    with pytest.raises(UserError, match=reason):
        refuse_combinations(config, two)


def test_float16_the_gradient_view_and_one_rank_are_refused(tmp_path: Path) -> None:
    config = PretrainConfig()
    config.hardware.shard = "fsdp2"
    with pytest.raises(UserError, match="is not sharded: take"):
        refuse_combinations(config, Runtime(torch.device("cuda"), torch.float16, world_size=2))
    config.monitor.gradients_every = 5
    with pytest.raises(UserError, match="the gradient view copies"):
        refuse_combinations(config, Runtime(torch.device("cpu"), torch.float32, world_size=2))
    with pytest.raises(UserError, match="this run has one"):
        main([*TINY, SHARDED, f"--run.dir={tmp_path}/x"])
