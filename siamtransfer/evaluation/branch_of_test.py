"""Another backbone of the same checkpoint for the test images: that of a second column, such as a second
camera's, whose features are looked for among those of the first."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.read_backbone import ReadBackbone, load_backbone
from siamtransfer.data import ImageSet
from siamtransfer.evaluation.config import EvaluationConfig
from siamtransfer.evaluation.labelled_images import require_channels
from siamtransfer.features.extract import Transform
from siamtransfer.utils.errors import UserError

COLUMN = "column"
"""The branch of the test images that is that of their column."""


def open_test_branch(
    source: str, config: EvaluationConfig, read: ReadBackbone | None, test: ImageSet | None
) -> tuple[Backbone, ReadBackbone] | None:
    """The backbone that sees the test images, where it is another than that of train.

    Raises:
        UserError: there is no such branch, there are no test images, or they have other channels.
    """
    wanted = config.branch_of_test
    if wanted == config.branch or read is None:
        return None
    if test is None:
        raise UserError(
            "--test-branch is for test images, and train alone is scored, leave-one-out: name others by "
            "--data.test-column, --data.test-root or --data.test-list-file"
        )
    if wanted == COLUMN and "second" not in read.branches:
        return None  # one backbone has learned from all columns
    wanted = "second" if wanted == COLUMN else wanted
    other = load_backbone(source, branch=wanted, trust_pickle=config.trust_pickle, options=config)
    require_channels(f"{source}, branch {wanted},", other[0], test)
    return other


def protocol_of_test(read: ReadBackbone | None, transform: Transform) -> dict[str, Any]:
    """What a protocol says of that backbone: which it is, and how its images are prepared."""
    return {"test_branch": read.branch if read else None, "test_transform": asdict(transform)}


def provenance_of_test(read: ReadBackbone | None) -> dict[str, Any]:
    """What a record's provenance says of its weights."""
    return {} if read is None else {"test_weights_digest": read.digest}
