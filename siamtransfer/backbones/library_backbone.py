"""A network of a library (timm, torchvision) as a backbone, with the library's names of its tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone


class LibraryBackbone(Backbone):
    """A library's network without its classifier: x[N, 3, H, W] to h[N, D].

    In `state_dict` and `load_state_dict` the tensors have the library's names, so that a checkpoint of this
    class and one of the library's network have the same keys. The network is the submodule `model`, and torch
    would put the prefix `model.` before every name: `state_dict` leaves it out, and a hook puts it back
    before loading.
    """

    def __init__(self, name: str, model: nn.Module, dim: int):
        super().__init__()
        self.name, self.width, self.stem, self.dim = name, None, None, dim
        self.model = model
        self.register_load_state_dict_pre_hook(_add_model_prefix)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return self.model.state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.model(x)
        return h


def _add_model_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Puts `model.` before the names of the tensors that `load_state_dict` is about to load."""
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)
