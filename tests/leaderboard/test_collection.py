"""From files to measurements: what is found, what is refused, how backbones are told apart and called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.boards import answers, write, write_knn

from siamtransfer.leaderboard import collect, collect_all
from siamtransfer.leaderboard.measurement import parts_of
from siamtransfer.utils.errors import UserError

RIGHT = answers(0, 0.6, samples=40)[0]


def test_folders_are_searched_and_others_files_passed_over(tmp_path: Path) -> None:
    write_knn(tmp_path / "suite" / "a" / "knn.json", "a", RIGHT)
    write_knn(tmp_path / "suite" / "b" / "knn.json", "b", RIGHT)
    (tmp_path / "suite" / "suite.json").write_text('{"plan": []}')
    (tmp_path / "suite" / "list.json").write_text("[1, 2]")
    write(tmp_path / "suite" / "run.json", "pretrain", {"loss": 1.0}, None, "a")
    hidden = tmp_path / "suite" / ".old"
    write_knn(hidden / "knn.json", "c", RIGHT)
    found = collect([tmp_path])
    assert [each.path.parent.name for each in found] == ["a", "b"]
    assert [each.backbone.label for each in found] == ["a", "b"]
    assert collect([tmp_path / "suite", tmp_path])[0].path.name == "knn.json"
    kept = found[0].kept()
    assert kept is not None
    assert len(kept) == 40


def test_damaged_records_are_left_out_of_folders_and_refused_by_name(tmp_path: Path) -> None:
    good, bad = write_knn(tmp_path / "a.json", "a", RIGHT), write_knn(tmp_path / "b.json", "b", RIGHT)
    bad.write_text(bad.read_text().replace("60.0", "99.0").replace('top1": ', 'top1": 1'))
    cut = tmp_path / "c.json"
    cut.write_text(good.read_text()[:100])
    found = collect_all([tmp_path])
    assert [each.path.name for each in found.measurements] == ["a.json"]
    assert len(found.left_out) == 2
    assert "b.json is not as it was written" in found.left_out[0]
    assert "c.json is not JSON" in found.left_out[1]
    for file, why in (
        (bad, "not as it was written"),
        (cut, "is not JSON"),
        (tmp_path / "no.json", "read"),
    ):
        with pytest.raises(UserError, match=why):
            collect([file])
    with pytest.raises(UserError, match="is a record of pretrain, which measures no backbone: leave it out"):
        collect([write(tmp_path / "p.json", "pretrain", {"loss": 1.0}, None, "a")])


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"backbone": "elsewhere/copy.pth"}, True),
        ({"transform": {"mean": [0.1]}}, True),
        ({"reading": {"channels": {"value": "rgb", "source": "--channels"}}}, True),
        ({"weights_digest": "others"}, False),
        ({"branch": "teacher"}, False),
        ({"further": {"test_branch": "second", "test_weights_digest": "others"}}, False),
        ({"reading": {"channels": {"value": "bgr", "source": "assumed"}}}, False),
        ({"architecture": {"name": "resnet50d"}}, False),
    ],
)
def test_one_backbone_is_the_same_weights_read_alike(
    tmp_path: Path, changes: dict[str, Any], same: bool
) -> None:
    write_knn(tmp_path / "1.json", "a", RIGHT)
    write_knn(tmp_path / "2.json", "a", RIGHT, **changes)
    first, second = collect([tmp_path])
    assert (first.backbone == second.backbone) == same
    assert (first.backbone.label == second.backbone.label) == same


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        (["runs/good/checkpoint.pth", "runs/bad/checkpoint.pth"], ["good", "bad"]),
        (["x/dino_vits16.pth", "moco_v2_800ep.pth.tar"], ["dino_vits16", "moco_v2_800ep"]),
        (["one/run/checkpoint.pth", "two/run/checkpoint.pth"], ["one/run/checkpoint", "two/run/checkpoint"]),
        (["a/net.pth", "b/net.pth"], ["a/net", "b/net"]),
        (["a/net.pth", "a/net.pt"], ["a/net.pth", "a/net.pt"]),
        (["random:resnet50", "torchvision:resnet50"], ["random:resnet50", "torchvision:resnet50"]),
        (["checkpoint.pth", "model.pth"], ["checkpoint", "model"]),
    ],
)
def test_names(tmp_path: Path, sources: list[str], labels: list[str]) -> None:
    for number, source in enumerate(sources):
        write_knn(tmp_path / f"{number}.json", str(number), RIGHT, backbone=source)
    found = [each.backbone.label for each in collect([tmp_path])]
    assert found == labels


def test_branches_of_one_file_are_told_apart(tmp_path: Path) -> None:
    for branch in ("student", "teacher"):
        write_knn(tmp_path / f"{branch}.json", branch, RIGHT, backbone="runs/d/checkpoint.pth", branch=branch)
    assert [each.backbone.label for each in collect([tmp_path])] == ["d (student)", "d (teacher)"]
    other = {"channels": {"value": "bgr", "source": "--channels"}}
    write_knn(
        tmp_path / "x.json",
        "teacher",
        RIGHT,
        backbone="runs/d/checkpoint.pth",
        branch="teacher",
        reading=other,
    )
    assert len({each.backbone.label for each in collect([tmp_path])}) == 3


def test_pixels_and_feature_files_have_no_weights(tmp_path: Path) -> None:
    write_knn(tmp_path / "p.json", "p", RIGHT, backbone="pixels", weights_digest=None, reading=None)
    file = write_knn(tmp_path / "f.json", "f", RIGHT)
    content = json.loads(file.read_text())
    content["provenance"] = {"train_digest": "1", "test_digest": "2"}
    features, pixels = (
        next(parts_of(each)) for each in (content, json.loads((tmp_path / "p.json").read_text()))
    )
    assert features.digest.startswith("features:")
    assert pixels.digest == "pixels"


def test_records_of_several_backbones_are_taken_apart() -> None:
    measured: dict[str, Any] = {
        "task": "diagnose",
        "metrics": {"1/rankme/backbone": 5.0, "2/rankme/backbone": 9.0, "cka/backbone/1-2": 0.5},
        "protocol": {"sample": 100, "checkpoints": [{"test": "made", "layers": "output"}, {"test": "made"}]},
        "provenance": {
            "time": "now",
            "checkpoints": [
                {"backbone": "a.pth", "weights_digest": "1"},
                {"backbone": "b.pth", "weights_digest": "2"},
            ],
        },
    }
    first, second = parts_of(measured)
    assert [part.record["metrics"] for part in (first, second)] == [
        {"rankme/backbone": 5.0},
        {"rankme/backbone": 9.0},
    ]
    assert first.record["protocol"] == {"sample": 100, "test": "made", "layers": "output"}
    assert second.record["provenance"]["time"] == "now"
    trained: dict[str, Any] = {
        "task": "detection",
        "metrics": {"detection/AP": 30.0, "other/detection/AP": 20.0, "compare/AP/p_value": 0.1},
        "protocol": {},
        "provenance": {
            "weights": "a.pkl",
            "weights_digest": "1",
            "arms": [{"name": "a", "weights_digest": "1"}, {"name": "scratch", "weights_digest": None}],
        },
    }
    arms = list(parts_of(trained))
    assert [(arm.source, arm.digest) for arm in arms] == [("a.pkl", "1"), ("scratch", "scratch")]
    assert [arm.record["metrics"] for arm in arms] == [{"detection/AP": 30.0}, {"detection/AP": 20.0}]


def test_two_suites_that_call_two_backbones_alike_do_not_make_them_one_name(tmp_path: Path) -> None:
    for suite, weights in (("first", "a"), ("second", "b")):
        write_knn(tmp_path / suite / "net" / "knn.json", weights, RIGHT)
        (tmp_path / suite / "suite.json").write_text('{"plan": []}')
    assert [each.backbone.label for each in collect([tmp_path / "first"])] == ["net"]
    assert [each.backbone.label for each in collect([tmp_path])] == ["a", "b"]
