"""Puzzles and colours as extra losses of simsiam-variants, against numbers computed by hand and NumPy."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from support.golden_methods import TinyBackbone
from support.small_simsiam import VIEWS, gradients, random_rows, small_variant
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.methods.simsiam_variants.extra_losses import EncodedBatch, TermsConfig
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.pretexts import (
    ColourLoss,
    JigsawLoss,
    distant_permutations,
    move_patches,
)
from siamtransfer.utils.errors import UserError


class Sight(nn.Module):
    """Remembers the images that it is shown; its features are their first numbers."""

    dim = 6

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.flatten(1)[:, :6]


def batch_of(sight: nn.Module, x: Tensor) -> EncodedBatch:
    return EncodedBatch(sight, [x], [], [], [], None)


def least_distance(orders: Any) -> int:
    differing = (orders[:, None] != orders[None]).sum(axis=2)
    np.fill_diagonal(differing, orders.shape[1])
    return int(differing.min())


def test_all_permutations_of_four_patches_and_the_farthest_first():
    orders = distant_permutations(4, 24)
    assert sorted(map(tuple, orders.tolist())) == [*permutations(range(4))]
    assert orders[:4].tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    assert [least_distance(orders[:n]) for n in (4, 5, 12, 13)] == [4, 3, 3, 2]


@pytest.mark.parametrize(("count", "least"), [(9, 9), more(64, 7)])
def test_permutations_of_nine_patches_differ_in_many_places(count: int, least: int):
    orders = distant_permutations(9, count)
    assert (np.sort(orders, axis=1) == np.arange(9)).all()
    assert least_distance(orders) >= least


def test_patches_move_and_what_is_left_over_stays():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    moved = move_patches(x, torch.tensor([[3, 0, 2, 1]]), grid=2)
    assert moved[0, 0].tolist() == [[7, 8, 0, 1, 4], [5, 6, 2, 3, 9], [10, 11, 12, 13, 14]]
    views = random_rows(2, 3 * 36).view(2, 3, 6, 6)
    order = torch.tensor([[8, 0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 2, 3, 4, 5, 6, 8, 7]])
    moved = move_patches(views, order, grid=3)
    for n in range(2):
        for place in range(9):
            (to, at), (of, by) = divmod(place, 3), divmod(int(order[n, place]), 3)
            shown = moved[n, :, 2 * to : 2 * to + 2, 2 * at : 2 * at + 2]
            assert torch.equal(shown, views[n, :, 2 * of : 2 * of + 2, 2 * by : 2 * by + 2])


def test_the_puzzle_is_answered_by_its_permutation():
    term, sight = JigsawLoss(6, TermsConfig(jigsaw=1)).double(), Sight()
    x = random_rows(40, 3 * 16).view(40, 3, 4, 4)
    torch.manual_seed(1)
    loss = term(batch_of(sight, x)).item()
    torch.manual_seed(1)
    answer = torch.randint(24, (40,))
    assert torch.equal(sight.seen, move_patches(x, term.orders[answer], 2))
    guesses = term.classifier(sight.seen.flatten(1)[:, :6]).softmax(dim=1).detach().numpy()
    assert loss == pytest.approx(log_loss(answer, guesses, labels=range(24)), rel=1e-9)
    nn.init.zeros_(term.classifier.weight)
    nn.init.zeros_(term.classifier.bias)
    assert term(batch_of(sight, x)).item() == pytest.approx(math.log(24))


def test_colours_are_what_grey_lacks():
    term, sight = ColourLoss(Sight(), TermsConfig(colour=1, colour_grid=2)), Sight()  # type: ignore[arg-type]
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0, :2, :2] = 3.0  # red in the first cell: grey 1, colour (3 - 1, 0 - 1)
    x[0, 2, 2:, 3] = 6.0  # blue in half of the last one: grey 2, colour (-2, 4), of which the mean is half
    nn.init.zeros_(term.regressor.weight)
    nn.init.zeros_(term.regressor.bias)
    loss = term(batch_of(sight, x)).item()
    assert torch.equal(sight.seen[0, 0], sight.seen[0, 2])
    assert sight.seen[0, 1, 0].tolist() == [1, 1, 0, 0]
    assert sight.seen[0, 1, 3].tolist() == [0, 0, 0, 2]
    assert term.split(x)[1].tolist() == [[2, 0, 0, -1, -1, 0, 0, 2]]  # r - y of the four cells, then b - y
    assert loss == pytest.approx((4 + 1 + 1 + 4) / 8)


def test_weights_multiply_and_gradients_reach_the_backbone():
    plain = small_variant()(VIEWS).loss
    terms = TermsConfig(jigsaw=0.5, colour=2.0)
    method = small_variant(terms=terms)
    torch.manual_seed(3)
    output = method(VIEWS)
    parts = 0.5 * output.numbers["simsiam/jigsaw"] + 2 * output.numbers["simsiam/colour"]
    assert output.loss.item() == pytest.approx((plain + parts).item(), rel=1e-12)
    found = gradients(small_variant(terms=TermsConfig(colour=1)))
    assert found["terms.colour.regressor.weight"].abs().max() > 0
    assert not torch.equal(found["backbone.c1.weight"], gradients(small_variant())["backbone.c1.weight"])
    assert {name.split(".")[1] for name in method.state_dict() if name.startswith("terms.")} == {
        "jigsaw",
        "colour",
    }


def test_other_channels_have_no_colours():
    backbone = TinyBackbone()
    backbone.in_channels = 5  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"terms\.colour needs the three channels .* have 5: leave it out"):
        ColourLoss(backbone, TermsConfig(colour=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"jigsaw": -1}, r"jigsaw is -1, but must be at least 0"),
        ({"jigsaw": 1, "jigsaw_permutations": 25}, r"jigsaw_permutations is 25, but must be from 2 to 24"),
        (
            {"jigsaw": 1, "jigsaw_grid": 3, "jigsaw_permutations": 1001},
            r"jigsaw_permutations is 1001, .* 1000",
        ),
        ({"jigsaw_grid": 3}, r"jigsaw_grid changes nothing while .*terms\.jigsaw is 0: give that a weight"),
        ({"colour_grid": 2}, r"colour_grid changes nothing while simsiam_variants\.terms\.colour is 0"),
        ({"colour": 1, "colour_grid": 0}, r"colour_grid is 0, but must be at least 1"),
        ({"contrast": 1, "lr_scale": 2}, r"lr_scale changes nothing without an extra loss that trains"),
    ],
)
def test_puzzles_and_colours_that_mean_nothing_are_refused(options: Any, sentence: str):
    with pytest.raises(UserError, match=r"simsiam_variants\.terms\." + sentence):
        SimSiamVariantsConfig(terms=TermsConfig(**options)).check(8)
