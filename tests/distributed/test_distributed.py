"""Two gloo ranks on the CPU against one: losses, weights, batch norm, accumulation, features, collectives."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import complete, images_of, launch_ranks, newest, on_ranks, rows
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.batchnorm import SyncedBatchNorm
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Transform, extract
from siamtransfer.methods import StepOutput
from siamtransfer.training.step import forward_backward

# 32-pixel scenes, real views and SimSiam; 8 steps.
SCENES = [
    "--backbone.stem=small", "--data.count=64", "--views.size=32", "--optim.batch_size=16",
    "--optim.epochs=2",
    "--optim.lr=0.05", "--checkpoint.every_steps=0",
]  # fmt: skip
ALONE = Runtime(torch.device("cpu"), torch.float32)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if "loss" in row]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    complete(folder, *SCENES)
    return folder


def run_two_ranks(folder: Path, *options: str) -> Path:
    ranks = launch_ranks(folder, *options)
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    return folder


def test_two_ranks_with_half_the_batch_each_train_like_one(one_rank: Path, tmp_path: Path) -> None:
    two_ranks = run_two_ranks(tmp_path / "run", *SCENES)
    assert losses(two_ranks)[:5] == pytest.approx(losses(one_rank)[:5], abs=1e-5)
    assert losses(two_ranks) == pytest.approx(losses(one_rank), abs=1e-4)
    ours, theirs = newest(two_ranks), newest(one_rank)
    assert ours["model"].keys() == theirs["model"].keys()
    for name, tensor in ours["model"].items():
        torch.testing.assert_close(
            tensor,
            theirs["model"][name],
            rtol=1e-3,
            atol=1e-4,
            msg=functools.partial("{1}: {0}".format, name),
        )
    assert [row for row in rows(two_ranks) if "health/std" in row] == [
        pytest.approx(row, abs=1e-3) for row in rows(one_rank) if "health/std" in row
    ]


def test_without_synchronised_batch_norm_they_do_not(one_rank: Path, tmp_path: Path) -> None:
    two_ranks = run_two_ranks(tmp_path / "run", *SCENES, "--hardware.sync_batch_norm=false")
    assert abs(losses(two_ranks)[0] - losses(one_rank)[0]) > 1e-3


def test_two_ranks_watch_knn_and_decode_in_workers_like_one(shapes_folder: Path, tmp_path: Path) -> None:
    options = [*images_of(shapes_folder), "--monitor.knn_every=1", "--monitor.knn_k=5", "--optim.lr=0.05"]
    two_ranks = run_two_ranks(tmp_path / "two", *options, "--data.workers=1", "--optim.epochs=2")
    complete(tmp_path / "one", *options, "--optim.epochs=2")
    assert losses(two_ranks) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    scores = [
        [row for row in rows(run) if any("knn" in key for key in row)]
        for run in (two_ranks, tmp_path / "one")
    ]
    assert [row["step"] for row in scores[0]] == [0, 5, 10]
    assert scores[0] == [
        pytest.approx(row, abs=5) for row in scores[1]
    ]  # two of the 40 images may fall otherwise


# Batch norm.


def normalise(
    runtime: Runtime, x: Tensor, weights: Tensor, kind: type[nn.Module], options: dict[str, Any]
) -> Any:
    """Two steps of a batch norm on this rank's share of x[2, N, C, …], and all that came of it."""
    norm = kind(x.shape[2], **options).to(x.dtype)
    if options.get("affine", True):
        torch.nn.init.normal_(norm.get_parameter("weight"), generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(norm.get_parameter("bias"), generator=torch.Generator().manual_seed(2))
    found: dict[str, Tensor] = {}
    for step in range(2):
        part = x[step].chunk(runtime.world_size)[runtime.rank].clone().requires_grad_()
        out = norm(part)
        (out * weights.chunk(runtime.world_size)[runtime.rank]).sum().backward()
        assert part.grad is not None
        found |= {f"out{step}": out.detach(), f"grad{step}": part.grad}
    gradients = {name: p.grad for name, p in norm.named_parameters() if p.grad is not None}
    buffers = {name: b.clone() for name, b in norm.named_buffers()}
    with torch.no_grad():
        found["eval"] = norm.eval()(x[0].chunk(runtime.world_size)[runtime.rank])
    return found, gradients, buffers


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}],
    ids=lambda o: str(o),
)
def test_synchronised_batch_norm_equals_batch_norm_on_the_whole_batch(
    world_size: int, options: dict[str, Any]
) -> None:
    x = torch.randn(2, 12, 5, 3, 4, dtype=torch.float64) * 3 + 7
    weights = torch.randn(x.shape[1:], dtype=torch.float64)
    whole, gradients, buffers = normalise(ALONE, x, weights, nn.BatchNorm2d, options)
    ranks = on_ranks(normalise, x, weights, SyncedBatchNorm, options, world_size=world_size)
    for name, expected in whole.items():
        if name == "eval" and not options.get("track_running_stats", True):
            continue  # without running statistics, evaluation sees one rank's share only, as torch's does
        together = torch.cat([found[name] for found, _, _ in ranks])
        torch.testing.assert_close(
            together, expected, rtol=1e-10, atol=1e-10, msg=functools.partial("{1}: {0}".format, name)
        )
    for name, expected in gradients.items():
        total = sum(gradient[name] for _, gradient, _ in ranks)
        torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)
    for name, expected in buffers.items():
        for _, _, found in ranks:
            torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-12)


