"""The depth probes: patches of the train split, the probes, their errors at the original depth maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from siamtransfer.backbones.feature_maps import FeatureMaps
from siamtransfer.data.pixel_form import RGB
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.dense.input_size import spread
from siamtransfer.evaluation.dense.model import DenseModel
from siamtransfer.evaluation.depth.config import DepthConfig
from siamtransfer.evaluation.depth.data.check import DepthReport, check_depths
from siamtransfer.evaluation.depth.data.depth_images import DepthImages
from siamtransfer.evaluation.depth.data.layouts import OWN, open_depth
from siamtransfer.evaluation.depth.data.rooms import NAME as ROOMS
from siamtransfer.evaluation.depth.data.rooms import SIZE as ROOM_SIZE
from siamtransfer.evaluation.depth.patches import DEFAULT_PATCHES, draw_patches
from siamtransfer.evaluation.depth.pictures import write_pictures
from siamtransfer.evaluation.depth.probe import DepthProbe
from siamtransfer.evaluation.depth.ridge import fit_ridge
from siamtransfer.evaluation.depth.scoring import ScoredDepth, ScoringRule, score_guesses, score_probes
from siamtransfer.evaluation.depth.train import train_bins
from siamtransfer.metrics.depth import ERRORS, SHARES, DepthRange
from siamtransfer.metrics.paired_bootstrap import mean_differences, percentile_interval
from siamtransfer.records.likeness import CHOSEN
from siamtransfer.records.result import Result
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

DEFAULT_SIDE = 480
"""The shorter side of the images of NYU."""
RESAMPLES = 1000


def evaluate(config: DepthConfig, runtime: Runtime) -> Result:
    """The errors of every probe and of two guesses without an image, with intervals; those of every image
    are kept.

    Raises:
        UserError: the program runs on several ranks, or whatever reading checkpoint, images and depth maps
            finds.
    """
    if runtime.world_size > 1:
        raise UserError("depth runs in one process: start it without torchrun")
    train, test = _open(config, train=True), _open(config, train=False)
    if train.split == test.split:
        raise UserError(f"{test.name}/{test.split} is fitted on and scored: name another --data.test-split")
    model = open_model(config, runtime)
    depths = DepthRange(config.min_depth, config.max_depth)
    rule = ScoringRule(depths, config.eigen, config.flip_test)
    checked = check_depths(train, depths), check_depths(test, depths)
    remarks = [*train.remarks, *test.remarks, *(remark for each in checked for remark in each.remarks)]
    for remark in remarks:
        say(f"note: {remark}")
    guesses = score_guesses(test, checked[0], rule)
    probes = _fit(model, train, depths, config)
    say(f"scoring {len(test)} images of {test.name}/{test.split} at the size of their depth maps")
    shown = spread(len(test), config.picture_count) if config.pictures else []
    scored = score_probes(model, test, probes, rule, shown)
    metrics = {name: value for each in [*guesses, *scored] for name, value in _metrics(each).items()}
    for each in [*guesses, *scored]:
        _say(each.name, metrics)
    if config.pictures:
        write_pictures(config.pictures, test, shown, scored, model.source)
    provenance = {
        **model.provenance,
        "class_token": config.class_token,
        "train_fingerprint": train.fingerprint,
        "test_fingerprint": test.fingerprint,
    }
    protocol = _protocol(config, model, (train, test), checked) | _settings(scored)
    if remarks:
        protocol["image_remarks"] = remarks
    return Result("depth", metrics, protocol, provenance, _values(scored))


def open_model(config: DepthConfig, runtime: Runtime) -> DenseModel:
    """The frozen network.

    Raises:
        UserError: see `DenseModel.open`; or class tokens are asked for and it has none.
    """
    side = (config.data.size or ROOM_SIZE) if config.data.name == ROOMS else DEFAULT_SIDE
    model = DenseModel.open(config, runtime, side=side, pixel_patch=config.pixel_patch)
    if config.class_token and isinstance(model.part, FeatureMaps):
        return replace(model, part=FeatureMaps(model.part.backbone, config.layers, class_token=True))
    return model


def _open(config: DepthConfig, *, train: bool) -> DepthImages:
    """The split that is fitted on, or the one that is scored."""
    data = config.data
    assert data.name is not None
    split = data.split if train else data.test_split or ("val" if data.name == OWN else "test")
    return open_depth(
        data.name,
        root=data.root,
        split=split,
        scale=data.depth_scale,
        size=data.size,
        count=data.count if train else data.test_count,
        orientation=data.orientation,
        background=data.background,
        max_pixels=data.max_pixels,
    )


def _fit(model: DenseModel, train: DepthImages, depths: DepthRange, config: DepthConfig) -> list[DepthProbe]:
    """The fitted probes that the options name."""
    probes: list[DepthProbe] = []
    for name in dict.fromkeys(config.probe):
        if name == "ridge":
            say(f"maps of {len(train)} images of {train.name}/{train.split}")
            patches = draw_patches(model, train, depths, config)
            dim = patches.features.shape[1]
            say(f"fitting ridge to {len(patches.targets):,} patches with {dim} features")
            probes.append(fit_ridge(patches, depths, config, model.runtime.device))
        else:
            say(f"training bins for {config.steps:,} steps of {config.batch_size} images")
            probes.append(train_bins(model, train, depths, config))
    return probes


def _metrics(scored: ScoredDepth) -> dict[str, float]:
    """The mean over images of every measure and the ends of its 95 % interval; shares in percent."""
    metrics: dict[str, float] = {}
    for measure in (*ERRORS, *SHARES):
        values = scored.scores.values(measure) * (100 if measure in SHARES else 1)
        drawn = mean_differences(np.zeros_like(values), values, RESAMPLES, np.random.default_rng(0))
        low, high = percentile_interval(drawn)
        name = f"{scored.name}/{measure}"
        metrics |= {name: float(values.mean()), f"{name}/ci95_low": low, f"{name}/ci95_high": high}
    return metrics | {f"{scored.name}/rmse_pooled": scored.scores.pooled_rmse}


def _say(name: str, metrics: dict[str, float]) -> None:
    rmse, low, high = (metrics[f"{name}/rmse{end}"] for end in ("", "/ci95_low", "/ci95_high"))
    others = ", ".join(f"{measure} {metrics[f'{name}/{measure}']:.3f}" for measure in ("abs_rel", "log10"))
    delta = metrics[f"{name}/delta1"]
    say(f"{name:12} RMSE {rmse:.3f} m ({low:.3f} to {high:.3f}), {others}, delta1 {delta:.1f} %")


def _values(scored: list[ScoredDepth]) -> SampleValues:
    """The errors of every scored image, for comparisons."""
    settings = {
        f"{each.name}/{measure}": each.scores.values(measure)
        for each in scored
        for measure in (*ERRORS, *SHARES)
    }
    errors = frozenset(name for name in settings if name.rpartition("/")[2] in ERRORS)
    return SampleValues(np.array(scored[0].scores.images, np.int64), settings, errors)


def _settings(scored: list[ScoredDepth]) -> dict[str, Any]:
    """The protocol of each setting; what data chose apart, as compare lets that differ."""
    settings: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for each in scored:
        settings[each.name] = {key: v for key, v in each.protocol.items() if not key.startswith(CHOSEN)}
        if found := {key: v for key, v in each.protocol.items() if key.startswith(CHOSEN)}:
            chosen[f"chosen_{each.name}"] = found
    return {"settings": settings} | chosen


def _protocol(
    config: DepthConfig,
    model: DenseModel,
    images: tuple[DepthImages, DepthImages],
    checked: tuple[DepthReport, DepthReport],
) -> dict[str, Any]:
    """What moves the numbers of all probes."""
    train, test = images
    missing = checked[1].missing / checked[1].pixels
    return {
        "train": f"{train.name}/{train.split}",
        "train_images": len(train),
        "test": f"{test.name}/{test.split}",
        "test_images": len(test),
        "test_pixels_missing": round(missing, 6),
        "depth_scale": config.data.depth_scale if config.data.name != ROOMS else None,
        "depth_range": [config.min_depth, config.max_depth],
        **getattr(train, "form", RGB).as_dict(),
        "eval_crop": "eigen" if config.eigen else "none",
        **model.protocol,
        "patches_per_image": config.patches_per_image or DEFAULT_PATCHES,
        "flip_test": config.flip_test,
        "scored_at": "original size of the depth maps",
        "enlarged": "depths, bilinear, align_corners false, clipped to the range",
        "averaged": "measure of each image, then mean over images",
        "interval": f"95 %, {RESAMPLES} resamples of the images",
        "seed": config.seed,
    }
