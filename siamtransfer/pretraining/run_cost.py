"""The cost of a run over all its processes, kept in cost.json of its folder."""

from __future__ import annotations

from pathlib import Path

from siamtransfer.distributed.rank_costs import share_costs
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.metering.cost import Cost
from siamtransfer.metering.meter import Meter
from siamtransfer.utils.files import write_checked_text
from siamtransfer.utils.json_file import read_checked_json
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json


class RunCost:
    """Adds up what the processes of a run cost, one after another. Steps that a killed process made after
    its last save were paid for as well, but only what it had kept is known.

    The file is no part of a checkpoint, so that equal runs have equal checkpoints.
    """

    def __init__(self, folder: Path, meter: Meter, runtime: Runtime):
        self.meter = meter
        self._path, self._runtime = folder / "cost.json", runtime

    def go_on(self, step: int) -> None:
        """Takes up what the processes before this one kept; `step` is the one that the run goes on from."""
        if not self._runtime.is_main:
            return
        if step == 0:
            self._path.unlink(missing_ok=True)
            return
        try:
            self.meter.before = Cost.from_json(read_checked_json(self._path))
        except FileNotFoundError:
            self.meter.before = Cost(since_step=step)
        except (OSError, ValueError, TypeError, KeyError) as error:
            say(f"{self._path} is damaged ({error}): the cost of the run counts from step {step} on")
            self.meter.before = Cost(since_step=step)

    def keep(self) -> None:
        """Writes the cost up to now. All ranks must call it."""
        share_costs(self.meter)
        if self._runtime.is_main:
            write_checked_text(self._path, to_json(self.meter.read().to_json()) + "\n")

    def settle(self) -> None:
        """Makes the cost of the whole run that of records from now on. All ranks must call it."""
        share_costs(self.meter)
