"""Extracted features on disk.

The key is made of content (digest of the weights, fingerprint of the images, transform, precision), so new
weights under an old path have another key. A file is published by one rename, so it is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamtransfer.features.extract import Transform
from siamtransfer.utils.files import atomic_write


class FeatureCache:
    """Extracted features on disk, an .npy file for each key, in `folder`."""

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
        """The file for the features of these weights on these images."""
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
        complete = array.ndim == 2 and len(array) == images and array.dtype == np.float32
        return torch.from_numpy(array) if complete else None

    def write(self, path: Path, features: Tensor) -> None:
        """Publishes `features` under `path`."""
        with atomic_write(path) as file:
            np.save(file, features.numpy(), allow_pickle=False)
