"""From scores to probabilities: one temperature, chosen on images that the classifier has not seen.

Guo et al. 2017 (section 4.2): softmax(s / T) keeps the order of the classes and moves the confidence alone.
T minimises the cross-entropy of scores of such images. With few labels all of them may be right, and T would
go to zero; so the targets are smoothed as by Platt 1999 (section 2.2), here for K classes: (n + 1) / (n + K)
for the label and 1 / (n + K) for every other class, which is Laplace's estimate from n labels.

Legend: n scored images, K classes.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

LEAST, MOST = 1e-4, 1e4  # temperatures that are tried


def calibrate(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The temperature for scores float64[n, K] of labels int64[n], and the cross-entropy at it in nats."""
    count, classes = scores.shape
    targets = np.full((count, classes), 1 / (count + classes))
    targets[np.arange(count), labels] = (count + 1) / (count + classes)

    def cross_entropy(log_temperature: float) -> float:
        log_p = log_softmax(scores / np.exp(log_temperature), axis=1)
        return float(-(targets * log_p).sum(axis=1).mean())

    found = minimize_scalar(cross_entropy, bounds=(np.log(LEAST), np.log(MOST)), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """float64[n, K]: softmax of scores / temperature along the classes."""
    result: np.ndarray = softmax(scores / temperature, axis=1)
    return result
