"""The projector's last layer by principal components: its two factors are set from a batch's features.

With `projector_rank` r the last layer is W2 W1 x + b, W1[r, D] and W2[d, r]. Let x̄ and V[D, r] be the mean
and the first r principal directions of its inputs x, over all views and the rows of all ranks. Then

    W2 ← W2 W1 V,  W1 ← Vᵀ,  b ← b + W2 W1 (x̄ - V Vᵀ x̄)

computes what it did before for inputs in x̄ + span(V), and loses the directions in which inputs vary least.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.methods.parts.precision import no_tf32
from siamtransfer.utils.errors import UserError


@torch.no_grad()
def set_factors(projectors: Sequence[nn.Module], features: list[Tensor]) -> None:
    """Sets the factors of the first projector from the inputs that `features` h[N,D] give its last layer, and
    those of the others (a momentum copy) to equal ones.

    Raises:
        UserError: a pass has too few rows for so many directions, as where optim.grad_accum_steps parts a
            batch.
    """
    sequences = [projector for projector in projectors if isinstance(projector, nn.Sequential)]
    projector = sequences[0]
    position = _factors(projector)
    head = projector[:position]
    x = collectives.all_gather(torch.cat([head(h.detach()) for h in features]))
    first, second = projector[position], projector[position + 1]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    if len(first.weight) >= len(x):
        raise UserError(
            f"simsiam_variants.projector_rank {len(first.weight)} asks for more principal components than "
            f"the {len(x)} views of a pass have: lower it to {len(x) - 1} or less, or lower "
            "optim.grad_accum_steps"
        )
    # float64: the directions of small variance would otherwise depend on rounding.
    x, w1, w2 = (tensor.double() for tensor in (x, first.weight, second.weight))
    mean = x.mean(dim=0)
    directions = principal_directions(x - mean, len(w1))
    collectives.broadcast(directions)
    product = w2 @ w1
    second.bias.add_(product @ (mean - directions @ (directions.T @ mean)))
    second.weight.copy_(product @ directions)
    first.weight.copy_(directions.T)
    for other in sequences[1:]:
        for copied, source in zip(other[position : position + 2], (first, second), strict=True):
            copied.load_state_dict(source.state_dict())


def principal_directions(centred: Tensor, count: int) -> Tensor:
    """The first `count` principal directions of centred rows x[N,D], as orthonormal columns [D, count]; the
    largest number of each is positive."""
    with no_tf32(centred):
        _, vectors = torch.linalg.eigh(centred.T @ centred)
    directions = vectors.flip(1)[:, :count]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return (directions * largest.sign()).contiguous()


def _factors(projector: nn.Sequential) -> int:
    """The position of W1 in a projector, the only linear layer that a linear layer follows at once."""
    kinds = [isinstance(layer, nn.Linear) for layer in projector]
    return next(k for k in range(len(kinds) - 1) if kinds[k] and kinds[k + 1])
