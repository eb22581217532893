"""--data.few: so many train images, the same for every backbone, and nothing of the test images."""

from __future__ import annotations

import numpy as np
import pytest

from siamtransfer.data import open_images as open_set
from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.evaluation.labelled_images import draw_few, open_images
from siamtransfer.programs.knn import main as knn
from siamtransfer.utils.errors import UserError

WORDS = ["random:resnet18:width=4:stem=small", "--data.name", "fashion-objects", "--cache", "none"]


def test_the_draw_is_nested_and_the_same_every_time() -> None:
    train, test = open_images(EvaluationData("fashion-objects", few=40), {}, "x")
    again, _ = open_images(EvaluationData("fashion-objects", few=40), {}, "y")
    more, _ = open_images(EvaluationData("fashion-objects", few=41), {}, "x")
    whole = open_set("fashion-objects")
    assert test is not None and len(test) == len(open_set("fashion-objects", split="test"))
    assert (len(train), train.fingerprint) == (40, again.fingerprint) != (40, more.fingerprint)
    drawn = [set(draw_few(whole, count).indices.tolist()) for count in (40, 41)]
    assert len(drawn[1] - drawn[0]) == 1 and not drawn[0] - drawn[1]
    assert train.labels is not None and 5 < len(np.unique(train.labels)) <= 10
    assert len(draw_few(whole, len(whole))) == len(whole)


def test_the_record_says_how_many_were_drawn() -> None:
    protocol = knn([*WORDS, "--data.few", "30", "--device", "cpu", "--k", "5", "--no-baselines"])["protocol"]
    assert (protocol["train_drawn"], protocol["train_images"], protocol["test_images"]) == (30, 30, 1500)


def test_wrong_numbers_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"--data\.few is 1, but must be at least 2"):
        knn([*WORDS, "--data.few", "1"])
    with pytest.raises(
        UserError, match=r"--data\.few 90000 is more than the \d+ images of fashion-objects/train"
    ):
        knn([*WORDS, "--data.few", "90000"])
    with pytest.raises(UserError, match=r"--data\.few draws train images, and feature files hold none"):
        knn(["--train-features", "a.npz", "--test-features", "b.npz", "--data.few", "9"])
