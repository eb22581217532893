"""A program for torchrun: pretrain/main.py, of which rank 1 dies before step 6 when it is started first."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from support.small_runs import before_step  # noqa: E402

from siamtransfer.cli import run  # noqa: E402
from siamtransfer.programs.pretrain import main  # noqa: E402

if __name__ == "__main__":
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        before_step(6, functools.partial(os._exit, 7))
    run(main)
