"""The painting of `augment.py` in few launches, for GPUs: every operation works on all views of a chunk.

`augment.augment` picks, for each operation and place in the jitter's order, the rows that it changes. That is
fast in the cache of a CPU and costs a GPU hundreds of short launches. Here no row is picked. A view that an
operation leaves alone takes part with numbers by which nothing changes.

Brightness, contrast, saturation and grey are one operation, clamp(A x + c mean(x)), with matrices A[C,C] and
c[C,C] for each view: contrast has c = (1 - f) G, the others c = 0, where G takes the luminance of the colours
into each of them and leaves every other channel as it is (of RGB alone the rows of c are equal, and one is
kept). Hue is the only operation of another form, and a view has it once. So the operations of a view before
its hue are packed into slots, those after it into others, and hue is computed once for all.

Values equal those of `augment.augment` to the rounding of float32. TF32 is off.

Legend: n views of S x S pixels, x[n,C,P] with P = S² pixels; as in `augment`, x[:,:3] is RGB where there are
colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamtransfer.distributed.runtime import exact_matmul
from siamtransfer.utils.errors import UserError
from siamtransfer.views.augment import BOXES, LUMINANCE, box_radius, colours_first
from siamtransfer.views.random_params import NEVER, Column, Grey, Operation
from siamtransfer.views.view_spec import RGB

PIXELS_AT_ONCE = 1 << 25  # of all views of a chunk; bounds the memory for intermediate values
MOST_BEFORE, MOST_AFTER = 3, 4  # slots before and after the hue that a view can fill
OPPONENTS = np.array([[-1, 1, 1], [0, 1, -1]], np.float32)
GREY = len(Operation)  # the code of grey, after those of the jitter's operations
NO_CHROMA = 1e-12  # instead of 0, by which grey would be divided

Numbers = dict[str, Tensor]
"""What `_paint` is told, by name; an operation that no view has is absent (see `_plan`)."""


@torch.no_grad()
def augment_fused(
    crops: Tensor,
    params: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    rgb: Sequence[int] = RGB,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    compiled: bool = False,
    at_once: int | None = None,
) -> Tensor:
    """Augments and normalises uint8[N,C,S,S] crops by float32[N,P] `params`, as `augment.augment` does.

    `compiled` fuses the operations by torch.compile, which compiles anew for each shape of a chunk; every
    operation then takes part in every chunk. The views are computed in groups of `at_once`, by default as
    many as have PIXELS_AT_ONCE pixels together.

    Returns `dtype`[N,C,S,S] on the device of `crops`; the arithmetic is float32 whatever the dtype and
    whatever autocast says.

    Raises:
        UserError: torch.compile cannot compile here.
    """
    side = crops.shape[-1]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(crops.shape, dtype=dtype, device=crops.device, memory_format=layout)
    at_once = at_once or max(1, PIXELS_AT_ONCE // side**2)
    paint = _compiled_paint() if compiled else _paint
    order = colours_first(crops.shape[1], rgb)
    channels = Channels(crops.shape[1], colours=len(rgb) > 0)
    normalisation = [mean[channel] for channel in order], [std[channel] for channel in order]
    if order != sorted(order):
        crops = crops[:, order]
    with torch.autocast(crops.device.type, enabled=False), exact_matmul():
        for start in range(0, len(crops), at_once):
            chunk = slice(start, start + at_once)
            plan = _plan(params[chunk], side, channels, normalisation, whole=compiled)
            paint(crops[chunk], _upload(plan, crops.device), out[chunk])
    if order == sorted(order):
        return out
    places = torch.tensor(order, device=out.device).argsort()
    return out[:, places].contiguous(memory_format=layout)


@cache
def _compiled_paint() -> Callable[[Tensor, Numbers, Tensor], None]:
    compiled = torch.compile(_paint, fullgraph=True, dynamic=False)

    def paint(crops: Tensor, numbers: Numbers, out: Tensor) -> None:
        try:
            compiled(crops, numbers, out)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException
            from torch._inductor.exc import InductorError

            if not isinstance(error, TorchDynamoException | InductorError):
                raise
            reason = " ".join(str(error).split()[:20])
            raise UserError(
                f"hardware.augment compiled: torch.compile failed ({reason}). It needs a C++ compiler on the "
                "CPU, and Triton with a C compiler on a GPU: install them, or take --hardware.augment fused"
            ) from error

    return paint


def _upload(plan: dict[str, np.ndarray], device: torch.device) -> Numbers:
    """The arrays as tensors on the device, by one asynchronous copy."""
    flat = np.concatenate([array.ravel() for array in plan.values()], dtype=np.float32)
    parts = torch.from_numpy(flat).to(device, non_blocking=True).split([a.size for a in plan.values()])
    return {name: part.view(plan[name].shape) for name, part in zip(plan, parts, strict=True)}


class Channels(NamedTuple):
    """The channels of the views, and whether the first three are red, green and blue."""

    total: int
    colours: bool

    @property
    def luminance(self) -> np.ndarray:
        """G[C,C]: the luminance in each of the colours, and every other channel as it is."""
        matrix = np.eye(self.total, dtype=np.float32)
        if self.colours:
            matrix[:3, :3] = np.array(LUMINANCE, np.float32)
        return matrix

    @property
    def rows(self) -> int:
        """The different rows of G, of which those of RGB alone are one."""
        return 1 if self == (3, True) else self.total


def _plan(
    params: np.ndarray,
    side: int,
    channels: Channels,
    normalisation: tuple[Sequence[float], Sequence[float]],
    *,
    whole: bool,
) -> dict[str, np.ndarray]:
    """The numbers of all operations on n views, float32; `whole`: of those that no view has, too.

    PHASE SLOT: A[n,C,C], and with ", mean" c[n,C,C] (of RGB c[n,1,3]) where a view changes its contrast
    there; PHASE is before or after the hue. hue: [n,3,1], from where each channel's distance on the circle of
    colours is counted; opponents [2,3] see `_turn_hue`. top, fall, limit: [n,1,1], [n,1,1] and [n,1,S] of the
    blur's boxes, none, [1], and distance, [S,S], see `_blur`. threshold: [n,1,1,1] of solarize. scale, shift:
    [1,C,1,1] of the normalisation.
    """
    plan: dict[str, np.ndarray] = {}
    operations, factors = _sequences(params)
    is_hue = operations == Operation.HUE
    early = np.arange(operations.shape[1]) < is_hue.argmax(axis=1)[:, None]  # nothing, in views without hue
    colour = (operations >= 0) & ~is_hue
    slots = partial(_slots, channels=channels)
    plan |= slots("before", operations, factors, colour & early, MOST_BEFORE if whole else 0)
    if (whole and channels.colours) or is_hue.any():
        turn = np.where(is_hue, factors, 0).sum(axis=1)[:, None]
        plan["hue"] = (6 * turn + 3 - np.array([0, 2, 4]))[:, :, None]
        plan["opponents"] = OPPONENTS
    plan |= slots("after", operations, factors, colour & ~early, MOST_AFTER if whole else 0)
    sigma, threshold = params[:, Column.SIGMA], params[:, Column.SOLARIZE]
    if whole or (sigma > 0).any():
        plan |= _boxes(np.where(sigma > 0, box_radius(sigma), 0)[:, None, None], side)
    if (whole and channels.colours) or (threshold < NEVER).any():
        plan["threshold"] = threshold[:, None, None, None]
    mean, std = normalisation
    scale = 1 / np.array(std, np.float64)[None, :, None, None]
    return plan | {"scale": scale, "shift": -np.array(mean)[None, :, None, None] * scale}


def _sequences(params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chain of each view: its operations int64[n,6] (-1 for none) and their factors float32[n,6]."""
    grey = params[:, [Column.GREY]]
    order = params[:, Column.ORDER : Column.ORDER + 4]
    first, last = (np.where(grey == when, GREY, -1) for when in (Grey.BEFORE_JITTER, Grey.AFTER_JITTER))
    operations = np.concatenate([first, order, last], axis=1).astype(np.int64)
    strength = params[:, Column.STRENGTH : Column.STRENGTH + 4]
    factors = np.concatenate([strength, np.zeros((len(params), 1), np.float32)], axis=1)
    return operations, np.take_along_axis(factors, operations.clip(0), axis=1)


