"""Videos in the folders of DAVIS 2017: what is read, and what is refused in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.scenes.videos import VideoCounts, write_davis
from siamtransfer.segmentation.data.videos import open_videos
from siamtransfer.utils.errors import UserError

FRAMES, MASKS = "JPEGImages/480p/test-000", "Annotations/480p/test-000"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("davis") / "davis"
    write_davis(folder, VideoCounts(train=1, test=2, size=32, frames=5))
    return folder


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "davis"))


def test_a_split_is_read_with_its_objects(written: Path) -> None:
    videos = open_videos(written)
    assert [video.name for video in videos.videos] == ["test-000", "test-001"]
    assert videos.remarks == ()
    for video in videos.videos:
        assert len(video) == 5 and video.objects == tuple(range(1, len(video.objects) + 1))
        stored = np.array(Image.open(video.masks[3]))
        assert np.array_equal(video.mask(3), stored) and video.mask(3).dtype == np.uint8
        assert video.image(3).shape == (32, 32, 3)
    assert [v.name for v in open_videos(written, "train").videos] == ["train-000"]
    assert [v.name for v in open_videos(written, only=["test-001"]).videos] == ["test-001"]


def test_a_copy_has_the_same_fingerprint_and_another_split_has_not(written: Path, root: Path) -> None:
    assert open_videos(root).fingerprint == open_videos(written).fingerprint
    assert open_videos(root, "train").fingerprint != open_videos(root).fingerprint
    assert open_videos(root, only=["test-000"]).fingerprint != open_videos(root).fingerprint


def test_void_and_later_objects_are_background_and_are_said(root: Path) -> None:
    path = root / MASKS / "00002.png"
    mask = np.array(Image.open(path))
    mask[0, :4], mask[1, :4] = 255, 9
    Image.fromarray(mask).save(path)
    videos = open_videos(root)
    read = videos.videos[0].mask(2)
    assert not read[:2, :4].any() and np.array_equal(read[2:], mask[2:])
    assert len(videos.remarks) == 1 and "background: 9" in videos.remarks[0]


def test_a_gap_in_the_numbers_of_objects_is_said(root: Path) -> None:
    for path in (root / MASKS).iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 1, 7, mask).astype(np.uint8)).save(path)
    videos = open_videos(root)
    assert 7 in videos.videos[0].objects and 1 not in videos.videos[0].objects
    assert "not there and not scored: 1" in videos.remarks[0]


def save(values: np.ndarray, root: Path, name: str = "00001.png") -> None:
    Image.fromarray(values).save(root / MASKS / name)


def spoil_frame(root: Path) -> None:
    (root / FRAMES / "00002.jpg").write_bytes(b"\xff\xd8\xff no image")


def widen_frame(root: Path) -> None:
    Image.new("RGB", (40, 32)).save(root / FRAMES / "00003.jpg")
    save(np.zeros((32, 40), np.uint8), root, "00003.png")


def remove_pair(root: Path) -> None:
    (root / FRAMES / "00003.jpg").unlink()
    (root / MASKS / "00003.png").unlink()


def keep_two(root: Path) -> None:
    for number in (2, 3, 4):
        (root / FRAMES / f"0000{number}.jpg").unlink()


def list_of(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "ImageSets/2017/val.txt").write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no list": (
        lambda root: (root / "ImageSets/2017/val.txt").unlink(),
        r"cannot read the list of videos .*val\.txt .*no such file",
    ),
    "empty list": (list_of("\n"), r"val\.txt names no video"),
    "twice": (list_of("test-000\ntest-000\n"), r"names test-000 twice"),
    "unknown": (list_of("test-000\ncat\n"), r"cannot list .*JPEGImages/480p/cat: No such file"),
    "other resolution": (
        lambda root: (root / "JPEGImages/480p").rename(root / "JPEGImages/1080p"),
        r"JPEGImages has no folder 480p; data\.resolution",
    ),
    "no mask": (
        lambda root: (root / MASKS / "00002.png").unlink(),
        r"1 of the 5 frames of test-000 stand alone: of 00002\.jpg there is no .*00002\.png",
    ),
    "no frame": (
        lambda root: (root / FRAMES / "00002.jpg").unlink(),
        r"1 of the 5 masks of test-000 stand alone: of 00002\.png there is no .*00002\.jpg",
    ),
    "a gap": (remove_pair, r"not evenly numbered: 4 follows 2"),
    "too few": (keep_two, r"has 2 frames .* 3 are needed"),
    "two files": (
        lambda root: Image.new("RGB", (32, 32)).save(root / FRAMES / "00001.png"),
        r"two files of one frame, 00001\.jpg and 00001\.png",
    ),
    "other size": (
        lambda root: save(np.zeros((16, 32), np.uint8), root),
        r"00001\.jpg has 32 x 32 pixels and .*00001\.png has 32 x 16",
    ),
    "another frame's size": (widen_frame, r"00003\.jpg has 40 x 32 pixels, and the frames before it 32 x 32"),
    "16 bits": (lambda root: save(np.zeros((32, 32), np.uint16), root), r"00001\.png has 16 bits"),
    "colours": (lambda root: save(np.zeros((32, 32, 3), np.uint8), root), r"has 3 channels \(RGB\)"),
    "no object": (
        lambda root: save(np.zeros((32, 32), np.uint8), root, "00000.png"),
        r"first mask .*00000\.png shows no object.*begin the video",
    ),
    "only void": (
        lambda root: save(np.full((32, 32), 255, np.uint8), root, "00000.png"),
        r"shows no object.*255 means void",
    ),
    "a damaged frame": (spoil_frame, r"cannot read the frame .*00002\.jpg"),
    "a damaged mask": (
        lambda root: (root / MASKS / "00002.png").write_bytes(b"\x89PNG"),
        r"cannot read the mask .*00002\.png",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_named(kind: str, root: Path) -> None:
    spoil, message = BROKEN[kind]
    spoil(root)
    with pytest.raises(UserError, match=message):
        open_videos(root)


def test_a_video_that_the_list_does_not_have(written: Path) -> None:
    with pytest.raises(UserError, match=r"val\.txt has no video 'train-000'; it has test-000"):
        open_videos(written, only=["train-000"])
