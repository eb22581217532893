"""Predictions and records in files: what is written comes back, and what does not fit is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as theirs

from siamtransfer.records.predictions import Predictions, confusion_matrix, publish, read_record
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file, refuse_record

LABELS = np.array([7, -2, 7, 10**12, -2])
SINGLE = Predictions(LABELS, {"k=1/T=0.07": np.array([7, 7, 7, 3, -2]), "k=5/T=0.07": LABELS.copy()})
FIRST = "k=1/T=0.07"
SURE = Predictions(LABELS, SINGLE.settings, {FIRST: np.array([1, 0.5, 0.25, 0, 1 + 1e-9])})
SEVERAL = Predictions(np.array([[1, 0, 1], [0, 1, 1]]), {"C=1": np.array([[0.5, -1, 2], [3, 0.25, 1e-300]])})


@pytest.mark.parametrize("predictions", [SINGLE, SURE, SEVERAL])
def test_what_is_written_is_read(tmp_path: Path, predictions: Predictions) -> None:
    predictions.write(tmp_path / "p.npz")
    read = Predictions.read(tmp_path / "p.npz")
    assert list(read.settings) == list(predictions.settings)
    assert list(read.confidences) == list(predictions.confidences)
    for ours, written in [
        (read.labels, predictions.labels),
        *((read.settings[name], predictions.settings[name]) for name in predictions.settings),
        *((read.confidences[name], predictions.confidences[name]) for name in predictions.confidences),
    ]:
        assert ours.dtype == written.dtype
        assert (ours == written).all()
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_the_arrays_of_a_file_and_their_confusion(tmp_path: Path) -> None:
    SINGLE.write(tmp_path / "single.npz")
    arrays = np.load(tmp_path / "single.npz")
    names = [
        f"{setting}/{what}" for setting in SINGLE.settings for what in ("predictions", "classes", "confusion")
    ]
    assert list(arrays) == ["labels", *names]
    assert arrays["k=1/T=0.07/classes"].tolist() == [-2, 3, 7, 10**12]
    expected = theirs(LABELS, SINGLE.settings["k=1/T=0.07"])
    assert (arrays["k=1/T=0.07/confusion"] == expected).all()
    assert arrays["k=1/T=0.07/confusion"][0].tolist() == [1, 0, 1, 0]
    SURE.write(tmp_path / "sure.npz")
    assert list(np.load(tmp_path / "sure.npz")) == ["labels", *names[:3], f"{FIRST}/confidences", *names[3:]]
    SEVERAL.write(tmp_path / "several.npz")
    assert list(np.load(tmp_path / "several.npz")) == ["labels", "C=1/predictions"]


def test_equal_predictions_make_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        SURE.write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_types_of_any_width_become_one() -> None:
    narrow = Predictions(np.array([1, 0], np.uint8), {"a": np.array([1, 1], np.int32)})
    assert narrow.labels.dtype == narrow.settings["a"].dtype == np.int64
    several = Predictions(np.array([[True, False]]), {"a": np.array([[1, 0.5]], np.float32)})
    assert (several.labels.dtype, several.settings["a"].dtype) == (np.int64, np.float64)


def test_confidences_are_kept_in_their_range() -> None:
    kept = SURE.confidences[FIRST]
    assert (kept.dtype, kept.tolist()) == (np.float32, [1, 0.5, 0.25, 0, 1])
    assert SINGLE.confidences == {}


def test_the_matrix_counts_every_sample() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 9, (2, 500)) * 3
    classes, confusion = confusion_matrix(labels, predicted)
    assert (confusion == theirs(labels, predicted, labels=classes)).all()


Y, MANY = np.array([1, 0, 2]), np.array([[1, 0], [0, 1]])
WITH = {"labels": Y, "a/predictions": Y}
WRONG = {
    "no labels": ({"a/predictions": Y}, "no array called labels"),
    "features": ({"labels": Y, "features": np.ones((3, 2))}, "no predictions, which are called NAME/pred"),
    "an empty list": ({"labels": Y[:0], "a/predictions": Y[:0]}, r"holds labels\[0\]; \[Q\] or \[Q,C\]"),
    "deep labels": ({"labels": Y[None, None], "a/predictions": Y}, r"holds labels\[1, 1, 3\]"),
    "labels as floats": ({"labels": Y * 1.0, "a/predictions": Y}, "labels of type float64; integers"),
    "other than 0 and 1": ({"labels": MANY * 2, "a/predictions": MANY * 1.0}, "other than 0 and 1"),
    "another length": ({"labels": Y, "a/predictions": Y[:2]}, r"a/predictions\[2\] .*; integers \[3\]"),
    "scores for labels": ({"labels": Y, "a/predictions": Y * 1.0}, "of type float64; integers"),
    "labels for scores": ({"labels": MANY, "a/predictions": MANY}, "of type int64; floating-point scores"),
    "confidences of nothing": (WITH | {"b/confidences": Y / 2}, r"b/confidences.* without b/predictions"),
    "too few confidences": (WITH | {"a/confidences": Y[:2] / 2}, r"confidences\[2\] .* \[3\] are needed"),
    "confidences in percent": (WITH | {"a/confidences": Y * 40.0}, "not all between 0 and 1"),
    "NaN as a confidence": (WITH | {"a/confidences": Y * np.nan}, "not all between 0 and 1"),
    "integers as confidences": (WITH | {"a/confidences": Y}, "of type int64; floating-point numbers"),
    "confidences of scores": (
        {"labels": MANY, "a/predictions": MANY * 1.0, "a/confidences": MANY[0] * 1.0},
        "go with one label a sample",
    ),
    "NaN": ({"labels": MANY, "k=1/predictions": MANY * np.nan}, r"k=1/predictions.* not all finite"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(tmp_path: Path, what: str) -> None:
    arrays, message = WRONG[what]
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        Predictions.read(tmp_path / "p.npz")
    assert str(caught.value).startswith(str(tmp_path / "p.npz"))
    if "labels" in arrays:
        settings = {name[:-12]: array for name, array in arrays.items() if name.endswith("/predictions")}
        sure = {name[:-12]: array for name, array in arrays.items() if name.endswith("/confidences")}
        with pytest.raises(ValueError, match=message):
            Predictions(arrays["labels"], settings, sure)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(UserError, match=r"p\.npz cannot be read as predictions: No such file"):
        Predictions.read(path)
    path.write_text("something else")
    with pytest.raises(UserError, match=r"p\.npz cannot be read as predictions"):
        Predictions.read(path)
    SINGLE.write(path)
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"p\.npz cannot be read as predictions"):
        Predictions.read(path)
    with path.open("wb") as file:
        np.save(file, LABELS)
    with pytest.raises(UserError, match="no array called labels"):
        Predictions.read(path)


# The record and its predictions.


def test_a_published_record_comes_back_with_its_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = record("knn", {"top1": 60.0, "odd": float("nan")}, {"k": [1]}, weights_digest="abc")
    assert publish(plain, SINGLE, None) is plain
    path = tmp_path / "new" / "a.b.json"
    document = publish(plain, SINGLE, str(path))
    assert "predictions_digest" not in plain["provenance"]
    assert document["provenance"]["predictions_digest"] == digest_of_file(tmp_path / "new" / "a.b.npz")
    assert "a.b.json" in capsys.readouterr().err
    back = read_record(path)
    assert back.record == json.loads(json.dumps(document).replace("NaN", "null"))
    assert (back.predictions.settings["k=1/T=0.07"] == SINGLE.settings["k=1/T=0.07"]).all()
    assert path.read_text().count("\n") == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.b.json", "a.b.npz"]


def test_a_record_may_have_no_predictions(tmp_path: Path) -> None:
    plain = record("features", {}, {})
    assert publish(plain, None, str(tmp_path / "a.json")) == plain
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(UserError, match=r"a\.json names no predictions: measure again with --record"):
        read_record(tmp_path / "a.json")


def test_record_and_predictions_are_both_written_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(UserError, match="No space left"):
        publish(record("knn", {}, {}), SINGLE, str(tmp_path / "a.json"))
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_another_measurement_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    publish(record("knn", {}, {}), SINGLE, str(path))
    SEVERAL.write(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"a\.npz is not the file of predictions that .*a\.json names"):
        read_record(path)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(UserError, match=r"a\.json has lost its predictions: there is no file .*a\.npz"):
        read_record(path)
    with pytest.raises(UserError, match=r"missing\.json cannot be read: No such file"):
        read_record(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON: Expecting value"),
        ('{"task": "knn", "task": "linear"}', "holds the key 'task' twice"),
        ('{"task": NaN}', "holds NaN"),
        (
            '{"task": "knn", "metrics": {"a": "high"}, "protocol": {}, "provenance": {}}',
            "is not a record: its metric a is no number but 'high'",
        ),
        ("[1]", "is not a record: it has no task"),
        ('{"task": "knn", "metrics": {}, "provenance": {}}', "is not a record: it has no protocol"),
        ('{"task": 3}', "is not a record: it has no task"),
    ],
)
def test_what_is_no_record_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json {message}"):
        read_record(tmp_path / "a.json")


def test_a_place_for_the_record_is_looked_at_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> str:
        with pytest.raises(UserError) as caught:
            refuse_record(str(tmp_path / name))
        return str(caught.value)

    refuse_record(str(tmp_path / "new" / "a.json"))
    assert not (tmp_path / "new").exists(), "looking makes nothing"
    assert "must end in .json" in refused("a.npz")
    np.savez(tmp_path / "train.npz", features=np.ones(3))
    assert "train.npz exists" in refused("train.json"), "features beside it are not overwritten"
    (tmp_path / "old.json").touch()
    assert "old.json exists; choose another --record" in refused("old.json")
    assert "old.json is not a folder" in refused("old.json/a.json")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert f"the folder {tmp_path} is read-only" in refused("new/a.json")
