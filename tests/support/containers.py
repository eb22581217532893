"""One tree of images in every kind of container."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data import open_images
from siamtransfer.data.folders import FileImages
from siamtransfer.data.packing import PackSettings, pack

CLASSES = ("a-b", "a", "zoo")


@dataclass
class Made:
    """The same images as a folder and as containers: their roots by the name of the set."""

    roots: dict[str, Path]


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def write_tree(root: Path) -> Path:
    seed = 0
    for split, count in (("train", 4), ("val", 2)):
        for name in CLASSES:
            for number in range(count):
                path = root / split / name / f"{name}_{number}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(seed := seed + 1))
    return root


def write_zip(root: Path, tree: Path) -> Path:
    root.mkdir()
    with zipfile.ZipFile(root / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(sorted(tree.rglob("*.JPEG"), reverse=True)):
            method = zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED
            archive.write(path, f"top/{path.relative_to(tree)}", method)
    return root


def rows(tree: Path, split: str) -> dict[str, list[object]]:
    images = open_images("folder", root=tree, split=split)
    assert isinstance(images, FileImages) and images.labels is not None
    structs = [{"bytes": images.encoded(i), "path": images.relative_name(i)} for i in range(len(images))]
    return {"image": list(structs), "label": images.labels.tolist()}


def features() -> dict[str, object]:
    return {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": sorted(CLASSES)},
    }


def write_parquet(root: Path, tree: Path) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (root / "data").mkdir(parents=True)
    for split in ("train", "val"):
        description = json.dumps({"info": {"features": features()}})
        table = pa.table(rows(tree, split)).replace_schema_metadata({"huggingface": description})
        half = len(table) // 2
        for number, part in enumerate((table[:half], table[half:])):
            file = root / "data" / f"{split}-0000{number}-of-00002.parquet"
            pq.write_table(part, file, row_group_size=2, write_page_checksum=True)
    return root


def write_huggingface(root: Path, tree: Path) -> Path:
    """The files that save_to_disk of `datasets` writes."""
    pa = pytest.importorskip("pyarrow")
    for split in ("train", "val"):
        folder = root / split
        folder.mkdir(parents=True)
        table = pa.table(rows(tree, split))
        names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
        half = len(table) // 2
        for name, part in zip(names, (table[:half], table[half:]), strict=True):
            with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(part, max_chunksize=3)
        state = {"_data_files": [{"filename": name} for name in names], "_split": split}
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "dataset_info.json").write_text(json.dumps({"features": features()}))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "val"]}))
    return root


def make_all(base: Path) -> Made:
    """Writes the tree and every container of it below `base`."""
    tree = write_tree(base / "tree")
    sets = [open_images("folder", root=tree, split=split) for split in ("train", "val")]
    pack(sets, base / "shards", PackSettings(shard_bytes=12_000))
    return Made(
        {
            "folder": tree,
            "shards": base / "shards",
            "zip": write_zip(base / "zip", tree),
            "parquet": write_parquet(base / "parquet", tree),
            "huggingface": write_huggingface(base / "hf", tree),
        }
    )
