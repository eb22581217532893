"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from siamtransfer.doctor.workbench import Workbench

Status = Literal["PASS", "WARN", "FAIL", "INFO", "SKIP"]
Needs = Literal["nothing", "a device", "a GPU"]
Value = float | str | bool | list[str] | None


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        text: what was found and, of a WARN or FAIL, the cure.
        value: the measured number or the name found, for the record.
    """

    name: str
    status: Status
    text: str
    value: Value = None


@dataclass(frozen=True)
class Check:
    """A function that looks at one thing.

    Attributes:
        seconds: how long it takes on a GPU, about.
        needs: a GPU; a device, which may be the CPU with --cpu; or nothing.
    """

    name: str
    work: Callable[[Workbench], Iterable[Finding]]
    seconds: float
    needs: Needs


CHECKS: dict[str, Check] = {}
"""Every check by its name; filled when the modules of checks are imported."""

Work = Callable[["Workbench"], Iterable[Finding]]


def check(name: str, *, seconds: float = 1, needs: Needs = "nothing") -> Callable[[Work], Work]:
    """Registers a function as a check."""

    def register(work: Work) -> Work:
        CHECKS[name] = Check(name, work, seconds, needs)
        return work

    return register


def judged(name: str, good: bool, text: str, value: Value = None) -> Finding:
    """PASS or FAIL."""
    return Finding(name, "PASS" if good else "FAIL", text, bool(good) if value is None else value)


def advised(name: str, good: bool, text: str, cure: str, value: Value = None) -> Finding:
    """PASS, or WARN with the cure."""
    return Finding(name, "PASS" if good else "WARN", text if good else f"{text}: {cure}", value)


def measured(name: str, value: float, text: str) -> Finding:
    """A number that is neither good nor bad."""
    return Finding(name, "INFO", text, float(value))
