"""Runs the checks within the budget, prints what they find, and returns the record."""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from siamtransfer.doctor.config import DoctorConfig
from siamtransfer.doctor.findings import CHECKS, Check, Finding
from siamtransfer.doctor.table import Table
from siamtransfer.doctor.workbench import Workbench, open_workbench
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import write_text
from siamtransfer.utils.strict_json import to_json

MODULES = (
    *("environment", "machine"),
    *("numerics", "evaluators", "speed", "several_ranks", "whole_runs", "choices"),
)
"""The modules of checks, in the order of running."""

LEAST_SHARE = 0.7  # of a check's usual time, below which it is not begun
TINY = 0.1  # of a check's time on a GPU that --cpu takes at most


def examine(config: DoctorConfig) -> tuple[dict[str, Any], bool]:
    """Runs the checks that `config` asks for; returns the record, and whether none failed.

    Raises:
        UserError: a check is not known or needs a device that was not asked for; there is no GPU.
    """
    checks = choose(config)
    with open_workbench(config) as bench:
        findings: dict[str, Finding] = {}
        seconds: dict[str, float] = {}
        table, begin = Table(), time.monotonic()
        for each, found in run_checks(checks, bench, config.budget):
            findings[found.name] = found
            table.add(each.name, found)
            now = time.monotonic()
            seconds[each.name] = round(seconds.get(each.name, 0.0) + now - begin, 2)
            begin = now
        table.close()
        document = as_record(config, bench, findings, seconds)
    if config.out is not None:
        write_text(config.out, to_json(document) + "\n")
    return document, not any(found.status == "FAIL" for found in findings.values())


def choose(config: DoctorConfig) -> list[Check]:
    """The checks to run, in their order.

    Raises:
        UserError: a name of --only is not known, or its check needs --gpu.
    """
    known = import_checks()
    on_device = config.gpu or config.cpu
    for name in config.only:
        if name not in known:
            raise UserError(f"--only {name}: the checks are {', '.join(known)}")
        if known[name].needs != "nothing" and not on_device:
            raise UserError(f"--only {name} is a check of a device: add --gpu, or --cpu for tiny size")
    return [
        each
        for each in known.values()
        if (each.name in config.only if config.only else each.needs == "nothing" or on_device)
    ]


def import_checks() -> dict[str, Check]:
    """Every check by its name, in the order of MODULES and of their lines."""
    modules = [importlib.import_module(f"siamtransfer.doctor.{name}").__name__ for name in MODULES]
    order = sorted(CHECKS.values(), key=lambda each: modules.index(each.work.__module__))
    return {each.name: each for each in order}


def run_checks(checks: list[Check], bench: Workbench, budget: float) -> Iterator[tuple[Check, Finding]]:
    """The findings of each check; an exception in one is a FAIL and does not stop the others."""
    end = time.monotonic() + budget
    for each in checks:
        left, usual = end - time.monotonic(), each.seconds * (TINY if bench.tiny else 1)
        if each.needs == "a GPU" and bench.device.type != "cuda":
            yield each, Finding(each.name, "SKIP", "needs a GPU")
            continue
        if each.needs != "nothing" and left < LEAST_SHARE * usual:
            yield (
                each,
                Finding(
                    each.name, "SKIP", f"{max(left, 0):.0f} s are left of --budget, it takes {usual:.0f} s"
                ),
            )
            continue
        try:
            for found in each.work(bench):
                yield each, found
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            yield each, Finding(f"{each.name}/error", "FAIL", text[:500])
        bench.clear()


def as_record(
    config: DoctorConfig, bench: Workbench, findings: dict[str, Finding], seconds: dict[str, float]
) -> dict[str, Any]:
    """The JSON document: numbers as metrics, everything else by its name; `seconds` that each check took."""
    numbers = {
        name: float(found.value)
        for name, found in findings.items()
        if isinstance(found.value, float | int) and not isinstance(found.value, bool)
    }
    return record(
        "doctor",
        numbers,
        {"gpu": config.gpu, "cpu": config.cpu, "only": config.only, "budget": config.budget},
        device=str(bench.device) if config.gpu or config.cpu else None,
        seconds=seconds,
        counts=dict(Counter(found.status for found in findings.values())),
        findings={
            name: {"status": found.status, "text": found.text, "value": found.value}
            for name, found in findings.items()
        },
    )
