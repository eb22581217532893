"""What is taken from a file as it stands: the numbers of its tensors, and what it records beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamtransfer.checkpoints.file_format import Format
from siamtransfer.checkpoints.pickles import Inert
from siamtransfer.utils.errors import UserError


def as_float32(state: dict[str, Tensor], *, copy: bool) -> dict[str, Tensor]:
    """The tensors in float32, whatever precision the file has; counters stay integers. Mapped tensors are to
    be copied: they would change with the file.

    Raises:
        UserError: a float64 number is beyond float32's range.
    """
    converted = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=copy)
        for name, tensor in state.items()
    }
    for name, tensor in converted.items():
        if state[name].dtype == torch.float64 and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"has a tensor {name!r} with numbers beyond the range of float32")
    return converted


def meta_of(form: Format, content: dict[str, Any], kept: tuple[str, ...] = ()) -> dict[str, Any]:
    """What is recorded beside the tensors: numbers, texts, the entries `kept`, and of parsed arguments the
    architecture. `epochs` is the number of epochs of the training, where it is known."""
    meta: dict[str, Any] = {"method": form.method}
    only_tensors = all(isinstance(value, Tensor) for value in content.values())  # scalars are weights then
    for entry, value in content.items():
        if isinstance(value, Tensor) and value.ndim == 0 and not only_tensors:
            meta[entry] = value.item()
        elif isinstance(value, str | int | float) or entry in kept:
            meta[entry] = value
    arguments = content.get("args")
    if isinstance(arguments, Inert) and isinstance(arguments.state, dict):
        settings = {key: arguments.state.get(key) for key in ("arch", "epochs")}
        meta = {key: value for key, value in settings.items() if isinstance(value, str | int)} | meta
    for recorded in (meta.get("progress"), meta, content.get("meta")):  # ours, most scripts', MMEngine's
        if isinstance(recorded, dict) and isinstance(recorded.get("epoch"), int):
            return {**meta, "epochs": recorded["epoch"]}
    return meta
