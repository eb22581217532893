"""The Fashion Scenes as files in the user's cache folder, written when they are first asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from siamtransfer.data.scenes.export import SceneCounts, is_intact
from siamtransfer.data.scenes.layouts import WRITERS, SceneLayout
from siamtransfer.data.scenes.objects import OBJECTS_SHA256
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.temporary import temporary_path

SCENES = "fashion-scenes"
"""What names the scenes among data."""


def written_scenes(layout: SceneLayout, scenes: SceneCounts) -> Path:
    """The folder of the scenes in the user's cache; the scenes are written unless it exists and is intact."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{layout}-{scenes.train}-{scenes.test}-{scenes.size}-{scenes.seed}-{OBJECTS_SHA256[:12]}"
    folder = home / "siamtransfer" / "scenes" / name
    if folder.exists() and not is_intact(folder):
        say(f"{folder} is damaged or of an older version and is written again")
        aside = temporary_path(folder)
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.replace(aside)
        shutil.rmtree(aside, ignore_errors=True)
    if not folder.exists():
        try:
            WRITERS[layout](folder, scenes)
        except UserError:
            if not folder.exists():  # else another process was faster, and what it wrote is the same
                raise
    return folder
