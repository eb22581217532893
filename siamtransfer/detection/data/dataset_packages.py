"""Imports the packages by which the authors of Cityscapes and of LVIS read and score their data.

Both need help with current libraries. cityscapesscripts uses a function that NumPy 2.4 removed. lvis imports
OpenCV for its pictures, which nothing here draws, and sets up logging for the whole program.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import types
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from siamtransfer.utils.errors import UserError


class CityscapesLabel(NamedTuple):
    """A label of Cityscapes; counted: whether its objects count in the evaluation of instances."""

    name: str
    number: int
    counted: bool


@functools.cache
def import_cityscapes() -> tuple[CityscapesLabel, ...]:
    """Makes `import cityscapesscripts` and its evaluation work from here on; returns all labels.

    Raises:
        UserError: the package, or shapely for its polygons, is not installed.
    """
    if not hasattr(np, "in1d"):
        np.in1d = _in1d  # type: ignore[attr-defined]  # noqa: NPY201
    for package in ("cityscapesscripts", "shapely"):
        _require(package, "Cityscapes", "pip install 'siamtransfer[cityscapes]'")
    labels: Any = importlib.import_module("cityscapesscripts.helpers.labels")
    return tuple(
        CityscapesLabel(label.name, label.id, label.hasInstances and not label.ignoreInEval)
        for label in labels.labels
    )


@functools.cache
def import_lvis() -> None:
    """Makes `import lvis` work from here on, whether there is OpenCV or not.

    Raises:
        UserError: the package is not installed.
    """
    handlers, level = list(logging.root.handlers), logging.root.level
    stand_in = types.ModuleType("cv2", "stands in for OpenCV, which lvis imports for its pictures only")
    absent = not _loads("cv2")
    if absent:
        sys.modules["cv2"] = stand_in
    try:
        _require("lvis", "LVIS", "pip install 'siamtransfer[lvis]', or pip install --no-deps lvis")
    finally:
        if absent:
            del sys.modules["cv2"]
        logging.root.handlers, logging.root.level = handlers, level
    logging.getLogger("lvis").setLevel(logging.ERROR)  # it warns of what is right here


def _in1d(values: np.ndarray, chosen: Iterable[int]) -> np.ndarray:
    """NumPy's function of that name, which 2.4 removed."""
    return np.isin(values, list(chosen)).ravel()


def _loads(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:  # absent, or without a library of the system that it needs
        return False
    return True


def _require(package: str, data: str, cure: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{data} needs the package {package}, which does not load ({error}); {cure}"
        ) from error
