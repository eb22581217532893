#!/usr/bin/env python3
"""Puts Detectron2 into the virtual environment whose Python runs this file.

    .venv/bin/python scripts/get_detectron2.py            the official repository, else release 0.6
    .venv/bin/python scripts/get_detectron2.py --release  release 0.6 without trying the repository
    .venv/bin/python scripts/get_detectron2.py --official the repository or nothing

The official repository has to be compiled, against the torch that is already installed. Where it cannot be
reached or built, the source archive of release 0.6 on the package index, pinned by its digest, gives its
Python files: box and mask R-CNN need no more. release_patches.py, beside this file, says which lines of them
are changed and why, so that scripts of your own run on current libraries. Running this twice changes nothing;
over files that an earlier version of it placed it makes the changes. It needs only the standard library.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

import release_patches

REPOSITORY = "https://github.com/facebookresearch/detectron2.git"
# main of June 2026, of which the reference numbers of this project are
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
ARCHIVE = "pb1-detectron2==0.6"
ARCHIVE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6"
MARKER = "get_detectron2.py"  # the content of the INSTALLER file that this script writes


class InstallError(Exception):
    """One sentence about why Detectron2 could not be installed."""


def main() -> None:
    arguments = parse_arguments()
    try:
        if not (arguments.system or in_environment()):
            raise InstallError(
                "this Python is not in a virtual environment; use that of one "
                "(`.venv/bin/python scripts/get_detectron2.py`) or allow changing this one with --system"
            )
        say(install(release=arguments.release, official=arguments.official))
    except InstallError as error:
        say(f"error: {error}")
        sys.exit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--release", action="store_true", help="take the release 0.6 archive, Python files only"
    )
    which.add_argument("--official", action="store_true", help="build the official repository or fail")
    parser.add_argument("--system", action="store_true", help="allow a Python outside a virtual environment")
    return parser.parse_args()


def install(release: bool, official: bool) -> str:
    """Installs Detectron2 unless it is installed; returns a sentence on what is installed."""
    folder = Path(sysconfig.get_paths()["purelib"])
    present = installed_kind()
    if present == "official" and release:
        raise InstallError("the official build is installed; run `pip uninstall detectron2` before --release")
    if present is not None and not (present == "release" and official):
        if present == "release" and mend_placed(folder):
            return f"detectron2 mended: {DESCRIPTIONS['release']}"
        return f"detectron2 is already installed: {DESCRIPTIONS[present]}"
    if not release:
        refusal = build_official()
        if refusal is None:
            return f"detectron2 installed: {DESCRIPTIONS['official']}"
        if official:
            raise InstallError(refusal)
        say(f"{refusal}; taking the archive of release {VERSION} instead")
    with tempfile.TemporaryDirectory() as scratch:
        place_package(download_archive(Path(scratch)), folder)
    return f"detectron2 installed: {DESCRIPTIONS['release']}"


DESCRIPTIONS = {
    "official": "the official repository, compiled",
    "release": f"the Python files of release {VERSION} (archive {ARCHIVE}, digest verified), fitted to "
    "current libraries",
}


def installed_kind() -> str | None:
    """Returns "official", "release" or None.

    A folder of the name detectron2 (a clone in the current directory, say) is a namespace package without an
    origin and does not count. A package of neither kind was installed by the user and is not touched.

    Raises:
        InstallError: there is such a package.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    if release_patches.is_compiled(package):
        return "official"
    installer = package.parent / f"detectron2-{VERSION}.dist-info" / "INSTALLER"
    if installer.is_file() and installer.read_text().strip() == MARKER:
        return "release"
    raise InstallError(
        f"{package} is a detectron2 that is neither compiled nor placed by this script; "
        "remove it (`pip uninstall detectron2`) and run this again"
    )


def in_environment() -> bool:
    return sys.prefix != sys.base_prefix or (Path(sys.prefix) / "conda-meta").is_dir()


def build_official() -> str | None:
    """Builds the official repository into this environment; returns the reason of a failure, or None."""
    refusal = unreachable(REPOSITORY) or missing_tools()
    if refusal:
        return refusal
    say(f"building {REPOSITORY} (minutes) ...")
    with tempfile.TemporaryDirectory() as scratch:
        # The wheel is built in a folder of its own: a failed build does not change the environment.
        built = pip("wheel", "--no-deps", "--no-build-isolation", "-w", scratch, f"git+{REPOSITORY}@{COMMIT}")
        wheels = sorted(Path(scratch).glob("detectron2-*.whl"))
        if built.returncode or not wheels:
            return f"the official repository did not build ({last_error(built)})"
        # In two steps: a release of the same version would satisfy the second step alone.
        for how in (("--force-reinstall", "--no-deps"), ()):
            placed = pip("install", *how, str(wheels[0]))
            if placed.returncode:
                return f"the built wheel did not install ({last_error(placed)})"
    return None


def unreachable(repository: str) -> str | None:
    if shutil.which("git") is None:
        return "the official repository needs git, which is not installed"
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        subprocess.run(
            ["git", "ls-remote", repository, "HEAD"], env=quiet, capture_output=True, check=True, timeout=15
        )
    except (subprocess.SubprocessError, OSError):
        return f"the official repository {repository} cannot be reached"
    return None


