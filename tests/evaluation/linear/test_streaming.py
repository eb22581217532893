"""The logistic probe on features that are read in chunks: the same minimum, and no copy of the features."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from siamtransfer.evaluation.linear import logistic, rows
from siamtransfer.evaluation.linear.logistic import LogisticRegression, fit_logistic, probe, top_accuracy
from siamtransfer.evaluation.linear.multilabel import MultiLabelRegression, probe_labels
from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.utils.errors import UserError


def blobs(n: int = 300, d: int = 12, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Overlapping classes, far from zero, over two decades of scale."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, classes, (n,), generator=generator)
    h = torch.randn(classes, d, generator=generator)[y] + 2 * torch.randn(n, d, generator=generator)
    return h * torch.logspace(-1, 1, d) + 20, y


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Everything is streamed, 37 rows at a time."""
    monkeypatch.setattr(logistic, "KEPT_BYTES", 0)
    monkeypatch.setattr(rows, "LEAST_ROWS", 37)
    monkeypatch.setattr(rows, "MOST_ROWS", 37)
    return monkeypatch


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
def test_the_minimum_is_that_of_kept_features(
    streamed: pytest.MonkeyPatch, standardise: bool, strength: float
) -> None:
    h, y = blobs()
    before = h.clone()
    found = fit_logistic(h, y, strength, standardise=standardise)
    assert torch.equal(h, before), "the features stay as they are"
    streamed.undo()
    expected = fit_logistic(h, y, strength, standardise=standardise)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.bias, expected.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.scores(h), expected.scores(h), rtol=1e-4, atol=1e-4)
    assert top_accuracy(found, h, y) == top_accuracy(expected, h, y)


@pytest.mark.usefixtures("streamed")
def test_the_gradients_are_those_of_the_loss() -> None:
    h, y = blobs(80, 6, 3)
    problem = LogisticRegression(h, y, standardise=True)
    assert problem.rotated is None
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(problem.mean_loss, (weight, bias))


def test_a_fit_in_float32_ends_where_one_in_float64_does(streamed: pytest.MonkeyPatch) -> None:
    h, y = blobs(600)
    h = (h - 20) * torch.logspace(-2, 2, 12) + 5
    narrow, _ = LogisticRegression(h, y, dtype=torch.float32).fit(10.0, max_steps=200, tolerance=1e-5)
    streamed.undo()
    wide = fit_logistic(h, y, 10.0)
    torch.testing.assert_close(narrow.scores(h).softmax(1), wide.scores(h).softmax(1), rtol=0, atol=2e-3)


def test_a_strength_is_chosen_as_from_kept_features(streamed: pytest.MonkeyPatch) -> None:
    h, y = blobs()
    found = probe(h, y, strengths=[1e-4, 1e-2, 1.0])
    streamed.undo()
    expected = probe(h, y, strengths=[1e-4, 1e-2, 1.0])
    assert found.classifier.strength == expected.classifier.strength
    assert found.held_out == expected.held_out


def test_several_labels_an_image(streamed: pytest.MonkeyPatch) -> None:
    h, _ = blobs()
    generator = torch.Generator().manual_seed(2)
    labels = (h[:, :3] + 3 * torch.randn(300, 3, generator=generator) > 20).long()
    ignored = torch.rand(300, 3, generator=generator) < 0.1
    found = MultiLabelRegression(h, labels, ignored).fit(0.1)[0]
    chosen = probe_labels(h, labels, strengths=[0.01, 1.0], ignored=ignored)
    streamed.undo()
    expected = MultiLabelRegression(h, labels, ignored).fit(0.1)[0]
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-4, atol=1e-5)
    assert chosen.held_out == pytest.approx(
        probe_labels(h, labels, strengths=[0.01, 1.0], ignored=ignored).held_out, abs=0.2
    )


@pytest.mark.usefixtures("streamed")
def test_chosen_rows_are_those_of_a_copy() -> None:
    h, y = blobs()
    chosen = torch.arange(0, 300, 3)
    selected = Rows.of(h).select(chosen)
    assert (len(selected), selected.dim) == (100, 12)
    assert torch.equal(torch.cat([selected.part(part) for part in selected.parts(5)]), h[chosen])
    assert torch.equal(selected.select(torch.tensor([2, 0])).part(slice(None)), h[[6, 0]])
    found, expected = fit_logistic(selected, y[chosen], 0.1), fit_logistic(h[chosen], y[chosen], 0.1)
    assert torch.equal(found.weight, expected.weight)


@pytest.mark.usefixtures("streamed")
def test_what_is_not_finite_is_refused() -> None:
    h, y = blobs()
    h[250, 3] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        fit_logistic(h, y, 1.0)


MEASURE = """
import resource, torch
from siamtransfer.evaluation.linear import logistic, rows

rows.CHUNK_BYTES["cpu"], rows.LEAST_ROWS = 2**20, 256

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def features(n):
    return torch.rand(n, 128), torch.arange(n) % 3

logistic.KEPT_BYTES = 0  # the libraries' own memory first, by a small fit
logistic.probe(*features(2_000), strengths=[1e-9, 1e-8])
logistic.KEPT_BYTES = 2**25
h, y = features(64_000)
assert logistic.KEPT_BYTES < 8 * 0.9 * h.numel(), "nine tenths are streamed as well"
before = peak()
logistic.probe(h, y, strengths=[1e-9, 1e-8])
print(peak() - before, h.numel() * 4)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in bytes elsewhere")
def test_no_copy_of_large_features_is_made() -> None:
    """The peak of the process rises by a tenth of the features and 16 MiB at most; any copy takes more."""
    output = subprocess.run(
        [sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True
    ).stdout.split()
    extra, size = map(int, output)
    assert extra < 0.1 * size + 2**24, f"{extra / size:.2f} times the features of {size / 2**20:.0f} MiB"
