"""The gradient view of every row of UniGrad's comparison, which is drawn over training: the recipes' own
options at small width."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from support import paths
from support.golden_methods import ALONE, TinyBackbone, random_views

from siamtransfer.config import PretrainConfig
from siamtransfer.evaluation.gradient_view.decomposition import PREFIX, decompose, indicators
from siamtransfer.experiments.suites import read_suite
from siamtransfer.methods import METHODS, StepInfo
from siamtransfer.methods.base import Options
from siamtransfer.programs.pretrain import main

SUITE = read_suite(paths.ROOT / "configs" / "experiments" / "unified-gradient")


def options_of(name: str) -> tuple[str, Options]:
    """The method of a row and its options, checked as they are and then made narrow."""
    config = main.parse([word for file in SUITE[name].files for word in ("--config", str(file))])
    assert isinstance(config, PretrainConfig)
    assert config.monitor.gradients_every > 0
    options = config.options
    options.check(config.optim.batch_size)
    narrow: dict[str, int] = {"hidden": 12, "dim": 6}
    if getattr(options, "queue", 0):
        narrow["queue"] = 24
    return config.method.name, dataclasses.replace(options, **narrow)


@pytest.mark.parametrize("name", [experiment.name for experiment in SUITE.experiments])
def test_every_row_has_a_gradient_view_from_the_first_step_on(name: str) -> None:
    method_name, options = options_of(name)
    torch.manual_seed(0)
    method = METHODS[method_name](TinyBackbone(), options).double()
    views = random_views(16, 16)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    for step in range(2):
        info = StepInfo(step, 10, 5)
        method.before_forward(info)
        optimizer.zero_grad()
        method(views).loss.backward()
        optimizer.step()
        method.after_update(info)
        numbers = indicators(decompose(method, views, ALONE))  # refused where autograd finds another one
        separable = method_name != "byol"
        assert math.isnan(numbers.pop(PREFIX + "balance")) != separable
        assert all(math.isfinite(number) for number in numbers.values())
        assert numbers[PREFIX + "ratio"] > 0


def test_rows_differ_only_in_what_the_papers_tables_compare() -> None:
    """Table 1 has rows a to j beside UniGrad; table 2 crosses five gradients with two more targets."""
    assert len(SUITE.experiments) == 11 + 2 * 5
    shared = dataclasses.asdict(options_of("unigrad")[1])
    for experiment in SUITE.experiments:
        name, options = options_of(experiment.name)
        if name == "unigrad":
            changed = {key for key, value in dataclasses.asdict(options).items() if value != shared[key]}
            assert changed <= {
                *("negative", "target", "balance", "plain_positive", "drop_bracket", "normalise", "queue"),
                *(("momentum",) if options.negative == "asymmetric" else ()),  # chosen as λ is: budget.yaml
            }
