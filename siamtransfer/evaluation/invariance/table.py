"""What the invariance evaluator says at the end: a line for each transformation and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from siamtransfer.evaluation.invariance.numbers import MEAN, Group, Measured, groups_of
from siamtransfer.utils.log import say


def say_table(measured: Sequence[Measured], strengths: Mapping[str, Sequence[float]]) -> None:
    """Relative distance and kNN accuracy by transformation, the means first, a column for each network."""
    say("distance that features move over that between classes (0: invariant), and kNN of such images in %")
    names = [one.followed.name or "checkpoint" for one in measured]
    say(f"{'':18}" + "".join(f"{name:>22}" for name in names))
    clean = "".join(f"{'-':>10}{100 * one.followed.clean.mean():>10.2f} %" for one in measured)
    say(f"{'as they are':18}{clean}")
    for group in groups_of(strengths):
        if group.name == MEAN or group.name.endswith(f"/{MEAN}"):
            name = group.name.removesuffix(f"/{MEAN}").replace("_", " ")
            say(f"{name:18}" + "".join(_cells(one, group) for one in measured))


def _cells(one: Measured, group: Group) -> str:
    return f"{one.relative(group)[0]:>10.3f}{one.top1(group)[0]:>10.2f} %"
