"""Data in a page."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from siamtransfer.utils.strict_json import to_json


def embedded_json(content: Any) -> Markup:
    """JSON that may stand in a <script> element: no character in it can end the element or begin a comment.

    NaN and infinities become null.
    """
    text = to_json({"": content})[len('{"": ') : -1]
    for character in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
