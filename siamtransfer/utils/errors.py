"""The error that is meant for the user, not for the developer."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can correct: one sentence that names the file or key and the remedy.

    Programs print it as `error: …` on stderr and exit with status 2; there is no traceback.
    """
