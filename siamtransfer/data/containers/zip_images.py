"""Zip archives of images: a folder for each class, or images alone; stored or deflated."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamtransfer.data.containers.contained import ContainedImages, Handles
from siamtransfer.data.containers.splits import files_of_splits, find_files, test_split
from siamtransfer.data.folders import FOLDERS_OF_SPLITS, SPLIT_FOLDERS
from siamtransfer.data.listing import PathTable, has_image_ending, is_hidden
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import first_few, printable

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
ENCRYPTED = 1  # a flag of a member


@dataclass(frozen=True)
class Member:
    """An image in an archive: its path below the split, its archive and where it lies in it."""

    path: str
    archive: int
    info: zipfile.ZipInfo


class ZipImages(ContainedImages):
    """The images of a split in zip archives, labelled by the first folder of their paths.

    The splits are folders in one archive, or archives (`train.zip`, `val.zip`). A folder that holds all else
    is passed over. Classes and order are those of the same tree on disk, so the fingerprint is equal, too.
    Images beside class folders are skipped; where no image is in a folder, there are no labels.

    Raises:
        UserError: no such archive or split, no image, an archive is damaged, a name stands twice, all images
            are encrypted, or the classes differ from those of train.
    """

    def __init__(self, root: str | Path, split: str = "train", *, name: str = "zip"):
        archives, split, prefix = _archives_of_split(Path(root).expanduser().absolute(), split)
        trees = [_read_directory(path) for path in archives]
        members = [
            Member(path.removeprefix(prefix), number, info)
            for number, tree in enumerate(trees)
            for path, info in tree.items()
            if path.startswith(prefix)
        ]
        where = printable(archives[0])
        self.skipped, self.skipped_example = 0, ""
        if any("/" in member.path for member in members):
            beside = [member.path for member in members if "/" not in member.path]
            self.skipped, self.skipped_example = len(beside), printable(beside[0]) if beside else ""
            members = [member for member in members if "/" in member.path]
        if not members:
            raise UserError(f"there are no images in {where}; check --data.root")
        members.sort(key=lambda member: _order(member.path))
        _require_readable(where, members)
        self._set_arrays(members)
        labels, classes = _labels(members)
        names = PathTable("", [os.fsencode(member.path) for member in members])
        sizes = np.array([member.info.file_size for member in members], dtype=np.int64)
        super().__init__(name, split, archives, names, sizes, labels=labels, classes=classes)
        self._handles = Handles(self.containers)

    def _set_arrays(self, members: list[Member]) -> None:
        infos = [member.info for member in members]
        self._archives = np.array([member.archive for member in members], dtype=np.int32)
        self._offsets = np.array([info.header_offset for info in infos], dtype=np.int64)
        self._stored = np.array([info.compress_size for info in infos], dtype=np.int64)
        self._crcs = np.array([info.CRC for info in infos], dtype=np.uint32)
        self._methods = np.array([info.compress_type for info in infos], dtype=np.int16)
        self._encrypted = np.array([info.flag_bits & ENCRYPTED for info in infos], dtype=bool)

    def container_of(self, index: int) -> int:
        """The position in `containers` of the archive that holds image `index`."""
        return int(self._archives[index])

    def encoded(self, index: int) -> bytes:
        """The bytes of image `index`, compared with their checksum; raises UnreadableImage."""
        if self._encrypted[index]:
            raise UnreadableImage(self.describe(index), "it is encrypted")
        method = int(self._methods[index])
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = f"it is compressed by method {method}, and zip archives must be stored or deflated"
            raise UnreadableImage(self.describe(index), why)
        try:
            data = self._stored_bytes(index)
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, int(self.sizes[index]) + 1)
        except OSError as error:
            why = f"the archive cannot be read ({error.strerror or error})"
            raise UnreadableImage(self.describe(index), why) from error
        except zlib.error as error:
            raise UnreadableImage(self.describe(index), f"it is damaged ({error})") from error
        if len(data) != self.sizes[index] or zlib.crc32(data) != self._crcs[index]:
            raise UnreadableImage(self.describe(index), "its bytes do not match the archive's checksum")
        return data

    def _stored_bytes(self, index: int) -> bytes:
        archive, offset = self.container_of(index), int(self._offsets[index])
        header = self._handles.read(archive, offset, LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise UnreadableImage(self.describe(index), "the archive is damaged where it begins")
        _, name, extra = LOCAL_HEADER.unpack(header)
        return self._handles.read(archive, offset + len(header) + name + extra, int(self._stored[index]))


def splits_of_zip(root: Path) -> str | None:
    """The test or validation split of archives, None where there is none."""
    if root.is_dir():
        groups = files_of_splits(root, ".zip")
        single = [path for paths in groups.values() for path in paths]
        if list(groups) != ["train"] or len(single) != 1:
            return test_split(groups)
        root = single[0]
    folders = _split_folders(_read_directory(root))
    return test_split({name: [root] for name in folders})


def _archives_of_split(root: Path, split: str) -> tuple[list[Path], str, str]:
    """The archives, the name of the split, and the folder in the archives that holds it."""
    groups = files_of_splits(root, ".zip")
    if root.is_file():
        archives = [root]
    elif list(groups) == ["train"] and len(groups["train"]) == 1:
        archives = groups["train"]
    else:
        archives, split = find_files(root, split, ".zip", "zip archives")
        return archives, split, _common_folder([path for a in archives for path in _read_directory(a)])
    paths = list(_read_directory(archives[0]))
    folders = _split_folders(paths)
    common = _common_folder(paths, stop=FOLDERS_OF_SPLITS)
    if not folders:
        if split != "train":
            raise UserError(
                f"{printable(archives[0])} has no split {split}, as no folder in it names a split"
            )
        return archives, split, _common_folder(paths)
    for name in SPLIT_FOLDERS.get(split, (split,)):
        if name in folders:
            inside = [path for path in paths if path.startswith(f"{common}{name}/")]
            _require_classes_of_train(archives[0], paths, common, name)
            return archives, name, f"{common}{name}/" if inside else common
    raise UserError(f"{printable(archives[0])} has no split {split}; its splits are {', '.join(folders)}")


def _require_classes_of_train(archive: Path, paths: list[str], common: str, split: str) -> None:
    classes = {
        name: {
            rest.partition("/")[0]
            for path in paths
            if path.startswith(f"{common}{name}/") and "/" in (rest := path.removeprefix(f"{common}{name}/"))
        }
        for name in (split, "train")
    }
    if classes["train"] and (different := sorted(classes[split] ^ classes["train"])):
        raise UserError(
            f"the class folders of {split} and train in {printable(archive)} differ "
            f"({printable(first_few(different))}); make them the same: a label is the position in their order"
        )


def _read_directory(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Path to entry of every image in an archive; raises UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, struct.error) as error:
        raise UserError(
            f"{printable(path)} is no zip archive, is truncated or cannot be read ({error}); copy it again"
        ) from error
    images: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removeprefix("./")
        if info.is_dir() or not has_image_ending(name) or any(is_hidden(part) for part in name.split("/")):
            continue
        if name in images:
            raise UserError(f"{printable(path)} has {printable(name)} twice; leave one in")
        images[name] = info
    return images


def _split_folders(paths: list[str] | dict[str, zipfile.ZipInfo]) -> list[str]:
    """The folders in an archive that name a split; empty without a train folder."""
    common = _common_folder(list(paths), stop=FOLDERS_OF_SPLITS)
    firsts = {
        path.removeprefix(common).partition("/")[0] for path in paths if "/" in path.removeprefix(common)
    }
    found = [name for name in FOLDERS_OF_SPLITS if name in firsts]
    return found if "train" in found else []


def _common_folder(paths: list[str], stop: tuple[str, ...] = ()) -> str:
    """The folder that holds all paths, with a slash at its end; it ends above a folder named in `stop`."""
    if not paths:
        return ""
    parts = os.path.commonpath([str(Path("/", path).parent) for path in paths]).split("/")[1:]
    taken: list[str] = []
    for part in parts:
        if not part or part in stop:
            break
        taken.append(part)
    return "".join(f"{part}/" for part in taken)


def _order(path: str) -> tuple[str, bytes]:
    """The order of a tree of class folders on disk: by class, then by the bytes of the path."""
    folder, _, rest = path.partition("/")
    return (folder, os.fsencode(rest)) if rest else ("", os.fsencode(path))


def _require_readable(where: str, members: list[Member]) -> None:
    if all(member.info.flag_bits & ENCRYPTED for member in members):
        raise UserError(f"the images in {where} are encrypted; unpack it, or make it anew without a password")


def _labels(members: list[Member]) -> tuple[np.ndarray | None, list[str]]:
    if "/" not in members[0].path:
        return None, []
    folders = [member.path.partition("/")[0] for member in members]
    classes = sorted(set(folders))
    number = {name: position for position, name in enumerate(classes)}
    return np.array([number[folder] for folder in folders], dtype=np.int64), classes
