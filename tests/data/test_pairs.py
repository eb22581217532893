"""Pairs of images: tables of paths, frames of videos, embedded scenes, and what is wrong with each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.pairs import PairImages
from siamtransfer.data.readers import ReplacingRowReader
from siamtransfer.data.registry import open_images
from siamtransfer.data.scenes.scenes import FashionScenes
from siamtransfer.utils.errors import UserError
from tests.support.thorough import more

TABLE = "rgb,infrared,label\na/1.png,b/1.png,cat\na/2.png,b/2.png,dog\na/3.png,b/3.png,cat\n"


def paint(path: Path, value: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value, value, value)
    Image.new(mode, (6, 4), colour).save(path, "PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """a/1.png to a/3.png in grey levels 10, 20, 30; b/ likewise with 110, 120, 130, of one channel."""
    for number in (1, 2, 3):
        paint(tmp_path / "a" / f"{number}.png", 10 * number)
        paint(tmp_path / "b" / f"{number}.png", 100 + 10 * number, "L")
    return tmp_path


def open_table(
    root: Path, text: str | bytes = TABLE, name: str = "pairs.csv", **options: object
) -> PairImages:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    images = open_images("pairs", list_file=path, **options)  # type: ignore[arg-type]
    assert isinstance(images, PairImages)
    return images


def values(images: PairImages) -> list[list[int]]:
    return [[int(image[0, 0, 0]) for image in images.row(index)] for index in range(len(images))]


def test_a_table_gives_rows_labels_and_the_first_column_as_the_set(root: Path) -> None:
    images = open_table(root)
    assert values(images) == [[10, 110], [20, 120], [30, 130]]
    assert images.column_names == ("rgb", "infrared") and images.column_channels == (3, 3)
    assert images.labels is not None and images.labels.tolist() == [0, 1, 0]
    assert images.classes == ("cat", "dog") and images.image_size is None
    assert images.image(1)[0, 0, 0] == 20 and images.columns[1].name == "pairs:infrared"
    assert images.describe(0) == f"{root}/a/1.png and {root}/b/1.png"


@pytest.mark.parametrize(
    "text, name",
    [
        ("a/1.png,b/1.png\na/2.png,b/2.png\n", "pairs.txt"),
        ("a/1.png\tb/1.png\r\n# a comment\n\na/2.png\tb/2.png", "pairs.tsv"),
        ("\ufefffirst;second\na/1.png;b/1.png\na/2.png;b/2.png", "pairs.csv"),
        more('"a/1.png" , "b/1.png"\n./a/2.png,b/2.png', "pairs.csv"),
    ],
)
def test_headers_and_dividers_of_any_kind(root: Path, text: str, name: str) -> None:
    images = open_table(root, text, name)
    assert values(images) == [[10, 110], [20, 120]] and images.labels is None


def test_columns_are_chosen_by_name_or_number_and_one_is_a_plain_set(root: Path) -> None:
    for wanted in (["infrared", "1"], [2, 1], ["2", "rgb"]):  # YAML reads numbers as such
        assert values(open_table(root, columns=wanted)) == [[110, 10], [120, 20], [130, 30]]
    alone = open_images("pairs", list_file=root / "pairs.csv", columns=["infrared"], column_channels=[1])
    assert not isinstance(alone, PairImages)
    assert alone.image(2).shape == (4, 6, 1) and alone.image(2)[0, 0, 0] == 130
    assert alone.labels is not None and alone.labels.tolist() == [0, 1, 0]


def test_channels_of_each_column_are_stated(root: Path) -> None:
    images = open_table(root, column_channels=[3, 1])
    assert images.column_channels == (3, 1) and images.channels == 3
    assert [image.shape for image in images.row(0)] == [(4, 6, 3), (4, 6, 1)]
    assert images.fingerprint != open_table(root).fingerprint


def test_the_fingerprint_covers_every_column_and_their_order(root: Path) -> None:
    first = open_table(root)
    assert open_table(root).fingerprint == first.fingerprint
    assert open_table(root, columns=["2", "1"]).fingerprint != first.fingerprint
    content = first.content_fingerprint
    paint(root / "b" / "3.png", 131, "L")
    assert open_table(root).content_fingerprint != content


def test_a_pair_of_which_one_image_is_damaged_is_replaced_as_a_whole(root: Path) -> None:
    (root / "b" / "2.png").write_bytes(b"\x89PNG no more")
    read = ReplacingRowReader(open_table(root))
    row, failures = read(1)
    assert [[int(image[0, 0, 0]) for image in row]] in ([[10, 110]], [[30, 130]])
    assert [where for where, _ in failures] == [f"{root}/b/2.png"]
    assert read(0)[1] == []


@pytest.mark.parametrize(
    "text, problem",
    [
        ("a,b\na/1.png,b/1.png\na/2.png\n", "line 3 of .*pairs.csv has 1 column, divided by commas, and the"),
        (
            "a,b\na/1.png,b/1.png\na/9.png,b/2.png\n",
            "1 of the 2 files in .* are missing, first that of line 3",
        ),
        ("a,b\na/1.png,b/1.png\na/1.png,b/2.png\n", "names 1 files more than once .*in lines 2 and 3"),
        ("a,b\na/1.png,b/1.png\na/2.png,a/2.png\n", "line 3 of .* names a/2.png in two columns"),
        ("a,b\na/1.png,b/1.png\na/2.png,\n", "line 3 of .* has no path in the column b"),
        (
            "a/1.png,b/1.png,c/1.png\na/2.png,b/2.png,c/2.pn\na/3.png,b/3.png,c/3.png\n",
            "line 2 of .* has c/2.pn in the column 3, of which 2 other cells end as images do",
        ),
        ("path,label\na/1.png,cat\n", "has 1 column whose cells all name images, and pairs need two"),
        ("a,a\na/1.png,b/1.png\n", "the header of .* names the column a twice"),
        ("a,b\n", "has a header and no rows"),
        ("\n# nothing\n", "the table .* is empty: write a header"),
        ("a,b,label,class\na/1.png,b/1.png,x,y\n", "several columns that may be the labels .label, class."),
        ("a,b,label\na/1.png,b/1.png,x\na/2.png,b/2.png,\n", "line 3 of .* has no label although 1 other"),
        ('a,b\n"a/1.png,b/1.png\n', "is no row of a table"),
    ],
)
def test_a_bad_table_gets_a_sentence_with_its_line(root: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        open_table(root, text)


def test_columns_that_are_not_read_are_remarked_on(root: Path) -> None:
    """Also where a column stands alone; a header of numbers names no labels."""
    images = open_table(root, "1,2,3\na/1.png,b/1.png,c\n")
    assert images.labels is None and "columns that are not read: 3" in images.set_remarks[0]
    assert images.columns[1].set_remarks == images.set_remarks  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"columns": ["thermal"]}, "there is no column thermal; the columns of images are rgb, infrared"),
        ({"columns": ["rgb", "1"]}, "must name different columns of rgb, infrared"),
        ({"columns": ["3"]}, "by number 1 to 2"),
        ({"column_channels": [3]}, r"data.column_channels is \[3\], and there are 2 columns"),
        ({"column_channels": [3, 1], "channels": 3}, "both state the channels"),
        ({"column_channels": [3, 0]}, "one channel or more, not 0"),
        ({"frames_gap": 1}, "data.frames_gap makes pairs of the frames below data.root"),
        more({"frames_gap": -1}, "data.frames_gap is -1, but must be at least 0"),
    ],
)
def test_options_that_do_not_fit_the_table(root: Path, options: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        open_table(root, **options)


def test_options_of_pairs_are_refused_elsewhere_and_pairs_need_a_source(root: Path) -> None:
    with pytest.raises(UserError, match=r"data.columns: flat .* does not take it"):
        open_images("flat", root=root, columns=["1"])
    with pytest.raises(UserError, match=r"pairs need data.list_file, a table .*, or data.root"):
        open_images("pairs", root=root)


def test_frames_are_paired_within_a_video_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for video, count in (("v1", 12), ("v2", 3), ("short", 2)):
        for frame in range(count):
            paint(tmp_path / video / f"frame_{frame}.png", 20 * ("v2" in video) + frame)
    images = open_images("pairs", root=tmp_path, frames_gap=2)
    assert isinstance(images, PairImages)
    assert values(images) == [[frame, frame + 2] for frame in range(10)] + [[20, 22]]
    assert images.labels is None and images.set_remarks == (
        f"11 pairs of frames that are 2 apart, of 2 of the 3 videos in {tmp_path}",
        "videos of 2 frames or fewer give no pair: short",
    )
    same = open_images("pairs", root=tmp_path, frames_gap=0)
    assert isinstance(same, PairImages) and len(same) == 17 and values(same)[13] == [11, 11]
    with pytest.raises(UserError, match="has 12 frames, so no two are so far apart: at most 11 is possible"):
        open_images("pairs", root=tmp_path, frames_gap=12)


def test_embedded_pairs_begin_with_the_scenes_themselves() -> None:
    scenes = FashionScenes("train", 32, 70)
    cameras, frames = (open_images(name, count=70) for name in ("fashion-pairs", "fashion-frames"))
    for images in (cameras, frames):
        assert isinstance(images, PairImages)
        assert all(np.array_equal(images.image(index), scenes.image(index)) for index in range(70))
        assert np.array_equal(images.labels, scenes.labels)
    assert isinstance(cameras, PairImages) and isinstance(frames, PairImages)
    red, green, blue = scenes.image(5)[7, 9].tolist()
    assert cameras.row(5)[1][7, 9].tolist() == [255 - (77 * red + 150 * green + 29 * blue) // 256] * 3
    narrow = open_images("fashion-pairs", count=70, column_channels=[3, 1])
    assert isinstance(narrow, PairImages) and narrow.column_channels == (3, 1)


def test_objects_of_embedded_frames_move_with_the_gap_and_the_background_stays() -> None:
    changed = {}
    for gap in (0, 1, 4):
        images = open_images("fashion-frames", count=64, frames_gap=gap)
        assert isinstance(images, PairImages)
        now, later = (np.stack([images.row(index)[column] for index in range(64)]) for column in (0, 1))
        changed[gap] = float((now != later).any(axis=3).mean())
        assert (now[:, 0, 0] == later[:, 0, 0]).all(axis=1).mean() > 0.9
    assert changed[0] == 0 and 0.1 < changed[1] < changed[4] < 0.5
