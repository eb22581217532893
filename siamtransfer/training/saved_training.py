"""The saved state of an evaluator that trains, so that a stopped training can go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from siamtransfer.checkpoints.training_state import StateFiles, load_state
from siamtransfer.distributed import collectives
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.run_lock import RunLock

LATER = ("network", "transform")  # entries of an identity that older versions did not write
KEPT = 2  # states on disk: where the newest is damaged, the training goes on from the one before


class SavedTraining:
    """The states of one training under `path`, for example runs/probe/probe.pth.

    They are written and verified as pretraining's checkpoints are (see `StateFiles`): the newest is `path`,
    and probes/ beside it holds files whose names carry step and digest.

    `identity` says which training a state belongs to; of a state without one of the entries LATER the others
    decide. `resume` says whether an existing state may be used.

    One training uses the folder at a time: `locked` sees to that, or the caller, whose `guard` raises
    UserError where the folder is no longer the one that is locked.
    """

    def __init__(
        self,
        path: Path,
        identity: dict[str, str],
        *,
        resume: bool = False,
        guard: Callable[[], None] = lambda: None,
    ):
        self.path, self.identity, self.resume = path, identity, resume
        self._guard = guard
        self._files = StateFiles(path.parent, path.stem, KEPT, guard=lambda: self._guard())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, on rank 0; all ranks must call it.

        Raises:
            UserError: another process trains in it, or it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with collectives.own_pace("locking the folder"):
                if collectives.rank() == 0:
                    lock = stack.enter_context(RunLock(self.path.parent, option="--run"))
                    self._guard = lock.require_place
            yield

    def load(self) -> dict[str, Any] | None:
        """The newest state that verifies, the same on every rank; None where there is none.

        A file from before states had digests is read as it is.

        Raises:
            UserError: there is a state and `resume` is False; it belongs to another training; every file is
                damaged; the ranks do not see the same files.
        """
        if self._files.any() and not self.resume:
            raise UserError(
                f"{self.path} holds a training that was begun: go on with --resume, take another --run, or "
                "remove it"
            )
        is_main = collectives.rank() == 0
        with collectives.own_pace("reading the saved state"):
            state = self._files.load_newest(say if is_main else lambda _: None)
        if state is None and self.path.exists():
            state = load_state(self.path)
        key = None if state is None else (state.get("step"), len(state.get("notes", [])))
        if collectives.broadcast_object(key) != key:
            raise UserError(
                "not every rank finds the same state: put --run on a disk that all machines share"
            )
        if state is None:
            return None
        self._require_identity(state)
        if is_main:
            self._files.publish_newest()
        return state

    def save(self, state: dict[str, Any], step: int) -> None:
        """Makes `state` the newest one, after `step` steps. Rank 0 writes; all ranks must call it."""
        with collectives.own_pace("saving the state"):
            if collectives.rank() == 0:
                self._files.save({**state, "step": step, "identity": self.identity}, step)

    def _require_identity(self, state: dict[str, Any]) -> None:
        saved = state.get("identity")
        if not isinstance(saved, dict):
            raise UserError(f"{self.path} cannot be read: remove it to begin anew")
        for key in sorted({*self.identity, *saved}):
            if key in LATER and key not in saved:
                continue
            if saved.get(key) != self.identity.get(key):
                raise UserError(
                    f"{self.path} is of another training: {key} is {saved.get(key)} there and "
                    f"{self.identity.get(key)} now"
                )
