"""What ranks tell each other: torch.distributed's operations, each the identity in a process that is alone.

So a loss, a monitor or an evaluator reads the same on one rank and on many. Names are torch's; `_with_grad`
marks those that gradients pass through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from siamtransfer.distributed.meeting import Meeting
from siamtransfer.utils.errors import UserError

T = TypeVar("T")

GATHER_BYTES = 2**27  # on the device, while rows of all ranks are gathered
_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its name from torch 2.14


def world_size() -> int:
    """How many ranks there are; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


_meeting: Meeting | None = None


def use_meeting(meeting: Meeting | None) -> None:
    """Sets where the ranks of this process wait for one another outside of collectives."""
    global _meeting
    _meeting = meeting


@contextlib.contextmanager
def own_pace(what: str) -> Iterator[None]:
    """Work that ranks do at different speeds, or that some of them do not do; returns when all have done it.

    The ranks wait at their store and not in a collective, so no time-out passes while a slow one works; see
    `Meeting`. `what` names the work in messages ("saving the state"). Only where another library has joined
    the ranks, there is no such store and they wait in a collective.

    Raises:
        UserError: on every rank, where the work of one raised it.
        LostRanks: a rank that is waited for gives no sign of life.
    """
    if world_size() == 1:
        yield
    elif _meeting is not None:
        with _meeting.own_pace(what):
            yield
    else:
        yield
        dist.barrier()


def set_doing(what: str) -> None:
    """Says what this rank does from now on, for the sentence about a lost or late rank."""
    if _meeting is not None:
        _meeting.set_doing(what)


def barrier(what: str = "the work before") -> None:
    """Returns when every rank has called it; see `own_pace`."""
    with own_pace(what):
        pass


@contextlib.contextmanager
def rank_by_rank(what: str = "their turns", *, needed: bool = True) -> Iterator[None]:
    """Lets the ranks do `what` one after the other (or, where not `needed`, all at once): a download that
    the first rank has finished is there for the next. Either way all have done it at the end."""
    if not needed:
        with own_pace(what):
            yield
        return
    for turn in range(world_size()):
        with own_pace(what):
            if turn == rank():
                yield


def local_rows(n: int, device: torch.device) -> Tensor:
    """The positions of this rank's `n` rows among those of all ranks, int64[n]."""
    return torch.arange(n, device=device) + n * rank()


def broadcast(x: Tensor) -> Tensor:
    """Rank 0's tensor on every rank, written into each rank's own `x` of the same shape and dtype."""
    if world_size() > 1:
        dist.broadcast(x, src=0)
    return x


def broadcast_object(value: T) -> T:
    """Rank 0's picklable `value`, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(items: list[T]) -> list[T]:
    """The picklable `items` of all ranks, in rank order, on every rank."""
    if world_size() == 1:
        return items
    lists: list[list[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(lists, items)
    return [item for local in lists for item in local]


@torch.no_grad()
def all_gather(x: Tensor) -> Tensor:
    """Rows [n, …] of all ranks as [world_size * n, …] in rank order, as constants."""
    if world_size() == 1:
        return x.detach()
    x = x.detach().contiguous()
    gathered = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(gathered, x)
    return torch.cat(gathered)


@torch.no_grad()
def all_gather_flat(x: Tensor) -> Tensor:
    """The numbers [n] of every rank as rows [world_size, n], as constants; torch.compile can trace it."""
    if world_size() == 1:
        return x.detach()[None]
    gathered = x.new_empty(world_size() * len(x))
    _GATHER(gathered, x.detach())
    return gathered.view(world_size(), len(x))


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Rows of all ranks [world_size * n, …]. The gradient of a row goes back to the rank that it came from,
    summed over the ranks whose losses it entered."""
    return _AllGather.apply(x) if world_size() > 1 else x


def all_gather_rows(
    local: Tensor | None, total: int, device: torch.device, *, keep_on_device: bool = False
) -> Tensor:
    """Rows that the ranks computed in turn (rank r: r, r + world_size, …) in their order [total, n], on every
    rank and on the CPU; on `device` with `keep_on_device`.

    They pass through the device a block at a time, so that beside the result a rank holds GATHER_BYTES.
    `local` is None where a rank has no rows and does not know their width or dtype (float32).
    """
    target = device if keep_on_device else torch.device("cpu")
    if world_size() == 1:
        assert local is not None
        return local.to(target)
    rows: Tensor | None = None
    begin = 0
    for block in gather_blocks(local, total, device):
        if rows is None:
            rows = torch.empty(total, block.shape[1], dtype=block.dtype, device=target)
        rows[begin : begin + len(block)] = block
        begin += len(block)
    assert rows is not None
    return rows


def gather_blocks(local: Tensor | None, total: int, device: torch.device) -> Iterator[Tensor]:
    """The rows of `all_gather_rows` in their order, a block at a time, each on `device` and on every rank.

    Every rank must take all blocks, for each of them is a collective.
    """
    ranks = world_size()
    widths = all_gather(torch.tensor([0 if local is None else local.shape[1]], device=device))
    width, dtype = int(widths.max()), torch.float32 if local is None else local.dtype
    share = -(-total // ranks)
    step = max(1, GATHER_BYTES // max(1, 4 * width * dtype.itemsize * ranks))  # four copies at most
    for begin in range(0, share, step):
        padded = torch.zeros(min(step, share - begin), width, dtype=dtype, device=device)
        if local is not None:
            mine = local[begin : begin + step]
            padded[: len(mine)] = mine.to(device)
        gathered = all_gather(padded).view(ranks, len(padded), width)
        yield gathered.transpose(0, 1).flatten(0, 1)[: total - begin * ranks]


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
    """Makes a UserError of one rank an error of all: each rank leaves with its own error, or with that of the
    first rank that has one. Without it the others would wait for the rank that has left."""
    error: UserError | None = None
    try:
        yield
    except UserError as problem:
        error = problem
    texts = all_gather_object([str(error)] if error else [])
    if error is not None:
        raise error
    if texts:
        raise UserError(texts[0])


@torch.no_grad()
def all_reduce(x: Tensor) -> Tensor:
    """The sum of `x` over ranks, as a constant."""
    if world_size() == 1:
        return x.detach()
    summed = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean of `x` over ranks, as a constant."""
    return all_reduce(x) / world_size()


def all_reduce_with_grad(x: Tensor) -> Tensor:
    """The sum over ranks; its gradient on every rank is the sum of the ranks' gradients."""
    return _AllReduce.apply(x) if world_size() > 1 else x


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_gather(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient).chunk(world_size())[rank()]


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient)
