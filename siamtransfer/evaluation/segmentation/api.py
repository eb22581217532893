"""The segmentation probes as a function for notebooks and scripts.

    train, val = (open_segmentation("voc2012", root="VOC", split=split) for split in ("train", "val"))
    print(segmentation_probes("dino.pth", train, val, probe=["linear"], window=448))

It does what `siamtransfer segmentation` does, prints nothing and writes no record.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.distributed.runtime import Precision, start_runtime
from siamtransfer.evaluation.api import moved
from siamtransfer.evaluation.api_inputs import BackboneSource, open_backbone
from siamtransfer.evaluation.dense.config import FrozenConfig
from siamtransfer.evaluation.dense.model import DEFAULT_SIDE, DenseModel
from siamtransfer.evaluation.evaluator import with_cost
from siamtransfer.evaluation.segmentation.config import ProbeName, SegmentationConfig
from siamtransfer.evaluation.segmentation.evaluate import score
from siamtransfer.records.result import Result
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.data.registry import SCENES
from siamtransfer.utils.errors import UserError

_READ = {field.name for kind in (ReadingOptions, FrozenConfig) for field in fields(kind)} - {"layers"}
_OWN = sorted({field.name for field in fields(SegmentationConfig)} - _READ - {"data", "probe"})


@with_cost
def segmentation_probes(
    backbone_or_source: BackboneSource,
    train: MaskedImages,
    test: MaskedImages,
    *,
    probe: Sequence[ProbeName] = ("linear", "knn", "kmeans"),
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 16,
    normalisation: str | None = None,
    **options: Any,
) -> Result:
    """mIoU, per class, accuracies and intervals of probes of the patches of a frozen backbone, in percent.

    Args:
        backbone_or_source: what `extract_features` takes, or `pixels`.
        train: images with masks whose patches the probes are fitted to (`open_segmentation`, `from_masks`).
        test: the set that is scored.
        probe: linear, knn, kmeans.
        batch_size: images that go through the backbone at once.
        normalisation: see `extract_features`.
        **options: whatever else `siamtransfer segmentation` takes about features and probes, by its name
            with underscores: layers, size, resize, window, k, strengths, clusters, seed, pictures …

    Returns:
        The result with the areas of every image; `result.save("a.json")` writes what `compare` takes.

    Raises:
        UserError: an option means nothing, or whatever reading backbone, images and masks finds.
    """
    config = _config(probe, device, precision, batch_size, options)
    config.check_probes()
    side = train.image(0).shape[0] if train.name == SCENES else DEFAULT_SIDE
    window = (config.window, config.stride)
    with start_runtime(device, precision) as runtime, contextlib.ExitStack() as stack:
        if isinstance(backbone_or_source, str | Path) and str(backbone_or_source) == "pixels":
            model = DenseModel.of_pixels(
                config, runtime, side=side, pixel_patch=config.pixel_patch, window=window
            )
        else:
            backbone, read = open_backbone(backbone_or_source, normalisation)
            if not isinstance(backbone, Backbone):
                raise UserError(
                    "a module of one's own has no maps of features: give a checkpoint, or what "
                    "load_backbone returns"
                )
            was_training = backbone.training
            stack.callback(backbone.train, was_training)
            stack.enter_context(moved(backbone.eval(), runtime.device))
            model = DenseModel.of(backbone, read, config, runtime, side=side, window=window)
        result = score(model, train, test, config)
    if result is None:
        raise RuntimeError("only rank 0 has the result: call it in one process, or use the program")
    return result


def _config(
    probe: Sequence[ProbeName], device: str, precision: Precision, batch: int, options: dict[str, Any]
) -> SegmentationConfig:
    """The options as those of the program; raises UserError for a name that it does not have."""
    for name in options:
        if name not in _OWN:
            near = difflib.get_close_matches(name, _OWN, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"segmentation_probes has no option {name!r}{hint} (there are {', '.join(_OWN)})")
    config = SegmentationConfig(
        probe=list(probe), device=device, precision=precision, forward_batch_size=batch
    )
    return replace(config, **options)
