"""The file by which a job script learns that a run has saved itself on a signal.

torchrun exits with 1 whatever the status of its processes, so the status of a run does not reach the script.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SIAMTRANSFER_STOP_MARKER"
"""The environment variable that names the file; without it none is written."""


def mark_stopped(exit_status: int) -> None:
    """Writes `exit_status` to the file that VARIABLE names, where it is set; for rank 0, after the save."""
    path = os.environ.get(VARIABLE)
    if path:
        Path(path).write_text(f"{exit_status}\n", encoding="utf-8")
