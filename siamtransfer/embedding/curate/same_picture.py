"""Whether two images show one picture: resized, recompressed, mirrored, or with a little cut off its edges.

Neighbouring features say that two images are alike, not that one is a copy. So the pixels of both are laid on
each other, at 32 pixels a side: for every window that leaves out up to a fifth of one image's width and of
its height, mirrored or not, the similarity with the other image; the best window is then moved in finer
steps.
Both are brought to a square first, so a window also undoes another ratio of the sides.

The similarity of two pictures x and y of one size is (2 cov + c) / (var x + var y + (mean x - mean y)^2 + c):
Lin's concordance (Biometrics 45, 1989), with a constant c as in SSIM (Wang et al. 2004, section III.B) that
keeps flat pictures from being compared by their noise. Means, variances and covariances are those of each
channel, averaged over the channels: that two pictures are both green does not make them alike. It is 1 for
equal pictures; other colours or another brightness lower it. A copy also has to be alike in every part, since
two icons of one design differ in a small one.

Legend: P pairs, C channels, S pixels a side of a thumbnail, W windows of an axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import exact_matmul

ALIKE = 0.965
"""Similarity from which two pictures count as one; see docs/CURATION.md for what was measured."""
LARGEST_DIFFERENCE = 0.1
"""Root mean square difference (of values from 0 to 1) that a sixteenth of the picture may have at most."""

ALIKE_IN_DETAIL, LITTLE_DIFFERENCE = 0.85, 0.03
"""The similarity that is enough where no sixteenth differs by more than this: strong compression takes much
of the little that a dim or nearly flat picture has."""

THUMBNAIL = 64
"""S."""
SIDE = 32  # pixels a side at which pictures are compared; half of S, since a window is resampled twice
COARSE = 8  # at which every window is tried
FLAT = 4  # at which pairs that have nothing in common are left out, without windows
MOST_CUT = 0.2  # of the width, and of the height, that one image may lack of the other
STEP = 0.05  # of the width, between windows
FINER = (0.025, 0.0125, 0.006, 0.003)  # steps of the edges when the best window is moved
FLAT_FLOOR, COARSE_FLOOR = 0.3, 0.8  # similarities below which a pair is not looked at more closely
CLOSE_WAY = 0.05  # how much less similar than the best way another may be at 8 pixels to be looked at, too
CONSTANT = 0.03**2  # SSIM's, for values from 0 to 1
PARTS = 4  # a side: parts of the picture that have to be alike each
PAIRS_AT_ONCE = 8


class PairSimilarity(NamedTuple):
    """How alike the pictures of P pairs are.

    Attributes:
        whole: float32[P], the similarity of the two pictures, up to 1.
        worst: float32[P], the largest root mean square difference in a part of the picture; 1 where the pair
            was not looked at so closely.
        mirrored: bool[P], whether one is the other's mirror image.
    """

    whole: Tensor
    worst: Tensor
    mirrored: Tensor

    @property
    def same(self) -> Tensor:
        """bool[P]: whether the two show the same picture."""
        alike = (self.whole >= ALIKE) & (self.worst <= LARGEST_DIFFERENCE)
        return alike | ((self.whole >= ALIKE_IN_DETAIL) & (self.worst <= LITTLE_DIFFERENCE))


def thumbnail(image: np.ndarray) -> Tensor:
    """uint8[C, S, S] of an image uint8[H, W, C], both sides brought to S by means over areas; of more than
    three channels the first, the middle one and the last."""
    if image.shape[2] > 3:
        image = image[..., [0, image.shape[2] // 2, -1]]
    height, width = image.shape[:2]
    rows, columns = (_windows(_WHOLE, length, THUMBNAIL)[0] for length in (height, width))
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
    return (rows @ pixels @ columns.T).round().clamp(0, 255).byte()


@exact_matmul()
def compare(first: Tensor, second: Tensor) -> PairSimilarity:
    """How alike the pictures of each pair are: thumbnails uint8[P, C, S, S] of both."""
    parts = [
        _compare(a.float() / 255, b.float() / 255)
        for a, b in zip(first.split(PAIRS_AT_ONCE), second.split(PAIRS_AT_ONCE), strict=True)
    ]
    return PairSimilarity(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _compare(first: Tensor, second: Tensor) -> PairSimilarity:
    """`compare` of pictures float32[P, C, S, S] from 0 to 1.

    Either may be the one that more is on, and either may be mirrored. Of these four ways the best at 8 pixels
    a side is looked at more closely, and so is any that is nearly as good.
    """
    ways = [
        (larger, other)
        for larger, smaller in ((first, second), (second, first))
        for other in (smaller, smaller.flip(-1))
    ]
    similarity = torch.stack([_search(a, b, _whole(a), _whole(a), FLAT).similarity for a, b in ways[:2]])
    whole, way = similarity.max(dim=0)
    worst = torch.ones_like(whole)
    near = (whole >= FLAT_FLOOR).nonzero()[:, 0]
    if not len(near):
        return PairSimilarity(whole, worst, way % 2 == 1)
    every = _all_edges().expand(len(near), -1, -1)
    coarse = [_search(a[near], b[near], every, every, COARSE) for a, b in ways]
    best = torch.stack([found.similarity for found in coarse]).max(dim=0)
    whole[near], way[near] = best.values, best.indices
    refined = torch.zeros_like(whole)
    for number, (larger, other) in enumerate(ways):
        similarity = coarse[number].similarity
        chosen = (similarity >= COARSE_FLOOR) & (similarity >= best.values - CLOSE_WAY)
        if bool(chosen.any()):
            pairs = near[chosen]
            found = _refine(larger[pairs], other[pairs], coarse[number].of(chosen))
            window = _cut(larger[pairs], found.x[:, None], found.y[:, None], SIDE)[:, :, 0, :, 0]
            better = found.similarity > refined[pairs]
            pairs = pairs[better]
            refined[pairs], way[pairs] = found.similarity[better], number
            worst[pairs] = _worst_part(window[better], _smaller(other[pairs], SIDE))
    whole = torch.where(refined > 0, refined, whole).clamp_max(1)  # rounding may go beyond
    return PairSimilarity(whole, worst, way % 2 == 1)


class _Window(NamedTuple):
    """A window a pair: its similarity float32[P], and its edges float32[P, 2] on each axis."""

    similarity: Tensor
    x: Tensor
    y: Tensor

    def of(self, pairs: Tensor) -> _Window:
        return _Window(*(values[pairs] for values in self))


def _refine(larger: Tensor, other: Tensor, start: _Window) -> _Window:
    """The window moved to where it is most like the other picture, one axis after the other."""
    found = start
    for step in FINER:
        found = _search(larger, other, _moved(found.x, step), found.y[:, None], SIDE)
        found = _search(larger, other, found.x[:, None], _moved(found.y, step), SIDE)
    return found


def _search(larger: Tensor, other: Tensor, x: Tensor, y: Tensor, side: int) -> _Window:
    """The window of each pair that is most like the other picture at `side` pixels a side, of those whose
    edges on the two axes are x[P, W, 2] and y[P, W, 2]."""
    windows = _cut(larger, x, y, side)  # [P, C, Wy, side, Wx, side]
    small = _smaller(other, side)
    mean, mean_small = windows.mean(dim=(3, 5)), small.mean(dim=(2, 3))[:, :, None, None]  # [P, C, Wy, Wx]
    variance = (windows.square().mean(dim=(3, 5)) - mean.square()).mean(dim=1)
    variance_small = (small.square().mean(dim=(2, 3))[:, :, None, None] - mean_small.square()).mean(dim=1)
    product = torch.einsum("pcyixj,pcij->pyx", windows, small) / small[0].numel()
    covariance = product - (mean * mean_small).mean(dim=1)
    apart = variance + variance_small + (mean - mean_small).square().mean(dim=1)
    similarity = (2 * covariance + CONSTANT) / (apart + CONSTANT)
    best, place = similarity.flatten(1).max(dim=1)
    pairs, columns = torch.arange(len(larger)), similarity.shape[2]
    return _Window(best, x[pairs, place % columns], y[pairs, place // columns])


def _cut(pictures: Tensor, x: Tensor, y: Tensor, side: int) -> Tensor:
    """float32[P, C, Wy, side, Wx, side]: every window of pictures[P, C, S, S]."""
    rows, columns = (_windows(edges, pictures.shape[-1], side) for edges in (y, x))
    return torch.einsum("pyih,pchw,pxjw->pcyixj", rows, pictures, columns)


def _smaller(pictures: Tensor, side: int) -> Tensor:
    """float32[P, C, side, side] of pictures[P, C, S, S]."""
    whole = _windows(_WHOLE, pictures.shape[-1], side)[0]
    return whole @ pictures @ whole.T


def _windows(edges: Tensor, length: int, side: int) -> Tensor:
    """float32[..., side, length]: what makes `side` means of the `length` pixels between two edges [..., 2],
    which are shares of the length; a pixel that lies in part between them counts in part."""
    low, high = edges[..., :1] * length, edges[..., 1:] * length
    borders = low + (high - low) * torch.linspace(0, 1, side + 1)
    begin, end = borders[..., :-1, None], borders[..., 1:, None]
    pixel = torch.arange(length)
    overlap = (torch.minimum(end, pixel + 1) - torch.maximum(begin, pixel)).clamp_min(0)
    return overlap / (end - begin)


_WHOLE = torch.tensor([[0.0, 1.0]])


def _whole(pictures: Tensor) -> Tensor:
    """float32[P, 1, 2]: the one window that leaves out nothing."""
    return _WHOLE.expand(len(pictures), 1, 2)


def _all_edges() -> Tensor:
    """float32[W, 2]: every window of an axis, in steps, that leaves out at most MOST_CUT."""
    steps = round(MOST_CUT / STEP)
    pairs = [(low, cut - low) for cut in range(steps + 1) for low in range(cut + 1)]
    return torch.tensor([[low * STEP, 1 - high * STEP] for low, high in pairs])


def _moved(edges: Tensor, step: float) -> Tensor:
    """float32[P, 25, 2]: windows whose edges [P, 2] are moved by up to two steps each."""
    moves = torch.cartesian_prod(*[torch.arange(-2, 3) * step] * 2)
    return (edges[:, None] + moves).clamp(0, 1)


def _worst_part(first: Tensor, second: Tensor) -> Tensor:
    """float32[P]: the largest root mean square difference in one of PARTS x PARTS parts of the pictures."""
    squares = (first - second).square().mean(dim=1, keepdim=True)
    parts = torch.nn.functional.avg_pool2d(squares, first.shape[-1] // PARTS)
    return parts.flatten(1).amax(dim=1).sqrt()
