"""Where ranks wait for one another at the store instead of in a collective, and what a lost rank looks like.

A collective fails when its time-out passes, so work of unequal length must end before it begins. `own_pace`
gives such work (listing a set, a download, saving) an end at which the ranks wait by asking the store that
they met at. The wait lasts as long as the ranks that are not ready give signs of life.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import torch.distributed as dist

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

REMARK_SECONDS = 60.0  # between two lines that say which ranks are waited for
LEAVING_SECONDS = 5.0  # for which rank 0, whose process may hold the store, waits at the end for the others
_LONGEST_POLL = 0.2
_LOST = (
    "gloo/transport", "Timed out", "timed out", "Connection closed by peer", "Connection reset by peer",
    "Broken pipe", "Socket closed", "NCCL communicator was aborted", "Watchdog caught",
)  # fmt: skip


class LostRanks(UserError):
    """A collective that cannot end, because a rank is gone or later than the time-out."""


class Meeting:
    """The ranks of a process group at their store.

    A thread writes a sign of life with what the rank does (`doing`) every few seconds. `point` numbers are
    counted by each rank for itself, so all ranks must come to the same points in the same order.

    Attributes:
        timeout: seconds without a sign of life after which a rank counts as lost.
        doing: what this rank does, in a few words; `set_doing` changes it.
        warns: whether the thread says what the ranks do shortly before the time-out passes in a collective.
            NCCL ends the process then, and no message of ours could follow.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, timeout: float, *, warns: bool = False):
        self.store, self.rank, self.world_size, self.timeout = store, rank, world_size, timeout
        self.doing, self.warns = "starting", warns
        self._since = time.monotonic()
        self._in_collectives = True
        self._point = 0
        self._beat = min(5.0, timeout / 6)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._give_signs, name="signs of life", daemon=True)
        self._thread.start()

    def set_doing(self, what: str) -> None:
        """Says what this rank does from now on, for the sentence about a lost or late rank."""
        self.doing, self._since = what, time.monotonic()

    @contextlib.contextmanager
    def own_pace(self, what: str) -> Iterator[None]:
        """Work that ranks do at different speeds; returns when all have done it.

        Raises:
            UserError: on every rank, where the work of one raised it.
            LostRanks: a rank that is not ready has given no sign of life for `timeout` seconds.
        """
        before, self._point = self.doing, self._point + 1
        self._in_collectives = False
        point = f"point/{self._point}"
        self.set_doing(what)
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(RuntimeError):
                self.store.set(f"{point}/error", str(error) if isinstance(error, UserError) else "")
            raise
        self.store.set(f"{point}/done/{self.rank}", "")
        self.store.add(f"{point}/count", 1)
        self.set_doing(f"waiting for the others after {what}")
        self._wait(point, what)
        self.set_doing(before)
        self._in_collectives = True
        for key in ("count", "error", f"done/{self.rank}"):  # nobody asks for the point before the last
            self.store.delete_key(f"point/{self._point - 2}/{key}")

    def tell(self) -> str:
        """What each rank does by its last sign of life, in one line."""
        try:
            told = [(rank, *self._sign(rank)) for rank in range(self.world_size)]
        except RuntimeError:
            return f"rank {self.rank} was {self.doing}; the store of the ranks is gone, and rank 0 with it"
        return "; ".join(
            f"rank {rank} {'has left' if what == 'gone' else f'was {what}'}" for rank, _, what in told
        )

    def leave(self) -> None:
        """Ends the signs of life. Rank 0 waits a little for the others, who may still read the store."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):
            self.store.set(f"alive/{self.rank}", "0 gone")
            left = self.store.add("left", 1)
            deadline = time.monotonic() + LEAVING_SECONDS
            while self.rank == 0 and left < self.world_size and time.monotonic() < deadline:
                time.sleep(0.01)
                left = self.store.add("left", 0)

    def _wait(self, point: str, what: str) -> None:
        began = remarked = asked = time.monotonic()
        pause = 0.001
        seen: dict[int, tuple[float, float]] = {}  # of a rank: the number of its last sign, and when
        while self.store.add(f"{point}/count", 0) < self.world_size:
            if self.store.check([f"{point}/error"]):
                text = self.store.get(f"{point}/error").decode()
                raise UserError(text or f"another rank failed while {what}; its own message says why")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)
            now = time.monotonic()
            if now - asked < self._beat / 2:
                continue
            asked = now
            missing = self._missing(point)
            self._require_life(missing, seen, what)
            if now - remarked >= REMARK_SECONDS:
                remarked = now
                if self.rank == min({*range(self.world_size)} - {*missing}):
                    say(f"waiting for {_ranks(missing)}: {what} ({(now - began) / 60:.0f} min)")

    def _missing(self, point: str) -> list[int]:
        ranks = range(self.world_size)
        return [rank for rank in ranks if not self.store.check([f"{point}/done/{rank}"])]

    def _require_life(self, missing: list[int], seen: dict[int, tuple[float, float]], what: str) -> None:
        now = time.monotonic()
        for rank in missing:
            number, doing = self._sign(rank)
            if doing == "gone":
                raise LostRanks(f"rank {rank} ended while this rank waited for it after {what}")
            if rank not in seen or seen[rank][0] != number:
                seen[rank] = (number, now)
            elif now - seen[rank][1] > self.timeout:
                raise LostRanks(
                    f"rank {rank} has given no sign of life for {_duration(self.timeout)} while {what} (it "
                    f"was {doing}): look at its machine, then start all ranks again"
                )

    def _sign(self, rank: int) -> tuple[float, str]:
        if rank == self.rank:
            return 0, self.doing
        if not self.store.check([f"alive/{rank}"]):
            return -1, "starting"
        number, _, doing = self.store.get(f"alive/{rank}").decode().partition(" ")
        return int(number), doing

    def _give_signs(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                self.store.set(f"alive/{self.rank}", f"{number} {self.doing}")
            except RuntimeError:  # the store is gone, and the next collective says so
                return
            if self._over.wait(self._beat):
                return
            if self.warns and self._in_collectives and time.monotonic() - self._since > 0.9 * self.timeout:
                self.warns = False
                say(
                    f"rank {self.rank} has been {self.doing} for almost {_duration(self.timeout)}, the limit "
                    f"(hardware.timeout_minutes): {self.tell()}"
                )


def is_loss(error: BaseException) -> bool:
    """Whether `error` is a collective's or the store's about a time-out or a rank that is gone."""
    if isinstance(error, LostRanks) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(words in str(error) for words in _LOST)


def explain(error: RuntimeError, meeting: Meeting) -> LostRanks:
    """The sentence for a collective or the store that failed with `error`."""
    reason = str(error).splitlines()[0]
    late = "imed out" in reason or "imeout" in reason
    what = (
        f"the ranks waited {_duration(meeting.timeout)} for one another, which is the limit"
        if late
        else "the connection to another rank was lost"
    )
    cure = (
        "find out why one is late, or raise hardware.timeout_minutes (evaluators: --timeout-minutes)"
        if late
        else "the message of the rank that ended first says why; then start all ranks again (with --resume)"
    )
    return LostRanks(f"{what}, at rank {meeting.rank} while {meeting.doing} ({meeting.tell()}): {cure}")


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
