"""What the class token of a ViT attends to, block by block.

timm's attention calls torch's fused kernel, which returns no weights. `ClassAttention` records the queries
and keys that a block gives to that kernel (after rotary positions and norms of queries and keys, if there
are any) and computes the row of the class token again, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_maps import patch_side
from siamtransfer.utils.errors import UserError


class KernelCall(NamedTuple):
    """A call of the fused attention: queries, keys and values [N, heads, tokens, D / heads], the additive or
    boolean mask, the factor of the scores, and the result [N, heads, tokens, D / heads]."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    output: Tensor

    def weights(self, rows: slice = slice(None)) -> Tensor:
        """The attention of the query tokens `rows` to all tokens, float32[N, heads, rows, tokens]; every row
        sums to 1."""
        with torch.autocast(self.query.device.type, enabled=False):
            query, key = self.query[:, :, rows].float(), self.key.float()
            scores = query @ key.transpose(-2, -1) * self.scale
            if self.mask is not None:
                mask = self.mask.expand(*scores.shape[:2], self.query.shape[2], -1)[:, :, rows]
                lowest = torch.zeros_like(scores).masked_fill(~mask, -math.inf) if _is_bool(mask) else mask
                scores = scores + lowest
            return scores.softmax(dim=-1)


class ClassAttention(nn.Module):
    """x[N, 3, H, W] -> the attention of the class token to the patches, float32[N, heads, h, w].

    H and W have to be multiples of `multiple`, the side of a patch. The weights of a head sum to 1 less what
    the head gives to the class token itself and to register tokens.

    Attributes:
        block: the number of the block, from 1.
        multiple: the side of a patch in pixels.

    Raises:
        UserError: the backbone is no ViT with a class token, or has no such block.
    """

    def __init__(self, backbone: Backbone, block: int | None = None):
        super().__init__()
        why_not = why_no_attention(backbone)
        if why_not is not None:
            raise UserError(why_not)
        model: Any = backbone.model
        count = len(model.blocks)
        if block is not None and not 1 <= block <= count:
            raise UserError(f"{backbone.name} has the blocks 1 to {count}, and no block {block}")
        self.backbone = backbone
        self.block = block or count
        side = patch_side(backbone)
        assert side is not None
        self.multiple = side

    def forward(self, x: Tensor) -> Tensor:
        model: Any = self.backbone.model
        with record_attention(model.blocks[self.block - 1].attn) as calls:
            self.backbone(x)
        rows, columns = x.shape[2] // self.multiple, x.shape[3] // self.multiple
        tokens = model.num_prefix_tokens + rows * columns
        if len(calls) != 1 or calls[0].query.shape[2] != tokens or calls[0].key.shape[2] != tokens:
            raise UserError(
                f"the attention of {self.backbone.name} is no softmax over its tokens, so it has no maps"
            )
        weights = calls[0].weights(slice(0, 1))[:, :, 0, model.num_prefix_tokens :]
        return weights.reshape(*weights.shape[:2], rows, columns)


def why_no_attention(backbone: Backbone) -> str | None:
    """A sentence that says why a backbone has no attention maps of a class token; None where it has them."""
    model = getattr(backbone, "model", None)
    if patch_side(backbone) is None:
        return f"{backbone.name} is no ViT: it has no class token whose attention could be shown"
    if not getattr(model, "num_prefix_tokens", 0) or getattr(model, "cls_token", None) is None:
        return f"{backbone.name} has no class token, whose attention to the patches is what is shown"
    if not all(hasattr(block, "attn") for block in getattr(model, "blocks", ())):
        return f"the blocks of {backbone.name} have no attention of their own"
    return None


@contextmanager
def record_attention(attention: nn.Module) -> Iterator[list[KernelCall]]:
    """Records the calls of the fused attention that a module makes within the context, and makes the module
    use it."""
    recorder = _Recorder()
    hooks = [
        attention.register_forward_pre_hook(recorder.begin),
        attention.register_forward_hook(recorder.end, always_call=True),
    ]
    fused = getattr(attention, "fused_attn", None)
    attention.fused_attn = True  # type: ignore[assignment]
    try:
        with recorder:
            yield recorder.calls
    finally:
        for hook in hooks:
            hook.remove()
        if fused is None:
            del attention.fused_attn
        else:
            attention.fused_attn = fused


class _Recorder(TorchFunctionMode):
    """Keeps the arguments and results of the fused attention while a module runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[KernelCall] = []
        self._inside = False

    def begin(self, *_: Any) -> None:
        self._inside = True

    def end(self, *_: Any) -> None:
        self._inside = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._inside and func is functional.scaled_dot_product_attention:
            self.calls.append(_as_call(result, *args, **kwargs))
        return result


def _as_call(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> KernelCall:
    """The arguments of torch's scaled_dot_product_attention under our names."""
    if is_causal:
        tokens = query.shape[2]
        attn_mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return KernelCall(query, key, value, attn_mask, factor, output)


def _is_bool(mask: Tensor) -> bool:
    return mask.dtype == torch.bool
