"""What the machine says to a program, as sentences: a path it refuses, memory it has not.

These come from any line of any library, so they are told where a program ends. Whatever else is no
`UserError` is a defect, and keeps its traceback.
"""

from __future__ import annotations

import os

from siamtransfer.utils.text import printable

TRACEBACK = "SIAMTRANSFER_TRACEBACK"
"""The environment variable that, where it is set, keeps tracebacks of what would be a sentence."""
_HINT = f"; with {TRACEBACK}=1 in the environment the place in the code is shown"


def sentence_of(error: BaseException) -> str | None:
    """The error as one sentence; None where it is none of the machine's, or tracebacks are asked for."""
    if os.environ.get(TRACEBACK):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        where = " and ".join(printable(os.fsdecode(name)) for name in names) or "the system"
        return f"{where}: {error.strerror or error}{_HINT}"
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):  # pathlib's, for ~name
        return f"a path begins with ~, and there is no such user or home folder: write the path out{_HINT}"
    if isinstance(error, MemoryError) or _is_of_torch(error):
        said = " ".join(str(error).split())
        reason = f" ({said})" if said else ""
        return f"there is not enough memory{reason}: take smaller batches or images, or fewer workers{_HINT}"
    return None


def _is_of_torch(error: BaseException) -> bool:
    """Whether torch found no memory, on a GPU or in the machine. It is known by its words: torch may not be
    imported here."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "you tried to allocate" in str(error)
    )
