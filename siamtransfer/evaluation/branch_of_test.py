"""Another backbone of the same checkpoint for the test images: that of a second column, such as a second
camera's, whose features are looked for among those of the first.

What a record says of it is in the provenance, as of any weights, so that records of one network for both
columns and of two compare.
"""

from __future__ import annotations

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
    source: str,
    config: EvaluationConfig,
    read: ReadBackbone | None,
    train: ImageSet,
    test: ImageSet | None,
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
    if wanted == COLUMN:
        if "second" not in read.branches:
            return None  # one backbone has learned from all columns
        if config.data.test_column is not None and train.name == test.name:
            return None  # all images are of one column
        others = [name for name in read.branches if name != "second"]
        wanted = others[0] if read.branch == "second" else "second"
    other = load_backbone(source, branch=wanted, trust_pickle=config.trust_pickle, options=config)
    require_channels(f"{source}, branch {wanted},", other[0], test)
    return other


def protocol_of_test(train: Transform, test: Transform) -> dict[str, Any]:
    """What a protocol says of how the test images are prepared, where crop, size or interpolation are others
    than those of train; mean and deviation belong to the weights."""
    settings = ("crop", "resize", "interpolation")
    own = {name: getattr(test, name) for name in settings}
    return {} if own == {name: getattr(train, name) for name in settings} else {"test_transform": own}


def provenance_of_test(read: ReadBackbone | None, transform: Transform) -> dict[str, Any]:
    """What a record's provenance says of that backbone."""
    if read is None:
        return {}
    return {
        "test_branch": read.branch,
        "test_weights_digest": read.digest,
        "test_normalisation": {"mean": list(transform.mean), "std": list(transform.std)},
    }
