"""Training images under large-scale jittering: a random scale over a wide range, and a crop of a fixed size.

Source: Ghiasi et al. 2021, "Simple Copy-Paste" (arXiv 2012.07177, section 3), as ViTDet trains (Li et al.
2022, arXiv 2203.16527, appendix A.2).

This module imports Detectron2 at its top: import it inside a function, after `import_detectron2()`.
"""

from __future__ import annotations

from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from siamtransfer.utils.errors import UserError


def jittered_mapper(cfg: Any) -> Any:
    """Detectron2's mapper of training images with the jitter of INPUT.LARGE_JITTER.

    An image is resized to fit a square of SIZE pixels times a random factor of SCALES, and a square of SIZE
    is cut out at random where it is larger. Boxes are those of what is left of the masks, where masks are
    trained.

    Raises:
        UserError: SIZE or SCALES mean nothing.
    """
    jitter = cfg.INPUT.LARGE_JITTER
    size, scales = jitter.SIZE, tuple(jitter.SCALES)
    if size < 1 or len(scales) != 2 or not 0 < scales[0] <= scales[1]:
        raise UserError(
            f"INPUT.LARGE_JITTER has SIZE {size} and SCALES {scales}; SIZE has to be 1 or more, and SCALES "
            "two factors above 0, the smaller first"
        )
    settings = DatasetMapper.from_config(cfg, is_train=True)
    flips = [one for one in settings["augmentations"] if isinstance(one, T.RandomFlip)]
    settings["augmentations"] = [
        T.ResizeScale(*scales, target_height=size, target_width=size),
        T.FixedSizeCrop((size, size), pad=False),
        *flips,
    ]
    settings["recompute_boxes"] = cfg.MODEL.MASK_ON
    return DatasetMapper(**settings)
