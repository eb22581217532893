"""mIoU and its relatives, against hand cases, torchmetrics and Detectron2's evaluator."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamtransfer.metrics.segmentation import (
    ConfusionMatrix,
    PerImageCounts,
    SegmentationScores,
    count_image,
)
from siamtransfer.utils.errors import UserError

CLASSES = 7
KINDS = ["all classes", "absent classes", "predicted only", "many ignored", "an empty image"]


def random_maps(kind: str, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of prediction and mask, uint8, with 255 ignored."""
    generator = np.random.default_rng(seed)
    present = CLASSES if kind in ("all classes", "many ignored", "an empty image") else CLASSES - 3
    predicted = CLASSES - 1 if kind == "predicted only" else present
    pairs = []
    for number in range(4):
        size = (5 + number, 9)
        mask = generator.integers(0, present, size, dtype=np.uint8)
        prediction = np.where(generator.random(size) < 0.5, mask, generator.integers(0, predicted, size))
        mask[generator.random(size) < (0.8 if kind == "many ignored" else 0.1)] = 255
        if kind == "an empty image" and number == 2:
            mask[:] = 255
        pairs.append((prediction.astype(np.uint8), mask))
    return pairs


def scores_of(pairs: list[tuple[np.ndarray, np.ndarray]], absent: str = "union") -> SegmentationScores:
    matrix = ConfusionMatrix(CLASSES)
    for prediction, mask in pairs:
        matrix.add(prediction, mask)
    return SegmentationScores.from_counts(matrix.counts, absent)


def test_a_case_by_hand():
    mask = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, 0, 3]], np.uint8)
    matrix = ConfusionMatrix(4)
    counts = matrix.add(prediction, mask)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    scores = SegmentationScores.from_counts(matrix.counts)
    assert scores.per_class[:3] == pytest.approx([1 / 3, 2 / 3, 0]) and np.isnan(scores.per_class[3])
    assert scores.miou == pytest.approx(1 / 3)
    assert scores.pixel_accuracy == pytest.approx(3 / 5)
    assert scores.mean_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert scores.frequency_weighted_iou == pytest.approx((2 / 3 + 4 / 3) / 5)


def test_a_class_that_is_only_predicted_counts_by_the_rule():
    mask, prediction = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    counts = count_image(prediction, mask, 2)
    assert SegmentationScores.from_counts(counts).miou == pytest.approx(3 / 8)
    assert SegmentationScores.from_counts(counts, "truth").miou == pytest.approx(3 / 4)
    with pytest.raises(UserError, match="union or truth, not 'all'"):
        SegmentationScores.from_counts(counts, "all")


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_torchmetrics(kind: str, monkeypatch: pytest.MonkeyPatch):
    classification = pytest.importorskip("torchmetrics.classification")
    pairs = random_maps(kind)
    ours = scores_of(pairs)
    macro = classification.MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=255)
    single = classification.MulticlassJaccardIndex(CLASSES, average="none", ignore_index=255)
    pixels = classification.MulticlassAccuracy(CLASSES, average="micro", ignore_index=255)
    for prediction, mask in pairs:
        for metric in (macro, single, pixels):
            metric.update(torch.from_numpy(prediction).long()[None], torch.from_numpy(mask).long()[None])
    assert ours.miou == pytest.approx(float(macro.compute()), abs=1e-6)
    # Its counts are exact and its formulas round to float32 on the way; the same formulas in float64:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    for metric in (macro, single, pixels):
        metric._computed = None
    assert ours.miou == pytest.approx(float(macro.compute()), abs=1e-9)
    assert np.nan_to_num(ours.per_class) == pytest.approx(single.compute().numpy(), abs=1e-9)
    assert ours.pixel_accuracy == pytest.approx(float(pixels.compute()), abs=1e-9)


@pytest.mark.detectron2
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_evaluator_of_detectron2(kind: str, tmp_path: Path):
    pytest.importorskip("detectron2")
    from siamtransfer.detection.detectron2.compat import import_detectron2

    import_detectron2()
    from detectron2.evaluation import SemSegEvaluator

    pairs = random_maps(kind)
    evaluator = SemSegEvaluator.__new__(SemSegEvaluator)
    evaluator.__dict__.update(
        _logger=types.SimpleNamespace(info=lambda *_: None),
        _distributed=False,
        _output_dir=None,
        _cpu_device=torch.device("cpu"),
        _class_names=[str(number) for number in range(CLASSES)],
        _contiguous_id_to_dataset_id=None,
        _num_classes=CLASSES,
        _ignore_label=255,
        input_file_to_gt_file={str(n): str(tmp_path / f"{n}.png") for n in range(len(pairs))},
    )
    evaluator.reset()
    for number, (prediction, mask) in enumerate(pairs):
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        logits = torch.nn.functional.one_hot(torch.from_numpy(prediction).long(), CLASSES).permute(2, 0, 1)
        evaluator.process([{"file_name": str(number)}], [{"sem_seg": logits}])
    theirs, ours = evaluator.evaluate()["sem_seg"], scores_of(pairs)
    for name, value in (
        ("mIoU", ours.miou),
        ("fwIoU", ours.frequency_weighted_iou),
        ("mACC", ours.mean_accuracy),
        ("pACC", ours.pixel_accuracy),
    ):
        assert 100 * value == pytest.approx(theirs[name], abs=1e-9)
    of_truth = scores_of(pairs, "truth").per_class
    assert 100 * of_truth == pytest.approx(
        [theirs[f"IoU-{n}"] for n in range(CLASSES)], abs=1e-9, nan_ok=True
    )


