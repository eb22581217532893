"""Images, true and predicted depths side by side, in the colours of one scale.

Legend: H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siamtransfer.evaluation.dense.sheet import Cell, Scale, Sheet, coloured
from siamtransfer.evaluation.depth.data.depth_images import DepthImages
from siamtransfer.evaluation.depth.scoring import ScoredDepth
from siamtransfer.utils.captions import short_name
from siamtransfer.utils.log import say

MISSING = (255, 255, 255)


def write_pictures(
    path: str, images: DepthImages, shown: Sequence[int], scored: Sequence[ScoredDepth], source: str
) -> None:
    """Writes a PNG: a row for each shown image, a column for its truth and for each probe. Pixels without a
    true depth are white; the colours reach from the least to the largest true depth that is shown.

    Raises:
        UserError: the file cannot be written.
    """
    truths = {index: images.depth(index) for index in shown}
    known = np.concatenate([truth[truth > 0] for truth in truths.values()] or [np.ones(1)])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    rows = []
    for index in shown:
        truth = coloured(truths[index], low, high)
        truth[truths[index] == 0] = MISSING
        cells = [Cell(images.image(index), short_name(images.describe(index))), Cell(truth, "truth")]
        for each in scored:
            caption = each.name
            if index in each.scores.images:
                rmse = each.scores.scores[each.scores.images.index(index)].rmse
                caption += f", RMSE {rmse:.2f} m"
            cells.append(Cell(coloured(each.shown[index], low, high), caption))
        rows.append(cells)
    lines = [source, f"{images.name}/{images.split}; white: no depth known"]
    Sheet(lines, rows, Scale(low, high, "m")).write(Path(path))
    say(f"wrote {path}")
