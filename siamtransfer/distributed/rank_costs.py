"""What the ranks of a job cost together."""

from __future__ import annotations

from siamtransfer.distributed import collectives
from siamtransfer.distributed.meeting import LostRanks, is_loss
from siamtransfer.metering.meter import Meter, current_meter
from siamtransfer.utils.errors import UserError


def share_costs(meter: Meter | None = None) -> None:
    """Tells `meter`, or else the current one, of every rank what the others cost up to now. All ranks must
    call it; they wait for the slowest, without a time-out.

    Where rank 0 fails meanwhile, the others return quietly: its own message says why.
    """
    meter = meter or current_meter()
    if meter is None or collectives.world_size() == 1:
        return
    try:
        collectives.barrier("the work before its cost is added up")
        costs = collectives.all_gather_object([meter.read_own()])
    except (RuntimeError, UserError) as error:
        if collectives.rank() == 0 or not (isinstance(error, LostRanks) or is_loss(error)):
            raise
        return
    meter.others = [cost for rank, cost in enumerate(costs) if rank != collectives.rank()]
