"""J and F of the objects of videos, and their means.

Legend: K objects of a video, N of all videos, T scored frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from siamtransfer.evaluation.video.tracking import Tracked
from siamtransfer.metrics.paired_bootstrap import mean_differences, percentile_interval
from siamtransfer.metrics.video_objects import contour_accuracy, over_frames, region_similarity
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.segmentation.data.videos import Video

PREDICTED, STILL, CEILING = "", "still/", "ceiling/"
"""The beginnings of the names of metrics: of the predictions, of the first mask left where it is, and of the
true masks reduced to patches."""
BOTH = "J-and-F"
RESAMPLES = 10_000


@dataclass
class VideoScores:
    """J and F of the objects of one video in its scored frames, for one kind of masks."""

    video: Video
    region: list[list[float]] = field(default_factory=list)
    contour: list[list[float]] = field(default_factory=list)

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Adds a frame: numbers of objects, uint8[H, W] each."""
        pairs = [(truth == number, found == number) for number in self.video.objects]
        self.region.append([region_similarity(*pair) for pair in pairs])
        self.contour.append([contour_accuracy(*pair) for pair in pairs])

    def objects(self, measure: str) -> np.ndarray:
        """float64[K, 3]: mean, recall and decay over the frames of `J` or `F`, of each object."""
        frames = np.array(self.region if measure == "J" else self.contour)
        return np.array([over_frames(values) for values in frames.T])

    @property
    def mean(self) -> float:
        """The mean over the objects of (J + F) / 2, from 0 to 1."""
        return float((self.objects("J")[:, 0] + self.objects("F")[:, 0]).mean() / 2)


class VideoTally:
    """The scores of one video for every kind of masks; the first and the last frame count nowhere."""

    def __init__(self, video: Video, *, bounds: bool):
        kinds = (PREDICTED, STILL, CEILING) if bounds else (PREDICTED,)
        self.scores = {kind: VideoScores(video) for kind in kinds}
        self._last = len(video) - 1
        self._still: np.ndarray | None = None

    def add(self, frame: Tracked) -> None:
        """Adds the frames in their order, from the first."""
        if frame.number == 0:
            self._still = frame.truth
        if not 0 < frame.number < self._last:
            return
        assert self._still is not None
        found = {PREDICTED: frame.mask, STILL: self._still, CEILING: frame.ceiling}
        for kind, scores in self.scores.items():
            mask = found[kind]
            assert mask is not None
            scores.add(frame.truth, mask)


def metrics_of(scored: Sequence[VideoScores], kind: str) -> dict[str, float]:
    """The numbers in percent, as the official program means them: over objects, whatever video they are
    of."""
    measures = {name: np.concatenate([scores.objects(name) for scores in scored]) for name in ("J", "F")}
    metrics = {f"{kind}{BOTH}/mean": 50 * float(measures["J"][:, 0].mean() + measures["F"][:, 0].mean())}
    for name, values in measures.items():
        for column, what in enumerate(("mean", "recall", "decay")):
            metrics[f"{kind}{name}/{what}"] = 100 * float(values[:, column].mean())
    return metrics


def interval_of(values: SampleValues) -> dict[str, float]:
    """The ends of the 95 % interval of the mean of J and F by resampling videos; of one video there is
    none."""
    assert values.groups is not None
    if len(np.unique(values.groups)) < 2:
        return {}
    both = values.settings[BOTH]
    drawn = mean_differences(
        np.zeros_like(both), both, RESAMPLES, np.random.default_rng(0), groups=values.groups
    )
    low, high = percentile_interval(100 * drawn)
    return {f"{BOTH}/mean/ci95_low": low, f"{BOTH}/mean/ci95_high": high}


def values_of(scored: Sequence[VideoScores]) -> SampleValues:
    """What `compare` pairs: J, F and their mean of all N objects, in groups by their videos."""
    region, contour = (
        np.concatenate([scores.objects(name)[:, 0] for scores in scored]) for name in ("J", "F")
    )
    groups = np.repeat(np.arange(len(scored)), [len(scores.video.objects) for scores in scored])
    settings = {BOTH: (region + contour) / 2, "J": region, "F": contour}
    return SampleValues(np.arange(len(region)), settings, groups=groups)
