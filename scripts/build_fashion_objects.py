#!/usr/bin/env python3
"""Rebuilds siamtransfer/data/scenes/fashion_objects.npz, the embedded images of Fashion-MNIST, byte by byte.

The rule: the first 700 images of each class in the official training file and the first 150 of each class in
the official test file, in the order of the files, stored class after class; 8,500 of 70,000 images, all ten
classes equally often. Training and test files have no image in common.

The encoding: a plain .npz (numpy.load reads it) of four arrays, with every degree of freedom of a zip pinned:
the order of members, the date 1980-01-01, the attributes, and the method bzip2. It is bzip2 rather than
numpy's zlib because zlib's output changes with the library (zlib, zlib-ng and Intel's differ) while bzip2's
has been the same since its release 1.0; it is also a tenth smaller.

Fashion-MNIST is by Zalando SE (MIT licence), https://github.com/zalandoresearch/fashion-mnist. Debian's
package dataset-fashion-mnist has the official files.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.cli import run
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.log import say

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
EMBEDDED_FILE = (
    Path(__file__).resolve().parent.parent / "siamtransfer" / "data" / "scenes" / "fashion_objects.npz"
)

OFFICIAL_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
PER_CLASS = {"train": 700, "test": 150}
FILE_PREFIX = {"train": "train", "test": "t10k"}


def read_official(path: Path) -> np.ndarray:
    """Reads one official idx file whose digest is the pinned one: uint8[N] labels or uint8[N, 28, 28] images.

    Raises:
        UserError: the file is missing or is not the official one.
    """
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; install Debian's dataset-fashion-mnist or name a folder "
            "with the four official .gz files"
        ) from error
    if hashlib.sha256(packed).hexdigest() != OFFICIAL_SHA256[path.name]:
        raise UserError(f"{path} is not the official file (its SHA-256 differs); download it again")
    content = gzip.decompress(packed)
    # idx: two zero bytes, the type (8 = uint8), the number of axes, then each length as big-endian int32.
    axes = content[3]
    shape = np.frombuffer(content, ">i4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def select_images(images: np.ndarray, labels: np.ndarray, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `per_class` images of each class in file order, class after class, and their labels."""
    chosen = np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in range(10)])
    return images[chosen], labels[chosen]


def encode_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an .npz that depend on the arrays and their order alone."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            file.writestr(entry, member.getvalue(), zipfile.ZIP_BZIP2, compresslevel=9)
    return archive.getvalue()


def build_fashion_objects(folder: Path) -> bytes:
    """The bytes of fashion_objects.npz, built from the four official files in `folder`."""
    arrays: dict[str, np.ndarray] = {}
    for split, per_class in PER_CLASS.items():
        images = read_official(folder / f"{FILE_PREFIX[split]}-images-idx3-ubyte.gz")
        labels = read_official(folder / f"{FILE_PREFIX[split]}-labels-idx1-ubyte.gz")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = select_images(images, labels, per_class)
    return encode_npz(arrays)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Reads the command line, then writes the file or compares it; returns its size and digest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=DEBIAN_FOLDER,
        help="folder with the four official .gz files (default: %(default)s)",
    )
    parser.add_argument(
        "out", nargs="?", type=Path, default=EMBEDDED_FILE, help="file to write (default: the embedded file)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 unless OUT is what would be written"
    )
    options = parser.parse_args(arguments)
    content = build_fashion_objects(options.folder)
    if options.check:
        same = options.out.is_file() and options.out.read_bytes() == content
        say(f"{options.out} {'equals' if same else 'differs from'} what {options.folder} gives")
        if not same:
            sys.exit(1)
    else:
        with atomic_write(options.out) as file:
            file.write(content)
        say(f"wrote {options.out}")
    return record(
        "build_fashion_objects",
        {"bytes": len(content)},
        {"per_class": PER_CLASS},
        sha256=hashlib.sha256(content).hexdigest(),
    )


if __name__ == "__main__":
    run(main)
