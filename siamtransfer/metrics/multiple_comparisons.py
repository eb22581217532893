"""Many tests at once: p-values corrected by Holm (1979), and letters for groups that cannot be told apart.

Legend: m tests, n things that are compared.
"""

from __future__ import annotations

import string

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """float64[m]: p-values corrected for m tests by Holm's step-down procedure ("A simple sequentially
    rejective multiple test procedure", 1979). Where those below alpha are rejected, the chance of rejecting
    one true hypothesis or more is at most alpha, however the tests depend on each other.

    Raises:
        ValueError: a p-value is not from 0 to 1.
    """
    p_values = np.asarray(p_values, np.float64)
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError("p-values must be from 0 to 1")
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.maximum.accumulate(steps).clip(max=1)
    return corrected


def group_letters(different: np.ndarray) -> list[str]:
    """The compact letter display of n things: two share a letter if, and only if, they are not told apart.

    The groups are found by insertion and absorption (Piepho 2004, "An algorithm for a letter-based
    representation of all-pairwise comparisons"): every pair that is told apart splits the groups that hold
    both, and groups within others go. `a` is the first group in which the first thing is.

    Args:
        different: bool[n, n], symmetric; the things are in the order of their ranks.

    Returns:
        The letters of each thing in their order; beyond 52 groups these are numbers in brackets.
    """
    count = len(different)
    groups: list[frozenset[int]] = [frozenset(range(count))] if count else []
    for first, second in zip(*np.nonzero(np.triu(different, 1)), strict=True):
        split = [group for group in groups if first in group and second in group]
        kept = [group for group in groups if group not in split]
        parts = [group - {int(thing)} for group in split for thing in (first, second)]
        groups = _absorb(kept + parts)
    groups.sort(key=sorted)
    names = [*string.ascii_lowercase, *string.ascii_uppercase]
    names += [f"({number})" for number in range(len(names) + 1, len(groups) + 1)]
    named = list(zip(names[: len(groups)], groups, strict=True))
    return ["".join(name for name, group in named if thing in group) for thing in range(count)]


def _absorb(groups: list[frozenset[int]]) -> list[frozenset[int]]:
    """The groups that are not within another, each once."""
    kept: list[frozenset[int]] = []
    for group in sorted(set(groups), key=len, reverse=True):
        if not any(group <= other for other in kept):
            kept.append(group)
    return kept
