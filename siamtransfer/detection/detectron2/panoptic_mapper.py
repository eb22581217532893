"""Detectron2's mapper of training images, with the semantic target made from the panoptic PNG.

Detectron2's own reads that target from PNGs that a script has to write first.

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from siamtransfer.detection.data.panoptic_pngs import (
    SEGMENT_FILE,
    SEGMENTS,
    read_segment_ids,
    semantic_target,
)


class PanopticMapper(DatasetMapper):
    """A record to `image` uint8[3,h,w], `instances`, and `sem_seg` int64[h,w]: 0 things, 1 and more stuff,
    `ignore` void."""

    def __init__(self, cfg: Any):
        super().__init__(cfg, is_train=True)
        self.things, self.ignore = cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        record = copy.deepcopy(dataset_dict)
        image = utils.read_image(record["file_name"], format=self.image_format)
        utils.check_image_size(record, image)
        ids, segments = read_segment_ids(record.pop(SEGMENT_FILE)), record.pop(SEGMENTS)
        seen = T.AugInput(image, sem_seg=semantic_target(ids, segments, self.things, self.ignore))
        transforms = self.augmentations(seen)
        record["image"] = torch.as_tensor(np.ascontiguousarray(seen.image.transpose(2, 0, 1)))
        record["sem_seg"] = torch.as_tensor(seen.sem_seg.astype("long"))
        self._transform_annotations(record, transforms, seen.image.shape[:2])
        return record
