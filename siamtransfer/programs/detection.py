"""Fine-tunes a detector or a semantic segmentation from a backbone and scores it, on public or own data.

    siamtransfer to-d2 runs/demo/checkpoint.pth OUT.pkl
    siamtransfer detection --config scenes-fpn --weights OUT.pkl
    siamtransfer detection --config voc07-c4-9k --weights OUT.pkl --gpus 8 --trials 5
    siamtransfer detection … --compare OTHER.pkl --trials 5   two weights, and their paired difference
    siamtransfer detection … --compare scratch --trials 5     the same against no weights
    siamtransfer detection … --search                         learning rate chosen on a part of train
    siamtransfer detection … --scale-to 2                     the schedule for 8 GPUs rewritten for 2
    siamtransfer detection … --train MINE:trainval --test MINE:test    own data in VOC's layout
    siamtransfer detection … --resume                         continue after a stop, a crash or a kill
    siamtransfer detection --config voc12-fcn16 --weights OUT.pkl --root VOC    a class for every pixel
    siamtransfer detection --config scenes-fcn --engine torchvision --weights CKPT    without Detectron2

Detectron2 trains; its keys may follow as KEY VALUE pairs (SOLVER.BASE_LR 0.04). OUT.yaml beside OUT.pkl says
how the weights take an image; a configuration that says otherwise is refused, and after loading every tensor
of the trunk is compared with the file. Data are named by Detectron2's names (voc_2007_trainval …, below
--root or DETECTRON2_DATASETS), PATH:SPLIT for VOC's layout, ANNOTATIONS.json@IMAGES for COCO's, or
fashion-scenes. Data with a class at every pixel are NAME:SPLIT (voc2012-aug:train, cityscapes:val;
--root is their folder) or FOLDER:SPLIT for images and masks of your own.
"""

from __future__ import annotations

from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.cli.shipped import find_config
from siamtransfer.detection.config import DetectionOptions
from siamtransfer.utils.log import is_first_rank


def evaluate_detection(options: DetectionOptions) -> dict[str, Any]:
    """Checks the options, fine-tunes and scores; returns the record."""
    options.check()
    files = [find_config(name, ("detection",)) for name in options.config]
    from siamtransfer.detection.evaluate import evaluate
    from siamtransfer.trackers.document import Document
    from siamtransfer.trackers.track import look_at_trackers, track

    look_at_trackers(options.track)
    record = evaluate(options, files)
    if options.track and is_first_rank():
        track([Document(record)], options.track)
    return record


main = Command("detection", DetectionOptions, evaluate_detection, __doc__)

if __name__ == "__main__":
    run(main)
