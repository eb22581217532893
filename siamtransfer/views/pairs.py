"""Views of pairs: which view is cut from which column's image, and the data set of such views.

Legend: B samples, K columns, V views.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.views.crop import crop
from siamtransfer.views.dataset import (
    DECODED_AT_ONCE,
    Failure,
    ViewBatch,
    ViewSet,
    augment_batch,
    training_views,
)
from siamtransfer.views.mixing import sample_mix
from siamtransfer.views.random_params import COLUMNS, sample_params, uniforms
from siamtransfer.views.sampler import SampleKey
from siamtransfer.views.view_spec import Recipe

ReadRow = Callable[[int], tuple[list[np.ndarray], list[Failure]]]
"""The number of a row to its K images, and the failures on the way if another row had to replace it."""

_ORDER = 0x70616972  # added to the seed of the views, so that the order is drawn apart from them


@dataclass(frozen=True)
class ColumnRecipe(Recipe):
    """The recipe of pairs whose columns have different channels: that of the first column, and in `columns`
    that of each, with the same views but for what its channels do not have."""

    columns: tuple[Recipe, ...] = ()

    @classmethod
    def of(cls, columns: Sequence[Recipe]) -> ColumnRecipe:
        """The recipe of these columns."""
        own = {field.name: getattr(columns[0], field.name) for field in dataclasses.fields(columns[0])}
        return cls(**own, columns=tuple(columns))

    def describe(self) -> list[str]:
        """The lines of each column's recipe, which name the column from the second on."""
        first, *others = self.columns
        more = (f"column {n}: {line}" for n, own in enumerate(others, 2) for line in own.describe())
        return [*first.describe(), *more]


def column_recipes(recipe: Recipe, columns: int) -> tuple[Recipe, ...]:
    """The recipe of each column."""
    return recipe.columns if isinstance(recipe, ColumnRecipe) else (recipe,) * columns


def recipe_of_view(recipe: Recipe, view: int) -> Recipe:
    """The recipe by which the view of this number from 0 is painted, that of its column."""
    return recipe.columns[view % len(recipe.columns)] if isinstance(recipe, ColumnRecipe) else recipe


def columns_of_views(
    views: int, columns: int, seed: int, epochs: np.ndarray, indices: np.ndarray, *, random: bool
) -> np.ndarray:
    """int64[B,V]: the column that each view of a sample is cut from: the columns in turn, in their order or
    in one drawn for each sample, which is a function of (seed, epoch, index) alone."""
    turn = np.arange(views) % columns
    if not random:
        return np.tile(turn, (len(indices), 1))
    order = uniforms(seed + _ORDER, epochs, indices, columns)[:, :, 0].argsort(axis=1, kind="stable")
    return order[:, turn]


@dataclass(frozen=True)
class _Chunk:
    """Some samples: their rows of images, int64[n] epochs and indices, and int64[n,V] columns of views."""

    rows: list[list[np.ndarray]]
    epochs: np.ndarray
    indices: np.ndarray
    columns: np.ndarray


class PairViewSet(ViewSet):
    """Views of `length` rows of `columns` images each. A row of which one image cannot be read is replaced as
    a whole. With `random` the columns have one number of channels."""

    def __init__(
        self, read_row: ReadRow, recipe: Recipe, seed: int, length: int, *, columns: int, random: bool
    ):
        super().__init__(self._read_first, recipe, seed, length)
        self.read_row, self.random = read_row, random
        self.recipes = column_recipes(recipe, columns)

    def _read_first(self, index: int) -> tuple[np.ndarray, list[Failure]]:
        row, failures = self.read_row(index)
        return row[0], failures

    def __getitems__(self, sample_keys: Sequence[SampleKey]) -> ViewBatch:
        views, count = self.recipe.views, len(self.recipes)
        epochs, indices = np.array(sample_keys, np.int64).reshape(-1, 2).T
        columns = columns_of_views(len(views), count, self.seed, epochs, indices, random=self.random)
        crops = [
            torch.empty(
                len(indices), self.recipes[v % count].channels, view.size, view.size, dtype=torch.uint8
            )
            for v, view in enumerate(views)
        ]
        augmentations = [np.empty((0, len(views), COLUMNS), np.float32)]  # a rank's batch may be empty
        unreadable: list[Failure] = []
        for start in range(0, len(indices), DECODED_AT_ONCE):
            part = slice(start, start + DECODED_AT_ONCE)
            rows = []
            for index in indices[part].tolist():
                row, failures = self.read_row(index)
                rows.append(row)
                unreadable += failures
            chunk = _Chunk(rows, epochs[part], indices[part], columns[part])
            augmentations.append(self._cut(chunk, [each[part] for each in crops]))
        mix = sample_mix(self.recipe, self.seed, epochs, indices)
        index = torch.from_numpy(indices.copy())
        return ViewBatch(crops, np.concatenate(augmentations), index, unreadable, mix)

    def _cut(self, chunk: _Chunk, crops: list[Tensor]) -> np.ndarray:
        """Writes the crops of some samples; returns float32[n,V,P], the numbers of their augmentation."""
        by_column = []
        for column, recipe in enumerate(self.recipes):
            sizes = np.array([row[column].shape[:2] for row in chunk.rows])
            by_column.append(sample_params(recipe, self.seed, chunk.epochs, chunk.indices, sizes))
        for n, row in enumerate(chunk.rows):
            for v, view in enumerate(self.recipe.views):
                column = int(chunk.columns[n, v])
                params = by_column[column]
                flip = bool(params.flip[n, v])
                crop(row[column], params.box[n, v], view.size, view.interpolation, flip, crops[v][n])
        count = len(self.recipes)  # the numbers of a view are those of its own column's recipe
        own = [by_column[v % count].augmentation[:, v] for v in range(len(self.recipe.views))]
        return np.stack(own, axis=1)


def pair_views(
    batch: ViewBatch, recipe: Recipe, device: torch.device | str = "cpu", **how: Any
) -> list[Tensor]:
    """`training_views` of pairs, each view by the recipe of its column. Columns of different channels are not
    mixed: the methods that take them have no targets for mixtures."""
    if not isinstance(recipe, ColumnRecipe):
        return training_views(batch, recipe, device, **how)
    assert recipe.mix is None
    return augmented_columns(batch, recipe, device, **how)


def augmented_columns(
    batch: ViewBatch, recipe: ColumnRecipe, device: torch.device | str = "cpu", **how: Any
) -> list[Tensor]:
    """`augment_batch` of pairs whose columns have different channels."""
    count = len(recipe.columns)
    views: dict[int, Tensor] = {}
    for column, own in enumerate(recipe.columns):
        members = range(column, len(recipe.views), count)
        some = dataclasses.replace(
            batch, crops=[batch.crops[v] for v in members], params=batch.params[:, list(members)]
        )
        part = dataclasses.replace(own, views=tuple(own.views[v] for v in members))
        views |= dict(zip(members, augment_batch(some, part, device, **how), strict=True))
    return [views[v] for v in range(len(recipe.views))]
