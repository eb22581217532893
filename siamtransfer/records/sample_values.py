"""What is kept of a measurement that is a mean over samples: the value of every sample, for each setting.

The Jaccard index of images, the average precision of queries and the like: the metric is the mean of the
values, and two backbones are compared by the mean of the differences. Errors, such as those of depth in
metres, are kept beside them: the lower is better, and they have no upper end.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from siamtransfer.utils.files import atomic_write

SAMPLES, END, ERRORS_END = "samples", "/values", "/errors"
"""The array of the samples, and the ends of the names of the settings': `SETTING/values`,
`SETTING/errors`."""
GROUPS = "groups"
"""The array of the groups, if the samples have some."""
SIDES = "sides"
"""The array of the sides, if the samples have some."""


@dataclass(eq=False)
class SampleValues:
    """The values of all samples for every setting.

    Attributes:
        samples: int64[N], the number of each sample in its set; no two are equal.
        settings: by name float64[N], from 0 to 1; the metric is 100 times the mean. Of errors, from 0; the
            metric is the mean. A sample that does not count in a setting (a query without an answer) has NaN
            there.
        errors: the names of the settings that are errors, of which the lower is better.
        groups: int64[N], the number of the group of each sample where samples depend on each other, such as
            the objects of one video; intervals then resample groups. None where samples are independent.
        sides: int64[N], which of two samples that were drawn apart each belongs to, where a value compares
            it with all of the other side, as the known and the unknown images of an AUROC. Both sides have
            the same mean. None where there is one side.

    Raises:
        ValueError: there is no setting or no sample, or shapes, types or values do not fit; the message is
            the rest of a sentence that begins with the file's name.
    """

    samples: np.ndarray
    settings: dict[str, np.ndarray]
    errors: frozenset[str] = frozenset()
    groups: np.ndarray | None = None
    sides: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.settings or not len(self.samples):
            raise ValueError("holds no values of samples")
        if self.samples.ndim != 1 or self.samples.dtype.kind not in "iu":
            raise ValueError(f"holds samples{list(self.samples.shape)} of type {self.samples.dtype}")
        if len(np.unique(self.samples)) != len(self.samples):
            raise ValueError("holds a sample twice")
        for name, values in self.settings.items():
            if values.shape != self.samples.shape or values.dtype.kind != "f":
                raise ValueError(
                    f"holds {name}{self._end(name)}{list(values.shape)} of type {values.dtype}; "
                    f"floating-point numbers {list(self.samples.shape)} are needed"
                )
            counted = values[~np.isnan(values)]
            if not (len(counted) and np.isfinite(counted).all() and counted.min() >= 0):
                raise ValueError(f"holds {name}{self._end(name)} that are not all finite and from 0")
            if name not in self.errors and counted.max() > 1:
                raise ValueError(f"holds {name}{END} that are not all from 0 to 1")
        if self.groups is not None:
            if self.groups.shape != self.samples.shape or self.groups.dtype.kind not in "iu":
                raise ValueError(f"holds {GROUPS}{list(self.groups.shape)} of type {self.groups.dtype}")
            self.groups = self.groups.astype(np.int64)
        if self.sides is not None:
            if self.sides.shape != self.samples.shape or self.sides.dtype.kind not in "iu":
                raise ValueError(f"holds {SIDES}{list(self.sides.shape)} of type {self.sides.dtype}")
            self.sides = self.sides.astype(np.int64)
        self.samples = self.samples.astype(np.int64)
        self.settings = {name: values.astype(np.float64) for name, values in self.settings.items()}

    def __len__(self) -> int:
        """N."""
        return len(self.samples)

    def counted(self, setting: str) -> int:
        """How many samples count in a setting."""
        return int((~np.isnan(self.settings[setting])).sum())

    @property
    def numbered_groups(self) -> np.ndarray:
        """int64[N]: the groups; where there are none, every sample is one."""
        return self.samples if self.groups is None else self.groups

    def independent(self, setting: str) -> np.ndarray:
        """float64[N]: values whose mean is that of the setting, and whose scatter is what another draw of all
        samples changes in it. They are the values themselves where there are no sides. Of two sides each adds
        the variance of its own mean (DeLong et al. 1988), so the smaller weighs more."""
        values = self.settings[setting]
        if self.sides is None:
            return values
        counted = ~np.isnan(values)
        mean, weighted = values[counted].mean(), np.full_like(values, np.nan)
        for side in np.unique(self.sides[counted]):
            own = counted & (self.sides == side)
            weighted[own] = mean + (values[own] - values[own].mean()) * counted.sum() / own.sum()
        return weighted

    def _end(self, name: str) -> str:
        return ERRORS_END if name in self.errors else END

    def write(self, path: str | Path) -> None:
        """Writes an .npz atomically; equal values make equal bytes."""
        with atomic_write(path) as file:
            self.save(file)

    def save(self, file: IO[bytes]) -> None:
        """Writes the same arrays into an open file."""
        named = {name + self._end(name): values for name, values in self.settings.items()}
        arrays = {SAMPLES: self.samples} | named
        if self.groups is not None:
            arrays[GROUPS] = self.groups
        if self.sides is not None:
            arrays[SIDES] = self.sides
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SampleValues:
        """The values in the arrays of a file that `write` wrote; raises ValueError, see the class."""
        settings: dict[str, np.ndarray] = {}
        errors: set[str] = set()
        for key, array in arrays.items():
            if key.endswith((END, ERRORS_END)):
                name = key.removesuffix(END).removesuffix(ERRORS_END)
                settings[name] = array
                errors |= {name} if key.endswith(ERRORS_END) else set()
        samples = arrays.get(SAMPLES, np.zeros(0, np.int64))
        return cls(samples, settings, frozenset(errors), arrays.get(GROUPS), arrays.get(SIDES))


def is_of_values(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays come from a file of values of samples."""
    return SAMPLES in arrays or any(key.endswith((END, ERRORS_END)) for key in arrays)


def sample_difference(first: SampleValues, second: SampleValues) -> str | None:
    """How the samples of two differ, in words; None where they are the same in the same order."""
    if len(first) != len(second):
        return f"they scored {len(first)} and {len(second)} samples"
    differing = np.flatnonzero(first.samples != second.samples)
    if len(differing):
        at = differing[0]
        return f"row {at} is sample {first.samples[at]} in the first and {second.samples[at]} in the second"
    if not np.array_equal(first.numbered_groups, second.numbered_groups):
        return "their samples belong to other groups"
    ours, theirs = (np.zeros(0) if kept.sides is None else kept.sides for kept in (first, second))
    if not np.array_equal(ours, theirs):
        return "their samples belong to other sides, such as known and unknown images"
    for name in (name for name in first.settings if name in second.settings):
        counted = [np.isnan(kept.settings[name]) for kept in (first, second)]
        differing = np.flatnonzero(counted[0] != counted[1])
        if len(differing):
            return f"sample {first.samples[differing[0]]} counts in only one of them for {name}"
    return None
