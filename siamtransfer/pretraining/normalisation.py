"""Mean and std of a run whose configuration and recipe state none: as in its checkpoint, or measured."""

from __future__ import annotations

from typing import Any

from siamtransfer.checkpoints.normalisation import Normalisation, describe_normalisation
from siamtransfer.data import ImageSet
from siamtransfer.data.channel_statistics import measure_channels
from siamtransfer.distributed import collectives
from siamtransfer.utils.log import say
from siamtransfer.views.view_spec import Numbers


def saved_normalisation(saved: dict[str, Any] | None, channels: int) -> tuple[Numbers, Numbers] | None:
    """That of the run to be resumed, or of one of its branches, where its images had so many channels."""
    if saved is None:
        return None
    mean, std = (tuple(saved["normalisation"][key]) for key in ("mean", "std"))
    return (mean, std) if len(mean) == channels else None


def measure_normalisation(images: ImageSet) -> tuple[Numbers, Numbers]:
    """Mean and std of the channels, measured by rank 0, which says them."""
    with collectives.own_pace("measuring the channels"):
        measured = measure_channels(images) if collectives.rank() == 0 else None
    found = collectives.broadcast_object(measured)
    assert found is not None
    if collectives.rank() == 0:
        text = describe_normalisation(Normalisation(found.mean, found.std))
        say(
            f"channels: mean/std are {text}, measured from {found.images} images; "
            "views.mean and views.std state others"
        )
    return found.mean, found.std
