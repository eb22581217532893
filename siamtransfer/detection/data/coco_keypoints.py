"""Keypoints in COCO's format (cocodataset.org/#format-data): three numbers a point, x, y and visibility.

A category lists the names of its keypoints and, as a drawing aid, which are joined (`skeleton`, counted from
1). COCO names no pairs that a mirrored image swaps; they follow from `left` and `right` in the names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from siamtransfer.detection.data.dataset_split import ImageRecord, Skeleton
from siamtransfer.detection.data.entries import numbers_of, shown
from siamtransfer.detection.data.near_image import far
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few

PERSON = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip
"""The keypoints of COCO's persons, in their order; pycocotools knows the sigmas of these."""
UNLABELLED, VISIBILITIES = 0, (0, 1, 2)
PIXEL_CENTRE = 0.5
"""Added to x and y of an annotation, which count pixels, as Detectron2 does on reading."""


def read_skeleton(categories: list[dict[str, Any]], where: str) -> Skeleton:
    """The keypoints that all categories of a file share; `where` names the file in messages.

    Raises:
        UserError: a category lists none, or two list different ones, a name occurs twice, or a pair of the
            skeleton is none.
    """
    lists = [category.get("keypoints") for category in categories]
    for category, names in zip(categories, lists, strict=True):
        label = category.get("name", category.get("id"))
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise UserError(
                f"the category {label!r} in {where} has no list of names 'keypoints'; give a file of COCO's "
                "keypoints (person_keypoints_….json), or append MODEL.KEYPOINT_ON False"
            )
        if names != lists[0]:
            raise UserError(
                f"the category {label!r} in {where} has other keypoints than {categories[0].get('name')!r}; "
                "a model has one list of keypoints for all classes, so make a file for each"
            )
    names = tuple(lists[0] or ())
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where} has several keypoints called {twice[0]!r}; give each its own name")
    edges = categories[0].get("skeleton") or []
    for edge in edges if isinstance(edges, list) else [edges]:
        if not (
            isinstance(edge, list)
            and len(edge) == 2
            and all(type(end) is int and 1 <= end <= len(names) for end in edge)
        ):
            raise UserError(
                f"the skeleton in {where} joins {shown(edge)}; a pair is two numbers from 1 to {len(names)}"
            )
    return Skeleton(names, _flip_pairs(names, where), tuple((a - 1, b - 1) for a, b in edges))


def _flip_pairs(names: tuple[str, ...], where: str) -> tuple[tuple[str, str], ...]:
    """The pairs (left, right) that differ in these words only."""
    pairs = []
    for name in names:
        if "left" in name:
            other = name.replace("left", "right")
            if other not in names:
                raise UserError(
                    f"{where} has the keypoint {name!r} and not {other!r}, with which a mirrored image swaps "
                    "it; give both sides, or a name without 'left'"
                )
            pairs.append((name, other))
    partners = {right for _, right in pairs}
    if alone := [name for name in names if "right" in name and name not in partners]:
        raise UserError(
            f"{where} has the keypoint {alone[0]!r} and not {alone[0].replace('right', 'left')!r}, with "
            "which a mirrored image swaps it; give both sides, or a name without 'right'"
        )
    return tuple(pairs)


def read_keypoints(
    item: dict[str, Any], skeleton: Skeleton, size: tuple[int, int], subject: str
) -> dict[str, Any]:
    """`keypoints`, float64[3 K] with the pixel's centre added, and `num_keypoints` of an annotation.

    `num_keypoints` is the number of labelled points; one that the file states is not read. size: height and
    width of the image; subject: the annotation in messages.

    Raises:
        UserError: names the annotation and what is wrong with its numbers.
    """
    count, values = len(skeleton.names), item.get("keypoints")
    numbers = numbers_of(values) if isinstance(values, list) else None
    if numbers is None:
        raise UserError(
            f"{subject} has no list of numbers 'keypoints', but {shown(values)}; mend the annotation or take "
            "it out"
        )
    if len(numbers) != 3 * count:
        raise UserError(
            f"{subject} has {len(numbers)} numbers of keypoints, not {3 * count}, three for each of "
            f"{first_few(list(skeleton.names))}; mend the annotation or take it out"
        )
    points = numbers.reshape(-1, 3)
    labelled = points[:, 2] != UNLABELLED
    finite, odd = (
        np.isfinite(points[:, :2]).all(axis=1),
        far(points[:, :2], np.array([size[::-1]])).any(axis=1),
    )
    wrong = np.flatnonzero(~np.isin(points[:, 2], VISIBILITIES) | ~finite | (odd & labelled))
    if wrong.size:
        (x, y, visibility), name = points[wrong[0]], skeleton.names[wrong[0]]
        if visibility not in VISIBILITIES:
            what = f"with the visibility {visibility:g}; take 0 (not labelled), 1 (covered) or 2"
        else:
            off = f"far from its image of {size[1]} x {size[0]} pixels" if finite[wrong[0]] else "not a place"
            what = f"at {x:g}, {y:g}, {off}; mend the annotation"
        raise UserError(f"{subject} has the keypoint {name!r} {what}")
    points[:, :2] += PIXEL_CENTRE
    return {"keypoints": points.ravel(), "num_keypoints": int(labelled.sum())}


def keypoint_oddities(records: list[ImageRecord], skeleton: Skeleton) -> list[str]:
    """Oddities that stop no training, one sentence each.

    Raises:
        UserError: no keypoint is labelled in any image.
    """
    objects = [
        (record, item)
        for record in records
        for item in record["annotations"]
        if item["num_keypoints"] and not item["iscrowd"]
    ]
    if not objects:
        raise UserError(
            f"no object has a labelled keypoint ({first_few(list(skeleton.names))}); give a split with some"
        )
    outside = sum(
        v != UNLABELLED and not (0 <= x <= record["width"] and 0 <= y <= record["height"])
        for record, item in objects
        for x, y, v in zip(*(item["keypoints"][k::3] for k in range(3)), strict=True)
    )
    bare = sum(len(record["annotations"]) for record in records) - len(objects)
    oddities = []
    if bare:
        oddities.append(f"{bare} objects have no labelled keypoint: their boxes train, no keypoint counts")
    if outside:
        oddities.append(f"{outside} labelled keypoints lie outside their image: training leaves them out")
    if not skeleton.flips:
        oddities.append(
            "no keypoint has `left` or `right` in its name: a mirrored image keeps the number of each"
        )
    return oddities
