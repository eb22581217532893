"""Lookahead (Zhang et al., arXiv 1907.08610) around any optimizer; with RAdam it is what is called Ranger."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from siamtransfer.distributed.sharding import local

SLOW = "slow_weight"
"""The entry of a parameter's optimizer state that holds its slow weights."""
COUNT = "lookahead_steps"
"""The entry of every group that counts the optimizer's steps."""


class Lookahead:
    """φ ← φ + α (θ - φ) and θ ← φ after every k-th step of an optimizer, whose weights are θ.

    The slow weights φ start as the weights before their first update. They and the count of steps are part of
    the optimizer's own state, so that they are saved, restored and sharded with it. A step that the loss
    scaler leaves out does not count.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, every: int, share: float):
        self.every, self.share = every, share
        self._new: dict[Parameter, Tensor] = {}
        for group in optimizer.param_groups:
            group[COUNT] = 0
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, optimizer: torch.optim.Optimizer, args: Any, options: Any) -> None:
        """Keeps the weights of parameters that are updated for the first time. They go into the state after
        the step, for an optimizer takes a parameter with an entry there for one that it has begun with."""
        self._new = {
            weight: weight.detach().clone()
            for group in optimizer.param_groups
            for weight in group["params"]
            if weight.grad is not None and SLOW not in optimizer.state.get(weight, {})
        }

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: Any, options: Any) -> None:
        for weight, slow in self._new.items():
            optimizer.state[weight][SLOW] = slow
        self._new = {}
        for group in optimizer.param_groups:
            group[COUNT] += 1
            begun = [weight for weight in group["params"] if SLOW in optimizer.state.get(weight, {})]
            if group[COUNT] % self.every or not begun:
                continue
            behind = [local(optimizer.state[weight][SLOW]) for weight in begun]
            fast = [local(weight) for weight in begun]
            torch._foreach_lerp_(behind, fast, self.share)
            torch._foreach_copy_(fast, behind)
