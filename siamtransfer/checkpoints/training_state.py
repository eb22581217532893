"""Training states on disk: written completely or not at all, and verified when read.

    runs/<name>/checkpoint.pth                              always the newest complete state
    runs/<name>/checkpoints/step-0001200-3fa9c1d2e4b7.pth   the last K; the name carries the step and the
                                                            beginning of the SHA-256 of the file's bytes

A state holds tensors, numbers, texts, lists and dicts only, so `torch.load(weights_only=True)` suffices.
`StateFiles` does this for any training, under its own name; `Checkpoints` are those of pretraining.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from siamtransfer.checkpoints.declaration import FORMAT, VERSION_OF_CHOICES
from siamtransfer.checkpoints.own_format import check_readable
from siamtransfer.checkpoints.pickles import read_torch
from siamtransfer.checkpoints.state_names import is_state_name, state_name, step_of, verify_name
from siamtransfer.checkpoints.zip_records import refuse_records
from siamtransfer.utils.disk_errors import is_full
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import atomic_write
from siamtransfer.utils.regular_files import refuse_special
from siamtransfer.utils.temporary import clean_folders, is_temporary, temporary_path
from siamtransfer.utils.text import sentence
from siamtransfer.utils.zip_files import verify_zip


class StateFiles:
    """The states `name` of a training in the folder `run`, of which the last `keep` are kept.

    <run>/<name>.pth is the newest; <run>/<name>s/ holds the files with step and digest in their names.
    `option` is the command-line option that names the folder, for error messages. `guard` raises UserError
    where nothing may be written into the folder any more; it is asked before a file is begun, and before it
    gets its name.
    """

    option = "--run"

    def __init__(self, run: Path, name: str, keep: int = 1, *, guard: Callable[[], None] | None = None):
        self.published = run / f"{name}.pth"
        self.folder = run / f"{name}s"
        self.keep = keep
        self._guard = guard or (lambda: None)

    def save(self, state: dict[str, Any], step: int) -> Path:
        """Writes `state` as the newest checkpoint and publishes it; then removes older ones beyond `keep`.

        A process killed at any moment leaves the previous checkpoint in place or the new one complete.

        Raises:
            UserError: the state could not be read back (names the key; see `check_readable`), or the disk is
                full, also without what killed writers have left, or read-only (names the path and the free
                space). Nothing is written then.
        """
        check_readable(state)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        path = self.folder / state_name(step, hashlib.sha256(content).hexdigest())
        try:
            self._write(path, content)
        except UserError as error:
            if not is_full(error.__cause__) or not clean_folders(self.folder, self.published.parent):
                raise
            self._write(path, content)
        # Files of later steps are damaged ones that a resumed run has skipped; they are not kept.
        previous = [p for p in self._by_age() if p != path]
        older = [p for p in previous if step_of(p) <= step]
        for old in {*previous} - {*older[: max(self.keep, 1) - 1]}:
            old.unlink(missing_ok=True)
        return path

    def _write(self, path: Path, content: memoryview) -> None:
        self._guard()
        with atomic_write(path) as file:
            file.write(content)
            file.flush()
            self._guard()
        self._publish(path, content)

    def newest_step(self) -> int | None:
        """The step of the newest file that verifies; None where there is none."""
        path = self._newest_valid(lambda _: None)
        return None if path is None else step_of(path)

    def load_newest(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """The newest state that verifies, or None when the folder holds none at all.

        Damaged files are skipped, each with a warning that names it.

        Raises:
            UserError: there are checkpoints and all are damaged; a run never restarts silently.
        """
        path = self._newest_valid(warn)
        if path is None and self._by_age():
            raise UserError(
                f"all {len(self._by_age())} checkpoints in {self.folder} are damaged: restore one from a "
                f"copy, or start again in another {self.option}"
            )
        return None if path is None else self.read(path)

    def read(self, path: Path) -> dict[str, Any]:
        """The state in one file, on the CPU; see `load_state`."""
        return load_state(path)

    def publish_newest(self) -> None:
        """Makes checkpoint.pth the newest valid state again, after a kill between a save's two renames or
        damage to the published file; only for the holder of the run's lock."""
        path = self._newest_valid(lambda _: None)
        if path is not None and not (self.published.exists() and self.published.samefile(path)):
            self._publish(path, memoryview(path.read_bytes()))

    def publish_as(self, path: Path, step: int) -> None:
        """Keeps the newest valid state, which has to be that of `step`, under another name too; it stays when
        later saves remove the others."""
        newest = self._newest_valid(lambda _: None)
        assert newest is not None and step_of(newest) == step, f"the state of step {step} is not saved"
        self._link(newest, path, memoryview(newest.read_bytes()))

    def any(self) -> bool:
        """Whether the folder holds checkpoints, valid or damaged."""
        return self.published.exists() or bool(self._by_age())

    def clean(self) -> None:
        """Removes the temporary files of a killed write; only for the holder of the run's lock."""
        for folder in (self.folder, self.published.parent):
            for stray in folder.glob(".*.tmp"):
                if is_temporary(stray.name):
                    stray.unlink(missing_ok=True)

    def _publish(self, path: Path, content: memoryview) -> None:
        """Makes checkpoint.pth the same file as `path`."""
        self._link(path, self.published, content)

    @staticmethod
    def _link(path: Path, name: Path, content: memoryview) -> None:
        """Makes `name` the same file as `path` by one rename; a copy where links are not possible."""
        link = temporary_path(name)
        try:
            os.link(path, link)  # refused where the name exists
            link.replace(name)
        except OSError:
            link.unlink(missing_ok=True)
            with atomic_write(name) as file:
                file.write(content)

    def _newest_valid(self, warn: Callable[[str], None]) -> Path | None:
        """The newest file whose bytes match its name; `warn` gets a text for each damaged one."""
        for path in self._by_age():
            try:
                verify_name(path)
                return path
            except OSError as error:
                reason = str(error.strerror)
            except ValueError as error:
                reason = str(error)
            warn(f"{path} is damaged ({reason}); trying an older one")
        return None

    def _by_age(self) -> list[Path]:
        """Complete checkpoint files, newest step first."""
        if not self.folder.is_dir():
            return []
        paths = [path for path in self.folder.iterdir() if is_state_name(path.name)]
        return sorted(paths, key=lambda p: (step_of(p), p.lstat().st_mtime_ns), reverse=True)


