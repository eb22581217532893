"""Scores of semantic segmentation from counts of pixels: mIoU and its relatives.

The measures are those of Long, Shelhamer and Darrell (arXiv 1411.4038, section 5) over one confusion matrix
of all pixels of a set. A pixel whose truth is ignored counts nowhere, whatever was predicted there.

Legend: H and W pixels, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few

ABSENT_RULES = ("union", "truth")
AREAS = ("intersection", "prediction", "truth")
_ENTRY = np.dtype([("class", np.uint16), *[(name, np.int64) for name in AREAS]])
_BYTE = 256


class ConfusionMatrix:
    """Counts of pixels by true and predicted class.

    Attributes:
        classes: C.
        counts: int64[C, C], rows the truth, columns the prediction.
    """

    def __init__(self, classes: int):
        if classes < 1:
            raise UserError(f"a confusion matrix needs at least one class, not {classes}")
        self.classes = classes
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, prediction: np.ndarray, mask: np.ndarray, ignore: int = 255) -> np.ndarray:
        """Adds the pixels of an image and returns their counts alone, int64[C, C].

        Args:
            prediction: integers[H, W], classes from 0 to C - 1; its values at ignored pixels have to be in
                this range too.
            mask: uint8[H, W] or another type of integers, the true classes and `ignore`.

        Raises:
            UserError: the shapes differ, or there is a value that is neither a class nor `ignore`.
        """
        counts = count_image(prediction, mask, self.classes, ignore)
        self.counts += counts
        return counts


def count_image(prediction: np.ndarray, mask: np.ndarray, classes: int, ignore: int = 255) -> np.ndarray:
    """int64[C, C], rows the truth: see `ConfusionMatrix.add`."""
    if prediction.shape != mask.shape:
        raise UserError(
            f"a prediction of {list(prediction.shape)} pixels was made for a mask of {list(mask.shape)}; "
            "resize the prediction to the mask"
        )
    if not mask.size:
        return np.zeros((classes, classes), np.int64)
    refuse_values(prediction, classes)
    narrow = mask.dtype == np.uint8 and classes <= ignore < _BYTE
    rows = _BYTE if narrow else classes + 1
    pairs = (
        _narrow_pairs(prediction, mask, classes) if narrow else _wide_pairs(prediction, mask, classes, ignore)
    )
    counts = np.bincount(pairs.ravel(), minlength=rows * classes).reshape(rows, classes)
    if narrow:
        _refuse_rows(counts, classes, ignore)
    return counts[:classes].copy()  # a view would keep the rows that are no class in memory


def _narrow_pairs(prediction: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """uint16[H, W]: truth * C + prediction, of a mask in bytes; half the time of arithmetic in int64."""
    pairs = np.multiply(mask, np.uint16(classes), dtype=np.uint16)
    pairs += prediction.astype(np.uint16, copy=False)
    return pairs


def _wide_pairs(prediction: np.ndarray, mask: np.ndarray, classes: int, ignore: int) -> np.ndarray:
    """int64[H, W]: the same of any mask; an ignored pixel has the truth C."""
    truth = mask.astype(np.int64)
    ignored = truth == ignore
    truth[ignored] = classes
    refuse_values(truth[~ignored], classes, "a mask")
    return truth * classes + prediction


def refuse_values(values: np.ndarray, classes: int, what: str = "a prediction") -> None:
    """Raises UserError for values that are no integers from 0 to C - 1; names them with their counts."""
    if values.dtype.kind not in "iub":
        raise UserError(f"{what} of type {values.dtype} was given; integers are needed")
    if not values.size:
        return
    low, high = (0 if values.dtype.kind in "ub" else int(values.min())), int(values.max())
    if low < 0 or high >= classes:
        wrong = values[(values < 0) | (values >= classes)]
        found, counts = np.unique(wrong, return_counts=True)
        named = named_counts(found.tolist(), counts.tolist())
        raise UserError(f"{what} holds {named}; classes are 0 to {classes - 1}")


def _refuse_rows(counts: np.ndarray, classes: int, ignore: int) -> None:
    """Raises UserError where counts[256, C] have pixels in a row that is neither a class nor ignored."""
    pixels = counts.sum(axis=1)
    pixels[:classes] = pixels[ignore] = 0
    values = np.flatnonzero(pixels)
    if len(values):
        named = named_counts(values.tolist(), pixels[values].tolist())
        raise UserError(f"a mask holds {named}; classes are 0 to {classes - 1}, ignored is {ignore}")


def named_counts(values: Sequence[int], counts: Sequence[int]) -> str:
    """Values with their counts in words, such as `value 7 (12 pixels), value 9 (1 pixel)`."""
    return first_few(
        [f"value {v} ({n:,} pixel{'s' * (n != 1)})" for v, n in zip(values, counts, strict=True)]
    )


@dataclass(frozen=True, eq=False)
class SegmentationScores:
    """The scores of a confusion matrix, each a fraction from 0 to 1; NaN where nothing was counted.

    Attributes:
        miou: the mean over classes of the intersection over union.
        pixel_accuracy: the fraction of pixels that are right.
        mean_accuracy: the mean over the classes of the truth of the fraction of their pixels that are right.
        frequency_weighted_iou: the mean intersection over union, weighted by the pixels of the truth.
        per_class: float64[C], the intersection over union; NaN for a class that is left out of the mean.
        accuracies: float64[C], the fraction of the pixels of a class that are right; NaN without any.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    per_class: np.ndarray
    accuracies: np.ndarray

    @classmethod
    def from_counts(cls, counts: np.ndarray, absent: str = "union") -> SegmentationScores:
        """Scores of counts[C, C], rows the truth.

        Args:
            absent: which classes the mean leaves out: `union` those that are in neither the truth nor the
                prediction (as torchmetrics and Detectron2 0.6 do), `truth` those that are not in the truth,
                whatever was predicted (as Detectron2 does after release 0.6). The two differ where a class is
                predicted that no pixel has: it counts as 0, or not at all.
        """
        counts = np.asarray(counts)
        return cls.from_areas(np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1), absent)

    @classmethod
    def from_areas(
        cls, intersection: np.ndarray, prediction: np.ndarray, truth: np.ndarray, absent: str = "union"
    ) -> SegmentationScores:
        """Scores of the pixels[C] of each class that are right, predicted and true."""
        right, total = float(intersection.sum()), float(truth.sum())
        iou = intersection_over_union(intersection, prediction, truth, absent)
        accuracies = _ratio(intersection, truth)
        return cls(
            miou=float(mean_of_present(iou)),
            pixel_accuracy=right / total if total else float("nan"),
            mean_accuracy=float(mean_of_present(accuracies)),
            frequency_weighted_iou=float(np.nansum(iou * truth) / total) if total else float("nan"),
            per_class=iou,
            accuracies=accuracies,
        )


