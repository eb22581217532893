"""The evaluator of videos: every video tracked and scored, and the numbers over all objects."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.evaluator import say_metrics
from siamtransfer.evaluation.video.config import VideoConfig
from siamtransfer.evaluation.video.outputs import MaskFolder, Strips
from siamtransfer.evaluation.video.scoring import (
    BOTH,
    PREDICTED,
    VideoScores,
    VideoTally,
    interval_of,
    metrics_of,
    values_of,
)
from siamtransfer.evaluation.video.tracking import Tracker
from siamtransfer.metrics.video_objects import BOUND
from siamtransfer.records.result import Result
from siamtransfer.segmentation.data.videos import Video, Videos, open_videos
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

SAY_SECONDS = 10.0


def evaluate(config: VideoConfig, runtime: Runtime) -> Result:
    """J, F and their mean over the objects of all videos, in percent; those of every object are kept.

    Raises:
        UserError: the program runs on several ranks, or whatever reading checkpoint, frames and masks and
            writing masks and pictures finds.
    """
    if runtime.world_size > 1:
        raise UserError("video runs in one process: start it without torchrun")
    tracker, data = Tracker.open(config, runtime), config.data
    assert data.root is not None
    say(f"reading the masks of {data.split} below {data.root}")
    videos = open_videos(data.root, data.split, data.resolution, data.videos)
    for remark in videos.remarks:
        say(f"note: {remark}")
    tallies = _track_all(tracker, videos, config)
    scored = {kind: [tally[kind] for tally in tallies] for kind in tallies[0]}
    values = values_of(scored[PREDICTED])
    metrics = metrics_of(scored[PREDICTED], PREDICTED) | interval_of(values)
    for kind in (name for name in scored if name != PREDICTED):
        metrics |= metrics_of(scored[kind], kind)
    say_metrics(metrics)
    metrics |= {f"video/{each.video.name}/{BOTH}": 100 * each.mean for each in scored[PREDICTED]}
    provenance = {
        **tracker.model.provenance,
        "videos_fingerprint": videos.fingerprint,
        "objects": [
            f"{each.video.name}/{number}" for each in scored[PREDICTED] for number in each.video.objects
        ],
    }
    return Result("video", metrics, _protocol(config, tracker, videos), provenance, values)


def _track_all(tracker: Tracker, videos: Videos, config: VideoConfig) -> list[dict[str, VideoScores]]:
    """The scores of every video by kind of masks; masks and pictures are written where they are wanted."""
    strips = Strips(videos.videos, config.picture_count if config.pictures else 0)
    tallies: list[dict[str, VideoScores]] = []
    frames, done, began = sum(len(video) for video in videos.videos), 0, time.monotonic()
    with ExitStack() as stack:
        masks = stack.enter_context(MaskFolder(config.masks)) if config.masks else None
        for number, video in enumerate(videos.videos, 1):
            tallies.append(_track(tracker, video, config, masks, strips))
            done += len(video)
            left = (time.monotonic() - began) / done * (frames - done)
            say(
                f"{number} of {len(videos.videos)} videos, {video.name}: {len(video.objects)} objects, "
                f"{len(video)} frames, J&F {100 * tallies[-1][PREDICTED].mean:.1f} %; {left:.0f} s left"
            )
        if config.pictures:
            strips.write(config.pictures, tracker.model.source)
        if masks is not None:
            masks.finish()
    return tallies


def _track(
    tracker: Tracker, video: Video, config: VideoConfig, masks: MaskFolder | None, strips: Strips
) -> dict[str, VideoScores]:
    """The scores of one video by kind of masks."""
    tally, said = VideoTally(video, bounds=config.bounds), time.monotonic()
    for frame in tracker.track(video, ceiling=config.bounds):
        tally.add(frame)
        strips.add(video, frame)
        if masks is not None:
            masks.add(video, frame)
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            say(f"{video.name}: frame {frame.number + 1} of {len(video)}")
    return tally.scores


def _protocol(config: VideoConfig, tracker: Tracker, videos: Videos) -> dict[str, Any]:
    """What moves the numbers."""
    features = tracker.model.protocol
    return {
        "videos": f"davis/{videos.split}",
        "resolution": config.data.resolution,
        "count": len(videos.videos),
        "objects": sum(len(video.objects) for video in videos.videos),
        **features,
        "input": features["input"] | {"view": "whole frame", "longer_side_multiple_of": config.long_multiple},
        "context": f"the first frame and {config.context} before",
        "neighbourhood": config.neighbourhood or "everywhere",
        "neighbours": config.topk,
        "temperature": config.temperature,
        "first_mask": "reduced to the patches, the value at their centres",
        "enlarged": "bilinearly to the input, each channel stretched to 0 and 1, then without interpolation",
        "scored_at": "original size of the masks, without the first and the last frame of a video",
        "void": "background",
        "boundary": f"F within {BOUND:g} of the diagonal",
        "interval": "95 %, bootstrap over videos",
        **({"video_remarks": list(videos.remarks)} if videos.remarks else {}),
    }