TYPES = (np.uint8, np.int32, np.uint16, np.int64)
TYPES_AND_IGNORED = [
    (kind, ignore)
    for kind in TYPES
    for ignore in (255, 3, 65535, -1)
    if np.iinfo(kind).min <= ignore <= np.iinfo(kind).max
]


@pytest.mark.parametrize("kind, ignore", TYPES_AND_IGNORED)
def test_every_type_counts_alike(kind: type, ignore: int):
    prediction, mask = random_maps("all classes")[3]
    mask = mask.astype(kind)
    mask[mask == 255] = ignore
    expected = np.zeros((CLASSES, CLASSES), np.int64)
    for predicted, true in zip(prediction.ravel(), mask.ravel(), strict=True):
        if true != ignore:
            expected[true, predicted] += 1
    for predicted in (prediction, prediction.astype(np.int64)):
        assert np.array_equal(count_image(predicted, mask, CLASSES, ignore), expected)


def test_255_and_256_classes():
    for classes in (255, 256):
        mask = np.arange(255, dtype=np.uint8)[None]
        counts = count_image(mask, mask, classes)
        assert np.array_equal(np.diagonal(counts)[:255], np.ones(255)) and counts.sum() == 255


def test_nothing_counted_is_no_number():
    scores = SegmentationScores.from_counts(np.zeros((3, 3), np.int64))
    assert all(np.isnan([scores.miou, scores.pixel_accuracy, scores.mean_accuracy]))
    assert np.isnan(scores.frequency_weighted_iou)
    assert not ConfusionMatrix(3).add(np.zeros((0, 4), int), np.zeros((0, 4), np.uint8)).any()


@pytest.mark.parametrize(
    "prediction, mask, message",
    [
        ([[0, 3]], [[0, 1]], r"a prediction holds value 3 \(1 pixel\); classes are 0 to 2"),
        ([[0, -1]], [[0, 1]], "a prediction holds value -1"),
        ([[0, 1]], [[0, 9]], r"a mask holds value 9 \(1 pixel\); classes are 0 to 2, ignored is 255"),
        ([[0, 1, 2]], [[0, 1]], "resize the prediction to the mask"),
        ([[0.0, 1.0]], [[0, 1]], "integers are needed"),
    ],
)
def test_what_cannot_be_counted(prediction: list, mask: list, message: str):
    with pytest.raises(UserError, match=message):
        count_image(np.array(prediction), np.array(mask, np.uint8), 3)
    if "mask holds" in message:
        with pytest.raises(UserError, match="a mask holds value 9"):
            count_image(np.array(prediction), np.array(mask, np.int64), 3)


def test_counts_of_images_add_up_and_are_read_back():
    matrix, images = ConfusionMatrix(CLASSES), PerImageCounts(CLASSES)
    for prediction, mask in random_maps("an empty image"):
        images.add(matrix.add(prediction, mask))
    assert len(images) == 4 and images.ends[3] == images.ends[2]
    read = PerImageCounts.from_arrays(images.arrays())
    for counts in (images, read):
        assert vars(counts.scores())["miou"] == SegmentationScores.from_counts(matrix.counts).miou
        assert np.array_equal(counts.areas()[2], matrix.counts.sum(axis=1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ends": np.array([0, 5, 3])}, "do not divide"),
        ({"class": np.array([99], np.uint16)}, "holds intersection"),
        ({"truth": np.zeros(28, np.int64)}, "no image can have"),
        ({"intersection": None}, "no array intersection"),
    ],
)
def test_damaged_arrays_of_counts(change: dict, message: str):
    images = PerImageCounts(CLASSES)
    for prediction, mask in random_maps("all classes"):
        images.add(count_image(prediction, mask, CLASSES))
    arrays = {name: array for name, array in (images.arrays() | change).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        PerImageCounts.from_arrays(arrays)


def test_memory_of_counts_grows_by_what_images_show():
    images = PerImageCounts(150)
    counts = np.zeros((150, 150), np.int64)
    counts[:12, :12] = 40
    for _ in range(50):
        images.add(counts)
    assert images.entries.nbytes == 50 * 12 * 26  # 20,000 such images take 6 MB, of all 150 classes 78 MB
