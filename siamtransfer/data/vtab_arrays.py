"""Tasks of the Visual Task Adaptation Benchmark whose images lie in files of arrays (Zhai et al., arXiv
1910.04867): PatchCamelyon (HDF5), dSprites (.npz) and small NORB (its own binary files).

Legend: N images.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import math
import os
import zipfile
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from siamtransfer.data.explain_errors import explain_errors
from siamtransfer.data.imageset import ArrayImages, fingerprint_of_arrays
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.text import printable

PCAM_PARTS = {"train": ("train", "valid"), "test": ("test",)}
DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
DSPRITES_COLUMNS = {"dsprites-orientation": (3, 40), "dsprites-location": (4, 32)}
"""Which latent class is the label (orientation; the x position), and how many values it has."""
DSPRITES_CLASSES = 16
DSPRITES_TRAIN = 0.9
NORB = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
NORB_TYPES: dict[int, np.dtype[Any]] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
_NORB_DIMENSIONS = {"dat": 4, "info": 2}
_MOST_BYTES = 2**29
"""Of an array of NORB; its images have 448 million."""
_DSPRITES_IMAGES = 737_280
_DSPRITES_LATENTS = 6
_PCAM_IMAGES = 2**19
NORB_ELEVATION, NORB_AZIMUTH = 1, 2  # columns of its info files
_AT_A_TIME = 8192  # images that are unpacked at once


class H5Images:
    """Images in the datasets `x`[N, H, W, 3] of HDF5 files, one file after the other, as an ImageSet. A
    process opens a file when it reads the first image of it.

    The fingerprint covers names and sizes of the files, labels and class names.
    """

    def __init__(
        self, name: str, split: str, files: list[Path], labels: list[np.ndarray], classes: tuple[str, ...]
    ):
        self.name, self.split, self.classes = name, split, classes
        self.labels = np.concatenate(labels)
        self.image_size: int | None = 96
        self._files, self._ends = files, np.cumsum([len(part) for part in labels])
        self._opened: dict[tuple[int, int], Any] = {}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal."""
        facts = [f"{file.name} {file.stat().st_size}" for file in self._files]
        return fingerprint_of_arrays(self.labels, text="\n".join([*facts, *self.classes]))

    @property
    def content_fingerprint(self) -> str:
        """The fingerprint, and the times at which the files were last changed."""
        times = [str(file.stat().st_mtime_ns) for file in self._files]
        return fingerprint_of_arrays(text="\n".join([self.fingerprint, *times]))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3]; raises UnreadableImage."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        begin = 0 if number == 0 else int(self._ends[number - 1])
        try:
            return np.asarray(self._pixels(number)[index - begin], dtype=np.uint8)
        except (OSError, KeyError) as error:
            raise UnreadableImage(self.describe(index), str(error)) from error

    def _pixels(self, number: int) -> Any:
        import h5py

        key = os.getpid(), number
        if key not in self._opened:
            self._opened[key] = h5py.File(self._files[number], "r")["x"]
        return self._opened[key]

    def describe(self, index: int) -> str:
        """For example `pcam/test[17]`."""
        return f"{self.name}/{self.split}[{index}]"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}


