"""What opens each set of images that has a name, and finds the splits of a set of one's own.

A set's module is imported when the set is opened: each needs libraries of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.parts import PartsOption
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class OpenRequest:
    """The arguments of `open_images`, after the check against the set's entry in NAMED."""

    name: str
    split: str
    root: str | Path | None
    download: bool
    list_file: str | Path | None
    size: int | None
    count: int | None
    seed: int
    parts: PartsOption = "auto"
    frames_gap: int | None = None

    @property
    def folder(self) -> str | Path:
        """`root`, for a set that needs it; `open_images` has checked that there is one."""
        assert self.root is not None
        return self.root


def objects(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.scenes.objects import FashionObjects

    return FashionObjects(request.split)


def scenes(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.scenes.scenes import FashionScenes

    size = {} if request.size is None else {"size": request.size}
    return FashionScenes(request.split, count=request.count, seed=request.seed, **size)


def hidden_scenes(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.scenes.hidden import HiddenScenes

    size = {} if request.size is None else {"size": request.size}
    return HiddenScenes(request.split, count=request.count, seed=request.seed, **size)


def scene_cameras(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.scenes.pairs import scene_cameras

    size = {} if request.size is None else {"size": request.size}
    return scene_cameras(request.split, count=request.count, seed=request.seed, **size)


def scene_frames(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.scenes.pairs import scene_frames

    size = {} if request.size is None else {"size": request.size}
    gap = {} if request.frames_gap is None else {"gap": request.frames_gap}
    return scene_frames(request.split, count=request.count, seed=request.seed, **size, **gap)


def torchvision(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.torchvision_sets import open_torchvision

    return open_torchvision(request.name, request.folder, request.split, download=request.download)


def official(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.transfer_sets import open_official

    return open_official(request.name, request.folder, request.split, download=request.download)


def drawn(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.transfer_sets import open_drawn

    return open_drawn(request.name, request.folder, request.split, download=request.download)


def voc07(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.voc import VocImages

    return VocImages(request.folder, request.split, name=request.name, download=request.download)


def inaturalist(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.transfer_sets import open_inaturalist

    return open_inaturalist(request.name, request.folder, request.split)


def vtab_files(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.vtab_files import open_vtab_files

    return open_vtab_files(request.name, request.folder, request.split)


def pcam(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.vtab_arrays import open_pcam

    return open_pcam(request.folder, request.split)


def dsprites(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.vtab_arrays import open_dsprites

    return open_dsprites(request.name, request.folder, request.split)


def smallnorb(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.vtab_arrays import open_smallnorb

    return open_smallnorb(request.name, request.folder, request.split)


def folder(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.folders import ClassFolder

    return ClassFolder(request.folder, request.split, parts=request.parts)


def imagenet(request: OpenRequest) -> ImageSet:
    """The test split is the 50,000 validation images; a list selects a part of the training images."""
    from siamtransfer.data.folders import ClassFolder

    if request.list_file is None:
        return ClassFolder(request.folder, "train" if request.split == "train" else "val", name="imagenet")
    if request.split != "train":
        raise UserError(
            "data.list_file picks training images of imagenet, "
            f"so it cannot go with the split {request.split}"
        )
    return listed(request)


def shifted(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.shifted_sets import open_shifted

    return open_shifted(request.name, request.folder)


def corrupted(request: OpenRequest) -> ImageSet:
    """The split is a corruption and a severity, such as `fog/3`."""
    from siamtransfer.data.shifted_sets import open_corrupted

    return open_corrupted(request.folder, request.split)


def flat(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.folders import FlatFolder

    return FlatFolder(request.folder)


def listed(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.lists import ListedImages

    assert request.list_file is not None
    return ListedImages(request.list_file, request.root, name=request.name, split=request.split)


def pairs(request: OpenRequest) -> ImageSet:
    """The pairs of a table, or of frames in folders of videos."""
    if request.list_file is not None and request.frames_gap is not None:
        raise UserError(
            "data.frames_gap makes pairs of the frames below data.root, and data.list_file names the pairs "
            "itself: leave one of them out"
        )
    if request.list_file is not None:
        from siamtransfer.data.pair_table import open_pair_table

        return open_pair_table(request.list_file, request.root, name=request.name, split=request.split)
    if request.root is None or request.frames_gap is None:
        raise UserError(
            "pairs need data.list_file, a table with a path in each of two columns, or data.root, a folder "
            "with a folder of frames for each video, and data.frames_gap, how many frames two views are apart"
        )
    from siamtransfer.data.frames import open_frames

    return open_frames(request.root, request.frames_gap, name=request.name, split=request.split)


def shards(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.containers.shards import ShardImages

    return ShardImages(request.folder, request.split, parts=request.parts)


def zipped(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.containers.zip_images import ZipImages

    return ZipImages(request.folder, request.split, parts=request.parts)


def parquet(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.containers.parquet import ParquetImages

    return ParquetImages(request.folder, request.split, parts=request.parts)


def huggingface(request: OpenRequest) -> ImageSet:
    from siamtransfer.data.containers.huggingface import HuggingFaceImages

    return HuggingFaceImages(request.folder, request.split)


def parts_of_folder(root: Path) -> list[str]:
    """The splits with labels in a tree of class folders."""
    from siamtransfer.data.class_tree import labelled_splits

    return labelled_splits(root)


def parts_of_shards(root: Path) -> list[str]:
    from siamtransfer.data.containers.splits import files_of_splits

    return list(files_of_splits(root, ".tar"))


def parts_of_zip(root: Path) -> list[str]:
    from siamtransfer.data.containers.zip_images import splits_of_zip

    return splits_of_zip(root)


def parts_of_parquet(root: Path) -> list[str]:
    from siamtransfer.data.containers.splits import files_of_splits

    return list(files_of_splits(root, ".parquet"))


def parts_of_huggingface(root: Path) -> list[str]:
    from siamtransfer.data.containers.huggingface import splits_of_huggingface

    return splits_of_huggingface(root)
