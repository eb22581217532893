"""Compares the options that are off until they have been measured on a GPU, and says which to switch on.

Each option makes a short run that is otherwise the run without it. It is recommended where its first losses
are those of that run, but for rounding, and its images a second are clearly more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from siamtransfer.config import HardwareConfig, PretrainConfig
from siamtransfer.doctor.findings import Finding, check, judged, measured
from siamtransfer.doctor.small_runs import losses_of, photographs, run_config, speed_of, train
from siamtransfer.doctor.workbench import Workbench
from siamtransfer.utils.errors import UserError

WORTH = 1.03  # times the images a second; less is noise
AGREE = 0.02  # first losses in half precision
COMPARED = 3  # losses from the start: later ones differ more, because rounding grows


@dataclass(frozen=True)
class Choice:
    """A value of an option of `hardware` that is not its default.

    Attributes:
        only_on_gpus: the option does nothing, or is refused, on the CPU.
    """

    option: str
    value: bool | str
    only_on_gpus: bool = False

    @property
    def flag(self) -> str:
        """The words for the command line."""
        flag = f"--hardware.{self.option.replace('_', '-')}"
        return flag if self.value is True else f"{flag} {self.value}"


CHOICES = (
    Choice("compile", True, only_on_gpus=True),
    Choice("cuda_graph", True, only_on_gpus=True),
    Choice("guard", "device"),
    Choice("prefetch", True),
    Choice("augment", "fused"),
    Choice("augment", "compiled", only_on_gpus=True),
)


@check("choices", seconds=150, needs="a device")
def check_choices(bench: Workbench) -> Iterator[Finding]:
    """Parity and speed of each option; the last finding is the flags to switch on."""
    options = {each.name for each in dataclasses.fields(HardwareConfig)}
    advice: list[str] = []
    with photographs(bench, 32 if bench.tiny else 4096) as folder:
        base = short_run(bench, folder, "base")
        train(base)
        speed, waiting = speed_of(base)
        text = f"{speed:.0f} images/s, {100 * waiting:.0f} % waiting for data"
        yield measured("choices/none", speed, text)
        for choice in CHOICES:
            name = f"choices/{choice.option}={choice.value}"
            if choice.option not in options:
                yield Finding(name, "SKIP", "this version has no such option")
            elif choice.only_on_gpus and bench.device.type == "cpu":
                yield Finding(name, "SKIP", "needs a GPU")
            else:
                findings = list(compare(bench, folder, base, choice))
                yield from findings
                worth = all(found.status == "PASS" for found in findings if found.status != "INFO")
                faster = any(found.status == "INFO" and float(str(found.value)) > WORTH for found in findings)
                advice += [choice.flag] if worth and faster else []
    yield recommend(bench, advice, waiting)


def recommend(bench: Workbench, advice: list[str], waiting: float) -> Finding:
    """What to switch on, in words for the command line."""
    if bench.tiny:
        return Finding("choices/advice", "INFO", "the CPU's speeds at tiny size mean nothing", advice)
    if not advice:
        text = "none of the options is faster here: leave them off"
    else:
        text = f"add {' '.join(advice)}"
    if waiting > 0.1:
        text += " (the loader decides the speed here: more --data.workers first)"
    return Finding("choices/advice", "INFO", text, advice)


def short_run(bench: Workbench, folder: Path, name: str) -> PretrainConfig:
    """A run of one epoch without a kNN check; every step is written down."""
    config = run_config(bench, folder, name)
    config.optim.epochs, config.log.every = 1, 1
    config.monitor.knn_every = 0
    config.monitor.health_every = 0
    return config


def compare(bench: Workbench, folder: Path, base: PretrainConfig, choice: Choice) -> Iterator[Finding]:
    """Parity and speed of one option against the run `base`."""
    name = f"choices/{choice.option}={choice.value}"
    config = short_run(bench, folder, f"{choice.option}-{choice.value}")
    setattr(config.hardware, choice.option, choice.value)
    try:
        train(config)
    except UserError as error:
        yield Finding(name, "WARN", f"is refused here: {error}")
        return
    finally:
        torch.compiler.reset()
    one, two = losses_of(base), losses_of(config)
    steps = sorted(one)[:COMPARED]
    worst = max(abs(one[step] - two.get(step, float("inf"))) for step in steps)
    yield judged(f"{name}/parity", worst < AGREE, f"first losses differ by {worst:.1e}", worst)
    before, now = speed_of(base)[0], speed_of(config)[0]
    yield measured(f"{name}/speed_up", now / before, f"{before:.0f} -> {now:.0f} images/s")
