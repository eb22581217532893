"""The probes of patches: patches of the train split, the probes, their scores at the original masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from siamtransfer.data.files_form import found_options
from siamtransfer.data.pixel_form import RGB
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.input_size import SCORED_SPLITS, spread
from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.segmentation.clusters import ClusterProbe, fit_clusters
from siamtransfer.evaluation.segmentation.config import MaskedData, SegmentationConfig
from siamtransfer.evaluation.segmentation.linear import LinearProbe, fit_linear
from siamtransfer.evaluation.segmentation.neighbours import fit_neighbours
from siamtransfer.evaluation.segmentation.patches import DEFAULT_PATCHES, draw_patches, open_model
from siamtransfer.evaluation.segmentation.pictures import write_pictures
from siamtransfer.evaluation.segmentation.probe import Patches, PatchProbe
from siamtransfer.evaluation.segmentation.scoring import Scored, score_probes
from siamtransfer.metrics.segmentation_intervals import RESAMPLES, interval
from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.records.likeness import CHOSEN
from siamtransfer.records.result import Result
from siamtransfer.segmentation.data.check import check_masks
from siamtransfer.segmentation.data.mask_files import MaskFiles
from siamtransfer.segmentation.data.masked_images import MaskedImages
from siamtransfer.segmentation.data.registry import NAMED_MASKS, open_segmentation
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

ABSENT_RULE = "union"
"""Classes that are neither in the truth nor predicted are left out of the mean."""
SAME_IMAGES = "the scored split is the one that the probes are fitted to, so the numbers are too high"


def evaluate(config: SegmentationConfig, runtime: Runtime) -> Result | None:
    """mIoU, its relatives and intervals of every probe, in percent; the areas of every image are kept. None
    on all ranks but the first.

    Raises:
        UserError: whatever reading checkpoint, images and masks finds; see `score`.
    """
    model = open_model(config, runtime)
    train, test = _open_splits(config.data)
    return score(model, train, test, config)


def score(
    model: DenseModel, train: MaskedImages, test: MaskedImages, config: SegmentationConfig
) -> Result | None:
    """The probes of `config` fitted on patches of `train` and scored on `test`; None on all ranks but the
    first.

    Raises:
        UserError: the sets have other classes, an image or a mask cannot be read, or no pixel has a class.
    """
    runtime = model.runtime
    remark = say if runtime.is_main else lambda _: None
    if train.classes != test.classes:
        raise UserError(f"{train.name} has other classes in {train.split} than in {test.split}")
    if _same_images(train, test):
        remark(f"note: {SAME_IMAGES}")
    _check_masks(train, test, runtime)
    remark(f"maps of {len(train)} images of {train.name}/{train.split}")
    patches = draw_patches(model, train, config)
    probes = _fit(patches, config, runtime)
    remark(f"scoring {len(test)} images of {test.name}/{test.split} at the size of their masks")
    shown = spread(len(test), config.picture_count) if config.pictures else []
    scored = score_probes(model, test, probes, shown, ceiling=config.ceiling)
    if not runtime.is_main:
        return None
    metrics = {name: value for each in scored for name, value in _metrics(each, test.classes).items()}
    say_metrics({name: value for name, value in metrics.items() if "/iou/" not in name})
    if config.pictures:
        write_pictures(config.pictures, test, shown, scored, model.source)
    areas = ImageAreas({each.name: each.per_image for each in scored})
    protocol = _protocol(config, model, train, test) | _settings(scored)
    provenance = {
        **model.provenance,
        "train_patches": len(patches.labels),
        "train_fingerprint": train.fingerprint,
        "test_fingerprint": test.fingerprint,
    }
    return Result("segmentation", metrics, protocol, provenance, areas)


def _open_splits(data: MaskedData) -> tuple[MaskedImages, MaskedImages]:
    """The split that is fitted on and the one that is scored, of one depth."""
    train = _open_split(data, train=True)
    return train, _open_split(replace(data, **found_options(train)), train=False)


def _open_split(data: MaskedData, *, train: bool) -> MaskedImages:
    """The split that is fitted on, or the one that is scored."""
    assert data.name is not None
    split = data.split if train else data.test_split
    if split is None:
        entry = NAMED_MASKS.get(data.name)  # the embedded scenes have none, and their split is test
        known = (entry.splits or SCORED_SPLITS) if entry else ("test",)
        split = next((name for name in SCORED_SPLITS if name in known), "test")
    return open_segmentation(
        data.name,
        root=data.root,
        split=split,
        classes=data.classes,
        ignore=data.ignore,
        size=data.size,
        count=data.count if train else data.test_count,
        channels=data.channels,
        value_range=data.value_range,
        axes=data.axes,
        orientation=data.orientation,
        background=data.background,
        max_pixels=data.max_pixels,
        bit_depth=data.bit_depth,
    )


def _same_images(train: MaskedImages, test: MaskedImages) -> bool:
    """Whether both begin with the same file; sets that are no files, whether they hold the same."""
    first = train.path(0)
    return train.fingerprint == test.fingerprint if first is None else first == test.path(0)


def _check_masks(train: MaskedImages, test: MaskedImages, runtime: Runtime) -> None:
    """Looks at every file before the first forward pass; raises UserError, see `check_masks`."""
    with collectives.own_pace("checking the masks"):
        for images in (train, test):
            if runtime.is_main and isinstance(images, MaskFiles):
                for sentence in check_masks(images).remarks:
                    say(sentence)


def _fit(train: Patches, config: SegmentationConfig, runtime: Runtime) -> list[PatchProbe]:
    """The fitted probes of every kind that the options name, the same on every rank."""
    probes: list[PatchProbe] = []
    for name in dict.fromkeys(config.probe):
        if runtime.is_main:
            say(f"fitting {name} to {len(train.labels):,} patches with {train.features.shape[1]} features")
        if name == "knn":
            probes += fit_neighbours(train, config, runtime.device)
            continue
        fitted: Sequence[LinearProbe | ClusterProbe] = []
        with collectives.own_pace(f"fitting {name}"):
            if runtime.is_main:  # alone, so that all ranks score the same probe
                fit = fit_linear if name == "linear" else fit_clusters
                fitted = fit(train, config, runtime.device)
        if runtime.world_size > 1:
            sent = collectives.broadcast_object([probe.to(torch.device("cpu")) for probe in fitted])
            probes += [probe.to(runtime.device) for probe in sent]
        else:
            probes += fitted
    return probes


def _metrics(scored: Scored, classes: tuple[str, ...]) -> dict[str, float]:
    """The numbers of a probe in percent; classes that count nowhere have none.

    Raises:
        UserError: every pixel of the scored split is ignored.
    """
    name, counts = scored.name, scored.per_image
    scores = counts.scores(ABSENT_RULE)
    if not counts.areas()[2].any():
        raise UserError("no pixel of the scored split has a class: all are ignored; look at its masks")
    metrics = {
        f"{name}/{measure}": 100 * float(getattr(scores, measure))
        for measure in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    }
    for measure, (low, high) in interval(counts).items():
        metrics[f"{name}/{measure}/ci95_low"] = 100 * low
        metrics[f"{name}/{measure}/ci95_high"] = 100 * high
    for label, iou in zip(classes, scores.per_class, strict=True):
        if iou == iou:  # no NaN
            metrics[f"{name}/iou/{label}"] = 100 * float(iou)
    return metrics


def _settings(scored: list[Scored]) -> dict[str, Any]:
    """The protocol of each setting; what data chose apart, as compare lets that differ."""
    settings: dict[str, Any] = {}
    for each in scored:
        chosen = {key: value for key, value in each.protocol.items() if key.startswith(CHOSEN)}
        settings[each.name] = {key: value for key, value in each.protocol.items() if key not in chosen}
        if chosen:
            settings[f"chosen_{each.name}"] = chosen
    own = {name: value for name, value in settings.items() if not name.startswith(CHOSEN)}
    return {"settings": own} | {name: value for name, value in settings.items() if name not in own}


def _protocol(
    config: SegmentationConfig,
    model: DenseModel,
    train: MaskedImages,
    test: MaskedImages,
) -> dict[str, Any]:
    """What moves the numbers of all probes."""
    remarks = [*train.remarks, *(remark for remark in test.remarks if remark not in train.remarks)]
    if _same_images(train, test):
        remarks.append(SAME_IMAGES)
    return {
        "train": f"{train.name}/{train.split}",
        "train_images": len(train),
        "test": f"{test.name}/{test.split}",
        "test_images": len(test),
        "classes": len(test.classes),
        **model.protocol,
        "patches_per_image": config.patches_per_image or DEFAULT_PATCHES,
        "patch_label": config.patch_label,
        "scored_at": "original size of the masks",
        "enlarged": "scores of the probe, bilinear, align_corners false",
        "absent_classes": "left out of the mean where neither true nor predicted",
        "interval": f"95 %, {RESAMPLES} resamples of the images",
        "seed": config.seed,
        **getattr(train, "form", RGB).as_dict(),
        **({"image_remarks": remarks} if remarks else {}),
    }
