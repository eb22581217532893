"""The features of transformed images: how far each has moved, and whether neighbours still name its class.

Legend: n images, D features, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data.imageset import channels_of
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.invariance.movement import cosine_distances
from siamtransfer.evaluation.invariance.subjects import Parts, Subject
from siamtransfer.evaluation.invariance.transformations import transformed
from siamtransfer.evaluation.knn.search import search_over_ranks
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.vote import score_neighbours
from siamtransfer.features.extract import Pass, pixel_share
from siamtransfer.features.progress import PassProgress
from siamtransfer.metering.meter import ImageClock
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.utils.errors import UserError

MOST_BYTES = 4 * 2**30
"""Of the crops, which are in memory while all versions are made of them."""

Version = tuple[str, float]
"""The name of a transformation, and a strength above 0."""


@dataclass(eq=False)
class Followed:
    """What became of the features of one network.

    Attributes:
        name: see Subject.
        unit: float64[n, D], the features of the images as they are, of length one.
        clean: bool[n], whether the neighbours of an image as it is name its class.
        distances: float64[n] of each version, 1 - cos.
        right: bool[n] of each version, whether its neighbours name the class.
    """

    name: str
    unit: np.ndarray
    clean: np.ndarray
    distances: dict[Version, np.ndarray] = field(default_factory=dict)
    right: dict[Version, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Vote:
    """The vote of the k nearest images of a bank."""

    k: int
    temperature: float
    runtime: Runtime

    def right(self, subject: Subject, queries: Tensor) -> np.ndarray | None:
        """bool[n]: whether it names the class of queries float32[n, D]; None on all ranks but the first."""
        similarities, indices = search_over_ranks(
            subject.bank.features,
            queries,
            self.k,
            leave_one_out=False,
            options=SearchOptions("cosine"),
            runtime=self.runtime,
        )
        if not self.runtime.is_main:
            return None
        assert subject.bank.labels is not None
        assert subject.queries.labels is not None
        scores = score_neighbours(
            similarities, indices, subject.bank.labels, subject.queries.labels, [self.k], [self.temperature]
        )
        (predicted,) = scores.predictions.values()
        right: np.ndarray = predicted == subject.queries.labels.numpy()
        return right


def read_crops(model: FrozenModel, parts: Parts) -> Tensor:
    """The crops uint8[m, C, S, S] of this rank's queries: rank, rank + world_size, …

    Raises:
        UserError: they would take more memory than MOST_BYTES.
        UnreadableImage: an image cannot be read.
    """
    transform, images = model.transform, len(parts.queries)
    channels = channels_of(parts.queries)
    size = channels * transform.crop**2
    if images * size > MOST_BYTES:
        raise UserError(
            f"the crops of {images} images take {images * size / 2**30:.1f} GiB of memory, and "
            f"{MOST_BYTES >> 30} are the most: follow fewer with --images {MOST_BYTES // size}"
        )
    options = Pass(model.runtime, model.config.forward_batch_size, model.workers, what="reading images")
    return pixel_share(parts.queries, transform, options).view(-1, channels, transform.crop, transform.crop)


def follow(
    crops: Tensor,
    places: np.ndarray,
    subjects: Sequence[Subject],
    strengths: Mapping[str, Sequence[float]],
    vote: Vote,
    *,
    seed: int,
    batch: int,
) -> list[Followed]:
    """Every subject's features of every version; empty on all ranks but the first.

    Args:
        crops: of this rank's images, see `read_crops`.
        places: int64[n], of all images in their set.

    Raises:
        UserError: a feature is not finite.
    """
    runtime = vote.runtime
    versions = [(name, strength) for name, values in strengths.items() for strength in values]
    progress = PassProgress("transformed images", len(versions) * len(places), shown=runtime.is_main)
    followed = []
    for subject in subjects:
        clean = vote.right(subject, subject.queries.tensor)
        if clean is not None:
            unit = unit_rows(subject.queries.tensor, torch.float64).numpy()
            followed.append(Followed(subject.name, unit, clean))
    own = places[runtime.rank :: runtime.world_size]
    for number, (name, strength) in enumerate(versions):
        shares = _moved(crops, own, subjects, (name, strength), runtime, seed=seed, batch=batch)
        for place, (subject, share) in enumerate(zip(subjects, shares, strict=True)):
            moved = collectives.all_gather_rows(share, len(places), runtime.device)
            right = vote.right(subject, moved)
            if right is not None:
                one = followed[place]
                one.right[name, strength] = right
                rows = unit_rows(moved, torch.float64).numpy()
                one.distances[name, strength] = cosine_distances(one.unit, rows)
        progress.done((number + 1) * len(places))
    return followed


def _moved(
    crops: Tensor,
    places: np.ndarray,
    subjects: Sequence[Subject],
    version: Version,
    runtime: Runtime,
    *,
    seed: int,
    batch: int,
) -> list[Tensor]:
    """float32[m, D] of each subject: its features of one version of this rank's crops.

    The batches are those of the features of the images as they are, so equal pixels have equal features.

    Raises:
        UserError: a feature of some rank is not finite.
    """
    rows: list[list[Tensor]] = [[] for _ in subjects]
    clock = ImageClock()
    error: UserError | None = None
    try:
        for begin in range(0, len(crops), batch):
            chunk = slice(begin, begin + batch)
            seen = transformed(crops[chunk].to(runtime.device), *version, places[chunk], seed)
            for subject, kept in zip(subjects, rows, strict=True):
                kept.append(subject.forward(seen))
            clock.count(len(seen))
    except UserError as problem:
        error = problem
    with collectives.own_pace("following features"):
        if error is not None:
            raise error
    widths = [subject.queries.tensor.shape[1] for subject in subjects]
    return [
        torch.cat(kept) if kept else torch.empty(0, width) for kept, width in zip(rows, widths, strict=True)
    ]
