"""Images through a frozen backbone: extract(backbone, images) -> features[N, D], in the set's order.

The cache is keyed by content (weights digest, data fingerprint, transform, precision), so new weights under
an old path are never mistaken for the old ones, and it is published by one rename, so it is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.views.crop import centre_crop
from siamtransfer.views.view_spec import Interpolation


class Images(Protocol):
    """What extraction needs of an image set (see siamtransfer.data.imageset)."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Transform:
    """The evaluation transform: shorter side to `resize` (None: not resized), central `crop`, normalise."""

    crop: int
    resize: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"


@dataclass
class Features:
    """features float32[N, D] in the set's order, with labels int64[N] where the set has them (or int64[N, C],
    0 and 1 for each class). Features of a file may stay there: then they are a mapped array of any float
    type."""

    features: Tensor | np.ndarray
    labels: Tensor | None

    @property
    def tensor(self) -> Tensor:
        """The features where they are in memory."""
        assert isinstance(self.features, Tensor)
        return self.features


def evaluation_transform(
    crop: int,
    image_size: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: Interpolation = "bilinear",
) -> Transform:
    """The field's usual transform: shorter side to 8/7 of the crop (256 for 224) and a central crop; sets of
    small square images whose size is the crop are taken as they are."""
    resize = None if image_size == crop else round(crop * 8 / 7)
    return Transform(crop, resize, tuple(mean), tuple(std), interpolation)


def extract(
    backbone: nn.Module,
    images: Images,
    transform: Transform,
    runtime: Runtime,
    *,
    batch: int = 256,
    workers: int = 0,
) -> Tensor:
    """h = f(x) for every image: float32[N, D] on the CPU, the same on every rank.

    The backbone runs in eval mode and is left in the mode it came in; no tensor of it changes. With several
    ranks each takes every world-th image, and no image is counted twice.

    Raises:
        UnreadableImage: evaluation stops at a bad image and names it.
        UserError: a feature is not finite.
    """
    mine = range(runtime.rank, len(images), runtime.world_size)
    loader = DataLoader(
        _Centred(images, mine, transform),
        batch_size=batch,
        num_workers=workers,
        pin_memory=runtime.device.type == "cuda",
    )
    mean = torch.tensor(transform.mean, device=runtime.device).view(1, -1, 1, 1) * 255
    std = torch.tensor(transform.std, device=runtime.device).view(1, -1, 1, 1) * 255
    was_training = backbone.training
    backbone.eval()
    parts: list[Tensor] = []
    try:
        with torch.inference_mode(), runtime.autocast():
            for crops in loader:
                x = (crops.to(runtime.device, non_blocking=True).float() - mean) / std
                parts.append(backbone(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    finally:
        backbone.train(was_training)
    features = collectives.all_gather_rows(torch.cat(parts) if parts else None, len(images), runtime.device)
    if not bool(torch.isfinite(features).all()):
        raise UserError(
            "the backbone gives features that are not finite: its weights are damaged, or "
            f"{runtime.precision} is too narrow for it (try --hardware.precision float32)"
        )
    return features


def pixels(images: Images, transform: Transform, *, workers: int = 0) -> Tensor:
    """The baseline without a network: the central crop's pixels in [0, 1], float32[N, 3 * crop * crop]."""
    loader = DataLoader(_Centred(images, range(len(images)), transform), batch_size=256, num_workers=workers)
    return torch.cat([crops.float().flatten(1) / 255 for crops in loader])


class FeatureCache:
    """Extracted features on disk, one .npy a key, under `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(
        self,
        weights: str,
        fingerprint: str,
        transform: Transform,
        precision: str,
        layers: Sequence[str] = ("output",),
    ) -> Path:
        """Where the features of these weights on these images lie."""
        key = json.dumps([weights, fingerprint, asdict(transform), precision, list(layers)], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

    def read(self, path: Path, images: int) -> Tensor | None:
        """The features under `path`, memory-mapped; None when absent or not of `images` rows."""
        if not path.exists():
            return None
        try:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        whole = array.ndim == 2 and len(array) == images and array.dtype == np.float32
        return torch.from_numpy(array) if whole else None

    def write(self, path: Path, features: Tensor) -> None:
        """Publishes `features` under `path`."""
        with atomic_write(path) as file:
            np.save(file, features.numpy(), allow_pickle=False)


def read_feature_file(path: str | Path, *, mapped: bool = False) -> Features:
    """Features of any framework: an .npz with `features`[N, D] and `labels`[N] or, for several labels an
    image, `labels`[N, C] of 0 and 1.

    With `mapped` the features of an uncompressed file (numpy.savez writes such) stay on disk in their own
    type.

    Raises:
        UserError: the file or one of its arrays is missing, or their shapes do not go together.
    """
    try:
        features: np.ndarray | None = _map_member(Path(path), "features.npy") if mapped else None
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise ValueError("it holds a single array without a name")
        with content as arrays:
            features, labels = arrays["features"] if features is None else features, arrays["labels"]
    except KeyError as error:
        raise UserError(
            f"{path} has no array {error.args[0].split()[0]}: it must hold features[N,D] and labels[N]"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as an .npz file: {error}") from error
    if features.ndim != 2 or labels.ndim not in (1, 2) or len(labels) != len(features) or not len(features):
        raise UserError(
            f"{path} holds features{list(features.shape)} and labels{list(labels.shape)}; "
            "[N,D] and [N] (or [N,C]) are needed"
        )
    if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
        raise UserError(f"{path} holds labels of type {labels.dtype}; integers are needed")
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise UserError(f"{path} holds labels[N,C] other than 0 and 1")
    y = torch.from_numpy(labels.astype(np.int64))
    if not np.issubdtype(features.dtype, np.floating):
        raise UserError(f"{path} holds features of type {features.dtype}, not finite floating-point numbers")
    if isinstance(features, np.memmap):
        return Features(features, y)
    if not np.isfinite(features).all():
        raise UserError(f"{path} holds features that are not all finite floating-point numbers")
    return Features(torch.from_numpy(features.astype(np.float32)), y)


def _map_member(path: Path, name: str) -> np.memmap | None:
    """An array of an .npz file, mapped from it; None when it is not there or compressed."""
    with zipfile.ZipFile(path) as archive:
        found = next((info for info in archive.infolist() if info.filename == name), None)
        if found is None or found.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(found) as stream:  # compares the checksum at the end, which mapping would not
            while stream.read(2**20):
                pass
    with path.open("rb") as file:
        file.seek(found.header_offset + 26)  # the lengths of the name and of the extra field, then both
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(found.header_offset + 30 + int(lengths.sum()))
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            return None
        shape, fortran, dtype = header[version](file)
        if fortran or dtype.hasobject or len(shape) != 2:
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape)


class _Centred(Dataset[Tensor]):
    """uint8[3, crop, crop] of the images named by `indices`."""

    def __init__(self, images: Images, indices: Sequence[int], transform: Transform):
        self.images, self.indices, self.transform = images, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Tensor:
        image = self.images.image(self.indices[place])
        return centre_crop(image, self.transform.resize, self.transform.crop, self.transform.interpolation)
