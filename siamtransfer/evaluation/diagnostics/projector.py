"""The projector of one of our own checkpoints, which evaluation otherwise leaves out.

Legend: h[N, D] features of the backbone, z[N, d] = g(h) projections.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.checkpoints.training_state import read_state
from siamtransfer.methods import METHODS, saved_options
from siamtransfer.utils.errors import UserError

ROWS = 4096  # projected at once
PREFIX = {"backbone": "", "target": "target_"}  # of a branch's projector


def read_projector(read: ReadBackbone) -> nn.Module | None:
    """The projector that was trained with this backbone (of the target network, where `read` is that), in
    eval mode on the CPU; None when the file is not one of ours. Projections are its output as it is, also
    where the loss scales them to unit length.

    Raises:
        UserError: the file does not hold what its configuration says.
    """
    if read.format != FORMAT:
        return None
    state = read_state(Path(read.path))
    try:
        name, options = saved_options(state["config"])
        with torch.random.fork_rng(devices=[]):  # the weights are replaced, the caller's random numbers stay
            method = METHODS[name](read.architecture.build(), options)
        part = PREFIX[read.branch] + ("projector" if hasattr(method, "projector") else "head.mlp")
        projector, beginning = method.get_submodule(part), f"{part}."
        own = {key: value for key, value in state["model"].items() if key.startswith(beginning)}
        projector.load_state_dict({key.removeprefix(beginning): own[key] for key in own}, strict=True)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{read.path} does not hold the projector that its configuration says: {reason}"
        ) from error
    return projector.eval()


@torch.inference_mode()
def project(projector: nn.Module, h: Tensor, device: torch.device) -> Tensor:
    """z float32[N, d] of h float32[N, D], on the CPU: batch norm uses the statistics of training."""
    projector.eval().to(device)
    return torch.cat([projector(part.to(device)).float().cpu() for part in h.split(ROWS)])
