"""Where the files of COCO's further tasks lie: by a name of the data, of the scenes, or by their paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from siamtransfer.data.scenes.export import COCO_SPLITS, SceneCounts
from siamtransfer.data.scenes.layouts import SceneLayout
from siamtransfer.detection.data.written_scenes import SCENES, written_scenes
from siamtransfer.utils.errors import UserError


class CocoFiles(NamedTuple):
    """The annotations and the folder of images of a split, and its name."""

    annotations: Path
    images: Path
    name: str


@dataclass(frozen=True)
class CocoTask:
    """How a task's files are called.

    Attributes:
        what: the task in an error message: "data with keypoints".
        layout: in which the scenes are written.
        stem: the beginning of the names of annotations.
        names: annotations and images of published splits by their names, below the root.
        own: how own files are given.
    """

    what: str
    layout: SceneLayout
    stem: str
    names: Mapping[str, tuple[str, str]]
    own: str

    def find(self, name: str, role: str, root: Path, scenes: SceneCounts) -> CocoFiles:
        """The files of a split.

        Raises:
            UserError: the name is unknown.
        """
        if name == SCENES:
            folder, split = written_scenes(self.layout, scenes), COCO_SPLITS[role]
            annotations = folder / "annotations" / f"{self.stem}_{split}.json"
            return CocoFiles(annotations, folder / split, f"{SCENES}/{role}")
        if name in self.names:
            annotations, images = (root / part for part in self.names[name])
        elif "@" in name:
            annotations, images = (Path(part).expanduser() for part in name.rsplit("@", 1))
        else:
            raise UserError(
                f"{name!r} names no {self.what}; take {SCENES}, one of {', '.join(self.names)}, or {self.own}"
            )
        return CocoFiles(annotations, images, name)
