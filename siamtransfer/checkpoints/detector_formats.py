"""The formats of detectors and segmenters of torchvision, and of Caffe2's ResNets that Detectron2 takes."""

from __future__ import annotations

from siamtransfer.checkpoints.detectron2_keys import from_caffe2
from siamtransfer.checkpoints.file_format import TORCHVISIONS, Branch, Format
from siamtransfer.checkpoints.layouts import caffe2

_DETECTOR = dict.fromkeys(("backbone.fpn.", "rpn.", "roi_heads.", "head."), "detector")
_IMAGENETS = {**TORCHVISIONS, "stem": "imagenet"}

DETECTOR_FORMATS: tuple[Format, ...] = (
    Format(
        "torchvision-detection",
        "a detector of torchvision",
        {"backbone": Branch("backbone.body.")},
        drops=_DETECTOR,
        marks=("backbone.body.", "rpn.|roi_heads.|head."),
        fixes={"7x7": _IMAGENETS},
    ),
    Format(
        "torchvision-segmentation",
        "a segmenter of torchvision",
        {"backbone": Branch("backbone.")},
        drops={"classifier.": "segmenter", "aux_classifier.": "segmenter"},
        marks=("backbone.", "classifier.0."),
        fixes={"7x7": {**_IMAGENETS, "output_stride": 8}},
    ),
    Format(
        "caffe2",
        "a ResNet of Caffe2, as Detectron2's model zoo has them",
        key_paths=(("blobs",), ("model",), ()),
        drops=dict.fromkeys(("fc1000", "pred"), "classifier"),
        marks=("res2_0_branch2a_w",),
        fixes={"7x7": {"channels": "bgr", "stem": "imagenet", "output_stride": 32}},
        convert=caffe2.with_statistics,
        rename=from_caffe2,
    ),
)
