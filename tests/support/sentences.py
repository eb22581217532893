"""What every refusal has in common: one sentence that a terminal can show."""

from __future__ import annotations


def is_sentence(error: BaseException) -> bool:
    """Whether the message of an error is one line of characters that a terminal shows, and not a long one."""
    text = str(error)
    return 10 < len(text) < 700 and text.isprintable()
