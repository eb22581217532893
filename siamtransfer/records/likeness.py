"""When two measurements measured the same in the same way, so that their numbers may stand side by side.

`refuse_unlike` says it of two records with their predictions; for many, records whose `protocol_key` and
`truth_key` are equal are alike.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from siamtransfer.records.image_areas import ImageAreas, areas_of_truth, truth_difference
from siamtransfer.records.predictions import Kept, SavedRecord
from siamtransfer.records.sample_values import SampleValues, sample_difference
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten, to_json

BELONGS_TO_WEIGHTS = ("transform.mean", "transform.std", "remarks", "arithmetic")
"""Keys of a protocol that differ with the weights: remarks tell of their features, such as rows of zeros, and
neighbours are searched in float64 where these features' are too near for float32."""
CHOSEN = ("chosen_", "held_out_")
SPELT_IN_SETTING = {"knn": ("k", "temperature", "uniform")}


def refuse_unlike(first: SavedRecord, second: SavedRecord) -> None:
    """Raises UserError, which names the key and both values, unless the two measured the same in the same
    way. These have to be equal:

    - `task`, and every key of `protocol`, except: what belongs to the weights (BELONGS_TO_WEIGHTS); what a
      choice on held-out data gave (names that begin as in CHOSEN; but `chosen_on`, the data of the choice,
      has to be equal); lists of values of which each setting's name has one (SPELT_IN_SETTING);
    - every `..._fingerprint` of provenance, which identifies the images;
    - the labels (or the numbers) of all samples, in their order; of segmented images the pixels of every
      class.

    Feature files have no fingerprint, and their paths, `train` and `test`, belong to the weights. Of those
    only the numbers of samples and the labels show that the images were the same.
    """
    entries = [compared_entries(saved.record) for saved in (first, second)]
    cannot = f"{first.path} and {second.path} cannot be compared, for"
    for key in entries[0] | entries[1]:
        if any(key not in half for half in entries) or entries[0][key] != entries[1][key]:
            values = [repr(half[key]) if key in half else "absent" for half in entries]
            raise UserError(f"{cannot} {key} is {values[0]} in the first and {values[1]} in the second")
    difference = difference_of_truth(first.predictions, second.predictions)
    if difference is not None:
        raise UserError(f"{cannot} {difference}")


def difference_of_truth(first: Kept, second: Kept) -> str | None:
    """How the labels or the masks of two differ, in words; None where they are equal."""
    if isinstance(first, ImageAreas) or isinstance(second, ImageAreas):
        if not (isinstance(first, ImageAreas) and isinstance(second, ImageAreas)):
            return "one of them has areas of images and the other has labels of samples"
        return truth_difference(*(next(iter(kept.settings.values())) for kept in (first, second)))
    if isinstance(first, SampleValues) or isinstance(second, SampleValues):
        if not (isinstance(first, SampleValues) and isinstance(second, SampleValues)):
            return "one of them has values of samples and the other has labels"
        return sample_difference(first, second)
    labels = first.labels, second.labels
    if labels[0].shape != labels[1].shape:
        return f"they scored {list(labels[0].shape)} and {list(labels[1].shape)} labels"
    differing = np.argwhere(labels[0] != labels[1])
    if not len(differing):
        return None
    at = tuple(differing[0])
    return (
        f"{len(differing)} labels differ: that of sample {at[0]} is {labels[0][at]} in the first and "
        f"{labels[1][at]} in the second"
    )


def protocol_key(record: dict[str, Any]) -> str:
    """A digest of all that `refuse_unlike` compares of two records, without their predictions: 16 hexadecimal
    digits, equal where these are."""
    return hashlib.sha256(to_json(compared_entries(record)).encode()).hexdigest()[:16]


def truth_key(kept: Kept, setting: str) -> str:
    """A digest of what is scored against in a setting: labels, the pixels of every class of segmented images,
    or the numbers, groups and sides of the samples that count. 16 hexadecimal digits, equal where
    `difference_of_truth` finds no difference."""
    arrays: tuple[np.ndarray, ...]
    if isinstance(kept, ImageAreas):
        arrays = areas_of_truth(kept.settings[setting])
    elif isinstance(kept, SampleValues):
        arrays = kept.samples, kept.numbered_groups, np.isnan(kept.settings[setting])
        arrays += () if kept.sides is None else (kept.sides,)
    else:
        arrays = (kept.labels,)
    digest = hashlib.sha256(type(kept).__name__.encode())
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def compared_entries(record: dict[str, Any]) -> dict[str, Any]:
    """The entries of a record that `refuse_unlike` compares, by their names in its messages."""
    task, provenance = record["task"], record["provenance"]
    paths = ("train", "test") if "train_digest" in provenance else ()
    exempt = (*BELONGS_TO_WEIGHTS, *SPELT_IN_SETTING.get(task, ()), *paths)
    protocol = {
        f"protocol.{key}": value
        for key, value in flatten(record["protocol"]).items()
        if key not in exempt and (key == "chosen_on" or not key.startswith(CHOSEN))
    }
    data = {f"provenance.{key}": value for key, value in provenance.items() if key.endswith("_fingerprint")}
    return {"task": task} | data | protocol
