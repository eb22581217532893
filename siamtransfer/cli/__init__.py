"""The command line: typed dataclasses become options, a sentence becomes an error, a record one JSON line.

Nothing here imports torch, so that help and mistakes are answered at once.
"""

from siamtransfer.cli.command import Command
from siamtransfer.cli.entry import run

__all__ = ["Command", "run"]
