"""Weights for Detectron2: read with their settings, loaded, and compared tensor by tensor after loading.

Where a name or a shape does not match, Detectron2's checkpointer warns and trains on from random weights.
Here every tensor of the trunk is compared with the file after loading, and a difference ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.checkpoints.detectron2_keys import TIMM_TRUNK, in_model
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.checkpoints.reading import Reading
from siamtransfer.detection.detectron2.parity import load_weights
from siamtransfer.detection.detectron2.shapes import detectron2_name
from siamtransfer.detection.detectron2.weights_config import read_stamp
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

_TRUNK = {
    "FPN": ("backbone.bottom_up.",),
    "C4": ("backbone.", "roi_heads.res5."),
    "plain": ("backbone.",),
    "timm": (in_model(TIMM_TRUNK, "timm"),),
    "ViT": (in_model(TIMM_TRUNK, "ViT"),),
}
_EXTRA_NORM = "roi_heads.res5.norm."  # the protocol's own layer, which no file has
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, eq=False)
class ConvertedWeights:
    """OUT.pkl with the OUT.yaml beside it. state: the trunk's tensors by Detectron2's names; digest: of these
    tensors; reading: how the network takes its images, and how that is known."""

    path: Path
    state: dict[str, Tensor]
    digest: str
    reading: Reading


def read_converted(path: Path) -> ConvertedWeights:
    """Reads OUT.pkl, every key accounted for, and checks that OUT.yaml belongs to it.

    Raises:
        UserError: either file is missing or damaged, or the stamp in OUT.yaml is of other weights.
    """
    weights_config = path.with_suffix(".yaml")
    convert = "convert the checkpoint with `siamtransfer to-d2 CHECKPOINT OUT.pkl`"
    if path.suffix != ".pkl":
        raise UserError(f"{printable(path)} is no OUT.pkl; {convert}")
    if not path.is_file():
        raise UserError(f"there is no file {printable(path)}; {convert}")
    if not weights_config.is_file():
        raise UserError(
            f"{printable(weights_config)}, which says what {path.name} needs of Detectron2, "
            f"is missing; {convert}"
        )
    read = read_backbone(path)
    stamp = read_stamp(weights_config)
    if stamp != read.digest:
        difference = f"is stamped with {stamp[:12]}…" if stamp else "has no stamp"
        raise UserError(
            f"{printable(weights_config)} {difference} and the weights in {path.name} are "
            f"{read.digest[:12]}…: the two do not belong together; {convert}"
        )
    state = {detectron2_name(name, read.architecture): tensor for name, tensor in read.state.items()}
    return ConvertedWeights(path, state, read.digest, read.reading)


def load_proved(model: nn.Module, path: Path, state: Mapping[str, Tensor], layout: str) -> int:
    """Loads `path` into a complete Detectron2 model by Detectron2's checkpointer, and proves that each tensor
    of its trunk equals that of `state` to the bit; returns how many there are.

    Raises:
        UserError: a tensor of the trunk has another value, or the file one that the trunk lacks.
    """
    load_weights(model, path)
    loaded = _trunk(_unwrapped(model).state_dict(), layout)
    sources = {in_model(name, layout): tensor for name, tensor in state.items()}
    frozen = not any(name.endswith("num_batches_tracked") for name in loaded)  # FrozenBN counts no batches
    if frozen:
        sources = {
            name: tensor for name, tensor in sources.items() if not name.endswith("num_batches_tracked")
        }
    unequal = sorted(
        name
        for name in loaded.keys() | sources.keys()
        if name not in loaded or name not in sources or not _equal(loaded[name], sources[name])
    )
    if unequal:
        raise UserError(
            f"{len(unequal)} tensors of the model's trunk are not those of {printable(path)}, {unequal[0]} "
            "for one: it would have trained from random weights there; convert the checkpoint again, and "
            "choose a configuration for its architecture"
        )
    return len(loaded)


def load_published(model: nn.Module, weights: str, layout: str) -> int:
    """Loads a file of Detectron2's own model zoo, and checks by names that every tensor of the trunk arrived;
    returns the number of tensors. Statistics of norms may be absent: files for frozen norms lack them.

    Raises:
        UserError: the file cannot be had, or a tensor of the trunk is not in it.
    """
    from detectron2.checkpoint import DetectionCheckpointer

    class RecordingCheckpointer(DetectionCheckpointer):
        """Keeps the names of the tensors that did not arrive."""

        absent: tuple[str, ...] = ()

        def _load_model(self, checkpoint: Any) -> Any:
            incompatible = super()._load_model(checkpoint)
            shapes = (name for name, *_ in incompatible.incorrect_shapes)
            self.absent = (*incompatible.missing_keys, *shapes)
            return incompatible

    checkpointer = RecordingCheckpointer(model)
    try:
        checkpointer.load(weights, checkpointables=[])
    except (OSError, AssertionError) as error:
        raise UserError(f"MODEL.WEIGHTS {weights} cannot be had ({error}); give a file that can") from error
    trunk = _trunk(_unwrapped(model).state_dict(), layout)
    absent = sorted(name for name in trunk if name in checkpointer.absent and not name.endswith(_STATISTICS))
    if absent:
        raise UserError(
            f"{len(absent)} tensors of the model's trunk are not in {weights}, or have another shape there, "
            f"{absent[0]} for one: it would have trained from random weights; give weights of "
            "its architecture"
        )
    return len(trunk)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model itself."""
    return getattr(model, "module", model)


def _trunk(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(_TRUNK[layout]) and not name.startswith(_EXTRA_NORM)
    }


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.cpu(), b.to(a.dtype))
