"""The errors that are meant for the user, not for the developer."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """A mistake that the user can correct: one sentence that names the file or key and the remedy.

    Programs print it as `error: …` on stderr and exit with status 2; there is no traceback.
    """

    def __str__(self) -> str:
        """The sentence, with which PyTorch ends the whole traceback that it passes as the only argument where
        a worker process of a DataLoader raised the error."""
        text, kind = super().__str__(), type(self)
        if not text.startswith(f"Caught {kind.__name__} in "):
            return text
        return text.rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].strip()


class ErrorAfterRecord(UserError):
    """What went wrong after the work: the record is complete.

    Programs print the record as if nothing had happened, then the sentence, and exit with status 3.

    Attributes:
        record: the record of the program.
    """

    def __init__(self, message: str, record: dict[str, Any]):
        super().__init__(message)
        self.record = record
