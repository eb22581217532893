"""The text of a list: of an ordinary file of a bounded size, in UTF-8 or with a mark of another encoding."""

from __future__ import annotations

from pathlib import Path

from siamtransfer.data.signatures import kind_of_content
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.small_files import marked_encoding, read_small_file
from siamtransfer.utils.text import printable

MOST_BYTES = 2**30
"""Bytes of a list: the paths and labels of 14 million images are half of it."""

LONGEST_LINE = 2**17
"""Characters of a line; a path has at most 4,096, and a table may have other columns."""

_NO_LISTS = ("text", "nothing but zeros")  # of which other sentences say more


def read_list_text(list_path: Path) -> str:
    """The text of a list; bytes that are not UTF-8 become surrogates.

    Raises:
        UserError: it cannot be read, is no ordinary file, is too large, or is no text.
    """
    where = printable(list_path)
    try:
        data = read_small_file(list_path, MOST_BYTES)
    except UserError as error:
        raise UserError(f"cannot read the list ({error}); check --data.list_file") from error
    encoding = marked_encoding(data)
    if encoding is not None:
        try:
            return data.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "strict")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where} begins as {encoding.upper()} and is damaged at byte {error.start}; save it again "
                "as UTF-8"
            ) from error
    kind = kind_of_content(data[:512])
    if kind is not None and kind not in _NO_LISTS:
        raise UserError(f"{where} is {kind}; a list is a text with the path of one image on each line")
    if b"\0" in data:
        raise UserError(
            f"{where} is not a text file, or UTF-16 without its mark; a list has the path of one image on "
            "each line: save it as UTF-8"
        )
    return data.decode("utf-8", "surrogateescape")


def require_lines(lines: list[str], where: str) -> None:
    """Raises UserError where a line is longer than any of a list; names it."""
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"line {number} of {where} has {len(line):,} characters, and a path and its label have at "
                f"most {LONGEST_LINE:,}; write one image on each line"
            )