def intersection_over_union(
    intersection: np.ndarray, prediction: np.ndarray, truth: np.ndarray, absent: str = "union"
) -> np.ndarray:
    """float64[..., C] of areas[..., C]; NaN for a class that `absent` leaves out (see `from_counts`)."""
    if absent not in ABSENT_RULES:
        raise UserError(f"the rule for absent classes is {' or '.join(ABSENT_RULES)}, not {absent!r}")
    iou = _ratio(intersection, prediction + truth - intersection)
    return np.where(truth > 0, iou, np.nan) if absent == "truth" else iou


def mean_of_present(values: np.ndarray) -> np.ndarray:
    """float64[...]: the mean of values[..., C] without NaN; NaN where all are."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


class PerImageCounts:
    """The pixels of every image that are right, predicted and true, by class; only of classes that occur.

    Intervals by resampling images need no more than these, which are 26 bytes for a class that an image shows
    or is predicted to show.

    Attributes:
        classes: C.
    """

    def __init__(self, classes: int):
        if not 1 <= classes <= 2**16:
            raise UserError(f"counts of images need 1 to {2**16} classes, not {classes}")
        self.classes = classes
        self._images: list[np.ndarray] = []
        self._ends = [0]

    def __len__(self) -> int:
        """N, the images so far."""
        return len(self._ends) - 1

    def add(self, counts: np.ndarray) -> None:
        """Adds the next image by its counts[C, C], rows the truth, as `ConfusionMatrix.add` returns them."""
        prediction, truth = counts.sum(axis=0), counts.sum(axis=1)
        present = np.flatnonzero(prediction + truth)
        image = np.empty(len(present), _ENTRY)
        image["class"] = present
        image["intersection"] = np.diagonal(counts)[present]
        image["prediction"], image["truth"] = prediction[present], truth[present]
        self._images.append(image)
        self._ends.append(self._ends[-1] + len(image))

    @property
    def entries(self) -> np.ndarray:
        """Records[n] of class, intersection, prediction and truth, image after image, classes rising."""
        if len(self._images) != 1:
            self._images = [np.concatenate([np.empty(0, _ENTRY), *self._images])]
        return self._images[0]

    @property
    def ends(self) -> np.ndarray:
        """int64[N + 1]: image i has the entries from ends[i] to ends[i + 1]."""
        return np.array(self._ends, np.int64)

    def areas(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64[C] each: the pixels of all images that are right, predicted and true."""
        sums = []
        for name in AREAS:
            total = np.zeros(self.classes, np.int64)
            np.add.at(total, self.entries["class"].astype(np.int64), self.entries[name])
            sums.append(total)
        return sums[0], sums[1], sums[2]

    def scores(self, absent: str = "union") -> SegmentationScores:
        """The scores of all images together."""
        return SegmentationScores.from_areas(*self.areas(), absent)

    def arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays to write into an .npz, from which `from_arrays` makes the same counts."""
        columns = {name: np.ascontiguousarray(self.entries[name]) for name in ("class", *AREAS)}
        return {"classes": np.array(self.classes), "ends": self.ends, **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> PerImageCounts:
        """Counts of what `arrays` returned.

        Raises:
            ValueError: an array is missing, or they contradict each other; the message says which.
        """
        if missing := [name for name in ("classes", "ends", "class", *AREAS) if name not in arrays]:
            raise ValueError(f"has no array {missing[0]}")
        ends = np.asarray(arrays["ends"])
        counts = cls(int(arrays["classes"]))
        entries = np.empty(len(arrays["class"]), _ENTRY)
        for name in ("class", *AREAS):
            if arrays[name].shape != entries.shape or arrays[name].dtype.kind not in "iu":
                raise ValueError(f"holds {name}{list(arrays[name].shape)} of type {arrays[name].dtype}")
            entries[name] = arrays[name]
        rising = ends.ndim == 1 and len(ends) and ends[0] == 0 and (np.diff(ends) >= 0).all()
        if not rising or ends[-1] != len(entries):
            raise ValueError(f"holds ends that do not divide its {len(entries)} entries")
        least = np.minimum(entries["prediction"], entries["truth"])
        if (entries["class"] >= counts.classes).any() or (entries["intersection"] > least).any():
            raise ValueError("holds counts that no image can have")
        counts._images, counts._ends = [entries], ends.tolist()
        return counts
