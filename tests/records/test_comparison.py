"""Which of two backbones is better: its numbers and verdict, measurements refused, results, the program."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from support.paired_samples import pair
from support.paths import ROOT
from support.warm_python import run_python

from siamtransfer.metrics.paired_bootstrap import mean_average_precision_differences
from siamtransfer.programs.compare import main
from siamtransfer.programs.knn import main as knn
from siamtransfer.records.comparison import compare, compare_arrays
from siamtransfer.records.likeness import refuse_unlike
from siamtransfer.records.predictions import Predictions, SavedRecord, publish
from siamtransfer.records.record import record
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError


def test_a_resample_without_any_positive_does_not_count() -> None:
    labels = np.zeros((12, 2), np.int64)
    labels[3, 1] = 1
    scores = np.random.default_rng(0).random((2, 12, 2))
    drawn = mean_average_precision_differences(labels, *scores, 200, np.random.default_rng(0))
    assert 0.2 < np.isnan(drawn).mean() < 0.5, "(1 - 1/12)^12 is 0.35"
    comparison = compare_arrays(labels, *scores, resamples=200)
    assert math.isfinite(comparison.differences["mAP"].low)


def test_every_number_of_a_comparison() -> None:
    generator = np.random.default_rng(7)
    labels = generator.choice([5, -3, 900], 400, p=[0.6, 0.3, 0.1])
    first = np.where(generator.random(400) < 0.3, 5, labels)
    second = np.where(generator.random(400) < 0.5, labels, first)
    comparison = compare_arrays(labels, first, second, resamples=2000)
    top1, mean = comparison.differences["top1"], comparison.differences["mean_per_class"]
    assert (top1.first, top1.second) == pytest.approx([100 * (labels == p).mean() for p in (first, second)])
    assert mean.first == pytest.approx(100 * balanced_accuracy_score(labels, first))
    assert mean.second == pytest.approx(100 * balanced_accuracy_score(labels, second))
    counts = ((labels == first) & (labels != second)).sum(), ((labels != first) & (labels == second)).sum()
    assert (comparison.only_first_right, comparison.only_second_right) == counts
    assert top1.value == pytest.approx(100 * (counts[1] - counts[0]) / 400)
    assert top1.low <= top1.value <= top1.high
    assert mean.low < mean.value < mean.high
    assert comparison.p_value == pytest.approx(stats.binomtest(int(counts[0]), int(sum(counts))).pvalue)
    assert compare_arrays(labels, first, second, resamples=2000) == comparison, (
        "the seed decides the resamples"
    )
    mirrored = compare_arrays(labels, second, first, resamples=2000).differences["top1"]
    assert (mirrored.low, mirrored.high) == pytest.approx((-top1.high, -top1.low))


def test_what_is_said() -> None:
    labels = np.zeros(200, np.int64)

    def say(counts: tuple[int, int, int, int]) -> str:
        return compare_arrays(labels, *(~right for right in pair(counts)), resamples=100).verdict()

    assert say((4, 24, 150, 22)).startswith(
        "B is better by 10.00 points, 95 % interval 5.00 to 15.00, McNemar p = 0.0001"
    )
    assert "(top1 77.00 and 87.00 %)" in say((4, 24, 150, 22))
    assert say((24, 4, 150, 22)).startswith(
        "A is better by 10.00 points, 95 % interval 5.00 to 15.00, McNemar"
    )
    assert say((9, 11, 150, 30)).startswith(
        "no difference can be told, B - A is +1.00 points, 95 % interval -3"
    )
    five = compare_arrays(labels, *(~right for right in pair((0, 5, 150, 45))), resamples=100)
    assert five.differences["top1"].clear
    assert five.better is None, "the test says 0.06"
    several = np.eye(4, dtype=np.int64)
    assert "McNemar" not in compare_arrays(several, several * 1.0, several * 2.0, resamples=100).verdict()


# Records that are not alike.


def published(path: Path, weights: int = 0, **changes: Any) -> SavedRecord:
    """A record as knn writes it of some weights; `changes` go into protocol, provenance or labels."""
    labels = np.arange(60) % 3
    predicted = np.where(np.random.default_rng(weights).random(60) < 0.7, labels, 0)
    protocol = {
        "train": "folder/train",
        "train_images": 100,
        "transform": {"crop": 224, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "k": [5],
        "temperature": [0.07],
        "uniform": False,
        "similarity": "cosine",
    }
    provenance = {"train_fingerprint": "aa", "test_fingerprint": None, "weights_digest": str(weights)}
    task = changes.pop("task", "knn")
    labels, predicted = changes.pop("labels", labels), changes.pop("predicted", predicted)
    for key, value in changes.items():
        (provenance if key in provenance or "digest" in key else protocol)[key] = value
    predictions = Predictions(labels, {"k=5/T=0.07": predicted})
    return SavedRecord(path, copy.deepcopy(record(task, {}, protocol, **provenance)), predictions)


UNLIKE = {
    "task": ({"task": "linear"}, "task is 'knn' in the first and 'linear' in the second"),
    "protocol": ({"similarity": "euclidean"}, "protocol.similarity is 'cosine' in the first and 'euclidean'"),
    "inside": ({"transform": {"crop": 96}}, "protocol.transform.crop is 224 in the first and 96 in"),
    "new key": ({"seed": 1}, "protocol.seed is absent in the first and 1 in the second"),
    "images": ({"train_fingerprint": "bb"}, "provenance.train_fingerprint is 'aa' in the first and 'bb'"),
    "test images": ({"test_fingerprint": "b"}, "provenance.test_fingerprint is None in the first and 'b'"),
    "place of choice": ({"chosen_on": "test"}, "protocol.chosen_on is absent in the first and 'test'"),
    "labels": ({"labels": np.arange(60) // 20}, "40 labels differ: that of sample 1 is 1 in the first and 0"),
    "samples": (
        {"labels": np.arange(30), "predicted": np.arange(30)},
        r"they scored \[60\] and \[30\] labels",
    ),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_unlike_records_are_refused_with_the_key_and_both_values(what: str) -> None:
    changes, message = UNLIKE[what]
    first, second = published(Path("a.json")), published(Path("b.json"), weights=1, **changes)
    with pytest.raises(UserError, match=rf"^a\.json and b\.json cannot be compared, for {message}") as caught:
        refuse_unlike(first, second)
    assert "\n" not in str(caught.value)


def test_what_may_differ() -> None:
    """The weights, their normalisation and remarks, what was chosen on held-out data, other settings."""
    first = published(Path("a.json"), chosen_strength=0.1, held_out_top1={"0.1": 40.0, "1": 39.0})
    transform = {"crop": 224, "mean": [0.4, 0.4, 0.4], "std": [0.1, 0.1, 0.1]}
    second = published(
        Path("b.json"),
        weights=1,
        transform=transform,
        chosen_strength=1.0,
        held_out_top1={"1": 30.0},
        k=[1, 5],
        remarks=["the features of 1 % of the images of test are all zero: they say nothing"],
        arithmetic="float64 where float32 does not tell neighbours apart",
    )
    refuse_unlike(first, second)
    linear = [published(Path(name), task="linear", k=k) for name, k in (("a", [5]), ("b", [1, 5]))]
    with pytest.raises(UserError, match=r"protocol\.k is \[5\] in the first and \[1, 5\]"):
        refuse_unlike(*linear)


# Results and paths.


def result(weights: int = 0, **changes: Any) -> Result:
    saved = published(Path("x.json"), weights, **changes)
    entries = {key: saved.record[key] for key in ("protocol", "provenance")}
    return Result("knn", {"knn/k=5/T=0.07/top1": 1.0}, **entries, predictions=saved.predictions)


def test_two_results_or_their_files_are_compared_alike(tmp_path: Path) -> None:
    first, second = result(), result(weights=1, transform={"crop": 224, "mean": (0.4,), "std": (0.1,)})
    with pytest.raises(UserError, match=r"transform\.crop is 224 in the first and 96 in the second"):
        compare(first, result(transform={"crop": 96}))
    ours = compare(first, second)
    settings = first.predictions.settings, second.predictions.settings  # type: ignore[union-attr]
    arrays = [each["k=5/T=0.07"] for each in settings]
    labels = first.predictions.labels  # type: ignore[union-attr]
    assert ours == compare_arrays(labels, *arrays, resamples=10_000)
    assert str(ours).startswith("no difference can be told, the second - the first is ")
    first.save(tmp_path / "a.json")
    second.save(tmp_path / "b.json")
    assert compare(tmp_path / "a.json", str(tmp_path / "b.json"), setting="k=5/T=0.07") == ours
    assert compare(first, tmp_path / "b.json") == ours
    fewer = compare(first, second, resamples=100, seed=3)
    assert fewer == compare_arrays(labels, *arrays, resamples=100, seed=3) != ours


def test_results_that_cannot_be_compared_are_named() -> None:
    labels = np.arange(60) % 3
    with pytest.raises(UserError, match=r"^the second result has no predictions"):
        compare(result(), Result("knn", {}))
    with pytest.raises(
        UserError, match=r"^the first result and the second result cannot be compared, for task"
    ):
        compare(result(), Result("linear", {}, predictions=Predictions(labels, {"k=5/T=0.07": labels})))
    several = [
        Result("knn", {}, predictions=Predictions(labels, dict.fromkeys(("k=1", "k=5"), labels)))
        for _ in "ab"
    ]
    with pytest.raises(UserError, match=r"^both have the settings k=1, k=5: choose one"):
        compare(*several)
    assert compare(*several, setting="k=1").better is None
    with pytest.raises(
        UserError, match="no setting 'k=7' in both: the first result has k=1, k=5 and the second"
    ):
        compare(*several, setting="k=7")


# The program, on what the evaluator wrote.


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weak.json, strong.json (features of less noise), and several.json, many.json of several labels."""
    folder, generator = tmp_path_factory.mktemp("records"), np.random.default_rng(0)
    centres = generator.normal(size=(4, 6))
    for name, noise in (("weak", 1.6), ("strong", 1.0)):
        for part, each in (("train", 50), ("test", 40)):
            labels = np.arange(4).repeat(each)
            features = (centres[labels] + noise * generator.normal(size=(4 * each, 6))).astype(np.float32)
            np.savez(folder / f"{name}_{part}.npz", features=features, labels=labels)
    truth = {part: np.random.default_rng(1).integers(0, 2, (60, 3)) for part in ("train", "test")}
    for name, noise in (("several", 1.0), ("many", 0.4)):
        for part, labels in truth.items():
            features = (labels + noise * generator.normal(size=(60, 3))).astype(np.float32)
            np.savez(folder / f"{name}_{part}.npz", features=features, labels=labels)
    for name in ("weak", "strong", "several", "many"):
        parts = [f"--{part}-features={folder / name}_{part}.npz" for part in ("train", "test")]
        knn([*parts, "--k", "5", "20", "--record", str(folder / f"{name}.json")])
    return folder


