"""Layouts: groups that are apart stay apart, nothing is too small, and what is said of a layout is true."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from siamtransfer.image_map.layout import LayoutSettings, fill_square, lay_out, principal_components
from siamtransfer.image_map.quality import layout_quality, typicality


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def two_groups(each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length one around two orthogonal directions, and the group of each."""
    noise = np.random.default_rng(0).normal(size=(2 * each, 16)) * 0.1
    noise[:each, 0] += 1
    noise[each:, 1] += 1
    return unit(noise), np.repeat([0, 1], each)


def nearest(x: np.ndarray, k: int) -> np.ndarray:
    distances = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k].astype(np.int32)


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_groups_that_are_apart_stay_apart(method: str):
    x, group = two_groups()
    positions, share = lay_out(x, LayoutSettings(method, 30, 0))
    own = nearest(positions, 8)
    assert (group[own] == group[:, None]).all()
    assert positions.dtype == np.float32
    assert positions.min() >= 0
    assert positions.max() <= 1
    assert 0 < share <= 1
    again, _ = lay_out(x, LayoutSettings(method, 30, 0))
    np.testing.assert_array_equal(positions, again)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9])
def test_few_images_have_a_layout(count: int):
    x = unit(np.random.default_rng(count).normal(size=(count, 5)))
    positions, _ = lay_out(x, LayoutSettings("tsne", 30, 0))
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()
    assert len(np.unique(positions, axis=0)) == count


def test_copies_of_one_image_lie_on_one_point():
    positions, share = lay_out(np.ones((20, 4), np.float32) / 2, LayoutSettings("tsne", 30, 0))
    np.testing.assert_array_equal(positions, np.full((20, 2), 0.5, np.float32))
    assert share == 1


def test_features_of_one_dimension_have_a_layout():
    x = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
    positions, share = lay_out(x, LayoutSettings("pca", 0, 0))
    assert share == pytest.approx(1)
    assert np.ptp(positions[:, 1]) == 0
    assert np.all(np.diff(positions[:, 0]) > 0) or np.all(np.diff(positions[:, 0]) < 0)


def test_components_are_those_of_the_singular_value_decomposition():
    x = np.random.default_rng(3).normal(size=(30, 6)).astype(np.float32)
    components, share = principal_components(x, 2, 0)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(components), np.abs(u[:, :2] * s[:2]), rtol=1e-3, atol=1e-4)
    assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), rel=1e-4)


def test_the_square_keeps_proportions():
    filled = fill_square(np.array([[0.0, 5.0], [10.0, 5.0], [10.0, 7.0]]))
    np.testing.assert_allclose(filled, [[0, 0.4], [1, 0.4], [1, 0.6]], atol=1e-6)


def test_quality_is_counted():
    x, labels = two_groups(20)
    positions = fill_square(np.random.default_rng(1).normal(size=(40, 2)))
    near, shown = nearest(x, 5), nearest(positions, 5)
    found = layout_quality(x, positions, near, labels, 0)
    kept = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(near, shown, strict=True)])
    assert found["neighbours_kept"] == pytest.approx(100 * kept)
    assert found["same_class"] == 100
    assert found["same_class_on_map"] == pytest.approx(100 * np.mean(labels[shown] == labels[:, None]))
    assert found["trustworthiness"] == pytest.approx(100 * trustworthiness(x, positions, n_neighbors=8))


def test_quality_leaves_out_what_cannot_be_said():
    x = unit(np.eye(3, dtype=np.float32))
    positions = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    unlabelled = layout_quality(x, positions, nearest(x, 2), np.full(3, -1), 0)
    assert unlabelled == {"neighbours_kept": 100.0}
    assert "same_class" not in layout_quality(x, positions, nearest(x, 2), np.zeros(3, np.int64), 0)
    assert layout_quality(x[:1], positions[:1], np.zeros((1, 0), np.int32), np.array([-1]), 0) == {}


def test_typicality_is_the_mean_cosine_with_others_of_the_class():
    x = unit(np.random.default_rng(5).normal(size=(7, 4)))
    labels = np.array([0, 0, 0, 1, 1, 2, -1])
    cosines = x.astype(np.float64) @ x.astype(np.float64).T
    expected = [np.mean([cosines[i, j] for j in range(3) if j != i]) for i in range(3)]
    expected += [cosines[3, 4], cosines[4, 3], np.nan, cosines[6, :6].mean()]
    np.testing.assert_allclose(typicality(x, labels), expected, atol=1e-6)
