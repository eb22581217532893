"""Which of the kept predictions a number was computed from."""

from __future__ import annotations

from siamtransfer.records.image_areas import ImageAreas
from siamtransfer.records.predictions import Kept, Predictions
from siamtransfer.records.sample_values import SampleValues

REPEAT = "/repeat="
"""Stands before the number of a draw, in the names of few-shot settings."""
_OF_LABELS, _OF_SCORES = ("top1", "mean_per_class"), ("mAP",)
_OF_AREAS = ("miou", "pixel_accuracy", "mean_accuracy")


def settings_of(kept: Kept, task: str, metric: str) -> list[str]:
    """The settings whose predictions gave the number `metric`: one as a rule, all draws of a mean over draws,
    and none where the number cannot be computed from what is kept (such as top5)."""
    if isinstance(kept, Predictions) and metric.endswith("/mean"):
        before = metric.removesuffix("/mean").rpartition("/")[0]
        return [name for name in kept.settings if name.startswith(before + REPEAT)]
    if isinstance(kept, SampleValues):
        return _of_values(kept, task, metric)
    before, _, name = metric.rpartition("/")
    several = isinstance(kept, Predictions) and kept.labels.ndim == 2
    known = _OF_AREAS if isinstance(kept, ImageAreas) else _OF_SCORES if several else _OF_LABELS
    if name not in known:
        return []
    return [setting for setting in (before, before.removeprefix(f"{task}/")) if setting in kept.settings][:1]


def _of_values(kept: SampleValues, task: str, metric: str) -> list[str]:
    """Values of samples are kept for the metric itself, or for the main metric of a setting: average
    precisions of queries for `retrieval/SETTING/mAP`, Jaccard indices for `jaccard/SETTING`, the shares whose
    mean is `outside/SET/SETTING/auroc`."""
    plain = metric.removeprefix(f"{task}/")
    if task == "outside":
        plain = plain.partition("/")[2]
    short = plain
    for ending in ("/mean", "/mAP", "/auroc"):
        short = short.removesuffix(ending)
    names = (metric, plain, short, short.removeprefix("jaccard/"))
    return [name for name in names if name in kept.settings][:1]


def any_setting(kept: Kept) -> str:
    """A setting, for what all settings have in common."""
    return next(iter(kept.settings))