def test_the_program_compares_what_the_evaluator_kept(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = main([str(records / "weak.json"), str(records / "strong.json"), "--setting", "k=20/T=0.07"])
    said = capsys.readouterr().err
    assert "k=20/T=0.07: B is better by " in said
    assert "feature files" in said
    evaluated = [json.loads((records / f"{name}.json").read_text()) for name in ("weak", "strong")]
    metrics = document["metrics"]
    for number in ("top1", "mean_per_class"):
        ours = [metrics[f"compare/k=20/T=0.07/{number}/{side}"] for side in ("first", "second")]
        theirs = [record["metrics"][f"knn/k=20/T=0.07/{number}"] for record in evaluated]
        assert ours == pytest.approx(theirs)
        assert metrics[f"compare/k=20/T=0.07/{number}/difference"] == pytest.approx(ours[1] - ours[0])
    right = [
        np.load(records / f"{name}.npz")["k=20/T=0.07/predictions"] == np.arange(4).repeat(40)
        for name in ("weak", "strong")
    ]
    assert metrics["compare/k=20/T=0.07/only_second_right"] == (right[1] & ~right[0]).sum()
    assert document["protocol"]["settings"] == ["k=20/T=0.07"]
    assert (
        document["provenance"]["second"]["predictions_digest"]
        == evaluated[1]["provenance"]["predictions_digest"]
    )
    assert json.loads(json.dumps(document))["task"] == "compare"


def test_all_settings_are_compared_unless_one_is_named(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [str(records / "weak.json")] * 2
    document = main(twice)
    assert document["protocol"]["settings"] == ["k=5/T=0.07", "k=20/T=0.07"]
    said = capsys.readouterr().err
    assert (
        said.count(
            "no difference can be told, B - A is +0.00 points, 95 % interval 0.00 to 0.00, McNemar p = 1"
        )
        == 2
    )
    assert "choose beforehand" in said
    assert document["metrics"]["compare/k=5/T=0.07/mcnemar_p"] == 1


def test_several_labels_are_compared_by_mean_average_precision(records: Path) -> None:
    document = main([str(records / "several.json"), str(records / "many.json"), "--resamples", "300"])
    name = "compare/k=5/T=0.07"
    assert {key for key in document["metrics"] if key.startswith(name)} == {
        f"{name}/mAP/{what}" for what in ("first", "second", "difference", "ci95_low", "ci95_high")
    }
    evaluated = json.loads((records / "many.json").read_text())["metrics"]
    assert document["metrics"][f"{name}/mAP/second"] == pytest.approx(evaluated["knn/k=5/T=0.07/mAP"])
    assert document["metrics"][f"{name}/mAP/ci95_low"] > 0
    assert document["protocol"]["resamples"] == 300


def test_mistakes_are_one_sentence(records: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        with pytest.raises(UserError) as caught:
            main([str(word) for word in words])
        return str(caught.value)

    weak, strong = records / "weak.json", records / "strong.json"
    assert "at least 100" in refused(weak, strong, "--resamples", 10)
    assert "no setting 'k=7' in both: " in (said := refused(weak, strong, "--setting", "k=7"))
    assert f"{strong} has k=5/T=0.07, k=20/T=0.07" in said
    assert "protocol.train_images is 200 in the first and 60 in the second" in refused(
        weak, records / "many.json"
    )
    lonely = publish(record("knn", {}, {}), None, str(tmp_path / "lonely.json"))
    assert lonely["task"] == "knn"
    assert "names no predictions" in refused(weak, tmp_path / "lonely.json")
    (tmp_path / "copy.json").write_bytes(strong.read_bytes())
    assert "has lost its predictions" in refused(weak, tmp_path / "copy.json")
    (tmp_path / "copy.npz").write_bytes((records / "weak.npz").read_bytes())
    assert "copy.npz is not the file of predictions" in refused(weak, tmp_path / "copy.json")
    only = [f"--{part}-features={records / 'strong'}_{part}.npz" for part in ("train", "test")]
    knn([*only, "--k", "1", "--record", str(tmp_path / "one.json")])
    assert "no setting is in both: " in refused(weak, tmp_path / "one.json")


def test_the_evaluator_refuses_before_work_what_it_could_not_write(records: Path) -> None:
    parts = [f"--{part}-features={records / 'weak'}_{part}.npz" for part in ("train", "test")]
    before = (records / "weak.json").read_bytes()
    for name, message in (
        ("weak.json", "weak.json exists"),
        ("weak_train.json", "weak_train.npz exists"),
        ("weak.txt", "must end in .json"),
    ):
        with pytest.raises(UserError, match=message):
            knn([*parts, "--k", "0", "--record", str(records / name)])
    assert (records / "weak.json").read_bytes() == before


def test_on_the_command_line_from_any_folder(records: Path) -> None:
    done = run_python(ROOT / "eval" / "compare.py", "weak.json", "strong.json", cwd=records)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["provenance"]["first"]["record"] == "weak.json"
