"""What a probe of depth is: from the features of a map to a depth at every cell.

Legend: D features, h and w cells of a map.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class DepthProbe(Protocol):
    """A fitted probe.

    Attributes:
        name: of its setting in the record.
        protocol: what moves its numbers, for the record.
    """

    name: str
    protocol: dict[str, Any]

    def depth(self, features: Tensor) -> Tensor:
        """float32[h', w'] in metres of features float32[D, h, w]; the grid may be finer than that of the
        features. It is enlarged bilinearly to the image."""
