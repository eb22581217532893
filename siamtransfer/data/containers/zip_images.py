"""Zip archives of images: a folder for each class, or images alone; stored or deflated."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamtransfer.data.class_names import classes_of, match_to_train
from siamtransfer.data.class_tree import remark_on_same_folders
from siamtransfer.data.containers.contained import ContainedImages, Handles, require_ordinary
from siamtransfer.data.containers.splits import files_of_splits, find_files
from siamtransfer.data.image_file import require_bytes
from siamtransfer.data.listing import PathTable, has_image_ending, is_hidden
from siamtransfer.data.parts import (
    Inside,
    Part,
    PartsOption,
    choose_part,
    find_parts,
    part_of,
    split_name,
)
from siamtransfer.data.sizes import reason_of
from siamtransfer.data.unreadable import UnreadableImage
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import printable

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

    The splits are folders in one archive, or archives (`train.zip`, `val.zip`); see parts.py for their
    names. A folder that holds all else is passed over. Classes and order are those of the same tree on disk,
    so the fingerprint is equal, too. Images beside class folders are skipped; where no image is in a folder,
    there are no labels.

    Raises:
        UserError: no such archive or split, no image, an archive is damaged, a name stands twice, all images
            are encrypted, or the classes differ from those of train.
    """

    def __init__(
        self, root: str | Path, split: str = "train", *, name: str = "zip", parts: PartsOption = "auto"
    ):
        place = _place_of_split(Path(root).expanduser().absolute(), split, parts)
        members = [
            Member(path.removeprefix(place.prefix), number, info)
            for number, archive in enumerate(place.archives)
            for path, info in _read_directory(archive).items()
            if path.startswith(place.prefix)
        ]
        where = printable(place.archives[0])
        self.skipped, self.skipped_example = 0, ""
        if any("/" in member.path for member in members):
            beside = [member.path for member in members if "/" not in member.path]
            self.skipped, self.skipped_example = len(beside), printable(beside[0]) if beside else ""
            members = [member for member in members if "/" in member.path]
        if not members:
            raise UserError(f"there are no images in {where}; check the path")
        label_of, classes, remarks = _classes(members, place, where)
        members.sort(key=lambda member: _order(member.path, label_of))
        _require_readable(where, members)
        self._set_arrays(members)
        labels = None
        if label_of is not None:
            labels = np.array([label_of[_folder(member.path)] for member in members], dtype=np.int64)
        names = PathTable("", [os.fsencode(member.path) for member in members])
        sizes = np.array([member.info.file_size for member in members], dtype=np.int64)
        super().__init__(name, place.split, place.archives, names, sizes, labels=labels, classes=classes)
        remark, doubtful = (
            _remark_on_layout(members, where) if place.whole and parts == "auto" else (None, False)
        )
        self.set_remarks = (*([remark] if remark else []), *remarks)
        self.doubt = remark if doubtful else None
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
        for size in (int(self._stored[index]), int(self.sizes[index])):  # as the archive claims
            require_bytes(size, self.describe(index), self.form)
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


def splits_of_zip(root: Path) -> list[str]:
    """The splits of archives below a folder, or in one archive."""
    if root.is_dir():
        groups = files_of_splits(root, ".zip")
        single = [path for paths in groups.values() for path in paths]
        if list(groups) != ["train"] or len(single) != 1:
            return list(groups)
        root = single[0]
    _, parts = _parts_of(list(_read_directory(root)), root)
    return [split_name(name, part) for part, name in parts.items()]


@dataclass(frozen=True)
class _Place:
    """The archives of a split, its name, the folder in them that holds it, and, for another split than train,
    the paths of the images of train below its own folder; `whole`: one archive without parts."""

    archives: list[Path]
    split: str
    prefix: str
    train: list[str]
    whole: bool = False


def _place_of_split(root: Path, split: str, parts: PartsOption) -> _Place:
    groups = files_of_splits(root, ".zip", parts)
    if root.is_file():
        archive = root
    elif list(groups) == ["train"] and len(groups["train"]) == 1:
        archive = groups["train"][0]
    else:
        archives, found = find_files(root, split, ".zip", "zip archives", parts)
        inside = [path for each in archives for path in _read_directory(each)]
        train = [path for each in groups.get("train", []) for path in _read_directory(each)]
        if found == "train":
            return _Place(archives, found, _common_folder(inside), [])
        return _Place(archives, found, _common_folder(inside), _below(train, _common_folder(train)))
    paths = list(_read_directory(archive))
    common, folders = ("", {}) if parts == "none" else _parts_of(paths, archive)
    if not folders:
        if split != "train":
            raise UserError(f"{printable(archive)} has no split {split}, as no folder in it names a split")
        return _Place([archive], split, _common_folder(paths), [], whole=True)
    part = choose_part(folders, split)
    if part is None:
        names = ", ".join(split_name(name, each) for each, name in folders.items())
        raise UserError(f"{printable(archive)} has no split {split}; its splits are {names}")
    name = folders[part]
    train = [] if part == "train" or "train" not in folders else _below(paths, f"{common}{folders['train']}/")
    return _Place([archive], split_name(name, part), f"{common}{name}/", train)


