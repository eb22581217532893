"""What a file is by the ending of its name: an image, one that needs a package, a kind that is not read, or
something else.

Endings decide which files of a folder count as images. What an image is decided by its content when it is
decoded.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

FileStatus = Literal["image", "needs package", "array", "not read", "other"]


@dataclass(frozen=True)
class Package:
    """A package that reads a format, its module, and the extra of this project that installs it."""

    name: str
    module: str
    extra: str

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'siamtransfer[{self.extra}]'"

    def why(self, what: str) -> str:
        """Why `what`, such as `a HEIC photo`, is not read where the package is not installed."""
        return f"it is {what}, which needs {self.name} ({self.install})"


PILLOW_HEIF = Package("pillow-heif", "pillow_heif", "heic")
PYDICOM = Package("pydicom", "pydicom", "dicom")
IMAGECODECS = Package("imagecodecs", "imagecodecs", "multichannel")

_PLAIN = "jpg jpeg jpe jfif png webp bmp dib tif tiff gif ppm pgm pbm pnm avif tga jp2 j2k j2c jpc jpf jpx"
PLAIN = frozenset(_PLAIN.split())
"""Endings of images that are read without another package."""

PACKAGES = {
    "heic": PILLOW_HEIF,
    "heif": PILLOW_HEIF,
    "hif": PILLOW_HEIF,
    "dcm": PYDICOM,
    "dicom": PYDICOM,
    "jxl": IMAGECODECS,
}
"""Endings of images that a package of an extra reads. They count as images whether it is installed or not, so
that a missing package is said instead of files left out in silence."""

_RAW = "a camera's raw file: develop it to TIFF or JPEG, for example with rawpy or darktable"
_VECTOR = "no picture of pixels: render it to PNG"
_FRAMES = "a video: take frames out of it, for example with ffmpeg"
_LAYERS = "a document of an image editor: export it as PNG or TIFF"
_VOLUME = "a volume: write its slices as .npy or TIFF"
_PACKED = "an archive"
_NOT_READ_TABLE = (
    ("3fr arw cr2 cr3 crw dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw", _RAW),
    ("x3f", _RAW),
    ("ai emf eps pdf ps svg svgz wmf", _VECTOR),
    ("3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv", _FRAMES),
    ("kra ora psb psd xcf", _LAYERS),
    ("mha mhd nhdr nii nrrd", _VOLUME),
    ("fit fits", "a table or image of astronomy: write its image as .npy or TIFF"),
    ("mrxs ndpi scn svs vsi", "a whole slide: cut it into tiles"),
    ("exr hdr", "an image of high dynamic range: write it as 16-bit PNG or TIFF"),
    ("cur icns ico", "an icon: convert it to PNG"),
    ("dds djvu ktx pcx sgi xbm xpm", "an image of a rare format: convert it to PNG"),
    ("zip", f"{_PACKED}: --data.name zip reads the images in it"),
    ("tar", f"{_PACKED}: --data.name shards reads the images in it"),
    ("parquet", "a table: --data.name parquet reads the images in it"),
    ("7z bz2 gz rar tgz xz zst", f"{_PACKED}: unpack it"),
)
_NOT_READ = {ending: advice for endings, advice in _NOT_READ_TABLE for ending in endings.split()}
"""Endings of images and the like that are not read, and what a user can do."""


@dataclass(frozen=True)
class FileKind:
    """What a file is by its ending.

    Attributes:
        status: `image`; `needs package`: an image whose package is not installed; `array`: an .npy, an image
            in a set that holds nothing else; `not read`: images in some form, and not read; `other`.
        advice: what a user can do, in words that follow the name of the file; empty for images and others.
    """

    status: FileStatus
    advice: str = ""


def kind_of_ending(ending: str) -> FileKind:
    """The kind of a file by the ending of its name, such as `jpg`, without its dot and in any case."""
    ending = ending.lower()
    package = PACKAGES.get(ending)
    if package is not None and not package.is_installed:
        return FileKind("needs package", f"needs {package.name}: {package.install}")
    if package is not None or ending in PLAIN:
        return FileKind("image")
    if ending == "npy":
        return FileKind("array")
    advice = _NOT_READ.get(ending)
    return FileKind("other") if advice is None else FileKind("not read", advice)
