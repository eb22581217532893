"""The program `diagnose` on few images and views."""

from __future__ import annotations

import json
from typing import Any

import pytest

from siamtransfer.programs.diagnose import main
from siamtransfer.utils.errors import UserError

SMALL = ["--device", "cpu", "--images", "12", "--views", "3", "--restarts", "2"]
RANDOM = "random:resnet18:width=8:stem=small"


def score(*argv: object) -> dict[str, Any]:
    """The record."""
    record = main([str(word) for word in (*argv, *SMALL)])
    assert record is not None
    return json.loads(json.dumps(record))


def refused(*argv: object) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(UserError) as caught:
        main([str(word) for word in (*SMALL, *argv)])
    return str(caught.value)