class Checkpoints(StateFiles):
    """The checkpoints of a pretraining run: checkpoint.pth and the folder checkpoints/."""

    option = "--run.dir"

    def __init__(self, run: Path, keep: int = 2, *, guard: Callable[[], None] | None = None):
        super().__init__(run, "checkpoint", keep, guard=guard)

    def read(self, path: Path) -> dict[str, Any]:
        return read_state(path)


def load_state(path: Path) -> dict[str, Any]:
    """Reads a dict of tensors, numbers, texts, lists and dicts onto the CPU; runs no code of it.

    The checksums that PyTorch stores with the tensors are compared first, because torch.load does not.

    Raises:
        UserError: the file cannot be read, is damaged, or holds something else.
    """
    refuse_special(path)
    try:
        refuse_records(path)
        verify_zip(path)
        state = read_torch(path, mmap=False, trust=False)
    except Exception as error:  # torch.load raises a dozen types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(sentence(f"{path} cannot be read as a checkpoint: {reason}")) from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a training state of this program, so a run cannot resume from it")
    return state


def read_state(path: Path) -> dict[str, Any]:
    """Reads one of our own pretraining states onto the CPU; runs no code of it.

    Raises:
        UserError: the file cannot be read, is not a training state of ours, or is from a newer version.
    """
    state = load_state(path)
    if state.get("format") != FORMAT:
        raise UserError(f"{path} is not a training state of this program, so a run cannot resume from it")
    version = state.get("version", 0)
    if type(version) is not int:
        raise UserError(
            sentence(
                f"{path} is damaged: its version is {version!r}, no number; resume from another checkpoint"
            )
        )
    if version > VERSION_OF_CHOICES:
        raise UserError(f"{path} was written by a newer version of siamtransfer: update to read it")
    return state