def test_synchronised_batch_norm_on_vectors_in_half_precision_computes_in_float32() -> None:
    """More rows than bfloat16 can count; the statistics agree to float32, the output to bfloat16."""
    x = (torch.randn(2, 2 * 1027, 3) * 2 + 1).bfloat16()
    weights = torch.randn(x.shape[1:]).bfloat16()
    ranks = on_ranks(normalise_half, x, weights)
    reference = nn.BatchNorm1d(3)
    expected = reference(x[0].float())
    together = torch.cat([out for out, _ in ranks])
    assert together.dtype == torch.bfloat16
    torch.testing.assert_close(together.float(), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ranks[0][1], reference.running_var, rtol=1e-5, atol=1e-6)


def normalise_half(runtime: Runtime, x: Tensor, weights: Tensor) -> Any:
    norm = SyncedBatchNorm(3)
    out = norm(x[0].chunk(2)[runtime.rank])
    (out * weights.chunk(2)[runtime.rank]).sum().backward()
    return out.detach(), norm.running_var


def test_large_means_keep_their_digits_in_float32() -> None:
    """Values near 1000 with a spread of 1: sums of squares would lose the variance's last five digits."""
    x = torch.randn(2, 12, 5, 3, 4) + 1000
    weights = torch.randn(x.shape[1:])
    exact, _, buffers = normalise(ALONE, x.double(), weights.double(), nn.BatchNorm2d, {})
    ranks = on_ranks(normalise, x, weights, SyncedBatchNorm, {}, world_size=3)
    together = torch.cat([found["out0"] for found, _, _ in ranks])
    torch.testing.assert_close(together.double(), exact["out0"], rtol=2e-4, atol=2e-4)  # x has 6e-5 itself
    torch.testing.assert_close(ranks[0][2]["running_var"].double(), buffers["running_var"], rtol=2e-6, atol=0)


def of_shares(runtime: Runtime, x: Tensor, sizes: list[int]) -> Any:
    """Output, gradient, running statistics and the collectives of a step on shares of these sizes."""
    norm = SyncedBatchNorm(x.shape[1]).to(x.dtype)
    part = x.split(sizes)[runtime.rank].clone().requires_grad_()
    with torch.profiler.profile() as profile:
        out = norm(part)
        out.square().tanh().sum().backward()
    counts = {event.key: event.count for event in profile.key_averages() if event.key.startswith("c10d::")}
    return out.detach(), part.grad, norm.running_var, counts


