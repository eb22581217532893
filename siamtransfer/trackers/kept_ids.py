"""The id of a run at a tracker, kept in the run's folder, so that a resumed run goes on there."""

from __future__ import annotations

from pathlib import Path

from siamtransfer.utils.files import read_checked_text
from siamtransfer.utils.log import say


def read_kept_id(path: Path, where: str) -> str | None:
    """The id in a file, or None where there is none; a damaged one is remarked."""
    try:
        return (read_checked_text(path).strip() or None) if path.exists() else None
    except (OSError, ValueError) as error:
        say(f"{path} {error}: the run goes on as a new one on {where}")
        return None
