"""What is written beside the record: the predicted masks as files, and a picture of some videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from siamtransfer.evaluation.dense.input_size import spread
from siamtransfer.evaluation.dense.sheet import Cell, Sheet
from siamtransfer.evaluation.video.tracking import Tracked
from siamtransfer.metrics.video_objects import region_similarity
from siamtransfer.segmentation.data.videos import Video
from siamtransfer.segmentation.pictures import class_colours, lay_over
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.temporary import temporary_folder

FRAMES_SHOWN = 6
SIDE = 288  # pixels, the longer side of a frame that is kept for a picture
COLOURS = 256


class MaskFolder:
    """Predicted masks as files, under a hidden name until all are there.

    Raises:
        UserError: (from any method) the folder cannot be written.
    """

    def __init__(self, folder: str):
        self._folder = Path(folder)
        self._making = temporary_folder(self._folder)
        self._palette = class_colours(COLOURS).ravel().tolist()

    def __enter__(self) -> MaskFolder:
        self._new = self._making.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._making.__exit__(None, None, None)  # an error of the block may be of other files

    def add(self, video: Video, frame: Tracked) -> None:
        """Writes VIDEO/FRAME.png with the colours of Pascal VOC, which are those of DAVIS."""
        path = self._new / video.name / f"{video.frames[frame.number].stem}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(frame.mask)
            image.putpalette(self._palette)
            image.save(path)
        except OSError as error:
            raise self._error(error) from error

    def finish(self) -> None:
        """Gives the folder its name."""
        try:
            self._new.replace(self._folder)
        except OSError as error:
            raise self._error(error) from error
        say(f"wrote the masks to {self._folder}")

    def _error(self, error: OSError) -> UserError:
        why = error.strerror or str(error)
        return UserError(f"cannot write the masks to {self._folder}: {why}; name another folder with --masks")


class Strips:
    """Frames of some videos with their masks, a row for the truth and one for the prediction."""

    def __init__(self, videos: Sequence[Video], count: int):
        shown = [videos[index] for index in spread(len(videos), count)]
        self._frames = {video.name: spread(len(video), FRAMES_SHOWN) for video in shown}
        self._rows: list[tuple[list[Cell], list[Cell]]] = []

    def add(self, video: Video, frame: Tracked) -> None:
        """Adds a frame, if it is shown, with the mean of J of its objects."""
        if frame.number not in self._frames.get(video.name, ()):
            return
        if frame.number == 0:
            self._rows.append(([], []))
        image = video.image(frame.number)
        name = f"{video.name} {video.frames[frame.number].stem}"
        pairs = [(frame.truth == number, frame.mask == number) for number in video.objects]
        score = sum(region_similarity(*pair) for pair in pairs) / len(pairs)
        caption = f"predicted: J {100 * score:.0f} %" if frame.number else "given"
        self._rows[-1][0].append(Cell(_with_objects(image, frame.truth), name))
        self._rows[-1][1].append(Cell(_with_objects(image, frame.mask), caption))

    def write(self, path: str, source: str) -> None:
        """Writes the PNG; raises UserError."""
        rows = [row for pair in self._rows for row in pair]
        Sheet([source, "above: truth; below: propagated from the first frame"], rows).write(Path(path))
        say(f"wrote {path}: {len(self._rows)} videos")


def _with_objects(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8[h, w, 3]: the colours of the objects over the image, of up to SIDE pixels."""
    mixed = np.where(mask[..., None] > 0, lay_over(image, mask, 0, COLOURS), image)
    picture = Image.fromarray(mixed)
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)
