"""DINO (Caron et al., Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294).

A student predicts, from any crop, the outputs of its moving average (the teacher) for the two global views: a
distribution over K outputs. Centring prevents that one output dominates, and a low temperature prevents
uniform outputs of the teacher; together they prevent collapse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.base import UNCENTRED, Method, Options, StepInfo, StepOutput, trainable
from siamtransfer.methods.parts.clipping import clip_each
from siamtransfer.methods.parts.ema import momentum_copy, move, rising
from siamtransfer.methods.parts.mlp import mlp
from siamtransfer.methods.parts.multicrop import GLOBALS, cross_entropy_between_views, encode
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32
from siamtransfer.utils.checks import above, at_least, within


@dataclass
class DINOConfig(Options):
    """DINO's head, temperatures and safeguards; the defaults are the paper's for ViT-S/16."""

    hidden: int = 2048
    """Width of the head's hidden layers."""
    layers: int = 3
    """Layers of the head before the last one."""
    bottleneck: int = 256
    """Width of the unit vectors before the last layer; the collapse monitors read them."""
    dim: int = 65536
    """Outputs K (60000 for the released ResNet-50)."""
    batch_norm: bool = False
    """Batch norm in the head: not for ViTs; the released ResNet-50 has it."""
    norm_last_layer: bool = True
    """Keep the rows of the last layer at length 1; False trains their lengths, for large ViTs a little better
    and less stable."""
    student_temperature: float = 0.1
    """Temperature τ_s of the student's softmax."""
    teacher_temperature: float = 0.07
    """Temperature τ_t of the teacher's softmax after its warm-up."""
    teacher_temperature_start: float = 0.04
    """Temperature τ_t in the first epoch. Lower it when the loss stays at ln K."""
    teacher_warmup_epochs: int = 30
    """Epochs of the teacher's linear warm-up; 0: none (the code's default, with 0.04 throughout)."""
    center_momentum: float = 0.9
    """Fraction of the old centre that an update keeps."""
    momentum: float = 0.996
    """The teacher's momentum at the start; it rises to 1 along a cosine."""
    clip: float = 3.0
    """Largest norm of the gradient of each parameter; 0: no clipping."""
    freeze_last_layer_epochs: int = 1
    """Epochs at the start that do not train the last layer."""

    least_std, least_rank_fraction = UNCENTRED

    def check(self, batch: int) -> None:
        for key in ("hidden", "layers", "bottleneck", "dim"):
            at_least(f"dino.{key}", getattr(self, key), 1)
        for key in ("student_temperature", "teacher_temperature", "teacher_temperature_start"):
            above(f"dino.{key}", getattr(self, key), 0)
        for key in ("teacher_warmup_epochs", "clip", "freeze_last_layer_epochs"):
            at_least(f"dino.{key}", getattr(self, key), 0)
        within("dino.center_momentum", self.center_momentum, 0, 1)
        within("dino.momentum", self.momentum, 0, 1)


class DINO(Method):
    """L = mean over teacher views i and student views v ≠ i of -t_i · log softmax(s_v / τ_s), with
    t = softmax((teacher's output - c) / τ_t), and afterwards c ← m c + (1 - m) E[teacher's output]."""

    Config = DINOConfig
    config: DINOConfig
    multi_crop = True
    recordable = True
    evaluated = "target_backbone"
    center: Tensor

    def __init__(self, backbone: Backbone, config: DINOConfig):
        super().__init__(backbone, config)
        self.head = Head(backbone.dim, config)
        self.target_backbone = without_drop_path(momentum_copy(backbone))
        self.target_head = momentum_copy(self.head)
        self.register_buffer("center", torch.zeros(config.dim))
        self.teacher_temperature = config.teacher_temperature_start

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Two global views [N,3,S,S] and any number of local ones -> loss, ln K for uniform outputs."""
        with torch.no_grad():
            teacher_outputs = self.target_head(encode(self.target_backbone, views[:GLOBALS]))[1]
        z, outputs = self.head(encode(self.backbone, views))
        logits = (teacher_outputs - self.center) / self.teacher_temperature
        targets = logits.softmax(dim=1).chunk(GLOBALS)
        predictions = (outputs / self.config.student_temperature).log_softmax(dim=1).chunk(len(views))
        loss = cross_entropy_between_views(targets, predictions)
        self.move_center(teacher_outputs)
        return StepOutput(loss, list(z.detach().chunk(len(views))))

    @torch.no_grad()
    def move_center(self, outputs: Tensor) -> None:
        """Moves the centre towards the mean of the teacher's outputs [2N,K] on all ranks."""
        mean = collectives.all_reduce(outputs.sum(dim=0)) / (len(outputs) * collectives.world_size())
        self.center.lerp_(mean, 1 - self.config.center_momentum)

    @property
    def graph_key(self) -> float:
        return self.teacher_temperature

    def before_forward(self, info: StepInfo) -> None:
        self.teacher_temperature = teacher_temperature(self.config, info.epoch)

    @torch.no_grad()
    def before_update(self, info: StepInfo) -> None:
        """Clips the gradient of each parameter by its own norm; removes the last layer's while that is
        frozen."""
        if self.config.clip:
            clip_each(trainable(self), self.config.clip)
        if info.epoch < self.config.freeze_last_layer_epochs:
            for parameter in self.head.last_layer.parameters():
                parameter.grad = None

    def after_update(self, info: StepInfo) -> None:
        momentum = rising(self.config.momentum, info.done)
        move(self.target_backbone, self.backbone, momentum)
        move(self.target_head, self.head, momentum)


class Head(nn.Module):
    """h[N,D] -> unit vectors z[N,bottleneck] and their products with K weight-normed rows [N,K]."""

    def __init__(self, features: int, config: DINOConfig):
        super().__init__()
        self.mlp = mlp(
            [features, *[config.hidden] * (config.layers - 1), config.bottleneck],
            hidden="affine" if config.batch_norm else "none",
            hidden_bias=True,
            activation=nn.GELU,
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = WeightNormed(
            config.bottleneck, config.dim, trained_lengths=not config.norm_last_layer
        )

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        z = l2_normalize(self.mlp(h))
        with no_tf32(z):
            return z, self.last_layer(z)


class WeightNormed(nn.Module):
    """x[N,d] -> x Wᵀ [N,K] with rows W_k = g_k v_k / |v_k| (Salimans and Kingma, arXiv 1602.07868).

    The lengths g start at 1 and are trained only if `trained_lengths`.
    """

    def __init__(self, inputs: int, outputs: int, *, trained_lengths: bool):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=trained_lengths)
        self.weight_v = nn.Parameter(nn.Linear(inputs, outputs, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True))


def teacher_temperature(config: DINOConfig, epoch: int) -> float:
    """τ_t in `epoch` (from 0): linear over the warm-up, whose last epoch has the final value."""
    if epoch >= config.teacher_warmup_epochs:
        return config.teacher_temperature
    done = epoch / max(config.teacher_warmup_epochs - 1, 1)
    start = config.teacher_temperature_start
    return start + (config.teacher_temperature - start) * done


def without_drop_path(backbone: nn.Module) -> nn.Module:
    """Switches stochastic depth off: only the student has it."""
    for module in backbone.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0  # type: ignore[assignment]
    return backbone
