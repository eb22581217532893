"""The one kind of error that is meant for the user rather than for the developer."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: one sentence that names the file or key and the cure.

    Programs print it as `error: …` on stderr and exit with status 2; there is no traceback.
    """
