"""The names of saved states, as `step-0001200-3fa9c1d2e4b7.pth`: the step and the beginning of the SHA-256 of
the file's bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

from siamtransfer.utils.files import digest_of_file

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{12})\.pth")


def state_name(step: int, digest: str) -> str:
    """The name of a state after `step` steps whose bytes have the SHA-256 `digest`."""
    return f"step-{step:07d}-{digest[:12]}.pth"


def is_state_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def step_of(path: Path) -> int:
    """The step in a state's name."""
    return int(path.name.split("-")[1])


def verify_name(path: Path) -> None:
    """Compares the bytes of a file with the digest in its name; a file of another name has none.

    Raises:
        OSError: the file cannot be read.
        ValueError: they do not match; the message is a clause.
    """
    match = _NAME.fullmatch(path.name)
    if match and not digest_of_file(path).startswith(match[2]):
        raise ValueError("its bytes do not match the digest in its name")
