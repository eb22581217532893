"""Extra losses of simsiam-variants against scikit-learn, NumPy and their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from support.golden_methods import TinyBackbone
from support.small_simsiam import IMAGES, LABELS, VIEWS, gradients, random_rows, small_variant
from torch import Tensor, nn

from siamtransfer.methods.simsiam_variants.extra_losses import (
    ContrastLoss,
    EncodedBatch,
    LabelLoss,
    RotationLoss,
    TermsConfig,
)
from siamtransfer.methods.simsiam_variants.model import SimSiamVariants
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.utils.errors import UserError


def encoded(**parts: Any) -> EncodedBatch:
    empty: dict[str, Any] = {
        "backbone": nn.Identity(), "views": [], "features": [], "predictions": [], "targets": [],
        "index": None,
    }  # fmt: skip
    return EncodedBatch(**{**empty, **parts})


def test_labels_are_learned_from_their_fraction_of_every_class():
    term = LabelLoss(4, LABELS, TermsConfig(labels=1, labelled_fraction=0.25)).double()
    known = torch.nonzero(term.table >= 0).flatten()
    assert torch.equal(term.table[known], LABELS[known])
    assert torch.bincount(term.table[known]).tolist() == [2, 2, 2]
    again = LabelLoss(4, LABELS, TermsConfig(labels=1, labelled_fraction=0.25))
    assert torch.equal(term.table, again.table)

    features, index = [random_rows(IMAGES, 4, seed) for seed in (1, 2)], torch.arange(IMAGES)
    loss = term(encoded(features=features, index=index)).item()
    probabilities = [term.classifier(h).softmax(dim=1)[known].detach().numpy() for h in features]
    expected = np.mean([log_loss(LABELS[known], p, labels=[0, 1, 2]) for p in probabilities])
    assert loss == pytest.approx(expected, rel=1e-10)
    unlabelled = index[term.table < 0][:5]
    assert term(encoded(features=[features[0][:5]], index=unlabelled)).item() == 0


@pytest.mark.parametrize("reach", [True, False])
def test_labels_reach_the_backbone_if_they_may(reach: bool):
    terms = TermsConfig(labels=1, labelled_fraction=1, labels_reach_backbone=reach)
    ours, plain = gradients(small_variant(terms=terms)), gradients(small_variant())
    same = [torch.equal(ours[name], plain[name]) for name in plain if name.startswith("backbone.")]
    assert all(same) != reach
    assert ours["terms.labels.classifier.weight"].abs().max() > 0


def test_labels_have_to_be_there():
    method = SimSiamVariants(TinyBackbone(), SimSiamVariantsConfig(dim=12, terms=TermsConfig(labels=1)))
    with pytest.raises(
        UserError, match=r"simsiam_variants\.terms\.labels learns from labels, and these images have"
    ):
        method.prepare(IMAGES, None)


def test_rotations_turn_row_i_i_times():
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return x.flatten(1)[:, :3]

    term, corner = RotationLoss(3).double(), Corner()
    x = random_rows(6, 3 * 4).reshape(6, 3, 2, 2)
    loss = term(encoded(backbone=corner, views=[x]))
    turned = np.stack([np.rot90(x[i].numpy(), i, axes=(1, 2)) for i in range(6)])
    assert np.array_equal(corner.seen.numpy(), turned)
    answers = term.classifier(torch.from_numpy(turned).flatten(1)[:, :3]).softmax(dim=1).detach().numpy()
    expected = log_loss([0, 1, 2, 3, 0, 1], answers, labels=[0, 1, 2, 3])
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_a_weak_contrast_looks_at_the_middle_ones():
    p, t = ([random_rows(7, 3, seed) for seed in seeds] for seeds in ((1, 2), (3, 4)))
    config = TermsConfig(contrast=1, contrast_margin=0.1, contrast_band=[0.2, 0.7])
    ours = ContrastLoss(config)(encoded(predictions=p, targets=t)).item()
    excesses = []
    for predictions, targets in ((p[0], t[1]), (p[1], t[0])):
        q, z = (x.numpy() / np.linalg.norm(x, axis=1, keepdims=True) for x in (predictions, targets))
        for i in range(7):
            rest = [k for k in range(7) if k != i]
            low, high = np.quantile(z[i] @ z[rest].T, [0.2, 0.7])
            middle = [k for k in rest if low <= z[i] @ z[k] <= high]
            assert 0 < len(middle) < 6
            excesses.append(np.mean([max(0.0, q[i] @ z[k] - 0.1) for k in middle]))
    assert ours == pytest.approx(np.mean(excesses), rel=1e-10)


def test_terms_are_added_by_their_weights_and_written_down():
    terms = TermsConfig(rotation=0.5, contrast=2.0, labels=0.25, lr_scale=3.0)
    method = small_variant(terms=terms)
    out = method(VIEWS, torch.arange(8))
    values = {name.removeprefix("simsiam/"): value for name, value in out.numbers.items()}
    assert values.keys() == {"rotation", "contrast", "labels"}
    expected = small_variant()(VIEWS).loss + sum(
        getattr(terms, name) * value for name, value in values.items()
    )
    torch.testing.assert_close(out.loss, expected)
    group = method.groups()[-1]
    assert (group.name, group.lr_scale, len(group.parameters)) == ("terms", 3.0, 4)
