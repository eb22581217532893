#!/usr/bin/env python3
"""Writes many-object Fashion Scenes as a Pascal VOC folder or as COCO files for detection and its relatives.

Example: python scripts/write_scenes.py voc scenes/VOC2007 --train 1000 --test 200 --size 128 --seed 0

`coco` writes train/, val/ (the test scenes) and annotations/instances_{train,val}.json; its masks are run
lengths, for which Detectron2 needs INPUT.MASK_FORMAT bitmask. `coco-keypoints` writes
annotations/person_keypoints_{train,val}.json, with the outermost points of every object. `coco-panoptic`
writes annotations/panoptic_{train,val}.json and the folders panoptic_train and panoptic_val beside what
`coco` writes. Objects of the test scenes are in no other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from siamtransfer.cli import run
from siamtransfer.data.scenes.export import SceneCounts, write_coco, write_voc
from siamtransfer.data.scenes.export_coco_tasks import write_coco_keypoints, write_coco_panoptic
from siamtransfer.data.scenes.objects import OBJECTS_SHA256
from siamtransfer.records.record import record

WRITERS = {
    "voc": write_voc,
    "coco": write_coco,
    "coco-keypoints": write_coco_keypoints,
    "coco-panoptic": write_coco_panoptic,
}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Reads the command line, writes the set, and returns what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("format", choices=sorted(WRITERS), help="layout to write")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new or empty folder")
    default = SceneCounts()
    for name, what in (
        ("train", "number of training scenes; VOC's val is the last tenth of them"),
        ("test", "number of test scenes"),
        ("size", "side of a scene in pixels"),
        ("seed", "another seed gives other scenes of the same objects"),
    ):
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default: %(default)s)")
    options = parser.parse_args(arguments)
    counts = SceneCounts(options.train, options.test, options.size, options.seed)
    WRITERS[options.format](options.folder, counts)
    return record(
        "write_scenes",
        {"scenes/train": counts.train, "scenes/test": counts.test},
        {"format": options.format, "size": counts.size, "seed": counts.seed},
        folder=str(options.folder),
        objects=OBJECTS_SHA256,
    )


if __name__ == "__main__":
    run(main)
