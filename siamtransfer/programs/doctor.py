"""Checks this machine: versions that agree, memory, limits, disk; with --gpu also what its GPU computes.

    siamtransfer doctor                         the environment, in seconds
    siamtransfer doctor --gpu                   the GPU too, in at most 8 minutes
    siamtransfer doctor --gpu --only speed      one check, or several
    siamtransfer doctor --cpu                   the checks of --gpu at tiny size, without one

A line for each finding: PASS, WARN, FAIL (both with the cure), INFO (a measured number) or SKIP. The last
line of stdout is the record. The exit status is 1 where something failed.
"""

from __future__ import annotations

import sys
from typing import Any

from siamtransfer.cli import Command, run
from siamtransfer.doctor.config import DoctorConfig
from siamtransfer.utils.strict_json import to_json

FAILED = 1


def work(config: DoctorConfig) -> dict[str, Any]:
    """Runs the checks; returns the record, or prints it and exits with status 1 where one failed."""
    config.check()
    from siamtransfer.doctor.runner import examine

    document, sound = examine(config)
    if not sound:
        print(to_json(document), flush=True)
        sys.exit(FAILED)
    return document


main = Command("doctor", DoctorConfig, work, __doc__)

if __name__ == "__main__":
    run(main)
