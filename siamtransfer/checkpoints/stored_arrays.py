"""Reads a pickle of NumPy arrays, which is Detectron2's own format, without NumPy's own unpickling.

NumPy's functions would make arrays of any size, of Python objects, and of types whose sizes lie. Here an
array is the bytes in the file, and becomes a tensor once its type and shape fit them.
"""

from __future__ import annotations

import collections
import math
import pickle
import re
from typing import IO, Any

import numpy as np
import torch

from siamtransfer.checkpoints.content_bounds import refuse_tangled
from siamtransfer.checkpoints.pickle_values import LATIN

_TYPE = re.compile(r"[<>=|]?([fiu][1248]|b1|f16|c8|c16)")


class StoredType:
    """A type of numbers by NumPy's name; None for every other type, whose arrays are left out."""

    def __init__(self, name: Any = None, *_: Any):
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        self.dtype = np.dtype(text) if isinstance(text, str) and _TYPE.fullmatch(text) else None

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        order = order.decode("latin-1") if isinstance(order, bytes) else order
        if self.dtype is not None and order in (">", "<"):
            self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<")


class StoredArray:
    """An array of the file: `value` is its tensor; None where it holds no numbers, or was not filled."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        """Fills the array from NumPy's (version, shape, type, is in Fortran's order, bytes)."""
        *_, shape, kind, fortran, data = state
        self.value = _array(data, kind, shape, "F" if fortran else "C")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if f"{module}.{name}" not in GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return GLOBALS[f"{module}.{name}"]


def read_stored_arrays(file: IO[bytes]) -> Any:
    """The content of a pickle of NumPy arrays, which become tensors. What is an array of something other than
    numbers that torch has becomes a `StoredArray`.

    Raises:
        Exception: whatever unpickling raises.
        TooMuch: the content is no tree of reasonable size.
    """
    content = _Reader(file, encoding="latin1").load()
    refuse_tangled(content)
    return _plain(content)


def _plain(value: Any) -> Any:
    """The content with arrays as tensors."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, StoredArray) and value.value is not None:
        return value.value
    return value


def _array(data: Any, kind: Any, shape: Any, order: Any) -> Any:
    """The tensor of some bytes, in memory of its own; None where torch has no such numbers.

    Raises:
        UnpicklingError: the bytes are not those of such an array.
    """
    if not isinstance(kind, StoredType) or kind.dtype is None or isinstance(data, list):
        return None
    data = data.encode("latin-1") if isinstance(data, str) else data
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not isinstance(data, bytes | bytearray) or not all(type(size) is int and size >= 0 for size in sizes):
        raise pickle.UnpicklingError("an array has no bytes or no shape")
    if math.prod(sizes) * kind.dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {sizes} does not have the {len(data):,} bytes of it")
    array = np.frombuffer(data, kind.dtype).reshape(sizes, order="F" if order == "F" else "C")
    return _tensor(array)


def _tensor(array: np.ndarray) -> Any:
    """The tensor of an array, in memory of its own; None where torch has no such numbers."""
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        return None
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def _reconstruct(*_: Any) -> StoredArray:
    """NumPy's way to make an empty array, which is filled afterwards."""
    return StoredArray()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any = "C", axes: Any = None) -> StoredArray:
    """NumPy's way to make an array since protocol 5; `axes` are its axes in the order of the bytes."""
    made = StoredArray()
    made.value = _array(data, kind, shape, order)
    if axes is not None and made.value is not None:
        if sorted(axes) != list(range(made.value.ndim)):
            raise pickle.UnpicklingError(f"an array's axes are {axes!r}")
        made.value = made.value.permute(*axes).contiguous()
    return made


def _call_array(shape: Any = None, kind: Any = None, data: Any = None, *further: Any) -> StoredArray:
    """How our own OUT.pkl makes an array: a call of NumPy's class with the shape, the name of the type and
    the bytes. NumPy's own pickles only name the class."""
    if further:
        raise pickle.UnpicklingError("it calls numpy.ndarray with an offset or strides")
    made = StoredArray()
    made.value = _array(data, StoredType(kind), shape, "C")
    if made.value is None:
        raise pickle.UnpicklingError("it calls numpy.ndarray for values that are no numbers of torch")
    return made


def _scalar(kind: Any, data: Any = None) -> Any:
    """A number of NumPy's as Python's."""
    number = _array(data, kind, (), "C")
    return None if number is None else number.item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 keeps bytes."""
    if encoding not in LATIN:
        raise pickle.UnpicklingError(f"an array's bytes are encoded as {encoding!r}")
    return text.encode("latin-1")


def _bytes(data: bytes | bytearray | str = b"", encoding: str = "latin1", *_: Any) -> bytes:
    """How protocols keep bytes and byte arrays; never so many zeros."""
    if not isinstance(data, bytes | bytearray | str):
        raise pickle.UnpicklingError("bytes are made of something else")
    return _encode(data, encoding) if isinstance(data, str) else bytes(data)


GLOBALS: dict[str, Any] = {
    "numpy.ndarray": _call_array,
    "numpy.dtype": StoredType,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "_codecs.encode": _encode,
    "collections.OrderedDict": collections.OrderedDict,
}
"""What a pickle of NumPy arrays calls, by the names of NumPy 1 and 2."""
for _core in ("numpy.core", "numpy._core"):
    GLOBALS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    GLOBALS[f"{_core}.multiarray.scalar"] = _scalar
    GLOBALS[f"{_core}.numeric._frombuffer"] = _from_buffer
