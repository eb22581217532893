"""torchvision's Faster and Mask R-CNN with a feature pyramid, on a backbone whose loading is verified.

Sources: Ren et al. 2015 (Faster R-CNN), Lin et al. 2017 (feature pyramids), He et al. 2017 (Mask R-CNN), as
torchvision builds them. The trunk's and the pyramid's batch norms learn and use the batch's statistics, as in
the transfer protocols for Detectron2; torchvision's own recipe would freeze them and the first layers.
pyramid.py has the trunk and the pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.detection.build_pyramid import PyramidOptions
from siamtransfer.detection.data.dataset_split import ImageRecord, read_image
from siamtransfer.detection.metrics.prediction import Prediction
from siamtransfer.detection.torchvision.pyramid import LEVELS, build_pyramid
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError

POOLED = 7  # pixels a side that the box head sees of a proposal
RATIOS = (0.5, 1.0, 2.0)
MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Design:
    """What a configuration may change about the detector. The defaults are torchvision's and Detectron2's;
    smaller values run on a CPU.

    Attributes:
        channels: of the pyramid and the mask head.
        hidden: width of the box head.
        anchors: sides in pixels, one for each of the five levels.
        proposals: how many the RoI heads see in training and in testing.
        sampled: RoIs of an image that enter the box loss.
        short_sides: short side of a training image in pixels, drawn from these.
        short_side: short side of a test image.
        long_side: upper limit of the long side.
        trunk: what is chosen about a network of timm. (States of older versions do not have it in `repr`.)
    """

    masks: bool = False
    channels: int = 256
    hidden: int = 1024
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    proposals: tuple[int, int] = (1000, 1000)
    sampled: int = 512
    short_sides: tuple[int, ...] = (800,)
    short_side: int = 800
    long_side: int = 1333
    trunk: PyramidOptions = field(default_factory=PyramidOptions, repr=False)


def build_detector(read: ReadBackbone, classes: int, design: Design) -> FasterRCNN:
    """A detector whose trunk holds the tensors of `read`; the rest is drawn from torch's generator.

    Class c of the data is label c+1 here, 0 being the background.

    Raises:
        UserError: no feature pyramid can be built on the backbone, a tensor of it did not arrive, or the
            design cannot be built.
    """
    if len(design.anchors) != LEVELS + 1:
        raise UserError(
            f"the pyramid has {LEVELS + 1} levels and {len(design.anchors)} anchor sizes were given"
        )
    pyramid = build_pyramid(read, design.channels, design.trunk)
    mask_parts = {}
    if design.masks:
        mask_parts = {
            "mask_head": MaskRCNNHeads(design.channels, (design.channels,) * 4, 1),
            "mask_predictor": MaskRCNNPredictor(design.channels, design.channels, classes + 1),
        }
    in_training, in_testing = design.proposals
    return (MaskRCNN if design.masks else FasterRCNN)(
        pyramid,
        min_size=design.short_sides,  # the short side of a test image is set below
        max_size=design.long_side,
        image_mean=list(read.normalisation.mean),
        image_std=list(read.normalisation.std),
        rpn_anchor_generator=AnchorGenerator(
            tuple((side,) for side in design.anchors), (RATIOS,) * len(design.anchors)
        ),
        rpn_post_nms_top_n_train=in_training,
        rpn_post_nms_top_n_test=in_testing,
        box_batch_size_per_image=design.sampled,
        box_head=TwoMLPHead(design.channels * POOLED**2, design.hidden),
        box_predictor=FastRCNNPredictor(design.hidden, classes + 1),
        **mask_parts,
    )


def as_input(image: np.ndarray) -> Tensor:
    """uint8[H,W,3] as the float32[3,H,W] in 0 to 1 that torchvision's detectors normalise themselves."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def predict(
    detector: FasterRCNN, records: Sequence[ImageRecord], runtime: Runtime, short_side: int
) -> list[Prediction]:
    """The detections in every image. Each rank takes a part of the images, and every rank gets all."""
    detector.eval()
    training_sizes, detector.transform.min_size = detector.transform.min_size, (short_side,)
    local = []
    with torch.no_grad():
        for record in records[runtime.rank :: runtime.world_size]:
            output = detector([as_input(read_image(record)).to(runtime.device)])[0]
            local.append(_prediction(record, output))
    detector.transform.min_size = training_sizes
    return collectives.all_gather_object(local)


def _prediction(record: ImageRecord, output: dict[str, Tensor]) -> Prediction:
    masks = None
    if "masks" in output:
        from pycocotools import mask as run_lengths

        pixels = (output["masks"][:, 0] > MASK_THRESHOLD).byte().permute(1, 2, 0)
        masks = run_lengths.encode(np.asfortranarray(pixels.cpu().numpy()))
    return {
        "image_id": record["image_id"],
        "boxes": output["boxes"].float().cpu().numpy(),
        "scores": output["scores"].float().cpu().numpy(),
        "classes": output["labels"].cpu().numpy() - 1,
        "masks": masks,
    }
