"""Labels that are written as text: integers, or names of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

_MOST_DIGITS = 18
MAX_CLASSES = 1_000_000  # a larger integer label is taken for a mistake


def number_labels(values: np.ndarray, classes: Sequence[str], where: str) -> tuple[np.ndarray, list[str]]:
    """int64[N] and the class names, of int64[N] labels and the names that are known (none: the numbers).

    Raises:
        UserError: a label is negative or names no class.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= MAX_CLASSES:
        raise UserError(
            f"{printable(where)} has the label {low if low < 0 else high}; labels count the classes from 0"
        )
    if classes and high >= len(classes):
        raise UserError(
            f"{printable(where)} has the label {high}, but {len(classes)} class names; give each class a name"
        )
    return values.astype(np.int64), list(classes) or [str(number) for number in range(high + 1)]


def name_labels(texts: np.ndarray, classes: Sequence[str], where: str) -> tuple[np.ndarray, list[str]]:
    """int64[N] and the class names, of labels that are names (an array of text); `classes` are the names that
    are known, in order; without them the names are numbered in sorted order.

    Raises:
        UserError: a label is empty or not one of `classes`.
    """
    found, positions = np.unique(texts, return_inverse=True)
    names = [str(name) for name in found]
    if "" in names:
        raise UserError(f"a label of {printable(where)} is empty; give each image a label, or none")
    if not classes:
        return positions.astype(np.int64), names
    number = {name: position for position, name in enumerate(classes)}
    if unknown := [name for name in names if name not in number]:
        raise UserError(
            f"{printable(where)} has the label {printable(unknown[0])}, which is not among its "
            f"{len(classes)} class names; add it to them"
        )
    return np.array([number[name] for name in names], dtype=np.int64)[positions], list(classes)


def read_labels(texts: np.ndarray, classes: Sequence[str], where: str) -> tuple[np.ndarray, list[str]]:
    """int64[N] and the class names of labels as text: integers if all are, otherwise names."""
    if len(texts) and np.char.isdecimal(texts).all():
        longest = max(texts.tolist(), key=len)
        if len(longest) > _MOST_DIGITS:  # beyond 64 bits
            raise UserError(
                f"{printable(where)} has the label {longest[:_MOST_DIGITS]}… of {len(longest)} digits; "
                "labels count the classes from 0"
            )
        return number_labels(texts.astype(np.int64), classes, where)
    return name_labels(texts, classes, where)
