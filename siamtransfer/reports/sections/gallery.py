"""The section of single images: the most and the least typical, and those that are predicted wrong.

Legend: N images of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siamtransfer.image_map.image_map import ImageMap
from siamtransfer.reports.answers import collect_answers
from siamtransfer.reports.map_data import Predicted, ShownMap, map_content
from siamtransfer.reports.section import Section
from siamtransfer.reports.sections.map import SCRIPTS
from siamtransfer.reports.sources import Sources
from siamtransfer.utils.text import printable

MOST = 12
"""Images of a row."""


@dataclass(frozen=True)
class Exhibit:
    """An image of the gallery: its number on the map, its name, and lines about it."""

    image: int
    name: str
    lines: tuple[str, ...]

    @property
    def short_name(self) -> str:
        """The name without its folders."""
        return self.name.rpartition("/")[2] or self.name


@dataclass(frozen=True)
class Row:
    """Images that have something in common, which `title` says and `note` explains."""

    title: str
    note: str
    exhibits: tuple[Exhibit, ...]


@dataclass(frozen=True)
class Gallery:
    """The rows of a map; `place` is that of the map in the page."""

    name: str
    place: int
    group: int
    rows: tuple[Row, ...]


def gallery_section(sources: Sources) -> Section | None:
    """The galleries of all maps that the page shows; None where there are none."""
    if not sources.maps:
        return None
    content = map_content(sources, collect_answers(sources))
    galleries = [
        Gallery(shown.name, place, shown.group, tuple(_rows(shown, content.groups[shown.group].predictions)))
        for place, shown in enumerate(content.maps)
    ]
    galleries = [gallery for gallery in galleries if gallery.rows]
    if not galleries:
        return None
    return Section(
        "gallery",
        "Images that stand out",
        "sections/gallery.html",
        {"galleries": galleries},
        scripts=(*SCRIPTS, "gallery.js"),
        styles=("map.css",),
    )


def typical(image_map: ImageMap, most: int = MOST) -> np.ndarray:
    """int64[n]: the most typical image of each class, the most typical first; without classes of all."""
    order = np.argsort(-image_map.typicality, kind="stable")
    order = order[np.isfinite(image_map.typicality[order])]
    if not (image_map.labels >= 0).any():
        return order[:most]
    order = order[image_map.labels[order] >= 0]
    _, firsts = np.unique(image_map.labels[order], return_index=True)
    return order[np.sort(firsts)][:most]


def atypical(image_map: ImageMap, most: int = MOST) -> np.ndarray:
    """int64[n]: the least typical images, the least first."""
    order = np.argsort(image_map.typicality, kind="stable")
    return order[np.isfinite(image_map.typicality[order])][:most]


def worst(labels: np.ndarray, predictions: Sequence[Predicted], most: int = MOST) -> np.ndarray:
    """int64[n]: the images of labels int64[N] that the most of `predictions` have wrong and, of equally many,
    those of which these are surest."""
    wrong = np.stack([each.predicted != labels for each in predictions]) & (labels >= 0)
    sure = [np.zeros(len(labels)) if each.confidences is None else each.confidences for each in predictions]
    count = wrong.sum(axis=0)
    confidence = (np.stack(sure) * wrong).sum(axis=0) / np.maximum(count, 1)
    order = np.lexsort((np.arange(len(labels)), -confidence, -count))
    return order[count[order] > 0][:most]


def of_one_column(predictions: Sequence[Predicted]) -> list[Predicted]:
    """Those of the column that the most backbones have, of equal ones the first."""
    columns = list(dict.fromkeys(each.column for each in predictions))
    by_column = [[each for each in predictions if each.column == column] for column in columns]
    return max(by_column, key=len, default=[])


def _rows(shown: ShownMap, predictions: Sequence[Predicted]) -> list[Row]:
    image_map = shown.map
    classes = bool((image_map.labels >= 0).any())
    whose = "the others of its class" if classes else "all others"
    rows = [
        Row(
            "Most typical" + (" of each class" if classes else ""),
            f"The mean cosine of the image and {whose} is highest.",
            tuple(_exhibit(image_map, int(image), []) for image in typical(image_map)),
        ),
        Row(
            "Least typical",
            f"The mean cosine of the image and {whose} is lowest; look here for wrong labels first.",
            tuple(_exhibit(image_map, int(image), []) for image in atypical(image_map)),
        ),
    ]
    compared = of_one_column(predictions)
    if compared:
        images = worst(image_map.labels, compared)
        backbones = "1 backbone" if len(compared) == 1 else f"{len(compared)} backbones"
        rows.insert(
            0,
            Row(
                "Worst mistakes",
                f"{compared[0].column}, {backbones}: first what most of them have wrong, then the surest.",
                tuple(_exhibit(image_map, int(image), compared) for image in images),
            ),
        )
    return [row for row in rows if row.exhibits]


def _exhibit(image_map: ImageMap, image: int, predictions: Sequence[Predicted]) -> Exhibit:
    label = int(image_map.labels[image])
    lines = [f"class {_class(image_map, label)}"] if label >= 0 else []
    if predictions:
        lines += _mistakes(image_map, image, label, predictions)
    elif np.isfinite(image_map.typicality[image]):
        lines.append(f"mean cosine {image_map.typicality[image]:.3f}")
    return Exhibit(image, image_map.names[image], tuple(lines))


def _mistakes(image_map: ImageMap, image: int, label: int, predictions: Sequence[Predicted]) -> list[str]:
    """What the image is taken for, the most frequent first, by how many backbones and how sure."""
    wrong = [each for each in predictions if each.predicted[image] != label]
    by_class: dict[int, list[Predicted]] = {}
    for each in wrong:
        by_class.setdefault(int(each.predicted[image]), []).append(each)
    lines = []
    for guess, by in sorted(by_class.items(), key=lambda entry: -len(entry[1])):
        sure = [float(each.confidences[image]) for each in by if each.confidences is not None]
        line = f"taken for {_class(image_map, guess)}"
        if len(predictions) > 1:
            line += f" by {len(by)} of {len(predictions)}"
        lines.append(line + (f", {100 * np.mean(sure):.0f} % sure" if sure else ""))
    return lines


def _class(image_map: ImageMap, label: int) -> str:
    names = image_map.class_names
    return printable(names[label]) if 0 <= label < len(names) else f"class {label}"
