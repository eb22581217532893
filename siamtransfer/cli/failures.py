"""What the machine says to a program, as sentences: a path it refuses, memory it has not.

These come from any line of any library, so they are told where a program ends. Whatever else is no
`UserError` is a defect, and keeps its traceback.
"""

from __future__ import annotations

import os

from siamtransfer.utils.text import printable
from siamtransfer.utils.unexpected import HINT, is_lack_of_memory, keeps_traceback


def sentence_of(error: BaseException) -> str | None:
    """The error as one sentence; None where it is none of the machine's, or tracebacks are asked for."""
    if keeps_traceback():
        return None
    if isinstance(error, OSError) and error.errno is not None:
        names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        where = " and ".join(printable(os.fsdecode(name)) for name in names) or "the system"
        return f"{where}: {error.strerror or error}; {HINT}"
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):  # pathlib's, for ~name
        return f"a path begins with ~, and there is no such user or home folder: write the path out; {HINT}"
    if is_lack_of_memory(error):
        said = " ".join(str(error).split())
        reason = f" ({said})" if said else ""
        return f"there is not enough memory{reason}: take smaller batches or images, or fewer workers; {HINT}"
    return None
