"""Statistics of several trials: mean, standard deviation, Student's interval, and paired differences.

Fine-tuning on VOC scatters by 0.2 to 0.4 AP between seeds (MoCo's repository), more than many methods differ.
Two initializations are therefore trained with the same seeds, and the t-test is on the differences of the
pairs (Student 1908).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siamtransfer.metrics.intervals import mean_and_interval, paired_t_test

MAIN = tuple(f"{task}/{name}" for task in ("detection", "segmentation") for name in ("AP", "AP50", "AP75"))


def trial_statistics(trials: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of one trial as they are. Of several: NAME/mean, NAME/std (of the sample) and NAME/ci95,
    half the width of the 95 % interval of the mean by Student's t."""
    if len(trials) == 1:
        return dict(trials[0])
    statistics: dict[str, float] = {}
    for name in trials[0]:
        statistics |= mean_and_interval(name, [trial[name] for trial in trials])
    return statistics


def paired_differences(
    first: Sequence[dict[str, float]], second: Sequence[dict[str, float]], mains: Sequence[str] = MAIN
) -> dict[str, float]:
    """First minus second of the main metrics, trial by trial, in points of a per cent.

    Keys: compare/NAME/difference, the mean; with two trials or more also ci95_low, ci95_high and the
    two-sided p_value of the paired t-test.
    """
    results: dict[str, float] = {}
    for name in mains:
        if name not in first[0]:
            continue
        differences = np.array([a[name] - b[name] for a, b in zip(first, second, strict=True)])
        mean, key = float(differences.mean()), f"compare/{name}"
        results[f"{key}/difference"] = mean
        if len(differences) > 1:
            test = paired_t_test(differences)
            results |= {
                f"{key}/ci95_low": test.low,
                f"{key}/ci95_high": test.high,
                f"{key}/p_value": test.p_value,
            }
    return results


def difference_statements(
    differences: dict[str, float], names: tuple[str, str], mains: Sequence[str] = MAIN
) -> list[str]:
    """The results of `paired_differences` in words, one sentence a metric, significant or not."""
    sentences = []
    for name in mains:
        key = f"compare/{name}"
        if f"{key}/difference" not in differences:
            continue
        text = f"{name}: {names[0]} - {names[1]} = {differences[f'{key}/difference']:+.2f}"
        if f"{key}/ci95_low" in differences:
            low, high = differences[f"{key}/ci95_low"], differences[f"{key}/ci95_high"]
            clear = "" if low > 0 or high < 0 else ": no difference can be told"
            p_value = differences[f"{key}/p_value"]
            text += f", 95 % interval {low:+.2f} to {high:+.2f}, p = {p_value:.2g}{clear}"
        else:
            text += ", one trial: no interval"
        sentences.append(text)
    return sentences


def table_lines(name: str, statistics: dict[str, float], mains: Sequence[str] = MAIN) -> list[str]:
    """The main metrics of an initialization, one line each."""
    lines = []
    for metric in mains:
        if metric in statistics:
            lines.append(f"{name:24} {metric:18} {statistics[metric]:6.2f}")
        elif f"{metric}/mean" in statistics:
            mean, std, half = (statistics[f"{metric}/{key}"] for key in ("mean", "std", "ci95"))
            lines.append(f"{name:24} {metric:18} {mean:6.2f}  std {std:.2f}  95 % interval ± {half:.2f}")
    return lines
