"""Short names of columns, and names beside points."""

from __future__ import annotations

import itertools
from typing import Any

from siamtransfer.leaderboard import Column
from siamtransfer.reports.naming import only_set, task_names
from siamtransfer.reports.point_labels import HEIGHT, LETTER, LINE, WIDTH, extent_of, point_labels


def column(metric: str, title: str, **protocol: Any) -> Column:
    return Column(title.split(" ")[0], metric, title, title, protocol, True, "%")


def test_parts_of_one_set_are_one_set() -> None:
    columns = [
        column(
            "knn/k=20/T=0.07/top1", "knn k=20 T=0.07 top1 · folder/train, leave-one-out", train="folder/train"
        ),
        column("linear/top1", "linear top1 · 20% of train", train="folder/train", test="20% of train"),
        column("fewshot/k=5/C=1/top1/mean", "fewshot k=5 C=1 top1 · a fifth of train", train="folder/train"),
        column("kmeans_accuracy/backbone", "diagnose kmeans_accuracy backbone · folder/train", part="train"),
    ]
    names = task_names(columns)
    assert [name.short for name in names.values()] == ["kNN", "Linear probe", "5-shot", "k-means clusters"]
    assert [name.detail for name in names.values()][:3] == [
        "k=20 T=0.07 top1 · leave-one-out",
        "top1 · 20% of train",
        "k=5 C=1 top1 · a fifth of train",
    ]
    assert only_set(columns) == "folder"


def test_parts_of_several_sets_are_named() -> None:
    columns = [
        column("linear/top1", "linear top1 · 20% of train", train="pets/train"),
        column("linear/top1", "linear top1 · cifar10/test", train="cifar10/train"),
    ]
    assert [name.short for name in task_names(columns).values()] == [
        "Linear probe, pets",
        "Linear probe, cifar10",
    ]


def test_names_of_close_points_do_not_cover_each_other() -> None:
    names = ["moco_r18_ep200", "random-resnet18", "vit_tiny_patch16_224", "efficientnet-lite0", "pixels"]
    x, y = [25.8, 26.1, 22.3, 26.2, 10.8], [33.9, 34.0, 33.7, 65.0, 26.9]
    bars = [(value - 3, value + 3) for value in y]
    across, up = extent_of(x), extent_of([end for ends in bars for end in ends])
    boxes = []
    for label in point_labels(names, x, y, bars, across, up):
        width = len(label["text"]) * LETTER
        start = WIDTH * across.share(label["x"]) + label["xshift"] - width * (label["xanchor"] == "right")
        middle = HEIGHT * up.share(label["y"]) + label["yshift"]
        boxes.append((start, start + width, middle - LINE / 2, middle + LINE / 2))
    assert all(left >= 0 and right <= WIDTH for left, right, _, _ in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
        assert apart, (one, other)
