"""Classifiers trained at once against single ones that torch and timm train; their invariances."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.optim.lars import Lars
from torch import Tensor, nn

from siamtransfer.evaluation.linear.classifier_bank import ClassifierBank, ClassifierSetting

D, K = 7, 4
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "sgd": lambda p, lr, wd: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=wd),
    "lars": lambda p, lr, wd: Lars(p, lr, momentum=0.9, weight_decay=wd, always_adapt=True, eps=0),
    "adamw": lambda p, lr, wd: torch.optim.AdamW(p, lr, weight_decay=wd),
}


def batches(steps: int, n: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(n, D, generator=generator), torch.randint(K, (n,), generator=generator))
        for _ in range(steps)
    ]


def train(bank: ClassifierBank, steps: int = 12) -> None:
    for number, (h, y) in enumerate(batches(steps)):
        _, weight, bias = bank.gradients(h, y, len(y))
        bank.update(weight, bias, 1 - number / steps)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_every_classifier_ends_where_it_would_alone(weight_decay: float) -> None:
    settings = [
        ClassifierSetting(rule, rate) for rate in (0.01, 0.3, 1.0) for rule in ("sgd", "lars", "adamw")
    ]
    bank = ClassifierBank(settings, D, K, weight_decay=weight_decay, seed=5)
    start = bank.weight[0].clone()
    train(bank)
    for number, setting in enumerate(settings):
        single = nn.Linear(D, K)
        with torch.no_grad():
            single.weight.copy_(start)
            single.bias.zero_()
        optimizer = OPTIMIZERS[setting.optimizer](list(single.parameters()), setting.lr, weight_decay)
        for step, (h, y) in enumerate(batches(12)):
            optimizer.param_groups[0]["lr"] = setting.lr * (1 - step / 12)
            optimizer.zero_grad()
            nn.functional.cross_entropy(single(h), y).backward()
            optimizer.step()
        torch.testing.assert_close(bank.weight[number], single.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bank.bias[number], single.bias.detach(), rtol=1e-4, atol=1e-5)


def test_classifiers_do_not_influence_each_other() -> None:
    alone, many = (
        ClassifierBank([ClassifierSetting("sgd", rate) for rate in rates], D, K)
        for rates in ([0.1], [9.0, 0.1])
    )
    train(alone)
    train(many)
    torch.testing.assert_close(alone.weight[0], many.weight[1], rtol=1e-5, atol=1e-6)


def test_gradients_and_losses_are_autograds() -> None:
    bank = ClassifierBank([ClassifierSetting("sgd", 1.0)] * 3, D, K)
    bank.weight += torch.randn(bank.weight.shape, generator=torch.Generator().manual_seed(0))
    h, y = batches(1)[0]
    losses, weight, bias = bank.gradients(h, y, 16)
    w, b = bank.weight.clone().requires_grad_(), bank.bias.clone().requires_grad_()
    expected = [nn.functional.cross_entropy(h @ w[i].T + b[i], y) for i in range(3)]
    sum(expected).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(losses, torch.stack(expected).detach())
    torch.testing.assert_close(weight, w.grad)
    torch.testing.assert_close(bias, b.grad)


def test_the_parts_of_a_batch_add_up() -> None:
    bank = ClassifierBank([ClassifierSetting("sgd", 1.0)], D, K)
    h, y = batches(1)[0]
    whole = bank.gradients(h, y, 16)
    parts = [bank.gradients(h[rows], y[rows], 16) for rows in (slice(0, 5), slice(5, 16), slice(16, 16))]
    for together, *pieces in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(pieces), together)


def test_a_state_goes_on_exactly() -> None:
    settings = [ClassifierSetting("adamw", 0.1), ClassifierSetting("lars", 3.0)]
    one, other = ClassifierBank(settings, D, K), ClassifierBank(settings, D, K, seed=9)
    train(one)
    other.load_state_dict({**one.state_dict(), "weight": one.weight.clone()})
    train(one)
    train(other)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_accuracy_and_scores() -> None:
    bank = ClassifierBank([ClassifierSetting("sgd", 1.0)] * 2, 4, 4)
    bank.weight[0], bank.weight[1] = torch.eye(4), torch.eye(4).flip(0)
    h, y = torch.eye(4), torch.arange(4)
    assert bank.accuracy(h, y).tolist() == [100, 0]
    assert bank.accuracy(h, torch.full((4,), -1)).tolist() == [0, 0], "a class that train has not"
    torch.testing.assert_close(bank.scores_of(h, 1), torch.eye(4).flip(0))
