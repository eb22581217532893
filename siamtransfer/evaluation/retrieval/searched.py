"""A database searched for queries: descriptors, whitening, distractors, and the places of the listed images.

Image retrieval and copy detection both do this; they differ in their sets and in what they count.

Legend: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from siamtransfer.data.folders import FileImages
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.retrieval.config import DescriptorConfig, QueryCrop
from siamtransfer.evaluation.retrieval.descriptors import DescriptorModel
from siamtransfer.evaluation.retrieval.ground_truth import Box
from siamtransfer.evaluation.retrieval.ranking import NearerDistractors, places
from siamtransfer.evaluation.retrieval.sets import images_below
from siamtransfer.evaluation.retrieval.whitening import learn_whitening
from siamtransfer.utils.log import say


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        listed: for each of Q queries int64[n], the rows of the database whose places are wanted.
        distractors: folder of more images that are searched, or None.
        crop, boxes: how queries are cut to their boxes.
    """

    queries: FileImages
    database: FileImages
    listed: Sequence[np.ndarray]
    distractors: str | None = None
    crop: QueryCrop = "none"
    boxes: Sequence[Box | None] | None = None


@dataclass(frozen=True)
class Searched:
    """The places from 0 of the listed images in the list of each query, int64[n], and what a record says."""

    places: list[np.ndarray]
    protocol: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def run_search(search: Search, config: DescriptorConfig, runtime: Runtime) -> Searched:
    """Describes all images and ranks the database with the distractors for every query, on every rank alike.

    Raises:
        UserError: the checkpoint or an image cannot be read, or a folder has no images.
    """
    distractors = (
        None
        if search.distractors is None
        else images_below(search.distractors, "--data.distractors", search.database.form)
    )
    model = DescriptorModel.open(config, runtime)
    if runtime.is_main:
        more = f" and {len(distractors)} distractors" if distractors else ""
        say(f"{len(search.queries)} queries search {len(search.database)} images{more}")
    whitening = learn_whitening(model, config, search.database.form)
    queries = model.describe(search.queries, "queries", crop=search.crop, boxes=search.boxes)
    database = whitening.apply(model.describe(search.database, "database"))
    queries = whitening.apply(queries)
    found = places(database, queries, search.listed)
    protocol: dict[str, Any] = {
        "queries": len(search.queries),
        "database": len(search.database),
        "distractors": 0,
        **search.database.form.as_dict(),
        **model.protocol,
        "whitening": whitening.protocol,
        "similarity": "cosine; of equal ones the first image of the database, then distractors",
    }
    provenance = {
        **model.provenance,
        "queries_fingerprint": search.queries.fingerprint,
        "database_fingerprint": search.database.fingerprint,
        "whitening_fingerprint": whitening.fingerprint,
        "distractors_fingerprint": distractors.fingerprint if distractors else None,
    }
    if distractors is not None:
        nearer = NearerDistractors(database, queries, search.listed)
        mine = range(runtime.rank, len(distractors), runtime.world_size)
        with collectives.own_pace("describing the distractors"):
            for _, block in model.blocks(distractors, mine, "distractors", skip=config.skip_unreadable):
                nearer.add(whitening.apply(block))
        found = [own + counts for own, counts in zip(found, nearer.counts(), strict=True)]
        protocol["distractors"] = taken = nearer.images
        if taken < len(distractors):
            protocol["unreadable_distractors"] = len(distractors) - taken
    return Searched(found, protocol, provenance)
