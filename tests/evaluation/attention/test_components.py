"""Components, foreground and similarity where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from siamtransfer.evaluation.attention.components import (
    colours,
    fit_components,
    foreground,
    patch_of_pixel,
    similarity,
)
from siamtransfer.utils.errors import UserError


def test_components_are_scikit_learns_over_all_maps() -> None:
    maps = [torch.randn(6, 3, 4) * torch.arange(1.0, 7)[:, None, None] for _ in range(3)]
    found = fit_components(maps)
    rows = torch.cat([m.flatten(1).T for m in maps]).double().numpy()
    expected = PCA(3).fit(rows)
    assert np.allclose(found.explained, expected.explained_variance_ratio_)
    assert np.allclose(np.abs(found.axes), np.abs(expected.components_))
    projected = torch.cat([found.project(m).flatten(1).T for m in maps])
    assert np.allclose(np.abs(projected), np.abs(expected.transform(rows)))
    largest = found.axes.gather(1, found.axes.abs().argmax(dim=1, keepdim=True))
    assert bool((largest > 0).all())


def test_a_rotation_of_the_features_changes_colours_by_a_sign_at_most() -> None:
    maps = [torch.randn(8, 5, 5) * torch.arange(1.0, 9)[:, None, None]]
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    turned = [torch.einsum("dc,chw->dhw", rotation, m) for m in maps]
    before, after = fit_components(maps), fit_components(turned)
    assert torch.allclose(before.explained, after.explained, atol=1e-5)
    assert torch.allclose(before.project(maps[0]).abs(), after.project(turned[0]).abs(), atol=1e-4)


def test_the_foreground_is_the_side_off_the_border() -> None:
    features = torch.randn(4, 8, 8) * 0.1
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:5, 3:7] = True
    for sign in (1, -1):
        planted = features.clone()
        planted[2][inside] += sign * 5
        components = fit_components([planted])
        assert torch.equal(foreground([planted], components)[0], inside)
        assert torch.equal(foreground([planted], components, invert=True)[0], ~inside)


def test_colours_run_from_dark_to_bright_and_are_black_outside() -> None:
    ramp = torch.linspace(-3, 5, 101, dtype=torch.float64).reshape(1, 1, 101).expand(3, 1, 101)
    (picture,) = colours([ramp])
    assert (picture.min(), picture.max()) == (0, 255)
    assert bool((picture[0, 0].int().diff() >= 0).all())
    marked = torch.zeros(1, 101, dtype=torch.bool)
    marked[0, 40:] = True
    (part,) = colours([ramp], [marked])
    assert not part[:, ~marked].any()
    assert part[0, 0, 100] == 255


def test_too_few_and_equal_patches_are_refused() -> None:
    with pytest.raises(UserError, match="3 patches of 8 features have no three components"):
        fit_components([torch.randn(8, 1, 3)])
    with pytest.raises(UserError, match="all patches have the same features"):
        fit_components([torch.ones(8, 4, 4)])


def test_a_pixel_is_in_the_patch_that_covers_it() -> None:
    image, grid = (60, 100), (3, 5)  # patches of 20 pixels
    assert patch_of_pixel(0, 0, image, grid) == (0, 0)
    assert patch_of_pixel(99, 59, image, grid) == (2, 4)
    assert patch_of_pixel(39, 20, image, grid) == (1, 1)
    assert patch_of_pixel(40, 19, image, grid) == (0, 2)
    with pytest.raises(UserError, match="--patch 100 0 is outside its image, which has 100 x 60 pixels"):
        patch_of_pixel(100, 0, image, grid)


def test_similarity_is_the_cosine() -> None:
    vector = torch.tensor([3.0, 4.0])
    features = torch.tensor([[[3.0, -6.0, 4.0]], [[4.0, -8.0, -3.0]]])
    (found,) = similarity([features], vector)
    assert torch.allclose(found, torch.tensor([[1.0, -1.0, 0.0]]), atol=1e-6)
    assert torch.allclose(similarity([features * 7], vector * 0.1)[0], found, atol=1e-6)
