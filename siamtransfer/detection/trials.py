"""Several trials in one number: mean, standard deviation and Student's interval, and paired differences.

Fine-tuning on VOC scatters by 0.2 to 0.4 AP between seeds (MoCo's repository), more than many methods differ,
so two weights are trained with the same seeds and their differences are judged pair by pair (Student 1908).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siamtransfer.metrics.intervals import paired_t_test, spread

MAIN = tuple(f"{task}/{name}" for task in ("detection", "segmentation") for name in ("AP", "AP50", "AP75"))


def summarise(trials: Sequence[dict[str, float]]) -> dict[str, float]:
    """One trial's numbers as they are; of several, NAME/mean, NAME/std (of the sample) and NAME/ci95, half
    the width of the 95 % interval of the mean by Student's t."""
    if len(trials) == 1:
        return dict(trials[0])
    found: dict[str, float] = {}
    for name in trials[0]:
        found |= spread(name, [trial[name] for trial in trials])
    return found


def paired(first: Sequence[dict[str, float]], second: Sequence[dict[str, float]]) -> dict[str, float]:
    """First minus second of the main numbers, trial by trial, in AP points: compare/NAME/difference and, of
    two trials or more, ci95_low, ci95_high and the two-sided p_value of the paired t-test."""
    found: dict[str, float] = {}
    for name in MAIN:
        if name not in first[0]:
            continue
        pairs = zip(first, second, strict=True)
        differences = np.array([one[name] - other[name] for one, other in pairs])
        mean, key = float(differences.mean()), f"compare/{name}"
        found[f"{key}/difference"] = mean
        if len(differences) > 1:
            test = paired_t_test(differences)
            found |= {
                f"{key}/ci95_low": test.low,
                f"{key}/ci95_high": test.high,
                f"{key}/p_value": test.p_value,
            }
    return found


def verdict(found: dict[str, float], names: tuple[str, str]) -> list[str]:
    """The differences in words, one sentence each, whatever they are."""
    sentences = []
    for name in MAIN:
        key = f"compare/{name}"
        if f"{key}/difference" not in found:
            continue
        text = f"{name}: {names[0]} - {names[1]} = {found[f'{key}/difference']:+.2f}"
        if f"{key}/ci95_low" in found:
            low, high = found[f"{key}/ci95_low"], found[f"{key}/ci95_high"]
            clear = "" if low > 0 or high < 0 else ": no difference can be told"
            text += f", 95 % interval {low:+.2f} to {high:+.2f}, p = {found[f'{key}/p_value']:.2g}{clear}"
        else:
            text += ", one trial: no interval"
        sentences.append(text)
    return sentences
