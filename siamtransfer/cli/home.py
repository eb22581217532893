"""`~/x` in options and files of settings: the shell expands it in `--out ~/x`, and neither in `--out=~/x` nor
in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from siamtransfer.utils.errors import UserError

_HOME = re.compile(r"(^|^[a-z]+:|@)(~[\w.-]*)(?=/|$)")
"""At the beginning of a path; of one after `tensorboard:`; of the second of ANNOTATIONS@IMAGES."""


def expand_home(text: str, what: str = "") -> str:
    """A text with the user's home in the place of a ~ that a path begins with; `what` names it in messages.

    Raises:
        UserError: the home is that of a user who does not exist.
    """

    def home(match: re.Match[str]) -> str:
        before, name = match.groups()
        if name != "~" and match.end() == len(text):
            return match[0]  # a word that begins with ~, and no path
        try:
            return f"{before}{Path(name).expanduser()}"
        except RuntimeError as error:
            user = f"no user {name[1:]}" if name != "~" else "no home of yours"
            raise UserError(
                f"{what}{': ' * bool(what)}{text} begins with a home, and there is {user}: "
                f"write the whole path, or ./{name} for a folder of that name"
            ) from error

    return _HOME.sub(home, text) if "~" in text else text


def expand_word(word: str) -> str:
    """`expand_home` of a word of the command line, which may be `--flag=PATH`."""
    flag, equals, value = word.partition("=")
    if word.startswith("--") and equals:
        return f"{flag}={expand_home(value, flag)}"
    return expand_home(word)


def expand_value(value: Any, what: str) -> Any:
    """`expand_home` of all texts and paths in a value of an option."""
    if isinstance(value, str):
        return expand_home(value, what)
    if isinstance(value, Path):
        return Path(expand_home(str(value), what))
    if isinstance(value, list):
        return [expand_value(item, what) for item in value]
    return value
