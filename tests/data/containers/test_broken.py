"""Broken containers: one sentence, or one unreadable image that is counted, and never other pixels."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.containers import Made, jpeg

from siamtransfer.data import UnreadableImage, open_images
from siamtransfer.data.containers.tar_index import index_path
from siamtransfer.data.readers import ReplacingReader
from siamtransfer.utils.errors import UserError


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path.parent


def sample(key: str, seed: int = 0, **beside: str) -> dict[str, bytes]:
    return {f"{key}.jpg": jpeg(seed)} | {f"{key}.{ending}": text.encode() for ending, text in beside.items()}


def refused(kind: str, root: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        open_images(kind, root=root, split=split)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Made:
    return Made({kind: Path(shutil.copytree(root, tmp_path / kind)) for kind, root in made.roots.items()})


def test_labels_beside_the_images_of_other_peoples_shards(tmp_path: Path) -> None:
    both = sample("./a", cls="1", txt="a photo") | sample("./b", 1, cls="0", txt="another")
    images = open_images("shards", root=write_tar(tmp_path / "1" / "0.tar", both))
    assert images.labels is not None and images.labels.tolist() == [1, 0] and images.classes == ("0", "1")
    assert images.describe(0).endswith("0.tar:a.jpg")
    named = sample("a", json='{"label": "dog"}') | sample("b", 1, json='{"label": "cat"}')
    images = open_images("shards", root=write_tar(tmp_path / "2" / "0.tar", named))
    assert images.labels is not None and images.labels.tolist() == [1, 0] and images.classes == ("cat", "dog")
    captions = sample("a", txt="a dog on a hill", json="{}") | sample("b", 1, txt="a cat", json="{}")
    images = open_images("shards", root=write_tar(tmp_path / "3" / "0.tar", captions))
    assert images.labels is None and images.classes == ()
    (tmp_path / "1" / "classes.txt").write_text("fish\nbird\nhorse\n")
    images = open_images("shards", root=tmp_path / "1")
    assert images.classes == ("fish", "bird", "horse")
    (tmp_path / "1" / "classes.txt").write_text("fish\n")
    assert "label 1, but 1 class names" in refused("shards", tmp_path / "1")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (sample("a") | {"a.png": b"x"}, "two images with the key a (a.jpg and a.png)"),
        (sample("a", cls="0") | sample("b"), "1 of the 2 images of the shard"),
        (sample("a", json="{"), "is no JSON"),
        (sample("a", json='{"label": 1.5}'), "neither an integer nor a name"),
        (sample("a", cls="-1") | sample("b", cls="x"), ""),
        ({"a.txt": b"no image"}, "there are no images in the shards"),
    ],
)
def test_shards_with_odd_samples(members: dict[str, bytes], said: str, tmp_path: Path) -> None:
    root = write_tar(tmp_path / "set" / "0.tar", members)
    if said:
        assert said in refused("shards", root)
    else:
        assert open_images("shards", root=root).classes == ("-1", "x")


def test_an_image_in_two_shards_and_shards_labelled_in_two_ways(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", sample("a", cls="0"))
    root = write_tar(tmp_path / "1.tar", sample("b", cls="0") | sample("a", cls="0"))
    assert "a.jpg is in the shard" in refused("shards", root)
    write_tar(tmp_path / "1.tar", sample("a", 1) | sample("b", 2))  # keys may begin anew in each shard
    assert "have different labels (by .cls, none)" in refused("shards", root)


def test_truncated_shards_are_refused_wherever_they_end(made: Made, tmp_path: Path) -> None:
    whole = sorted(made.roots["shards"].glob("train-*.tar"))[0].read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in (0, 100, 512, 1000, 1024, 2048, end - 300, end - end % 512 + 512, len(whole) // 512 * 256):
        shard = tmp_path / f"{size}" / "0.tar"
        shard.parent.mkdir()
        shard.write_bytes(whole[:size])
        sentence = refused("shards", shard.parent)
        assert str(shard) in sentence and "copy it again" in sentence
        assert not index_path(shard).exists()


def test_compressed_and_joined_shards_are_refused(made: Made, tmp_path: Path) -> None:
    whole = sorted(made.roots["shards"].glob("train-*.tar"))[0].read_bytes()
    (tmp_path / "0.tar").write_bytes(whole + whole)
    assert "goes on after its end mark" in refused("shards", tmp_path)
    write_tar(tmp_path / "x", {})
    with tarfile.open(tmp_path / "0.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    assert "is compressed (gzip)" in refused("shards", tmp_path)


def test_the_index_follows_its_shard(copy: Made) -> None:
    root = copy.roots["shards"]
    images = open_images("shards", root=root)
    shard = sorted(root.glob("train-*.tar"))[0]
    index = index_path(shard)
    for content in (b"", index.read_bytes()[:-9] + b"123456789"):
        index.write_bytes(content)
        assert open_images("shards", root=root).fingerprint == images.fingerprint
        assert index.exists()
    before = index.read_bytes()
    data = shard.read_bytes()
    write_tar(shard.parent / "new", sample("other", 7, cls="0"))
    (shard.parent / "new").replace(shard)
    assert index.read_bytes() == before
    changed = open_images("shards", root=root)
    assert changed.relative_name(0) == "other.jpg"  # type: ignore[attr-defined]
    with pytest.raises(UnreadableImage, match=r"not the one that was indexed|truncated"):
        images.image(1)  # opened before the shard was replaced
    shard.write_bytes(data)
    index.unlink()
    shard.parent.chmod(0o500)
    try:
        assert open_images("shards", root=root).fingerprint == images.fingerprint
    finally:
        shard.parent.chmod(0o700)


@pytest.mark.parametrize("kind", ["zip", "parquet"])
def test_a_damaged_image_is_unreadable_and_replaced(kind: str, copy: Made) -> None:
    images = open_images(kind, root=copy.roots[kind])
    path = Path(images.containers[0])  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    if kind == "zip":
        name = f"top/train/{images.relative_name(5)}".encode()  # type: ignore[attr-defined]
        at = data.index(name) + len(name) + 200
    else:
        at = data.index(images.encoded(5)[-60:])  # type: ignore[attr-defined]
    data[at : at + 9] = bytes(9)
    path.write_bytes(data)
    images = open_images(kind, root=copy.roots[kind])
    with pytest.raises(UnreadableImage, match=r"checksum|damaged|CRC"):
        images.image(5)
    _, failures = ReplacingReader(images)(5)
    assert failures[0][0] == images.describe(5)
    assert images.image(0).shape == (9, 11, 3)


def test_zip_archives_that_are_encrypted_flat_doubled_or_cut(tmp_path: Path, made: Made) -> None:
    whole = (made.roots["zip"] / "images.zip").read_bytes()
    path = tmp_path / "a.zip"
    path.write_bytes(whole[:-300])
    assert "is no zip archive, is truncated" in refused("zip", path)
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(3):
            archive.writestr(f"photos/{n}.jpg", jpeg(n))
        archive.writestr("photos/readme.md", b"text")
        archive.writestr("__MACOSX/photos/._0.jpg", b"remains")
    flat = open_images("zip", root=path)
    assert flat.labels is None and len(flat) == 3 and flat.describe(0).endswith("a.zip:0.jpg")
    encrypted = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := encrypted.find(signature, at + 1)) >= 0:
            encrypted[at + flags] |= 1
    path.write_bytes(encrypted)
    assert "are encrypted" in refused("zip", path)
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/0.jpg", jpeg(0))
        archive.writestr("a/0.jpg", jpeg(1))
    assert "has a/0.jpg twice" in refused("zip", path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/0.jpg", jpeg(0))
    with pytest.raises(UnreadableImage, match="stored or deflated"):
        open_images("zip", root=path).image(0)


def test_zip_splits_whose_classes_differ(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train/a/0.jpg", "train/b/0.jpg", "val/a/0.jpg"):
            archive.writestr(name, jpeg(0))
    val = open_images("zip", root=tmp_path / "a.zip", split="val")
    assert val.classes == ("a", "b") and val.labels is not None and val.labels.tolist() == [0]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("val/c/0.jpg", jpeg(0))
    assert "not among those of train (c)" in refused("zip", tmp_path / "a.zip", "val")
    assert "its splits are train, val" in refused("zip", tmp_path / "a.zip", "extra")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [0]}, "has no column of images"),
        ({"image": ["a.jpg"]}, "has no column of images"),
        ({"one": [b"x"], "two": [b"x"]}, "several columns that may be the images (one, two)"),
        ({"image": [b"x"], "label": [0.5]}, "is double; labels are integers or text"),
        ({"image": [b"x"], "label": [None]}, "is null; labels are integers or text"),
        ({"image": [b"x", b"x"], "label": ["a", None]}, "1 of the 2 rows"),
        ({"image": [b"x", b"x"], "label": [0, -1]}, "has the label -1"),
        ({"image": [b"x", b"x"], "label": ["a", ""]}, "is empty"),
        ({"image": []}, "has no column of images"),
    ],
)
def test_parquet_with_odd_columns(columns: dict[str, list[object]], said: str, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert said in refused("parquet", tmp_path)


def test_parquet_of_binary_and_names(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"img": [jpeg(0), None, jpeg(2)], "cls": ["zebra", "ant", "ant"], "more": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    images = open_images("parquet", root=tmp_path / "a.parquet")
    assert images.labels is not None
    assert (images.labels.tolist(), images.classes) == ([1, 0, 0], ("ant", "zebra"))
    assert images.image(2).shape == (9, 11, 3)
    with pytest.raises(UnreadableImage, match="row-00000001 because its row holds no bytes"):
        images.image(1)


def test_parquet_and_arrow_files_that_are_cut(copy: Made) -> None:
    for kind in ("parquet", "huggingface"):
        path = Path(open_images(kind, root=copy.roots[kind]).containers[0])  # type: ignore[attr-defined]
        path.write_bytes(path.read_bytes()[:700])
        sentence = refused(kind, copy.roots[kind])
        assert str(path) in sentence and "copy it again" in sentence


def test_hugging_face_folders_with_parts_missing(copy: Made) -> None:
    root = copy.roots["huggingface"]
    assert "its splits are train, val" in refused("huggingface", root, "extra")
    assert "holds no dataset_dict.json and no state.json" in refused("huggingface", root.parent)
    state = root / "val" / "state.json"
    state.write_text(state.read_text()[:-1] + ', "_indices_data_files": [{"filename": "x"}]}')
    assert "flatten_indices()" in refused("huggingface", root, "val")
    (root / "train" / "data-00001-of-00002.arrow").unlink()
    assert "data-00001-of-00002.arrow is missing" in refused("huggingface", root)
    (root / "train" / "state.json").write_text("{")
    assert "missing or damaged" in refused("huggingface", root)


def test_roots_and_splits_that_are_not_there(made: Made, tmp_path: Path) -> None:
    for kind in ("shards", "zip", "parquet"):
        assert "check the path" in refused(kind, tmp_path)
        assert "does not exist" in refused(kind, tmp_path / "nothing")
    assert "has no split extra; its splits are train, val" in refused("shards", made.roots["shards"], "extra")
    assert "is a single file" in refused("shards", next(made.roots["shards"].glob("*.tar")), "val")


def test_all_labels_minus_one_are_no_labels(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [jpeg(0)], "label": np.array([-1])}), tmp_path / "a.parquet")
    assert open_images("parquet", root=tmp_path).labels is None
