"""How many inputs a fuzzed test tries: few and always the same ones in `make test`, more in `make faults`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
"""By how much the numbers of inputs are multiplied; `make faults` sets it."""


def examples(count: int) -> settings:
    """Settings for `count` inputs in `make test`, as a decorator above `@given`.

    Inputs are drawn from the test's own name, so a failure in `make faults` repeats with the same FUZZ_TIMES.
    An input has no time limit of its own, for machines differ: a test that must be quick measures it itself.
    """
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