def test_shares_may_differ_and_be_empty_and_each_direction_has_one_collective() -> None:
    x = torch.randn(12, 5, 3, 4, dtype=torch.float64) * 3 + 7
    whole, _, running_var, _ = of_shares(ALONE, x, [12])
    reference = nn.BatchNorm2d(5).double()
    torch.testing.assert_close(whole, reference(x), rtol=1e-12, atol=1e-12)
    ranks = on_ranks(of_shares, x, [5, 0, 7], world_size=3)
    assert [sum(counts.values()) for *_, counts in ranks] == [2, 2, 2], ranks[0][3]
    torch.testing.assert_close(torch.cat([out for out, *_ in ranks]), whole, rtol=1e-12, atol=1e-12)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(nn.BatchNorm2d(5).double()(x).square().tanh().sum(), x)
    torch.testing.assert_close(torch.cat([grad for _, grad, *_ in ranks]), expected, rtol=1e-10, atol=1e-12)
    for _, _, variance, _ in ranks:
        torch.testing.assert_close(variance, running_var, rtol=1e-12, atol=1e-12)


def compiled_and_not(runtime: Runtime) -> Any:
    """Losses of two steps of a small SimSiam, eager and with a backbone compiled in one piece, and the graphs
    compiled."""
    losses = []
    for whether in (False, True):
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
        backbone.append(nn.BatchNorm2d(4, momentum=None))
        model = runtime.distribute(backbone)
        if whether:
            backbone.compile(fullgraph=True, backend="aot_eager", dynamic=False)
        for step in range(2):
            x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step + 9 * runtime.rank))
            loss = model(x).square().tanh().mean()
            loss.backward()
            losses.append(loss.detach())
        losses += [p.grad for p in backbone.parameters() if p.grad is not None]
        losses += list(backbone.buffers())
    return losses[: len(losses) // 2], losses[len(losses) // 2 :]


def test_it_compiles_in_one_piece_on_two_ranks() -> None:
    for eager, compiled in on_ranks(compiled_and_not):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


# Gradient accumulation.


class Linear(nn.Module):
    """A method without batch norm, so that parts and ranks give exactly the whole batch's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4, dtype=torch.float64)

    def forward(self, views: list[Tensor]) -> StepOutput:
        z1, z2 = (self.layer(view) for view in views)
        return StepOutput((z1 * z2).sum(dim=1).tanh().mean(), [z1.detach(), z2.detach()])


def gradient_of_parts(runtime: Runtime, views: Tensor, parts: int) -> Any:
    torch.manual_seed(5)
    method = Linear()
    model = runtime.distribute(method)
    exchanged: list[int] = []
    if runtime.world_size > 1:
        model.register_comm_hook(exchanged, count_and_average)  # type: ignore[operator]
    share = [view.chunk(runtime.world_size)[runtime.rank] for view in views]
    loss, out = forward_backward(model, share, parts, runtime, runtime.scaler())
    assert method.layer.weight.grad is not None
    return (
        collectives.all_reduce_mean(loss),
        method.layer.weight.grad,
        len(out.projections[0]),
        len(exchanged),
    )


def count_and_average(exchanged, bucket):  # torch refuses the hook if its annotations are words
    exchanged.append(1)
    total = bucket.buffer() / torch.distributed.get_world_size()
    work = torch.distributed.all_reduce(total, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


@pytest.mark.parametrize(("world_size", "parts"), [(1, 3), (2, 1), (2, 3)])
def test_accumulated_parts_give_the_gradient_of_the_whole_batch(world_size: int, parts: int) -> None:
    views = torch.randn(2, 12, 6, dtype=torch.float64)
    loss, gradient, _, _ = gradient_of_parts(ALONE, views, 1)
    results = (
        on_ranks(gradient_of_parts, views, parts, world_size=world_size)
        if world_size > 1
        else [gradient_of_parts(ALONE, views, parts)]
    )
    for found_loss, found, rows_of_last_part, exchanges in results:
        torch.testing.assert_close(found_loss, loss, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)
        assert rows_of_last_part == 12 // world_size // parts
        assert exchanges == (1 if world_size > 1 else 0), "ranks exchange gradients once, whatever the parts"


def test_accumulated_parts_have_batch_norm_statistics_of_their_own() -> None:
    views = list(torch.randn(2, 8, 6, dtype=torch.float64))

    class Normed(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6, dtype=torch.float64)

        def forward(self, views: list[Tensor]) -> StepOutput:
            return super().forward([self.norm(view) for view in views])

    torch.manual_seed(5)
    method = Normed()
    forward_backward(method, views, 2, ALONE, ALONE.scaler())
    found = method.layer.weight.grad
    method.zero_grad()
    for part in range(2):
        (method([view.chunk(2)[part] for view in views]).loss / 2).backward()
    assert found is not None
    assert method.layer.weight.grad is not None
    torch.testing.assert_close(found, method.layer.weight.grad)
    method.zero_grad()
    method(views).loss.backward()
    assert not torch.allclose(found, method.layer.weight.grad, rtol=1e-3)


# What ranks tell one another.


def what_ranks_exchange(runtime: Runtime) -> Any:
    tensor = torch.tensor([[1.0 + runtime.rank, 10.0]])
    before = tensor.clone()
    found = (
        collectives.all_reduce(tensor),
        collectives.all_reduce_mean(tensor),
        collectives.all_gather(tensor),
        collectives.broadcast_object({"rank": runtime.rank}),
    )
    words = collectives.all_gather_object(["a", "b"][: runtime.rank])
    assert torch.equal(tensor, before), "nothing is changed in place"
    collectives.barrier()
    return (*found, words, runtime.is_main)


def test_sum_mean_gather_share_and_collect() -> None:
    for rank, (total, mean, gathered, shared, words, is_main) in enumerate(
        on_ranks(what_ranks_exchange, world_size=3)
    ):
        assert total.tolist() == [[6.0, 30.0]]
        assert mean.tolist() == [[2.0, 10.0]]
        assert gathered.tolist() == [[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]]
        assert shared == {"rank": 0}
        assert words == ["a", "a", "b"], "none of rank 0, one of rank 1, two of rank 2"
        assert is_main == (rank == 0)


def download_once(runtime: Runtime, folder: str, needed: bool) -> Any:
    with collectives.rank_by_rank(needed=needed):
        there = (Path(folder) / "set").exists()
        time.sleep(0.2)
        (Path(folder) / "set").touch()
    return there


def test_ranks_take_turns_where_they_must(tmp_path: Path) -> None:
    assert on_ranks(download_once, str(tmp_path), True, world_size=3) == [False, True, True]
    with collectives.rank_by_rank():
        pass
    started = []
    with collectives.rank_by_rank(needed=False):
        started.append(1)
    assert started == [1]


class Numbers:
    """Images whose every pixel is their own number."""

    fingerprint = "numbers"

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def image(self, index: int) -> Any:
        return np.full((8, 8, 3), index, np.uint8)


def features_of_numbers(runtime: Runtime, length: int) -> Tensor:
    backbone = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    return extract(
        backbone, Numbers(length), Transform(8, None, (0.0,) * 3, (1 / 255,) * 3), runtime, batch=3
    )


@pytest.mark.parametrize("length", [1, 2, 7])
def test_features_of_several_ranks_come_back_in_order(length: int) -> None:
    for found in on_ranks(features_of_numbers, length, world_size=3):
        torch.testing.assert_close(found, torch.arange(length)[:, None].expand(-1, 3).float())
