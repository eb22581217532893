"""Plain aliases of the names of metrics."""

from __future__ import annotations

import re

import pytest

from siamtransfer.records.metric_names import alias_of, with_aliases

PLAIN = re.compile(r"[A-Za-z0-9_\-./ ]+")  # what MLflow accepts; W&B accepts more

# One of every kind that a program writes into metrics.jsonl or a record.
ALIASES = {
    "loss": "loss",
    "lr": "lr",
    "epoch": "epoch",
    "images_per_second": "images_per_second",
    "collapse_alarms": "collapse_alarms",
    "health/effective_rank": "health/effective_rank",
    "gradient/parts_cosine": "gradient/parts_cosine",
    "simsiam/expert_usage": "simsiam/expert_usage",
    "knn/k=20/T=0.07/top1": "knn/top1",
    "knn/k=200/T=1e-05/ci95_low": "knn/ci95_low",
    "knn/k=20/uniform/mean_per_class": "knn/uniform/mean_per_class",
    "baseline/pixels/knn/k=20/T=0.07/top1": "baseline/pixels/knn/top1",
    "baseline/untrained/knn/k=5/T=0.1/top5": "baseline/untrained/knn/top5",
    "linear/top1": "linear/top1",
    "linear/mAP_11point": "linear/mAP_11point",
    "linear/best_on_test/epoch": "linear/best_on_test/epoch",
    "linear/epoch=3/top1": "linear/epoch_3/top1",
    "semisup/epoch=20/top1": "semisup/epoch_20/top1",
    "fewshot/k=5/C=0.316/mean": "fewshot/mean",
    "svm/low_shot/k=8/std": "svm/low_shot/std",
    "svm/AP/aeroplane": "svm/AP/aeroplane",
    "detection/AP/ankle boot": "detection/AP/ankle boot",
    "detection/AP/T-shirt/top": "detection/AP/T-shirt/top",
    "segmentation/AP50": "segmentation/AP50",
    "loss/rpn_box_reg": "loss/rpn_box_reg",
    "selection/rank/z": "selection/rank/z",
    "compare/a - b/knn/k=20/T=0.07/top1": "compare/a - b/knn/top1",
    "svm/AP/crème brûlée": "svm/AP/cr_me br_l_e",
}


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_has_plain_letters_and_no_settings(name: str) -> None:
    alias = alias_of(name)
    assert alias == ALIASES[name]
    assert PLAIN.fullmatch(alias)
    assert alias_of(alias) == alias


def test_numbers_keep_their_names_and_get_aliases_after_them() -> None:
    metrics = {"loss": 0.5, "knn/k=20/T=0.07/top1": 80.0}
    assert list(with_aliases(metrics).items()) == [*metrics.items(), ("knn/top1", 80.0)]


def test_names_that_share_an_alias_get_none() -> None:
    metrics = {"knn/k=5/T=0.07/top1": 1.0, "knn/k=20/T=0.07/top1": 2.0, "knn/k=5/T=0.07/top5": 3.0}
    assert with_aliases(metrics) == {**metrics, "knn/top5": 3.0}
    plain = {"knn/top1": 1.0, "knn/k=5/T=1/top1": 2.0}
    assert with_aliases(plain) == plain
