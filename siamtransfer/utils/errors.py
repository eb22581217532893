"""The errors that are meant for the user, not for the developer."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """A mistake that the user can correct: one sentence that names the file or key and the remedy.

    Programs print it as `error: …` on stderr and exit with status 2; there is no traceback.
    """


class ErrorAfterRecord(UserError):
    """What went wrong after the work: the record is complete.

    Programs print the record as if nothing had happened, then the sentence, and exit with status 3.

    Attributes:
        record: the record of the program.
    """

    def __init__(self, message: str, record: dict[str, Any]):
        super().__init__(message)
        self.record = record
