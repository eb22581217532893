"""The device, the arithmetic and the ranks of a process.

What ranks tell each other is in collectives.py, how they wait at their store in meeting.py; no other file of
the library asks torch.distributed.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from siamtransfer.distributed import collectives
from siamtransfer.distributed.buckets import settle_buckets
from siamtransfer.distributed.meeting import LostRanks, Meeting, explain, is_loss
from siamtransfer.distributed.sharding import shard
from siamtransfer.metering.meter import watch_gpu
from siamtransfer.utils.checks import check_timeout
from siamtransfer.utils.errors import UserError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
_NEW_NAME = "forward_sync_buffers"  # of DistributedDataParallel's option broadcast_buffers, from torch 2.14
_TAKES = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_BUFFERS_OPTION = _NEW_NAME if _NEW_NAME in _TAKES else "broadcast_buffers"
TIMEOUT_MINUTES = 30.0  # how long a rank waits in a collective for the others
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """The device and the dtype of a process, and its rank among `world_size` ranks, of which
    `local_world_size` are on this machine."""

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes files and talks to people."""
        return self.rank == 0

    @property
    def precision(self) -> str:
        """The arithmetic's name as the configuration spells it."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Mixed precision for forward passes; nothing in float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler that float16 needs; it does nothing for the other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def distribute(
        self,
        model: nn.Module,
        *,
        synchronise_batch_norm: bool = True,
        kind: Literal["torch", "single-exchange"] = "torch",
        units: Sequence[str] | None = None,
    ) -> nn.Module:
        """Moves `model` to the device; with several ranks, averages its gradients and synchronises its batch
        norms. `kind` chooses torch's SyncBatchNorm or ours (distributed/batchnorm.py) on CUDA; on the CPU,
        where torch's refuses to work, it is always ours. With `units`, names of modules, the
        ranks share the parameters, and gather those of one such module at a time; see `sharding.shard`."""
        model = model.to(self.device)
        if self.world_size == 1:
            return model
        if synchronise_batch_norm:
            from siamtransfer.distributed.batchnorm import synchronise, synchronise_by_torch

            if self.device.type == "cuda" and kind == "torch":
                model = synchronise_by_torch(model)
            else:
                synchronise(model)
        if units is not None:
            shard(model, [model.get_submodule(name) for name in units], self.device)
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        sends_buffers = {_BUFFERS_OPTION: not synchronise_batch_norm}  # synchronised ones are equal already
        distributed = nn.parallel.DistributedDataParallel(model, device_ids=ids, **sends_buffers)  # type: ignore[arg-type]
        settle_buckets(distributed)
        return distributed


def unwrap(model: nn.Module) -> Any:
    """The module that `Runtime.distribute` was given."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@contextlib.contextmanager
def start_runtime(
    device: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    timeout_minutes: float = TIMEOUT_MINUTES,
) -> Iterator[Runtime]:
    """Joins the ranks that torchrun started (NCCL on GPUs, gloo on CPUs) and leaves them at the end.

    `device`: auto (the GPU where there is one), cuda, cuda:N or cpu. `precision`: auto is bfloat16 on GPUs
    that have it, float16 on older ones and float32 on the CPU. `threads` is how many threads torch computes
    with on the CPU (None: its own choice), until the end. `timeout_minutes` is how long a rank waits in a
    collective for the others.

    Raises:
        UserError: the device does not exist here or cannot do the precision; the time-out is no time.
        LostRanks: a collective cannot end, because a rank is gone or later than the time-out.
    """
    check_timeout(timeout_minutes)
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch_device = _find_device(device, int(os.environ.get("LOCAL_RANK", 0)), world_size)
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if torch_device.type == "cuda":
        torch.cuda.set_device(torch_device)  # whose arithmetic precision: auto asks about
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        watch_gpu(torch_device.index)
    runtime = Runtime(torch_device, _find_dtype(precision, torch_device), rank, world_size, local_world_size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with (
            _join(runtime, timedelta(minutes=timeout_minutes)) if world_size > 1 else contextlib.nullcontext()
        ):
            yield runtime
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _join(runtime: Runtime, timeout: timedelta) -> Iterator[None]:
    """The process group and the meeting of its ranks, until the end; see `start_runtime` for errors."""
    backend = "nccl" if runtime.device.type == "cuda" else "gloo"
    try:
        store = _init_process_group(backend, timeout)
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise LostRanks(
            f"the {runtime.world_size} ranks did not come together ({str(error).splitlines()[0]}): start as "
            "many processes as WORLD_SIZE says, and look whether every machine reaches MASTER_ADDR at "
            "MASTER_PORT"
        ) from error
    # A store outlives an attempt of torchrun, so every attempt has points of its own.
    attempt = collectives.broadcast_object(uuid.uuid4().hex)
    meeting = Meeting(
        dist.PrefixStore(attempt, store),
        runtime.rank,
        runtime.world_size,
        timeout.total_seconds(),
        warns=backend == "nccl",
    )
    collectives.use_meeting(meeting)
    lost = False
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        lost = True
        raise explain(error, meeting) from error
    finally:
        collectives.use_meeting(None)
        if not (lost and backend == "nccl"):  # whose end would wait for the lost rank
            dist.destroy_process_group()
        meeting.leave()


def _init_process_group(backend: str, timeout: timedelta) -> dist.Store:
    """Joins the process group, after a restart by torchrun under names of its own; returns its store.

    torchrun keeps one store for all its attempts, where restarted ranks would find the addresses of dead ones
    (pytorch issue 135712) and fail or wait for ever. Several machines count their attempts each for itself,
    so there the attempts share names; TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, set for torchrun, is the cure.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        attempt = "0"
    store, rank, world_size = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    own = dist.PrefixStore(f"attempt-{attempt}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=timeout)
    return own


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Makes torch's own random numbers (drop-path and the like) a function of (seed, step, rank), so that
    a resumed run needs no generator state."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4_099 + rank) % 2**64)  # of torch's range


@contextlib.contextmanager
def exact_matmul() -> Iterator[None]:
    """Matrix products in full float32 on GPUs, where the rest of a run may use TF32's ten bits."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def cpu_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_device(name: str, local_rank: int, world_size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"hardware.device {name!r} is no device: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(f"hardware.device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UserError(
            f"the device {name} was asked for and torch finds no GPU: use --hardware.device cpu of pretrain, "
            "--device cpu of other programs"
        )
    index = device.index if device.index is not None and world_size == 1 else local_rank
    if index >= torch.cuda.device_count():
        raise UserError(
            f"GPU {index} was asked for and this machine has {torch.cuda.device_count()}: "
            "start no more processes per node than GPUs"
        )
    return torch.device("cuda", index)


def _find_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision != "auto":
        if precision == "float16" and device.type == "cpu":
            raise UserError("float16 needs a GPU: use --hardware.precision bfloat16 or float32 on the CPU")
        return _DTYPES[precision]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if has_native_bfloat16() else torch.float16


def has_native_bfloat16() -> bool:
    """Whether the current GPU computes in bfloat16 itself.

    By default torch says yes also where it emulates bfloat16 in float32, as on a T4 or V100; there float16 is
    several times faster.
    """
    return torch.cuda.is_bf16_supported(including_emulation=False)
