"""What stands beside what on a board, and what is missing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.boards import SETTING, answers, sample_values, write, write_knn

from siamtransfer.cli.main import program
from siamtransfer.leaderboard import Board, board, collect
from siamtransfer.leaderboard.columns import numbers_of, sets_of_images
from siamtransfer.leaderboard.settings import settings_of
from siamtransfer.records.sample_values import SampleValues

RIGHT = answers(0, 0.6, 0.7, 0.8, samples=60)


def titles(found: Board) -> list[str]:
    return [column.title for column in found.columns]


def by_column(found: Board) -> dict[str, list[str]]:
    """The labels of the backbones in each column."""
    return {column.title: [str(backbone) for backbone in found.of(column)] for column in found.columns}


def test_alike_stand_in_one_column(tmp_path: Path) -> None:
    for name, right in zip("abc", RIGHT, strict=True):
        mean = [float(right.mean())]
        write_knn(tmp_path / f"{name}.json", name, right, transform={"crop": 224, "mean": mean}, k=[20])
    found = board(collect([tmp_path]))
    assert by_column(found) == {f"knn {SETTING.replace('/', ' ')} top1 · made/test": ["a", "b", "c"]}
    column = found.columns[0]
    cell = found.of(column)[found.backbones[1]]
    assert (cell.value, cell.low, cell.high) == pytest.approx(
        (100 * RIGHT[1].mean(), 100 * RIGHT[1].mean() - 2, 100 * RIGHT[1].mean() + 2)
    )
    assert (column.unit, column.higher_is_better, column.task) == ("%", True, "knn")
    assert found.remarks == []
    assert found.missing() == []


UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "protocol": ({"similarity": "euclidean"}, "protocol.similarity is absent in the first and euclidean"),
    "inside": ({"transform": {"crop": 96}}, "protocol.transform.crop is 224 in the first and 96 in"),
    "images": ({"test_fingerprint": "other"}, "provenance.test_fingerprint is test in the first and other"),
    "labels": ({"labels": np.arange(60) % 4}, "were scored against other labels, so they stand in columns"),
    "layers": ({"layers": "layer3"}, "protocol.layers is absent in the first and layer3"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_unlike_never_share_a_column(tmp_path: Path, case: str) -> None:
    changes, sentence = UNLIKE[case]
    write_knn(tmp_path / "a.json", "a", RIGHT[0])
    write_knn(tmp_path / "b.json", "b", RIGHT[1], **changes)
    found = board(collect([tmp_path]))
    assert len(found.columns) == 2
    assert len(set(titles(found))) == 2
    assert [len(found.of(column)) for column in found.columns] == [1, 1]
    assert len(found.remarks) == 1
    assert sentence in found.remarks[0]
    assert "a.json" in found.remarks[0]
    assert len(found.missing()) == 2


def test_titles_say_by_what_columns_differ(tmp_path: Path) -> None:
    for name, crop in (("a", 224), ("b", 96), ("c", 64)):
        write_knn(tmp_path / f"{name}.json", name, RIGHT[0], transform={"crop": crop})
    found = titles(board(collect([tmp_path])))
    assert [title.partition(" (")[2] for title in found] == [
        f"transform.crop {crop})" for crop in (64, 96, 224)
    ]


def test_without_predictions_a_record_stands_beside_the_only_labels(tmp_path: Path) -> None:
    write_knn(tmp_path / "a.json", "a", RIGHT[0])
    write_knn(tmp_path / "b.json", "b", RIGHT[1], without_predictions=True)
    write_knn(tmp_path / "c.json", "c", RIGHT[2])
    (tmp_path / "c.npz").unlink()
    found = board(collect([tmp_path]))
    assert list(by_column(found).values()) == [["a", "b", "c"]]
    assert len(found.remarks) == 1
    assert "c.json has lost its predictions" in found.remarks[0]
    assert "its numbers are shown and not tested" in found.remarks[0]
    write_knn(tmp_path / "d.json", "d", RIGHT[2], labels=np.arange(60) % 4)
    found = board(collect([tmp_path]))
    assert sorted(by_column(found).values()) == [["a"], ["b", "c"], ["d"]], "of which labels is not known"


def test_of_two_records_of_a_backbone_the_newest_counts(tmp_path: Path) -> None:
    old, new = RIGHT[0], RIGHT[1]
    write_knn(tmp_path / "new.json", "a", new, time="2026-03-01T00:00:00+00:00")
    write_knn(tmp_path / "old.json", "a", old, time="2026-02-01T00:00:00+00:00")
    found = board(collect([tmp_path]))
    assert [cell.value for cell in found.cells.values()] == [pytest.approx(100 * new.mean())]
    assert len(found.remarks) == 1
    assert "a was measured twice" in found.remarks[0]
    assert "new.json, the newest, which counts" in found.remarks[0]
    write_knn(tmp_path / "again.json", "b", old)
    write_knn(tmp_path / "copy" / "again.json", "b", old)
    assert len(board(collect([tmp_path])).remarks) == 1, "equal values need no word"


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.json", "linear", {"linear/top1": float("nan")}, None, "a")
    found = board(collect([tmp_path]))
    assert found.columns == []
    assert "linear/top1 in" in found.remarks[0]
    assert "is no number: left out" in found.remarks[0]


MAIN: dict[str, tuple[str, dict[str, Any], list[str], list[str]]] = {
    "k nearest to 20": (
        "knn",
        {},
        ["knn/k=10/T=0.07/top1", "knn/k=20/T=0.07/top5", "knn/k=20/T=0.07/top1", "knn/k=200/T=0.07/top1"],
        ["knn/k=20/T=0.07/top1"],
    ),
    "knn of several labels": (
        "knn",
        {"metric": "mAP_11point"},
        ["knn/k=10/T=0.07/mAP"],
        ["knn/k=10/T=0.07/mAP"],
    ),
    "the set's metric": (
        "linear",
        {"metric": "mean_per_class"},
        ["linear/top1", "linear/mean_per_class", "linear/ci95_low"],
        ["linear/mean_per_class"],
    ),
    "the last epoch": (
        "linear",
        {"metric": "top1"},
        ["linear/last/top1", "linear/best_on_test/top1", "linear/epoch=3/top1"],
        ["linear/last/top1"],
    ),
    "shots": (
        "fewshot",
        {},
        ["fewshot/k=1/C=1/top1/mean", "fewshot/k=1/C=9/top1/mean", "fewshot/k=5/C=1/top1/mean"],
        ["fewshot/k=1/C=1/top1/mean", "fewshot/k=5/C=1/top1/mean"],
    ),
    "probes": (
        "segmentation",
        {},
        ["linear/miou", "knn/k=30/miou", "ceiling/miou", "linear/iou/sky", "linear/pixel_accuracy"],
        ["linear/miou", "knn/k=30/miou"],
    ),
    "depth": ("depth", {}, ["mean-map/rmse", "ridge/rmse", "ridge/delta1"], ["ridge/rmse"]),
    "retrieval": (
        "retrieval",
        {},
        ["retrieval/easy/mAP", "retrieval/medium/mAP", "retrieval/hard/mAP", "retrieval/hard/mP@10"],
        ["retrieval/medium/mAP", "retrieval/hard/mAP"],
    ),
    "video": ("video", {}, ["J-and-F/mean", "J/mean", "still/J-and-F/mean"], ["J-and-F/mean"]),
    "robustness": (
        "robustness",
        {"measured_set": "corrupted"},
        ["robustness/corrupted/mean/top1", "robustness/corrupted/fog/severity=1/top1"],
        ["robustness/corrupted/mean/top1"],
    ),
    "invariance": (
        "invariance",
        {},
        ["invariance/clean/top1", "invariance/mean/top1", "invariance/rotation/mean/top1"],
        ["invariance/mean/top1"],
    ),
    "a set outside": (
        "outside",
        {"measured_set": "noise"},
        ["outside/noise/msp/auroc", "outside/noise/knn/auroc", "outside/noise/knn/fpr95"],
        ["outside/noise/knn/auroc"],
    ),
    "the head of outside, which linear measures too": (
        "outside",
        {},
        ["outside/linear/top1", "outside/noise/knn/auroc", "outside/mean/knn/auroc"],
        [],
    ),
    "the head of robustness": ("robustness", {"measured_set": "clean"}, ["robustness/clean/top1"], []),
    "detection": ("detection", {}, ["detection/AP50", "detection/AP", "images"], ["detection/AP"]),
}


@pytest.mark.parametrize("case", MAIN)
def test_main_numbers(case: str) -> None:
    task, protocol, metrics, expected = MAIN[case]
    made = {"task": task, "metrics": dict.fromkeys(metrics, 1.0), "protocol": protocol, "provenance": {}}
    assert numbers_of(made, "main") == expected


def test_records_whose_main_numbers_lie_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "a.json", "outside", {"outside/linear/top1": 50.0}, None, "a")
    found = board(collect([tmp_path]))
    assert found.columns == []
    assert len(found.remarks) == 1
    assert "those of its sets are in the records beside it (a.SET.json), of which none is here" in str(
        found.remarks
    )
    write(tmp_path / "a.far.json", "outside", {"outside/far/knn/auroc": 90.0}, None, "a", measured_set="far")
    found = board(collect([tmp_path]))
    assert [column.metric for column in found.columns] == ["outside/far/knn/auroc"]
    assert found.remarks == []


def test_columns_of_one_set_of_images(tmp_path: Path) -> None:
    """By their labels or the fingerprint of the images, and through a third."""
    shares = sample_values(knn=np.linspace(0, 1, 60))
    write_knn(tmp_path / "labels.json", "a", RIGHT[0], test_fingerprint="copy")
    write_knn(tmp_path / "both.json", "a", RIGHT[0], similarity="euclidean")
    outside = {"outside/far/knn/auroc": 50.0}
    write(tmp_path / "images.json", "outside", outside, shares, "a", measured_set="far")
    write_knn(tmp_path / "other.json", "a", RIGHT[0], labels=np.arange(60) % 4, test_fingerprint="other")
    found = board(collect([tmp_path]))
    sets = sets_of_images(found.columns)
    files = {found.of(column)[found.backbones[0]].measurement.path.stem: sets[column] for column in sets}
    assert files["labels"] == files["both"] == files["images"] != files["other"]


def test_all_numbers_of_which_one_way_is_better() -> None:
    names = [
        "knn/k=20/T=0.07/top1",
        "knn/k=20/T=0.07/top5",
        "knn/k=20/T=0.07/ci95_low",
        "queries",
        "mine/own",
    ]
    names += ["baseline/pixels/knn/k=20/T=0.07/top1", "fewshot/k=1/C=1/top1/mean", "fewshot/k=1/C=1/top1/std"]
    made = {"task": "knn", "metrics": dict.fromkeys(names, 1.0), "protocol": {}, "provenance": {}}
    assert numbers_of(made, "all") == [names[0], names[1], "fewshot/k=1/C=1/top1/mean"]


def test_what_diagnose_counts_of_a_network_is_no_protocol(tmp_path: Path) -> None:
    """The recipe of its views is one of the numbers that are measured on views."""
    metrics = {"rankme/backbone": 5.0, "alignment/backbone": 0.1}
    for name, recipe in (("a", "simsiam"), ("b", "dino")):
        measured = {"backbone": {"rows": 200, "dim": 512 if name == "a" else 384}}
        write(tmp_path / f"{name}.json", "diagnose", metrics, None, name, recipe=recipe, measured=measured)
    found = board(collect([tmp_path]), "all")
    assert [list(map(str, found.of(column))) for column in found.columns] == [["b"], ["a"], ["a", "b"]]
    assert [column.metric for column in found.columns] == ["alignment/backbone"] * 2 + ["rankme/backbone"]
    assert len(found.remarks) == 1
    assert "protocol.recipe is simsiam in the first and dino in the second" in found.remarks[0]


def test_names_that_would_move_the_cursor_are_escaped(tmp_path: Path) -> None:
    for name, crop in (("a", "\x1b[2J"), ("b", "\u0007")):
        write_knn(tmp_path / f"{name}.json", name, RIGHT[0], test="\x1b[1A evil", transform={"crop": crop})
    found = board(collect([tmp_path]))
    assert all(text.isprintable() for text in (*titles(found), *found.remarks))


def test_numbers_in_titles_are_sorted_as_numbers(tmp_path: Path) -> None:
    metrics = {f"fewshot/k={k}/C=1/top1/mean": 50.0 for k in (1, 10, 2)}
    write(tmp_path / "a.json", "fewshot", metrics, None, "a")
    found = [title.split()[1] for title in titles(board(collect([tmp_path])))]
    assert found == ["k=1", "k=2", "k=10"]


@pytest.mark.parametrize(
    ("task", "metric", "setting"),
    [
        ("retrieval", "retrieval/hard/mAP", "hard"),
        ("retrieval", "retrieval/hard/mP@10", None),
        ("copies", "copies/strong/mAP", "strong"),
        ("video", "J-and-F/mean", "J-and-F"),
        ("video", "still/J-and-F/mean", None),
        ("attention", "jaccard/foreground/whole", "foreground/whole"),
        ("depth", "ridge/rmse", "ridge/rmse"),
        ("outside", "outside/noise/knn/auroc", "knn"),
        ("outside", "outside/noise/knn/fpr95", None),
        ("robustness", "robustness/corrupted/mean/top1", "corrupted/mean/top1"),
        ("robustness", "robustness/corrupted/mean/drop", None),
        ("invariance", "invariance/mean/top1", "mean/top1"),
        ("invariance", "invariance/mean/relative", None),
    ],
)
def test_which_values_gave_a_number(task: str, metric: str, setting: str | None) -> None:
    values = np.array([0.5, 0.6])
    names = ("hard", "strong", "J-and-F", "foreground/whole", "ridge/rmse", "knn")
    names = (*names, "corrupted/mean/top1", "mean/top1")
    kept = SampleValues(np.arange(2), dict.fromkeys(names, values))
    assert settings_of(kept, task, metric) == ([] if setting is None else [setting])


def test_errors_are_better_low(tmp_path: Path) -> None:
    values = sample_values(ridge__rmse=np.array([0.5, 0.7]))
    write(tmp_path / "a.json", "depth", {"ridge/rmse": 0.6}, values, "a")
    column = board(collect([tmp_path])).columns[0]
    assert not column.higher_is_better
    assert "metres" in column.unit


# The command that fills a cell.


def test_the_command_parses_and_measures_the_other_file(tmp_path: Path) -> None:
    place = tmp_path / "records"
    command = [
        "siamtransfer",
        "knn",
        "runs/a/checkpoint.pth",
        "--data.name=folder",
        "--data.root",
        "my images",
    ]
    command += [
        "--branch",
        "teacher",
        "--no-stride-in-1x1",
        "--k",
        "20",
        "--record",
        str(place / "a" / "knn.json"),
    ]
    write_knn(place / "a" / "knn.json", "a", RIGHT[0], command=command)
    linear = ["__main__.py", "linear", "runs/b/checkpoint.pth", "--normalisation=half", "--trust-pickle"]
    write(place / "b" / "linear.json", "linear", {"linear/top1": 50.0}, None, "b", command=linear)
    knn, probe = sorted(board(collect([tmp_path])).missing(), key=lambda each: each.column.task)
    assert (knn.backbone.label, probe.backbone.label) == ("b", "a")
    words = shlex.split(knn.command)
    assert words[:3] == ["siamtransfer", "knn", "runs/b/checkpoint.pth"]
    config = program("knn").parse(words[2:])
    assert config.checkpoint == "runs/b/checkpoint.pth"
    assert (config.data.root, config.k) == ("my images", [20])
    assert (config.branch, config.stride_in_1x1) == (None, None), "these belong to the file of a"
    assert (config.normalisation, config.trust_pickle) == ("half", True), "and these to that of b"
    assert config.record == str(place / "b" / "knn.json")
    other = program("linear").parse(shlex.split(probe.command)[2:])
    assert (other.checkpoint, other.branch) == ("runs/a/checkpoint.pth", "teacher")
    assert (other.normalisation, other.stride_in_1x1) == (None, False)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"command": ["ipykernel_launcher.py", "-f", "x.json"]}, "a notebook's"),
        ({"command": ["siamtransfer", "suite", "a.pth"]}, "a suite's"),
        ({"command": ["siamtransfer", "knn", "--config", "mine.yaml"]}, "one that does not name the file"),
        ({"command": [1, 2]}, "none"),
    ],
)
def test_a_command_that_is_not_the_records_fills_nothing(
    tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    write_knn(tmp_path / "a.json", "a", RIGHT[0], **changes)
    write(tmp_path / "b.json", "linear", {"linear/top1": 50.0}, None, "b")
    found = {each.column.task: each.command for each in board(collect([tmp_path])).missing()}
    assert found["knn"] == "", name
    assert "linear" in found


def test_commands_of_doors_and_of_records_of_several_backbones(tmp_path: Path) -> None:
    door = ["knn.py", "runs/a/checkpoint.pth", "--neighbours", "a-n.png"]
    write_knn(tmp_path / "x.json", "a", RIGHT[0], command=door)
    own = [{"backbone": f"{name}.pth", "weights_digest": name} for name in "cd"]
    write(
        tmp_path / "d.json",
        "diagnose",
        {"1/kmeans_accuracy/backbone": 5.0, "2/kmeans_accuracy/backbone": 6.0},
        None,
        "c",
        facts={"checkpoints": own},
        command=["siamtransfer", "diagnose", "c.pth", "d.pth", "--sample", "9"],
    )
    found = {
        (str(each.backbone), each.column.task): each.command for each in board(collect([tmp_path])).missing()
    }
    assert found == {
        ("a", "diagnose"): "siamtransfer diagnose runs/a/checkpoint.pth --sample 9",
        ("c", "knn"): "siamtransfer knn c.pth --neighbours c-n.png",
        ("d", "knn"): "siamtransfer knn d.pth --neighbours d-n.png",
    }
