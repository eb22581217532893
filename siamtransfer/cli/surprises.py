"""Values that an option would take as something else than was meant."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

from siamtransfer.cli.options import Option
from siamtransfer.utils.errors import UserError

_OF_NUMBERS = frozenset("+-._0123456789eE")
_SHOWN = 40  # characters of a wrong value
SEEDS = 2**62
"""From which number on there are no seeds: generators take up to 2**63, and ranks and epochs are added."""

MOST = {
    **dict.fromkeys(("size", "crop", "resize", "query_crop", "eval_crop"), 2**14),
    **dict.fromkeys(("workers", "threads"), 2**12),
    **dict.fromkeys(("batch_size", "forward_batch_size"), 2**24),
    "width": 2**13,
    "epochs": 10**7,
}
"""The most that options of these names may be: pixels of a side, processes, images, channels and epochs
beyond which no machine goes, and a slip of the finger does."""


def refuse_surprise(option: Option, value: Any, where: str) -> None:
    """Refuses a value of a file or of the command line, from `where` (empty, or FILE with a colon).

    Raises:
        UserError: it is a number or nothing where a text is meant, an integer beyond 64 bits or beyond MOST,
            a number whose digits make an infinity, or a seed that some generator does not take.
    """
    kinds = get_args(option.type) or (option.type,)
    shown = (value if isinstance(value, str) else json.dumps(value, default=str))[:_SHOWN]
    if value is None and type(None) not in kinds and option.type is not Any:
        raise UserError(f"{where}{option.key} is null, but must be {option.metavar or 'true or false'}")
    if isinstance(value, float | bool) and str in kinds and not {float, bool} & set(kinds):
        raise UserError(f"{where}{option.key} is a text, and {shown} is none: put it in quotes")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{where}{option.key} is {shown}, beyond the integers of 64 bits")
    if option.key.endswith("seed") and int in kinds and not _is_seed(value):
        raise UserError(f"{where}{option.key} is {shown}, but must be from 0 to {SEEDS - 1}")
    most = MOST.get(option.key.rpartition(".")[2], math.inf)
    if int in kinds and (number := _integer(value)) is not None and number > most:
        raise UserError(f"{where}{option.key} is {shown}, but must be at most {most}")
    for word in value if isinstance(value, list) else [value]:
        if not isinstance(word, str):
            continue
        if float in kinds and str not in kinds and _is_infinite(word):
            raise UserError(f"{where}{option.key} is {shown}, beyond the range of numbers")


def _is_seed(value: Any) -> bool:
    """Whether a number can be a seed; what is no integer is left to the types."""
    number = _integer(value)
    return number is None or 0 <= number < SEEDS


def _integer(value: Any) -> int | None:
    """The integer that a value is or that its text writes, of very long ones the beginning; else None."""
    try:
        return int(str(value)[: 2 * _SHOWN])
    except ValueError:
        return None


def _is_infinite(word: str) -> bool:
    """Whether digits make a number beyond the range of floating point."""
    try:
        return _OF_NUMBERS.issuperset(word) and math.isinf(float(word))
    except ValueError:
        return False
