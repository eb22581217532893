"""The last look before an update (its effect on a run: faults/test_non_finite.py)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.training.guard import StepContext, StepReport, check_finite, step_report
from siamtransfer.utils.errors import UserError

ALONE = Runtime(torch.device("cpu"), torch.float32)
CONTEXT = StepContext(17, 0.05, torch.tensor([3, 1, 4]))


def parameter(*gradient: float) -> nn.Parameter:
    p = nn.Parameter(torch.zeros(len(gradient)))
    p.grad = torch.tensor(gradient)
    return p


@pytest.mark.parametrize(
    ("loss", "gradients", "expected"),
    [
        (0.5, [(1.0, 2.0), (3.0,)], (True, True)),
        (0.5, [(1.0, float("inf")), (3.0,)], (True, False)),
        (0.5, [(1.0,), (float("nan"), 1.0)], (True, False)),
        (float("nan"), [(1.0,)], (False, True)),
        (float("-inf"), [(float("nan"),)], (False, False)),
    ],
)
def test_loss_and_gradients_are_judged_apart(
    loss: float, gradients: list[tuple[float, ...]], expected: tuple[bool, bool]
) -> None:
    report = step_report(torch.tensor(loss), [parameter(*g) for g in gradients], None, ALONE)
    assert (report.loss_finite, report.gradients_finite) == expected
    assert report.exit_status is None
    if report.loss_finite:
        assert report.loss == loss


def test_parameters_without_gradients_are_no_matter() -> None:
    frozen = nn.Parameter(torch.full((2,), float("nan")), requires_grad=False)
    assert step_report(torch.tensor(1.0), [frozen], None, ALONE).gradients_finite
    assert step_report(torch.tensor(1.0), [frozen, parameter(1.0)], 143, ALONE).exit_status == 143


def test_large_but_finite_gradients_pass() -> None:
    assert step_report(torch.tensor(1.0), [parameter(1e15, -1e15)], None, ALONE).gradients_finite


@pytest.mark.parametrize(
    ("report", "local", "scaled", "words"),
    [
        (
            StepReport(float("nan"), False, True, None),
            float("nan"),
            False,
            r"the loss is not finite at step 17 \(here; ",
        ),
        (
            StepReport(float("nan"), False, True, None),
            0.5,
            False,
            r"the loss is not finite at step 17 \(on another rank; ",
        ),
        (StepReport(float("nan"), False, False, None), float("nan"), True, "the loss is not finite"),
        (StepReport(0.5, True, False, None), 0.5, False, "a gradient is not finite at step 17"),
    ],
)
def test_what_is_not_finite_is_named_with_its_step_rate_and_samples(
    report: StepReport, local: float, scaled: bool, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        check_finite(report, torch.tensor(local), CONTEXT, scaled=scaled)
    assert "learning rate 0.05; sample indices [3, 1, 4]" in str(caught.value)


def test_an_overflow_under_a_loss_scaler_is_ordinary() -> None:
    overflow, fine = StepReport(0.5, True, False, None), StepReport(0.5, True, True, None)
    check_finite(overflow, torch.tensor(0.5), CONTEXT, scaled=True)
    check_finite(fine, torch.tensor(0.5), CONTEXT, scaled=False)
    with pytest.raises(UserError, match="a gradient is not finite"):
        check_finite(overflow, torch.tensor(0.5), CONTEXT, scaled=False)
