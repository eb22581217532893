"""Shares of classes in patches, by hand."""

import numpy as np
import pytest

from siamtransfer.evaluation.segmentation.shares import patch_shares
from siamtransfer.utils.errors import UserError


def test_shares_of_a_mask_by_hand():
    mask = np.array([[0, 0, 1, 255], [0, 2, 1, 1], [255, 255, 2, 2], [255, 255, 2, 0]], np.uint8)
    shares = patch_shares(mask, (2, 2), 3)
    assert shares.dtype == np.float32
    assert shares.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 0], [0.25, 0, 0.75]]


def test_sizes_that_the_grid_does_not_divide_follow_the_centres_of_pixels():
    mask = np.array([[0, 1, 1, 1, 2]], np.uint8)  # centres at 0.2, 0.6, 1.0, 1.4 and 1.8 of two patches
    assert patch_shares(mask, (1, 2), 3).tolist() == [
        [0.5, 0.5, 0],
        pytest.approx([0, 2 / 3, 1 / 3]),
    ]


def test_a_grid_finer_than_the_mask_takes_the_pixels_at_its_centres():
    mask = np.array([[0, 1], [255, 2]], np.uint8)
    shares = patch_shares(mask, (4, 4), 3).reshape(4, 4, 3)
    repeated = mask.repeat(2, axis=0).repeat(2, axis=1)
    assert (shares.sum(axis=2) == (repeated != 255)).all()
    assert (shares.argmax(axis=2) == np.where(repeated == 255, 0, repeated)).all()


def test_wide_masks_and_values_outside_the_classes():
    mask = np.array([[300, 65535], [300, 5]], np.uint16)
    assert patch_shares(mask, (1, 1), 301, 65535)[0, 300] == np.float32(2 / 3)
    with pytest.raises(UserError, match=r"value 300 \(2 pixels\)"):
        patch_shares(mask, (1, 1), 300, 65535)