def _slots(
    phase: str,
    operations: np.ndarray,
    factors: np.ndarray,
    chosen: np.ndarray,
    at_least: int,
    *,
    channels: Channels,
) -> dict[str, np.ndarray]:
    """The operations bool[n,6] `chosen`, each view's packed to the front; a slot holds one of each view.
    Where slots are asked for, `at_least` so many, each can change the contrast.

    Grey that comes first leaves values within 0 and 1, so the operation after it is of the same slot.
    """
    slots: dict[str, np.ndarray] = {}
    grey_first = chosen[:, :1]
    place = np.where(chosen, (chosen.cumsum(axis=1) - 1 - grey_first).clip(0), -1)
    identity, luminance = np.eye(channels.total, dtype=np.float32), channels.luminance
    colours = np.arange(channels.total)[:, None] < (3 if channels.colours else 0)
    greyed = np.where(grey_first[:, :, None], luminance, identity)
    for slot in range(max(at_least, int(place.max(initial=-1)) + 1)):
        matrices = np.tile(identity, (len(chosen), 1, 1)) if slot else greyed.copy()
        rows, columns = (place[:, 1:] == slot).nonzero()
        operation, factor = operations[rows, columns + 1], factors[rows, columns + 1][:, None, None]
        mixes = np.isin(operation, (Operation.SATURATION, GREY))[:, None, None]
        changes = factor * identity + np.where(mixes, (1 - factor) * luminance, 0)
        changes = np.where(mixes & ~colours, identity, changes)  # exactly, whatever the factor
        contrast = operation == Operation.CONTRAST
        if at_least or contrast.any():
            weights = np.zeros((len(chosen), channels.rows, channels.total), np.float32)
            weights[rows[contrast]] = (1 - factor[contrast]) * luminance[: channels.rows]
            slots[f"{phase} {slot}, mean"] = weights @ matrices
        matrices[rows] = changes @ matrices[rows]
        slots[f"{phase} {slot}"] = matrices
    return slots


