"""Wrong options of an adaptation: one sentence each, which names the key and the cure."""

import pytest

from siamtransfer.adaptation.config import AdaptConfig
from siamtransfer.utils.errors import UserError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"warmup_epochs": -1}, "adapt.warmup_epochs is -1, but must be at least 0"),
        ({"warmup_epochs": float("nan")}, "adapt.warmup_epochs is nan"),
        ({"warmup_epochs": 10}, "optim.epochs 10: the backbone would never learn"),
        ({"layer_decay": 0}, "adapt.layer_decay is 0, but must be above 0 and at most 1"),
        ({"layer_decay": 1.2}, "adapt.layer_decay is 1.2"),
        ({"trunk_lr": 0}, "adapt.trunk_lr is 0, but must be above 0"),
        ({"lora_rank": -4}, "adapt.lora_rank is -4"),
        ({"lora_rank": 4, "lora_alpha": 0}, "adapt.lora_alpha is 0"),
        ({"lora_rank": 4, "lora_targets": []}, "adapt.lora_targets names no layer"),
        ({"max_drop": 2}, "adapt.max_drop belongs to a set .* --adapt.retention FOLDER"),
        ({"retention_root": "x"}, "adapt.retention_root belongs to a set"),
        ({"retention": "x", "max_drop": 0}, "adapt.max_drop is 0, but must be above 0"),
        ({"retention": "x", "on_forgetting": "stop"}, "on_forgetting stop needs .* --adapt.max-drop"),
        ({"retention": "x", "cka_images": 1}, "adapt.cka_images is 1, but must be 0 or at least 2"),
    ],
)
def test_a_wrong_option(options, sentence):
    with pytest.raises(UserError, match=sentence):
        AdaptConfig(**options).check("start.pth", 10, 1)


@pytest.mark.parametrize(
    "options",
    [{"warmup_epochs": 1}, {"layer_decay": 0.5}, {"trunk_lr": 0.5}, {"lora_rank": 4}, {"retention": "x"}],
)
def test_what_needs_weights(options):
    (key,) = options
    AdaptConfig(**options).check("start.pth", 10, 1)
    with pytest.raises(UserError, match=rf"adapt.{key} is for a network .* --backbone.weights"):
        AdaptConfig(**options).check(None, 10, 1)


def test_a_retention_set_that_is_never_scored():
    with pytest.raises(UserError, match=r"monitor\.knn_every epochs, and that is 0"):
        AdaptConfig(retention="x").check("start.pth", 10, 0)


def test_an_ordinary_run_needs_nothing():
    usual = AdaptConfig()
    usual.check(None, 1, 0)
    assert (usual.warmup_epochs, usual.lora_rank, usual.retention) == (0, 0, None)
