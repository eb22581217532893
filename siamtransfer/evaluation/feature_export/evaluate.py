"""Writes the features of a labelled set as an .npz of `features` and `labels`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.feature_export.config import FeaturesConfig
from siamtransfer.evaluation.frozen_model import labelled_features
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, digest_of_file
from siamtransfer.utils.log import say


def evaluate(config: FeaturesConfig, runtime: Runtime) -> Result | None:
    """Extracts and writes; the metrics are the numbers of images and of features. None on all ranks but the
    first.

    Raises:
        UserError: the set has no such split, the file cannot be written, or whatever reading checkpoint or
            images finds.
    """
    data = labelled_features(config.checkpoint, config, runtime)
    if not runtime.is_main:
        return None
    split = data.train if config.part == "train" else data.test
    if split is None:
        raise UserError("the set has no test part: only --part train can be written")
    assert split.labels is not None
    assert config.out is not None
    out, features, labels = Path(config.out), split.tensor.numpy(), split.labels.numpy()
    with atomic_write(out) as file:
        np.savez(file, features=features, labels=labels)
    say(f"wrote {out}: features{list(features.shape)} and labels of {data.protocol[config.part]}")
    return Result(
        "features",
        {"images": float(len(features)), "dim": float(features.shape[1])},
        {**data.protocol, "part": config.part},
        {**data.provenance, "out": str(out), "out_digest": digest_of_file(out)},
    )
