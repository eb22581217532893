#!/usr/bin/env python3
"""Writes many-object Fashion Scenes as a Pascal VOC folder or as COCO files for detection and its relatives.

Example: python scripts/write_scenes.py voc scenes/VOC2007 --train 1000 --test 200 --size 128 --seed 0

`coco` writes train/, val/ (the test scenes) and annotations/instances_{train,val}.json; its masks are run
lengths, for which Detectron2 needs INPUT.MASK_FORMAT bitmask. `coco-keypoints` writes
annotations/person_keypoints_{train,val}.json, with the outermost points of every object. `coco-panoptic`
writes annotations/panoptic_{train,val}.json and the folders panoptic_train and panoptic_val beside what
`coco` writes. `cityscapes` writes leftImg8bit/ and gtFine/, `lvis` writes lvis/ and coco/; masks are outlines
in both. Objects of the test scenes are in no other.

`channels` writes PNG files of four channels, SPLIT/CLASS/NNNNNN.png, of which the fourth alone shows the
object: python scripts/write_scenes.py channels scenes/CHANNELS --train 2000 --test 1000 --size 32

`davis` writes videos of moving objects in the folders of DAVIS 2017; --train and --test are numbers of
videos: python scripts/write_scenes.py davis scenes/DAVIS --train 4 --test 8 --frames 20 --size 128
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from siamtransfer.cli import run
from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.hidden import write_channels
from siamtransfer.data.scenes.layouts import WRITERS
from siamtransfer.data.scenes.objects import OBJECTS_SHA256
from siamtransfer.data.scenes.videos import VideoCounts, write_davis
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError

DAVIS, CHANNELS = "davis", "channels"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Reads the command line, writes the set, and returns what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", choices=sorted([*WRITERS, DAVIS, CHANNELS]), help="layout to write")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new or empty folder")
    for name, kind, what in (
        ("train", int, "number of training scenes; VOC's val is the last tenth of them"),
        ("test", int, "number of test scenes"),
        ("size", int, "side of a scene in pixels"),
        ("seed", int, "another seed gives other scenes of the same objects"),
        ("frames", int, "davis: number of frames of a video"),
        ("speed", float, "davis: 1 lets objects move by up to 5 %% of the frame at once, 0 not at all"),
    ):
        defaults = [
            f"{getattr(kind_of, name)}" for kind_of in (SceneCounts, VideoCounts) if hasattr(kind_of, name)
        ]
        said = "; davis: ".join(dict.fromkeys(defaults))
        parser.add_argument(f"--{name}", type=kind, help=f"{what} (default: {said})")
    options = vars(parser.parse_args(arguments))
    layout, folder = options.pop("format"), options.pop("folder")
    counts = _write(layout, folder, {name: value for name, value in options.items() if value is not None})
    return record(
        "write_scenes",
        {"scenes/train": counts.train, "scenes/test": counts.test},
        {"format": layout, **{k: v for k, v in asdict(counts).items() if k not in ("train", "test")}},
        folder=str(folder),
        objects=OBJECTS_SHA256,
    )


def _write(layout: str, folder: Path, given: dict[str, Any]) -> SceneCounts | VideoCounts:
    """Writes the set with the options that are given; returns all of them."""
    if layout == DAVIS:
        videos = VideoCounts(**given)
        write_davis(folder, videos)
        return videos
    if alone := {"frames", "speed"} & set(given):
        raise UserError(f"--{min(alone)} belongs to the layout davis; leave it out")
    scenes = SceneCounts(**given)
    if layout == CHANNELS:
        write_channels(folder, scenes)
    else:
        WRITERS[layout](folder, scenes)
    return scenes


if __name__ == "__main__":
    run(main)