def _below(paths: list[str], prefix: str) -> list[str]:
    return [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]


def _read_directory(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Path to entry of every image in an archive; raises UserError."""
    require_ordinary(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile raises errors of many types for damaged archives
        raise UserError(
            f"{printable(path)} is no zip archive, is truncated or cannot be read ({reason_of(error)}); copy "
            "it again"
        ) from error
    if beyond := next((info for info in infos if max(info.file_size, info.compress_size) >> 62), None):
        raise UserError(
            f"{printable(path)} is damaged: {printable(beyond.filename)} claims to have {beyond.file_size:,} "
            "bytes; copy it again"
        )
    images: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removeprefix("./")
        if info.is_dir() or not has_image_ending(name) or any(is_hidden(part) for part in name.split("/")):
            continue
        if name in images:
            raise UserError(f"{printable(path)} has {printable(name)} twice; leave one in")
        images[name] = info
    return images


def _parts_of(paths: list[str], archive: Path) -> tuple[str, dict[Part, str]]:
    """The folder in an archive that holds the parts, and the folder of each; none where one alone is there
    and it is not train.

    Raises:
        UserError: it is not clear which folders are parts.
    """
    common = _common_folder(paths, above_parts=True)
    rest = [path.removeprefix(common).split("/") for path in paths]
    names = sorted({parts[0] for parts in rest if len(parts) > 1})
    flat = {parts[0] for parts in rest if len(parts) == 2}
    deep = {parts[0] for parts in rest if len(parts) > 2}
    found, _ = find_parts(names, lambda name: Inside(name in flat, name in deep), printable(archive))
    return common, found if "train" in found or len(found) > 1 else {}


def _common_folder(paths: list[str], *, above_parts: bool = False) -> str:
    """The folder that holds all paths, with a slash at its end; `above_parts` ends it above a folder that
    names a part."""
    if not paths:
        return ""
    parts = os.path.commonpath([str(Path("/", path).parent) for path in paths]).split("/")[1:]
    taken: list[str] = []
    for part in parts:
        if not part or (above_parts and part_of(part)):
            break
        taken.append(part)
    return "".join(f"{part}/" for part in taken)


def _folder(path: str) -> str:
    return path.partition("/")[0]


def _order(path: str, labels: dict[str, int] | None) -> tuple[int, bytes]:
    """The order of a tree of class folders on disk: by class, then by the bytes of the path."""
    if labels is None:
        return 0, os.fsencode(path)
    folder, _, rest = path.partition("/")
    return labels[folder], os.fsencode(rest)


def _remark_on_layout(members: list[Member], where: str) -> tuple[str | None, bool]:
    """What the folders inside class folders give away, as in a tree on disk."""
    inner: dict[str, set[str]] = {}
    for member in members:
        folder, *rest = member.path.split("/")
        inner.setdefault(folder, set()).update(rest[:-1][:1])
    names = {name: sorted(inside) for name, inside in inner.items()}
    return remark_on_same_folders(where, names, sorted(names))


def _require_readable(where: str, members: list[Member]) -> None:
    if all(member.info.flag_bits & ENCRYPTED for member in members):
        raise UserError(f"the images in {where} are encrypted; unpack it, or make it anew without a password")


def _classes(
    members: list[Member], place: _Place, where: str
) -> tuple[dict[str, int] | None, list[str], list[str]]:
    """The label of each class folder, the class names and remarks; no labels where no image is in a
    folder."""
    if not members or "/" not in members[0].path:
        return None, [], []
    filled = sorted({_folder(member.path) for member in members})
    if not any("/" in path for path in place.train):
        classes, remarks = classes_of(filled, [], where)
        return {name: label for label, name in enumerate(classes)}, classes, remarks
    classes, _ = classes_of(sorted({_folder(path) for path in place.train if "/" in path}), [], where)
    labels, remarks = match_to_train(filled, classes, place.split, where)
    return labels, classes, remarks
