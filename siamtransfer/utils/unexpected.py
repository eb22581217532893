"""Errors that no line expected: where they are told in a sentence, and where they keep their traceback."""

from __future__ import annotations

import os

TRACEBACK = "SIAMTRANSFER_TRACEBACK"
"""The environment variable that, where it is set, keeps tracebacks of what would be a sentence."""
HINT = f"with {TRACEBACK}=1 in the environment the place in the code is shown"
"""The end of such a sentence."""


def keeps_traceback() -> bool:
    """Whether the user, or a test, wants the traceback in place of the sentence."""
    return bool(os.environ.get(TRACEBACK))


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python or torch found no memory, on a GPU or in the machine. Torch's errors are known by their
    words, so that this module does not import torch."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "you tried to allocate" in str(error))
    )