def open_pcam(root: str | Path, split: str) -> H5Images:
    """PatchCamelyon from the files camelyonpatch_level_2_split_*.h5 in root/pcam; train is train and valid.

    Raises:
        UserError: h5py is not installed, or the files are not there or damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError("pcam's files are HDF5: install the extra hdf5 (pip install h5py)") from error
    folder = Path(root).expanduser().absolute() / "pcam"
    files, labels = [], []
    with explain_errors("pcam", folder.parent, "pcam", downloadable=False):
        for part in PCAM_PARTS[split]:
            images = folder / f"camelyonpatch_level_2_split_{part}_x.h5"
            with h5py.File(images.with_name(images.name.replace("_x.h5", "_y.h5")), "r") as targets:
                labels.append(_labels_of_pcam(targets["y"]))
            with h5py.File(images, "r") as file:
                if file["x"].shape != (len(labels[-1]), 96, 96, 3) or file["x"].dtype != np.uint8:
                    raise ValueError("images and labels do not fit")
            files.append(images)
    return H5Images("pcam", split, files, labels, ("no tumour", "tumour"))


def _labels_of_pcam(targets: Any) -> np.ndarray:
    """int64[N] of an HDF5 dataset, whose size is looked at before it is read.

    Raises:
        ValueError: they are no labels of tumours.
    """
    if targets.dtype.kind not in "iu" or not 0 < targets.size <= _PCAM_IMAGES:
        raise ValueError("its labels are none")
    labels = np.asarray(targets, dtype=np.int64).reshape(-1)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("its labels are neither 0 nor 1")
    return labels


class PackedImages:
    """Black and white images, a bit a pixel, as an ImageSet of grey values 0 and 255 in three channels.

    `bits` is uint8[M, H, W / 8]; `indices` int64[N] of these are the set.
    """

    def __init__(self, name: str, split: str, bits: np.ndarray, indices: np.ndarray, labels: np.ndarray):
        self.name, self.split = name, split
        self.classes = tuple(str(label) for label in range(DSPRITES_CLASSES))
        self.labels = labels[indices]
        self.image_size: int | None = int(bits.shape[1])
        self._bits, self._indices = bits, indices

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all pixels, the indices and the labels."""
        return fingerprint_of_arrays(self._bits, self._indices, self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[H,W,3]."""
        grey = 255 * np.unpackbits(self._bits[self._indices[index]], axis=1)
        return np.repeat(grey[..., None], 3, axis=2)

    def describe(self, index: int) -> str:
        """With the number of the image in the file, for example `dsprites-location[17]`."""
        return f"{self.name}[{self._indices[index]}]"


def open_dsprites(name: str, root: str | Path, split: str) -> PackedImages:
    """dSprites from its .npz in `root` or root/dsprites: orientation or x position in 16 bins. 90 % of the
    images, by the SHA-256 of their numbers, are train.

    Raises:
        UserError: the file is not there, or damaged.
    """
    folder = Path(root).expanduser().absolute()
    path = folder / DSPRITES
    if (folder / "dsprites" / DSPRITES).is_file():
        path = folder / "dsprites" / DSPRITES
    with explain_errors(name, path.parent, DSPRITES, downloadable=False):
        bits, latents = _read_dsprites(str(path), path.stat().st_mtime_ns)
    column, values = DSPRITES_COLUMNS[name]
    if latents[:, column].min() < 0 or latents[:, column].max() >= values:
        raise UserError(f"{name}: {printable(path)} has latent classes beyond its {values}; get it again")
    labels = latents[:, column] * DSPRITES_CLASSES // values
    numbers = range(len(labels))
    order = np.argsort([hashlib.sha256(str(number).encode()).digest()[:8] for number in numbers])
    end = round(DSPRITES_TRAIN * len(labels))
    chosen = order[:end] if split == "train" else order[end:]
    return PackedImages(name, f"{split}-drawn", bits, np.sort(chosen), labels)


@functools.lru_cache(maxsize=1)
def _read_dsprites(path: str, changed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits uint8[N, 64, 8] of the images and their latent classes int64[N, 6]. The images are 3 GB, so they
    are packed as they are read."""
    packed = []
    with zipfile.ZipFile(path) as archive:
        with archive.open("latents_classes.npy") as file:
            shape, dtype = _header_of(file)
        if shape[1:] != (_DSPRITES_LATENTS,) or dtype.kind not in "iu":
            raise ValueError("its latent classes are none")
        with archive.open("latents_classes.npy") as file:
            latents = np.lib.format.read_array(file, allow_pickle=False).astype(np.int64)
    with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
        shape, dtype = _header_of(file)
        if shape != (len(latents), 64, 64) or dtype != np.uint8:
            raise ValueError("images and latent classes do not fit")
        each = shape[1] * shape[2]
        for begin in range(0, shape[0], _AT_A_TIME):
            count = min(_AT_A_TIME, shape[0] - begin)
            pixels = np.frombuffer(file.read(count * each), np.uint8).reshape(count, *shape[1:])
            packed.append(np.packbits(pixels, axis=2))
    return np.concatenate(packed), latents


def _header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array that begins in `file`; ValueError for one that dSprites does not have."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran or not shape or not 0 < shape[0] <= _DSPRITES_IMAGES:
        raise ValueError("an array is of another size or order")
    return shape, dtype


def open_smallnorb(name: str, root: str | Path, split: str) -> ArrayImages:
    """Small NORB's images of the left camera, from its files *-dat.mat and *-info.mat (or .mat.gz) in `root`
    or root/smallnorb, labelled by azimuth (18 classes) or elevation (9). The splits are the published ones,
    of other toys.

    Raises:
        UserError: the files are not there, or damaged.
    """
    folder = Path(root).expanduser().absolute()
    folder = folder / "smallnorb" if (folder / "smallnorb").is_dir() else folder
    with explain_errors(name, folder, f"{NORB[split]}-dat.mat", downloadable=False):
        pixels, info = (
            _read_norb(folder / f"{NORB[split]}-{kind}.mat", dimensions)
            for kind, dimensions in _NORB_DIMENSIONS.items()
        )
        if len(pixels) != len(info) or pixels.dtype != np.uint8 or info.shape[1] <= NORB_AZIMUTH:
            raise ValueError("images and labels do not fit")
    if name == "smallnorb-azimuth":
        labels, classes = info[:, NORB_AZIMUTH] // 2, [f"{20 * n} degrees" for n in range(18)]
    else:
        labels, classes = info[:, NORB_ELEVATION], [f"{30 + 5 * n} degrees" for n in range(9)]
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{name}: {printable(folder)} has labels from {labels.min()} to {labels.max()}, and there are "
            f"{len(classes)} classes; unpack the files again"
        )
    return ArrayImages(name, split, pixels[:, 0], labels, classes)


def _read_norb(path: Path, dimensions: int) -> np.ndarray:
    """An array in NORB's format: a magic number for the type, the number of dimensions, at least three
    dimensions, and the numbers, all little-endian. Its sizes are looked at before its numbers are read.

    Raises:
        ValueError: it is none, or of another number of dimensions.
    """
    path = path if path.is_file() else path.with_name(path.name + ".gz")
    refuse_special(path)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        magic, stated = np.frombuffer(file.read(8), "<i4", 2)
        sizes = np.frombuffer(file.read(4 * max(3, dimensions)), "<i4").tolist()
        shape, kind = tuple(sizes[:dimensions]), NORB_TYPES[int(magic)]
        size = math.prod(shape) * kind.itemsize
        if stated != dimensions or len(shape) != dimensions or min(shape) < 1 or size > _MOST_BYTES:
            raise ValueError(f"its shape is {shape}")
        content = file.read(size + 1)
    return np.frombuffer(content, kind).reshape(shape)
