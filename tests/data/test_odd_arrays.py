"""Published sets that lie in files of arrays: odd ones are refused in a sentence, before much is read."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.sentences import is_sentence

from siamtransfer.data import open_images
from siamtransfer.data.vtab_arrays import DSPRITES, NORB
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.fault

BYTES, WORDS = 0x1E3D4C55, 0x1E3D4C54  # NORB's magic numbers


def refusal(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_images(name, root=root)
    assert is_sentence(caught.value) and str(root) in str(caught.value)
    return str(caught.value)


def norb(magic: int, shape: tuple[int, ...], numbers: bytes, stated: int | None = None) -> bytes:
    sizes = (*shape, *[1] * (3 - len(shape)))
    return (
        struct.pack(f"<{2 + len(sizes)}i", magic, len(shape) if stated is None else stated, *sizes) + numbers
    )


IMAGES = norb(BYTES, (2, 2, 4, 4), bytes(64))
INFO = norb(WORDS, (2, 4), bytes(32))
ODD_NORB: dict[str, tuple[bytes, bytes]] = {
    "another type": (norb(5, (2, 2, 4, 4), bytes(64)), INFO),
    "a negative size": (norb(BYTES, (-2, 2, 4, 4), bytes(64)), INFO),
    "two negative sizes": (norb(BYTES, (-2, -2, 4, 4), bytes(64)), INFO),
    "many dimensions": (norb(BYTES, (2, 2, 4, 4), bytes(64), 2**31 - 1), INFO),
    "terabytes": (norb(BYTES, (2**20, 2**10, 2**10, 4), bytes(64)), INFO),
    "too few": (norb(BYTES, (2, 2, 4, 4), bytes(63)), INFO),
    "too many": (norb(BYTES, (2, 2, 4, 4), bytes(65)), INFO),
    "images of integers": (norb(WORDS, (2, 2, 4, 4), bytes(256)), INFO),
    "no camera": (norb(BYTES, (2, 0, 4, 4), b""), INFO),
    "no pixels": (norb(BYTES, (2, 2, 0, 4), b""), INFO),
    "no images": (norb(BYTES, (0, 2, 4, 4), b""), norb(WORDS, (0, 4), b"")),
    "few columns": (IMAGES, norb(WORDS, (2, 1), bytes(8))),
    "columns of columns": (IMAGES, norb(WORDS, (2, 4, 1), bytes(32))),
    "nothing": (b"", b""),
}


def write_norb(root: Path, images: bytes, info: bytes, ending: str = "") -> None:
    for kind, content in (("dat", images), ("info", info)):
        (root / f"{NORB['train']}-{kind}.mat{ending}").write_bytes(content)


@pytest.mark.parametrize("kind", ODD_NORB)
@pytest.mark.parametrize("packed", [False, True])
def test_an_odd_file_of_norb(tmp_path: Path, kind: str, packed: bool) -> None:
    images, info = ODD_NORB[kind]
    if packed:
        write_norb(tmp_path, gzip.compress(images), gzip.compress(info), ".gz")
    else:
        write_norb(tmp_path, images, info)
    assert "is damaged" in refusal("smallnorb-azimuth", tmp_path)


def test_what_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    more_zeros = gzip.compress(bytes(2**24), 9) * 256  # 4 GiB
    write_norb(tmp_path, gzip.compress(IMAGES) + more_zeros, gzip.compress(INFO), ".gz")
    refusal("smallnorb-azimuth", tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def array(shape: str, kind: str = "|u1", numbers: int = 0, fortran: bool = False) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(numbers)


def saved(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


PIXELS, LATENTS = np.ones((10, 64, 64), np.uint8), np.zeros((10, 6), np.int64)
ODD_DSPRITES: dict[str, tuple[bytes, bytes]] = {
    "negative classes": (saved(PIXELS), saved(LATENTS - 1)),
    "classes beyond": (saved(PIXELS), saved(LATENTS + 40)),
    "fractions": (saved(PIXELS), saved(LATENTS + 0.5)),
    "NaN": (saved(PIXELS), saved(LATENTS * np.nan)),
    "few columns": (saved(PIXELS), saved(LATENTS[:, :2])),
    "one column": (saved(PIXELS), saved(LATENTS[:, 0])),
    "no images": (saved(PIXELS[:0]), saved(LATENTS[:0])),
    "a further axis": (saved(PIXELS[..., None]), saved(LATENTS)),
    "a narrow image": (saved(PIXELS[..., :63]), saved(LATENTS)),
    "columns first": (array("(10, 64, 64)", "|u1", 40_960, True), saved(LATENTS)),
    "large images": (array("(10, 100000, 1000000)", "|u1", 100), saved(LATENTS)),
    "many classes": (saved(PIXELS), array("(100000000000, 6)", "<i8", 48)),
    "objects": (saved(PIXELS), array("(10, 6)", "|O", 48)),
    "many of both": (array("(60000000, 64, 64)"), array("(60000000, 6)", "<i8")),
    "cut off": (array("(10, 64, 64)", "|u1", 100), saved(LATENTS)),
    "another version": (b"\x93NUMPY\x09\x00" + bytes(200), saved(LATENTS)),
}


@pytest.mark.parametrize("kind", ODD_DSPRITES)
def test_an_odd_file_of_dsprites(tmp_path: Path, kind: str) -> None:
    images, latents = ODD_DSPRITES[kind]
    with zipfile.ZipFile(tmp_path / DSPRITES, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("imgs.npy", images)
        archive.writestr("latents_classes.npy", latents)
    words = "beyond its 40" if "classes" in kind and kind != "many classes" else "is damaged"
    assert words in refusal("dsprites-orientation", tmp_path)


SLIDES, TUMOURS = np.zeros((4, 96, 96, 3), np.uint8), np.array([0, 1, 0, 1]).reshape(4, 1, 1, 1)
ODD_PCAM: dict[str, tuple[Any, Any]] = {
    "other classes": (SLIDES, TUMOURS * 7),
    "fractions": (SLIDES, TUMOURS * 0.5),
    "NaN": (SLIDES, TUMOURS * np.nan),
    "texts": (SLIDES, np.array([b"a"] * 4)),
    "no images": (SLIDES[:0], TUMOURS[:0]),
    "floating-point pixels": (SLIDES.astype(np.float32), TUMOURS),
    "pixels beyond 255": (SLIDES.astype(np.int16) + 300, TUMOURS),
    "terabytes of labels": (SLIDES, {"shape": (2**38,), "dtype": "u1", "chunks": (2**20,)}),
    "a group": (SLIDES, None),
    "a link to itself": (h5py.SoftLink("/x"), TUMOURS),
    "a link elsewhere": (h5py.ExternalLink("absent.h5", "/x"), TUMOURS),
}


@pytest.mark.parametrize("kind", ODD_PCAM)
def test_an_odd_file_of_pcam(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pcam").mkdir()
    for part in ("train", "valid"):
        for name, content in zip("xy", ODD_PCAM[kind], strict=True):
            file = tmp_path / f"pcam/camelyonpatch_level_2_split_{part}_{name}.h5"
            with h5py.File(file, "w") as stored:
                if content is None:
                    stored.create_group(name)
                elif isinstance(content, dict):
                    stored.create_dataset(name, **content)
                else:
                    stored[name] = content
    assert "is damaged" in refusal("pcam", tmp_path)


def idx(magic: int, sizes: tuple[int, ...], numbers: bytes) -> bytes:
    """A file of MNIST's, all big-endian."""
    return struct.pack(f">{1 + len(sizes)}i", magic, *sizes) + numbers


@pytest.mark.parametrize(
    "labels", [idx(2049, (3,), b"\0\1\2"), idx(2049, (2,), b"\0\12"), idx(2049, (0,), b""), b"", b"\x1f\x8b"]
)
def test_labels_of_mnist_that_do_not_fit(tmp_path: Path, labels: bytes) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(2051, (2, 28, 28), bytes(2 * 784)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    assert "is damaged" in refusal("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("dsprites-location", DSPRITES),
        ("smallnorb-azimuth", f"{NORB['train']}-dat.mat"),
        ("smallnorb-azimuth", f"{NORB['train']}-dat.mat.gz"),
        ("pcam", "pcam/camelyonpatch_level_2_split_train_y.h5"),
    ],
)
def test_a_pipe_in_place_of_a_sets_file_is_not_waited_for(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / file)
    assert "is a pipe" in refusal(name, tmp_path)
