"""OUT.pkl: tensors by Detectron2's names, in the pickle that its checkpointer takes for its own format."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from torch import Tensor

from siamtransfer.utils.errors import UserError
from siamtransfer.version import __version__

SUFFIX = ".pkl"


def check_suffix(out: Path) -> None:
    """Raises UserError for a name by which Detectron2 would not recognise the file."""
    if out.suffix != SUFFIX:
        raise UserError(f"{out} must end in {SUFFIX}, by which Detectron2 recognises its own format")


def to_float32(tensor: Tensor) -> Tensor:
    """The dtype in which Detectron2 trains, whatever the file's was; batch counters stay integers."""
    return tensor.float() if tensor.is_floating_point() else tensor


class PlainPickler(pickle.Pickler):
    """Pickles an array as a call of `numpy.ndarray` on its bytes, and nothing else by a call.

    NumPy's own way names a private function that moved in NumPy 2, so that older versions cannot read it.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            content = bytearray(value.reshape(-1).view(np.uint8).data)
            return np.ndarray, (value.shape, value.dtype.str, content)
        return NotImplemented


def write_pickle(weights: Mapping[str, Tensor], file: IO[bytes]) -> None:
    """Writes the dict that Detectron2's checkpointer takes for its own format, matched by names' ends."""
    content = {
        "model": {name: tensor.contiguous().numpy() for name, tensor in weights.items()},
        "__author__": f"siamtransfer {__version__}",  # its presence marks the format
        "matching_heuristics": True,
    }
    pickler = PlainPickler(file, protocol=5)
    pickler.fast = True  # without a memo, which would keep every array's bytes until the end
    pickler.dump(content)
