"""The projector of one of our own checkpoints, which the other evaluators leave out.

Legend: h[N, D] features of the backbone, z[N, d] = g(h) projections.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.checkpoints.training_state import read_state
from siamtransfer.methods import METHODS, saved_options
from siamtransfer.utils.errors import UserError

ROWS_PER_CHUNK = 4096  # projected at once
PROJECTOR_PREFIX = {"backbone": "", "target": "target_"}  # by the branch


def read_projector(read: ReadBackbone) -> nn.Module | None:
    """The projector that was trained with this backbone (of the target network, where `read` is that), in
    eval mode on the CPU. Projections are its output as it is, also where the loss scales them to unit length.
    None where the file is not one of ours, or its method is unknown here or has no projector of a known name.

    Raises:
        UserError: the file does not hold what its configuration says.
    """
    if read.format != FORMAT:
        return None
    state = read_state(Path(read.path))
    if state["method"] not in METHODS:
        return None
    try:
        name, options = saved_options({"method": {"name": state["method"]}} | state["config"])
        with torch.random.fork_rng(devices=[]):  # the weights are replaced, the caller's random numbers stay
            method = METHODS[name](read.architecture.build(), options)
        projector = _find_projector(method, PROJECTOR_PREFIX[read.branch])
        if projector is None:
            return None
        module, prefix = projector
        keys = {key: value for key, value in state["model"].items() if key.startswith(prefix)}
        module.load_state_dict({key.removeprefix(prefix): keys[key] for key in keys}, strict=True)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{read.path} does not hold the projector that its configuration says: {reason}"
        ) from error
    return module.eval()


def _find_projector(method: nn.Module, branch: str) -> tuple[nn.Module, str] | None:
    """The projector, or DINO's head before its prototypes, and the prefix of its keys; None if there is
    none."""
    for name in ("projector", "head.mlp"):
        with contextlib.suppress(AttributeError):
            return method.get_submodule(branch + name), f"{branch}{name}."
    return None


@torch.inference_mode()
def project(projector: nn.Module, h: Tensor, device: torch.device) -> Tensor:
    """z float32[N, d] of h float32[N, D], on the CPU: batch norm uses the statistics of training."""
    projector.eval().to(device)
    return torch.cat([projector(chunk.to(device)).float().cpu() for chunk in h.split(ROWS_PER_CHUNK)])
