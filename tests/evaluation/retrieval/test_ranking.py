"""Places in ranked lists, distractors that stream past, and whitening."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from siamtransfer.evaluation.retrieval import ranking
from siamtransfer.evaluation.retrieval.ranking import NearerDistractors, places
from siamtransfer.evaluation.retrieval.whitening import Whitening
from siamtransfer.utils.errors import UserError

DRAW = np.random.default_rng(0)


def unit(rows: torch.Tensor) -> np.ndarray:
    array = rows.double().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def sorted_places(database: torch.Tensor, query: torch.Tensor) -> np.ndarray:
    """By a full sort in float64, ties by index."""
    cosines = unit(database) @ unit(query[None])[0]
    order = np.argsort(-cosines, kind="stable")
    return np.argsort(order)


def drawn(rows: int, dim: int = 16) -> torch.Tensor:
    return torch.from_numpy(DRAW.standard_normal((rows, dim)).astype(np.float32))


def test_places_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    database, queries = drawn(200), drawn(7)
    database[50] = 2 * database[9]  # of equal cosine: by index
    listed = [np.sort(DRAW.permutation(200)[: 5 + n]) for n in range(7)]
    listed[3] = np.array([9, 50])
    expected = [sorted_places(database, query)[rows] for query, rows in zip(queries, listed, strict=True)]
    for budget in (2**28, 16 * 200 * 2):  # all queries at once, and two at a time
        monkeypatch.setattr(ranking, "LIST_BYTES", budget)
        for found, right in zip(places(database, queries, listed), expected, strict=True):
            assert found.tolist() == right.tolist()
    assert np.diff(expected[3]).tolist() == [1]


def test_streamed_distractors_move_images_back_as_kept_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    database, queries, distractors = drawn(60), drawn(5), drawn(333)
    distractors[:4] = 2 * database[[1, 2, 3, 4]]  # exactly as near: after the image
    listed = [np.sort(DRAW.permutation(60)[:9]) for _ in range(4)] + [np.zeros(0, np.int64)]
    everything = torch.cat([database, distractors])
    expected = [sorted_places(everything, query)[rows] for query, rows in zip(queries, listed, strict=True)]
    own = places(database, queries, listed)
    for block in (1, 50, 5000):
        monkeypatch.setattr(ranking, "BLOCK", block)
        nearer = NearerDistractors(database, queries, listed)
        for part in distractors.split(40):
            nearer.add(part)
        assert nearer.images == 333
        for base, counts, right in zip(own, nearer.counts(), expected, strict=True):
            assert (base + counts).tolist() == right.tolist()


def test_values_that_are_not_finite_are_refused() -> None:
    database = drawn(10)
    nearer = NearerDistractors(database, drawn(1), [np.array([0])])
    with pytest.raises(UserError, match="not finite"):
        nearer.add(torch.full((1, 16), torch.nan))
    database[3, 3] = torch.inf
    with pytest.raises(UserError, match="not finite"):
        places(database, drawn(1), [np.array([0])])


def test_whitened_descriptors_have_unit_covariance() -> None:
    mix = torch.from_numpy(DRAW.standard_normal((16, 16)))
    rows = drawn(500).double() @ mix + 2
    whitening = Whitening.learn(rows, "pca")
    white = whitening.apply(rows)
    torch.testing.assert_close(white.T @ white / 500, torch.eye(16, dtype=torch.float64))
    torch.testing.assert_close(white.mean(0), torch.zeros(16, dtype=torch.float64))
    torch.testing.assert_close(Whitening.learn(rows, "pca", 5).apply(rows).abs(), white[:, :5].abs())
    torch.testing.assert_close(whitening.apply(7 * rows), white)  # rows of any length


def test_dinos_whitening_step_by_step() -> None:
    """The second moment about zero of rows as they are, applied to centred ones (eval_copy_detection.py)."""
    rows, others = drawn(300).double() + 1, drawn(20).double()
    values, vectors = np.linalg.eigh((rows.T @ rows / 300).numpy())
    values = np.maximum(values, values.max() * 1e-5)
    order = np.argsort(values)[::-1]
    expected = (others - rows.mean(0)).numpy() @ vectors[:, order] / np.sqrt(values[order])
    found = Whitening.learn(rows, "dino").apply(others).numpy()
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-9)
    assert found @ found.T == pytest.approx(expected @ expected.T, abs=1e-8)


def test_too_few_images_and_too_many_directions_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"16 directions needs more images than 10.*--whitening-dim 9 or less"
    ):
        Whitening.learn(drawn(10), "pca")
    assert Whitening.learn(drawn(10), "pca", 9).projection.shape == (16, 9)
    with pytest.raises(UserError, match="descriptors have 16 numbers only"):
        Whitening.learn(drawn(40), "dino", 17)
