"""Writes a backbone's features of a labelled set as an .npz that eval/knn.py, eval/linear.py and NumPy read.

    python eval/features.py runs/demo/checkpoint.pth train.npz
    python eval/features.py runs/demo/checkpoint.pth test.npz --part test
    python eval/features.py swav.pth.tar train.npz --data.name imagenet --data.root /data/imagenet

The file holds `features` float32[N,D] and `labels` int64[N] in the set's order, uncompressed, so that a large
one can be searched without loading it. Features are extracted once and kept (see --cache).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.cli import run
from siamtransfer.config import Parser, parse
from siamtransfer.distributed.runtime import start_runtime
from siamtransfer.evaluation.frozen_model import EvaluationConfig, labelled_features
from siamtransfer.records.predictions import publish
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write, digest_of_file, refuse_outputs
from siamtransfer.utils.log import say


def main(argv: list[str] | None = None) -> dict[str, Any] | None:
    """The command line; returns the record on rank 0."""
    config, asked = parse(EvaluationConfig, description=__doc__, arguments=_arguments, argv=argv)
    out = Path(asked.out)
    if config.train_features or config.test_features:
        raise UserError("eval/features.py makes feature files: give it a checkpoint and a set of images")
    if out.suffix != ".npz":
        raise UserError(f"{out} must end in .npz")
    refuse_outputs(asked.checkpoint, [out], force=asked.force)
    with start_runtime(config.device, config.precision) as runtime:
        found = labelled_features(asked.checkpoint, config, runtime)
        if not runtime.is_main:
            return None
    part = found.train if asked.part == "train" else found.test
    if part is None:
        raise UserError("the set has no test part: only --part train can be written")
    assert part.labels is not None
    features, labels = part.tensor.numpy(), part.labels.numpy()
    with atomic_write(out) as file:
        np.savez(file, features=features, labels=labels)
    say(f"wrote {out}: features{list(features.shape)} and labels of {found.protocol[asked.part]}")
    document = record(
        "features",
        {"images": float(len(features)), "dim": float(features.shape[1])},
        {**found.protocol, "part": asked.part},
        **found.provenance,
        out=str(out),
        out_digest=digest_of_file(out),
    )
    return publish(document, None, config.record)


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "checkpoint",
        help="checkpoint of any known format, or a baseline: random:NAME, torchvision:NAME, pixels",
    )
    parser.add_argument("out", metavar="OUT.npz", help="the file to write")
    parser.add_argument("--part", choices=["train", "test"], default="train", help="which part of the set")
    parser.add_argument("--force", action="store_true", help="replace OUT.npz where it exists")


if __name__ == "__main__":
    run(main)