def _boxes(radius: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """What `_blur` makes the boxes of radius[n,1,1] of: the weight of line j in line i is top - fall |i - j|,
    from none to limit."""
    width = 2 * radius.astype(np.float64) + 1
    limit = np.repeat(1 / width, side, axis=2)
    limit[:, :, [0, -1]] = np.inf
    lines = np.arange(side, dtype=np.float32)
    distance = np.abs(lines[:, None] - lines)
    none = np.zeros(1)
    return {
        "top": (radius + 1) / width,
        "fall": 1 / width,
        "limit": limit,
        "none": none,
        "distance": distance,
    }


def _paint(crops: Tensor, numbers: Numbers, out: Tensor) -> None:
    """Writes into out[n,C,S,S] what becomes of uint8[n,C,S,S] crops."""
    x = torch.div(crops, 255).flatten(2)
    x = _colours("before", x, numbers)
    if "hue" in numbers:
        turned = _turn_hue(x[:, :3], numbers["hue"], numbers["opponents"])
        x = turned if x.shape[1] == 3 else torch.cat([turned, x[:, 3:]], dim=1)
    x = _colours("after", x, numbers).view(crops.shape)
    if "top" in numbers:
        x = _blur(x, numbers)
    if "threshold" in numbers:
        colours = x[:, :3]
        solarized = torch.where(colours >= numbers["threshold"], 1 - colours, colours)
        x = solarized if x.shape[1] == 3 else torch.cat([solarized, x[:, 3:]], dim=1)
    torch.addcmul(numbers["shift"], x, numbers["scale"], out=out)


def _colours(phase: str, x: Tensor, numbers: Numbers) -> Tensor:
    """clamp(A x + c mean(x)) for each slot of a phase."""
    slot = 0
    while f"{phase} {slot}" in numbers:
        changed = torch.bmm(numbers[f"{phase} {slot}"], x)
        weights = numbers.get(f"{phase} {slot}, mean")
        if weights is not None:
            changed.add_(torch.bmm(weights, x.mean(dim=2, keepdim=True)))
        x = changed.clamp_(0, 1)
        slot += 1
    return x


def _turn_hue(x: Tensor, start: Tensor, opponents: Tensor) -> Tensor:
    """Turns the colour circle, keeping HSV's saturation and value.

    Let V be the largest channel, m the smallest, C = V - m the chroma and h the hue on a circle of length 6,
    with red at 0, green at 2 and blue at 4: |h| = 1 + (G + B - R - m) / C, negative where blue exceeds green.
    The rows of `opponents` give G + B - R and G - B.
    A channel at distance d from the turned hue has V - C clamp(d - 1, 0, 1). With `start`, which is 6 turns
    plus 3 less the channel's place, d = |(h + start) mod 6 - 3|.
    """
    low, value = torch.aminmax(x, dim=1, keepdim=True)
    hue, sign = torch.matmul(opponents, x).split(1, dim=1)
    chroma = (value - low).clamp_(min=NO_CHROMA)
    hue = torch.sub(hue, low).div_(chroma).add_(1).copysign_(sign)
    distance = torch.remainder(hue + start, 6).sub_(3).abs_().clamp_(1, 2)
    return torch.addcmul(value + chroma, chroma, distance, value=-1)


def _blur(x: Tensor, numbers: Numbers) -> Tensor:
    """PIL's GaussianBlur of x[n,C,S,S]: three box blurs each way, with repeated edges.

    A box of radius r is a matrix B[S,S]: the weight of line j in line i is clamp(r + 1 - |i - j|, 0, 1) of
    2 r + 1. The first and the last line also stand for those beyond them, so their weight has no upper limit:
    the sum of the clamped weights from |i - j| on is r + 1 - |i - j| itself. The three boxes together are
    K = B B B, and the result is K x Kᵀ; r = 0 gives the identity.

    Both products have K on the left and the lines that are blurred as the rows of what is on the right:
    first column, channel and row, then row, column and channel. So no copy is made between them, and the
    result lies in memory as channels_last wants it.
    """
    box = torch.addcmul(numbers["top"], numbers["fall"], numbers["distance"], value=-1)
    box = torch.clamp(box, numbers["none"], numbers["limit"])
    kernel = torch.bmm(torch.bmm(box, box), box)
    assert BOXES == 3
    n, channels, side, _ = x.shape
    x = torch.bmm(kernel, x.reshape(n, channels * side, side).mT).view(n, channels * side, side)
    return torch.bmm(kernel, x.mT).view(n, side, side, channels).permute(0, 3, 1, 2)