def missing_tools() -> str | None:
    """What the official build lacks, which imports torch and setuptools and compiles C++; or None."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return "the official repository needs a C++ compiler, and there is none"
    for name in ("torch", "setuptools"):
        if importlib.util.find_spec(name) is None:
            return f"the official repository needs {name} to be installed before it"
    return None


def download_archive(scratch: Path) -> Path:
    """Downloads the release's source archive by pip, with the user's own settings of the index.

    pip runs an archive's setup.py for metadata even when it only downloads. A stand-in for setuptools, which
    comes earlier on the path, returns them instead: no code of the archive runs, and neither torch nor a
    particular setuptools is needed. pip checks the digest too.
    """
    backend = scratch / "stand_in" / "setuptools" / "build_meta.py"
    backend.parent.mkdir(parents=True)
    (backend.parent / "__init__.py").touch()
    backend.write_text(STAND_IN)
    pinned = scratch / "pinned.txt"
    pinned.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n")
    how = ("--no-deps", "--use-pep517", "--no-build-isolation", "--no-binary", ":all:")
    stand_in = {"PYTHONPATH": str(backend.parent.parent)}
    done = pip("download", *how, "-d", str(scratch), "-r", str(pinned), environment=stand_in)
    archives = sorted(scratch.glob("*.tar.gz"))
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise InstallError(f"the index serves another {ARCHIVE} than the pinned one; nothing was installed")
    if done.returncode or not archives:
        raise InstallError(
            f"pip could not download {ARCHIVE} ({last_error(done)}); check the network and pip's index"
        )
    return archives[0]


STAND_IN = """
import pathlib, sys

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory) / "pb1_detectron2-0.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: pb1-detectron2\\nVersion: 0.6\\n")
    return folder.name

__legacy__ = sys.modules[__name__]
"""


def place_package(archive: Path, folder: Path) -> None:
    """Puts the archive's package `detectron2/` into `folder` (site-packages), with metadata that pip knows.

    Everything is unpacked in a temporary folder there and renamed, the package last: after an interruption
    nothing can be imported.
    """
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != ARCHIVE_SHA256:
        raise InstallError(f"{archive.name} has digest {digest}, not {ARCHIVE_SHA256}; nothing was installed")
    metadata = folder / f"detectron2-{VERSION}.dist-info"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".detectron2-") as scratch:
            unpacked = Path(scratch)
            unpack(archive, unpacked)
            release_patches.apply(unpacked / "detectron2")
            write_metadata(unpacked, metadata.name)
            shutil.rmtree(metadata, ignore_errors=True)
            (unpacked / metadata.name).rename(metadata)
            (unpacked / "detectron2").rename(folder / "detectron2")
    except OSError as error:
        raise InstallError(f"cannot write into {folder}: {error.strerror or error}") from error


def mend_placed(folder: Path) -> int:
    """Makes the changes of release_patches.py in files that an earlier version placed below `folder`; returns
    the number of files."""
    try:
        mended = release_patches.apply(folder / "detectron2")
        if mended:
            write_record(folder, f"detectron2-{VERSION}.dist-info")
    except OSError as error:
        raise InstallError(f"cannot write into {folder}: {error.strerror or error}") from error
    return mended


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks the regular files of the package, and the licence, into `folder`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(*Path(member.name).parts[1:])  # without the archive's top folder
            if not member.isfile() or ".." in path.parts:
                continue
            if path.parts[0] == "detectron2" or str(path) == "LICENSE":
                source = tar.extractfile(member)
                assert source is not None
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())


def write_metadata(folder: Path, name: str) -> None:
    """Writes the dist-info of the unpacked package, so that `pip list` and `pip uninstall` know it."""
    info = folder / name
    info.mkdir()
    (folder / "LICENSE").rename(info / "LICENSE")
    (info / "INSTALLER").write_text(MARKER + "\n")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: detectron2\nVersion: {VERSION}\n"
        f"Summary: Python files of Detectron2 {VERSION}, from {ARCHIVE}\nLicense: Apache-2.0\n"
        "Home-page: https://github.com/facebookresearch/detectron2\n"
    )
    write_record(folder, name)


def write_record(folder: Path, name: str) -> None:
    """Writes the list of all files of the package and of its dist-info `name`, with their digests."""
    record = folder / name / "RECORD"
    rows = [f"{name}/RECORD,,"]
    for path in sorted([*(folder / "detectron2").rglob("*"), *(folder / name).rglob("*")]):
        if not path.is_file() or path == record or path.suffix == ".pyc":
            continue
        data = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        rows.append(f"{path.relative_to(folder).as_posix()},sha256={digest},{len(data)}")
    record.write_text("\n".join(rows) + "\n")


def pip(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    settings = {**os.environ, **(environment or {})}
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def last_error(done: subprocess.CompletedProcess[str]) -> str:
    """pip's own message on what went wrong, in one line."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal", "× "))]
    return (errors or lines or ["pip said nothing"])[-1]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
