"""The stages of scripts/measuring.py without a process for each, which would import torch again."""

from __future__ import annotations

import importlib
import json
from pathlib import PurePath
from typing import Any


def stage_here(program: str, *arguments: object) -> dict[str, Any]:
    """Runs the program behind a door such as `eval/knn.py` in this process; returns its JSON document.

    tests/e2e/test_demo.py runs the stages in processes of their own.
    """
    door = PurePath(program)
    name = "pretrain" if door.name == "main.py" else door.stem
    main = importlib.import_module(f"siamtransfer.programs.{name}").main
    record: dict[str, Any] = json.loads(json.dumps(main([str(argument) for argument in arguments])))
    return record
